//! The other end of a serial line, for `scripts/bench critical`: sends at the speed of the line and drops what is not read in time.
//!
//! A UART receives into a FIFO of few bytes; a byte that finds it full is lost. Here the line is a pseudo-terminal, and the FIFO is a count.
//! The byte of each byte time is written to the terminal unless the reader has been behind for as many byte times as the FIFO has bytes;
//! then it is dropped and counted. The reader is behind while the terminal holds bytes that could be read (FIONREAD). Bytes still on
//! their way inside the kernel, which no reader can have, are not held against it.
//!
//! In a virtual machine a processor stands still when its host has others to serve, and no reader of any priority runs on it then. So a
//! witness on each processor, with the highest priority, wakes up several times in each byte time of the FIFO. While one of them is
//! overdue, and while the sender itself is, the time of the line stands still; how often and how long is in the result.
//!
//! ```text
//!   line FIFO-BYTES SECONDS TARGET [BURSTS PAUSE-SECONDS]
//! ```
//!
//! With BURSTS, the SECONDS are that many parts with a pause in between, and the bytes of the first [`EARLY`] of each count apart.
//!
//! It makes the pseudo-terminal, prints its name, and waits for a line on standard input. Then it sends, and prints one JSON object. What
//! was really sent is in the file TARGET. With the right to do so it runs before everything else (SCHED_FIFO), so that what is measured
//! is the reader and not the sender. A program that is only for measurements: its messages are for whoever runs them.

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::io::ioctl_fionread;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// 115,200 baud with one start bit, eight data bits and one stop bit.
const BYTES_A_SECOND: u64 = 11_520;
/// Bytes between two looks at the clock: a UART tells its driver of several bytes at once, too.
const BYTES_A_TICK: u64 = 4;
/// The first of the codes that may stand in a frame of any kind, and how many.
const FIRST: u64 = 0x20;
const CODES: u64 = 0x5f;
/// What a burst begins with, for which nobody can be prepared.
const EARLY: Duration = Duration::from_millis(100);
/// A witness sleeps so long, and is overdue after so long.
const WITNESS_PAUSE: Duration = Duration::from_micros(150);
const WITNESS_OVERDUE: Duration = Duration::from_micros(500);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (fifo_bytes, seconds, target, bursts, pause) = match arguments.as_slice() {
        [fifo_bytes, seconds, target] => (fifo_bytes, seconds, target, 1, 0),
        [fifo_bytes, seconds, target, bursts, pause] => {
            (fifo_bytes, seconds, target, bursts.parse::<u64>()?.max(1), pause.parse()?)
        }
        _ => return Err("usage: line FIFO-BYTES SECONDS TARGET [BURSTS PAUSE-SECONDS]".into()),
    };
    let (fifo_bytes, seconds): (u64, u64) = (fifo_bytes.parse()?, seconds.parse()?);
    let line = Line::new(fifo_bytes)?;
    let realtime = run_first();
    let witnesses = Witnesses::start()?;
    writeln!(io::stdout(), "{}", line.name()?)?;
    io::stdin().read_line(&mut String::new())?;
    // A whole number of ticks each.
    let burst_bytes = (BYTES_A_SECOND * seconds / bursts).next_multiple_of(BYTES_A_TICK);
    let plan = Plan { bursts, burst_bytes, pause: Duration::from_secs(pause) };
    let result = line.send(&plan, &witnesses)?;
    fs::write(target, &result.passed)?;
    let Sent { passed, lost, early, largest, stills, still } = result;
    writeln!(
        io::stdout(),
        "{{\"passed\": {}, \"lost\": {lost}, \"early\": {early}, \"largest\": {largest}, \"stills\": {stills}, \"still_us\": {}, \
         \"realtime\": {realtime}}}",
        passed.len(),
        still.as_micros(),
    )?;
    // The reader may take the rest before the line goes.
    io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// Asks for the highest priority; whether it was given.
fn run_first() -> bool {
    let pid = std::process::id().to_string();
    Command::new("chrt").args(["--fifo", "--pid", "50", &pid]).status().is_ok_and(|status| status.success())
}

/// When each processor was last seen at work, microseconds since `start`.
struct Witnesses {
    start: Instant,
    seen: Vec<Arc<AtomicU64>>,
}

