//! The supervisor: hears events, decides, and says what is to be done. No I/O, no clock, no threads; the simulator runs this very
//! code. The only caller of `policy/`.
//!
//! | file | room |
//! |---|---|
//! | `event` | what is heard and what is wanted done |
//! | `workers` | workers come and go; configuration changes |
//! | `accepting` | messages come in, and come back from the store at start |
//! | `claiming` | listening providers are told what is served |
//! | `delivering` | messages go out, and what comes after |
//! | `mail` | the mail log |
//! | `recording` | what became of recipients |
//! | `pending` | what is on its way to the disk |
//! | `disk_trouble` | the disk fails |
//! | `mishaps` | deliveries that end without a word |
//! | `quarantine` | messages that kill workers are set aside |
//! | `sessions` | sessions with providers: begin, news, end |
//! | `receiving` | providers are asked for messages |
//! | `history` | what is kept of messages that leave the queue |
//! | `idling` | housekeeping while the machine is idle |
//! | `logon` | logging on with a person present |
//! | `validating` | providers look after their state |
//! | `following` | what every step ends with |
//! | `asking` | clients ask and command |
//! | `flushing` | working queues off now, as people want it |
//! | `working_off` | the same at each provider; who may use which resource |
//! | `gating` | the idle gate: slots for background work |
//! | `overrunning` | workers that do not give way |
//! | `critical` | critical sections |
//! | `confining` | sandboxes of workers |
//! | `reporting` | senders are told |
//! | `system` | what happens to the machine |
//! | `table` | the status table |
//! | `watching` | what has changed in it |
//! | `waiting` | messages whose provider cannot serve them now |

mod accepting;
mod asking;
mod claiming;
mod confining;
mod critical;
mod delivering;
mod disk_trouble;
// What is heard and what is wanted done.
pub mod event;
mod flushing;
mod following;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod gating;
mod history;
mod idling;
mod logon;
// The mail log.
pub mod mail;
mod mishaps;
mod overrunning;
mod pending;
mod quarantine;
mod receiving;
mod recording;
mod reporting;
#[cfg(test)]
mod scenarios;
mod sessions;
mod system;
mod table;
mod telling;
mod validating;
mod waiting;
mod watching;
mod workers;
mod working_off;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use spooler_protocol::ids::{DeliveryId, Generation, MessageId, RequestId};
use spooler_protocol::outcome::Reply;
use spooler_protocol::to_worker::ToWorker;

use crate::config::{self, Config};
use crate::policy::idle_gate::IdleGate;
use crate::policy::jitter::Jitter;
use crate::policy::lifecycle::Lifecycle;
use crate::policy::overrun::Overrun;
use crate::policy::queue::{Again, Queue};
use crate::policy::retry::{RetryPlan, ms};
use crate::policy::routing::{Route, Routing};
use crate::policy::scheduler::Scheduler;
use crate::policy::status_table::Rows;
use crate::policy::{Now, ProviderId};
use accepting::HandedIn;
use event::{Action, Event, Loudness, Reading, Ticket, UploadKey, WorkerId, WorkerNews};
use pending::{Acceptor, Pending};

/// The scan at start waits so long at most for every provider to say what it serves.
const SCAN_PATIENCE_MS: i64 = 1000;

/// One configured provider.
#[derive(Debug)]
struct Provider {
    config: config::Provider,
    retry: RetryPlan,
    life: Lifecycle,
    pid: Option<u32>,
    /// What the provider said of itself, the last time it logged on.
    announced: Option<spooler_protocol::from_worker::LoggedOn>,
    paused: bool,
    /// No longer in the configuration; forgotten when its worker has gone.
    removed: bool,
    rows: Rows,
    priority: String,
    critical: Option<critical::Critical>,
    /// How its worker keeps to what it is given.
    overrun: Overrun,
    /// The device that it needs is not there.
    lacks_device: bool,
    /// Messages that are offered once though it is offline, because a person wants them retried.
    retried: BTreeSet<MessageId>,
    /// It is to make no connections (LOGON_NO_CONNECT): as configured, until somebody has it connect or disconnect.
    no_connect: bool,
    sandbox: confining::Sandbox,
    session: sessions::Session,
    logon: logon::Logon,
}

/// A delivery in the hands of a worker.
#[derive(Debug)]
struct Flight {
    worker: WorkerId,
    id: MessageId,
    route: Route,
    /// Places in the envelope, in the order in which the worker knows them.
    recipients: Vec<u32>,
    settled: BTreeSet<u32>,
    /// What was said so far about those that are to be tried again; decided when the delivery ends.
    deferred: BTreeMap<u32, Reply>,
    attempt: u32,
    /// When the message was accepted.
    born_ms: i64,
    since_ms: i64,
    phase: String,
    phase_since_ms: i64,
    bytes: u64,
    /// A person gave up on what is not served yet.
    given_up: bool,
    /// Whether some recipient wants a report of success.
    wants_success: bool,
    again: Again,
}

