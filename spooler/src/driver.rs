//! The loop: takes letters, lets the supervisor decide, and hands what it wants done to `system/`. Never waits for anything but the
//! next letter.
//!
//! Content does not concern the supervisor, so it does not pass through it: chunks go straight between the workers' channels and the
//! store's threads.

mod acting;
pub use acting::committed;
mod bodies;
// What the control socket and the pick-up folder may ask of the loop.
pub mod bridge;
mod hops;
mod reports;
mod watching;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use spooler_protocol::from_worker::{Content, FromWorker};
use spooler_protocol::ids::{AcceptId, DeliveryId, MessageId};
use spooler_protocol::to_worker::ToWorker;
use tokio::sync::watch;

use crate::config::Config;
use crate::policy::priority_plan::Level;
use crate::supervisor::Supervisor;
use crate::supervisor::event::{Action, Answer, Ask, AskId, Event, Incoming, UploadKey, WorkerId, WorkerNews};
use crate::system::cgroup::Cgroups;
use crate::system::clock::Clock;
use crate::system::control::Request;
use crate::system::idle_probe::IdleProbe;
use crate::system::logind::Inhibitor;
use crate::system::mailbox::{Inbox, Letter, Mailbox, Word};
use crate::system::priority;
use crate::system::store::readers::Readers;
use crate::system::store::uploads::Uploads;
use crate::system::store::writer::Writer;
use crate::system::worker_link::{LAST_WORDS_PATIENCE, Link};
use crate::system::worker_process::WorkerProcess;

/// Words taken from one worker before the others have their turn.
const WORDS_A_TURN: usize = 16;
/// Letters taken before the clock is read again.
const LETTERS_A_TURN: usize = 64;

/// A worker as the loop knows it.
struct Worker {
    process: WorkerProcess,
    inbox: Inbox,
    link: Option<Link>,
    /// Why its process ended, while its last words are still being read.
    ended: Option<String>,
    /// The priority that is wanted for it.
    level: Option<Level>,
}

/// What the loop works with, besides the supervisor.
pub struct Equipment {
    /// The writing end of the store.
    pub writer: Writer,
    /// The reading ends of the store.
    pub readers: Arc<Readers>,
    /// Contents on their way in.
    pub uploads: Arc<Uploads>,
    /// Where letters are put.
    pub mailbox: Mailbox,
    /// Where letters are taken from.
    pub letters: Receiver<Letter>,
    /// The clocks.
    pub clock: Clock,
    /// Moves whenever the status table may have changed.
    pub status: watch::Sender<u64>,
    /// Cgroups for workers, where there can be any.
    pub cgroups: Option<Cgroups>,
    /// Looks at the machine when it is told to.
    pub probe: IdleProbe,
    /// What keeps the machine awake until the workers were told.
    pub inhibitor: Inhibitor,
}

/// The loop and everything in its hands.
pub struct Driver {
    supervisor: Supervisor,
    equipment: Equipment,
    config: Config,
    names: HashMap<crate::policy::ProviderId, String>,
    workers: HashMap<WorkerId, Worker>,
    /// Workers whose inbox was not empty when their turn ended.
    again: VecDeque<WorkerId>,
    questions: HashMap<AskId, bridge::Question>,
    next_ask: u64,
    fresh: bodies::Fresh,
    flights: HashMap<DeliveryId, (WorkerId, MessageId)>,
    upload_keys: HashMap<(WorkerId, AcceptId), UploadKey>,
    /// Uploads of messages that go round in circles.
    looping: HashSet<UploadKey>,
    next_upload: u64,
    watchers: watching::Watchers,
    /// How often the configuration was asked to be read again, and which of these readings was taken last.
    reloads: (u64, u64),
    /// What the supervisor is to hear as soon as everything is done that it wants so far.
    heard: VecDeque<Event>,
    acting: bool,
    done: bool,
}

impl Driver {
    /// A loop around a supervisor.
    #[must_use]
    pub fn new(supervisor: Supervisor, equipment: Equipment, config: Config) -> Self {
        Self {
            supervisor,
            equipment,
            config,
            names: HashMap::new(),
            workers: HashMap::new(),
            again: VecDeque::new(),
            questions: HashMap::new(),
            next_ask: 1,
            fresh: bodies::Fresh::default(),
            flights: HashMap::new(),
            upload_keys: HashMap::new(),
            looping: HashSet::new(),
            next_upload: 1,
            watchers: watching::Watchers::default(),
            reloads: (0, 0),
            heard: VecDeque::new(),
            acting: false,
            done: false,
        }
    }

    /// Does what is wanted first, then runs until the supervisor says that everything is done. All commits are on disk then.
    pub fn run(mut self, first: Vec<Action>) {
        self.act_all(first);
        self.hear_all();
        while !self.done {
            self.turn();
            if self.equipment.status.receiver_count() > 0 {
                self.equipment.status.send_modify(|version| *version += 1);
            }
            self.publish();
        }
        self.equipment.writer.stop();
    }

