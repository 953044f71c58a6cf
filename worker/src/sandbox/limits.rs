//! How much a worker may have: memory, descriptors, processes, CPU, file size; and that nobody looks inside.

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::getuid;

use super::SandboxError;
use super::needs::Needs;

/// Threads of this process; 0 where the kernel does not say.
pub(super) fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, |tasks| tasks.count())
}

/// When memory runs out the kernel shall end a worker, and not the supervisor; from -1000 to 1000.
const ENDED_FIRST: &str = "500";

/// Sets all limits. `alone`: nobody else has this user.
pub(super) fn set(needs: &Needs, alone: bool) -> Result<(), SandboxError> {
    // As long as the process may be looked at: then it may not even write this. Where it cannot, the kernel chooses by size.
    let _ = std::fs::write("/proc/self/oom_score_adj", ENDED_FIRST);
    // A core dump could hold secrets, and with this neither the kernel nor a program that it hands dumps to writes one. Nor can others
    // of the same user trace the process or look at its memory and environment.
    prctl::set_dumpable(false).map_err(|error| SandboxError::Limit("PR_SET_DUMPABLE".to_owned(), error.into()))?;
    limit(Resource::RLIMIT_CORE, 0)?;
    limit(Resource::RLIMIT_DATA, needs.memory_bytes_max)?;
    limit(Resource::RLIMIT_NOFILE, needs.descriptors_max)?;
    if let Some(most) = needs.file_bytes_max {
        limit(Resource::RLIMIT_FSIZE, most)?;
    }
    if let Some(most) = needs.cpu_s_max {
        limit(Resource::RLIMIT_CPU, most)?;
    }
    if needs.programs {
        // What the unit gives the supervisor for critical sections is not for programs.
        limit(Resource::RLIMIT_NICE, 0)?;
        limit(Resource::RLIMIT_RTPRIO, 0)?;
    }
    // The kernel counts by user, so what the user runs already is no part of it.
    let others = if alone { 0 } else { tasks_of(getuid().as_raw()) };
    limit(Resource::RLIMIT_NPROC, needs.processes_max.saturating_add(others))
}

/// A limit, or the present one if that is lower: raising it is not ours to do.
fn limit(resource: Resource, most: u64) -> Result<(), SandboxError> {
    let failed = |error: nix::errno::Errno| SandboxError::Limit(format!("{resource:?}"), error.into());
    let (_, hard) = getrlimit(resource).map_err(failed)?;
    let most = most.min(hard);
    setrlimit(resource, most, most).map_err(failed)
}

/// Processes and threads of a user.
fn tasks_of(uid: u32) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(processes) = std::fs::read_dir("/proc") else { return 0 };
    let own = processes.filter_map(Result::ok).filter(|process| {
        process.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit)
            && process.path().join("task").metadata().is_ok_and(|found| found.uid() == uid)
    });
    own.map(|process| std::fs::read_dir(process.path().join("task")).map_or(1, |tasks| tasks.count() as u64)).sum()
}