/// The supervisor.
#[derive(Debug)]
pub struct Supervisor {
    config: Config,
    providers: BTreeMap<ProviderId, Provider>,
    /// In the order of the configuration.
    order: Vec<ProviderId>,
    routing: Routing,
    queue: Queue,
    scheduler: Scheduler,
    gate: IdleGate,
    /// How often somebody looks at the machine, as last ordered.
    look_every_ms: Option<i64>,
    flights: BTreeMap<DeliveryId, Flight>,
    pending: HashMap<Ticket, Pending>,
    /// Messages that were on their way to the disk when ways changed: nobody could read them again then.
    astray: BTreeSet<MessageId>,
    /// Recipients that a provider has just declined, until the next one is found for them.
    declined: HashMap<MessageId, BTreeSet<u32>>,
    flushing: flushing::Flushing,
    watch: Option<watching::Watch>,
    /// The number of the last line for those who watch.
    watch_seq: u64,
    validations: BTreeMap<RequestId, validating::Validation>,
    /// What senders were told of recipients, so that they are told once.
    told: HashMap<MessageId, BTreeSet<(u32, reporting::Fact)>>,
    /// Messages about which a report is being made, and what waits for it.
    telling: HashMap<MessageId, telling::Line>,
    quarantine: quarantine::Quarantine,
    jitter: Jitter,
    cores: u32,
    pid: u32,
    /// The command that reloads the configuration, for people.
    reload: String,
    started_ms: i64,
    /// What the one clock says when the other says nothing; for rows.
    epoch_ms: i64,
    /// The wall clock at the event that is being heard.
    wall_ms: i64,
    /// When [`Event::Tick`] was heard last: what was due by then and still waits, waits for something else than time.
    ticked_ms: i64,
    /// When everything that waits was looked through for what is late.
    looked_ms: i64,
    /// When a worker last had something to do.
    active_ms: i64,
    /// For recipients of whom nobody knows yet who serves them.
    default_retry: RetryPlan,
    scan: Scan,
    /// Why the queue could not be read the last time, and how often in a row.
    scan_failure: Option<(String, u32)>,
    /// Why nothing comes to disk now, and so nothing is delivered.
    store_stuck: Option<String>,
    /// What could not be read, and when it is tried again.
    readings: BTreeMap<(i64, u64), Reading>,
    /// Messages of the last run that have not been read back: all after the first number, up to the second.
    unread: (MessageId, MessageId),
    last_id: MessageId,
    generation: Generation,
    next: u64,
    /// Providers for which something may have become possible in this step.
    touched: BTreeSet<ProviderId>,
    tokens_touched: bool,
    stopping: Option<Stopping>,
    machine: system::Machine,
    accepted: u64,
    sent: u64,
    failed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scan {
    /// Not begun: providers have not all said what they serve, or it has failed and is tried again.
    Due {
        at_ms: i64,
    },
    /// Reading what was there at the start (`restoring`), or reading again because ways have changed; once more if they changed
    /// meanwhile.
    Running {
        restoring: bool,
        again: bool,
    },
    Done,
}

#[derive(Clone, Copy, Debug)]
struct Stopping {
    hurry: bool,
    exited: bool,
}

/// What the supervisor is told about its surroundings once.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Processor cores: the default number of slots.
    pub cores: u32,
    /// The supervisor's process.
    pub pid: u32,
    /// The command that reloads the configuration, for people to run.
    pub reload: String,
    /// For jitter.
    pub seed: u64,
    /// The largest number that a message ever had.
    pub last_id: MessageId,
}

