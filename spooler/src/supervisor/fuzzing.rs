//! A fuzz target: a worker that can say anything at any time, next to one that is honest.
//!
//! ```text
//!   record of the input     what happens
//!   0 frame                 the rogue says this; what nobody understands condemns it
//!   1 milliseconds          time passes
//!   2 digit                 a client submits a message, to the rogue or to the other
//!   3                       the rogue does what it was told last, as it should
//!   4                       the rogue's process dies
//! ```
//!
//! Whatever it does, the books are right after each step, what is wanted is not more than the words were worth, its rows
//! are no longer than rows may be, and in the end the other one is given what is for it.

use std::collections::{HashMap, VecDeque};
use std::path::Path;

use spooler_protocol::calls::EndMessage;
use spooler_protocol::codec::Assembler;
use spooler_protocol::codec::fuzzing::records;
use spooler_protocol::from_worker::{Content, FromWorker, LoggedOn};
use spooler_protocol::ids::MessageId;
use spooler_protocol::limits::{ROW_TEXT_BYTES_MAX, ROWS_MAX};
use spooler_protocol::message::{Envelope, Recipient};
use spooler_protocol::outcome::{Outcome, Reply, SubmitResult};
use spooler_protocol::to_worker::ToWorker;

use super::event::{Action, Answer, Ask, AskId, Event, Incoming, SubmitOrder, UploadKey, WorkerId, WorkerNews};
use super::{Supervisor, Surroundings};
use crate::policy::Now;
use crate::policy::priority_plan::Reached;
use crate::record::Change;

const CONFIG: &str = "[provider.rogue]\nkind = 'smtp'\nclaims = ['@rogue.test']\n\
    [provider.good]\nkind = 'smtp'\nclaims = ['@good.test']\n";
/// What a worker may cause with one word.
const ACTIONS_MAX: usize = 5000;
/// So long may a rogue keep the other one away: its token is taken back, and what it has raised is put down, long before.
const PATIENCE_MS: i64 = 3_600_000;
/// The longest text that the supervisor itself makes of a worker's, with its own words around it.
const TEXT_BYTES_MAX: usize = 2 * ROW_TEXT_BYTES_MAX + 4096;

/// What a worker was told.
enum Told {
    Submit(SubmitOrder),
    Word(ToWorker),
    Signal,
}

struct Stage {
    supervisor: Supervisor,
    now: Now,
    workers: HashMap<String, WorkerId>,
    told: VecDeque<(WorkerId, Told)>,
    rogue_told: VecDeque<Told>,
    events: VecDeque<Event>,
    answers: HashMap<AskId, Answer>,
    asked: u64,
    /// Messages that were removed from the disk.
    gone: Vec<MessageId>,
    assembler: Assembler,
}

/// The target.
pub(crate) fn lying_worker(input: &[u8]) {
    let mut stage = Stage::new();
    for record in records(input) {
        let Some((what, rest)) = record.split_first() else { continue };
        match what {
            0 => stage.rogue_says(rest),
            1 => stage.pass(rest.iter().fold(0, |ms, byte| (ms * 256 + i64::from(*byte)) % PATIENCE_MS)),
            2 => drop(stage.submit(if rest.is_empty() { "x@rogue.test" } else { "x@good.test" })),
            3 => stage.rogue_obeys(),
            4 => stage.news("rogue", WorkerNews::Died("the input says so".into())),
            _ => {}
        }
    }
    stage.check_rows();
    let id = stage.submit("last@good.test");
    let end_ms = stage.now.mono_ms + PATIENCE_MS;
    while !stage.gone.contains(&id) {
        assert!(stage.now.mono_ms < end_ms, "the other one is not given its message");
        stage.pass(1000);
    }
}

impl Stage {
    fn new() -> Self {
        let config = crate::config::parse(CONFIG, Path::new("fuzz.toml")).unwrap_or_else(|error| panic!("{error}"));
        let now = Now { mono_ms: 1_000_000, wall_ms: 1_700_000_000_000 };
        let surroundings = Surroundings { cores: 1, pid: 1, reload: String::new(), seed: 1, last_id: MessageId(0) };
        let (supervisor, actions) = Supervisor::new(config, surroundings, now);
        let mut stage = Self {
            supervisor,
            now,
            workers: HashMap::new(),
            told: VecDeque::new(),
            rogue_told: VecDeque::new(),
            events: VecDeque::new(),
            answers: HashMap::new(),
            asked: 0,
            gone: Vec::new(),
            assembler: Assembler::default(),
        };
        actions.into_iter().for_each(|action| stage.act(action));
        stage.go_on();
        stage
    }

