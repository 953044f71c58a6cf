//! The daemon: opens everything in the right order, runs the loop, and closes everything again.

use std::hash::{BuildHasher, RandomState};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Group, geteuid, getuid};
use signal_hook::iterator::Signals;
use spooler_protocol::confinement::Privilege;
use spooler_protocol::limits::COMPLETION_BYTES_MAX;
use tokio::sync::watch;

use crate::config::{Config, ConfigError, Provider};
use crate::driver::bridge::{CurrentAddressing, LoopBridge};
use crate::driver::{Driver, Equipment, committed};
use crate::supervisor::event::Event;
use crate::supervisor::{Supervisor, Surroundings};
use crate::system::cgroup::Cgroups;
use crate::system::clock::Clock;
use crate::system::control::{self, Access, BindError, Bridge, ControlOptions, ControlServer};
use crate::system::folders::{self, FolderError, WorkersFolders};
use crate::system::idle_probe::IdleProbe;
use crate::system::log::{self, MailLog};
use crate::system::mailbox::{Letter, Mailbox};
use crate::system::privileges::{self, PrivilegeError, Reduced, Use};
use crate::system::service_manager::{self, ServiceManager};
use crate::system::store::body_files::BodyFolder;
use crate::system::store::readers::Readers;
use crate::system::store::reserve::Reserve;
use crate::system::store::sqlite::SqliteStore;
use crate::system::store::uploads::Uploads;
use crate::system::store::writer::Writer;
use crate::system::store::{Store, StoreError};
use crate::system::{device_events, links, logind, pickup_feeder, signals, worker_link};

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
    /// A folder is not fit for use.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Power that is not needed cannot be given up.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// The control socket cannot be had.
    #[error(transparent)]
    Control(#[from] BindError),
    /// A group that may use the control socket does not exist.
    #[error("control.{0}: there is no group {1:?}; create it (`groupadd --system {1}`), or change {2}")]
    Group(&'static str, String, PathBuf),
    /// A thread, a handler or a folder cannot be had.
    #[error("{0}: {1}")]
    System(&'static str, #[source] std::io::Error),
}

impl DaemonError {
    /// The exit code by sysexits.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(error) if error.may_pass() => 75,  // EX_TEMPFAIL
            Self::Config(_) | Self::Group(..) => 78,        // EX_CONFIG
            Self::Store(StoreError::InUse { .. }) => 75,    // EX_TEMPFAIL
            Self::Store(error) if error.is_passing() => 75, // EX_TEMPFAIL
            Self::Store(_) => 74,                           // EX_IOERR
            Self::Folder(FolderError::Io(..)) => 73,        // EX_CANTCREAT
            Self::Folder(_) => 77,                          // EX_NOPERM
            Self::Control(_) | Self::Privilege(_) | Self::System(..) => 71, // EX_OSERR
        }
    }
}

/// Runs the spooler until it is told to stop.
///
/// # Errors
/// If it cannot start. Once it runs, trouble is a matter for the log and the status table.
pub fn run(config_path: &Path) -> Result<(), DaemonError> {
    // Workers inherit it: the sockets where they get their channels are made by ipc-channel with the default mode, and nobody else may
    // enter their folders.
    umask(Mode::from_bits_truncate(0o077));
    let signals = signals::catch_reloads().map_err(no_signals)?;
    worker_link::prepare().map_err(|error| DaemonError::System("There is no channel for workers", error))?;
    let config = crate::config::load(config_path)?;
    let mail_log = log::start(config.log.format);
    raise_descriptor_limit();
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    folders::prepare_spool(&config.spool.path)?;
    folders::prepare_socket(&config.control.socket)?;
    let uses = uses(&config);
    let store = open_store(&config.spool.path, &uses)?;
    let workers_folders = WorkersFolders::prepare(&config.spool.path)?;
    let access = access(&config)?;
    let listener = control::bind(&config.control.socket, &access)?;
    // No thread but the store's runs yet; whatever is started from here on has no more than this.
    let reduced = privileges::give_up_all_but(&uses)?;
    tracing::info!("capabilities retained: {reduced}");
    let socket = config.control.socket.clone();
    let control = serve(config, Opened { signals, store, listener, access, workers_folders, reduced, mail_log })?;
    control.stop();
    let _ = std::fs::remove_file(&socket);
    tracing::info!("spooler stopped");
    Ok(())
}

fn no_signals(error: std::io::Error) -> DaemonError {
    DaemonError::System("Signals cannot be handled", error)
}

/// Opens the store on a thread that has given up already what it does not need, because the store has a thread of its own, which inherits
/// that; while the control socket is still to be given to its group.
fn open_store(folder: &Path, uses: &[Use]) -> Result<SqliteStore, DaemonError> {
    let open = || {
        privileges::give_up_all_but(uses)?;
        Ok(SqliteStore::open(folder)?)
    };
    let failed = |error| DaemonError::System("The store's thread cannot be started", error);
    std::thread::scope(|scope| {
        let opener = std::thread::Builder::new().name("opener".to_owned()).spawn_scoped(scope, open).map_err(failed)?;
        opener.join().unwrap_or_else(|_| Err(failed(std::io::Error::other("it has panicked"))))
    })
}

