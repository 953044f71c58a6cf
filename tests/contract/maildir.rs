//! Scenarios of the `maildir` provider.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Uid, User};
use spooler_protocol::from_worker::FromWorker;
use spooler_protocol::outcome::{Outcome, SubmitResult};
use tempfile::TempDir;

use crate::data;
use crate::peer::Peer;

const MESSAGE: &[u8] = b"Subject: hello\r\n\r\nfirst\r\n.\r\n..last\r\n";

/// A worker that writes below a fresh folder.
fn worker(path: &str, more: &str) -> (Peer, TempDir) {
    let dir = TempDir::new().unwrap();
    if let Some((base, _)) = path.split_once("/{")
        && !base.contains("{")
    {
        fs::create_dir_all(dir.path().join(base)).unwrap();
    }
    let settings = format!("path = '{}/{path}'\n{more}", dir.path().display());
    let (peer, _) = Peer::logged_on("maildir", &settings);
    (peer, dir)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The only message in a maildir.
fn only_message(maildir: &Path) -> Vec<u8> {
    let messages = files(&maildir.join("new"));
    assert_eq!(messages.len(), 1, "{messages:?}");
    fs::read(&messages[0]).unwrap()
}

fn enhanced(outcome: &Outcome) -> (&'static str, &str) {
    let kind = match outcome {
        Outcome::Delivered(_) => "delivered",
        Outcome::Relayed { .. } => "relayed",
        Outcome::Failed(_) => "failed",
        Outcome::Deferred(_) => "deferred",
    };
    (kind, &outcome.reply().enhanced)
}

fn deliver_one(peer: &mut Peer, recipient: &str, content: &[u8]) -> Outcome {
    let (result, mut outcomes) = peer.deliver("s@example.org", &[recipient], content);
    assert_eq!(result, SubmitResult::Done);
    outcomes.remove(&0).unwrap()
}

fn skip_unless_root(test: &str) -> bool {
    let root = Uid::effective().is_root();
    if !root {
        eprintln!("skipped: {test} needs root");
    }
    !root
}

#[test]
fn a_message_is_in_new_with_its_headers_and_lf_line_ends() {
    let (mut peer, dir) = worker("{domain}/{local}", "");
    let outcome = deliver_one(&mut peer, "Bob@Example.ORG", MESSAGE);
    let maildir = dir.path().join("example.org/bob");
    let wanted = b"Return-Path: <s@example.org>\nDelivered-To: Bob@Example.ORG\nSubject: hello\n\nfirst\n.\n..last\n";
    assert_eq!(only_message(&maildir), wanted);
    let path = files(&maildir.join("new")).remove(0);
    assert!(matches!(&outcome, Outcome::Delivered(reply) if reply.remote == path.to_string_lossy()), "{outcome:?}");
    assert!(path.to_string_lossy().ends_with(&format!(".spooler.test,S={}", wanted.len())), "{path:?}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(&maildir).unwrap().permissions().mode() & 0o7777, 0o700);
    assert!(files(&maildir.join("tmp")).is_empty() && files(&maildir.join("cur")).is_empty());
    peer.log_off();
}

#[test]
fn every_test_message_arrives_as_it_is_but_for_its_line_ends() {
    let (mut peer, dir) = worker("{local}", "");
    let messages = data::own_messages();
    for (number, path) in messages.iter().enumerate() {
        let content = fs::read(path).unwrap();
        let outcome = deliver_one(&mut peer, &format!("box{number}@d"), &content);
        assert_eq!(enhanced(&outcome), ("delivered", "2.0.0"));
        let mut wanted = format!("Return-Path: <s@example.org>\nDelivered-To: box{number}@d\n").into_bytes();
        let mut rest = content.as_slice();
        while let Some(at) = rest.windows(2).position(|pair| pair == b"\r\n") {
            wanted.extend_from_slice(&rest[..at]);
            wanted.push(b'\n');
            rest = &rest[at + 2..];
        }
        wanted.extend_from_slice(rest);
        assert_eq!(only_message(&dir.path().join(format!("box{number}"))), wanted, "{}", path.display());
    }
}

#[test]
fn python_reads_what_is_delivered() {
    let script = "import mailbox, sys
box = mailbox.Maildir(sys.argv[1], create=False)
print([(m['subject'], m['return-path'], m.get_payload()) for m in box])";
    let (mut peer, dir) = worker("{local}", "");
    deliver_one(&mut peer, "bob@d", MESSAGE);
    let Ok(output) = Command::new("python3").args(["-c", script]).arg(dir.path().join("bob")).output() else {
        eprintln!("skipped: python_reads_what_is_delivered needs python3");
        return;
    };
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.trim(), r"[('hello', '<s@example.org>', 'first\n.\n..last\n')]");
}

#[test]
fn no_address_leads_out_of_the_folder() {
    let (mut peer, dir) = worker("deep/{domain}/{local}", "");
    let hostile = [
        "../x@d",
        ".@d",
        "..@d",
        ".x@d",
        "a/b@d",
        "\"../../x\"@d",
        "a@..",
        "a@../..",
        "a@.d",
        "FILE:/etc/x",
        "@d",
        "bob",
    ];
    let (result, outcomes) = peer.deliver("s@d", &hostile, MESSAGE);
    assert_eq!((result, outcomes.len()), (SubmitResult::Done, hostile.len()));
    for (index, outcome) in outcomes {
        assert_eq!(enhanced(&outcome), ("failed", "5.1.3"), "{}", hostile[index as usize]);
    }
    let long = format!("{}@d", "x".repeat(300));
    assert_eq!(enhanced(&deliver_one(&mut peer, &long, MESSAGE)), ("failed", "5.1.3"));
    let below = files(dir.path());
    assert_eq!(below, [dir.path().join("deep")]);
    assert_eq!(files(&below[0]), [below[0].join("d")], "only the long name got as far as its domain");
    peer.log_off();
}

#[test]
fn nothing_is_written_through_a_symbolic_link() {
    let (mut peer, dir) = worker("{local}/Maildir", "");
    let victim = dir.path().join("victim");
    for folder in ["tmp", "new", "cur"] {
        fs::create_dir_all(victim.join("Maildir").join(folder)).unwrap();
    }
    symlink(&victim, dir.path().join("home")).unwrap();
    fs::create_dir(dir.path().join("box")).unwrap();
    symlink(victim.join("Maildir"), dir.path().join("box/Maildir")).unwrap();
    for folder in ["tmp", "new", "cur"] {
        let maildir = dir.path().join(folder).join("Maildir");
        fs::create_dir_all(&maildir).unwrap();
        symlink(victim.join("Maildir").join(folder), maildir.join(folder)).unwrap();
    }
    symlink(dir.path().join("nowhere"), dir.path().join("dangling")).unwrap();
    for recipient in ["home@d", "box@d", "tmp@d", "new@d", "cur@d", "dangling@d"] {
        let outcome = deliver_one(&mut peer, recipient, MESSAGE);
        assert_eq!(enhanced(&outcome), ("deferred", "4.3.5"), "{recipient}");
        assert!(outcome.reply().text.contains("symbolic link"), "{outcome:?}");
    }
    for folder in ["tmp", "new", "cur"] {
        assert!(files(&victim.join("Maildir").join(folder)).is_empty(), "{folder}");
    }
    assert!(!dir.path().join("nowhere").exists());
}

#[test]
fn the_base_may_be_a_symbolic_link() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("real")).unwrap();
    symlink(dir.path().join("real"), dir.path().join("link")).unwrap();
    let (mut peer, _) = Peer::logged_on("maildir", &format!("path = '{}/link/{{local}}'", dir.path().display()));
    assert_eq!(enhanced(&deliver_one(&mut peer, "bob@d", MESSAGE)).0, "delivered");
    only_message(&dir.path().join("real/bob"));
}