    fn news(&mut self, name: &str, news: WorkerNews) {
        if let Some(worker) = self.workers.get(name) {
            self.events.push_back(Event::Worker(*worker, news));
        }
        self.go_on();
    }

    fn rogue_says(&mut self, frame: &[u8]) {
        let said = match self.assembler.push(frame) {
            Ok(None) => return,
            Ok(Some(said)) => said,
            Err(error) => {
                self.assembler = Assembler::default();
                return self.news("rogue", WorkerNews::Garbled(error.to_string()));
            }
        };
        let news = match said {
            // Content does not pass through the supervisor.
            FromWorker::UploadAbandoned { .. } => return,
            FromWorker::Upload { .. } => WorkerNews::Uploads,
            FromWorker::ReadBody { delivery, .. } => WorkerNews::Reads(delivery),
            FromWorker::Accept { accept, envelope, arrival, content } => {
                let content = match content {
                    Content::Inline(bytes) => Incoming::Inline(bytes),
                    Content::Uploaded { size } => Incoming::Upload { key: UploadKey(1), size, message_id: None },
                };
                WorkerNews::Accept { accept, envelope, submission: arrival.submission, client: arrival.client, content }
            }
            said => WorkerNews::Said { said, cpu_us: Some(1) },
        };
        self.news("rogue", news);
    }

    /// The rogue answers what it was told last.
    fn rogue_obeys(&mut self) {
        let Some(told) = self.rogue_told.pop_front() else { return };
        let answer = honest_answer(told);
        self.news("rogue", answer);
    }

    fn submit(&mut self, recipient: &str) -> MessageId {
        let Ok(address) = recipient.parse() else { panic!("{recipient}") };
        let envelope = Envelope { recipients: vec![Recipient::new(address)], ..Envelope::default() };
        let content = Incoming::Inline(bytes::Bytes::from_static(b"Subject: x\r\n\r\nx\r\n"));
        match self.ask(Ask::Submit { envelope, submission: true, origin: "uid 1".to_owned(), owner_uid: 1, content }) {
            Answer::Submitted(Ok(id)) => id,
            other => panic!("a client is refused: {other:?}"),
        }
    }

    fn ask(&mut self, ask: Ask) -> Answer {
        self.asked += 1;
        let ask_id = AskId(self.asked);
        self.events.push_back(Event::Asked(ask_id, ask));
        self.go_on();
        self.answers.remove(&ask_id).unwrap_or_else(|| panic!("no answer"))
    }

    fn pass(&mut self, ms: i64) {
        let end_ms = self.now.mono_ms + ms;
        loop {
            let due_ms =
                self.supervisor.deadline_ms().map_or(end_ms, |at_ms| at_ms.max(self.now.mono_ms + 1).min(end_ms));
            let step_ms = (due_ms - self.now.mono_ms).max(0);
            self.now = Now { mono_ms: self.now.mono_ms + step_ms, wall_ms: self.now.wall_ms + step_ms };
            self.events.push_back(Event::Tick);
            self.go_on();
            if self.now.mono_ms >= end_ms {
                return;
            }
        }
    }

    fn go_on(&mut self) {
        loop {
            if let Some(event) = self.events.pop_front() {
                let mut actions = Vec::new();
                self.supervisor.step(self.now, event, &mut actions);
                self.supervisor.check_invariants();
                assert!(actions.len() <= ACTIONS_MAX, "{} actions for one word", actions.len());
                actions.into_iter().for_each(|action| self.act(action));
            } else if let Some((worker, told)) = self.told.pop_front() {
                self.tell(worker, told);
            } else {
                return;
            }
        }
    }

