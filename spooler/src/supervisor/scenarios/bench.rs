//! The stage: a supervisor whose workers are played by the test.
//!
//! What the supervisor wants done is done at once, on a disk in memory: units are committed, scans and lookups answered, priorities
//! reached. What it says to a worker is kept until the test looks at it with [`Bench::calls`] or takes it with [`Bench::delivery`].

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;

use spooler_protocol::calls::{EndMessage, SpoolerNotify, Wishes};
use spooler_protocol::control::{FlushCommand, FlushProgress, MessageState, MessageSummary};
use spooler_protocol::from_worker::{FromWorker, LoggedOn};
use spooler_protocol::ids::{Generation, MessageId};
use spooler_protocol::message::{Address, Envelope, Recipient};
use spooler_protocol::outcome::{Outcome, Reply, SubmitResult};
use spooler_protocol::status::ProviderRow;
use spooler_protocol::to_worker::{Refusal, ToWorker};

use crate::policy::Now;
use crate::policy::priority_plan::Reached;
use crate::record::{Change, NewMessage, ORIGIN_REPORT, RecipientUpdate, Scanned, ScannedMessage, StoredContent};
use crate::supervisor::event::{
    Action, Answer, Ask, AskId, Event, Incoming, NoticeOrder, Reading, ReportOrder, SubmitOrder, WorkerId, WorkerNews,
};
use crate::supervisor::mail::MailEvent;
use crate::supervisor::{Supervisor, Surroundings};

/// What a worker was told.
#[derive(Debug)]
pub(in crate::supervisor) enum Told {
    /// A delivery.
    Submit(SubmitOrder),
    /// Anything else.
    Word(ToWorker),
    /// A signal.
    Signal(&'static str),
}

/// A supervisor and its surroundings.
pub(in crate::supervisor) struct Bench {
    pub(in crate::supervisor) supervisor: Supervisor,
    pub(in crate::supervisor) now: Now,
    config: String,
    workers: HashMap<String, WorkerId>,
    told: HashMap<String, VecDeque<Told>>,
    /// What is on disk.
    pub(in crate::supervisor) disk: BTreeMap<MessageId, ScannedMessage>,
    /// Reports that were ordered.
    pub(in crate::supervisor) reports: Vec<ReportOrder>,
    /// Notices that were ordered.
    pub(in crate::supervisor) notices: Vec<NoticeOrder>,
    /// Answers that were not looked at.
    pub(in crate::supervisor) answers: HashMap<AskId, Answer>,
    /// Lines of the log.
    pub(in crate::supervisor) log: Vec<String>,
    pub(in crate::supervisor) mail: Vec<MailEvent>,
    pub(in crate::supervisor) exited: bool,
    /// What the disk says to every unit, if it takes none.
    pub(in crate::supervisor) refuse_commits: Option<Refusal>,
    /// The store cannot be read so many times.
    pub(in crate::supervisor) reads_to_fail: u32,
    /// Reports are built when the test has them built; otherwise at once, and nobody wants them.
    pub(in crate::supervisor) reports_take_time: bool,
    /// Workers have runtimes that live, whatever their providers do: tokens are given back when they are asked for, and clocks stand still.
    pub(in crate::supervisor) runtimes_live: bool,
    asked: u64,
    /// What the surroundings have to say, in order.
    events: VecDeque<Event>,
}

/// What a provider that serves `SMTP` says of itself.
pub(in crate::supervisor) fn smtp(wishes: Wishes) -> LoggedOn {
    LoggedOn { address_types: vec!["SMTP".to_owned()], credit: 10, wishes, ..LoggedOn::default() }
}

/// A reply of a remote.
pub(in crate::supervisor) fn reply(code: u16, text: &str) -> Reply {
    Reply::local(code, "", text)
}

impl Bench {
    /// A supervisor with this configuration and an empty disk. Its workers have started and said nothing.
    pub(in crate::supervisor) fn new(config: &str) -> Self {
        Self::over(config, BTreeMap::new())
    }

    /// A supervisor with this configuration and a [`LoggedOn`] from each named provider; what was said so far is not looked at.
    pub(in crate::supervisor) fn ready(config: &str, providers: &[(&str, LoggedOn)]) -> Self {
        let mut bench = Self::new(config);
        for (name, logged_on) in providers {
            bench.say(name, FromWorker::LoggedOn(logged_on.clone()));
        }
        bench.told.clear();
        bench
    }

