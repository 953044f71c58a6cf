//! Who may do what on the control socket. The kernel says who is at the other end; [`may`] is the whole policy.
//!
//! | who | may |
//! |---|---|
//! | root, the spooler's user | everything |
//! | the submit group, or anyone if the configuration says so | submit, read the status, list, show, delete and cancel own messages |
//! | the monitor group | read the status, list, show and count all messages, but not read their content |
//! | everybody else | nothing |
//!
//! A process in a sandbox (no_new_privs and a seccomp filter, as the workers' programs are) is a submitter at most, whatever its user.

use std::ffi::CString;

use nix::unistd::{Gid, Uid, User, getgrouplist};
use spooler_protocol::control::QueueAction;

/// Who may use the control socket, from the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The spooler's user.
    pub owner_uid: u32,
    /// The group whose members may submit.
    pub submit_group: Option<u32>,
    /// The group whose members may see every message of the queue, but not its content.
    pub monitor_group: Option<u32>,
    /// Whether every user of this machine may submit.
    pub anyone_may_submit: bool,
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its user.
    pub uid: u32,
    /// Whether the user is a member of the submit group.
    pub in_submit_group: bool,
    /// Whether the user is a member of the monitor group.
    pub in_monitor_group: bool,
    /// Whether its process is in a sandbox.
    pub sandboxed: bool,
}

/// What somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Hand a message over.
    Submit,
    /// See the status table.
    ReadStatus,
    /// See messages of the queue: envelope, state and reason.
    ReadQueue,
    /// Read the content of a message.
    ReadContent,
    /// Do something with messages of the queue.
    ChangeQueue(QueueAction),
    /// Work the queue off now.
    Flush,
    /// Do something with a provider.
    ChangeProvider,
    /// Have the aliases reloaded.
    ReadAliases,
}

/// Which messages an answer may be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every message.
    All,
    /// The messages of this user.
    OwnedBy(u32),
}

impl Scope {
    /// The user whose messages it is restricted to.
    #[must_use]
    pub fn owner(self) -> Option<u32> {
        match self {
            Self::All => None,
            Self::OwnedBy(uid) => Some(uid),
        }
    }
}

/// Why somebody may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// A user who may not use the spooler.
    #[error("User {0} may not use this spooler; ask its administrator for membership in the submit group")]
    Stranger(u32),
    /// Something that only administrators may do.
    #[error("Only root and the spooler's user may {0}; use sudo")]
    NotAdministrator(&'static str),
}

/// Whether `peer` may do `operation`, and with which messages.
///
/// # Errors
/// Why not.
pub fn may(access: &Access, peer: Peer, operation: Operation) -> Result<Scope, Denied> {
    let administrator = is_administrator(access, peer.uid);
    if administrator && !peer.sandboxed {
        return Ok(Scope::All);
    }
    if peer.in_monitor_group && !peer.sandboxed && matches!(operation, Operation::ReadStatus | Operation::ReadQueue) {
        return Ok(Scope::All);
    }
    if !(access.anyone_may_submit || peer.in_submit_group || administrator) {
        return Err(Denied::Stranger(peer.uid));
    }
    let reserved = match operation {
        Operation::Submit | Operation::ReadStatus | Operation::ReadQueue | Operation::ReadContent => None,
        Operation::ChangeQueue(QueueAction::Delete | QueueAction::Cancel) => None,
        Operation::ChangeQueue(QueueAction::Hold) => Some("hold messages"),
        Operation::ChangeQueue(QueueAction::Release) => Some("release messages"),
        Operation::ChangeQueue(QueueAction::Retry) => Some("retry messages before their time"),
        Operation::Flush => Some("flush the queue"),
        Operation::ChangeProvider => Some("change providers"),
        Operation::ReadAliases => Some("have the aliases reloaded"),
    };
    reserved.map_or(Ok(Scope::OwnedBy(peer.uid)), |what| Err(Denied::NotAdministrator(what)))
}

fn is_administrator(access: &Access, uid: u32) -> bool {
    uid == 0 || uid == access.owner_uid
}

