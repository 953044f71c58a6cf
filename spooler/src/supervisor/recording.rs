//! What became of recipients: judged from a worker's words, brought to disk, and reported.

use spooler_protocol::control::RecipientState;
use spooler_protocol::ids::{DeliveryId, MessageId};
use spooler_protocol::outcome::{Outcome, Reply};

use super::Supervisor;
use super::event::{Action, ReportKind, ReportedRecipient, WorkerId};
use super::mail::{self, log_change};
use super::reporting::Fact;
use crate::policy::queue::Waiting;
use crate::policy::{Now, ProviderId};
use crate::record::{Change, RecipientUpdate};

/// What an attempt means for the recipients of a delivery.
#[derive(Default)]
pub(super) struct Verdict {
    pub(super) sent: Vec<Sent>,
    pub(super) failed: Vec<(u32, Reply)>,
    pub(super) deferred: Vec<(u32, Reply)>,
}

/// A recipient that was served.
pub(super) struct Sent {
    recipient: ReportedRecipient,
    /// Whether a report of success, if one is wanted, is ours to make: a next hop may have taken that duty over.
    ours_to_report: bool,
}

/// How a recipient that was served well is kept on disk.
fn settled_as(recipient: &ReportedRecipient) -> RecipientState {
    if recipient.relayed { RecipientState::Relayed } else { RecipientState::Delivered }
}

impl Supervisor {
    /// Turns outcomes into what they mean; `None` if the delivery is not this worker's. Unknown and repeated recipients are dropped.
    pub(super) fn judge(
        &mut self,
        worker: WorkerId,
        delivery: DeliveryId,
        outcomes: Vec<(u32, Outcome)>,
    ) -> Option<Verdict> {
        let flight = self.flights.get_mut(&delivery).filter(|flight| flight.worker == worker)?;
        let mut verdict = Verdict::default();
        for (place, outcome) in outcomes {
            let Some(&index) = usize::try_from(place).ok().and_then(|place| flight.recipients.get(place)) else {
                continue;
            };
            if flight.settled.contains(&index) {
                continue;
            }
            if outcome.settles() {
                flight.settled.insert(index);
            }
            match outcome.capped() {
                Outcome::Delivered(reply) => {
                    let recipient = ReportedRecipient { index, reply, relayed: false };
                    verdict.sent.push(Sent { recipient, ours_to_report: true });
                }
                Outcome::Relayed { reply, reports } => {
                    let recipient = ReportedRecipient { index, reply, relayed: true };
                    verdict.sent.push(Sent { recipient, ours_to_report: !reports });
                }
                Outcome::Failed(reply) => verdict.failed.push((index, reply)),
                Outcome::Deferred(reply) => verdict.deferred.push((index, reply)),
            }
        }
        Some(verdict)
    }

