//! What logind says of the machine: that it is about to sleep or to shut down, and whether its user is away.
//!
//! ```text
//!   delay inhibitor taken ──▶ PrepareForSleep(true) ──▶ Suspend to the loop ──▶ the loop lets go ──▶ the machine sleeps
//!            ▲                                                                                             │
//!            └───────────────────────────── Resume to the loop ◀── PrepareForSleep(false) ◀────────────────┘
//! ```
//!
//! Signals on the bus can be sent by anybody: only those of whoever owns logind's name are believed. Where there is no bus or no
//! logind, this waits and asks again once in a while; when the connection breaks while the machine was about to sleep, that counts as
//! waking up.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use spooler_protocol::notification::SystemMessage;

use crate::supervisor::event::Event;
use crate::system::bus::{Bus, Kind, Target, Word};
use crate::system::mailbox::{Letter, Mailbox};

const DEFAULT_SOCKET: &str = "/run/dbus/system_bus_socket";
/// Before the bus is looked for again.
const PAUSE: Duration = Duration::from_secs(30);
/// For an answer at the beginning.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

const BUS: Target<'_> =
    Target { destination: "org.freedesktop.DBus", path: "/org/freedesktop/DBus", interface: "org.freedesktop.DBus" };
const LOGIND: &str = "org.freedesktop.login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const PATH: &str = "/org/freedesktop/login1";

/// What keeps the machine from sleeping and from shutting down for a few seconds, as long as it is there.
#[derive(Clone, Default)]
pub struct Inhibitor {
    held: Arc<Mutex<Option<OwnedFd>>>,
}

impl Inhibitor {
    /// Lets the machine go.
    pub fn release(&self) {
        self.put(None);
    }

    fn put(&self, descriptor: Option<OwnedFd>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = descriptor;
    }
}

/// Starts the thread that listens to logind.
///
/// # Errors
/// If no thread can be had.
pub fn start(mailbox: Mailbox) -> std::io::Result<Inhibitor> {
    let inhibitor = Inhibitor::default();
    let mut listener = Listener { mailbox, inhibitor: inhibitor.clone(), asleep: false, hinted: None, told: false };
    let listen = move || {
        loop {
            let error = listener.listen();
            listener.lost(&error);
            std::thread::sleep(PAUSE);
        }
    };
    std::thread::Builder::new().name("logind".to_owned()).stack_size(128 * 1024).spawn(listen)?;
    Ok(inhibitor)
}

struct Listener {
    mailbox: Mailbox,
    inhibitor: Inhibitor,
    /// The loop was told that the machine is about to sleep.
    asleep: bool,
    /// What the loop was told of the user.
    hinted: Option<bool>,
    /// Whether it was said that there is no logind.
    told: bool,
}

/// Numbers of calls whose answers are awaited.
#[derive(Default)]
struct Calls {
    inhibit: u32,
    idle_hint: u32,
}

impl Listener {
    /// Listens until that is not possible any more; why.
    fn listen(&mut self) -> std::io::Error {
        self.try_to_listen().err().unwrap_or_else(|| std::io::Error::other("logind has gone"))
    }

    fn try_to_listen(&mut self) -> std::io::Result<()> {
        let mut bus = Bus::connect(&socket())?;
        bus.set_patience(Some(ANSWER_WITHIN))?;
        let hello = bus.call(BUS, "Hello", &[])?;
        answer(&mut bus, hello)?;
        let signals = format!("type='signal',sender='{LOGIND}',path='{PATH}'");
        let owner = format!("type='signal',sender='{}',member='NameOwnerChanged',arg0='{LOGIND}'", BUS.destination);
        bus.call(BUS, "AddMatch", &[&signals])?;
        bus.call(BUS, "AddMatch", &[&owner])?;
        // A service that is not running is started by this, if the bus can.
        let mut calls = Calls { inhibit: inhibit(&mut bus)?, idle_hint: get_idle_hint(&mut bus)? };
        let asked = bus.call(BUS, "GetNameOwner", &[LOGIND])?;
        let mut early = Vec::new();
        let owner = loop {
            let word = bus.next()?;
            match word.kind {
                Kind::Answer if word.reply_to == asked => break word.text().unwrap_or_default(),
                Kind::Failed if word.reply_to == asked => return Err(refused(&word)),
                _ => early.push(word),
            }
        };
        bus.set_patience(None)?;
        for word in early {
            self.hear(word, &owner, &mut bus, &mut calls)?;
        }
        tracing::info!("connected to logind: watching sleep, shutdown and idle users");
        self.told = false;
        loop {
            let word = bus.next()?;
            if word.sender == BUS.destination && word.member == "NameOwnerChanged" {
                // Another logind: everything from the beginning.
                return Ok(());
            }
            self.hear(word, &owner, &mut bus, &mut calls)?;
        }
    }

