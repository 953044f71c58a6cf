//! The loop: takes letters, lets the supervisor decide, and hands what it wants done to `system/`. Never waits for anything but the
//! next letter.
//!
//! Content does not concern the supervisor, so it does not pass through it: chunks go straight between the workers' channels and the
//! store's threads.

mod acting;
pub use acting::committed;
// Messages of workers on their way in.
mod arriving;
mod bodies;
// What the control socket and the pick-up folder may ask of the loop.
pub mod bridge;
mod debts;
// SIGHUP.
mod reloading;
mod reports;
mod watching;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use spooler_protocol::from_worker::FromWorker;
use spooler_protocol::ids::{AcceptId, DeliveryId};
use spooler_protocol::to_worker::ToWorker;
use tokio::sync::watch;

use crate::config::Config;
use crate::policy::priority_plan::Level;
use crate::supervisor::Supervisor;
use crate::supervisor::event::{Action, AskId, Event, WorkerEnd, WorkerId, WorkerNews};
use crate::system::cgroup::Cgroups;
use crate::system::clock::Clock;
use crate::system::control::Request;
use crate::system::folders::WorkersFolders;
use crate::system::idle_probe::IdleProbe;
use crate::system::log::MailLog;
use crate::system::logind::Inhibitor;
use crate::system::mailbox::{Letter, Letters, Mailbox};
use crate::system::privileges::Reduced;
use crate::system::service_manager::{self, ServiceManager};
use crate::system::store::readers::Readers;
use crate::system::store::uploads::Uploads;
use crate::system::store::writer::Writer;
use crate::system::words::{Word, Words};
use crate::system::worker_link::Link;
use crate::system::worker_process::WorkerProcess;

/// Packets taken from one worker before the others have their turn.
const PACKETS_A_TURN: usize = 16;
/// A worker that has closed its channel has so long to end by itself.
const CLOSED_PATIENCE: Duration = Duration::from_millis(900);
/// Letters taken before the clock is read again.
const LETTERS_A_TURN: usize = 64;

/// A worker as the loop knows it.
struct Worker {
    process: WorkerProcess,
    link: Option<Link>,
    /// What it says, from its hello until its channel is closed.
    words: Option<Words>,
    debts: debts::Debts,
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
    pub letters: Letters,
    /// The clocks.
    pub clock: Clock,
    /// What becomes of messages is written there.
    pub mail_log: MailLog,
    /// What is done with addresses on their way in: read wherever messages come in.
    pub addressing: bridge::CurrentAddressing,
    /// Moves whenever the status table may have changed.
    pub status: watch::Sender<u64>,
    /// Cgroups for workers, where there can be any.
    pub cgroups: Option<Cgroups>,
    /// Looks at the machine when it is told to.
    pub probe: IdleProbe,
    /// What keeps the machine awake until the workers were told.
    pub inhibitor: Inhibitor,
    /// Where workers meet the supervisor.
    pub workers_folders: WorkersFolders,
    /// What of root's power is left.
    pub reduced: Reduced,
    /// Who is told how we are, and watches whether the loop goes on.
    pub service: ServiceManager,
}

