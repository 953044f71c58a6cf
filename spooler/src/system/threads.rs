//! The threads of a worker: which there are, what each runs at, and the real-time class.
//!
//! The kernel sets all of this thread by thread, and a worker makes and ends threads meanwhile. A new thread has what the one had that
//! made it. So what is set for all is set until a look at all of them finds nothing left to do.
//!
//! **Guards.** A real-time thread that computes without a pause could keep a core from everybody else. The kernel leaves others 5 % of
//! the time (`sched_rt_runtime_us`), and ends a worker whose thread runs for 2 s without waiting for anything: each worker has set itself
//! that limit before anything else (`RLIMIT_RTTIME`, SIGXCPU). When the class is taken away, it is taken from the programs that the worker has started, too.
//!
//! **Programs** are in process groups of their own. What they were born with in a critical section, the nice value too, is put back with it.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use nix::libc;

/// Looks at all threads before it is given up that they keep changing.
const LOOKS_MAX: usize = 20;

/// The real-time priority: the least that there is. It goes before everything that has none, and after all other real-time work.
const PRIORITY: i32 = 1;

/// What a thread runs at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Running {
    pub(super) nice: i32,
    pub(super) realtime: bool,
}

/// Fields 19 and 41 of /proc/PID/task/TID/stat; the second one, in parentheses, may hold spaces.
fn parse(stat: &str) -> Option<Running> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let nice = fields.nth(16)?.parse().ok()?;
    let policy: i32 = fields.nth(21)?.parse().ok()?;
    Some(Running { nice, realtime: policy == libc::SCHED_RR || policy == libc::SCHED_FIFO })
}

/// What each thread of a process runs at. Threads that end meanwhile are left out.
pub(super) fn running(pid: u32) -> Vec<(u32, Running)> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let look = |task: std::fs::DirEntry| {
        let thread = task.file_name().to_str()?.parse().ok()?;
        Some((thread, parse(&std::fs::read_to_string(task.path().join("stat")).ok()?)?))
    };
    tasks.filter_map(|task| look(task.ok()?)).collect()
}

/// Sets the nice value of every thread of a process, and of the other processes of its group. Nothing is asked of the kernel where nothing
/// is to be changed: it may refuse even that, when the process has become another user.
///
/// # Errors
/// The kernel's, if it refuses.
pub(super) fn set_nice(pid: u32, nice: i32) -> io::Result<()> {
    let others =
        || running(pid).into_iter().filter(|(_, running)| running.nice != nice).map(|(thread, _)| thread).collect();
    let threads: Vec<u32> = others();
    if !threads.is_empty() {
        set_priority(libc::PRIO_PGRP, pid, nice)?;
    }
    until_settled(others, |thread| set_priority(libc::PRIO_PROCESS, thread, nice))
}

/// Gives every thread of a process the real-time class.
///
/// # Errors
/// The kernel's, if it refuses; those that had got it have lost it again then.
pub(super) fn make_realtime(pid: u32) -> io::Result<()> {
    let missing =
        || running(pid).into_iter().filter(|(_, running)| !running.realtime).map(|(thread, _)| thread).collect();
    until_settled(missing, |thread| set_scheduler(thread, libc::SCHED_RR, PRIORITY)).inspect_err(|_| {
        let _ = make_ordinary(pid);
    })
}

/// Sets the nice value of the programs that a process has started, where they are more urgent than that.
///
/// # Errors
/// The kernel's, if it refuses.
pub(super) fn put_programs_back(pid: u32, nice: i32) -> io::Result<()> {
    let raised = || {
        let programs = family(pid).into_iter().filter(|member| *member != pid).flat_map(running);
        programs.filter(|(_, running)| running.nice < nice).map(|(thread, _)| thread).collect()
    };
    until_settled(raised, |thread| set_priority(libc::PRIO_PROCESS, thread, nice))
}

/// Takes the real-time class from every thread of a process and of the programs that it has started.
///
/// # Errors
/// The kernel's, if it refuses.
pub(super) fn make_ordinary(pid: u32) -> io::Result<()> {
    let raised = || {
        let all = family(pid).into_iter().flat_map(running);
        all.filter(|(_, running)| running.realtime).map(|(thread, _)| thread).collect()
    };
    until_settled(raised, |thread| set_scheduler(thread, libc::SCHED_OTHER, 0))
}

