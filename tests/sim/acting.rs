//! Does in the simulated world what the supervisor wants done, as `driver/acting.rs` does in the real one.

use spooler::policy::priority_plan::{Level, Reached};
use spooler::record::{NewMessage, Scanned, StoredContent};
use spooler::report;
use spooler::supervisor::event::{Action, Event, Reading, ReportKind, ReportOrder, SubmitOrder, WorkerId, WorkerNews};
use spooler::system::store::StoreReader;
use spooler_protocol::ids::MessageId;
use spooler_protocol::message::{Address, Envelope, Recipient};
use spooler_protocol::to_worker::{Submission, ToWorker};

use crate::agenda::Happening;
use crate::checker::{Verdict, demand};
use crate::disk::Told;
use crate::worker::Worker;
use crate::world::World;

/// Bytes of a simulated message that is uploaded.
const UPLOAD_BYTES: usize = 2000;
/// When a priority that could not be set is set again.
const PRIORITY_AGAIN_MS: i64 = 150;

impl World {
    pub(crate) fn act(&mut self, action: Action) {
        match action {
            Action::Spawn(id) => self.spawn(id),
            Action::Term(id) => {
                // One that is stopped does not get to hear it.
                let stopped = self.workers.get(&id).is_some_and(Worker::is_hung);
                let ignores = self.stage.mishap(100) || stopped;
                let wait_ms = self.stage.rng.between(0, 50);
                if !ignores {
                    self.stage.after(wait_ms, Happening::Dies(id, "signal 15"));
                }
            }
            Action::Kill(id) => self.soon(Happening::Dies(id, "signal 9")),
            Action::Send(id, word) => self.post(id, word),
            Action::Submit(order) => self.submit(&order),
            Action::SetPriority(id, level) => self.set_priority(id, level),
            Action::Commit(ticket, unit) => {
                self.disk.submit(ticket, unit);
                if !self.disk_turns {
                    self.disk_soon();
                }
            }
            Action::FinishUpload(ticket, _, id) => {
                self.disk.store.put_file(id, vec![b'x'; UPLOAD_BYTES].into());
                let fails = self.stage.mishap(self.stage.plan.troubles.disk_error);
                let result = if fails { Err(crate::disk::refusal("the disk failed")) } else { Ok(UPLOAD_BYTES as u64) };
                let finished = Event::UploadFinished(ticket, result);
                self.soon(Happening::Hear(Box::new(finished)));
            }
            Action::Scan(up_to) => self.soon(Happening::Scan(up_to)),
            Action::Lookup(id) if self.reading_fails() => self.not_read(Reading::Message(id)),
            Action::Lookup(id) => self.soon(Happening::Lookup(id)),
            Action::Notice(order) if self.reading_fails() => self.not_read(Reading::Notice(order)),
            Action::Notice(order) => {
                self.soon(Happening::Hear(Box::new(Event::ReportBuilt(order.ticket, None))));
            }
            Action::Report(order) if self.reading_fails() => self.not_read(Reading::Report(order)),
            Action::Report(order) => self.soon(Happening::Report(Box::new(order))),
            Action::Answer(ask, answer) => self.answered(ask, &answer),
            Action::ReadCpu(id) => {
                let cpu_us = self.workers.get(&id).map(|worker| worker.clock_us(self.stage.mono_ms));
                self.heard.push_back(Event::Worker(id, WorkerNews::Cpu(cpu_us)));
            }
            Action::LookForDevice(name) => {
                let present = !self.machine.gone.contains(&name);
                self.heard.push_back(Event::DevicePresent(name, present));
            }
            Action::Look { every_ms } => self.look_at_machine(every_ms),
            Action::Exit => self.exited = true,
            Action::LetMachineGo
            | Action::Forget(_)
            | Action::AbandonUpload(_)
            | Action::DiscardContent(_)
            | Action::Mail(_)
            | Action::Log(..) => {}
        }
    }

    /// Happens as soon as threads and processes have found their time.
    fn soon(&mut self, what: Happening) {
        let wait_ms = self.stage.hop_ms();
        self.stage.after(wait_ms, what);
    }

