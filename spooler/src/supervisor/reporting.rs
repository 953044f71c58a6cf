//! Senders are told: of failure, of delay, and of success where they want it. A report goes to disk in one unit with what it reports,
//! so that a crash can neither lose it nor make a second one.

use spooler_protocol::calls::StatusReport;
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
        self.pending.insert(ticket, Pending::Report(unit));
        actions.push(Action::Report(ReportOrder { ticket, id, kind, recipients }));
    }

    /// A report goes to disk together with what it reports.
    pub(super) fn on_report_built(
        &mut self,
        ticket: Ticket,
        report: Option<Box<NewMessage>>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(Pending::Report(mut unit)) = self.pending.remove(&ticket) else { return };
        self.refresh_marks(&mut unit);
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
