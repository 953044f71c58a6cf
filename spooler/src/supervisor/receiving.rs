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
//! always has more, holds nobody up: each has its own call, and its worker runs on tokens like all others.

use spooler_protocol::calls::{StartResult, Wishes};
use spooler_protocol::to_worker::ToWorker;

use super::event::{Action, Loudness, WorkerId};
use super::workers::capped;
use super::{Provider, Supervisor, log};
use crate::policy::retry::ms;
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
        match result {
            // There may be another: who can be asked is asked, others are tried until nothing comes.
            StartResult::Saved if polls => self.poll_at_ms = now_ms,
            StartResult::Saved => self.waiting = true,
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

    /// When it is to be asked next.
    pub(super) fn asks_at_ms(&self) -> Option<i64> {
        self.receives().then(|| self.session.receiving.due_ms(self.polls())).flatten()
    }
}

impl Supervisor {
    /// Asks a provider for a message, if it is time.
    pub(super) fn receive(&mut self, id: ProviderId, now: Now, actions: &mut Vec<Action>) {
        let Some(provider) = self.providers.get_mut(&id).filter(|provider| provider.receives()) else { return };
        let polls = provider.polls();
        let receiving = &mut provider.session.receiving;
        let Some(call) = receiving.next(polls, now.mono_ms) else { return };
        receiving.call = Some(call);
        let word = match call {
            Call::Poll => ToWorker::Poll,
            Call::Start => {
                receiving.waiting = false;
                ToWorker::StartMessage
            }
        };
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
        if !provider.session.receiving.on_ended(&result, polls, now.mono_ms, interval_ms) {
            return;
        }
        if let StartResult::Failed(why) = result {
            let why = format!("receiving failed: {}", capped(why));
            log(actions, Loudness::Warn, format!("provider {}: {why}", provider.config.name));
            provider.life.last_error = Some(why);
        }
        self.touched.insert(worker.provider);
    }
}