/// What was opened with all the power that there was at the start.
struct Opened {
    signals: Signals,
    store: SqliteStore,
    listener: UnixListener,
    access: Access,
    workers_folders: WorkersFolders,
    reduced: Reduced,
    mail_log: MailLog,
}

/// Starts all threads and runs the loop until it is told to stop.
fn serve(config: Config, opened: Opened) -> Result<ControlServer, DaemonError> {
    let Opened { signals, mut store, listener, access, workers_folders, reduced, mail_log } = opened;
    let last_id = store.last_id()?;
    if config.history.keep.is_zero()
        && let Err(error) = store.empty_history()
    {
        tracing::warn!("The history is switched off, but what it has kept cannot be deleted: {error}");
    }
    let clock = Clock::new();
    let (mailbox, letters) = Mailbox::new().map_err(|error| DaemonError::System("The loop cannot sleep", error))?;
    let (status, status_changes) = watch::channel(0);
    let readers = Arc::new(Readers::start(|| store.reader(), READERS)?);
    let bodies = BodyFolder::of_spool(&config.spool.path);
    let stored_max = config.spool.max_message_size.saturating_add(COMPLETION_BYTES_MAX);
    let uploads = Arc::new(Uploads::start(&bodies, stored_max)?);
    let reserve = Reserve::of(&config.spool.path, config.spool.min_free);
    let reports_to = mailbox.clone();
    let stuck_to = mailbox.clone();
    let writer = Writer::start(
        Box::new(store),
        reserve,
        move |report| reports_to.put(committed(report)),
        move |why| stuck_to.put(Letter::Event(Event::StoreStuck(why))),
    )?;
    let addressing = CurrentAddressing::new(Arc::clone(&config.addressing));
    let bridge: Arc<dyn Bridge> = Arc::new(LoopBridge {
        mailbox: mailbox.clone(),
        readers: Arc::clone(&readers),
        uploads: Arc::clone(&uploads),
        status: status_changes,
        addressing: addressing.clone(),
    });
    let options = ControlOptions { access, message_bytes_max: config.spool.max_message_size };
    let control = control::start(listener, options, Arc::clone(&bridge))
        .map_err(|error| DaemonError::System("The control socket cannot be served", error))?;
    signals::start(signals, mailbox.clone()).map_err(no_signals)?;
    let inhibitor = watch_machine(&mailbox)?;
    pickup_feeder::start(&config.spool.path, &config.spool.pickup, config.spool.max_message_size, access, bridge)
        .map_err(|error| DaemonError::System("The pick-up folder cannot be had", error))?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let surroundings = Surroundings {
        cores: u32::try_from(cores).unwrap_or(1),
        pid: std::process::id(),
        reload: service_manager::reload_command(),
        seed: seed(),
        last_id,
    };
    tracing::info!(pid = surroundings.pid, spool = %config.spool.path.display(), "spooler starts");
    let probe = IdleProbe::start(mailbox.clone())
        .map_err(|error| DaemonError::System("The machine's load cannot be watched", error))?;
    let equipment = Equipment {
        writer,
        readers,
        uploads,
        mailbox,
        letters,
        clock,
        mail_log,
        addressing,
        status,
        cgroups: Cgroups::find(),
        probe,
        inhibitor,
        workers_folders,
        reduced,
        service: ServiceManager::find(),
    };
    let (supervisor, first) = Supervisor::new(config.clone(), surroundings, clock.now());
    service_manager::ready(&running(&config));
    Driver::new(supervisor, equipment, config).run(first);
    Ok(control)
}

/// What a configuration needs of root's power, for as long as it is in effect.
pub(crate) fn uses(config: &Config) -> Vec<Use> {
    let root = geteuid().is_root();
    let of_all: Vec<Use> = config.providers.iter().flat_map(|provider| uses_of(provider, root)).collect();
    Use::ALL.into_iter().filter(|of| of_all.contains(of)).collect()
}

/// What one provider needs of it, if `root` runs the spooler or not: as its kind declares.
pub(crate) fn uses_of(provider: &Provider, root: bool) -> Vec<Use> {
    let declares = |privilege| provider.privileges.contains(&privilege);
    // Without a sandbox a worker has what the spooler has, and nobody knows what it does with it.
    let open = provider.sandbox.is_none();
    // Who is named has what it has.
    let named = provider.sandbox.as_ref().is_some_and(|sandbox| sandbox.run_as.is_some());
    let wanted = [
        (Use::Priorities, true),
        (Use::OtherUsers, root),
        (Use::LowPorts, open || declares(Privilege::LowPorts)),
        (Use::FilesOfAll, root && (open || declares(Privilege::FilesOfAll) && !named)),
    ];
    wanted.into_iter().filter_map(|(of, wanted)| (wanted && provider.enabled).then_some(of)).collect()
}

