//! Messages that keep killing their workers are set aside, and the postmaster is told.
//!
//! ```text
//!            a worker dies with it         … alone            … a third time
//!   ready ─────────────────────────▶ suspect ─────▶ suspect ─────────────────▶ quarantined ──▶ on disk ──▶ notice
//!     ▲                                                                             │
//!     └──────────────────────────── released: its deaths are forgotten ◀────────────┘
//! ```
//!
//! In company a death counts against each message once, alone always: a worker that is killed at random sets nothing aside. Which deaths
//! count at all is decided in `workers`. The first message in quarantine is told of at once; those of the next ten minutes are told of
//! together. A notice has no sender, and none is built about messages without a sender to the postmaster, so notices make no notices.

use spooler_protocol::control::{Death, MessageState};
use spooler_protocol::ids::MessageId;

use super::event::{Action, NoticeOrder, Ticket};
use super::mail::{self, log_change};
use super::{Pending, Supervisor};
use crate::policy::Now;
use crate::policy::queue::Standing;
use crate::record::Change;

/// A message that was in flight in so many workers that died is set aside.
const DEATHS_MAX: u32 = 3;
/// Between two notices.
const NOTICE_PAUSE_MS: i64 = 600_000;
/// Messages that one notice names.
const NAMED_MAX: usize = 50;

/// What was set aside and is still to be told of.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    untold: Vec<MessageId>,
    /// Those that found no room among them.
    more: u64,
    told_ms: Option<i64>,
    /// What was set aside last, and why.
    latest: Option<(MessageId, String)>,
}

impl Supervisor {
    /// A message was in flight when its worker died of something.
    pub(super) fn suspect(&mut self, id: MessageId, death: Death, actions: &mut Vec<Action>) {
        let alone = death.company == 0;
        let Some((deaths, delay_reported)) = self.queue.change(id, |entry| {
            if alone || entry.deaths == 0 {
                entry.deaths += 1;
            }
            if entry.deaths >= DEATHS_MAX {
                entry.standing = Standing::Quarantined;
            }
            (entry.deaths, entry.delay_reported)
        }) else {
            return;
        };
        let why = format!("its worker died {deaths} times while it had this message, last of {}", death.cause);
        let marks = Change::Marks { id, deaths, delay_reported, death: Some(Box::new(death)) };
        if deaths >= DEATHS_MAX {
            self.set_aside(id, why, Some(marks), actions);
        } else {
            self.keep(vec![marks], actions);
        }
    }

    /// Keeps on disk that a message is in quarantine.
    pub(super) fn set_aside(&mut self, id: MessageId, why: String, marks: Option<Change>, actions: &mut Vec<Action>) {
        self.quarantine.latest = Some((id, why.clone()));
        log_change(id, mail::Change::Quarantined, None, why.clone(), actions);
        let state = Change::State { id, state: MessageState::Quarantined, why };
        self.commit(marks.into_iter().chain([state]).collect(), Pending::Quarantined(id), actions);
    }

    /// It is on disk: the postmaster can be told.
    pub(super) fn on_quarantined(&mut self, id: MessageId) {
        if self.config.postmaster.is_none() {
            return;
        }
        if self.quarantine.untold.len() < NAMED_MAX {
            self.quarantine.untold.push(id);
        } else {
            self.quarantine.more += 1;
        }
    }

    /// A message of the last run comes back and is in quarantine still.
    pub(super) fn note_quarantined(&mut self, id: MessageId) {
        self.quarantine.latest = Some((id, "set aside before the spooler was started".to_owned()));
    }

    /// Tells the postmaster what there is to tell, if the last notice was long enough ago.
    pub(super) fn tell_postmaster(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.next_notice_ms().is_none_or(|at_ms| at_ms > now.mono_ms) {
            return;
        }
        let ids = std::mem::take(&mut self.quarantine.untold);
        let more = std::mem::take(&mut self.quarantine.more);
        self.quarantine.told_ms = Some(now.mono_ms);
        let ticket = Ticket(self.next_number());
        self.pending.insert(ticket, Pending::Notice);
        actions.push(Action::Notice(NoticeOrder { ticket, ids, more }));
    }

    /// When there is something to tell.
    pub(super) fn next_notice_ms(&self) -> Option<i64> {
        let quarantine = &self.quarantine;
        let due_ms = quarantine.told_ms.map_or(i64::MIN, |told_ms| told_ms + NOTICE_PAUSE_MS);
        (!quarantine.untold.is_empty()).then_some(due_ms)
    }

    /// What the status row says about what was set aside last.
    pub(super) fn quarantine_text(&self) -> Option<String> {
        let in_quarantine =
            |id: &MessageId| self.queue.get(*id).is_some_and(|entry| entry.standing == Standing::Quarantined);
        match &self.quarantine.latest {
            Some((id, why)) if in_quarantine(id) => Some(format!("message {id}: {why}")),
            _ => None,
        }
    }
}
