//! Running one program: it gets the message, its words are read, and nothing of it is left when it is over.
//!
//! ```text
//!   message, whole ──▶ spawned ──▶ read ──▶ has exited ──▶ rest of its group killed ──▶ reaped
//!                                      │ timeout  ▲
//!                                      └── TERM ──┤ to the group
//!                                           └KILL─┘ after a grace of 5 s
//! ```
//!
//! Standard input holds the whole message, read-only ([`crate::scratch`]). It is not a pipe: at the end of a pipe a program cannot tell a whole
//! message from one whose writer was killed, and would deliver the part of it that it got.
//!
//! The program leads a process group. The group is signalled only until its leader is reaped: until then its number cannot belong
//! to anybody else. A process that leaves the group (`setsid`) leaves our care.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures_util::future::{FutureExt, LocalBoxFuture, Shared, join};
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use spooler_protocol::units;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::tail::Tail;
use super::verdict::Ending;
use crate::provider::local::account::Account;
use crate::scratch::Draft;
use crate::support::Support;

/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(5);

/// How long the last words are waited for if a process that left the group keeps the pipe open.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A program and everything that it starts with.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    pub(crate) path: &'a str,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(&'a str, String)>,
    pub(crate) directory: &'a str,
    pub(crate) account: Option<Account>,
    pub(crate) limit: Duration,
    /// Where standard output goes as a whole; otherwise its last lines are kept.
    pub(crate) output: Option<&'a File>,
    /// Knows where temporary files are.
    pub(crate) support: &'a Support,
}

/// How a run ended, and the last lines that the program said.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) ending: Ending,
    pub(crate) said: String,
}

/// Runs a program; `feed` writes the message to what will be its standard input.
pub(crate) async fn run(program: &Program<'_>, feed: impl AsyncFnOnce(&mut Draft) -> Result<(), String>) -> Ran {
    let input = match timeout(program.limit, filled(program.support, feed)).await {
        Ok(Ok(input)) => input,
        Ok(Err(why)) => {
            program.support.look_at_scratch();
            return Ran { ending: Ending::Content(why), said: String::new() };
        }
        Err(_) => {
            let why = format!("it did not come within {}", units::show_duration(program.limit));
            return Ran { ending: Ending::Content(why), said: String::new() };
        }
    };
    let mut child = match command(program, input).and_then(|mut command| command.spawn()) {
        Ok(child) => child,
        Err(error) => return not_started(&error),
    };
    let (mut group, exit) = match watch(&child) {
        Ok(watched) => watched,
        Err(error) => return not_started(&error),
    };
    let (out, err) = (RefCell::new(Tail::default()), RefCell::new(Tail::default()));
    let mut reading = pin!(join(read(child.stdout.take(), &out), read(child.stderr.take(), &err)));
    let mut read_all = false;
    let ended = {
        let mut working = pin!(work(program.limit, &exit, &group));
        loop {
            tokio::select! {
                ended = &mut working => break ended,
                _ = &mut reading, if !read_all => read_all = true,
            }
        }
    };
    group.signal(Signal::SIGKILL);
    let status = child.wait().await;
    group.leader = None;
    if !read_all {
        let _ = timeout(LAST_WORDS, reading).await;
    }
    let (out, err) = (out.borrow().text(), err.borrow().text());
    Ran { ending: ended.unwrap_or_else(|| ending(status)), said: if err.is_empty() { out } else { err } }
}

/// The whole message, about to be read from its beginning.
async fn filled(support: &Support, feed: impl AsyncFnOnce(&mut Draft) -> Result<(), String>) -> Result<File, String> {
    let mut input = support.scratch().draft().map_err(not_kept)?;
    feed(&mut input).await?;
    input.finish().map_err(not_kept)
}

/// Why there is no input for a program.
pub(crate) fn not_kept(error: std::io::Error) -> String {
    format!("it cannot be kept for the program: {error}")
}

fn command(program: &Program<'_>, input: File) -> std::io::Result<Command> {
    let mut command = Command::new(program.path);
    let output = program.output.map(File::try_clone).transpose()?;
    command
        .args(&program.arguments)
        .env_clear()
        .envs(program.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(program.directory)
        .stdin(input)
        .stdout(output.map_or_else(Stdio::piped, Stdio::from))
        .stderr(Stdio::piped())
        .process_group(0);
    if let Some(account) = program.account {
        // With another user the standard library also empties the list of supplementary groups.
        command.uid(account.uid.as_raw()).gid(account.gid.as_raw());
    }
    Ok(command)
}

fn not_started(error: &std::io::Error) -> Ran {
    use std::io::ErrorKind::{ArgumentListTooLong, InvalidInput, NotADirectory, NotFound, PermissionDenied};
    let configuration =
        matches!(error.kind(), NotFound | PermissionDenied | NotADirectory | ArgumentListTooLong | InvalidInput);
    Ran { ending: Ending::NotStarted { why: error.to_string(), configuration }, said: String::new() }
}

fn ending(status: std::io::Result<ExitStatus>) -> Ending {
    match status.map(|status| (status.code(), status.signal())) {
        Ok((Some(code), _)) => Ending::Exited(code),
        Ok((None, signal)) => Ending::Killed(signal.unwrap_or_default()),
        Err(error) => Ending::NotStarted { why: error.to_string(), configuration: false },
    }
}

/// Waits until the program has exited, which it is made to if it has to. Says how it ended unless its status does.
async fn work(limit: Duration, exit: &Exit, group: &Group) -> Option<Ending> {
    if timeout(limit, exit.wait()).await.is_ok() {
        return None;
    }
    group.signal(Signal::SIGTERM);
    if timeout(GRACE, exit.wait()).await.is_err() {
        group.signal(Signal::SIGKILL);
        exit.wait().await;
    }
    Some(Ending::TimedOut(limit))
}

async fn read(stream: Option<impl AsyncRead + Unpin>, tail: &RefCell<Tail>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0; 8192];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        tail.borrow_mut().push(buffer.get(..length).unwrap_or_default());
    }
}

/// The process group of a program that is not reaped yet.
struct Group {
    leader: Option<Pid>,
}

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.leader {
            // It may consist of nobody but a leader that has exited.
            let _ = killpg(leader, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

/// Tells that a program has exited, without reaping it. A thread waits, because the runtime can only wait and reap in one.
struct Exit(Shared<LocalBoxFuture<'static, ()>>);

impl Exit {
    async fn wait(&self) {
        self.0.clone().await;
    }
}

fn watch(child: &Child) -> std::io::Result<(Group, Exit)> {
    let gone = || std::io::Error::other("the program is gone already");
    let leader = Pid::from_raw(child.id().and_then(|pid| i32::try_from(pid).ok()).ok_or_else(gone)?);
    let waiting = tokio::task::spawn_blocking(move || {
        while waitid(Id::Pid(leader), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
    });
    let exited = async { drop(waiting.await) }.boxed_local().shared();
    Ok((Group { leader: Some(leader) }, Exit(exited)))
}
