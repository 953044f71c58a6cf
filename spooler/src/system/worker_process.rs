//! A worker's process: started with `posix_spawn`, watched through a pidfd, ended with signals that cannot hit anybody else.
//!
//! One thread per worker, the minder, waits for the end of the process and meanwhile passes its log lines on.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::Arc;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use spooler_protocol::handshake::TEMPORARY_FOLDER;
use spooler_protocol::plain::plain;

use crate::supervisor::event::{WorkerEnd, WorkerId};
use crate::system::folders::WorkersFolders;
use crate::system::mailbox::{Letter, Mailbox};
use crate::system::packets::{self, Packets, hang_up};
use crate::system::priority::{self, CpuClock};
use crate::system::program_cpu::ProgramCpu;
use crate::system::worker_link::{Greeted, greet};

/// The last lines of a worker's log that are kept for the reason of its death.
const LAST_LINES: usize = 5;
/// A log line is cut here.
const LINE_BYTES_MAX: usize = 1024;
/// Signals with which people ask processes to go.
const BY_HAND: [nix::sys::signal::Signal; 3] =
    [nix::sys::signal::Signal::SIGTERM, nix::sys::signal::Signal::SIGINT, nix::sys::signal::Signal::SIGHUP];
const STACK_BYTES: usize = 256 * 1024;

/// A process that runs, or has ended a moment ago.
pub struct WorkerProcess {
    /// Its id.
    pub pid: u32,
    /// Its autogroup, opened before the sandbox takes it from whoever is not root.
    pub autogroup: Option<File>,
    /// The clock of its CPU.
    pub cpu: Option<CpuClock>,
    /// That of its programs, if it runs any, and what was told of it.
    programs: Option<(ProgramCpu, u64)>,
    pidfd: Arc<OwnedFd>,
}