impl Witnesses {
    /// Starts one on each processor that we may use. They end with the program.
    fn start() -> io::Result<Self> {
        let (start, allowed) = (Instant::now(), sched_getaffinity(None)?);
        let mut seen = Vec::new();
        for processor in (0..CpuSet::MAX_CPU).filter(|&processor| allowed.is_set(processor)) {
            let mine = Arc::new(AtomicU64::new(0));
            seen.push(Arc::clone(&mine));
            let mut only = CpuSet::new();
            only.set(processor);
            std::thread::spawn(move || {
                // One that may run anywhere sees less.
                let _ = sched_setaffinity(None, &only);
                loop {
                    mine.store(micros(start), Ordering::Relaxed);
                    std::thread::sleep(WITNESS_PAUSE);
                }
            });
        }
        Ok(Self { start, seen })
    }

    /// Whether a processor stands still.
    fn one_is_overdue(&self) -> bool {
        let now = micros(self.start);
        let overdue = u64::try_from(WITNESS_OVERDUE.as_micros()).unwrap_or(u64::MAX);
        self.seen.iter().any(|seen| now.saturating_sub(seen.load(Ordering::Relaxed)) > overdue)
    }
}

fn micros(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Our end of the line, and the reader's, at which we look only.
struct Line {
    ours: OwnedFd,
    theirs: OwnedFd,
    fifo_bytes: u64,
}

/// What to send.
struct Plan {
    bursts: u64,
    burst_bytes: u64,
    pause: Duration,
}

/// What became of the bytes.
struct Sent {
    passed: Vec<u8>,
    lost: u64,
    /// Of these, those of the first [`EARLY`] of a burst.
    early: u64,
    /// The most that the FIFO held.
    largest: u64,
    /// How often the time of the line stood still, and how long in all.
    stills: u64,
    still: Duration,
}

impl Line {
    fn new(fifo_bytes: u64) -> Result<Self, Box<dyn Error>> {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        let theirs = ioctl_tiocgptpeer(&ours, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        let mut settings = tcgetattr(&theirs)?;
        settings.make_raw();
        tcsetattr(&theirs, OptionalActions::Now, &settings)?;
        Ok(Self { ours, theirs, fifo_bytes })
    }

    fn name(&self) -> Result<String, Box<dyn Error>> {
        Ok(rustix::pty::ptsname(self.ours.as_fd(), Vec::new())?.into_string()?)
    }

    fn send(&self, plan: &Plan, witnesses: &Witnesses) -> Result<Sent, Box<dyn Error>> {
        let mut sent = Sent { passed: Vec::new(), lost: 0, early: 0, largest: 0, stills: 0, still: Duration::ZERO };
        let early_bytes = BYTES_A_SECOND * u64::try_from(EARLY.as_millis())? / 1000;
        let mut held = 0;
        let mut start = Instant::now();
        let mut done = 0;
        while done < plan.bursts * plan.burst_bytes {
            let in_burst = done % plan.burst_bytes;
            if in_burst == 0 && done > 0 {
                std::thread::sleep(plan.pause);
                start += plan.pause;
            }
            let due = start + Duration::from_nanos((done + BYTES_A_TICK) * 1_000_000_000 / BYTES_A_SECOND);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            while witnesses.one_is_overdue() {
                std::thread::sleep(WITNESS_PAUSE);
            }
            let late = Instant::now().saturating_duration_since(due);
            start += late;
            if late > WITNESS_OVERDUE {
                (sent.stills, sent.still) = (sent.stills + 1, sent.still + late);
                // Who could not run gets as long as it would have had.
                let tick = Duration::from_nanos(BYTES_A_TICK * 1_000_000_000 / BYTES_A_SECOND);
                std::thread::sleep(tick);
                start += tick;
            }
            // One that is up to date has an empty FIFO, whatever the kernel still keeps from it.
            held = ioctl_fionread(&self.theirs)?.min(held);
            let room = self.fifo_bytes.saturating_sub(held).min(BYTES_A_TICK);
            let piece: Vec<u8> = (done..done + room).map(code).collect();
            self.write(&piece)?;
            sent.passed.extend_from_slice(&piece);
            sent.lost += BYTES_A_TICK - room;
            sent.early += if in_burst < early_bytes { BYTES_A_TICK - room } else { 0 };
            held += room;
            sent.largest = sent.largest.max(held);
            done += BYTES_A_TICK;
        }
        Ok(sent)
    }

    fn write(&self, mut piece: &[u8]) -> io::Result<()> {
        while !piece.is_empty() {
            let written = rustix::io::write(&self.ours, piece)?;
            piece = piece.get(written..).unwrap_or_default();
        }
        Ok(())
    }
}

/// The byte at a place: what is lost shows as a step.
fn code(at: u64) -> u8 {
    u8::try_from(FIRST + at % CODES).unwrap_or(b'?')
}
