//! Looks at how much of the machine others use, when it is told to, and right after the kernel reports pressure.
//!
//! A look is the difference of two readings: what all CPUs did less what the supervisor, its workers and the programs that those run
//! did. The kernel's pressure (a PSI trigger) only says when to look, because pressure of our own making looks the same.
//! A thread of its own, which sleeps without a timer while nobody wants a look. What the machine does not show is said once in the log.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::policy::idle_gate::Observation;
use crate::supervisor::event::Event;
use crate::system::mailbox::{Letter, Mailbox};
use crate::system::priority;
use crate::system::program_cpu::{self, ProgramCpu};

/// The shortest look: the kernel counts in ticks of 10 ms.
const SHORT_LOOK: Duration = Duration::from_millis(200);
/// After pressure a reading that is older says too little about now.
const STALE: Duration = Duration::from_millis(600);
/// Somebody waits for a CPU a tenth of half a second; the unprivileged may only have windows of 2 s.
const TRIGGERS: [&[u8]; 2] = [b"some 50000 500000\0", b"some 200000 2000000\0"];
const STACK_BYTES: usize = 128 * 1024;

enum Command {
    Look(Option<Duration>),
    Own(u32, bool),
    Disown(u32),
}

/// The thread that looks, as its owner knows it.
pub struct IdleProbe {
    commands: Sender<Command>,
    bell: Arc<EventFd>,
}

impl IdleProbe {
    /// Starts the thread; what it sees goes to the mailbox.
    ///
    /// # Errors
    /// If there is no thread or no descriptor.
    pub fn start(mailbox: Mailbox) -> std::io::Result<Self> {
        let (sender, commands) = unbounded();
        let bell = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let heard = Arc::clone(&bell);
        let run = move || Looking::new(commands, heard, mailbox).run();
        std::thread::Builder::new().name("idle-probe".to_owned()).stack_size(STACK_BYTES).spawn(run)?;
        Ok(Self { commands: sender, bell })
    }

    /// Looks so often from now on, and once soon; `None`: no more.
    pub fn look(&self, every_ms: Option<i64>) {
        self.tell(Command::Look(every_ms.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or_default()))));
    }

    /// A process whose use of the CPU is ours, and that of the programs that it may run.
    pub fn own(&self, pid: u32, runs_programs: bool) {
        self.tell(Command::Own(pid, runs_programs));
    }

    /// That process is gone.
    pub fn disown(&self, pid: u32) {
        self.tell(Command::Disown(pid));
    }

    fn tell(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            let _ = self.bell.write(1);
        }
    }
}

struct Looking {
    commands: Receiver<Command>,
    bell: Arc<EventFd>,
    mailbox: Mailbox,
    pressure: Option<File>,
    own: BTreeMap<u32, Option<ProgramCpu>>,
    every: Option<Duration>,
    last: Option<Reading>,
    due: Option<Instant>,
    /// Whether it was said that nothing can be seen.
    said_blind: bool,
}

impl Looking {
    fn new(commands: Receiver<Command>, bell: Arc<EventFd>, mailbox: Mailbox) -> Self {
        let pressure = pressure_trigger();
        if let Err(error) = &pressure {
            tracing::info!(
                "/proc/pressure/cpu cannot be used ({error}): the idle gate looks only every scheduler.poll_every"
            );
        }
        Self {
            commands,
            bell,
            mailbox,
            pressure: pressure.ok(),
            own: BTreeMap::from([(std::process::id(), None)]),
            every: None,
            last: None,
            due: None,
            said_blind: false,
        }
    }

    fn run(mut self) {
        while let Ok(raised) = self.wait() {
            if self.take_commands().is_err() {
                return;
            }
            let now = Instant::now();
            if raised.contains(PollFlags::POLLERR) {
                self.pressure = None;
            } else if raised.contains(PollFlags::POLLPRI) && self.every.is_some() {
                self.on_pressure(now);
            }
            if self.due.is_some_and(|due| due <= now) {
                self.look(now);
            }
        }
    }

    /// Waits for a command, pressure or the next look; tells what the pressure's descriptor says.
    fn wait(&self) -> nix::Result<PollFlags> {
        let timeout = self.due.map_or(PollTimeout::NONE, |due| {
            let left = due.saturating_duration_since(Instant::now()).as_millis() + 1;
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = vec![PollFd::new(self.bell.as_fd(), PollFlags::POLLIN)];
        if let Some(pressure) = self.pressure.as_ref().filter(|_| self.every.is_some()) {
            fds.push(PollFd::new(pressure.as_fd(), PollFlags::POLLPRI));
        }
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error),
        }
        Ok(fds.get(1).and_then(PollFd::revents).unwrap_or(PollFlags::empty()))
    }

