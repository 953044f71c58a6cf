//! What becomes of messages: what was acknowledged, who was served, who was told.

use std::collections::{BTreeMap, BTreeSet};

use spooler::record::{Change, Scanned};
use spooler::supervisor::event::{
    Action, Answer, Ask, AskId, Event, ReportKind, SubmitOrder, Ticket, WorkerId, WorkerNews,
};
use spooler::system::store::StoreReader;
use spooler_protocol::calls::StatusReport;
use spooler_protocol::control::{MessageState, QueueAction, RecipientState};
use spooler_protocol::from_worker::FromWorker;
use spooler_protocol::ids::{DeliveryId, MessageId};
use spooler_protocol::outcome::{Outcome, SubmitResult};
use spooler_protocol::to_worker::ToWorker;

use super::{Verdict, demand};
use crate::disk::{Disk, message_of};

/// How a recipient was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// A worker said that it was served.
    Sent,
    /// A worker said that it never can be, or the supervisor gave it up.
    Failed,
}

/// What is known of a message.
#[derive(Debug, Default)]
struct Message {
    recipients: usize,
    /// It was on disk once.
    kept: bool,
    /// Its sender was told that it is accepted.
    acknowledged: bool,
    /// A person deleted or cancelled it.
    given_up: bool,
    /// A person wants it held, and asked for it so.
    hold: Option<AskId>,
    /// A person holds it, and was told so.
    held: bool,
    /// Workers that died while they had it, and the like.
    harm: u32,
    /// A provider has said that it is not for it.
    declined: bool,
    settled: BTreeMap<u32, Settled>,
    /// Settled in this run of the supervisor: it knows for sure.
    known: BTreeSet<u32>,
    /// Failure was reported in this run.
    told: BTreeSet<u32>,
    /// Success was reported in this run.
    told_sent: BTreeSet<u32>,
}

#[derive(Debug)]
struct Flight {
    worker: WorkerId,
    id: MessageId,
    recipients: Vec<u32>,
    settled: BTreeSet<u32>,
}

/// The second bookkeeping of messages.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    messages: BTreeMap<MessageId, Message>,
    flights: BTreeMap<DeliveryId, Flight>,
    credit: BTreeMap<WorkerId, usize>,
    /// Clients that wait for an answer.
    asked: BTreeMap<AskId, Option<(QueueAction, MessageId)>>,
    /// Nothing comes to disk now.
    stuck: bool,
    /// This step is about the ways of messages alone: a new configuration, or what is read again because of one.
    rerouting: bool,
    /// Failures that were heard and have to be reported in this step, or after the reports about the same message that are being made.
    owed: BTreeSet<(MessageId, u32)>,
    /// Failures and successes that a provider wants to be told, in the same way: it settles nothing.
    owed_as_asked: BTreeSet<(MessageId, u32, bool)>,
    /// Reports that are being built, and of which messages.
    making: BTreeMap<Ticket, MessageId>,
    /// A change of these was refused by the disk in this run: the schedule is ahead of it.
    ahead: BTreeSet<MessageId>,
    /// Recipients served, and messages acknowledged: for people.
    pub(crate) served: u64,
    pub(crate) acknowledged: u64,
}

impl Mail {
    /// Whether the schedule is ahead of the disk with this message, for a reason.
    pub(crate) fn is_ahead(&self, id: MessageId) -> bool {
        self.ahead.contains(&id) || self.messages.get(&id).is_some_and(|message| message.given_up)
    }

