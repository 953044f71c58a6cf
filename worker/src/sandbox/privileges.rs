//! Who the worker is: user, groups, capabilities, limits.

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{self, Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::SandboxError;
use super::needs::Needs;

/// Processes and threads of a worker that runs programs, per user id (RLIMIT_NPROC counts by user).
const PROCESSES_MAX: u64 = 512;

/// Becomes another user for good. Needs root; every thread follows.
pub(super) fn become_user(uid: u32, gid: u32) -> Result<(), SandboxError> {
    let failed = |error: nix::errno::Errno| SandboxError::User(uid, error.into());
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    unistd::setgroups(&[]).map_err(failed)?;
    unistd::setresgid(gid, gid, gid).map_err(failed)?;
    unistd::setresuid(uid, uid, uid).map_err(failed)
}

/// Gives all capabilities up, for this thread and all that it will start or run.
pub(super) fn drop_capabilities() -> Result<(), SandboxError> {
    let failed = |error: rustix::io::Errno| SandboxError::Capabilities(error.into());
    rustix::thread::clear_ambient_capability_set().map_err(failed)?;
    for capability in CapabilitySet::all() {
        // The kernel may know fewer, and without CAP_SETPCAP there is nothing to be taken from.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    let nothing = CapabilitySet::empty();
    let sets = CapabilitySets { effective: nothing, permitted: nothing, inheritable: nothing };
    rustix::thread::set_capabilities(None, sets).map_err(failed)
}

/// No program that it runs gets more rights than it has (PR_SET_NO_NEW_PRIVS).
pub(super) fn no_new_privileges() -> Result<(), SandboxError> {
    prctl::set_no_new_privs().map_err(|error| SandboxError::NoNewPrivileges(error.into()))
}

/// Limits on memory, descriptors, files and processes; no core dumps, which could hold secrets; nobody else may look inside (ptrace).
pub(super) fn limit(needs: &Needs) -> Result<(), SandboxError> {
    let set = |resource, most: u64| {
        setrlimit(resource, most, most).map_err(|error| SandboxError::Limit(format!("{resource:?}"), error.into()))
    };
    set(Resource::RLIMIT_CORE, 0)?;
    set(Resource::RLIMIT_DATA, needs.memory_bytes_max)?;
    set(Resource::RLIMIT_NOFILE, needs.descriptors_max)?;
    if let Some(most) = needs.file_bytes_max {
        set(Resource::RLIMIT_FSIZE, most)?;
    }
    if needs.programs {
        set(Resource::RLIMIT_NPROC, PROCESSES_MAX)?;
    }
    prctl::set_dumpable(false).map_err(|error| SandboxError::Limit("PR_SET_DUMPABLE".to_owned(), error.into()))
}
