//! The other end of a serial line, for `scripts/bench critical`: sends at the speed of the line and drops what is not read in time.
//!
//! A UART receives into a FIFO of few bytes; a byte that finds it full is lost. Here the line is a pseudo-terminal, and the FIFO is a count.
//! The byte of each byte time is written to the terminal unless the reader has been behind for as many byte times as the FIFO has bytes;
//! then it is dropped and counted. The reader is behind while the terminal holds bytes that could be read (FIONREAD). Bytes still on
//! their way inside the kernel, which no reader can have, are not held against it. When the sender itself gets no CPU (a virtual machine
//! whose host is busy), the time of the line stands still: several bytes at once would be held against the reader, too.
//!
//! ```text
//!   line FIFO-BYTES SECONDS TARGET
//! ```
//!
//! It makes the pseudo-terminal, prints its name, and waits for a line on standard input. Then it sends, and prints one JSON object. What
//! was really sent is in the file TARGET. With the right to do so it runs before everything else (SCHED_FIFO), so that what is measured
//! is the reader and not the sender. A program that is only for measurements: its messages are for whoever runs them.

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use rustix::io::ioctl_fionread;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// 115,200 baud with one start bit, eight data bits and one stop bit.
const BYTES_A_SECOND: u64 = 11_520;
/// Bytes between two looks at the clock: a UART tells its driver of several bytes at once, too.
const BYTES_A_TICK: u64 = 4;
/// The first of the codes that may stand in a frame of any kind, and how many.
const FIRST: u64 = 0x20;
const CODES: u64 = 0x5f;

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
    let [fifo_bytes, seconds, target] = arguments.as_slice() else {
        return Err("usage: line FIFO-BYTES SECONDS TARGET".into());
    };
    let (fifo_bytes, seconds): (u64, u64) = (fifo_bytes.parse()?, seconds.parse()?);
    let line = Line::new(fifo_bytes)?;
    let realtime = run_first();
    writeln!(io::stdout(), "{}", line.name()?)?;
    io::stdin().read_line(&mut String::new())?;
    let result = line.send(BYTES_A_SECOND * seconds)?;
    fs::write(target, &result.passed)?;
    let (lost, late_us) = (result.lost, result.late.as_micros());
    let passed = result.passed.len();
    writeln!(
        io::stdout(),
        "{{\"passed\": {passed}, \"lost\": {lost}, \"largest\": {}, \"late_us\": {late_us}, \"realtime\": {realtime}}}",
        result.largest
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

/// Our end of the line, and the reader's, at which we look only.
struct Line {
    ours: OwnedFd,
    theirs: OwnedFd,
    fifo_bytes: u64,
}

/// What became of the bytes.
struct Sent {
    passed: Vec<u8>,
    lost: u64,
    /// The most that the FIFO held.
    largest: u64,
    /// The most that the sender itself was behind.
    late: Duration,
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

    fn send(&self, bytes: u64) -> Result<Sent, Box<dyn Error>> {
        let mut sent = Sent { passed: Vec::new(), lost: 0, largest: 0, late: Duration::ZERO };
        let mut held = 0;
        let mut start = Instant::now();
        let mut done = 0;
        while done < bytes {
            let due = start + Duration::from_nanos((done + BYTES_A_TICK) * 1_000_000_000 / BYTES_A_SECOND);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let late = Instant::now().saturating_duration_since(due);
            sent.late = sent.late.max(late);
            start += late;
            // One that is up to date has an empty FIFO, whatever the kernel still keeps from it.
            held = ioctl_fionread(&self.theirs)?.min(held);
            let room = self.fifo_bytes.saturating_sub(held).min(BYTES_A_TICK);
            let piece: Vec<u8> = (done..done + room).map(code).collect();
            self.write(&piece)?;
            sent.passed.extend_from_slice(&piece);
            sent.lost += BYTES_A_TICK - room;
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
