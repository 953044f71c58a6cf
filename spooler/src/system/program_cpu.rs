//! The CPU of the programs that a worker runs: of those that live, and of those that have ended.
//!
//! ```text
//!   worker ──▶ program ──▶ its programs          own clock of each that lives (or is not reaped yet)
//!     │           └ cutime + cstime: those that it has reaped
//!     └ cutime + cstime: programs that it has reaped, with all that they had reaped
//! ```
//!
//! The sum of all these only grows as long as each program is reaped by who started it. Who was seen once is looked at until its end, even
//! if its parent has ended before. What nobody of the family reaps takes its CPU out of the sum: that is made good here, so that what was
//! booked stays booked and nothing is booked twice. What a program used that was started and orphaned between two looks is not seen.
//!
//! A look costs about a tenth of a millisecond for each program. So it is for workers that run programs only, looks keep a distance from
//! each other that grows with what they cost, and of very many programs the last ones are seen when somebody has waited for them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::priority::CpuClock;
use super::threads;

/// Between two looks.
const DISTANCE: Duration = Duration::from_millis(10);
/// Looks take no more than this part of the time.
const PART: u32 = 50;
/// Programs that are looked at. Those that were seen before stay among them.
const PROGRAMS_MAX: usize = 128;
/// USER_HZ is 100 on everything that Linux still runs on.
const TICK_US: u64 = 10_000;
/// Ended programs are counted in ticks, user and system time apart: so much of a sum that has become less is no loss.
const GRAIN_US: u64 = 4 * TICK_US;

/// What the programs of one worker have used.
#[derive(Debug)]
pub(super) struct ProgramCpu {
    worker: u32,
    /// The programs that lived at the last look, and when each was started: numbers are given again.
    known: BTreeMap<u32, u64>,
    used_us: u64,
    /// What is not in the sums any more.
    gone_us: u64,
    next_look: Option<Instant>,
}

impl ProgramCpu {
    /// That of a worker that has started none yet.
    pub(super) fn of(worker: u32) -> Self {
        Self { worker, known: BTreeMap::new(), used_us: 0, gone_us: 0, next_look: None }
    }

    /// Microseconds that they have used so far; it never becomes less.
    pub(super) fn used_us(&mut self) -> u64 {
        let start = Instant::now();
        if self.next_look.is_none_or(|at| at <= start) {
            self.look();
            let now = Instant::now();
            self.next_look = Some(now + DISTANCE.max((now - start) * PART));
        }
        self.used_us
    }

    fn look(&mut self) {
        let Some(worker) = stat(self.worker) else { return };
        let mut sum_us = worker.reaped_us;
        let known = std::mem::take(&mut self.known);
        let same = |(program, started)| Some((program, stat(program).filter(|stat| stat.started == started)?));
        let mut stats: BTreeMap<u32, Stat> = known.into_iter().filter_map(same).collect();
        let roots = std::iter::once(self.worker).chain(stats.keys().copied()).collect();
        for program in threads::families(roots, PROGRAMS_MAX).into_iter().skip(1).take(PROGRAMS_MAX) {
            let Some(stat) = stats.remove(&program).or_else(|| stat(program)) else { continue };
            sum_us += own_us(program).unwrap_or(stat.own_us) + stat.reaped_us;
            self.known.insert(program, stat.started);
        }
        self.book(sum_us);
    }

    fn book(&mut self, sum_us: u64) {
        let sum_us = sum_us + self.gone_us;
        if sum_us + GRAIN_US < self.used_us {
            self.gone_us += self.used_us - sum_us;
        }
        self.used_us = self.used_us.max(sum_us);
    }
}

/// What /proc/PID/stat says.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    own_us: u64,
    /// Of its children that it has waited for, and of theirs.
    reaped_us: u64,
    /// Ticks since the machine was started.
    started: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Fields 14 to 17 and 22; the second one, in parentheses, may hold spaces.
