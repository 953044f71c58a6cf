//! System calls: what the kind has no use for ends the process, with a last line that names the call (seccomp).
//!
//! A worker that runs programs cannot know what they call; for it, and for what it runs, a list of calls that change the machine or look
//! into other processes is refused instead (`EPERM`).
//!
//! Libraries try some calls and go on without them: `clone3`, whose arguments a filter cannot see, and sockets for the name service's
//! daemons. Those are answered as by a kernel that does not know them (`ENOSYS`).

use std::collections::BTreeMap;
use std::fmt;

use nix::libc::{self, c_long};
use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::SeccompCmpOp::{Eq, MaskedEq, Ne};
use seccompiler::{BpfProgram, SeccompAction, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch};

use super::calls::{
    FILES, NETWORK, OLDER_NAMES, OLDER_NAMES_OF_WRITING, OLDER_RIGHTS_BY_NAME, REFUSED_TO_PROGRAMS, RIGHTS_BY_NAME,
    RUNTIME, WRITING,
};
use super::needs::Needs;
use super::{SandboxError, trap};

/// PR_SET_VMA of prctl(2): the allocator names its memory.
const NAME_MEMORY: i32 = 0x5356_4d41;
/// Flags in the type of a socket.
const SOCKET_KIND: u64 = 0xf;
/// What is done with descriptors: copies, flags, locks, the size of a pipe. Not who gets signals about one.
const DESCRIPTOR_COMMANDS: [i32; 14] = [
    libc::F_DUPFD,
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    libc::F_GETLK,
    libc::F_SETLK,
    libc::F_SETLKW,
    libc::F_OFD_GETLK,
    libc::F_OFD_SETLK,
    libc::F_OFD_SETLKW,
    libc::F_GETPIPE_SZ,
    libc::F_SETPIPE_SZ,
];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Which calls are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    Listed,
    Dangerous,
    Nothing,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Listed => "seccomp",
            Self::Dangerous => "seccomp (dangerous calls only, as it runs programs)",
            Self::Nothing => "no seccomp (this kernel has none)",
        })
    }
}

/// Takes away every system call that is not needed, for this process and what it starts. `as_supervisor`: it has the supervisor's user.
pub(super) fn restrict(needs: &Needs, as_supervisor: bool) -> Result<Held, SandboxError> {
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let unknown = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let (held, filters) = if needs.programs {
        let dangerous = SeccompFilter::new(dangerous(as_supervisor)?, SeccompAction::Allow, refused, architecture()?);
        (Held::Dangerous, [filter(rules(&[&[libc::SYS_clone3]]), unknown)?, dangerous])
    } else {
        trap::report_by_name()?;
        let listed = SeccompFilter::new(listed(needs)?, SeccompAction::Trap, SeccompAction::Allow, architecture()?);
        (Held::Listed, [filter(tried_only(needs)?, unknown)?, listed])
    };
    // The narrowest comes last: it does not allow what closing another one takes.
    for filter in filters {
        let program: BpfProgram = filter.and_then(TryInto::try_into).map_err(failed)?;
        match seccompiler::apply_filter_all_threads(&program) {
            Ok(()) => {}
            Err(seccompiler::Error::Seccomp(error)) if is_unknown(&error) => return Ok(Held::Nothing),
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(held)
}

fn is_unknown(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL))
}

fn failed(error: impl fmt::Display) -> SandboxError {
    SandboxError::Calls(error.to_string())
}

fn architecture() -> Result<TargetArch, SandboxError> {
    TargetArch::try_from(std::env::consts::ARCH).map_err(failed)
}

/// Everything but these rules is allowed.
fn filter(
    rules: Rules,
    otherwise: SeccompAction,
) -> Result<Result<SeccompFilter, seccompiler::BackendError>, SandboxError> {
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, otherwise, architecture()?))
}

fn rules(lists: &[&[c_long]]) -> Rules {
    lists.iter().flat_map(|list| list.iter()).map(|call| (*call, Vec::new())).collect()
}

/// A rule: all of these arguments (their place, how they are compared, with what).
fn rule(arguments: &[(u8, SeccompCmpOp, i32)]) -> Result<SeccompRule, SandboxError> {
    let conditions: Result<Vec<SeccompCondition>, _> = arguments
        .iter()
        .map(|(place, how, value)| SeccompCondition::new(*place, Dword, how.clone(), u64::from(value.cast_unsigned())))
        .collect();
    conditions.and_then(SeccompRule::new).map_err(failed)
}

