//! What the kernel is told about a worker's urgency, and what its clock says.
//!
//! Priority on Linux is two things here: the nice value of every thread (set for the whole process group, because it is per thread),
//! which counts inside a session, and that of the autogroup, which counts between sessions. Every worker has a session of its own.
//! `sched_class` adds what is set thread by thread.

use std::time::Duration;

use nix::libc;
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::{Pid, getsid};

use crate::policy::priority_plan::{Level, Reached};
use crate::system::sched_class;

/// Sets a worker's priority and reads back what was reached; `true` if the kernel wants to be asked again a little later: it lets the
/// unprivileged change one autogroup in a tenth of a second.
#[must_use]
pub fn set(pid: u32, level: Level) -> (Reached, bool) {
    let nice = level.nice();
    let class = sched_class::set(pid, level.sched(), level.io());
    let group = set_group(pid, nice);
    let autogroup = set_autogroup(pid, nice);
    let later = autogroup.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    let advice = "give the spooler CAP_SYS_NICE, or LimitNICE= in its unit";
    let refused = match (group, autogroup, class) {
        (Ok(()), Ok(()), Ok(())) => None,
        (Err(error), ..) => Some(format!("nice {nice} refused ({error}): {advice}")),
        (Ok(()), Err(error), _) => Some(format!("autogroup {nice} refused ({error}): {advice}")),
        (Ok(()), Ok(()), Err(error)) => Some(format!("class {} refused ({error}): {advice}", level.sched().word())),
    };
    let (sched, io) = sched_class::read(pid);
    (Reached { nice: read_nice(pid), autogroup: read_autogroup(pid), sched, io, cgroup: None, refused }, later)
}

#[expect(unsafe_code, reason = "nix has no wrapper for setpriority")]
fn set_group(pid: u32, nice: i32) -> Result<(), std::io::Error> {
    // SAFETY: setpriority takes three numbers and touches no memory of ours.
    let result = unsafe { libc::setpriority(libc::PRIO_PGRP, pid, nice) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

fn set_autogroup(pid: u32, nice: i32) -> Result<(), std::io::Error> {
    // In somebody else's session it would be somebody else's priority, perhaps ours.
    let process = i32::try_from(pid).map(Pid::from_raw).map_err(std::io::Error::other)?;
    if getsid(Some(process))? != process {
        return Err(std::io::Error::other("it has no session of its own"));
    }
    match std::fs::write(format!("/proc/{pid}/autogroup"), nice.to_string()) {
        // A kernel without autogroups has nothing to set between sessions.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The nice value of the least urgent thread.
fn read_nice(pid: u32) -> Option<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let stat = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("stat")).ok();
    tasks.filter_map(|task| nice_of_stat(&stat(task.ok()?)?)).max()
}

/// Field 19 of /proc/PID/stat; the second one, in parentheses, may hold spaces.
fn nice_of_stat(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(16)?.parse().ok()
}

/// From `/autogroup-123 nice 10`.
fn read_autogroup(pid: u32) -> Option<i32> {
    let line = std::fs::read_to_string(format!("/proc/{pid}/autogroup")).ok()?;
    line.trim().rsplit_once(' ')?.1.parse().ok()
}

/// CPU that all threads of a process have used so far.
#[must_use]
pub fn cpu_used(pid: u32) -> Option<Duration> {
    let clock: ClockId = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid).ok()?)).ok()?;
    clock_gettime(clock).ok().map(Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nice_is_found_behind_a_name_with_spaces() {
        let stat = "12 (a b) c) S 1 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 -5 3 0 100";
        assert_eq!(nice_of_stat(stat), Some(-5));
    }

    #[test]
    fn our_own_clock_runs() {
        let pid = std::process::id();
        let before = cpu_used(pid).unwrap();
        while cpu_used(pid).unwrap() == before {}
        assert!(read_nice(pid).is_some());
    }
}
