//! Senders are told: of failure, of delay, and of success where they want it. A report goes to disk in one unit with what it reports,
//! so that a crash can neither lose it nor make a second one. A report that a provider asks for reports nothing that could go to disk with
//! it: after a crash it is asked for again with the recipient, which is not settled on disk before the report is there (`telling`).

use spooler_protocol::calls::StatusReport;
use spooler_protocol::ids::{DeliveryId, MessageId};
use spooler_protocol::message::Recipient;
use spooler_protocol::outcome::Reply;

use super::event::{Action, Loudness, ReportKind, ReportedRecipient, Ticket, WorkerId};
use super::mail::Accepted;
use super::pending::messages_of;
use super::{Acceptor, Pending, Supervisor, accepting, log};
use crate::policy::Now;
use crate::policy::queue::Entry;
use crate::policy::retry::RetryPlan;
use crate::policy::routing::Routed;
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

    /// A report goes to disk together with what it reports.
    pub(super) fn on_report_built(
        &mut self,
        ticket: Ticket,
        report: Option<Box<NewMessage>>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let (about, mut unit) = match self.pending.remove(&ticket) {
            Some(Pending::Report(id, unit)) => (Some(id), unit),
            Some(Pending::Notice) => (None, Vec::new()),
            _ => return,
        };
        self.refresh_marks(&mut unit);
        let Some((report, entry)) = report.and_then(|report| self.find_its_way(report, now, actions)) else {
            if !unit.is_empty() {
                let pending = Pending::Kept(messages_of(&unit));
                self.commit_now(unit, pending, actions);
            }
            if let Some(about) = about {
                self.report_is_over(about, actions);
            }
            return;
        };
        let acceptor = about.map_or(Acceptor::Nobody, Acceptor::Report);
        let note = Box::new(Accepted::of(&report));
        unit.push(Change::Accept(report));
        self.commit_now(unit, Pending::Accept(acceptor, note, entry), actions);
    }

    /// Gives a report its number and its place in the schedule; `None` if nobody serves its recipient.
    fn find_its_way(
        &mut self,
        mut report: Box<NewMessage>,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> Option<(Box<NewMessage>, Entry)> {
        self.last_id = MessageId(self.last_id.0 + 1);
        report.id = self.last_id;
        let size = match &report.content {
            StoredContent::Inline(bytes) => bytes.len() as u64,
            StoredContent::File(size) => *size,
        };
        let unserved = |recipient: &Recipient| self.routing.route(&recipient.address, &[]) == Routed::Nobody;
        if report.envelope.recipients.iter().all(unserved) {
            let to: Vec<String> = report.envelope.recipients.iter().map(|to| to.address.to_string()).collect();
            let text = format!("a report to {} has nowhere to go: no provider serves this address", to.join(", "));
            log(actions, Loudness::Warn, text);
            return None;
        }
        let entry = accepting::report_entry(&self.routing, &report, size, now);
        Some((report, entry))
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
        let max_age_ms = now.wall_ms + plan.max_age_ms - (now.mono_ms - born_ms);
        let unit = vec![Change::Marks { id, deaths, delay_reported: true, death: None }];
        self.report(id, ReportKind::Delayed { max_age_ms }, recipients, unit, actions);
    }
}
