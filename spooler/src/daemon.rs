//! The daemon: opens everything in the right order, runs the loop, and closes everything again.

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Group, getuid};
use tokio::sync::watch;

use crate::config::{Config, ConfigError};
use crate::driver::bridge::LoopBridge;
use crate::driver::{Driver, Equipment, committed};
use crate::supervisor::{Supervisor, Surroundings};
use crate::system::cgroup::Cgroups;
use crate::system::clock::Clock;
use crate::system::control::{self, Access, BindError, Bridge, ControlOptions, ControlServer};
use crate::system::idle_probe::IdleProbe;
use crate::system::mailbox::Mailbox;
use crate::system::store::body_files::BodyFolder;
use crate::system::store::readers::Readers;
use crate::system::store::reserve::Reserve;
use crate::system::store::sqlite::SqliteStore;
use crate::system::store::uploads::Uploads;
use crate::system::store::writer::Writer;
use crate::system::store::{Store, StoreError};
use crate::system::{device_events, links, logind, pickup_feeder, signals};

/// Threads that read the store: one stays free while another reads the whole queue.
const READERS: usize = 2;

/// Why the spooler does not run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration is missing or wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The control socket cannot be had.
    #[error(transparent)]
    Control(#[from] BindError),
    /// The submit group does not exist.
    #[error("control.submit_group: there is no group {0:?}; create it, or change {1}")]
    Group(String, PathBuf),
    /// A thread, a handler or a folder cannot be had.
    #[error("{0}: {1}")]
    System(&'static str, #[source] std::io::Error),
}

impl DaemonError {
    /// The exit code by sysexits.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Group(..) => 78,     // EX_CONFIG
            Self::Store(StoreError::InUse { .. }) => 75, // EX_TEMPFAIL
            Self::Store(StoreError::Full { .. }) => 75,  // EX_TEMPFAIL
            Self::Store(_) => 74,                        // EX_IOERR
            Self::Control(_) | Self::System(..) => 71,   // EX_OSERR
        }
    }
}

/// Runs the spooler until it is told to stop.
///
/// # Errors
/// If it cannot start. Once it runs, trouble is a matter for the log and the status table.
pub fn run(config_path: &Path) -> Result<(), DaemonError> {
    // The sockets where workers say hello are made by ipc-channel with the default mode: nobody else may enter their folders.
    umask(Mode::from_bits_truncate(0o077));
    raise_descriptor_limit();
    let config = crate::config::load(config_path)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let mut store = SqliteStore::open(&config.spool.path)?;
    let last_id = store.last_id()?;
    let clock = Clock::new();
    let (mailbox, letters) = Mailbox::new();
    let (status, status_changes) = watch::channel(0);
    let readers = Arc::new(Readers::start(|| store.reader(), READERS)?);
    let bodies = BodyFolder::of_spool(&config.spool.path);
    let uploads = Arc::new(Uploads::start(&bodies, config.spool.max_message_size)?);
    let reserve = Reserve::of(&config.spool.path, config.spool.min_free);
    let reports_to = mailbox.clone();
    let writer = Writer::start(Box::new(store), reserve, move |report| reports_to.put(committed(report)))?;
    let bridge: Arc<dyn Bridge> = Arc::new(LoopBridge {
        mailbox: mailbox.clone(),
        readers: Arc::clone(&readers),
        uploads: Arc::clone(&uploads),
        status: status_changes,
    });
    let control = open_control(&config, Arc::clone(&bridge))?;
    signals::start(mailbox.clone()).map_err(|error| DaemonError::System("Signals cannot be handled", error))?;
    let inhibitor = watch_machine(&mailbox)?;
    pickup_feeder::start(&config.spool.path, &config.spool.pickup, config.spool.max_message_size, bridge)
        .map_err(|error| DaemonError::System("The pick-up folder cannot be had", error))?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let surroundings =
        Surroundings { cores: u32::try_from(cores).unwrap_or(1), pid: std::process::id(), seed: seed(), last_id };
    tracing::info!(pid = surroundings.pid, spool = %config.spool.path.display(), "spooler starts");
    let probe = IdleProbe::start(mailbox.clone())
        .map_err(|error| DaemonError::System("The machine's load cannot be watched", error))?;
    let cgroups = Cgroups::find();
    let equipment = Equipment { writer, readers, uploads, mailbox, letters, clock, status, cgroups, probe, inhibitor };
    let socket = config.control.socket.clone();
    let (supervisor, first) = Supervisor::new(config.clone(), surroundings, clock.now());
    let driver = Driver::new(supervisor, equipment, config);
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    driver.run(first);
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    control.stop();
    let _ = std::fs::remove_file(&socket);
    tracing::info!("spooler stopped");
    Ok(())
}

/// What happens to the machine. What cannot be seen here is said once.
fn watch_machine(mailbox: &Mailbox) -> Result<logind::Inhibitor, DaemonError> {
    if let Err(error) = device_events::start(mailbox.clone()) {
        tracing::warn!(%error, "devices are not seen coming and going");
    }
    if let Err(error) = links::start(mailbox.clone()) {
        tracing::warn!(%error, "network interfaces are not seen coming and going");
    }
    logind::start(mailbox.clone()).map_err(|error| DaemonError::System("logind cannot be listened to", error))
}

fn open_control(config: &Config, bridge: Arc<dyn Bridge>) -> Result<ControlServer, DaemonError> {
    let submit_group = match &config.control.submit_group {
        None => None,
        Some(name) => match Group::from_name(name) {
            Ok(Some(group)) => Some(group.gid.as_raw()),
            Ok(None) | Err(_) => return Err(DaemonError::Group(name.clone(), config.source.clone())),
        },
    };
    let access =
        Access { owner_uid: getuid().as_raw(), submit_group, anyone_may_submit: config.control.anyone_may_submit };
    let listener = control::bind(&config.control.socket, &access)?;
    let options = ControlOptions { access, message_bytes_max: config.spool.max_message_size };
    control::start(listener, options, bridge)
        .map_err(|error| DaemonError::System("The control socket cannot be served", error))
}

/// Every connection and every worker needs descriptors: the soft limit is for programs that use select().
fn raise_descriptor_limit() {
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

fn seed() -> u64 {
    // Tokens come of it, which nobody shall guess.
    RandomState::new().hash_one(std::process::id())
}
