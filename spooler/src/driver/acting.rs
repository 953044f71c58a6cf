//! Does what the supervisor wants done.

use std::ops::ControlFlow;
use std::time::Duration;

use spooler_protocol::ids::MessageId;
use spooler_protocol::to_worker::{Refusal, ToWorker};

use super::debts::Debts;
use super::{Driver, Worker, later};
use crate::record::Scanned;
use crate::supervisor::event::{Action, Event, Loudness, Reading, Ticket, UploadKey, WorkerId, WorkerNews};
use crate::system::device_events;
use crate::system::mailbox::Letter;
use crate::system::priority;
use crate::system::store::StoreError;
use crate::system::store::writer;
use crate::system::worker_link::{Greeted, LinkError};
use crate::system::worker_process::WorkerProcess;

/// Before the kernel is asked again for a priority.
const PRIORITY_PAUSE: Duration = Duration::from_millis(150);
/// Messages in one event of a scan.
const SCAN_BATCH: usize = 500;

impl Driver {
    pub(super) fn act_all(&mut self, actions: Vec<Action>) {
        self.acting = true;
        for action in actions {
            self.act(action);
        }
        self.acting = false;
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Spawn(worker) => self.spawn(worker),
            Action::Term(worker) => {
                if let Some(known) = self.workers.get(&worker) {
                    known.process.terminate();
                }
            }
            Action::Kill(worker) => self.kill(worker),
            Action::Send(worker, word) => self.say(worker, word),
            Action::Submit(order) => self.submit(order),
            Action::Forget(delivery) => {
                self.flights.remove(&delivery);
            }
            Action::ReadCpu(worker) => {
                self.hear_of_programs(worker);
                let cpu_us = self.cpu_us(worker);
                self.hear(Event::Worker(worker, WorkerNews::Cpu(cpu_us)));
            }
            Action::SetPriority(worker, level) => {
                if let Some(known) = self.workers.get_mut(&worker) {
                    known.level = Some(level);
                }
                self.set_priority(worker);
            }
            Action::Commit(ticket, unit) => {
                self.fresh.note(&unit);
                self.equipment.writer.submit(writer::Ticket(ticket.0), unit);
            }
            Action::FinishUpload(ticket, key, id) => self.finish_upload(ticket, key, id),
            Action::DiscardContent(id) => self.equipment.uploads.discard(id),
            Action::AbandonUpload(key) => self.equipment.uploads.abandon(key.0),
            Action::Scan(up_to) => self.scan(up_to),
            Action::Lookup(id) => self.look_up(id),
            Action::Report(order) => self.report(order),
            Action::Notice(order) => self.notice(order),
            Action::Answer(ask_id, answer) => {
                if let Some(question) = self.questions.remove(&ask_id) {
                    question.answer(answer);
                }
            }
            Action::Look { every_ms } => self.equipment.probe.look(every_ms),
            Action::Mail(event) => self.log_mail(&event),
            Action::Log(Loudness::Info, text) => tracing::info!("{text}"),
            Action::Log(Loudness::Warn, text) => tracing::warn!("{text}"),
            Action::LookForDevice(name) => {
                let present = device_events::is_present(&name);
                self.hear(Event::DevicePresent(name, present));
            }
            Action::LetMachineGo => self.equipment.inhibitor.release(),
            Action::Exit => self.done = true,
        }
    }

    fn spawn(&mut self, worker: WorkerId) {
        let name = self.supervisor.provider_name(worker.provider).to_owned();
        let mailbox = self.equipment.mailbox.clone();
        let hello_to = mailbox.clone();
        let greeted = move |greeted: Result<Greeted, String>| {
            let link = greeted.and_then(Greeted::link);
            hello_to.put(Letter::Hello(worker, link));
        };
        let started = WorkerProcess::start(
            &self.config.worker,
            &self.equipment.workers_folders,
            worker,
            &name,
            &mailbox,
            greeted,
        );
        self.names.insert(worker.provider, name);
        match started {
            Ok(mut process) => {
                let runs_programs = self.supervisor.runs_programs(worker.provider);
                if runs_programs {
                    process.count_programs();
                }
                self.equipment.probe.own(process.pid, runs_programs);
                let debts = Debts::new(worker, mailbox);
                self.workers.insert(worker, Worker { process, link: None, words: None, debts, level: None });
            }
            Err(why) => self.hear(Event::Worker(worker, WorkerNews::StartFailed(why))),
        }
    }

    fn kill(&mut self, worker: WorkerId) {
        if let Some(known) = self.workers.get(&worker) {
            known.process.kill();
        }
    }

    pub(super) fn say(&mut self, worker: WorkerId, word: ToWorker) {
        let Some(known) = self.workers.get_mut(&worker) else { return };
        if let ToWorker::Accepted { accept, .. } = &word {
            known.debts.accepted(*accept);
        }
        let Some(link) = known.link.as_ref() else { return };
        match link.say(word) {
            Ok(()) | Err(LinkError::Closed) => {}
            Err(error @ LinkError::Full) => {
                self.hear(Event::Worker(worker, WorkerNews::Garbled(error.to_string())));
            }
        }
    }

    /// Gives a worker the priority that is wanted now.
    pub(super) fn set_priority(&mut self, worker: WorkerId) {
        let Some(known) = self.workers.get(&worker) else { return };
        let Some(level) = known.level else { return };
        let (mut reached, again) = priority::set(known.process.pid, known.process.autogroup.as_ref(), level);
        reached.cgroup = self.equipment.cgroups.as_ref().map(|cgroups| cgroups.set(known.process.pid, level));
        if again {
            let mailbox = self.equipment.mailbox.clone();
            later(PRIORITY_PAUSE, move || mailbox.put(Letter::PriorityAgain(worker)));
            return;
        }
        self.hear(Event::Worker(worker, WorkerNews::Priority(level, reached)));
    }

    fn finish_upload(&mut self, ticket: Ticket, key: UploadKey, id: MessageId) {
        let mailbox = self.equipment.mailbox.clone();
        let done = move |result: Result<u64, StoreError>| {
            let result = result.map_err(|error| refusal(&error));
            mailbox.put(Letter::Event(Event::UploadFinished(ticket, result)));
        };
        self.equipment.uploads.finish(key.0, id, Box::new(done));
    }

    /// Reads all messages up to a number, in batches so that neither memory nor the loop is filled.
    fn scan(&self, up_to: MessageId) {
        let mailbox = self.equipment.mailbox.clone();
        self.equipment.readers.run(Box::new(move |reader| {
            let mut batch = Vec::with_capacity(SCAN_BATCH);
            let result = reader.scan(&mut |scanned| {
                let id = match &scanned {
                    Scanned::Message(message) => message.id,
                    Scanned::Damaged { id, .. } => *id,
                };
                if id > up_to {
                    return ControlFlow::Break(());
                }
                batch.push(scanned);
                if batch.len() >= SCAN_BATCH {
                    mailbox.put(Letter::Event(Event::Scanned(std::mem::take(&mut batch))));
                }
                ControlFlow::Continue(())
            });
            mailbox.put(Letter::Event(Event::Scanned(batch)));
            mailbox.put(Letter::Event(Event::ScanEnded(result.map_err(|error| error.to_string()))));
        }));
    }

    fn look_up(&self, id: MessageId) {
        let mailbox = self.equipment.mailbox.clone();
        self.equipment.readers.run(Box::new(move |reader| match reader.get(id) {
            Ok(found) => mailbox.put(Letter::Event(Event::Scanned(found.into_iter().collect()))),
            Err(error) if error.is_passing() => {
                mailbox.put(Letter::Event(Event::NotRead(Reading::Message(id), error.to_string())));
            }
            Err(error) => tracing::error!("message {id} cannot be read: {error}"),
        }));
    }
}

/// What a sender is told when the store cannot keep a message.
pub(super) fn refusal(error: &StoreError) -> Refusal {
    let (temporary, enhanced) = match error {
        StoreError::TooLarge { .. } => (false, "5.3.4"),
        StoreError::Full { .. } => (true, "4.3.1"),
        _ => (true, "4.3.0"),
    };
    Refusal { temporary, enhanced: enhanced.to_owned(), text: error.to_string() }
}

/// What the store's writer reports, as an event.
#[must_use]
pub fn committed(report: Vec<(writer::Ticket, Result<(), StoreError>)>) -> Letter {
    let event = |(ticket, result): (writer::Ticket, Result<(), StoreError>)| {
        Event::Committed(Ticket(ticket.0), result.map_err(|error| refusal(&error)))
    };
    Letter::Events(report.into_iter().map(event).collect())
}