#[test]
fn a_large_message_comes_in_pieces_and_is_whole() {
    let (mut peer, dir) = worker("{local}", "");
    // Lines of an odd length move the CRLF to every place of a piece, its edges included.
    let content: Vec<u8> =
        (0..40_000).flat_map(|n| format!("line {n} {}\r\n", "x".repeat(n % 61)).into_bytes()).collect();
    assert!(content.len() > 1_000_000);
    let (_, outcomes) = peer.deliver("s@d", &["a@d", "b@d"], &content);
    assert!(outcomes.values().all(|outcome| enhanced(outcome).0 == "delivered"), "{outcomes:?}");
    let wanted = String::from_utf8(content).unwrap().replace("\r\n", "\n");
    for name in ["a", "b"] {
        let found = only_message(&dir.path().join(name));
        let front = format!("Return-Path: <s@d>\nDelivered-To: {name}@d\n");
        assert!(found == [front.as_bytes(), wanted.as_bytes()].concat(), "{name}");
    }
}

#[test]
fn many_messages_at_once_each_get_a_file() {
    let (mut peer, dir) = worker("{local}", "");
    let recipients = ["a@d", "b@d", "c@d"];
    for delivery in 0..60 {
        peer.submit(delivery, "s@d", &recipients, format!("Subject: {delivery}\r\n\r\n").as_bytes());
    }
    let mut delivered: HashMap<u64, usize> = HashMap::new();
    while delivered.len() < 60 || delivered.values().any(|count| *count < recipients.len()) {
        let (of, outcomes) = match peer.next() {
            spooler_protocol::from_worker::FromWorker::Settled { delivery, outcomes }
            | spooler_protocol::from_worker::FromWorker::Finished { delivery, outcomes, .. } => (delivery.0, outcomes),
            _ => continue,
        };
        assert!(outcomes.iter().all(|(_, outcome)| enhanced(outcome).0 == "delivered"), "{outcomes:?}");
        *delivered.entry(of).or_default() += outcomes.len();
    }
    for name in ["a", "b", "c"] {
        let mut subjects: Vec<String> =
            files(&dir.path().join(name).join("new")).iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        subjects.sort();
        subjects.dedup();
        assert_eq!(subjects.len(), 60, "{name}");
    }
}