    /// Waits for a letter or a deadline, and deals with what has come.
    fn turn(&mut self) {
        let now = self.equipment.clock.now();
        let deadline_ms = self.supervisor.deadline_ms();
        let wait_ms = deadline_ms.map(|at| u64::try_from(at - now.mono_ms).unwrap_or_default());
        let wait = wait_ms.map(Duration::from_millis).into_iter().chain(self.until_publishing()).min();
        let wait = if self.again.is_empty() { wait } else { Some(Duration::ZERO) };
        let first = match wait {
            Some(wait) => self.equipment.letters.recv_timeout(wait),
            None => self.equipment.letters.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        if let Ok(letter) = first {
            self.open(letter);
        }
        for _ in 0..LETTERS_A_TURN {
            let Ok(letter) = self.equipment.letters.try_recv() else { break };
            self.open(letter);
        }
        for _ in 0..self.again.len() {
            if let Some(worker) = self.again.pop_front() {
                self.read_mail(worker);
            }
        }
        if deadline_ms.is_some_and(|at| at <= self.equipment.clock.now().mono_ms) {
            self.hear(Event::Tick);
        }
    }

    /// Lets the supervisor hear an event and does what it wants done. What is heard while something is being done waits for its end, so
    /// that everything is done in the order in which it was decided.
    fn hear(&mut self, event: Event) {
        self.heard.push_back(event);
        if !self.acting {
            self.hear_all();
        }
    }

    fn hear_all(&mut self) {
        while let Some(event) = self.heard.pop_front() {
            let mut actions = Vec::new();
            self.supervisor.step(self.equipment.clock.now(), event, &mut actions);
            self.act_all(actions);
        }
    }

    fn open(&mut self, letter: Letter) {
        match letter {
            Letter::Event(event) => self.hear(event),
            Letter::Events(events) => events.into_iter().for_each(|event| self.hear(event)),
            Letter::Mail(worker) => self.read_mail(worker),
            Letter::Hello(worker, Ok(link)) => self.greet(worker, link),
            Letter::Hello(worker, Err(why)) => {
                tracing::warn!(provider = self.name(worker), "{why}");
                self.hear(Event::Worker(worker, WorkerNews::Garbled(why)));
            }
            Letter::Ended(worker, why) => self.bury(worker, why),
            Letter::PriorityAgain(worker) => self.set_priority(worker),
            Letter::Asked(request) => self.asked(request),
            Letter::Reload => self.reload(),
            Letter::Reloaded(number, config) => {
                // A reading that took longer than a later one is out of date.
                if number > self.reloads.1 {
                    self.reloads.1 = number;
                    self.adopt(*config);
                }
            }
        }
    }

    fn greet(&mut self, worker: WorkerId, link: Link) {
        let Some(known) = self.workers.get_mut(&worker) else { return };
        known.link = Some(link);
        let pid = known.process.pid;
        self.hear(Event::Worker(worker, WorkerNews::Started { pid }));
    }

    /// Takes a few words from a worker's inbox.
    fn read_mail(&mut self, worker: WorkerId) {
        let Some(known) = self.workers.get(&worker) else { return };
        let (words, more) = known.inbox.take(WORDS_A_TURN);
        if more {
            self.again.push_back(worker);
        }
        for word in words {
            match word {
                Word::Said(said) => self.heard(worker, said),
                Word::Garbled(why) => self.hear(Event::Worker(worker, WorkerNews::Garbled(why))),
                Word::Closed => self.closed(worker),
            }
        }
    }

    /// Nothing more comes from a worker: if its process has ended too, it is over.
    fn closed(&mut self, worker: WorkerId) {
        let Some(known) = self.workers.get_mut(&worker) else { return };
        match known.ended.take() {
            Some(why) => self.over(worker, why),
            // It has a moment to end by itself. One that lives on without its channel is of no use.
            None => {
                known.link = None;
                let mailbox = self.equipment.mailbox.clone();
                let news = WorkerNews::Garbled("the worker closed its channel and did not end".to_owned());
                later(LAST_WORDS_PATIENCE * 30, move || mailbox.put(Letter::Event(Event::Worker(worker, news))));
            }
        }
    }

    /// A worker's process has ended. What it said before is heard first.
    fn bury(&mut self, worker: WorkerId, why: String) {
        let Some(known) = self.workers.get_mut(&worker) else { return };
        if known.link.is_none() || known.ended.is_some() {
            self.over(worker, why);
            return;
        }
        known.ended = Some(why.clone());
        // Whoever inherited its channel could keep the end of its words away; nobody waits for that.
        let mailbox = self.equipment.mailbox.clone();
        later(LAST_WORDS_PATIENCE, move || mailbox.put(Letter::Ended(worker, why)));
    }

    fn over(&mut self, worker: WorkerId, why: String) {
        if let Some(gone) = self.workers.remove(&worker) {
            self.equipment.probe.disown(gone.process.pid);
            if let Some(cgroups) = &self.equipment.cgroups {
                cgroups.forget(gone.process.pid);
            }
        }
        let keys: Vec<(WorkerId, AcceptId)> =
            self.upload_keys.keys().filter(|(of, _)| *of == worker).copied().collect();
        for key in keys {
            if let Some(key) = self.upload_keys.remove(&key) {
                self.abandon(key);
            }
        }
        self.hear(Event::Worker(worker, WorkerNews::Died(why)));
    }

    /// What concerns content is dealt with here; the rest is for the supervisor.
    fn heard(&mut self, worker: WorkerId, said: FromWorker) {
        let news = match said {
            FromWorker::Upload { accept, data } => return self.upload(worker, accept, data),
            FromWorker::UploadAbandoned { accept } => {
                if let Some(key) = self.upload_keys.remove(&(worker, accept)) {
                    self.abandon(key);
                }
                return;
            }
            FromWorker::ReadBody { request, delivery, offset } => {
                return self.read_body(worker, request, delivery, offset);
            }
            FromWorker::Accept { accept, envelope, content } => {
                let content = match content {
                    Content::Inline(bytes) => {
                        if let Err(refusal) = hops::check(&bytes) {
                            return self.say(worker, ToWorker::Accepted { accept, result: Err(refusal) });
                        }
                        Incoming::Inline(bytes)
                    }
                    Content::Uploaded { size } => {
                        let key = self.upload_key(worker, accept);
                        self.upload_keys.remove(&(worker, accept));
                        if self.looping.remove(&key) {
                            return self.say(worker, ToWorker::Accepted { accept, result: Err(hops::refusal()) });
                        }
                        Incoming::Upload { key, size }
                    }
                };
                WorkerNews::Accept { accept, envelope, content }
            }
            said @ (FromWorker::Want | FromWorker::Yield { .. }) => {
                let link = self.workers.get(&worker).and_then(|known| known.link.as_ref());
                if let (FromWorker::Yield { token, .. }, Some(link)) = (&said, link) {
                    link.on_returned(*token);
                }
                WorkerNews::Said { said, cpu_us: self.cpu_us(worker) }
            }
            said => WorkerNews::Said { said, cpu_us: None },
        };
        self.hear(Event::Worker(worker, news));
    }

    /// What a worker's CPU clock says.
    fn cpu_us(&self, worker: WorkerId) -> Option<u64> {
        let used = priority::cpu_used(self.workers.get(&worker)?.process.pid)?;
        u64::try_from(used.as_micros()).ok()
    }

    fn name(&self, worker: WorkerId) -> &str {
        self.names.get(&worker.provider).map_or("?", String::as_str)
    }

    fn asked(&mut self, request: Request) {
        let (ask, question) = match bridge::split(request) {
            bridge::Split::Watch(answer) => return self.subscribe(answer),
            bridge::Split::Ask(ask, question) => (ask, question),
        };
        let ask_id = AskId(self.next_ask);
        self.next_ask += 1;
        if let Ask::Submit { content: Incoming::Inline(bytes), .. } = &ask
            && let Err(refusal) = hops::check(bytes)
        {
            return question.answer(Answer::Submitted(Err(refusal)));
        }
        if matches!(question, bridge::Question::Status(_)) {
            self.read_cpu_clocks();
        }
        self.questions.insert(ask_id, question);
        self.hear(Event::Asked(ask_id, ask));
    }

    /// Reads the configuration on a thread of its own, because it asks the worker program about its settings.
    fn reload(&mut self) {
        self.reloads.0 += 1;
        let number = self.reloads.0;
        let (path, mailbox) = (self.config.source.clone(), self.equipment.mailbox.clone());
        let read = move || match crate::config::load(&path) {
            Ok(config) => {
                tracing::info!("configuration {} read again", path.display());
                mailbox.put(Letter::Reloaded(number, Box::new(config)));
            }
            Err(error) => tracing::error!("the new configuration is refused and the old one stays: {error}"),
        };
        if let Err(error) = std::thread::Builder::new().name("reload".to_owned()).spawn(read) {
            tracing::error!("the configuration cannot be read: {error}");
        }
    }

    /// Takes a new configuration. Where messages and the control socket are is decided at the start.
    fn adopt(&mut self, config: Config) {
        if config.spool != self.config.spool || config.control != self.config.control {
            tracing::warn!("changes of [spool] and [control] take effect at the next start");
        }
        let config = Config { spool: self.config.spool.clone(), control: self.config.control.clone(), ..config };
        self.config = config.clone();
        self.hear(Event::Reload(Box::new(config)));
    }
}

/// Does something after a while, on a thread of its own. For rare things.
fn later(wait: Duration, act: impl FnOnce() + Send + 'static) {
    let timer = move || {
        std::thread::sleep(wait);
        act();
    };
    let _ = std::thread::Builder::new().name("timer".to_owned()).stack_size(64 * 1024).spawn(timer);
}
