//! What other users may, as seen through the kernel's word about them. Needs root to become somebody else; skipped otherwise.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Output;

use spooler::system::control::Access;
use spooler_protocol::control::MessageState;

use super::supervisor::Running;

const SOMEBODY: u32 = 65_533;
const SOME_GROUP: u32 = 65_532;

/// A socket that everybody can reach, or nothing if this is not root.
fn reachable(access: Access) -> Option<Running> {
    if !nix::unistd::getuid().is_root() {
        eprintln!("skipped: only root can become another user");
        return None;
    }
    let running = Running::start_for(access);
    set_permissions(running.folder.path(), Permissions::from_mode(0o755)).unwrap();
    set_permissions(running.socket(), Permissions::from_mode(0o666)).unwrap();
    Some(running)
}

fn as_somebody(running: &Running, gid: u32, arguments: &[&str]) -> Option<Output> {
    // A copy: the folder that the program was built in may be closed to others.
    let copy = running.folder.path().join("copy");
    if !copy.exists() {
        std::fs::copy(env!("CARGO_BIN_EXE_spoolctl"), &copy).unwrap();
    }
    let mut command = std::process::Command::new(copy);
    command.args(arguments).env("SPOOLER_SOCKET", running.socket()).uid(SOMEBODY).gid(gid);
    match command.output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("skipped: cannot become another user: {error}");
            None
        }
    }
}

#[test]
fn strangers_are_turned_away_with_a_reason() {
    let access = Access { owner_uid: 0, submit_group: Some(SOME_GROUP), monitor_group: None, anyone_may_submit: false };
    let Some(running) = reachable(access) else { return };
    for arguments in [&["status"][..], &["queue", "list"], &["flush"], &["submit", "--to", "a@x"]] {
        let Some(output) = as_somebody(&running, 65_531, arguments) else { return };
        assert_eq!(output.status.code(), Some(77), "{arguments:?}");
        assert!(String::from_utf8(output.stderr).unwrap().contains("may not use this spooler"));
    }
}

#[test]
fn members_see_and_delete_their_own_messages_only() {
    let access = Access { owner_uid: 0, submit_group: Some(SOME_GROUP), monitor_group: None, anyone_may_submit: false };
    let Some(running) = reachable(access) else { return };
    running.books.add_messages(1, 0, MessageState::Ready);
    running.books.add_messages(1, SOMEBODY, MessageState::Ready);
    let Some(output) = as_somebody(&running, SOME_GROUP, &["queue", "list", "--json"]) else { return };
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("\"id\":2") && !text.contains("\"id\":1"), "{text}");
    let code = |arguments: &[&str]| as_somebody(&running, SOME_GROUP, arguments).unwrap().status.code();
    assert_eq!(code(&["queue", "show", "2"]), Some(0));
    assert_eq!(code(&["queue", "show", "1"]), Some(65));
    assert_eq!(code(&["queue", "cat", "1"]), Some(65));
    assert_eq!(code(&["queue", "hold", "2"]), Some(77));
    assert_eq!(code(&["flush"]), Some(77));
    assert_eq!(code(&["provider", "restart", "x"]), Some(77));
    assert_eq!(code(&["status"]), Some(0));
    let deleted = as_somebody(&running, SOME_GROUP, &["queue", "delete", "--all"]).unwrap();
    assert!(String::from_utf8(deleted.stdout).unwrap().starts_with("1 message "));
}

#[test]
fn a_closed_socket_is_a_matter_of_permission() {
    let access = Access { owner_uid: 0, submit_group: None, monitor_group: None, anyone_may_submit: false };
    let Some(running) = reachable(access) else { return };
    set_permissions(running.socket(), Permissions::from_mode(0o600)).unwrap();
    let Some(output) = as_somebody(&running, SOMEBODY, &["status"]) else { return };
    assert_eq!(output.status.code(), Some(77));
    assert!(String::from_utf8(output.stderr).unwrap().contains("submit group"));
}

#[test]
fn mailq_counts_messages_of_others() {
    let access = Access { owner_uid: 0, submit_group: None, monitor_group: Some(SOME_GROUP), anyone_may_submit: true };
    let Some(running) = reachable(access) else { return };
    running.books.add_messages(2, 0, MessageState::Held);
    let said = |gid, arguments: &[&str]| {
        let output = as_somebody(&running, gid, arguments)?;
        Some((output.status.code(), String::from_utf8(output.stdout).unwrap()))
    };
    let Some((code, text)) = said(65_531, &["sendmail", "-bp"]) else { return };
    assert_eq!(
        (code, text.as_str()),
        (Some(0), "You have no messages here (2 of others)\n-- ? Kbytes in 2 Requests.\n")
    );
    let (_, text) = said(65_531, &["queue", "list"]).unwrap();
    assert_eq!(text, "You have no messages here (2 of others)\n");
    let (_, text) = said(SOME_GROUP, &["sendmail", "-bp"]).unwrap();
    assert!(text.contains("s1@x") && text.ends_with("-- 1 Kbytes in 2 Requests.\n"), "{text}");
    assert_eq!(said(SOME_GROUP, &["queue", "show", "1"]).unwrap().0, Some(0));
    assert_eq!(said(SOME_GROUP, &["queue", "cat", "1"]).unwrap().0, Some(65), "the content is for its owner");
    assert_eq!(said(SOME_GROUP, &["queue", "delete", "1"]).unwrap().0, Some(65));
    for gid in [65_531, SOME_GROUP] {
        let (_, text) = said(gid, &["queue", "count", "--json"]).unwrap();
        assert!(text.contains("\"total\":2") && text.contains("\"oldest_ms\":"), "{text}");
    }
}