#[test]
fn a_folder_that_cannot_be_used_defers_and_is_named() {
    let (mut peer, dir) = worker("sub/{local}", "");
    fs::write(dir.path().join("sub/taken"), "a file").unwrap();
    let outcome = deliver_one(&mut peer, "taken@d", MESSAGE);
    assert_eq!(enhanced(&outcome), ("deferred", "4.3.5"));
    fs::remove_dir_all(dir.path().join("sub")).unwrap();
    let outcome = deliver_one(&mut peer, "bob@d", MESSAGE);
    assert_eq!(enhanced(&outcome), ("deferred", "4.3.0"));
    assert!(outcome.reply().text.contains(&dir.path().join("sub").display().to_string()), "{outcome:?}");
    fs::create_dir(dir.path().join("sub")).unwrap();
    // The sandbox does not know the new folder; a new worker is closed around it.
    assert_eq!(enhanced(&deliver_one(&mut peer, "bob@d", MESSAGE)), ("deferred", "4.3.0"));
    peer.wait_for(|said| if said == FromWorker::LoggedOff { Ok(()) } else { Err(said) });
    assert!(peer.child.wait().unwrap().success());
}

#[test]
fn a_folder_without_write_permission_defers() {
    if Uid::effective().is_root() {
        eprintln!("skipped: a_folder_without_write_permission_defers needs a user who is not root");
        return;
    }
    let (mut peer, dir) = worker("{local}", "");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o500)).unwrap();
    let outcome = deliver_one(&mut peer, "bob@d", MESSAGE);
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(enhanced(&outcome), ("deferred", "4.3.0"));
}

