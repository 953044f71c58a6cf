//! Who the worker is: user, groups, capabilities.

use std::io;

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{self, Gid, Pid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::SandboxError;
use super::needs::{Needs, Privilege};

/// A user to become.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// The user's id.
    pub uid: u32,
    /// Its group's.
    pub gid: u32,
    /// Other groups that it is in.
    pub groups: Vec<u32>,
}

/// The capabilities that a provider keeps.
pub(super) fn kept(needs: &Needs) -> CapabilitySet {
    let of = |privilege: &Privilege| match privilege {
        Privilege::LowPorts => CapabilitySet::NET_BIND_SERVICE,
        Privilege::FilesOfAll => CapabilitySet::CHOWN | CapabilitySet::DAC_OVERRIDE | CapabilitySet::FOWNER,
    };
    needs.privileges.iter().map(of).fold(CapabilitySet::empty(), |all, one| all | one)
}

/// No program that is run later gets more than what is kept. As long as the process is root; afterwards, and for anybody else,
/// no_new_privs says the same.
pub(super) fn drop_bounding(kept: CapabilitySet) {
    for capability in CapabilitySet::all().difference(kept).iter() {
        // The kernel may know fewer, and without CAP_SETPCAP there is nothing to be taken from.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
}

/// Becomes another user for good. Needs root.
pub(super) fn become_user(account: &Account, kept: CapabilitySet) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    let groups: Vec<Gid> = account.groups.iter().copied().map(Gid::from_raw).collect();
    if uid == unistd::getuid() && uid == unistd::geteuid() && gid == unistd::getgid() {
        return Ok(());
    }
    if !kept.is_empty() {
        rustix::thread::set_keep_capabilities(true)?;
    }
    unistd::setgroups(&groups)?;
    unistd::setresgid(gid, gid, gid)?;
    unistd::setresuid(uid, uid, uid)?;
    // The kernel forgets the death signal of whoever changes its user.
    Ok(prctl::set_pdeathsig(Signal::SIGKILL)?)
}

/// Gives all capabilities up but these, for this thread and all that it will start or run. Says what is left.
pub(super) fn drop_capabilities(kept: CapabilitySet) -> Result<String, SandboxError> {
    let failed = |error: rustix::io::Errno| SandboxError::Capabilities(error.into());
    // A kernel without ambient capabilities has none to be cleared.
    let _ = rustix::thread::clear_ambient_capability_set();
    let left = rustix::thread::capabilities(None).map_err(failed)?.permitted & kept;
    let sets = CapabilitySets { effective: left, permitted: left, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).map_err(failed)?;
    if left.is_empty() {
        return Ok("no capabilities".to_owned());
    }
    let names: Vec<String> = left.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
    Ok(format!("capabilities {}", names.join(" ")))
}

/// No program that it runs gets more rights than it has (PR_SET_NO_NEW_PRIVS).
pub(super) fn no_new_privileges() -> Result<(), SandboxError> {
    prctl::set_no_new_privs().map_err(|error| SandboxError::NoNewPrivileges(error.into()))
}

/// Ends whatever programs of an earlier worker have left behind: a user of its own has no other processes.
pub(super) fn end_predecessors() {
    // All that may be signalled, which without capabilities are those of the same user, but not this one.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
}