    fn take_commands(&mut self) -> Result<(), ()> {
        let _ = self.bell.read();
        loop {
            match self.commands.try_recv() {
                Ok(Command::Own(pid, runs_programs)) => {
                    self.own.insert(pid, runs_programs.then(|| ProgramCpu::of(pid)));
                }
                Ok(Command::Disown(pid)) => {
                    self.own.remove(&pid);
                }
                Ok(Command::Look(every)) => {
                    self.every = every;
                    let now = Instant::now();
                    match (every, &self.last) {
                        (None, _) => (self.due, self.last) = (None, None),
                        (Some(_), None) => self.begin(now),
                        (Some(every), Some(last)) => self.due = Some((last.at + every).max(now)),
                    }
                }
                Err(crossbeam_channel::TryRecvError::Empty) => return Ok(()),
                Err(crossbeam_channel::TryRecvError::Disconnected) => return Err(()),
            }
        }
    }

    /// A short look begins now.
    fn begin(&mut self, now: Instant) {
        self.last = self.read(now);
        self.due = Some(now + SHORT_LOOK);
    }

    fn on_pressure(&mut self, now: Instant) {
        match &self.last {
            Some(last) if now - last.at < STALE => self.due = Some(last.at + SHORT_LOOK),
            _ => self.begin(now),
        }
    }

    fn look(&mut self, now: Instant) {
        let reading = self.read(now);
        let seen = reading.as_ref().and_then(|now| now.since(self.last.as_ref()?));
        self.last = reading;
        self.due = self.every.map(|every| now + every.max(SHORT_LOOK));
        let seen = seen.or_else(average_load);
        match seen {
            Some(seen) => {
                tracing::debug!(?seen, "looked at the machine");
                self.mailbox.put(Letter::Event(Event::Observed(seen)));
            }
            None if !self.said_blind => {
                self.said_blind = true;
                tracing::warn!("neither /proc/stat nor /proc/loadavg can be read: the idle gate stays as it is");
            }
            None => {}
        }
    }

    fn read(&mut self, at: Instant) -> Option<Reading> {
        let text = std::fs::read_to_string("/proc/stat").ok()?;
        let (unused_ms, cpus) = parse_stat(&text)?;
        let own_us = self.own.iter_mut().filter_map(|(pid, programs)| Some((*pid, used_us(*pid, programs.as_mut())?)));
        let own_us = own_us.collect();
        Some(Reading { at, unused_ms, cpus, own_us })
    }
}

/// What the clocks of the machine and of our processes said at one moment.
struct Reading {
    at: Instant,
    /// Time that the CPUs were idle, or not ours to use, all together.
    unused_ms: i64,
    cpus: i64,
    own_us: BTreeMap<u32, i64>,
}

impl Reading {
    /// What others used between an earlier reading and this one.
    fn since(&self, before: &Self) -> Option<Observation> {
        let over_us = i64::try_from((self.at - before.at).as_micros()).ok().filter(|us| *us > 0)?;
        let all_us = over_us * self.cpus - (self.unused_ms - before.unused_ms) * 1000;
        let used = |(pid, now): (&u32, &i64)| Some(now - before.own_us.get(pid)?);
        let own_us: i64 = self.own_us.iter().filter_map(used).sum();
        let others = (all_us - own_us).max(0) * 1000 / over_us;
        let capacity = self.cpus * 1000;
        let unused = (over_us * self.cpus - all_us).max(0) * 1000 / over_us;
        let (others, unused) = (others.min(capacity), unused.min(capacity));
        Some(Observation { over_ms: over_us / 1000, capacity, others, unused })
    }
}

/// Microseconds that a process has used, and what it runs: programs that live too, if it is one that has programs.
fn used_us(pid: u32, programs: Option<&mut ProgramCpu>) -> Option<i64> {
    let own = i64::try_from(priority::cpu_used(pid)?.as_micros()).ok()?;
    let others = programs.map_or_else(|| program_cpu::reaped_us(pid).unwrap_or_default(), ProgramCpu::used_us);
    Some(own + i64::try_from(others).ok()?)
}

/// USER_HZ is 100 on everything that Linux still runs on.
const TICK_MS: i64 = 10;

/// Idle, iowait and stolen time of all CPUs in milliseconds, and how many CPUs there are. What a hypervisor takes is neither used by
/// others here nor given back if we wait.
fn parse_stat(text: &str) -> Option<(i64, i64)> {
    let all = text.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<i64> = all.split_ascii_whitespace().map_while(|field| field.parse().ok()).collect();
    let unused = fields.get(3)? + fields.get(4)? + fields.get(7).unwrap_or(&0);
    let cpus = text.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
    Some((unused * TICK_MS, i64::try_from(cpus).ok().filter(|cpus| *cpus > 0)?))
}

