//! A session with a provider: what is begun with it, what it says of itself, and how it ends.
//!
//! ```text
//!   LoggedOn ──▶ BeginOutbound, BeginInbound ──▶ calls ──▶ EndInbound, EndOutbound, AbortDeferred… ──▶ Logoff
//!                                                  │ ▲
//!                                   critical error ▼ │ ready to send
//!                                            nothing is called
//! ```
//!
//! What a provider says out of turn is gossip and dropped. What it says often costs nothing: each kind of news is a flag.

use std::collections::BTreeSet;

use spooler_protocol::calls::SpoolerNotify;
use spooler_protocol::from_worker::LoggedOn;
use spooler_protocol::ids::MessageId;
use spooler_protocol::limits::CREDIT_MAX;
use spooler_protocol::notification::Notification;
use spooler_protocol::status::WorkerState;
use spooler_protocol::to_worker::ToWorker;

use super::event::{Action, Loudness, WorkerId};
use super::idling::Idle;
use super::receiving::Receiving;
use super::{Provider, Supervisor, log};
use crate::policy::lane::Limits;
use crate::policy::overrun::Call;
use crate::policy::routing::Route;
use crate::policy::status_table::capped;
use crate::policy::{Now, ProviderId};

/// Two deliveries to one destination are never further apart, whatever a worker asks for: a week.
const INTERVAL_MS_MAX: i64 = 7 * 86_400_000;
/// Address types that are taken from one provider.
const TYPES_MAX: usize = 100;

/// What was begun with the present worker of a provider, and what it owes an answer for.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// Whether deliveries may be given to it.
    pub(super) outbound: bool,
    /// Whether it may be asked for messages.
    pub(super) inbound: bool,
    /// Why nothing is called any more, if it has said that it cannot go on.
    pub(super) critical_error: Option<String>,
    pub(super) receiving: Receiving,
    pub(super) idle: Idle,
    announcing: Announcing,
    /// What waits only because the provider was busy.
    busy: BTreeSet<(MessageId, Route)>,
}

/// Whether the provider was asked to say again what it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Announcing {
    #[default]
    No,
    Asked,
    /// Something has changed since it was asked.
    AskAgain,
}

impl Provider {
    /// Whether calls other than the last ones can be made.
    pub(super) fn may_be_called(&self) -> bool {
        self.life.is_ready() && self.session.critical_error.is_none()
    }

    /// Whether it hears what happens elsewhere: it is logged on, and goes on.
    pub(super) fn may_be_told(&self) -> bool {
        let logged_on = matches!(self.life.state(), WorkerState::Ready | WorkerState::Draining);
        logged_on && self.session.critical_error.is_none()
    }
}

impl Supervisor {
    /// The provider has logged on: both directions begin.
    pub(super) fn begin_session(&mut self, worker: WorkerId, logged_on: LoggedOn, now: Now, actions: &mut Vec<Action>) {
        let Some(provider) = self.providers.get_mut(&worker.provider) else { return };
        if !provider.life.on_logged_on(now.mono_ms) {
            return;
        }
        provider.session = Session { outbound: true, inbound: true, ..Session::default() };
        provider.session.receiving.begin(now.mono_ms);
        provider.logon.prove();
        let text = format!("provider {}: ready ({})", provider.config.name, capped(logged_on.identity.clone()));
        log(actions, Loudness::Info, text);
        for begin in [Notification::BeginOutbound, Notification::BeginInbound] {
            actions.push(Action::Send(worker, ToWorker::Notify(begin)));
        }
        // Whoever logs on passes the gate until now.
        self.scheduler.set_passing(worker.provider, false);
        self.tokens_touched = true;
        self.answer_logon(worker.provider, actions);
        self.take_announcement(worker.provider, logged_on, actions);
    }

    /// What the provider is from now on. Queued messages find their way again if that changes it.
    fn take_announcement(&mut self, id: ProviderId, mut said: LoggedOn, actions: &mut Vec<Action>) {
        let Some(provider) = self.providers.get_mut(&id) else { return };
        said.credit = said.credit.min(CREDIT_MAX);
        said.identity = capped(said.identity);
        said.address_types.truncate(TYPES_MAX);
        let limits = Limits {
            concurrency: said.destinations.concurrency,
            interval_ms: i64::try_from(said.destinations.interval_ms).unwrap_or(i64::MAX).min(INTERVAL_MS_MAX),
        };
        provider.announced = Some(said);
        self.queue.lane(id).set_limits(limits);
        self.touched.insert(id);
        self.update_routing(actions);
    }

    /// Asks a provider to say again what it is (IXPLogon::AddressTypes); once for many wishes.
    pub(super) fn ask_to_announce(&mut self, id: ProviderId, now: Now, actions: &mut Vec<Action>) {
        let Some(provider) = self.providers.get_mut(&id).filter(|provider| provider.may_be_called()) else { return };
        match provider.session.announcing {
            Announcing::No => {
                provider.session.announcing = Announcing::Asked;
                self.note_call(id, Call::Announce, now);
                self.say(id, ToWorker::Announce, actions);
            }
            Announcing::Asked | Announcing::AskAgain => provider.session.announcing = Announcing::AskAgain,
        }
    }