    /// The good one does at once what it is told; the rogue when the input says so, but for signals.
    fn tell(&mut self, worker: WorkerId, told: Told) {
        let is_rogue = self.workers.get("rogue") == Some(&worker);
        if is_rogue && !matches!(told, Told::Signal) {
            self.rogue_told.push_back(told);
        } else {
            self.events.push_back(Event::Worker(worker, honest_answer(told)));
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Spawn(worker) => {
                let name = self.supervisor.provider_name(worker.provider).to_owned();
                if name == "rogue" {
                    self.rogue_told.clear();
                    self.assembler = Assembler::default();
                }
                self.workers.insert(name, worker);
                self.events.push_back(Event::Worker(worker, WorkerNews::Started { pid: 1000 }));
            }
            Action::Term(worker) | Action::Kill(worker) => self.told.push_back((worker, Told::Signal)),
            Action::Send(worker, word) => self.told.push_back((worker, Told::Word(word))),
            Action::Submit(order) => self.told.push_back((order.worker, Told::Submit(order))),
            Action::SetPriority(worker, level) => {
                let reached = Reached { nice: Some(level.nice()), ..Reached::default() };
                self.events.push_back(Event::Worker(worker, WorkerNews::Priority(level, reached)));
            }
            Action::Commit(ticket, unit) => {
                self.gone.extend(unit.into_iter().filter_map(|change| match change {
                    Change::Remove { id, .. } => Some(id),
                    _ => None,
                }));
                self.events.push_back(Event::Committed(ticket, Ok(())));
            }
            Action::FinishUpload(ticket, ..) => self.events.push_back(Event::UploadFinished(ticket, Ok(1))),
            Action::Scan(_) => self.events.push_back(Event::ScanEnded(Ok(()))),
            Action::Report(order) => self.events.push_back(Event::ReportBuilt(order.ticket, None)),
            Action::Answer(ask_id, answer) => drop(self.answers.insert(ask_id, answer)),
            _ => {}
        }
    }

    fn check_rows(&mut self) {
        let Answer::Status(table) = self.ask(Ask::Status) else { panic!("no status table") };
        assert_eq!(table.providers.len(), 2);
        assert!(table.added.len() <= ROWS_MAX, "{} rows", table.added.len());
        for row in &table.providers {
            let texts = [&row.text, &row.identity, &row.priority];
            let more = [&row.progress_text, &row.phase, &row.critical, &row.last_error];
            for text in texts.into_iter().chain(more.into_iter().flatten()) {
                assert!(text.len() <= TEXT_BYTES_MAX, "{} bytes in a row of {}", text.len(), row.name);
                assert!(!text.chars().any(char::is_control), "{text:?} in a row of {}", row.name);
            }
        }
        for row in &table.added {
            assert!(row.row.len() <= ROW_TEXT_BYTES_MAX && row.text.len() <= ROW_TEXT_BYTES_MAX);
        }
    }
}

/// What a worker as it should be does when it is told this.
fn honest_answer(told: Told) -> WorkerNews {
    let said = match told {
        Told::Signal => return WorkerNews::Died("a signal".into()),
        Told::Submit(order) => {
            let delivered = |index| (index, Outcome::Delivered(Reply::local(250, "2.0.0", "kept")));
            let outcomes = (0_u32..).zip(&order.recipients).map(|(index, _)| delivered(index)).collect();
            FromWorker::Finished {
                delivery: order.delivery,
                result: SubmitResult::Done,
                end: EndMessage::Done,
                outcomes,
            }
        }
        Told::Word(ToWorker::Welcome(_)) => FromWorker::LoggedOn(LoggedOn { credit: 10, ..LoggedOn::default() }),
        Told::Word(ToWorker::Grant { token, .. }) => FromWorker::Yield { token, more: false },
        Told::Word(ToWorker::Announce) => FromWorker::Announced(LoggedOn { credit: 10, ..LoggedOn::default() }),
        Told::Word(ToWorker::Poll) => FromWorker::Polled { waiting: false },
        Told::Word(ToWorker::Idle) => FromWorker::Idled,
        Told::Word(ToWorker::FlushQueues(_)) => FromWorker::FlushAnswered(Ok(())),
        Told::Word(ToWorker::ValidateState { request, .. }) => FromWorker::Validated { request, result: Ok(()) },
        Told::Word(ToWorker::Logoff { .. }) => return WorkerNews::Died("exit code 0".into()),
        Told::Word(_) => FromWorker::Want,
    };
    WorkerNews::Said { said, cpu_us: Some(1) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_kept_holds() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/lying_worker");
        let inputs: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
        assert!(inputs.len() > 5);
        inputs.iter().for_each(|input| lying_worker(input));
    }

    #[test]
    fn whatever_is_said_in_whatever_order_holds() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/lying_worker");
        let inputs: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
        let known: Vec<&[u8]> = inputs.iter().flat_map(|input| records(input)).collect();
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..60 {
            let mut input = Vec::new();
            for _ in 0..random.usize(..40) {
                let mut record = known[random.usize(..known.len())].to_vec();
                if random.u8(..3) == 0 && record.len() > 1 {
                    let at = random.usize(1..record.len());
                    record[at] = random.u8(..);
                }
                input.extend(u16::try_from(record.len()).unwrap().to_le_bytes());
                input.extend(record);
            }
            lying_worker(&input);
        }
    }
}
