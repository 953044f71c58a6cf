//! What `scripts/bench tokens` measures with: a worker that always wants a token, and the same round over bare sockets.
//!
//! | called with | what it is |
//! |---|---|
//! | `--connect`, `--check turns`, `--kinds` | the worker program of a spooler, with the one kind `turns` |
//! | `--raw COUNT FROM UNTIL FOLDER` | a parent that passes a turn round among COUNT children, over a socket pair each |
//! | `--child FROM UNTIL FILE` | one of these children; its socket is standard input |
//!
//! Every worker and every child notes when it begins to run and when it gives its turn back, on CLOCK_MONOTONIC in nanoseconds. What
//! lies between the two moments FROM and UNTIL is written to a file, two little-endian numbers for each turn.

use std::error::Error;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::time::{ClockId, clock_gettime};
use spooler_protocol::from_worker::LogonError;
use spooler_protocol::settings::{Findings, Settings};
use spooler_worker::{Identity, Needs, Provider, Support, bootstrap, runtime};

/// As large as a grant on its way through a channel.
const WORD: [u8; 24] = [1; 24];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["--connect"] => serve(),
        ["--check", _] => write_out(&serde_json::to_string(&Findings::default()).unwrap_or_default()),
        ["--kinds"] => write_out("turns"),
        ["--raw", count, from, until, folder] => raw(count, from, until, Path::new(folder)),
        ["--child", from, until, file] => child(from, until, Path::new(file)),
        _ => Err("this program is for scripts/bench".into()),
    };
    result.map_or_else(
        |error| {
            eprintln!("{error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

fn write_out(text: &str) -> Result<(), Box<dyn Error>> {
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// The turns of one process.
struct Notes {
    from_ns: u64,
    until_ns: u64,
    file: PathBuf,
    turns: Vec<[u64; 2]>,
}

impl Notes {
    fn new(from_ns: u64, until_ns: u64, file: PathBuf) -> Self {
        Self { from_ns, until_ns, file, turns: Vec::with_capacity(1 << 20) }
    }

    /// Notes a turn that begins and ends now. False when it is time to stop, and everything is written.
    fn turn(&mut self) -> Result<bool, std::io::Error> {
        let begins_ns = now_ns();
        if begins_ns >= self.until_ns {
            self.write()?;
            return Ok(false);
        }
        if begins_ns >= self.from_ns {
            self.turns.push([begins_ns, now_ns()]);
        }
        Ok(true)
    }

    /// The file has its name when it is complete.
    fn write(&self) -> Result<(), std::io::Error> {
        let bytes: Vec<u8> = self.turns.iter().flatten().flat_map(|number| number.to_le_bytes()).collect();
        let partial = self.file.with_extension("partial");
        std::fs::write(&partial, bytes)?;
        std::fs::rename(&partial, &self.file)
    }
}

// --- The worker ---

fn serve() -> Result<(), Box<dyn Error>> {
    bootstrap::run_with(async |link, inbox, welcome| Ok(runtime::run::<Turns>(link, inbox, welcome).await))?;
    Ok(())
}

struct Times {
    from_ns: u64,
    until_ns: u64,
    folder: PathBuf,
}

/// Wants a token all the time and does nothing with it.
struct Turns;

impl Provider for Turns {
    type Settings = Times;

    fn settings(settings: &mut Settings) -> Times {
        let time = |settings: &mut Settings, key| settings.string(key, "0").parse().unwrap_or_default();
        Times {
            from_ns: time(settings, "from"),
            until_ns: time(settings, "until"),
            folder: PathBuf::from(settings.string("folder", "/nowhere")),
        }
    }

    fn needs(times: &Times) -> Needs {
        let identity = Identity::Supervisor("writes what it measured into a folder of the bench");
        Needs { write: vec![times.folder.clone()], identity, ..Needs::default() }
    }

    async fn logon(support: Support, times: Times) -> Result<Self, LogonError> {
        let file = times.folder.join(format!("{}.turns", std::process::id()));
        let mut notes = Notes::new(times.from_ns, times.until_ns, file);
        let host = support.clone();
        support.spawn(async move {
            // Until everybody has started there is nothing to measure.
            tokio::time::sleep(Duration::from_nanos(times.from_ns.saturating_sub(now_ns())) / 2).await;
            loop {
                match notes.turn() {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => {
                        tracing::error!(%error, "the turns cannot be written");
                        return;
                    }
                }
                host.spooler_yield().await;
            }
        });
        Ok(Self)
    }

    fn address_types(&self) -> Vec<String> {
        Vec::new()
    }

    fn identity(&self) -> String {
        "a bench".to_owned()
    }
}

// --- The same over bare sockets ---

fn raw(count: &str, from: &str, until: &str, folder: &Path) -> Result<(), Box<dyn Error>> {
    let program = std::env::current_exe()?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut ends: Vec<OwnedFd> = Vec::new();
    let mut children: Vec<Child> = Vec::new();
    for index in 0..count.parse::<u64>()? {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let file = folder.join(format!("{index}.turns"));
        children
            .push(Command::new(&program).args(["--child", from, until]).arg(file).stdin(Stdio::from(theirs)).spawn()?);
        epoll.add(ours.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, index))?;
        ends.push(ours);
    }
    pass_round(&epoll, &ends)?;
    drop(ends);
    for mut child in children {
        child.wait()?;
    }
    Ok(())
}

/// Gives the turn to one after another until one of them has left.
fn pass_round(epoll: &Epoll, ends: &[OwnedFd]) -> Result<(), Box<dyn Error>> {
    let descriptors: Vec<RawFd> = ends.iter().map(AsRawFd::as_raw_fd).collect();
    let mut next = descriptors.iter().cycle();
    let mut give = || next.next().map_or(Ok(0), |end| send(*end, &WORD, MsgFlags::empty()));
    give()?;
    let mut events = [EpollEvent::empty(); 8];
    let mut word = [0; 64];
    loop {
        let ready = epoll.wait(&mut events, EpollTimeout::NONE)?;
        for event in events.iter().take(ready) {
            let end = usize::try_from(event.data()).ok().and_then(|index| descriptors.get(index));
            let Some(end) = end else { continue };
            if recv(*end, &mut word, MsgFlags::empty())? == 0 {
                return Ok(());
            }
            give()?;
        }
    }
}

fn child(from: &str, until: &str, file: &Path) -> Result<(), Box<dyn Error>> {
    let mut notes = Notes::new(from.parse()?, until.parse()?, file.to_owned());
    let stdin = std::io::stdin();
    let end = stdin.as_fd().as_raw_fd();
    let mut word = [0; 64];
    while recv(end, &mut word, MsgFlags::empty())? > 0 {
        if !notes.turn()? {
            return Ok(());
        }
        send(end, &WORD, MsgFlags::empty())?;
    }
    // Somebody else was the first to leave.
    notes.write()?;
    Ok(())
}
