//! The first milliseconds of the process: session, death signal, log, handshake.
//!
//! Everything that `Command` could only do by forking the supervisor (`pre_exec`, `uid`) is done here, by the worker itself, so that
//! the supervisor can start it with `posix_spawn`.

use std::fmt;

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd;
use spooler_protocol::to_worker::{ToWorker, Welcome};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::link::{self, LinkError, LinkSender};
use crate::provider::UnknownKind;
use crate::runtime::Ended;

/// CPU that a real-time thread may use in one go, microseconds.
const REALTIME_COMPUTING_US_MAX: u64 = 2_000_000;

/// Why a worker could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The supervisor cannot be reached.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The supervisor asked for a kind that this program does not have.
    #[error(transparent)]
    Kind(#[from] UnknownKind),
    /// The supervisor left or said something else instead of a welcome.
    #[error("The supervisor gave no welcome")]
    NoWelcome,
    /// The runtime could not be made.
    #[error("Cannot start the runtime")]
    Runtime(#[source] std::io::Error),
}

/// Runs one worker from its first instruction to its last, for the supervisor on standard input. `session` runs the kind that the welcome
/// names.
///
/// # Errors
/// If it never came to a session.
pub fn run_with<S>(session: S) -> Result<Ended, BootstrapError>
where
    S: AsyncFnOnce(LinkSender, UnboundedReceiver<ToWorker>, Welcome) -> Result<Ended, UnknownKind>,
{
    log_to_stderr();
    die_with_the_supervisor();
    limit_realtime_computing();
    // A session of its own gives the worker an autogroup of its own, which is what priorities between sessions act on.
    let _ = unistd::setsid();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(BootstrapError::Runtime)?;
    runtime.block_on(async {
        let (link, mut inbox) = link::connect()?;
        // The supervisor's own files are private; what a worker and its programs make has the modes that they ask for.
        umask(Mode::from_bits_truncate(0o022));
        let Some(ToWorker::Welcome(welcome)) = inbox.recv().await else {
            return Err(BootstrapError::NoWelcome);
        };
        Ok(session(link, inbox, welcome).await?)
    })
}

/// Logs to standard error, which the supervisor reads; a panic is reported there and ends the process.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SPOOLER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .init();
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default(info);
        // Again behind a backtrace: the last lines are what the supervisor keeps.
        eprintln!("{info}");
        // tokio would catch the panic and leave a delivery hanging; a dead worker is noticed at once.
        std::process::abort();
    }));
}

/// What a real-time critical section needs: a thread that computes for so long without waiting for anything ends its worker. The
/// supervisor could not set it for a worker that has another user.
fn limit_realtime_computing() {
    if let Err(error) = setrlimit(Resource::RLIMIT_RTTIME, REALTIME_COMPUTING_US_MAX, REALTIME_COMPUTING_US_MAX) {
        tracing::warn!(%error, "no limit for what a real-time section computes");
    }
}

fn die_with_the_supervisor() {
    if let Err(error) = prctl::set_pdeathsig(Signal::SIGKILL) {
        tracing::warn!(%error, "no death signal; only the broken channel will end this worker");
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LoggedOff => "logged off",
            Self::LogonFailed => "could not log on",
            Self::SupervisorGone => "lost the supervisor",
        })
    }
}
