//! A part of a message: the recipients that go the same way, what they wait for, and who has declined them. Where parts are kept and
//! how they move is the schedule's business (`queue.rs`); which way somebody goes is decided in `routing`.
//!
//! There are millions of parts on a large queue, so a part is small: one recipient and nobody who declined cost no heap.

use spooler_protocol::ids::{DeliveryId, Generation};

use crate::policy::ProviderId;
use crate::policy::few::Few;
use crate::policy::routing::Route;

/// What a part waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// A worker with room for it.
    Ready,
    /// The worker that has it.
    InFlight(DeliveryId),
    /// A later attempt.
    Deferred {
        /// When, on the clock that never jumps.
        due_ms: i64,
    },
    /// Its provider, which has what it needs of it and asks for it when it wants it again (END_DONT_RESEND). Only as long as that
    /// provider's worker lives.
    Callback,
}

/// How often, and why, a part is offered again without an attempt being counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Again {
    /// The worker that deferred it and has asked for it since (BEGIN_DEFERRED).
    pub asked_by: Option<Generation>,
    /// How often in a row its provider wanted it again at once (END_RESEND_NOW).
    pub resends: u8,
}

/// The recipients of one message that go the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Their way; `None` as long as no provider has said that it serves them.
    pub route: Option<Route>,
    /// Their places in the envelope.
    pub recipients: Few<u32>,
    /// Attempts made so far.
    pub attempts: u32,
    /// What they wait for.
    pub waiting: Waiting,
    /// Providers that said that these are not for them.
    pub not_me: Option<Box<Vec<ProviderId>>>,
    /// How it is offered again.
    pub again: Again,
}

impl Waiting {
    /// What two that go on together wait for: what comes first.
    #[must_use]
    pub fn sooner(self, other: Self) -> Self {
        match (self, other) {
            (Self::Deferred { due_ms: a }, Self::Deferred { due_ms: b }) => Self::Deferred { due_ms: a.min(b) },
            (Self::Callback | Self::Deferred { .. }, other) | (other, _) => other,
        }
    }
}

impl Part {
    /// These providers have said that it is not for them. Each is noted once, however often parts meet.
    pub fn declined_by(&mut self, providers: &[ProviderId]) {
        for provider in providers {
            let not_me = self.not_me.get_or_insert_default();
            if !not_me.contains(provider) {
                not_me.push(*provider);
            }
        }
    }

    /// Whether it waits, at home, to go this way.
    #[must_use]
    pub fn waits_for(&self, route: Route) -> bool {
        self.route == Some(route) && !matches!(self.waiting, Waiting::InFlight(_))
    }
}