/// The average of the last minute, where nothing better can be seen. Work of our own is in it too.
fn average_load() -> Option<Observation> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    let cpus = std::thread::available_parallelism().ok().and_then(|cpus| i64::try_from(cpus.get()).ok())?;
    let capacity = cpus * 1000;
    Some(Observation { over_ms: 60_000, capacity, others: parse_load(&text)?, unused: capacity })
}

/// The first number of /proc/loadavg, in thousandths.
fn parse_load(text: &str) -> Option<i64> {
    let (whole, hundredths) = text.split_ascii_whitespace().next()?.split_once('.')?;
    let parse = |digits: &str| digits.parse::<i64>().ok().filter(|number| *number >= 0);
    Some(parse(whole)? * 1000 + parse(hundredths)? * 10)
}

/// A descriptor that polls as urgent when tasks wait for a CPU.
fn pressure_trigger() -> std::io::Result<File> {
    let mut refused = None;
    for trigger in TRIGGERS {
        let mut file = OpenOptions::new().read(true).write(true).open("/proc/pressure/cpu")?;
        match file.write_all(trigger) {
            Ok(()) => return Ok(file),
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.unwrap_or_else(|| std::io::Error::from(std::io::ErrorKind::Unsupported)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str =
        "cpu  10 1 20 400 50 0 3 7 0 0\ncpu0 5 0 10 200 25 0 1 3 0 0\ncpu1 5 1 10 200 25 0 2 4 0 0\nintr 1\n";

    #[test]
    fn idle_iowait_and_stolen_time_are_not_used() {
        assert_eq!(parse_stat(STAT), Some((4570, 2)));
        assert_eq!(parse_stat("cpu  1 2 3\n"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn what_we_use_is_not_what_others_use() {
        let start = Instant::now();
        let reading = |ms: u64, unused_ms: i64, own: &[(u32, i64)]| Reading {
            at: start + Duration::from_millis(ms),
            unused_ms,
            cpus: 2,
            own_us: own.iter().copied().collect(),
        };
        let before = reading(0, 1000, &[(1, 5000), (2, 0)]);
        // Of 2000 ms 500 were idle, 400 ours; the newcomer's past is not part of it.
        let after = reading(1000, 1500, &[(1, 305_000), (2, 100_000), (3, 9_000_000)]);
        assert_eq!(
            after.since(&before),
            Some(Observation { over_ms: 1000, capacity: 2000, others: 1100, unused: 500 })
        );
        // Grain: never less than nothing, never more than all.
        assert_eq!(reading(10, 1020, &[(1, 9000)]).since(&before).map(|seen| seen.others), Some(0));
    }

    #[test]
    fn the_load_is_read_in_thousandths() {
        assert_eq!(parse_load("1.57 0.66 0.81 1/108 27117\n"), Some(1570));
        assert_eq!(parse_load("nonsense"), None);
    }

    #[test]
    fn a_program_that_computes_is_ours_while_it_lives() {
        use std::process::{Command as Program, Stdio};
        let (mailbox, _letters) = Mailbox::new().unwrap();
        let (sender, commands) = unbounded();
        let bell = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).unwrap());
        let mut looking = Looking::new(commands, bell, mailbox);
        // Stands for a worker: it waits, and its program computes.
        let script = "while :; do :; done & read -r _; kill $!";
        let mut worker = Program::new("/bin/sh").args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap();
        let pid = worker.id();
        sender.send(Command::Own(pid, true)).unwrap();
        looking.take_commands().unwrap();
        while looking.read(Instant::now()).unwrap().own_us[&pid] < 200_000 {
            std::thread::yield_now();
        }
        assert!(used_us(pid, None).unwrap() < 200_000, "nothing that it has waited for, nor itself");
        drop(worker.stdin.take());
        worker.wait().unwrap();
        sender.send(Command::Disown(pid)).unwrap();
        looking.take_commands().unwrap();
        assert!(!looking.read(Instant::now()).unwrap().own_us.contains_key(&pid));
    }

    #[test]
    fn a_look_comes_when_it_is_wanted() {
        let (mailbox, letters) = Mailbox::new().unwrap();
        let probe = IdleProbe::start(mailbox).unwrap();
        probe.look(Some(60_000));
        letters.wait(Some(Duration::from_secs(60)));
        let Some(Letter::Event(Event::Observed(seen))) = letters.take() else { panic!("an observation") };
        assert!(seen.capacity >= 1000 && (0..=seen.capacity).contains(&seen.others), "{seen:?}");
        assert!(seen.over_ms >= 150, "{seen:?}");
    }
}