    /// The supervisor is gone without a word; another one starts over what is on disk.
    pub(in crate::supervisor) fn crash(&mut self) {
        let now = Now { mono_ms: self.now.mono_ms + 1000, wall_ms: self.now.wall_ms + 1000 };
        let disk = std::mem::take(&mut self.disk);
        *self = Self::at(&self.config, disk, now);
    }

    /// A new configuration takes effect.
    pub(in crate::supervisor) fn reload(&mut self, config: &str) {
        config.clone_into(&mut self.config);
        let parsed = crate::config::parse(config, Path::new("x.toml")).unwrap();
        self.hear(Event::Reload(Box::new(parsed)));
    }

    /// The same on a disk from which the queue cannot be read, so many times.
    pub(in crate::supervisor) fn crash_onto_a_disk_that_refuses(&mut self, scans: u32) {
        self.crash();
        self.reads_to_fail = scans;
    }

    fn over(config: &str, disk: BTreeMap<MessageId, ScannedMessage>) -> Self {
        Self::at(config, disk, Now { mono_ms: 1_000_000, wall_ms: 1_700_000_000_000 })
    }

    fn at(config: &str, disk: BTreeMap<MessageId, ScannedMessage>, now: Now) -> Self {
        let parsed = crate::config::parse(config, Path::new("x.toml")).unwrap();
        let last_id = disk.last_key_value().map(|(id, _)| *id).unwrap_or_default();
        let surroundings = Surroundings { cores: 2, pid: 1, reload: "reload it".to_owned(), seed: 1, last_id };
        let (supervisor, actions) = Supervisor::new(parsed, surroundings, now);
        let mut bench = Self {
            supervisor,
            now,
            config: config.to_owned(),
            workers: HashMap::new(),
            told: HashMap::new(),
            disk,
            reports: Vec::new(),
            notices: Vec::new(),
            answers: HashMap::new(),
            log: Vec::new(),
            mail: Vec::new(),
            exited: false,
            refuse_commits: None,
            reads_to_fail: 0,
            reports_take_time: false,
            runtimes_live: false,
            asked: 0,
            events: VecDeque::new(),
        };
        actions.into_iter().for_each(|action| bench.act(action));
        bench.go_on();
        bench
    }

    /// The supervisor hears something, and what it wants done is done.
    pub(in crate::supervisor) fn hear(&mut self, event: Event) {
        self.events.push_back(event);
        self.go_on();
    }

    /// The supervisor hears these one after another, before anything that follows from the first.
    pub(in crate::supervisor) fn hear_in_a_row(&mut self, events: impl IntoIterator<Item = Event>) {
        self.events.extend(events);
        self.go_on();
    }

    fn go_on(&mut self) {
        while let Some(event) = self.events.pop_front() {
            let mut actions = Vec::new();
            self.supervisor.step(self.now, event, &mut actions);
            self.supervisor.check_invariants();
            actions.into_iter().for_each(|action| self.act(action));
        }
    }

    /// A worker says something.
    pub(in crate::supervisor) fn say(&mut self, name: &str, said: FromWorker) {
        let worker = self.worker(name);
        self.hear(Event::Worker(worker, WorkerNews::Said { said, cpu_us: None }));
    }

    /// A worker tells the spooler something (SpoolerNotify).
    pub(in crate::supervisor) fn notify(&mut self, name: &str, news: SpoolerNotify) {
        self.say(name, FromWorker::Notify(news));
    }

    /// The process of a worker is dead.
    pub(in crate::supervisor) fn die(&mut self, name: &str, why: &str) {
        let worker = self.worker(name);
        self.hear(Event::Worker(worker, WorkerNews::Died(why.into())));
    }

    /// Time passes; what is due in between happens in between.
    pub(in crate::supervisor) fn pass(&mut self, ms: i64) {
        let end_ms = self.now.mono_ms + ms;
        while let Some(at_ms) = self.supervisor.deadline_ms().filter(|at_ms| *at_ms <= end_ms) {
            let step_ms = (at_ms - self.now.mono_ms).max(1);
            self.now = Now { mono_ms: self.now.mono_ms + step_ms, wall_ms: self.now.wall_ms + step_ms };
            self.hear(Event::Tick);
        }
        let rest_ms = (end_ms - self.now.mono_ms).max(0);
        self.now = Now { mono_ms: self.now.mono_ms + rest_ms, wall_ms: self.now.wall_ms + rest_ms };
        self.hear(Event::Tick);
    }