fn parse(stat: &str) -> Option<Stat> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    // Of ended children the kernel's sums are signed.
    let mut ticks = || Some(u64::try_from(fields.next()?.parse::<i64>().ok()?).unwrap_or_default());
    let (own, reaped) = (ticks()? + ticks()?, ticks()? + ticks()?);
    let started = fields.nth(4)?.parse().ok()?;
    Some(Stat { own_us: own * TICK_US, reaped_us: reaped * TICK_US, started })
}

/// Microseconds that the children have used that a process has waited for, and their children.
pub(super) fn reaped_us(pid: u32) -> Option<u64> {
    Some(stat(pid)?.reaped_us)
}

fn own_us(pid: u32) -> Option<u64> {
    u64::try_from(CpuClock::of(pid)?.used()?.as_micros()).ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::*;

    /// A shell that computes until it has used about a second (the kernel counts ticks), in a program that lives on until its input ends.
    fn computing() -> Child {
        let script = "(ulimit -t 1; while :; do :; done); read -r _; exit 0";
        Command::new("/bin/sh").args(["-c", script]).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn wait_until_used(cpu: &mut ProgramCpu, us: u64) {
        while cpu.used_us() < us {
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_programs_use_is_seen_while_they_live_and_stays_when_they_have_ended() {
        // Stands for a worker; the shell in it for a program that runs programs.
        let mut worker = computing();
        let mut cpu = ProgramCpu::of(worker.id());
        // While it computes, and when it was killed for a second of it.
        wait_until_used(&mut cpu, 100_000);
        wait_until_used(&mut cpu, 600_000);
        drop(worker.stdin.take());
        worker.wait().unwrap();
        cpu.next_look = None;
        assert!(cpu.used_us() >= 600_000, "of a worker that is gone, what is known");
    }

    #[test]
    fn who_is_orphaned_is_looked_at_until_its_end() {
        // The one in the middle ends when it is told to; the outermost lives on.
        let script = "sh -c 'sh -c \"ulimit -t 60; while :; do :; done\" & read -r _'; read -r _";
        let mut worker =
            Command::new("/bin/sh").args(["-c", script]).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut cpu = ProgramCpu::of(worker.id());
        wait_until_used(&mut cpu, 50_000);
        let mut input = worker.stdin.take().unwrap();
        std::io::Write::write_all(&mut input, b"\n").unwrap();
        while threads::families(vec![worker.id()], PROGRAMS_MAX).len() > 1 {
            std::thread::yield_now();
        }
        wait_until_used(&mut cpu, 300_000);
        let orphans: Vec<u32> = cpu.known.keys().copied().collect();
        assert_eq!(orphans.len(), 1, "the one that computes");
        kill(Pid::from_raw(orphans[0].try_into().unwrap()), Signal::SIGKILL).unwrap();
        drop(input);
        worker.wait().unwrap();
    }

    #[test]
    fn nothing_is_booked_twice_and_nothing_is_taken_back() {
        let mut cpu = ProgramCpu::of(std::process::id());
        let booked: Vec<u64> = [100_000, 90_000, 120_000, 20_000, 30_000]
            .into_iter()
            .map(|sum_us| {
                cpu.book(sum_us);
                cpu.used_us
            })
            .collect();
        // Less by a tick, which comes back; then a program is gone with 100 ms, and the others use 10 ms.
        assert_eq!(booked, [100_000, 100_000, 120_000, 120_000, 130_000]);
    }

    #[test]
    fn times_are_found_behind_a_name_with_spaces() {
        let stat = "12 (a b) c) S 1 12 12 0 -1 4194560 1 2 3 4 50 60 7 8 20 -5 3 0 100";
        assert_eq!(parse(stat), Some(Stat { own_us: 1_100_000, reaped_us: 150_000, started: 100 }));
        assert_eq!(parse("12 (x) S 1"), None);
    }

    #[test]
    fn a_worker_that_is_not_there_has_used_nothing() {
        assert_eq!(ProgramCpu::of(u32::MAX).used_us(), 0);
    }
}
