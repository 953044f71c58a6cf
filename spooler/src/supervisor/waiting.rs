//! Messages that wait for a provider which cannot serve them: it is offline, it does not run, or nobody knows yet who serves them.
//!
//! Waiting costs nobody anything: nothing is tried, and no attempt is counted. But it does not last for ever, and the sender hears of
//! it: once in a while everything that waits is looked through, for what is late and what is too late.

use spooler_protocol::ids::MessageId;
use spooler_protocol::outcome::Reply;
use spooler_protocol::status::StatusCode;

use super::event::{Action, ReportedRecipient};
use super::mail;
use super::{Provider, Supervisor};
use crate::policy::queue::{Entry, Part, Standing, Waiting};
use crate::policy::retry::RetryPlan;
use crate::policy::routing::Route;
use crate::policy::{Now, ProviderId};

/// Between two looks.
const INTERVAL_MS: i64 = 60_000;

/// What a look found.
enum Late {
    /// The sender is to be told.
    Warn(MessageId, Vec<ReportedRecipient>, RetryPlan),
    /// It is too late.
    GiveUp(MessageId, Option<Route>, Vec<(u32, Reply)>),
}

/// Whether nothing but the provider stands in the way of a part.
fn waits_on_provider(part: &Part) -> bool {
    matches!(part.waiting, Waiting::Ready | Waiting::Callback)
}

impl Late {
    fn message(&self) -> MessageId {
        match self {
            Self::Warn(id, ..) | Self::GiveUp(id, ..) => *id,
        }
    }
}

impl Provider {
    /// Whether it has said that it cannot reach what it serves, or lacks the device for it.
    pub(super) fn is_offline(&self) -> bool {
        self.lacks_device || self.rows.own().code.contains(StatusCode::OFFLINE)
    }

    /// Why it is offline.
    pub(super) fn why_offline(&self) -> String {
        match (&self.config.needs_device, &self.rows.own().text) {
            (Some(device), _) if self.lacks_device => format!("device {device} is not there"),
            (_, Some(text)) => text.clone(),
            (_, None) => "it cannot reach what it serves".to_owned(),
        }
    }
}

impl Supervisor {
    /// A provider can reach again what it serves: what was put off meanwhile is tried at once.
    pub(super) fn on_online(&mut self, id: ProviderId) {
        let put_off: Vec<(MessageId, Route)> = self.queue.deferred(Some(id)).collect();
        for (message, route) in put_off {
            self.queue.make_ready(message, Some(route));
        }
        self.touched.insert(id);
    }

    /// When the next look is due, if anything waits.
    pub(super) fn next_look_ms(&self) -> Option<i64> {
        (!self.queue.is_empty()).then_some(self.looked_ms + INTERVAL_MS)
    }

    /// Looks through everything that waits, if it is time.
    pub(super) fn look_for_late(&mut self, now: Now, actions: &mut Vec<Action>) {
        if now.mono_ms < self.looked_ms + INTERVAL_MS {
            return;
        }
        self.looked_ms = now.mono_ms;
        self.told.retain(|id, _| self.queue.get(*id).is_some());
        self.declined.retain(|id, _| self.queue.get(*id).is_some());
        let waiting = self.queue.iter().filter(|(_, entry)| entry.standing == Standing::Active);
        let mut late: Vec<Late> = waiting.flat_map(|(id, entry)| self.late_parts(id, entry, now)).collect();
        // The oldest first: what is done must not depend on chance that cannot be replayed.
        late.sort_by_key(Late::message);
        for late in late {
            match late {
                Late::Warn(id, recipients, plan) => self.report_late(id, recipients, &plan, now, actions),
                Late::GiveUp(id, route, failed) => {
                    self.abort_all_deferred(id, actions);
                    let given_up = |part: &Part| part.route == route && waits_on_provider(part);
                    self.queue.change(id, |entry| entry.parts.retain(|part| !given_up(part)));
                    self.fail(id, failed, mail::Change::Expired, actions);
                }
            }
        }
    }

    fn late_parts(&self, id: MessageId, entry: &Entry, now: Now) -> Vec<Late> {
        let age_ms = now.mono_ms - entry.born_ms;
        let mut found = Vec::new();
        for part in entry.parts.as_slice().iter().filter(|part| waits_on_provider(part)) {
            let provider = part.route.map(|route| route.provider);
            let Some(plan) = provider.map_or(Some(self.default_retry), |provider| self.retry_plan(provider)) else {
                continue;
            };
            let give_up = age_ms >= plan.max_age_ms;
            let warn = plan.delay_warning_ms.is_some_and(|warning_ms| age_ms >= warning_ms);
            if !give_up && (!warn || entry.delay_reported || entry.null_sender) {
                continue;
            }
            let why = match (part.waiting, provider) {
                (Waiting::Callback, Some(provider)) => self.why_kept_by(provider),
                _ => self.why_ready(provider),
            };
            let reply = Reply::local(0, "4.4.7", why);
            let indexes = part.recipients.as_slice().iter();
            found.push(if give_up {
                Late::GiveUp(id, part.route, indexes.map(|index| (*index, reply.clone())).collect())
            } else {
                let reported = |index: &u32| ReportedRecipient { index: *index, reply: reply.clone(), relayed: false };
                Late::Warn(id, indexes.map(reported).collect(), plan)
            });
        }
        found
    }
}