/// What `systemctl status` says of a running spooler.
pub(crate) fn running(config: &Config) -> String {
    let enabled = config.providers.iter().filter(|provider| provider.enabled).count();
    format!("running; {enabled} of {} providers enabled", config.providers.len())
}

/// What happens to the machine. What cannot be seen here is said once.
fn watch_machine(mailbox: &Mailbox) -> Result<logind::Inhibitor, DaemonError> {
    if let Err(error) = device_events::start(mailbox.clone()) {
        tracing::warn!(%error, "device monitoring unavailable");
    }
    if let Err(error) = links::start(mailbox.clone()) {
        tracing::warn!(%error, "network interface monitoring unavailable");
    }
    logind::start(mailbox.clone()).map_err(|error| DaemonError::System("Cannot connect to logind", error))
}

/// Who may ask for what on the control socket.
fn access(config: &Config) -> Result<Access, DaemonError> {
    let control = &config.control;
    let number = |key, name: &Option<String>| match name.as_deref().map(|name| (name, Group::from_name(name))) {
        None => Ok(None),
        Some((_, Ok(Some(group)))) => Ok(Some(group.gid.as_raw())),
        Some((name, Ok(None) | Err(_))) => Err(DaemonError::Group(key, name.to_owned(), config.source.clone())),
    };
    Ok(Access {
        owner_uid: getuid().as_raw(),
        submit_group: number("submit_group", &control.submit_group)?,
        monitor_group: number("monitor_group", &control.monitor_group)?,
        anyone_may_submit: control.anyone_may_submit,
    })
}

/// Every connection and every worker needs descriptors: the soft limit is for programs that use select().
fn raise_descriptor_limit() {
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise RLIMIT_NOFILE");
    }
}

fn seed() -> u64 {
    // Tokens come of it, which nobody shall guess.
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider(keys: &str, privileges: &[Privilege]) -> Provider {
        let text = format!("[provider.x]\nkind = 'any'\n{keys}");
        let config = crate::config::parse(&text, Path::new("x.toml")).unwrap();
        Provider { privileges: privileges.to_vec(), ..config.providers[0].clone() }
    }

    #[test]
    fn the_unit_starts_again_what_may_pass_and_nothing_else() {
        let unit = include_str!("../../scripts/spooler.service");
        let listed = unit.lines().find_map(|line| line.strip_prefix("RestartPreventExitStatus=")).unwrap();
        let listed: Vec<u8> = listed.split(' ').map(|code| code.parse().unwrap()).collect();
        let (path, why) = (|| "/spool".to_owned(), || "it rots".to_owned());
        let stays = [
            DaemonError::Store(StoreError::TooNew { path: path(), found: 9, known: 1 }),
            DaemonError::Store(StoreError::Damaged { path: path(), why: why() }),
            DaemonError::Store(StoreError::Failed { path: path(), why: why() }),
            DaemonError::Folder(FolderError::Open { path: path(), mode: 0o777 }),
            DaemonError::Group("submit_group", "nobody".to_owned(), PathBuf::new()),
        ];
        let passes = [
            DaemonError::Store(StoreError::Full { path: path() }),
            DaemonError::Store(StoreError::Failing { path: path(), why: why() }),
            DaemonError::Store(StoreError::InUse { path: path(), pid: "1".to_owned() }),
            DaemonError::Folder(FolderError::Io(path(), std::io::Error::other("no"))),
            DaemonError::System("no threads", std::io::Error::other("no")),
        ];
        assert!(stays.iter().all(|error| listed.contains(&error.exit_code())), "{listed:?}");
        assert!(passes.iter().all(|error| !listed.contains(&error.exit_code())), "{listed:?}");
    }

    #[test]
    fn what_is_kept_follows_what_providers_declare() {
        use Privilege::{FilesOfAll, LowPorts};
        let (own, all) = (vec![Use::Priorities, Use::OtherUsers], Use::ALL.to_vec());
        let with = |of: Use| [own.clone(), vec![of]].concat();
        for (keys, declared, as_root) in [
            ("", &[][..], own.clone()),
            ("interactive = true", &[], own.clone()),
            ("", &[LowPorts], with(Use::LowPorts)),
            ("", &[FilesOfAll], with(Use::FilesOfAll)),
            ("run_as = 'nobody'", &[FilesOfAll], own.clone()),
            ("run_as = 'nobody'", &[LowPorts], with(Use::LowPorts)),
            ("sandbox = false", &[], all),
            ("enabled = false", &[FilesOfAll, LowPorts], Vec::new()),
        ] {
            let provider = provider(keys, declared);
            assert_eq!(uses_of(&provider, true), as_root, "{keys} {declared:?}");
            let as_anybody = uses_of(&provider, false);
            assert!(!as_anybody.contains(&Use::OtherUsers) && !as_anybody.contains(&Use::FilesOfAll), "{keys}");
        }
    }
}