    /// A client asks; the answer if there is one at once.
    pub(in crate::supervisor) fn ask(&mut self, ask: Ask) -> Option<Answer> {
        self.asked += 1;
        let ask_id = AskId(self.asked);
        self.hear(Event::Asked(ask_id, ask));
        self.answers.remove(&ask_id)
    }

    /// A client submits a message to these recipients.
    pub(in crate::supervisor) fn submit(&mut self, recipients: &[&str]) -> MessageId {
        self.submit_envelope(Envelope::default(), recipients)
    }

    /// As [`Bench::submit`], with a priority and such.
    pub(in crate::supervisor) fn submit_envelope(&mut self, envelope: Envelope, recipients: &[&str]) -> MessageId {
        // Each has its own age, as it has on a real machine.
        self.now = Now { mono_ms: self.now.mono_ms + 1, wall_ms: self.now.wall_ms + 1 };
        let recipients = recipients.iter().map(|text| Recipient::new(text.parse().unwrap())).collect();
        let envelope = Envelope { sender: "me@here".to_owned(), recipients, ..envelope };
        let content = Incoming::Inline(bytes::Bytes::from_static(b"Subject: x\r\n\r\nx\r\n"));
        let ask = Ask::Submit { envelope, submission: true, origin: "uid 1".to_owned(), owner_uid: 1, content };
        match self.ask(ask) {
            Some(Answer::Submitted(Ok(id))) => id,
            other => panic!("not accepted: {other:?}"),
        }
    }

    /// The next delivery that a worker was given; what it was told before that is passed over.
    pub(in crate::supervisor) fn delivery(&mut self, name: &str) -> SubmitOrder {
        let told = self.told.entry(name.to_owned()).or_default();
        loop {
            match told.pop_front() {
                Some(Told::Submit(order)) => return order,
                Some(_) => {}
                None => panic!("{name} was given no delivery; log: {:#?}", self.log),
            }
        }
    }

    /// A delivery ends.
    pub(in crate::supervisor) fn finish(&mut self, name: &str, order: &SubmitOrder, result: SubmitResult) {
        self.end(name, order, result, EndMessage::Done, Vec::new());
    }

    /// A delivery ends with outcomes, and with what the provider wants done with the message.
    pub(in crate::supervisor) fn end(
        &mut self,
        name: &str,
        order: &SubmitOrder,
        result: SubmitResult,
        end: EndMessage,
        outcomes: Vec<(u32, Outcome)>,
    ) {
        self.say(name, FromWorker::Finished { delivery: order.delivery, result, end, outcomes });
    }

    /// A delivery ends well for everybody in it.
    pub(in crate::supervisor) fn deliver(&mut self, name: &str, order: &SubmitOrder) {
        let all = (0..u32::try_from(order.recipients.len()).unwrap()).collect::<Vec<u32>>();
        let outcomes = all.into_iter().map(|index| (index, Outcome::Delivered(reply(250, "kept")))).collect();
        self.end(name, order, SubmitResult::Done, EndMessage::Done, outcomes);
    }

    /// What a worker was told since the last look, tokens and claims left out: `Submit 1`, `BeginInbound`, `Poll`, `Logoff`, `TERM`.
    pub(in crate::supervisor) fn calls(&mut self, name: &str) -> Vec<String> {
        let told = std::mem::take(self.told.entry(name.to_owned()).or_default());
        told.into_iter().filter_map(|told| short(&told)).collect()
    }

    /// What a worker was told since the last look, whole.
    pub(in crate::supervisor) fn told(&mut self, name: &str) -> Vec<Told> {
        std::mem::take(self.told.entry(name.to_owned()).or_default()).into()
    }

    /// Begins a flush; gives its number.
    pub(in crate::supervisor) fn flush(&mut self, command: FlushCommand) -> u64 {
        match self.ask(Ask::FlushBegin(command)) {
            Some(Answer::Flush(Ok(number))) => number,
            other => panic!("{other:?}"),
        }
    }

