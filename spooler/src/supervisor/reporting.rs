//! Senders are told: of failure, of delay, and of success where they want it.
//!
//! Reports quote the message, so they are built beside the loop. What ends something of the message waits meanwhile: it goes to disk in one
//! unit with the last of its reports that are being built. So a crash cannot lose a report, and whoever is told of one thing at a time is not
//! told twice.

use spooler_protocol::calls::StatusReport;
use spooler_protocol::control::RecipientState;
use spooler_protocol::ids::{DeliveryId, MessageId};
use spooler_protocol::outcome::Reply;

use super::event::{Action, Loudness, ReportKind, ReportOrder, ReportedRecipient, Ticket, WorkerId};
use super::{Acceptor, Pending, Supervisor, accepting, log};
use crate::policy::Now;
use crate::policy::retry::RetryPlan;
use crate::record::{Change, NewMessage, StoredContent};

/// What a sender can be told of a recipient, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fact {
    Delivered,
    Failed,
}

/// Reports of one message that are being built.
#[derive(Debug, Default)]
pub(super) struct Making {
    reports: u32,
    /// What goes to disk with the last one.
    unit: Vec<Change>,
    /// One of them cannot be built by this supervisor: what is reported stays off the disk.
    given_up: bool,
}

impl Supervisor {
    pub(super) fn report_failure(
        &mut self,
        id: MessageId,
        failed: Vec<(u32, Reply)>,
        unit: Vec<Change>,
        actions: &mut Vec<Action>,
    ) {
        self.failed += failed.len() as u64;
        for (index, reply) in &failed {
            log(actions, Loudness::Warn, format!("message {id} recipient {index} failed: {reply}"));
        }
        let news = failed.into_iter().filter(|(index, _)| self.is_news(id, *index, Fact::Failed));
        let recipients: Vec<ReportedRecipient> =
            news.map(|(index, reply)| ReportedRecipient { index, reply, relayed: false }).collect();
        if !recipients.is_empty() {
            self.report(id, ReportKind::Failed, recipients, unit, actions);
        } else if !unit.is_empty() {
            self.keep(unit, actions);
        }
    }

    /// Whether the sender has not been told this of a recipient before. From now on, it has.
    pub(super) fn is_news(&mut self, id: MessageId, index: u32, fact: Fact) -> bool {
        self.told.entry(id).or_default().insert((index, fact))
    }

    /// A provider wants the sender to be told (IMAPISupport::StatusRecips). It settles nothing; what was told once is not told again,
    /// neither here nor when the recipient is settled.
    pub(super) fn on_status_recips(
        &mut self,
        worker: WorkerId,
        delivery: DeliveryId,
        reports: Vec<(u32, StatusReport)>,
        actions: &mut Vec<Action>,
    ) {
        let Some(flight) = self.flights.get(&delivery).filter(|flight| flight.worker == worker) else { return };
        let (id, recipients) = (flight.id, flight.recipients.clone());
        let (mut delivered, mut failed) = (Vec::new(), Vec::new());
        for (place, report) in reports {
            let Some(&index) = usize::try_from(place).ok().and_then(|place| recipients.get(place)) else { continue };
            let (fact, reply) = match report {
                StatusReport::Delivered(reply) => (Fact::Delivered, reply),
                StatusReport::Failed(reply) => (Fact::Failed, reply),
            };
            if self.is_news(id, index, fact) {
                let told = if fact == Fact::Delivered { &mut delivered } else { &mut failed };
                told.push(ReportedRecipient { index, reply: reply.capped(), relayed: false });
            }
        }
        for (kind, told) in [(ReportKind::SentAsAsked, delivered), (ReportKind::Failed, failed)] {
            if !told.is_empty() {
                self.report(id, kind, told, Vec::new(), actions);
            }
        }
    }

    pub(super) fn report(
        &mut self,
        id: MessageId,
        kind: ReportKind,
        recipients: Vec<ReportedRecipient>,
        unit: Vec<Change>,
        actions: &mut Vec<Action>,
    ) {
        let ticket = Ticket(self.next_number());
        self.pending.insert(ticket, Pending::Report(id));
        let making = self.making.entry(id).or_default();
        making.reports += 1;
        making.unit.extend(unit);
        actions.push(Action::Report(ReportOrder { ticket, id, kind, recipients }));
    }

