//! The scheduling class and the I/O priority of every thread of a worker.
//!
//! Both are set thread by thread, while the worker may be making new ones. A new thread has what the one had that made it, so all are
//! looked through until none is left that needs to be changed.

use std::io;

use nix::libc;

use crate::policy::priority_plan::{Io, Sched};

/// Looks at all threads before it is given up that they keep changing.
const LOOKS_MAX: usize = 10;
/// From linux/ioprio.h.
const WHO_PROCESS: libc::c_long = 1;
const CLASS_SHIFT: u32 = 13;
const CLASS_BEST_EFFORT: i64 = 2;
const CLASS_IDLE: i64 = 3;

/// Sets class (`None`: leaves it) and I/O priority of all threads of a process.
///
/// # Errors
/// If the kernel refuses the class. What it refuses of the I/O priority shows in what is read back.
pub(super) fn set(pid: u32, sched: Option<Sched>, io: Io) -> io::Result<()> {
    for _ in 0..LOOKS_MAX {
        let mut settled = true;
        for thread in threads(pid) {
            if read_io(thread) != Some(io) {
                settled &= !set_io(thread, io);
            }
            if let Some(wanted) = sched.map(class_number)
                && class_of(thread) != wanted
            {
                match set_class(thread, wanted) {
                    Ok(()) => settled = false,
                    // It has ended meanwhile.
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        if settled {
            break;
        }
    }
    Ok(())
}

/// The class of the least urgent thread, and the I/O priority of the main thread.
pub(super) fn read(pid: u32) -> (Option<Sched>, Option<Io>) {
    let classes = threads(pid).into_iter().filter_map(|thread| class_named(class_of(thread)));
    (classes.max_by_key(|class| class_number(*class)), i32::try_from(pid).ok().and_then(read_io))
}

fn threads(pid: u32) -> Vec<libc::pid_t> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The numbers grow as urgency falls.
fn class_number(sched: Sched) -> libc::c_int {
    match sched {
        Sched::Other => libc::SCHED_OTHER,
        Sched::Batch => libc::SCHED_BATCH,
        Sched::Idle => libc::SCHED_IDLE,
    }
}

fn class_named(number: libc::c_int) -> Option<Sched> {
    [Sched::Other, Sched::Batch, Sched::Idle].into_iter().find(|sched| class_number(*sched) == number)
}

#[expect(unsafe_code, reason = "nix has no wrapper for sched_getscheduler")]
fn class_of(thread: libc::pid_t) -> libc::c_int {
    // SAFETY: it takes a number and touches no memory of ours.
    unsafe { libc::sched_getscheduler(thread) }
}

#[expect(unsafe_code, reason = "nix has no wrapper for sched_setscheduler")]
fn set_class(thread: libc::pid_t, class: libc::c_int) -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameter lives until the call returns.
    let result = unsafe { libc::sched_setscheduler(thread, class, &raw const parameter) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether it was changed.
#[expect(unsafe_code, reason = "the C library has no ioprio_set")]
fn set_io(thread: libc::pid_t, io: Io) -> bool {
    let value = match io {
        Io::BestEffort(level) => (CLASS_BEST_EFFORT << CLASS_SHIFT) | i64::from(level),
        Io::Idle => CLASS_IDLE << CLASS_SHIFT,
    };
    // SAFETY: it takes three numbers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, i64::from(thread), value) == 0 }
}

#[expect(unsafe_code, reason = "the C library has no ioprio_get")]
fn read_io(thread: libc::pid_t) -> Option<Io> {
    // SAFETY: it takes two numbers and touches no memory of ours.
    let value = unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, i64::from(thread)) };
    match value >> CLASS_SHIFT {
        CLASS_BEST_EFFORT => Some(Io::BestEffort(u8::try_from(value & 7).ok()?)),
        CLASS_IDLE => Some(Io::Idle),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process that can be changed without harm; it ends when its input does.
    struct Victim(Child);

    impl Drop for Victim {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn what_is_set_is_read_back() {
        let victim = Victim(Command::new("cat").stdin(Stdio::piped()).spawn().unwrap());
        let pid = victim.0.id();
        for (sched, io) in [(Sched::Batch, Io::BestEffort(7)), (Sched::Idle, Io::Idle)] {
            set(pid, Some(sched), io).unwrap();
            assert_eq!(read(pid), (Some(sched), Some(io)));
        }
    }

    #[test]
    fn who_is_gone_has_nothing() {
        let mut victim = Victim(Command::new("true").spawn().unwrap());
        victim.0.wait().unwrap();
        assert!(set(victim.0.id(), Some(Sched::Batch), Io::Idle).is_ok());
        assert_eq!(read(victim.0.id()), (None, None));
    }
}