    /// How far a flush is.
    pub(in crate::supervisor) fn flush_progress(&mut self, number: u64) -> FlushProgress {
        match self.ask(Ask::FlushProgress(number)) {
            Some(Answer::FlushProgress(Some(progress))) => progress,
            other => panic!("{other:?}"),
        }
    }

    /// The report that was ordered last is built, from the message on disk.
    pub(in crate::supervisor) fn build_report(&mut self) {
        let order = self.reports.last().expect("no report was ordered");
        let quoted = self.disk.get(&order.id).expect("what the report quotes is gone");
        let envelope = Envelope {
            recipients: vec![Recipient::new(Address::smtp(&quoted.envelope.sender).unwrap())],
            ..Envelope::default()
        };
        let report = NewMessage {
            id: MessageId(0),
            envelope,
            submitted_ms: self.now.wall_ms,
            origin: ORIGIN_REPORT.to_owned(),
            owner_uid: None,
            content: StoredContent::Inline(bytes::Bytes::from_static(b"report")),
        };
        self.hear(Event::ReportBuilt(order.ticket, Some(Box::new(report))));
    }

    /// Messages on disk that are no reports, and how many reports there are.
    pub(in crate::supervisor) fn kept(&self) -> (Vec<MessageId>, usize) {
        let (reports, others): (Vec<_>, Vec<_>) =
            self.disk.values().partition(|message| message.envelope.sender.is_empty());
        (others.iter().map(|message| message.id).collect(), reports.len())
    }

    /// A provider's row.
    pub(in crate::supervisor) fn row(&mut self, name: &str) -> ProviderRow {
        match self.ask(Ask::Status) {
            Some(Answer::Status(table)) => {
                table.providers.into_iter().find(|row| row.name == name).expect("no such provider")
            }
            other => panic!("{other:?}"),
        }
    }

    /// State and reason of a message, as the queue listing shows them; `None` if it has gone.
    pub(in crate::supervisor) fn state(&mut self, id: MessageId) -> Option<(MessageState, String)> {
        let message = self.disk.get(&id)?;
        let reply = message.recipients.iter().rev().find_map(|update| update.reply.as_ref());
        let summary = MessageSummary {
            id,
            state: MessageState::Ready,
            why: reply.map(ToString::to_string).unwrap_or_default(),
            sender: String::new(),
            recipients: Vec::new(),
            pending: 0,
            size: 0,
            submitted_ms: 0,
            next_try_ms: None,
            attempts: 0,
        };
        match self.ask(Ask::Overlay(vec![summary], None)) {
            Some(Answer::Overlay(summaries)) => {
                summaries.into_iter().next().map(|summary| (summary.state, summary.why))
            }
            other => panic!("{other:?}"),
        }
    }

    /// The present worker of a provider.
    pub(in crate::supervisor) fn worker(&self, name: &str) -> WorkerId {
        self.workers.get(name).copied().expect("no worker was started for it")
    }