    /// Whether anything is known to be ahead of the disk.
    pub(crate) fn anything_ahead(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// Clients that were not answered.
    pub(crate) fn unanswered(&self) -> usize {
        self.asked.len()
    }

    /// Whether a worker has deliveries in its hands.
    pub(super) fn has_flights(&self, worker: WorkerId) -> bool {
        self.flights.values().any(|flight| flight.worker == worker)
    }

    /// Deliveries in the hands of workers.
    pub(crate) fn flights(&self) -> usize {
        self.flights.len()
    }

    /// Messages that are acknowledged and neither settled nor given up.
    pub(crate) fn owed_messages(&self) -> impl Iterator<Item = MessageId> {
        let open = |message: &&Message| {
            message.acknowledged && !message.given_up && message.settled.len() < message.recipients
        };
        self.messages.iter().filter(move |(_, message)| open(message)).map(|(id, _)| *id)
    }

    pub(super) fn hears(&mut self, event: &Event) {
        self.rerouting = matches!(event, Event::Reload(_) | Event::Scanned(_) | Event::ScanEnded(_));
        if let Event::StoreStuck(why) = event {
            self.stuck = why.is_some();
        }
        if let Event::ReportBuilt(ticket, _) = event {
            self.making.remove(ticket);
        }
        let Event::Asked(ask, what) = event else { return };
        let command = match what {
            Ask::FlushEnd(_) => return,
            Ask::Queue(action, ids, _) => ids.first().map(|id| (*action, *id)),
            _ => None,
        };
        if let Some((action, id)) = command
            && let Some(message) = self.messages.get_mut(&id)
        {
            match action {
                QueueAction::Hold => message.hold = Some(*ask),
                QueueAction::Release => (message.hold, message.held) = (None, false),
                QueueAction::Retry | QueueAction::Delete | QueueAction::Cancel => {}
            }
            message.given_up |= matches!(action, QueueAction::Delete | QueueAction::Cancel);
        }
        self.asked.insert(*ask, command);
    }

    pub(super) fn hears_worker(&mut self, worker: WorkerId, news: &WorkerNews) {
        self.rerouting = false;
        match news {
            WorkerNews::Said { said: FromWorker::LoggedOn(said), .. } => {
                let credit = usize::try_from(said.credit).unwrap_or(usize::MAX);
                self.credit.entry(worker).or_insert(credit);
            }
            WorkerNews::Said {
                said: FromWorker::Finished { delivery, result: SubmitResult::NotMe, outcomes, .. },
                ..
            } => {
                let flight = self.flights.get(delivery).filter(|flight| flight.worker == worker);
                if let Some(message) = flight.and_then(|flight| self.messages.get_mut(&flight.id)) {
                    message.declined = true;
                }
                self.settle(worker, *delivery, outcomes);
            }
            WorkerNews::Said {
                said: FromWorker::Settled { delivery, outcomes } | FromWorker::Finished { delivery, outcomes, .. },
                ..
            } => self.settle(worker, *delivery, outcomes),
            WorkerNews::Said { said: FromWorker::StatusRecips { delivery, reports }, .. } => {
                self.note_asked(worker, *delivery, reports);
            }
            WorkerNews::Died(_) => {
                for flight in self.flights.values().filter(|flight| flight.worker == worker) {
                    if let Some(message) = self.messages.get_mut(&flight.id) {
                        message.harm += 1;
                    }
                }
            }
            _ => {}
        }
    }

    /// The first word about a recipient counts, if it comes from the worker that has it.
    fn settle(&mut self, worker: WorkerId, delivery: DeliveryId, outcomes: &[(u32, Outcome)]) {
        let Some(flight) = self.flights.get_mut(&delivery).filter(|flight| flight.worker == worker) else { return };
        let Some(message) = self.messages.get_mut(&flight.id) else { return };
        for (place, outcome) in outcomes.iter().filter(|(_, outcome)| outcome.settles()) {
            let index = usize::try_from(*place).ok().and_then(|place| flight.recipients.get(place));
            let Some(&index) = index.filter(|index| !flight.settled.contains(index)) else { continue };
            flight.settled.insert(index);
            message.known.insert(index);
            let failed = matches!(outcome, Outcome::Failed(_));
            message.settled.insert(index, if failed { Settled::Failed } else { Settled::Sent });
            if failed {
                // The provider may have told it before.
                if !message.told.contains(&index) {
                    self.owed.insert((flight.id, index));
                }
            } else {
                self.served += 1;
            }
        }
    }

    /// A provider wants the sender to be told of its own recipients: of each fact once.
    fn note_asked(&mut self, worker: WorkerId, delivery: DeliveryId, reports: &[(u32, StatusReport)]) {
        let Some(flight) = self.flights.get(&delivery).filter(|flight| flight.worker == worker) else { return };
        let Some(message) = self.messages.get(&flight.id) else { return };
        for (place, report) in reports {
            let index = usize::try_from(*place).ok().and_then(|place| flight.recipients.get(place));
            let Some(&index) = index else { continue };
            let failed = matches!(report, StatusReport::Failed(_));
            let told = if failed { &message.told } else { &message.told_sent };
            if !told.contains(&index) {
                self.owed_as_asked.insert((flight.id, index, failed));
            }
        }
    }

    pub(super) fn wants(&mut self, action: &Action, disk: &mut Disk) -> Verdict {
        if let Action::Report(order) = action {
            self.making.insert(order.ticket, order.id);
        }
        match action {
            Action::Submit(order) => self.submits(order, disk),
            Action::Forget(delivery) => {
                self.flights.remove(delivery);
                Ok(())
            }
            Action::Commit(_, unit) => {
                unit.iter().try_for_each(|change| self.ends_reported(change).and_then(|()| self.keeps(change)))
            }
            Action::Report(order) if order.kind == ReportKind::Failed => {
                order.recipients.iter().try_for_each(|recipient| self.fails(order.id, recipient.index))
            }
            Action::Report(order) if matches!(order.kind, ReportKind::Sent | ReportKind::SentAsAsked) => {
                order.recipients.iter().try_for_each(|recipient| self.tells_success(order.id, recipient.index))
            }
            Action::Report(order) => demand(!order.recipients.is_empty(), "a report names somebody", || {
                format!("message {}: {:?}", order.id, order.kind)
            }),
            Action::Send(_, ToWorker::Accepted { result: Ok(id), .. }) => self.acknowledges(*id),
            Action::Answer(ask, answer) => self.answers(*ask, answer),
            _ => Ok(()),
        }
    }

    fn answers(&mut self, ask: AskId, answer: &Answer) -> Verdict {
        let command = self.asked.remove(&ask);
        demand(command.is_some(), "every question is answered once", || format!("{ask:?}: {answer:?}"))?;
        match (answer, command.flatten()) {
            (Answer::Submitted(Ok(id)), _) => self.acknowledges(*id),
            (Answer::Queue(Ok(done)), Some((QueueAction::Hold, id))) if done.done == 1 => {
                if let Some(message) = self.messages.get_mut(&id) {
                    message.held = message.hold == Some(ask);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn acknowledges(&mut self, id: MessageId) -> Verdict {
        let message = self.messages.entry(id).or_default();
        demand(message.kept, "accepted means on disk", || format!("message {id} was accepted before"))?;
        message.acknowledged = true;
        self.acknowledged += 1;
        Ok(())
    }

    fn submits(&mut self, order: &SubmitOrder, disk: &mut Disk) -> Verdict {
        let SubmitOrder { worker, delivery, id, recipients, .. } = order;
        let Some(message) = self.messages.get_mut(id) else {
            return demand(false, "what goes out came in", || format!("message {id}"));
        };
        demand(!self.stuck, "while nothing comes to disk nothing goes out", || format!("message {id}"))?;
        let again = recipients.iter().find(|index| message.known.contains(index));
        demand(again.is_none(), "the settled are not served again", || format!("message {id}: {again:?}"))?;
        demand(!message.held, "the held stay where they are", || format!("message {id}"))?;
        let of_it = self.flights.values().filter(|flight| flight.id == *id);
        let twice = of_it.flat_map(|flight| &flight.recipients).find(|index| recipients.contains(index));
        demand(twice.is_none(), "nobody is in two hands", || format!("message {id}: {twice:?}"))?;
        let credit = self.credit.get(worker).copied();
        let has = self.flights.values().filter(|flight| flight.worker == *worker).count();
        demand(credit.is_some_and(|credit| has < credit), "credit is kept", || {
            format!("{worker:?} has {has} of {credit:?}")
        })?;
        let pending = match disk.store.get(*id) {
            Ok(Some(Scanned::Message(kept))) => {
                let is_pending = |index: &&u32| {
                    let found = kept.recipients.iter().find(|recipient| recipient.index == **index);
                    found.is_some_and(|recipient| recipient.state == RecipientState::Pending)
                };
                recipients.iter().all(|index| is_pending(&index))
            }
            _ => false,
        };
        let known = self.ahead.contains(id);
        demand(pending || known, "only what the disk has as pending goes out", || {
            format!("message {id}, recipients {recipients:?}: {:?}", disk.store.get(*id))
        })?;
        let recipients = recipients.clone();
        self.flights.insert(*delivery, Flight { worker: *worker, id: *id, recipients, settled: BTreeSet::new() });
        Ok(())
    }

    fn tells_success(&mut self, id: MessageId, index: u32) -> Verdict {
        self.owed_as_asked.remove(&(id, index, false));
        let message = self.messages.entry(id).or_default();
        demand(message.told_sent.insert(index), "success is told once", || format!("message {id}: {index}"))
    }

    fn fails(&mut self, id: MessageId, index: u32) -> Verdict {
        let settles = self.owed.remove(&(id, index));
        let message = self.messages.entry(id).or_default();
        demand(!self.rerouting || message.declined, "a new configuration makes nobody fail", || {
            format!("message {id}: {index}")
        })?;
        if self.owed_as_asked.remove(&(id, index, true)) && !settles {
            return demand(message.told.insert(index), "failure is told once", || format!("message {id}: {index}"));
        }
        let settled = message.settled.insert(index, Settled::Failed);
        demand(settled != Some(Settled::Sent), "who was served has not failed", || format!("message {id}: {index}"))?;
        demand(message.told.insert(index), "failure is told once", || format!("message {id}: {index}"))
    }

    /// A recipient of whose failure the sender was told before, because its provider wanted that, is given up without another word.
    fn give_up_told(&mut self, id: MessageId, index: u32) {
        if let Some(message) = self.messages.get_mut(&id).filter(|message| message.told.contains(&index)) {
            message.settled.entry(index).or_insert(Settled::Failed);
        }
    }

    /// What is reported ends on disk no sooner than its report is built: a crash in between would lose the report.
    fn ends_reported(&self, change: &Change) -> Verdict {
        let ends = match change {
            Change::Remove { .. } => true,
            Change::Recipients { updates, .. } => updates.iter().any(|update| update.state != RecipientState::Pending),
            Change::Accept(_) | Change::Marks { .. } | Change::State { .. } => false,
        };
        let id = message_of(change);
        let by_hand = self.messages.get(&id).is_some_and(|message| message.given_up);
        let early = ends && !by_hand && self.making.values().any(|making| *making == id);
        demand(!early, "what is reported waits for its report", || format!("message {id}: {change:?}"))
    }

    fn keeps(&mut self, change: &Change) -> Verdict {
        match change {
            Change::Accept(new) => {
                let fresh = self.messages.get(&new.id).is_none_or(|before| !before.kept);
                demand(fresh, "no number is used twice", || format!("message {}", new.id))?;
                let recipients = new.envelope.recipients.len();
                self.messages.insert(new.id, Message { recipients, ..Message::default() });
                Ok(())
            }
            Change::Recipients { id, updates } => updates.iter().try_for_each(|update| {
                if update.state == RecipientState::Failed {
                    self.give_up_told(*id, update.index);
                }
                let settled = self.messages.get(id).and_then(|message| message.settled.get(&update.index)).copied();
                let expected = match update.state {
                    RecipientState::Pending => None,
                    RecipientState::Delivered | RecipientState::Relayed => Some(Settled::Sent),
                    RecipientState::Failed => Some(Settled::Failed),
                };
                let true_so_far = settled == expected || (expected.is_none() && self.ahead.contains(id));
                demand(true_so_far, "what is kept is what was heard", || {
                    format!("message {id}: {:?} is kept as {expected:?} and was {settled:?}", update.index)
                })
            }),
            Change::State { id, state: MessageState::Quarantined, why } => {
                let harm = self.messages.get(id).map_or(0, |message| message.harm);
                let unreadable = !why.contains("died");
                demand(unreadable || harm >= 3, "quarantine has a cause", || format!("message {id}: {harm} deaths"))
            }
            Change::State { .. } | Change::Marks { .. } => Ok(()),
            Change::Remove { id, .. } => {
                let message = self.messages.entry(*id).or_default();
                for index in &message.told {
                    message.settled.entry(*index).or_insert(Settled::Failed);
                }
                let through = message.given_up || message.settled.len() >= message.recipients;
                demand(through, "no accepted message is lost", || {
                    format!("message {id} is removed; settled are {:?} of {}", message.settled, message.recipients)
                })
            }
        }
    }

    /// `is_waiting`: whether reports about a message wait for one that is being made.
    pub(super) fn stepped(&mut self, is_waiting: impl Fn(MessageId) -> bool) -> Verdict {
        let unheard = self.owed_as_asked.iter().find(|(id, ..)| !is_waiting(*id));
        demand(unheard.is_none(), "what a provider wants told is told", || format!("nobody hears of {unheard:?}"))?;
        let unheard = self.owed.iter().find(|(id, _)| !is_waiting(*id));
        demand(unheard.is_none(), "failure is told", || format!("nobody hears of {unheard:?}"))
    }

    pub(super) fn committed(&mut self, unit: &[Change], on_disk: bool) {
        for change in unit {
            let id = message_of(change);
            if !on_disk {
                self.ahead.insert(id);
            } else if matches!(change, Change::Accept(_)) {
                self.messages.entry(id).or_default().kept = true;
            }
        }
    }

    /// What the supervisor knew and had not brought to disk is forgotten: that may be done again.
    pub(super) fn supervisor_gone(&mut self) {
        self.stuck = false;
        self.flights.clear();
        self.credit.clear();
        self.asked.clear();
        self.owed.clear();
        self.owed_as_asked.clear();
        self.making.clear();
        self.ahead.clear();
        for message in self.messages.values_mut() {
            message.known.clear();
            message.told.clear();
            message.told_sent.clear();
            message.held = false;
        }
    }

    /// What only a lost run of the supervisor had heard is not settled after all: the disk knows better.
    pub(crate) fn recover(&mut self, disk: &mut Disk) {
        for (id, message) in &mut self.messages {
            let Ok(Some(Scanned::Message(kept))) = disk.store.get(*id) else { continue };
            message.held = kept.state == MessageState::Held;
            let pending = kept.recipients.iter().filter(|recipient| recipient.state == RecipientState::Pending);
            for recipient in pending {
                message.settled.remove(&recipient.index);
            }
        }
    }
}