/// What [`may`] has to know of a user, if that needs no look at the user database.
#[must_use]
pub fn identify_at_once(access: &Access, uid: u32, gid: u32) -> Option<Peer> {
    let in_submit_group = access.submit_group == Some(gid);
    let in_monitor_group = access.monitor_group == Some(gid);
    let submits = access.anyone_may_submit || access.submit_group.is_none_or(|group| group == gid);
    let monitors = access.monitor_group.is_none_or(|group| group == gid);
    let settled = is_administrator(access, uid) || (submits && monitors);
    settled.then_some(Peer { uid, in_submit_group, in_monitor_group, sandboxed: false })
}

/// What [`may`] has to know of a user. Reads the user database where the answer depends on it; that can block.
#[must_use]
pub fn identify(access: &Access, uid: u32, gid: u32) -> Peer {
    identify_at_once(access, uid, gid).unwrap_or_else(|| {
        let is_in = |group: Option<u32>| group.is_some_and(|group| is_member(uid, gid, Gid::from_raw(group)));
        let (in_submit_group, in_monitor_group) = (is_in(access.submit_group), is_in(access.monitor_group));
        Peer { uid, in_submit_group, in_monitor_group, sandboxed: false }
    })
}

/// The same of a user of whom no process is there, such as the owner of a file.
#[must_use]
pub fn identify_absent(access: &Access, uid: u32) -> Peer {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    // Nobody has the last number as a group.
    identify(access, uid, user.map_or(u32::MAX, |user| user.gid.as_raw()))
}

impl Peer {
    /// The same with what the kernel says of its process. Only the rights of administrators depend on it.
    #[must_use]
    pub fn in_process(self, access: &Access, pid: Option<i32>) -> Self {
        Self { sandboxed: is_administrator(access, self.uid) && pid.is_none_or(is_sandboxed), ..self }
    }
}

/// Whether a process has given up rights that this one has. One that is gone already is believed nothing.
fn is_sandboxed(pid: i32) -> bool {
    let of = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/status")).ok().map(|status| restraint(&status));
    match (of("self"), of(&pid.to_string())) {
        (Some((_, ours)), Some((no_new_privileges, theirs))) => no_new_privileges && theirs > ours,
        (None, Some(_)) => false,
        (_, None) => true,
    }
}

/// Whether new privileges are ruled out, and how many seccomp filters there are.
fn restraint(status: &str) -> (bool, u32) {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().parse::<u32>().ok()
    };
    // Kernels before 5.9 do not count them.
    let filters = field("Seccomp_filters").or_else(|| field("Seccomp").map(|mode| mode.min(1))).unwrap_or(0);
    (field("NoNewPrivs") == Some(1), filters)
}