    fn hear(&mut self, mut word: Word, owner: &str, bus: &mut Bus, calls: &mut Calls) -> std::io::Result<()> {
        if word.sender != owner {
            return Ok(());
        }
        match word.kind {
            Kind::Answer if word.reply_to == calls.inhibit => self.inhibitor.put(word.descriptor.take()),
            Kind::Answer if word.reply_to == calls.idle_hint => self.hint(word.truth()),
            Kind::Failed if word.reply_to == calls.inhibit => {
                let why = word.text().unwrap_or_default();
                tracing::warn!("cannot delay sleep through logind: {why}");
            }
            Kind::Signal if word.interface == PROPERTIES => calls.idle_hint = get_idle_hint(bus)?,
            Kind::Signal if word.interface == MANAGER => match (word.member.as_str(), word.truth()) {
                ("PrepareForShutdown", Some(true)) => self.tell(SystemMessage::Shutdown),
                ("PrepareForSleep", Some(true)) => {
                    self.asleep = true;
                    self.tell(SystemMessage::Suspend);
                }
                ("PrepareForSleep", Some(false)) => {
                    calls.inhibit = inhibit(bus)?;
                    self.awake();
                }
                _ => {}
            },
            Kind::Answer | Kind::Failed | Kind::Signal | Kind::Other => {}
        }
        Ok(())
    }

    fn tell(&self, message: SystemMessage) {
        self.mailbox.put(Letter::Event(Event::System(message)));
    }

    fn hint(&mut self, idle: Option<bool>) {
        if self.hinted != idle {
            self.hinted = idle;
            self.mailbox.put(Letter::Event(Event::IdleHint(idle)));
        }
    }

    fn awake(&mut self) {
        if std::mem::take(&mut self.asleep) {
            self.tell(SystemMessage::Resume);
        }
    }

    /// The connection is gone, or never was.
    fn lost(&mut self, error: &std::io::Error) {
        self.inhibitor.release();
        self.awake();
        self.hint(None);
        if !std::mem::replace(&mut self.told, true) {
            tracing::info!("logind unavailable ({error}): no advance notice of sleep, shutdown and idle users");
        }
    }
}

/// The socket of the system bus: the first that the environment names, or the usual one.
fn socket() -> PathBuf {
    let address = std::env::var("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_default();
    let mut keys = address.split(';').filter_map(|one| one.strip_prefix("unix:")).flat_map(|one| one.split(','));
    PathBuf::from(keys.find_map(|key| key.strip_prefix("path=")).unwrap_or(DEFAULT_SOCKET))
}

fn inhibit(bus: &mut Bus) -> std::io::Result<u32> {
    let manager = Target { destination: LOGIND, path: PATH, interface: MANAGER };
    bus.call(manager, "Inhibit", &["sleep:shutdown", "spooler", "Providers are told", "delay"])
}

fn get_idle_hint(bus: &mut Bus) -> std::io::Result<u32> {
    bus.call(Target { destination: LOGIND, path: PATH, interface: PROPERTIES }, "Get", &[MANAGER, "IdleHint"])
}

fn answer(bus: &mut Bus, call: u32) -> std::io::Result<Word> {
    loop {
        let word = bus.next()?;
        match word.kind {
            Kind::Answer if word.reply_to == call => return Ok(word),
            Kind::Failed if word.reply_to == call => return Err(refused(&word)),
            _ => {}
        }
    }
}

fn refused(word: &Word) -> std::io::Error {
    std::io::Error::other(word.text().unwrap_or_else(|| "the bus refuses".to_owned()))
}