impl Supervisor {
    /// A supervisor over a store that was just opened, and what it wants done first.
    #[must_use]
    pub fn new(config: Config, surroundings: Surroundings, now: Now) -> (Self, Vec<Action>) {
        let slice_ms = u32::try_from(ms(config.scheduler.slice)).unwrap_or(u32::MAX);
        let slots = config.scheduler.slots.unwrap_or(surroundings.cores);
        let gate = gating::gate_of(&config, surroundings.cores, now);
        let mut supervisor = Self {
            config: Config { providers: Vec::new(), ..config.clone() },
            providers: BTreeMap::new(),
            order: Vec::new(),
            routing: Routing::default(),
            queue: Queue::default(),
            scheduler: Scheduler::new(slots, slice_ms).with_secret(surroundings.seed),
            gate,
            look_every_ms: None,
            flights: BTreeMap::new(),
            pending: HashMap::new(),
            astray: BTreeSet::new(),
            declined: HashMap::new(),
            flushing: flushing::Flushing::default(),
            watch: None,
            watch_seq: 0,
            validations: BTreeMap::new(),
            told: HashMap::new(),
            telling: HashMap::new(),
            quarantine: quarantine::Quarantine::default(),
            jitter: Jitter::new(surroundings.seed),
            cores: surroundings.cores,
            pid: surroundings.pid,
            reload: surroundings.reload,
            started_ms: now.mono_ms,
            epoch_ms: now.wall_ms - now.mono_ms,
            wall_ms: now.wall_ms,
            ticked_ms: now.mono_ms,
            looked_ms: now.mono_ms,
            active_ms: now.mono_ms,
            default_retry: workers::retry_plan(&config.retry),
            scan: Scan::Due { at_ms: now.mono_ms + SCAN_PATIENCE_MS },
            scan_failure: None,
            store_stuck: None,
            readings: BTreeMap::new(),
            unread: (MessageId(0), surroundings.last_id),
            last_id: surroundings.last_id,
            generation: Generation(0),
            next: 1,
            touched: BTreeSet::new(),
            tokens_touched: false,
            stopping: None,
            machine: system::Machine::default(),
            accepted: 0,
            sent: 0,
            failed: 0,
        };
        let mut actions = Vec::new();
        supervisor.reload(config, now, &mut actions);
        supervisor.follow_up(now, &mut actions);
        (supervisor, actions)
    }

    /// Hears one event; adds what is to be done to `actions`, in order.
    pub fn step(&mut self, now: Now, event: Event, actions: &mut Vec<Action>) {
        self.wall_ms = now.wall_ms;
        self.note_what_may_change(&event);
        match event {
            Event::Worker(worker, news) => self.on_worker(worker, news, now, actions),
            Event::Committed(ticket, result) => self.on_committed(ticket, result, actions),
            Event::UploadFinished(ticket, result) => self.on_upload_finished(ticket, result, actions),
            Event::Scanned(batch) => self.on_scanned(batch, now, actions),
            Event::ScanEnded(result) => self.on_scan_ended(result, now, actions),
            Event::ReportBuilt(ticket, report) => self.on_report_built(ticket, report, now, actions),
            Event::Unreadable(delivery, why) => self.on_unreadable(delivery, why, actions),
            Event::ReadFailed(delivery, why) => self.on_read_failed(delivery, &why, now, actions),
            Event::NotRead(reading, why) => self.on_not_read(reading, &why, now, actions),
            Event::StoreStuck(why) => self.on_store_stuck(why),
            Event::Asked(ask_id, ask) => self.on_asked(ask_id, ask, now, actions),
            Event::Observed(seen) => self.on_observed(seen, now),
            Event::Reload(config) => self.reload(*config, now, actions),
            Event::System(message) => self.on_system(message, now, actions),
            Event::DevicesUncertain => self.look_for_devices(actions),
            Event::DevicePresent(name, present) => self.on_device_present(&name, present, now, actions),
            Event::IdleHint(idle) => self.on_idle_hint(idle, actions),
            Event::Stop => self.stop(now, actions),
            Event::Tick => self.on_tick(now, actions),
        }
        self.follow_up(now, actions);
    }