/// Does something with each thread that needs it, until none does.
fn until_settled(needy: impl Fn() -> Vec<u32>, act: impl Fn(u32) -> io::Result<()>) -> io::Result<()> {
    for _ in 0..LOOKS_MAX {
        let threads = needy();
        if threads.is_empty() {
            return Ok(());
        }
        for thread in threads {
            match act(thread) {
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                result => result?,
            }
        }
    }
    Err(io::Error::other("its threads change too fast"))
}

/// A process and its descendants.
fn family(pid: u32) -> Vec<u32> {
    families(vec![pid], usize::MAX)
}

/// Processes and their descendants, each once, and no more than so many.
pub(super) fn families(roots: Vec<u32>, most: usize) -> Vec<u32> {
    let mut seen: HashSet<u32> = roots.iter().copied().collect();
    let mut families = roots;
    let mut next = 0;
    while let Some(member) = families.get(next).filter(|_| families.len() < most) {
        let tasks = std::fs::read_dir(format!("/proc/{member}/task"));
        let children = tasks.into_iter().flatten().filter_map(|task| children(&task.ok()?.path()));
        families.extend(children.flatten().filter(|child| seen.insert(*child)).collect::<Vec<u32>>());
        next += 1;
    }
    families
}

/// The processes that a thread has started.
fn children(task: &Path) -> Option<Vec<u32>> {
    let list = std::fs::read_to_string(task.join("children")).ok()?;
    Some(list.split_ascii_whitespace().filter_map(|child| child.parse().ok()).collect())
}

#[expect(unsafe_code, reason = "nix and rustix have no wrapper for setpriority of another thread or group")]
fn set_priority(which: libc::__priority_which_t, who: u32, nice: i32) -> io::Result<()> {
    // SAFETY: setpriority takes three numbers and touches no memory of ours.
    let result = unsafe { libc::setpriority(which, who, nice) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[expect(unsafe_code, reason = "nix and rustix have no wrapper for sched_setscheduler")]
fn set_scheduler(thread: u32, policy: i32, priority: i32) -> io::Result<()> {
    let thread = i32::try_from(thread).map_err(io::Error::other)?;
    let parameter = libc::sched_param { sched_priority: priority };
    // SAFETY: the kernel reads the parameter, which lives until the call returns, and keeps no pointer to it.
    let result = unsafe { libc::sched_setscheduler(thread, policy, &raw const parameter) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nice_and_class_are_found_behind_a_name_with_spaces() {
        let stat = "12 (a b) c) S 1 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 -5 3 0 100 23 24 25 26 27 28 29 30 31 32 33 \
                    34 35 36 37 38 39 1 2 42 43";
        assert_eq!(parse(stat), Some(Running { nice: -5, realtime: true }));
        assert_eq!(parse("12 (x) S 1"), None);
    }

    #[test]
    fn our_own_threads_are_seen() {
        let me = std::process::id();
        assert!(running(me).iter().all(|(_, running)| !running.realtime));
        assert!(family(me).contains(&me));
    }

    #[test]
    fn programs_that_are_too_urgent_are_put_back_and_others_left() {
        use std::process::{Command, Stdio};
        // Stands for a worker with one program.
        let script = "sh -c 'read -r _; :'; :";
        let mut worker = Command::new("/bin/sh").args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap();
        let own = running(worker.id())[0].1.nice;
        let program = loop {
            if let [_, program] = family(worker.id())[..] {
                break program;
            }
            std::thread::yield_now();
        };
        let nice = |pid: u32| running(pid)[0].1.nice;
        assert_eq!(nice(program), own, "as it was born");
        let (base, lower) = (19.min(own + 5), 19.min(own + 3));
        put_programs_back(worker.id(), base).unwrap();
        put_programs_back(worker.id(), lower).unwrap();
        assert_eq!((nice(worker.id()), nice(program)), (own, base), "who has made itself less urgent stays so");
        drop(worker.stdin.take());
        worker.wait().unwrap();
    }

    #[test]
    fn a_process_that_is_not_there_has_no_threads() {
        assert_eq!(running(u32::MAX), []);
        assert!(set_scheduler(u32::MAX, libc::SCHED_RR, PRIORITY).is_err());
    }
}