    /// Puts a unit aside if it ends something of a message whose reports are being built: without the message they cannot be, and what is on
    /// disk as failed is not told again.
    pub(super) fn unless_reported_first(&mut self, unit: Vec<Change>) -> Option<Vec<Change>> {
        let ends = |change: &Change| match change {
            Change::Remove { .. } => true,
            Change::Recipients { updates, .. } => updates.iter().any(|update| update.state != RecipientState::Pending),
            Change::Accept(_) | Change::Marks { .. } | Change::State { .. } => false,
        };
        let Some(id) = unit.iter().find(|change| ends(change)).map(Change::message) else { return Some(unit) };
        let Some(making) = self.making.get_mut(&id) else { return Some(unit) };
        making.unit.extend(unit);
        None
    }

    /// A report is not being built any more. What goes to disk with it, if it was the last one of its message.
    fn made(&mut self, id: MessageId) -> Vec<Change> {
        let Some(making) = self.making.get_mut(&id) else { return Vec::new() };
        making.reports -= 1;
        if making.reports > 0 || making.given_up {
            return Vec::new();
        }
        let mut unit = self.making.remove(&id).map(|making| making.unit).unwrap_or_default();
        self.refresh_marks(&mut unit);
        unit
    }

    /// A report cannot be built before the spooler ends: what becomes of its message stays off the disk from now on. True if there is something
    /// of that already.
    pub(super) fn give_report_up(&mut self, id: MessageId) -> bool {
        let Some(making) = self.making.get_mut(&id) else { return false };
        making.reports -= 1;
        making.given_up = true;
        !making.unit.is_empty()
    }

    /// A report, or a notice, goes to disk; a report together with what it reports.
    pub(super) fn on_report_built(
        &mut self,
        ticket: Ticket,
        report: Option<Box<NewMessage>>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let mut unit = match self.pending.remove(&ticket) {
            Some(Pending::Report(id)) => self.made(id),
            Some(Pending::Notice) => Vec::new(),
            _ => return,
        };
        let Some(mut report) = report else {
            if !unit.is_empty() {
                self.keep(unit, actions);
            }
            return;
        };
        self.last_id = MessageId(self.last_id.0 + 1);
        report.id = self.last_id;
        let size = match &report.content {
            StoredContent::Inline(bytes) => bytes.len() as u64,
            StoredContent::File(size) => *size,
        };
        let (id, entry) = (report.id, accepting::report_entry(&self.routing, &report, size, now));
        if entry.parts.as_slice().is_empty() {
            log(actions, Loudness::Warn, "a report has nowhere to go: no provider serves its recipient".to_owned());
            if !unit.is_empty() {
                self.keep(unit, actions);
            }
            return;
        }
        unit.push(Change::Accept(report));
        self.commit(unit, Pending::Accept(Acceptor::Nobody, id, entry), actions);
    }

    /// Deaths may have been counted while the report was being built.
    fn refresh_marks(&self, unit: &mut [Change]) {
        for change in unit {
            if let Change::Marks { id, deaths, .. } = change
                && let Some(entry) = self.queue.get(*id)
            {
                *deaths = entry.deaths;
            }
        }
    }

    /// Tells the sender if these recipients of a message will be late at its next attempt. Without any nothing is told, and nothing
    /// counts as told.
    pub(super) fn report_delay(
        &mut self,
        id: MessageId,
        recipients: Vec<ReportedRecipient>,
        due_ms: i64,
        plan: &RetryPlan,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let late = |born_ms: i64| plan.delay_warning_ms.is_some_and(|warning_ms| due_ms - born_ms > warning_ms);
        if !recipients.is_empty() && self.queue.get(id).is_some_and(|entry| late(entry.born_ms)) {
            self.report_late(id, recipients, plan, now, actions);
        }
    }

    /// Tells the sender that a message is late; once.
    pub(super) fn report_late(
        &mut self,
        id: MessageId,
        recipients: Vec<ReportedRecipient>,
        plan: &RetryPlan,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(entry) = self.queue.get(id).filter(|entry| !entry.delay_reported && !entry.null_sender) else {
            return;
        };
        let (born_ms, deaths) = (entry.born_ms, entry.deaths);
        self.queue.change(id, |entry| entry.delay_reported = true);
        let give_up_ms = now.wall_ms + plan.give_up_ms - (now.mono_ms - born_ms);
        let unit = vec![Change::Marks { id, deaths, delay_reported: true, death: None }];
        self.report(id, ReportKind::Delayed { give_up_ms }, recipients, unit, actions);
    }
}