    /// When [`Event::Tick`] is due at the latest.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<i64> {
        let scan = match self.scan {
            Scan::Due { at_ms } => Some(at_ms),
            Scan::Running { .. } | Scan::Done => None,
        };
        // One look at each provider: there may be many, and this is asked after every step.
        let providers = self.providers.values().filter_map(|provider| {
            let section_ms = provider.critical.as_ref().map(|section| section.deadline_ms);
            let section_ms = section_ms.filter(|at_ms| *at_ms < i64::MAX);
            [provider.life.deadline_ms(), section_ms, provider.rows.deadline_ms()].into_iter().flatten().min()
        });
        let validations = self.validations.values().map(|validation| validation.deadline_ms);
        providers
            .chain(self.next_notice_ms())
            .chain(self.next_receipt_ms())
            .chain(validations)
            .chain(self.idle_at_ms())
            .chain(self.next_flush_ms())
            .chain(scan)
            .chain(self.next_reading_ms())
            .chain(self.queue.next_due_ms(self.ticked_ms))
            .chain(self.scheduler.deadline_ms(self.ticked_ms))
            .chain(self.gate_deadline_ms())
            .chain(self.next_look_ms())
            .chain(self.next_check_ms())
            .chain(self.machine_deadline_ms())
            .min()
    }

    /// The schedule in RAM, to be read.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Checks what must hold between steps; for tests and the simulator.
    ///
    /// # Panics
    /// If it does not.
    pub fn check_invariants(&self) {
        self.queue.check_invariants();
        for flight in self.flights.values() {
            assert!(self.queue.get(flight.id).is_some(), "message {} is in flight and not in the queue", flight.id);
        }
    }

    fn on_worker(&mut self, worker: WorkerId, news: WorkerNews, now: Now, actions: &mut Vec<Action>) {
        // A worker's word is gossip: what a dead incarnation said is dropped.
        let Some(provider) = self.providers.get_mut(&worker.provider) else { return };
        if provider.life.generation() != worker.generation || !provider.life.is_alive() {
            return;
        }
        match news {
            WorkerNews::Started { pid } => self.on_started(worker, pid, now, actions),
            WorkerNews::StartFailed(why) => self.on_died(worker, &why.as_str().into(), now, actions),
            WorkerNews::Said { said, cpu_us } => self.on_said(worker, said, cpu_us, now, actions),
            WorkerNews::Accept { accept, envelope, submission, client, content } => {
                let origin = format!("provider {}", provider.config.name);
                self.on_call_news(worker, now, actions);
                let handed_in = HandedIn { envelope, submission, client, content, origin, owner_uid: None };
                self.accept(Acceptor::Worker(worker, accept), handed_in, now, actions);
            }
            WorkerNews::Garbled(why) => {
                let step = provider.life.condemn(&why);
                self.take_step(worker, step, actions);
            }
            WorkerNews::Died(end) => self.on_died(worker, &end, now, actions),
            WorkerNews::Priority(level, reached) => self.on_priority(worker, level, &reached, actions),
            WorkerNews::Cpu(cpu_us) => self.on_cpu_read(worker, cpu_us, now, actions),
            WorkerNews::Programs(used_us) => {
                self.scheduler.charge_programs(worker.provider, used_us);
                self.tokens_touched = true;
            }
            WorkerNews::Uploads => self.on_call_news(worker, now, actions),
            WorkerNews::Reads(delivery) => self.on_delivery_news(worker, delivery, now, actions),
        }
    }

    fn on_tick(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.ticked_ms = now.mono_ms;
        let woken = self.queue.wake(now.mono_ms);
        self.touched.extend(woken);
        // A lane's rest may be over, which shows only when it is asked.
        self.touched.extend(self.order.iter().copied());
        self.tokens_touched = true;
        for id in self.order_with_removed() {
            let Some(provider) = self.providers.get_mut(&id) else { continue };
            let worker = |generation| WorkerId { provider: id, generation };
            let step = provider.life.on_tick(&mut self.generation, now.mono_ms);
            let generation = provider.life.generation();
            self.take_step(worker(generation), step, actions);
            self.end_overlong_section(worker(generation), now, actions);
            self.tick_rows(id, now, actions);
        }
        self.tick_flushes(now, actions);
        if matches!(self.scan, Scan::Due { at_ms } if at_ms <= now.mono_ms) {
            self.begin_scan(actions);
        }
        self.read_again(now.mono_ms, actions);
        self.look_for_late(now, actions);
        self.end_late_validations(now, actions);
        self.offer_idle(now, actions);
        self.look_after_workers(now, actions);
        self.on_machine_tick(now, actions);
    }

    /// Says something to the present worker of a provider.
    fn say(&self, id: ProviderId, message: ToWorker, actions: &mut Vec<Action>) {
        if let Some(provider) = self.providers.get(&id).filter(|provider| provider.life.is_alive()) {
            let worker = WorkerId { provider: id, generation: provider.life.generation() };
            actions.push(Action::Send(worker, message));
        }
    }

    fn next_number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// The name of a provider in the configuration.
    #[must_use]
    pub fn provider_name(&self, id: ProviderId) -> &str {
        self.name(id)
    }

    fn name(&self, id: ProviderId) -> &str {
        self.providers.get(&id).map_or("?", |provider| provider.config.name.as_str())
    }

    fn order_with_removed(&self) -> Vec<ProviderId> {
        self.providers.keys().copied().collect()
    }
}

fn log(actions: &mut Vec<Action>, loudness: Loudness, text: String) {
    actions.push(Action::Log(loudness, text));
}

/// The upload of a content that is not kept is forgotten.
fn abandon(key: Option<UploadKey>, actions: &mut Vec<Action>) {
    actions.extend(key.map(Action::AbandonUpload));
}
