//! Misbehaviour within the contract.

use std::cell::RefCell;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, raise};
use nix::time::{ClockId, clock_gettime};
use spooler_protocol::from_worker::{LogonError, RowUpdate};
use spooler_protocol::outcome::{Outcome, Reply, SubmitResult};
use spooler_protocol::settings::Settings;
use spooler_worker::{Capacity, Delivery, Identity, Needs, Provider, Support};

use crate::escape;

/// What is kept of each message by one that leaks, bytes.
const LEAK_BYTES: usize = 16 << 20;
/// Changes of its row by one that floods it.
const ROW_CHANGES: u32 = 100_000;

pub(crate) struct FaultSettings {
    mode: String,
    work: Duration,
    rounds: u32,
    hold: PathBuf,
    journal: PathBuf,
    programs: bool,
    way: String,
    target: String,
}

/// A provider that does what it is told.
pub(crate) struct Fault {
    support: Support,
    settings: FaultSettings,
    leaked: RefCell<Vec<Vec<u8>>>,
}

impl Provider for Fault {
    type Settings = FaultSettings;

    fn settings(settings: &mut Settings) -> FaultSettings {
        FaultSettings {
            mode: settings.string("mode", "good"),
            work: settings.duration("work", "0s", Duration::ZERO..=Duration::from_secs(10)),
            rounds: settings.integer("rounds", 1, 1..=1000),
            journal: PathBuf::from(settings.string("journal", "")),
            hold: PathBuf::from(settings.string("hold", "")),
            programs: settings.boolean("programs", false),
            way: settings.string("way", ""),
            target: settings.string("target", ""),
        }
    }

    fn needs(settings: &FaultSettings) -> Needs {
        let mut needs = Needs { programs: settings.programs, ..Needs::default() };
        if let Some(folder) = settings.journal.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            needs.write = vec![folder.to_owned()];
            needs.identity = Identity::Supervisor("writes its journal into a folder of the test");
        }
        needs
    }

    async fn logon(support: Support, settings: FaultSettings) -> Result<Self, LogonError> {
        match settings.mode.as_str() {
            "mute" => std::future::pending().await,
            "crash-at-logon" => {
                eprintln!("the modem is on fire");
                raise(Signal::SIGILL).map_err(|error| LogonError::Failed(error.to_string()))?;
            }
            "escape" => {
                escape::attempt(&settings.way, &settings.target)
                    .map_err(|error| LogonError::Failed(format!("kept in: {error}")))?;
            }
            _ => {}
        }
        Ok(Self { support, settings, leaked: RefCell::default() })
    }

    fn address_types(&self) -> Vec<String> {
        vec!["FAULT".to_owned()]
    }

    fn identity(&self) -> String {
        self.settings.mode.clone()
    }

    fn capacity(&self) -> Capacity {
        Capacity { credit: 4, ..Capacity::default() }
    }

    async fn submit_message(&self, delivery: &Delivery) -> SubmitResult {
        let address = delivery.recipients().first().map(|recipient| &recipient.address);
        let told = address.filter(|address| address.kind() == "FAULT").map(|address| address.text());
        match told.unwrap_or(&self.settings.mode) {
            "crash" => self.crash(delivery).await,
            "rows" => self.flood_rows(),
            "leak" => self.leak(),
            "hoard" => loop {
                self.leak();
            },
            "breed" => breed(),
            "panic" => panic!("the line went up in smoke"),
            "silent" => std::future::pending().await,
            "burn" => loop {
                std::hint::black_box(delivery);
            },
            "hog" => self.compute().await,
            "critical" => self.dial().await,
            _ => {}
        }
        self.note(delivery);
        delivery.settle_all(&Outcome::Delivered(Reply::local(250, "2.0.0", "done")));
        SubmitResult::Done
    }
}

/// The CPU time of this thread: how much it computes does not depend on who else wants to.
fn cpu_used() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every thread has this clock").into()
}

/// Starts programs until no more can be started.
fn breed() {
    loop {
        if let Err(error) = Command::new("/bin/sleep").arg("1000").spawn() {
            panic!("no more children: {error}");
        }
    }
}

impl Fault {
    /// Dies after some last words; the progress is told before.
    async fn crash(&self, delivery: &Delivery) {
        // The first word is held back, and the next ones come at intervals.
        delivery.progress("warming up", 0);
        tokio::time::sleep(Duration::from_millis(250)).await;
        delivery.progress("setting fire", 1);
        self.support.spooler_yield().await;
        eprintln!("the paper tray is on fire");
        let _ = raise(Signal::SIGILL);
    }

    /// Writes down what was delivered, if it is to: a line with the message's number.
    fn note(&self, delivery: &Delivery) {
        if self.settings.journal.as_os_str().is_empty() {
            return;
        }
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(&self.settings.journal);
        let noted = opened.and_then(|mut journal| writeln!(journal, "{}", delivery.submission().message));
        if let Err(error) = noted {
            eprintln!("the journal: {error}");
        }
    }

    async fn compute(&self) {
        for _ in 0..self.settings.rounds {
            let start = cpu_used();
            while cpu_used().saturating_sub(start) < self.settings.work {
                std::hint::black_box(start);
            }
            self.support.spooler_yield().await;
        }
    }

    fn flood_rows(&self) {
        for number in 0..ROW_CHANGES {
            let text = Some(format!("change {number} of {ROW_CHANGES}"));
            self.support.modify_status_row(RowUpdate { text, ..RowUpdate::default() });
        }
    }

    fn leak(&self) {
        let mut leaked = self.leaked.borrow_mut();
        leaked.push(vec![1; LEAK_BYTES]);
        let text = Some(format!("keeps {} MiB", (leaked.len() * LEAK_BYTES) >> 20));
        self.support.modify_status_row(RowUpdate { text, ..RowUpdate::default() });
    }

    /// Holds two sections, one inside the other; the row's progress says how many have been left.
    async fn dial(&self) {
        let outer = self.support.critical_section("dialling").await;
        let inner = self.support.critical_section("shaking hands").await;
        // A thread that was not there when the section began.
        let _ = tokio::task::spawn_blocking(|| ()).await;
        for (section, progress) in [(inner, 1), (outer, 2)] {
            let hold = self.settings.hold.with_extension(progress.to_string());
            while hold.exists() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            drop(section);
            self.support.modify_status_row(RowUpdate { progress: Some(progress), ..RowUpdate::default() });
        }
    }
}