    fn post(&mut self, id: WorkerId, word: ToWorker) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.post(word, &mut self.stage);
        }
    }

    fn spawn(&mut self, id: WorkerId) {
        let Some(supervisor) = &self.supervisor else { return };
        let name = supervisor.provider_name(id.provider).to_owned();
        let plan = self.stage.plan.providers.iter().find(|provider| provider.name == name).cloned();
        self.names.insert(id.provider, name);
        let Some(plan) = plan else { return };
        self.workers.insert(id, Worker::new(id, plan));
        if !self.stage.mishap(self.stage.plan.troubles.no_hello) {
            let wait_ms = self.stage.rng.between(1, 5);
            return self.stage.after(wait_ms, Happening::Hello(id));
        }
        match self.stage.rng.below(3) {
            0 => {
                self.workers.remove(&id);
                self.heard.push_back(Event::Worker(id, WorkerNews::StartFailed("no such program".to_owned())));
            }
            1 => self.stage.after(2, Happening::Dies(id, "signal 6")),
            _ => {}
        }
    }

    pub(crate) fn hello(&mut self, id: WorkerId) -> Verdict {
        if self.workers.get(&id).is_none_or(|worker| worker.dead) {
            return Ok(());
        }
        let name = self.names.get(&id.provider);
        let provider = self.stage.plan.providers.iter().find(|provider| Some(&provider.name) == name);
        let interactive = provider.is_some_and(|provider| provider.interactive);
        let device = provider.and_then(|provider| provider.device.clone());
        self.checker.machine.note_device(id.provider, device);
        self.checker.tokens.note_interactive(id.provider, interactive);
        self.hear(Event::Worker(id, WorkerNews::Started { pid: 100 }))
    }

    /// A process dies; the kernel tells the supervisor a moment later.
    pub(crate) fn dies(&mut self, id: WorkerId, why: &'static str) {
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| !worker.dead) else { return };
        worker.dead = true;
        self.soon(Happening::Buried(id, why));
    }

    fn reading_fails(&mut self) -> bool {
        self.stage.mishap(50)
    }

    fn not_read(&mut self, reading: Reading) {
        self.soon(Happening::Hear(Box::new(Event::NotRead(reading, "the disk failed".to_owned()))));
    }

    /// From memory if it is fresh, else by way of a reader's thread, which may fail to read it.
    fn submit(&mut self, order: &SubmitOrder) {
        if self.stage.mishap(3) {
            let event = Event::ReadFailed(order.delivery, "the disk failed".to_owned());
            return self.soon(Happening::Hear(Box::new(event)));
        }
        let found = match self.disk.store.get(order.id) {
            Ok(Some(Scanned::Message(message))) => Some(message),
            _ => None,
        };
        let Some(message) = found.filter(|_| !self.stage.mishap(2)) else {
            let event = Event::Unreadable(order.delivery, "it is damaged".to_owned());
            return self.soon(Happening::Hear(Box::new(event)));
        };
        let word = ToWorker::Submit(Box::new(submission(order, &message.envelope, message.size)));
        if self.stage.rng.chance(700) {
            self.post(order.worker, word);
        } else {
            self.soon(Happening::Handed(order.worker, Box::new(word)));
        }
    }

    /// The kernel sets a priority, at once or a little later.
    fn set_priority(&mut self, id: WorkerId, level: Level) {
        let Some(worker) = self.workers.get(&id) else { return };
        let refused = worker.cannot_raise() && matches!(level, Level::Critical { .. });
        let refused = refused.then(|| "not permitted".to_owned());
        let reached = Reached { nice: Some(level.nice()), refused, ..Reached::default() };
        let event = Event::Worker(id, WorkerNews::Priority(level, reached));
        if self.stage.rng.chance(800) {
            self.heard.push_back(event);
        } else {
            self.stage.after(PRIORITY_AGAIN_MS, Happening::Hear(Box::new(event)));
        }
    }

    /// The disk does its next commit soon.
    pub(crate) fn disk_soon(&mut self) {
        self.disk_turns = true;
        let longest_ms = self.stage.plan.commit_ms_max;
        let wait_ms = self.stage.rng.between(0, longest_ms) + self.disk.slow_ms;
        self.stage.after(wait_ms, Happening::DiskTurn);
    }

    pub(crate) fn disk_turn(&mut self) {
        self.disk_turns = false;
        for (ticket, unit, result) in self.disk.turn(&mut self.stage) {
            self.checker.committed(&unit, result.is_ok());
            self.disk.reports.push_back(Told::Commit(ticket, result));
            self.soon(Happening::DiskReport);
        }
        if let Some(stuck) = self.disk.take_news() {
            self.disk.reports.push_back(Told::Stuck(stuck));
            self.soon(Happening::DiskReport);
        }
        if self.disk.has_work() {
            self.disk_soon();
        }
    }

    pub(crate) fn disk_report(&mut self) -> Verdict {
        match self.disk.reports.pop_front() {
            None => Ok(()),
            Some(Told::Commit(ticket, result)) => self.hear(Event::Committed(ticket, result)),
            Some(Told::Stuck(why)) => self.hear(Event::StoreStuck(why)),
        }
    }

    /// What is on disk at this moment comes in batches, in order.
    pub(crate) fn scan(&mut self, up_to: MessageId) {
        let mut found = Vec::new();
        let _ = self.disk.store.scan(&mut |scanned| {
            if matches!(&scanned, Scanned::Message(message) if message.id <= up_to) {
                found.push(scanned);
            }
            std::ops::ControlFlow::Continue(())
        });
        let mut wait_ms = self.stage.hop_ms();
        let mut rest = found.into_iter().peekable();
        while rest.peek().is_some() {
            let count = usize::try_from(self.stage.rng.between(1, 8)).unwrap_or(1);
            let batch: Vec<Scanned> = rest.by_ref().take(count).collect();
            self.stage.after(wait_ms, Happening::Hear(Box::new(Event::Scanned(batch))));
            wait_ms += 1 + self.stage.hop_ms();
        }
        self.stage.after(wait_ms, Happening::Hear(Box::new(Event::ScanEnded(Ok(())))));
    }

    pub(crate) fn look_up(&mut self, id: MessageId) {
        let found = self.disk.store.get(id).ok().flatten();
        let event = Event::Scanned(found.into_iter().collect());
        self.soon(Happening::Hear(Box::new(event)));
    }

    /// Builds a report, if anybody wants it.
    pub(crate) fn build_report(&mut self, order: &ReportOrder) -> Verdict {
        let found = self.disk.store.get(order.id).ok().flatten();
        demand(found.is_some(), "what a report quotes is there", || format!("{order:?}"))?;
        let built = match found {
            Some(Scanned::Message(message)) => report_of(order, &message.envelope, self.stage.now().wall_ms),
            _ => None,
        };
        let event = Event::ReportBuilt(order.ticket, built.map(Box::new));
        self.soon(Happening::Hear(Box::new(event)));
        Ok(())
    }
}