/// A file system of a few pages.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "none"]).arg(dir.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_defers_and_leaves_nothing_behind() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: a_full_disk_defers_and_leaves_nothing_behind may not mount");
        return;
    };
    let (mut peer, _) = Peer::logged_on("maildir", &format!("path = '{}/{{local}}'", disk.0.path().display()));
    let large = vec![b'x'; 1 << 20];
    assert_eq!(enhanced(&deliver_one(&mut peer, "bob@d", &large)), ("deferred", "4.3.1"));
    assert!(files(&disk.0.path().join("bob/tmp")).is_empty() && files(&disk.0.path().join("bob/new")).is_empty());
    assert_eq!(enhanced(&deliver_one(&mut peer, "bob@d", MESSAGE)).0, "delivered", "small ones still fit");
    peer.log_off();
}

#[test]
fn root_gives_a_system_user_what_is_his() {
    if skip_unless_root("root_gives_a_system_user_what_is_his") {
        return;
    }
    let nobody = User::from_name("nobody").unwrap().unwrap();
    let daemon = User::from_name("daemon").unwrap().unwrap();
    let (mut peer, dir) = worker("{domain}/{local}/Maildir", "user = 'daemon'");
    let (_, outcomes) = peer.deliver("s@d", &["nobody@d", "no-such-user@d"], MESSAGE);
    assert!(outcomes.values().all(|outcome| enhanced(outcome).0 == "delivered"), "{outcomes:?}");
    let owner = |path: &Path| fs::metadata(path).unwrap().uid();
    for (name, uid) in [("nobody", nobody.uid.as_raw()), ("no-such-user", daemon.uid.as_raw())] {
        let home = dir.path().join("d").join(name);
        let new = home.join("Maildir/new");
        for path in [&home, &home.join("Maildir"), &home.join("Maildir/cur"), &new, &files(&new)[0]] {
            assert_eq!(owner(path), uid, "{}", path.display());
        }
    }
    assert_eq!(owner(&dir.path().join("d")), 0, "what several share is nobody's");
    assert_eq!(fs::metadata(dir.path().join("d")).unwrap().permissions().mode() & 0o777, 0o711);
}

#[test]
fn a_local_part_that_must_be_a_user_is_one() {
    let (mut peer, dir) = worker("{local}", "require_user = true\nrecipient_delimiter = '+'");
    let (_, outcomes) = peer.deliver("s@d", &["Root+tag@d", "no-such-user@d"], MESSAGE);
    assert_eq!(enhanced(&outcomes[&0]).0, "delivered");
    assert_eq!(enhanced(&outcomes[&1]), ("failed", "5.1.1"));
    only_message(&dir.path().join("root"));
    assert!(!dir.path().join("no-such-user").exists());
}

#[test]
fn forged_return_path_is_dropped() {
    let (mut peer, dir) = worker("{local}", "");
    deliver_one(&mut peer, "bob@d", b"Subject: x\r\nReturn-Path: <forged@b>\r\n\r\nReturn-Path: <in@body>\r\n");
    let wanted = "Return-Path: <s@example.org>\nDelivered-To: bob@d\nSubject: x\n\nReturn-Path: <in@body>\n";
    assert_eq!(String::from_utf8(only_message(&dir.path().join("bob"))).unwrap(), wanted);
}

#[test]
fn wrong_settings_are_all_named() {
    let said = format!("{:?}", Peer::start("maildir", "path = '{home}/Maildir'\nrequire_user = false").next());
    assert!(said.contains("require_user ") && said.contains("only system users have a {home}"), "{said}");
    let mut peer = Peer::start("maildir", "path = 'mail/{user}'\nmode = '99'\ncredit = 0\nhots = 1");
    let said = peer.next();
    let text = format!("{said:?}");
    for word in ["LogonFailed", "Unconfigured", "path ", "mode ", "credit ", "hots "] {
        assert!(text.contains(word), "{word} in {text}");
    }
}