fn is_member(uid: u32, gid: u32, group: Gid) -> bool {
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else { return false };
    let Ok(name) = CString::new(user.name) else { return false };
    getgrouplist(&name, Gid::from_raw(gid)).is_ok_and(|groups| groups.contains(&group))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTIONS: [QueueAction; 5] =
        [QueueAction::Hold, QueueAction::Release, QueueAction::Retry, QueueAction::Delete, QueueAction::Cancel];

    fn operations() -> Vec<Operation> {
        let mut all = vec![
            Operation::Submit,
            Operation::ReadStatus,
            Operation::ReadQueue,
            Operation::ReadContent,
            Operation::Flush,
            Operation::ChangeProvider,
            Operation::ReadAliases,
        ];
        all.extend(ACTIONS.map(Operation::ChangeQueue));
        all
    }

    fn access(submit_group: Option<u32>, anyone_may_submit: bool) -> Access {
        Access { owner_uid: 7, submit_group, monitor_group: None, anyone_may_submit }
    }

    #[test]
    fn root_and_the_owner_may_do_everything_to_every_message() {
        for uid in [0, 7] {
            for operation in operations() {
                let peer = Peer { uid, in_submit_group: false, in_monitor_group: false, sandboxed: false };
                assert_eq!(may(&access(None, false), peer, operation), Ok(Scope::All), "{uid} {operation:?}");
            }
        }
    }

    #[test]
    fn in_a_sandbox_nobody_is_more_than_a_submitter() {
        for uid in [0, 7] {
            let peer = Peer { uid, in_submit_group: false, in_monitor_group: false, sandboxed: true };
            assert_eq!(may(&access(None, false), peer, Operation::Submit), Ok(Scope::OwnedBy(uid)));
            assert!(may(&access(None, true), peer, Operation::ChangeProvider).is_err());
            assert!(may(&access(None, true), peer, Operation::ChangeQueue(QueueAction::Hold)).is_err());
        }
        assert_eq!(restraint("NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n"), (true, 3));
        assert_eq!(restraint("Name:\tx\nSeccomp:\t2\n"), (false, 1));
    }

    #[test]
    fn strangers_may_do_nothing() {
        let peer = Peer { uid: 1000, in_submit_group: false, in_monitor_group: false, sandboxed: false };
        for operation in operations() {
            assert_eq!(may(&access(Some(5), false), peer, operation), Err(Denied::Stranger(1000)), "{operation:?}");
        }
    }

    #[test]
    fn submitters_reach_their_own_messages_only() {
        let allowed = [
            Operation::Submit,
            Operation::ReadStatus,
            Operation::ReadQueue,
            Operation::ReadContent,
            Operation::ChangeQueue(QueueAction::Delete),
            Operation::ChangeQueue(QueueAction::Cancel),
        ];
        for (rules, in_submit_group) in [(access(Some(5), false), true), (access(None, true), false)] {
            for operation in operations() {
                let answer = may(
                    &rules,
                    Peer { uid: 1000, in_submit_group, in_monitor_group: false, sandboxed: false },
                    operation,
                );
                if allowed.contains(&operation) {
                    assert_eq!(answer, Ok(Scope::OwnedBy(1000)), "{operation:?}");
                } else {
                    assert!(matches!(answer, Err(Denied::NotAdministrator(_))), "{operation:?}");
                }
            }
        }
    }

    #[test]
    fn the_primary_group_counts_without_a_look_at_the_user_database() {
        assert!(identify_at_once(&access(Some(5), false), 4_000_000, 5).unwrap().in_submit_group);
        assert_eq!(identify_at_once(&access(Some(5), false), 4_000_000, 6), None);
        assert!(!identify(&access(Some(5), false), 4_000_000, 6).in_submit_group);
        assert!(!identify(&access(None, false), 4_000_000, 5).in_submit_group);
    }

    #[test]
    fn supplementary_groups_count_as_the_group_database_says() {
        // Any account of this machine that is in a group besides its own.
        let text = std::fs::read_to_string("/etc/group").unwrap_or_default();
        let found = text.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let member = fields.get(3)?.split(',').find(|name| !name.is_empty())?;
            let user = User::from_name(member).ok()??;
            let group: u32 = fields.get(2)?.parse().ok()?;
            (user.uid.as_raw() != 0 && user.gid.as_raw() != group).then_some((user, group))
        });
        let Some((user, group)) = found else {
            eprintln!("skipped: no account here has a supplementary group");
            return;
        };
        assert!(identify(&access(Some(group), false), user.uid.as_raw(), user.gid.as_raw()).in_submit_group);
    }

    #[test]
    fn monitor_group_sees_everything_but_content() {
        let access = Access { monitor_group: Some(9), ..access(Some(8), false) };
        let peer = Peer { uid: 1000, in_submit_group: false, in_monitor_group: true, sandboxed: false };
        for operation in operations() {
            let seen = matches!(operation, Operation::ReadStatus | Operation::ReadQueue);
            assert_eq!(may(&access, peer, operation).is_ok(), seen, "{operation:?}");
        }
        let submitter = Peer { in_submit_group: true, ..peer };
        assert_eq!(may(&access, submitter, Operation::ReadQueue), Ok(Scope::All));
        assert_eq!(may(&access, submitter, Operation::ReadContent), Ok(Scope::OwnedBy(1000)));
        assert_eq!(identify_at_once(&access, 1000, 8), None, "it may be a member of the other group");
    }
}