impl WorkerProcess {
    /// Starts a worker, which makes its sockets and temporary files in `folders`. `greeted` is called on another thread with its hello, or with why it is not acceptable, unless the process
    /// ends before it says anything; its end comes as [`Letter::Ended`].
    ///
    /// # Errors
    /// If there is no process.
    pub fn start(
        program: &Path,
        folders: &WorkersFolders,
        worker: WorkerId,
        provider: &str,
        mailbox: &Mailbox,
        greeted: impl FnOnce(Result<Greeted, String>) + Send + 'static,
    ) -> Result<Self, String> {
        let failed = |what: &str, why: &dyn std::fmt::Display| format!("{what} {}: {why}", program.display());
        let (ours, theirs) = packets::pair()?;
        let mut child = command(program, folders, theirs).spawn().map_err(|error| failed("cannot start", &error))?;
        let pid = child.id();
        let minded = raw_pid(pid)
            .ok_or_else(|| "the process has no id".to_owned())
            .and_then(|raw| pidfd_open(raw, PidfdFlags::empty()).map_err(|error| failed("cannot watch", &error)));
        let (pidfd, stderr) = match (minded, child.stderr.take()) {
            (Ok(pidfd), Some(stderr)) => (Arc::new(pidfd), stderr),
            (pidfd, _) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(pidfd.err().unwrap_or_else(|| "the worker has no log".to_owned()));
            }
        };
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES);
        let (packets, place) = (Packets::new(Arc::clone(&ours)), folders.sockets().to_owned());
        let (mailbox, provider) = (mailbox.clone(), provider.to_owned());
        let (autogroup, cpu) = (priority::open_autogroup(pid), CpuClock::of(pid));
        let (watched, process) = (Arc::clone(&pidfd), Self { pid, autogroup, cpu, programs: None, pidfd });
        thread("worker-minder")
            .spawn(move || {
                let how = mind(child, &watched, stderr, &provider);
                // Whoever inherited the worker's end does not speak for it.
                hang_up(&ours);
                mailbox.put(Letter::Ended(worker, how));
            })
            .and_then(|_| {
                // How a worker ends that says nothing says more than that.
                thread("worker-greeter").spawn(move || greet(packets, pid, &place).transpose().map_or((), greeted))
            })
            .map_err(|error| failed("no thread for", &error))?;
        Ok(process)
    }

    /// It may run programs: what they use is to be known.
    pub fn count_programs(&mut self) {
        self.programs = Some((ProgramCpu::of(self.pid), 0));
    }

    /// Microseconds of CPU that its programs have used, if that is more than it was.
    pub fn programs_used_us(&mut self) -> Option<u64> {
        let (programs, told_us) = self.programs.as_mut()?;
        let used_us = programs.used_us();
        (std::mem::replace(told_us, used_us) < used_us).then_some(used_us)
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::TERM);
    }

    /// SIGKILL.
    pub fn kill(&self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

fn raw_pid(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// A command that `posix_spawn` can run: nothing of `pre_exec`'s kind, which would fork the whole supervisor.
fn command(program: &Path, folders: &WorkersFolders, channel: OwnedFd) -> Command {
    let mut command = Command::new(program);
    command.arg("--connect").stdin(Stdio::from(channel)).stdout(Stdio::null()).stderr(Stdio::piped()).env_clear();
    command.env("TMPDIR", folders.sockets()).env(TEMPORARY_FOLDER, folders.temporary());
    for key in ["PATH", "SPOOLER_LOG", "RUST_BACKTRACE", "TZ"] {
        if let Some(value) = std::env::var_os(key) {
            command.env(key, value);
        }
    }
    command
}

/// Passes log lines on until the process ends; then says how it ended.
fn mind(mut child: Child, pidfd: &OwnedFd, mut stderr: ChildStderr, provider: &str) -> WorkerEnd {
    let mut lines = Lines::default();
    let flags = fcntl(&stderr, FcntlArg::F_GETFL).map(OFlag::from_bits_truncate).unwrap_or(OFlag::empty());
    let _ = fcntl(&stderr, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK));
    let mut open = true;
    loop {
        let mut fds = vec![PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        if open {
            fds.push(PollFd::new(stderr.as_fd(), PollFlags::POLLIN));
        }
        if poll(&mut fds, PollTimeout::NONE).is_err() {
            continue;
        }
        let ended = fds.first().and_then(PollFd::any).unwrap_or(false);
        open = open && lines.read(&mut stderr, provider);
        if ended {
            break;
        }
    }
    let status = child.wait();
    lines.flush(provider);
    let by_hand =
        status.as_ref().is_ok_and(|status| BY_HAND.iter().any(|signal| status.signal() == Some(*signal as i32)));
    let how = status.map_or_else(|error| error.to_string(), describe);
    WorkerEnd { how, stderr_tail: lines.last.into(), by_hand }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(number)) => {
            let name = nix::sys::signal::Signal::try_from(number).map_or("?", nix::sys::signal::Signal::as_str);
            let sandbox = if number == libc::SIGSYS { ": a system call that the sandbox does not allow" } else { "" };
            format!("signal {number} ({name}){sandbox}")
        }
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

/// The worker's log, cut into lines.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
    last: VecDeque<String>,
}

impl Lines {
    /// Reads what is there; false at the end.
    fn read(&mut self, stderr: &mut ChildStderr, provider: &str) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match stderr.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => self.take(buffer.get(..count).unwrap_or_default(), provider),
                Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
            }
        }
    }

    fn take(&mut self, bytes: &[u8], provider: &str) {
        for &byte in bytes {
            if byte == b'\n' || self.partial.len() >= LINE_BYTES_MAX {
                self.flush(provider);
            }
            if byte != b'\n' {
                self.partial.push(byte);
            }
        }
    }

    fn flush(&mut self, provider: &str) {
        let mut line = String::from_utf8_lossy(&std::mem::take(&mut self.partial)).into_owned();
        line.retain(|c| !c.is_control());
        let line = plain(line.trim());
        if line.is_empty() {
            return;
        }
        match line.split_once(' ') {
            Some(("ERROR", text)) => tracing::error!(provider, "{}", text.trim()),
            Some(("WARN", text)) => tracing::warn!(provider, "{}", text.trim()),
            Some(("DEBUG" | "TRACE", text)) => tracing::debug!(provider, "{}", text.trim()),
            Some(("INFO", text)) => tracing::info!(provider, "{}", text.trim()),
            _ => tracing::info!(provider, "{line}"),
        }
        self.last.push_back(line);
        if self.last.len() > LAST_LINES {
            self.last.pop_front();
        }
    }
}