    /// The answer to [`ToWorker::Announce`].
    pub(super) fn on_announced(&mut self, worker: WorkerId, said: LoggedOn, now: Now, actions: &mut Vec<Action>) {
        let Some(provider) = self.providers.get_mut(&worker.provider).filter(|provider| provider.life.is_ready())
        else {
            return;
        };
        let again = match std::mem::take(&mut provider.session.announcing) {
            Announcing::No => return,
            Announcing::Asked => false,
            Announcing::AskAgain => true,
        };
        self.take_announcement(worker.provider, said, actions);
        if again {
            self.ask_to_announce(worker.provider, now, actions);
        }
    }

    /// A provider tells the spooler something (IMAPISupport::SpoolerNotify).
    pub(super) fn on_notified(&mut self, worker: WorkerId, news: SpoolerNotify, now: Now, actions: &mut Vec<Action>) {
        let id = worker.provider;
        let Some(provider) = self.providers.get_mut(&id).filter(|provider| provider.life.is_ready()) else { return };
        let session = &mut provider.session;
        match news {
            SpoolerNotify::NewMail if session.inbound => {
                session.receiving.on_new_mail();
                self.touched.insert(id);
            }
            SpoolerNotify::ReadyToSend if session.outbound => self.on_ready_to_send(id, actions),
            SpoolerNotify::NewMail | SpoolerNotify::ReadyToSend => {}
            SpoolerNotify::SentDeferred(message) => {
                if self.queue.call_back(message, id, worker.generation) {
                    self.touched.insert(id);
                }
            }
            SpoolerNotify::ConfigChange => self.ask_to_announce(id, now, actions),
            SpoolerNotify::CriticalError(text) => self.on_critical_error(id, capped(text), actions),
        }
    }

    /// Nothing more is called until somebody restarts or validates the provider, or it says that it can send again. What it has in
    /// hand it may finish, and persons may cancel.
    fn on_critical_error(&mut self, id: ProviderId, text: String, actions: &mut Vec<Action>) {
        let Some(provider) = self.providers.get_mut(&id) else { return };
        log(actions, Loudness::Warn, format!("provider {}: critical error: {text}", provider.config.name));
        provider.life.last_error = Some(text.clone());
        provider.session.critical_error = Some(text);
        self.abandon_validations(id, "it has a critical error", actions);
    }

    /// The provider can send (again): nothing waits for it any more only because it was busy.
    fn on_ready_to_send(&mut self, id: ProviderId, actions: &mut Vec<Action>) {
        let Some(provider) = self.providers.get_mut(&id) else { return };
        if provider.session.critical_error.take().is_some() {
            log(actions, Loudness::Info, format!("provider {}: can work again", provider.config.name));
        }
        for (message, route) in std::mem::take(&mut provider.session.busy) {
            if self.queue.get(message).is_some() {
                self.queue.make_ready(message, Some(route));
            }
        }
        self.touched.insert(id);
    }

    /// Remembers whether a delivery waits only because its provider was busy.
    pub(super) fn note_busy(&mut self, worker: WorkerId, delivery: (MessageId, Route), busy: bool) {
        let Some(provider) = self.providers.get_mut(&worker.provider) else { return };
        if busy {
            provider.session.busy.insert(delivery);
        } else {
            provider.session.busy.remove(&delivery);
        }
    }

    /// Before a worker is asked to log off: both directions end, and what it keeps is not waited for any more.
    pub(super) fn end_session(&mut self, worker: WorkerId, actions: &mut Vec<Action>) {
        let Some(provider) = self.providers.get_mut(&worker.provider) else { return };
        let session = &mut provider.session;
        if std::mem::take(&mut session.inbound) {
            actions.push(Action::Send(worker, ToWorker::Notify(Notification::EndInbound)));
        }
        if std::mem::take(&mut session.outbound) {
            actions.push(Action::Send(worker, ToWorker::Notify(Notification::EndOutbound)));
        }
        let kept: BTreeSet<MessageId> = self.queue.callbacks(worker.provider).map(|(message, _)| message).collect();
        for message in kept {
            let gone = Notification::AbortDeferred { message, cancelled: false };
            actions.push(Action::Send(worker, ToWorker::Notify(gone)));
        }
        self.queue.free_callbacks(worker.provider);
    }

    /// The worker has gone, and everything that was begun with it.
    pub(super) fn forget_session(&mut self, id: ProviderId, actions: &mut Vec<Action>) {
        if let Some(provider) = self.providers.get_mut(&id) {
            provider.session = Session::default();
        }
        self.queue.free_callbacks(id);
        self.abandon_validations(id, "its worker has gone", actions);
    }

    /// A message is given up, deleted, or goes another way: providers that keep something of it are told.
    pub(super) fn abort_all_deferred(&self, message: MessageId, actions: &mut Vec<Action>) {
        let keepers = self.queue.get(message).map(crate::policy::queue::Entry::kept_by).unwrap_or_default();
        keepers.into_iter().for_each(|id| self.abort_kept(id, message, actions));
    }

    /// A provider is told that a message that it deferred will not be its any more, unless nothing is called there. One that has had a critical
    /// error and goes on asks for the message in vain.
    pub(super) fn abort_kept(&self, id: ProviderId, message: MessageId, actions: &mut Vec<Action>) {
        if self.providers.get(&id).is_some_and(Provider::may_be_told) {
            self.say(id, ToWorker::Notify(Notification::AbortDeferred { message, cancelled: true }), actions);
        }
    }
}