    /// Which incarnation of a provider's worker is on stage.
    pub(in crate::supervisor) fn generation(&self, name: &str) -> Generation {
        self.worker(name).generation
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Spawn(worker) => {
                let name = self.supervisor.provider_name(worker.provider).to_owned();
                self.workers.insert(name, worker);
                self.events.push_back(Event::Worker(worker, WorkerNews::Started { pid: 1000 }));
            }
            Action::Term(worker) => self.note(worker, Told::Signal("TERM")),
            Action::Kill(worker) => self.note(worker, Told::Signal("KILL")),
            Action::Send(worker, ToWorker::Recall { token } | ToWorker::Grant { token, recalled: true, .. })
                if self.runtimes_live =>
            {
                let news = WorkerNews::Said { said: FromWorker::Yield { token, more: false }, cpu_us: None };
                self.events.push_back(Event::Worker(worker, news));
            }
            Action::ReadCpu(worker) if self.runtimes_live => {
                self.events.push_back(Event::Worker(worker, WorkerNews::Cpu(Some(0))));
            }
            Action::Send(worker, word) => self.note(worker, Told::Word(word)),
            Action::Submit(order) => self.note(order.worker, Told::Submit(order)),
            Action::SetPriority(worker, level) => {
                let reached = Reached { nice: Some(level.nice()), ..Reached::default() };
                self.events.push_back(Event::Worker(worker, WorkerNews::Priority(level, reached)));
            }
            Action::Commit(ticket, unit) => {
                let result = self.refuse_commits.clone().map_or(Ok(()), Err);
                if result.is_ok() {
                    unit.into_iter().for_each(|change| self.keep(change));
                }
                self.events.push_back(Event::Committed(ticket, result));
            }
            Action::Scan(_) | Action::Lookup(_) | Action::Notice(_) | Action::Report(_) if self.reads_to_fail > 0 => {
                self.reads_to_fail -= 1;
                let why = "the disk fails".to_owned();
                self.events.push_back(match action {
                    Action::Lookup(id) => Event::NotRead(Reading::Message(id), why),
                    Action::Report(order) => Event::NotRead(Reading::Report(order), why),
                    Action::Notice(order) => Event::NotRead(Reading::Notice(order), why),
                    _ => Event::ScanEnded(Err(why)),
                });
            }
            Action::Scan(up_to) => {
                let kept = self.disk.range(..=up_to).map(|(_, message)| message.clone());
                let scanned = kept.map(|message| Scanned::Message(Box::new(message))).collect();
                self.events.push_back(Event::Scanned(scanned));
                self.events.push_back(Event::ScanEnded(Ok(())));
            }
            Action::Lookup(id) => {
                let kept = self.disk.get(&id).cloned();
                self.events
                    .push_back(Event::Scanned(kept.into_iter().map(|kept| Scanned::Message(Box::new(kept))).collect()));
            }
            Action::Notice(order) => {
                self.events.push_back(Event::ReportBuilt(order.ticket, None));
                self.notices.push(order);
            }
            Action::Report(order) => {
                if !self.reports_take_time {
                    self.events.push_back(Event::ReportBuilt(order.ticket, None));
                }
                self.reports.push(order);
            }
            Action::Answer(ask_id, answer) => drop(self.answers.insert(ask_id, answer)),
            Action::Log(_, text) => self.log.push(text),
            Action::Mail(event) => self.mail.push(event),
            Action::Exit => self.exited = true,
            Action::Forget(_) | Action::FinishUpload(..) | Action::AbandonUpload(_) | Action::DiscardContent(_) => {}
            // No machine: nobody looks at it, and nothing keeps it from sleeping.
            Action::Look { .. } | Action::ReadCpu(_) | Action::LookForDevice(_) | Action::LetMachineGo => {}
        }
    }

    fn note(&mut self, worker: WorkerId, told: Told) {
        let name = self.supervisor.provider_name(worker.provider).to_owned();
        self.told.entry(name).or_default().push_back(told);
    }

    fn keep(&mut self, change: Change) {
        match change {
            Change::Accept(message) => {
                let count = u32::try_from(message.envelope.recipients.len()).unwrap();
                let scanned = ScannedMessage {
                    id: message.id,
                    state: MessageState::Ready,
                    submitted_ms: message.submitted_ms,
                    size: 1,
                    deaths: 0,
                    delay_reported: false,
                    recipients: (0..count).map(RecipientUpdate::untried).collect(),
                    envelope: message.envelope,
                };
                self.disk.insert(scanned.id, scanned);
            }
            Change::Recipients { id, updates } => {
                let Some(message) = self.disk.get_mut(&id) else { return };
                for update in updates {
                    let place = usize::try_from(update.index).unwrap();
                    message.recipients[place] = update;
                }
            }
            Change::State { id, state, .. } => {
                self.disk.entry(id).and_modify(|message| message.state = state);
            }
            Change::Marks { id, deaths, delay_reported, .. } => {
                self.disk.entry(id).and_modify(|message| {
                    message.deaths = deaths;
                    message.delay_reported = delay_reported;
                });
            }
            Change::Remove { id, .. } => drop(self.disk.remove(&id)),
        }
    }
}

fn short(told: &Told) -> Option<String> {
    match told {
        Told::Submit(order) => Some(format!("Submit {}", order.id)),
        Told::Signal(signal) => Some((*signal).to_owned()),
        Told::Word(ToWorker::Notify(notification)) => Some(format!("{notification:?}")),
        Told::Word(ToWorker::Grant { .. } | ToWorker::Recall { .. } | ToWorker::Claims(_)) => None,
        Told::Word(word) => {
            let text = format!("{word:?}");
            Some(text.split([' ', '(']).next().unwrap_or_default().to_owned())
        }
    }
}