    /// Brings what became of recipients to disk; with a report where one may be wanted.
    pub(super) fn record(
        &mut self,
        delivery: DeliveryId,
        verdict: Verdict,
        gone: bool,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(flight) = self.flights.get(&delivery) else { return };
        let (id, attempts, route, wants_success) = (flight.id, flight.attempt, flight.route, flight.wants_success);
        self.sent += verdict.sent.len() as u64;
        let next_try_ms = self.next_try_ms(id, route.provider, now);
        let provider = self.name(route.provider).to_owned();
        let update = |index: u32, state, reply: &Reply, next_try_ms| RecipientUpdate {
            index,
            state,
            attempts,
            next_try_ms,
            provider: Some(provider.clone()),
            reply: Some(reply.clone()),
        };
        let sent = verdict
            .sent
            .iter()
            .map(|sent| update(sent.recipient.index, settled_as(&sent.recipient), &sent.recipient.reply, now.wall_ms));
        let deferred =
            verdict.deferred.iter().map(|(index, reply)| update(*index, RecipientState::Pending, reply, next_try_ms));
        let failed =
            verdict.failed.iter().map(|(index, reply)| update(*index, RecipientState::Failed, reply, now.wall_ms));
        let (sent, failed, deferred): (Vec<RecipientUpdate>, Vec<RecipientUpdate>, Vec<RecipientUpdate>) =
            (sent.collect(), failed.collect(), deferred.collect());
        self.log_verdict(delivery, &verdict, next_try_ms, now, actions);
        // What is tried again does not wait for a report to be built: by then the next attempt may be known.
        if !deferred.is_empty() {
            self.keep(vec![Change::Recipients { id, updates: deferred }], actions);
        }
        let ours = verdict.sent.into_iter().filter(|sent| wants_success && sent.ours_to_report);
        let ours: Vec<ReportedRecipient> =
            ours.map(|sent| sent.recipient).filter(|sent| self.is_news(id, sent.index, Fact::Delivered)).collect();
        let all = |this: &Self, updates: Vec<RecipientUpdate>| match (gone, updates.is_empty()) {
            (true, _) => vec![this.remove_settled(id, updates)],
            (false, true) => Vec::new(),
            (false, false) => vec![Change::Recipients { id, updates }],
        };
        // Each report goes to disk with what it reports, and the last one with the rest.
        match (verdict.failed.is_empty(), ours.is_empty()) {
            (true, true) if !gone && sent.is_empty() => {}
            (true, true) => self.keep(all(self, sent), actions),
            (true, false) => self.report(id, ReportKind::Sent, ours, all(self, sent), actions),
            (false, true) => {
                let unit = all(self, sent.into_iter().chain(failed).collect());
                self.report_failure(id, verdict.failed, unit, actions);
            }
            (false, false) => {
                let failures = vec![Change::Recipients { id, updates: failed }];
                self.report_failure(id, verdict.failed, failures, actions);
                self.report(id, ReportKind::Sent, ours, all(self, sent), actions);
            }
        }
    }

    /// Recipients fail without having been in flight; `logged` is why.
    pub(super) fn fail(
        &mut self,
        id: MessageId,
        failed: Vec<(u32, Reply)>,
        logged: mail::Change,
        actions: &mut Vec<Action>,
    ) {
        let updates = failed.iter().map(|(index, reply)| RecipientUpdate {
            index: *index,
            state: RecipientState::Failed,
            attempts: 0,
            next_try_ms: self.wall_ms,
            provider: None,
            reply: Some(reply.clone()),
        });
        let updates: Vec<RecipientUpdate> = updates.collect();
        if let Some((_, reply)) = failed.first() {
            log_change(id, logged, None, reply.to_string(), actions);
        }
        let gone = self.queue.get(id).is_none_or(|entry| entry.parts.as_slice().is_empty());
        let unit = if gone {
            self.queue.remove(id);
            vec![self.remove_settled(id, updates)]
        } else {
            vec![Change::Recipients { id, updates }]
        };
        self.report_failure(id, failed, unit, actions);
    }

    /// When a provider's part of a message is tried next, as it is kept on disk.
    fn next_try_ms(&self, id: MessageId, provider: ProviderId, now: Now) -> i64 {
        let entry = self.queue.get(id);
        let parts = entry.map(|entry| entry.parts.as_slice()).unwrap_or_default();
        let due =
            parts.iter().filter(|part| part.route.is_some_and(|route| route.provider == provider)).find_map(|part| {
                match part.waiting {
                    Waiting::Deferred { due_ms } => Some(due_ms),
                    Waiting::Ready | Waiting::InFlight(_) | Waiting::Callback => None,
                }
            });
        due.map_or(0, |due_ms| now.wall_ms + (due_ms - now.mono_ms))
    }
}

impl Verdict {
    /// Those that were served.
    pub(super) fn sent(&self) -> impl Iterator<Item = &ReportedRecipient> {
        self.sent.iter().map(|sent| &sent.recipient)
    }

    pub(super) fn settled_indexes(&self) -> Vec<u32> {
        let sent = self.sent.iter().map(|sent| sent.recipient.index);
        sent.chain(self.failed.iter().map(|(index, _)| *index)).collect()
    }
}
