//! Messages are fetched: providers are asked whether one waits, and to receive one, one call at a time.
//!
//! ```text
//!   poll interval ──▶ Poll ──waiting──▶ StartMessage ──saved──▶ at once again
//!                      │ nothing            ▲    │ nothing, failed
//!                      ▼                    │    ▼
//!                 next interval          NewMail: a flag, so a flood of it costs nothing
//! ```
//!
//! Nothing is asked before inbound has begun, in a critical section, or after a critical error. One provider that never answers, or
//! always has more, holds nobody up: each has its own call, and its worker runs on tokens like all others. One that does not answer is
//! not asked again, but its ladder waits for it (`overrunning`).
//!
//! While a flush works off what is inbound, it says when to start and when to stop; nothing is polled then. A provider that needs a
//! resource is asked only then: what is due begins a flush in the background.

use spooler_protocol::calls::{StartResult, Wishes};
use spooler_protocol::notification::Notification;
use spooler_protocol::to_worker::ToWorker;

use super::event::{Action, Loudness, WorkerId};
use super::{Provider, Supervisor, log};
use crate::policy::flush::{Flush, Ways};
use crate::policy::overrun;
use crate::policy::retry::ms;
use crate::policy::status_table::capped;
use crate::policy::{Now, ProviderId};

/// After a call that brought nothing, however often there is said to be new mail.
const REST_MS: i64 = 1000;

/// What a worker was asked and has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Poll,
    Start,
}

/// How far receiving is with a provider.
#[derive(Debug, Default)]
pub(super) struct Receiving {
    call: Option<Call>,
    /// The message that is being received is to stay where it is.
    cancelled: bool,
    /// A message is said to wait.
    waiting: bool,
    /// Nothing is started before.
    rest_until_ms: i64,
    /// The next poll is due.
    poll_at_ms: i64,
}

impl Receiving {
    /// Inbound begins: the first poll is due.
    pub(super) fn begin(&mut self, now_ms: i64) {
        self.poll_at_ms = now_ms;
    }

    /// Whether a message is being received.
    pub(super) fn is_starting(&self) -> bool {
        self.call == Some(Call::Start)
    }

    /// The provider says that a message waits.
    pub(super) fn on_new_mail(&mut self) {
        self.waiting = true;
    }

    fn next(&self, polls: bool, now_ms: i64) -> Option<Call> {
        if self.call.is_some() {
            None
        } else if self.waiting && self.rest_until_ms <= now_ms {
            Some(Call::Start)
        } else {
            (polls && self.poll_at_ms <= now_ms).then_some(Call::Poll)
        }
    }

    fn due_ms(&self, polls: bool) -> Option<i64> {
        let start = self.waiting.then_some(self.rest_until_ms);
        let poll = polls.then_some(self.poll_at_ms);
        start.into_iter().chain(poll).min().filter(|_| self.call.is_none())
    }

    /// The answer to a poll; false if there was none to be answered.
    fn on_polled(&mut self, waiting: bool, now_ms: i64, interval_ms: i64) -> bool {
        if self.call != Some(Call::Poll) {
            return false;
        }
        self.call = None;
        self.waiting |= waiting;
        self.poll_at_ms = now_ms + interval_ms;
        true
    }

    /// How receiving one message ended; false if none was being received.
    fn on_ended(&mut self, result: &StartResult, polls: bool, now_ms: i64, interval_ms: i64) -> bool {
        if self.call != Some(Call::Start) {
            return false;
        }
        self.call = None;
        let cancelled = std::mem::take(&mut self.cancelled);
        match result {
            // There may be another: who can be asked is asked, others are tried until nothing comes.
            StartResult::Saved if polls => self.poll_at_ms = now_ms,
            StartResult::Saved => self.waiting = true,
            // It is fetched at another time: who can be asked is asked again.
            StartResult::NotSaved | StartResult::Failed(_) if cancelled => {
                self.waiting = !polls;
                self.rest_until_ms = now_ms + interval_ms;
                self.poll_at_ms = now_ms + interval_ms;
            }
            StartResult::NotSaved => {
                self.rest_until_ms = now_ms + REST_MS;
                self.poll_at_ms = now_ms + interval_ms;
            }
            StartResult::Failed(_) => {
                self.waiting = !polls;
                self.rest_until_ms = now_ms + interval_ms;
                self.poll_at_ms = now_ms + interval_ms;
            }
        }
        true
    }
}

impl Provider {
    fn receives(&self) -> bool {
        self.may_be_called() && self.session.inbound && self.critical.is_none()
    }

    fn polls(&self) -> bool {
        self.announced.as_ref().is_some_and(|announced| announced.wishes.contains(Wishes::POLL))
    }