/// The loop and everything in its hands.
pub struct Driver {
    supervisor: Supervisor,
    equipment: Equipment,
    config: Config,
    names: HashMap<crate::policy::ProviderId, String>,
    workers: HashMap<WorkerId, Worker>,
    questions: HashMap<AskId, bridge::Question>,
    next_ask: u64,
    fresh: bodies::Fresh,
    flights: HashMap<DeliveryId, bodies::InHand>,
    arriving: HashMap<(WorkerId, AcceptId), arriving::Arriving>,
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
            questions: HashMap::new(),
            next_ask: 1,
            fresh: bodies::Fresh::default(),
            flights: HashMap::new(),
            arriving: HashMap::new(),
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
            self.equipment.mail_log.flush();
            self.equipment.service.feed();
        }
        self.equipment.writer.stop();
    }

    /// Waits for a letter or a deadline, and deals with what has come.
    fn turn(&mut self) {
        let now = self.equipment.clock.now();
        let deadline_ms = self.supervisor.deadline_ms();
        let wait_ms = deadline_ms.map(|at| u64::try_from(at - now.mono_ms).unwrap_or_default());
        let others = self.until_publishing().into_iter().chain(self.equipment.service.until_due());
        let wait = wait_ms.map(Duration::from_millis).into_iter().chain(others).min();
        let speaking = self.equipment.letters.wait(wait);
        for _ in 0..LETTERS_A_TURN {
            let Some(letter) = self.equipment.letters.take() else { break };
            self.open(letter);
        }
        for worker in speaking {
            self.listen(worker);
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
            Letter::Event(event) => {
                if matches!(event, Event::Stop) {
                    service_manager::stopping();
                }
                self.hear(event);
            }
            Letter::Events(events) => events.into_iter().for_each(|event| self.hear(event)),
            Letter::Settled(worker) => self.listen_again(worker),
            Letter::Hello(worker, Ok((link, words))) => self.greet(worker, link, words),
            Letter::Hello(worker, Err(why)) => {
                tracing::warn!(provider = self.name(worker), "{why}");
                self.hear(Event::Worker(worker, WorkerNews::Garbled(why)));
            }
            Letter::Ended(worker, end) => self.bury(worker, end),
            Letter::PriorityAgain(worker) => self.set_priority(worker),
            Letter::Asked(request) => self.asked(request),
            Letter::Reload => self.reload(),
            Letter::Reloaded(number, config) => self.reloaded(number, *config),
            Letter::AliasesRead(news) => self.aliases_read(*news),
        }
    }

    fn greet(&mut self, worker: WorkerId, link: Link, words: Words) {
        let Some(known) = self.workers.get_mut(&worker) else { return };
        if let Err(error) = self.equipment.letters.watch(worker, words.packets().socket()) {
            return self
                .hear(Event::Worker(worker, WorkerNews::Garbled(format!("its channel cannot be watched: {error}"))));
        }
        (known.link, known.words) = (Some(link), Some(words));
        let pid = known.process.pid;
        self.hear(Event::Worker(worker, WorkerNews::Started { pid }));
    }

    /// Takes a few words from a worker, unless too much is still to be done for it.
    fn listen(&mut self, worker: WorkerId) {
        let Some(known) = self.workers.get(&worker) else { return };
        if known.debts.admits() {
            self.take_words(worker);
        } else if let Some(words) = &known.words {
            self.equipment.letters.set_deaf(worker, words.packets().socket(), true);
        }
    }

    /// Enough was done for a worker that it may go on.
    fn listen_again(&mut self, worker: WorkerId) {
        if let Some(words) = self.workers.get(&worker).and_then(|known| known.words.as_ref()) {
            self.equipment.letters.set_deaf(worker, words.packets().socket(), false);
        }
    }

    /// False if there were no words.
    fn take_words(&mut self, worker: WorkerId) -> bool {
        let words = self.workers.get_mut(&worker).and_then(|known| known.words.as_mut());
        let words = words.map_or_else(Vec::new, |words| words.take(PACKETS_A_TURN));
        let some = !words.is_empty();
        for word in words {
            match word {
                Word::Said(said) => self.heard(worker, said),
                Word::Garbled(why) => {
                    self.stop_listening(worker);
                    self.hear(Event::Worker(worker, WorkerNews::Garbled(why)));
                }
                Word::Closed => self.closed(worker),
            }
        }
        some
    }

    fn stop_listening(&mut self, worker: WorkerId) {
        if let Some(words) = self.workers.get_mut(&worker).and_then(|known| known.words.take()) {
            self.equipment.letters.forget(words.packets().socket());
        }
    }

    /// A worker closed its channel. It has a moment to end by itself; one that lives on without its channel is of no use.
    fn closed(&mut self, worker: WorkerId) {
        self.stop_listening(worker);
        let Some(known) = self.workers.get_mut(&worker) else { return };
        known.link = None;
        let mailbox = self.equipment.mailbox.clone();
        let news = WorkerNews::Garbled("the worker closed its channel and did not end".to_owned());
        later(CLOSED_PATIENCE, move || mailbox.put(Letter::Event(Event::Worker(worker, news))));
    }

    /// A worker's process has ended. What it said before is heard first: it is all in the socket, and no more will come.
    fn bury(&mut self, worker: WorkerId, end: WorkerEnd) {
        while self.take_words(worker) {}
        self.stop_listening(worker);
        self.over(worker, end);
    }

    fn over(&mut self, worker: WorkerId, end: WorkerEnd) {
        if let Some(gone) = self.workers.remove(&worker) {
            self.equipment.probe.disown(gone.process.pid);
            if let Some(cgroups) = &self.equipment.cgroups {
                cgroups.forget(gone.process.pid);
            }
        }
        self.forget_arriving(worker);
        self.hear(Event::Worker(worker, WorkerNews::Died(end)));
    }

    /// What concerns content is dealt with here; the rest is for the supervisor.
    fn heard(&mut self, worker: WorkerId, said: FromWorker) {
        let news = match said {
            FromWorker::Upload { accept, data } => return self.upload(worker, accept, data),
            FromWorker::UploadBegins { accept, arrival } => return self.upload_begins(worker, accept, arrival),
            FromWorker::UploadAbandoned { accept } => return self.upload_abandoned(worker, accept),
            FromWorker::ReadBody { request, delivery, offset } => {
                return self.read_body(worker, request, delivery, offset);
            }
            FromWorker::Accept { accept, envelope, arrival, content } => {
                let (submission, client) = (arrival.submission, arrival.client.clone());
                let content = match self.arrived(worker, accept, arrival, content) {
                    Ok(content) => content,
                    Err(refusal) => return self.say(worker, ToWorker::Accepted { accept, result: Err(refusal) }),
                };
                if let Some(known) = self.workers.get_mut(&worker) {
                    known.debts.accepting(accept, &envelope, &content);
                }
                WorkerNews::Accept { accept, envelope, submission, client, content }
            }
            said @ (FromWorker::Want | FromWorker::Yield { .. }) => {
                let link = self.workers.get(&worker).and_then(|known| known.link.as_ref());
                if let (FromWorker::Yield { token, .. }, Some(link)) = (&said, link) {
                    link.on_returned(*token);
                }
                self.hear_of_programs(worker);
                WorkerNews::Said { said, cpu_us: self.cpu_us(worker) }
            }
            said => {
                // It may go on with the next program under the same token.
                if matches!(said, FromWorker::Settled { .. } | FromWorker::Finished { .. }) {
                    self.hear_of_programs(worker);
                }
                WorkerNews::Said { said, cpu_us: None }
            }
        };
        self.hear(Event::Worker(worker, news));
    }

    /// What a worker's CPU clock says.
    fn cpu_us(&self, worker: WorkerId) -> Option<u64> {
        let used = self.workers.get(&worker)?.process.cpu?.used()?;
        u64::try_from(used.as_micros()).ok()
    }

    /// Tells what the programs of a worker have used, if it runs any.
    fn hear_of_programs(&mut self, worker: WorkerId) {
        let used_us = self.workers.get_mut(&worker).and_then(|known| known.process.programs_used_us());
        if let Some(used_us) = used_us {
            self.hear(Event::Worker(worker, WorkerNews::Programs(used_us)));
        }
    }

    fn name(&self, worker: WorkerId) -> &str {
        self.names.get(&worker.provider).map_or("?", String::as_str)
    }

    fn asked(&mut self, request: Request) {
        let (ask, question) = match bridge::split(request) {
            bridge::Split::Watch(answer) => return self.subscribe(answer),
            bridge::Split::ReadAliases(answer) => return self.read_aliases(answer),
            bridge::Split::Ask(ask, question) => (ask, question),
        };
        let ask_id = AskId(self.next_ask);
        self.next_ask += 1;
        if matches!(question, bridge::Question::Status(_)) {
            self.read_cpu_clocks();
        }
        self.questions.insert(ask_id, question);
        self.hear(Event::Asked(ask_id, ask));
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
