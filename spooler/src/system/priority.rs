//! What the kernel is told about a worker's urgency, and what its clock says.
//!
//! Priority on Linux is three things here: the nice value of every thread, which counts inside a session; that of the autogroup, which
//! counts between sessions (every worker has one of its own); and the scheduling class, in a critical section that cannot do with less a
//! real-time one. `threads` and `sched_class` set what is set for each thread.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::{Pid, getsid};

use super::threads;
use crate::policy::priority_plan::{Level, Reached};
use crate::system::sched_class;

// The limits are for a worker of the same user: over another user's process the kernel lets nobody decide without the capability.
const ADVICE: &str =
    "give the spooler CAP_SYS_NICE, or LimitNICE= in its unit if its workers have no users of their own";
const REALTIME_ADVICE: &str =
    "give the spooler CAP_SYS_NICE, or LimitRTPRIO=1 in its unit if its workers have no users of their own";

/// Sets a worker's priority and reads back what was reached; `true` if the kernel wants to be asked again a little later: it lets the
/// unprivileged change one autogroup in a tenth of a second.
#[must_use]
pub fn set(pid: u32, autogroup: Option<&File>, level: Level) -> (Reached, bool) {
    let nice = level.nice();
    let realtime = matches!(level, Level::Critical { realtime: true, .. });
    let raised = if realtime { threads::make_realtime(pid) } else { threads::make_ordinary(pid) };
    let class = sched_class::set(pid, (!realtime || raised.is_err()).then(|| level.sched()), level.io());
    let group = threads::set_nice(pid, nice).and_then(|()| match level {
        Level::Critical { .. } => Ok(()),
        Level::Base { .. } | Level::Demoted { .. } => threads::put_programs_back(pid, nice),
    });
    let own_group = autogroup;
    let autogroup = set_autogroup(pid, own_group, nice);
    let later = autogroup.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    let refused = match (group, autogroup, class) {
        (Ok(()), Ok(()), Ok(())) => None,
        (Err(error), ..) => Some(format!("nice {nice} refused ({error}): {ADVICE}")),
        (Ok(()), Err(error), _) => Some(format!("autogroup {nice} refused ({error}): {ADVICE}")),
        (Ok(()), Ok(()), Err(error)) => Some(format!("class {} refused ({error}): {ADVICE}", level.sched().word())),
    };
    let instead = raised.err().map(|error| {
        if realtime {
            format!("real time refused ({error}), nice is used instead: {REALTIME_ADVICE}")
        } else {
            format!("the real-time class cannot be taken away ({error})")
        }
    });
    let running = threads::running(pid);
    let realtime = !running.is_empty() && running.iter().all(|(_, running)| running.realtime);
    // That of the least urgent thread.
    let nice = running.iter().map(|(_, running)| running.nice).max();
    let (sched, io) = sched_class::read(pid);
    let autogroup = own_group.and_then(read_autogroup);
    (Reached { nice, autogroup, sched, io, cgroup: None, realtime, instead, refused }, later)
}

/// The autogroup of a process, to be set and read from now on, whatever the process gives up later; `None` where there is none.
#[must_use]
pub fn open_autogroup(pid: u32) -> Option<File> {
    File::options().read(true).write(true).open(format!("/proc/{pid}/autogroup")).ok()
}

fn set_autogroup(pid: u32, autogroup: Option<&File>, nice: i32) -> Result<(), std::io::Error> {
    // In somebody else's session it would be somebody else's priority, perhaps ours.
    let process = i32::try_from(pid).map(Pid::from_raw).map_err(std::io::Error::other)?;
    if getsid(Some(process))? != process {
        return Err(std::io::Error::other("it has no session of its own"));
    }
    // A kernel without autogroups has nothing to set between sessions.
    autogroup.map_or(Ok(()), |mut autogroup| autogroup.write_all(nice.to_string().as_bytes()))
}

/// From `/autogroup-123 nice 10`.
fn read_autogroup(mut autogroup: &File) -> Option<i32> {
    let mut line = String::new();
    autogroup.rewind().and_then(|()| autogroup.read_to_string(&mut line)).ok()?;
    line.trim().rsplit_once(' ')?.1.parse().ok()
}

/// The clock of the CPU that all threads of a process use.
#[derive(Clone, Copy, Debug)]
pub struct CpuClock(ClockId);

impl CpuClock {
    /// That of this process; `None` if it is gone.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        clock_getcpuclockid(Pid::from_raw(i32::try_from(pid).ok()?)).ok().map(Self)
    }

    /// CPU that was used so far; `None` if the process is gone.
    #[must_use]
    pub fn used(self) -> Option<Duration> {
        clock_gettime(self.0).ok().map(Duration::from)
    }
}

/// CPU that all threads of a process have used so far.
#[must_use]
pub fn cpu_used(pid: u32) -> Option<Duration> {
    CpuClock::of(pid)?.used()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_clock_runs() {
        let pid = std::process::id();
        let before = cpu_used(pid).unwrap();
        while cpu_used(pid).unwrap() == before {}
    }
}