fn report_of(order: &ReportOrder, envelope: &Envelope, now_ms: i64) -> Option<NewMessage> {
    let kind = match order.kind {
        ReportKind::Failed => report::ReportKind::Failed,
        ReportKind::Delayed { .. } => report::ReportKind::Delayed { max_age_ms: 0 },
        ReportKind::Sent | ReportKind::SentAsAsked => report::ReportKind::Delivered,
    };
    let sender = Address::smtp(&envelope.sender).ok()?;
    let wanted = order.recipients.iter().any(|reported| {
        let place = usize::try_from(reported.index).unwrap_or(usize::MAX);
        let recipient = envelope.recipients.get(place);
        recipient.is_some_and(|recipient| match order.kind {
            ReportKind::SentAsAsked => recipient.notify.is_none_or(|notify| !notify.is_never()),
            _ => report::wanted(kind, recipient.notify, false, true),
        })
    });
    let envelope = Envelope { recipients: vec![Recipient::new(sender)], ..Envelope::default() };
    let content = StoredContent::Inline(bytes::Bytes::from_static(b"report"));
    wanted.then(|| NewMessage {
        id: order.id,
        envelope,
        submitted_ms: now_ms,
        origin: "report".to_owned(),
        owner_uid: None,
        content,
    })
}

fn submission(order: &SubmitOrder, envelope: &Envelope, size: u64) -> Submission {
    let recipient = |index: &u32| envelope.recipients.get(usize::try_from(*index).ok()?).cloned();
    Submission {
        delivery: order.delivery,
        message: order.id,
        sender: envelope.sender.clone(),
        recipients: order.recipients.iter().filter_map(recipient).collect(),
        others: Vec::new(),
        deferred_before: false,
        body: envelope.body,
        smtputf8: envelope.smtputf8,
        ret: envelope.ret,
        envid: None,
        priority: envelope.priority,
        attempt: order.attempt,
        size,
        content: None,
    }
}