    fn asks_at_ms(&self) -> Option<i64> {
        self.receives().then(|| self.session.receiving.due_ms(self.polls())).flatten()
    }
}

impl Supervisor {
    /// Asks a provider for a message, if it is time.
    pub(super) fn receive(&mut self, id: ProviderId, now: Now, actions: &mut Vec<Action>) {
        if !self.machine.is_awake() {
            return;
        }
        let in_flush = self.may_receive_more(id, now);
        let Some(provider) = self.providers.get_mut(&id).filter(|provider| provider.receives()) else { return };
        let (polls, interval_ms) = (provider.polls(), ms(provider.config.poll_interval));
        let has_resource = provider.config.resource.is_some();
        let receiving = &mut provider.session.receiving;
        let due =
            if in_flush { receiving.call.is_none().then_some(Call::Start) } else { receiving.next(polls, now.mono_ms) };
        let Some(call) = due else { return };
        if has_resource && !in_flush {
            receiving.poll_at_ms = now.mono_ms + interval_ms;
            self.attend(id, Ways::INBOUND, now);
            return;
        }
        receiving.call = Some(call);
        let (word, expected) = match call {
            Call::Poll => (ToWorker::Poll, overrun::Call::Poll),
            Call::Start => {
                receiving.waiting = false;
                (ToWorker::StartMessage, overrun::Call::Start)
            }
        };
        self.note_call(id, expected, now);
        self.say(id, word, actions);
    }

    /// A provider has said whether a message waits.
    pub(super) fn on_polled(&mut self, worker: WorkerId, waiting: bool, now: Now) {
        let Some(provider) = self.providers.get_mut(&worker.provider) else { return };
        let interval_ms = ms(provider.config.poll_interval);
        if provider.session.receiving.on_polled(waiting, now.mono_ms, interval_ms) {
            self.touched.insert(worker.provider);
        }
    }

    /// The message that a provider is receiving is not wanted now: its source keeps it, and it is fetched at another time
    /// (NOTIFY_CANCEL_MESSAGE).
    pub(super) fn cancel_receipt(&mut self, id: ProviderId, actions: &mut Vec<Action>) {
        let Some(provider) = self.providers.get_mut(&id).filter(|provider| provider.may_be_called()) else { return };
        let receiving = &mut provider.session.receiving;
        if receiving.is_starting() && !std::mem::replace(&mut receiving.cancelled, true) {
            self.say(id, ToWorker::Notify(Notification::CancelInbound), actions);
        }
    }

    /// A provider is through with receiving one message.
    pub(super) fn on_start_ended(
        &mut self,
        worker: WorkerId,
        result: StartResult,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(provider) = self.providers.get_mut(&worker.provider) else { return };
        let (polls, interval_ms) = (provider.polls(), ms(provider.config.poll_interval));
        let cancelled = provider.session.receiving.cancelled;
        if !provider.session.receiving.on_ended(&result, polls, now.mono_ms, interval_ms) {
            return;
        }
        let saved = result == StartResult::Saved;
        if let StartResult::Failed(why) = result
            && !cancelled
        {
            let why = format!("receiving failed: {}", capped(why));
            log(actions, Loudness::Warn, format!("provider {}: {why}", provider.config.name));
            provider.life.last_error = Some(why);
        }
        self.touched.insert(worker.provider);
        self.on_received(worker.provider, saved, now, actions);
    }

    /// Within a flush another message is received as long as there are some; outside of one a provider may have been busy with the
    /// last thing that it needed its resource for.
    fn on_received(&mut self, id: ProviderId, saved: bool, now: Now, actions: &mut Vec<Action>) {
        if !self.flushing.running.get(&id).is_some_and(Flush::is_inbound) {
            self.release_what_is_left(id);
            return;
        }
        if saved {
            self.flushing.note_received(id);
        }
        if !saved || !self.may_receive_more(id, now) {
            self.on_all_received(id, saved, now, actions);
        }
    }

    /// When a provider is to be asked next. Flushes go on by themselves.
    pub(super) fn next_receipt_ms(&self) -> Option<i64> {
        let flushing = &self.flushing;
        let at_ms = |(id, provider): (&ProviderId, &Provider)| {
            let at_ms = provider.asks_at_ms()?;
            match &provider.config.resource {
                None if flushing.running.get(id).is_some_and(Flush::is_inbound) => None,
                None => Some(at_ms),
                Some(_) if flushing.running.contains_key(id) => None,
                Some(_) => Some(at_ms.max(flushing.rests.get(id).map_or(at_ms, |rest| rest.spooler_ms))),
            }
        };
        self.providers.iter().filter(|_| self.machine.is_awake()).filter_map(at_ms).min()
    }
}