/// What a worker that runs no programs may call.
fn listed(needs: &Needs) -> Result<Rules, SandboxError> {
    let network: &[c_long] = if needs.network() || needs.unix_sockets || needs.accounts { NETWORK } else { &[] };
    let mut listed = rules(&[RUNTIME, FILES, OLDER_NAMES, network]);
    if !needs.write.is_empty() {
        listed.extend(rules(&[WRITING, OLDER_NAMES_OF_WRITING]));
    }
    let ourselves = i32::try_from(std::process::id()).unwrap_or_default();
    let argument = |place: u8, values: &[i32]| {
        values.iter().map(|value| rule(&[(place, Eq, *value)])).collect::<Result<Vec<_>, _>>()
    };
    let first = |values: &[i32]| argument(0, values);
    listed.insert(libc::SYS_fcntl, argument(1, &DESCRIPTOR_COMMANDS)?);
    // With MSG_FASTOPEN, sending connects, and Landlock does not see it.
    let connects = u64::from(libc::MSG_FASTOPEN.unsigned_abs());
    for (call, flags) in [(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)] {
        listed.insert(call, vec![rule(&[(flags, MaskedEq(connects), 0)])?]);
    }
    // Threads, but no processes.
    let thread = u64::from(libc::CLONE_THREAD.unsigned_abs());
    listed.insert(libc::SYS_clone, vec![rule(&[(0, MaskedEq(thread), libc::CLONE_THREAD)])?]);
    listed.insert(libc::SYS_clone3, Vec::new());
    listed.insert(libc::SYS_tgkill, first(&[ourselves])?);
    listed.insert(libc::SYS_prlimit64, first(&[0, ourselves])?);
    // The last one by libraries of the name service.
    let harmless = [libc::PR_SET_NAME, libc::PR_GET_NAME, NAME_MEMORY, libc::PR_CAPBSET_READ];
    listed.insert(libc::SYS_prctl, first(&harmless)?);
    listed.insert(libc::SYS_socket, sockets(needs)?);
    let settings = [libc::FIONBIO, libc::FIONREAD, libc::FIOCLEX, libc::TCGETS];
    let settings = argument(1, &settings.map(|request| i32::try_from(request).unwrap_or_default()))?;
    listed.insert(libc::SYS_ioctl, if needs.devices.is_empty() { settings } else { Vec::new() });
    Ok(listed)
}

/// Streams and datagrams of the Internet, where there is need of the network. Others are allowed here if [`tried_only`] holds them.
fn sockets(needs: &Needs) -> Result<Vec<SeccompRule>, SandboxError> {
    let mut allowed = vec![rule(&[(0, Eq, libc::AF_UNIX)])?, rule(&[(0, Eq, libc::AF_NETLINK)])?];
    if needs.network() {
        for family in [libc::AF_INET, libc::AF_INET6] {
            // Of other protocols, such as multipath TCP, Landlock does not hold the ports.
            for (kind, protocol) in [(libc::SOCK_STREAM, libc::IPPROTO_TCP), (libc::SOCK_DGRAM, libc::IPPROTO_UDP)] {
                for protocol in [0, protocol] {
                    allowed.push(rule(&[(0, Eq, family), (1, MaskedEq(SOCKET_KIND), kind), (2, Eq, protocol)])?);
                }
            }
        }
    }
    Ok(allowed)
}

/// What libraries try and do without.
fn tried_only(needs: &Needs) -> Result<Rules, SandboxError> {
    let mut tried = rules(&[&[libc::SYS_clone3]]);
    let mut families = vec![rule(&[(0, Eq, libc::AF_NETLINK)])?];
    if !(needs.unix_sockets || needs.accounts) {
        families.push(rule(&[(0, Eq, libc::AF_UNIX)])?);
    }
    tried.insert(libc::SYS_socket, families);
    Ok(tried)
}

/// What is refused to programs.
fn dangerous(as_supervisor: bool) -> Result<Rules, SandboxError> {
    let mut dangerous = rules(&[REFUSED_TO_PROGRAMS]);
    if as_supervisor {
        dangerous.extend(rules(&[RIGHTS_BY_NAME, OLDER_RIGHTS_BY_NAME]));
    }
    // A name space of its own would be one in which it is root.
    let own_users = u64::from(libc::CLONE_NEWUSER.unsigned_abs());
    dangerous.insert(libc::SYS_clone, vec![rule(&[(0, MaskedEq(own_users), libc::CLONE_NEWUSER)])?]);
    let usual = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    dangerous.insert(libc::SYS_socket, vec![rule(&usual.map(|family| (0, Ne, family)))?]);
    // Typing on somebody's terminal.
    let typing = [libc::TIOCSTI, libc::TIOCLINUX];
    let typing = typing.map(|request| rule(&[(1, Eq, i32::try_from(request).unwrap_or_default())]));
    dangerous.insert(libc::SYS_ioctl, typing.into_iter().collect::<Result<_, _>>()?);
    Ok(dangerous)
}
