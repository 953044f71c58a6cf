//! What providers are called for: one call of a kind at a time, nothing after a critical error, nothing twice that is kept, and
//! whoever wants a message again at once gets it so often and no oftener.

use std::collections::{BTreeMap, BTreeSet};

use spooler::policy::Now;
use spooler::supervisor::event::{Action, Ask, AskId, Event, SubmitOrder, WorkerId, WorkerNews};
use spooler_protocol::calls::{EndMessage, SpoolerNotify};
use spooler_protocol::control::{ProviderAction, ProviderCommand};
use spooler_protocol::from_worker::FromWorker;
use spooler_protocol::ids::{DeliveryId, MessageId};
use spooler_protocol::notification::Notification;
use spooler_protocol::outcome::SubmitResult;
use spooler_protocol::to_worker::ToWorker;

use super::{Verdict, demand};

/// So often in a row a provider gets a message again at once.
const RESENDS_MAX: u32 = 10;
/// A provider that is asked to validate has so long to answer, milliseconds.
const VALIDATION_MS: i64 = 30_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Call {
    /// Poll and StartMessage: one of both.
    Receive {
        start: bool,
    },
    Announce,
    Idle,
}

#[derive(Debug, Default)]
struct Session {
    ready: bool,
    failed: bool,
    open: Vec<Call>,
    /// Recipients of messages that it keeps.
    kept: BTreeSet<(MessageId, u32)>,
    /// How often in a row it wanted a message again at once, and got it in the same step.
    resends: BTreeMap<(MessageId, Vec<u32>), u32>,
    /// What it wants again at once since this step.
    again: BTreeSet<(MessageId, Vec<u32>)>,
}

/// What is known of calls.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    sessions: BTreeMap<WorkerId, Session>,
    flights: BTreeMap<DeliveryId, SubmitOrder>,
    validations: BTreeMap<AskId, i64>,
    slack_ms: i64,
}

impl Calls {
    pub(super) fn new(slack_ms: i64) -> Self {
        Self { slack_ms, ..Self::default() }
    }

    /// Whether a worker was called and has not answered.
    pub(super) fn is_called(&self, worker: WorkerId) -> bool {
        self.sessions.get(&worker).is_some_and(|session| session.ready && !session.open.is_empty())
    }

    pub(super) fn hears(&mut self, now: Now, event: &Event) {
        let Event::Asked(ask, what) = event else { return };
        match what {
            Ask::ValidateAll(_) | Ask::Provider(_, ProviderCommand { action: ProviderAction::Validate, .. }) => {
                self.validations.insert(*ask, now.mono_ms);
            }
            // What a person wants done with a message goes before what its provider wants.
            Ask::Queue(_, ids, _) => {
                for session in self.sessions.values_mut() {
                    session.kept.retain(|(id, _)| !ids.contains(id));
                }
            }
            _ => {}
        }
    }

    pub(super) fn hears_worker(&mut self, worker: WorkerId, news: &WorkerNews) {
        match news {
            WorkerNews::Died(_) | WorkerNews::StartFailed(_) => {
                self.sessions.remove(&worker);
                self.flights.retain(|_, order| order.worker != worker);
            }
            WorkerNews::Said { said, .. } => {
                let flights = &self.flights;
                self.sessions.entry(worker).or_default().hears(worker, said, flights);
            }
            _ => {}
        }
    }

    pub(super) fn wants(&mut self, action: &Action) -> Verdict {
        match action {
            Action::Answer(ask, _) => drop(self.validations.remove(ask)),
            Action::Forget(delivery) => drop(self.flights.remove(delivery)),
            Action::Term(worker) | Action::Kill(worker) | Action::Send(worker, ToWorker::Logoff { .. }) => {
                let session = self.sessions.entry(*worker).or_default();
                session.ready = false;
                session.kept.clear();
            }
            Action::Send(worker, word @ ToWorker::Notify(Notification::AbortDeferred { message, .. })) => {
                let session = self.sessions.entry(*worker).or_default();
                session.kept.retain(|(id, _)| id != message);
                return self.tells(*worker, word);
            }
            Action::Send(worker, word) => return self.calls(*worker, word),
            Action::Submit(order) => {
                self.flights.insert(order.delivery, order.clone());
                let session = self.sessions.entry(order.worker).or_default();
                demand(!session.failed, "after a critical error nothing is called", || format!("{order:?}"))?;
                let key = (order.id, order.recipients.clone());
                let times = if session.again.remove(&key) {
                    let times = session.resends.entry(key).or_default();
                    *times += 1;
                    *times
                } else {
                    session.resends.remove(&key);
                    0
                };
                demand(times <= RESENDS_MAX, "again at once is not for ever", || format!("{order:?}"))?;
                // Where kept recipients have come together with others, the least patient decides.
                let kept = order.recipients.iter().all(|index| session.kept.contains(&(order.id, *index)));
                return demand(!kept, "who keeps a message is not given it", || format!("{order:?}"));
            }
            _ => {}
        }
        Ok(())
    }

    fn calls(&mut self, worker: WorkerId, word: &ToWorker) -> Verdict {
        let call = match word {
            ToWorker::Poll => Call::Receive { start: false },
            ToWorker::StartMessage => Call::Receive { start: true },
            ToWorker::Announce => Call::Announce,
            ToWorker::Idle => Call::Idle,
            ToWorker::FlushQueues(_) | ToWorker::ValidateState { .. } | ToWorker::Notify(_) => {
                return self.tells(worker, word);
            }
            _ => return Ok(()),
        };
        let session = self.sessions.entry(worker).or_default();
        demand(!session.failed, "after a critical error nothing is called", || format!("{worker:?}: {call:?}"))?;
        let same = |open: &Call| std::mem::discriminant(open) == std::mem::discriminant(&call);
        demand(!session.open.iter().any(same), "one call at a time", || format!("{worker:?}: {call:?}"))?;
        session.open.push(call);
        Ok(())
    }

    /// What else a provider hears. What has failed is only logged off, and persons may cancel what it has in hand.
    fn tells(&self, worker: WorkerId, word: &ToWorker) -> Verdict {
        let last = match word {
            ToWorker::Notify(Notification::EndInbound | Notification::EndOutbound) => true,
            ToWorker::Notify(Notification::AbortDeferred { cancelled, .. }) => !cancelled,
            ToWorker::Notify(Notification::CancelMessage(_)) => true,
            _ => false,
        };
        let failed = self.sessions.get(&worker).is_some_and(|session| session.failed);
        demand(!failed || last, "after a critical error nothing is called", || format!("{worker:?}: {word:?}"))
    }

    pub(super) fn stepped(&mut self, now: Now) -> Verdict {
        for session in self.sessions.values_mut() {
            for key in std::mem::take(&mut session.again) {
                session.resends.remove(&key);
            }
        }
        let bound_ms = VALIDATION_MS + self.slack_ms;
        let late = self.validations.iter().find(|(_, asked_ms)| now.mono_ms - **asked_ms > bound_ms);
        demand(late.is_none(), "who wants a provider validated hears of it in time", || format!("{late:?}"))
    }

    pub(super) fn supervisor_gone(&mut self) {
        *self = Self::new(self.slack_ms);
    }
}

impl Session {
    fn hears(&mut self, worker: WorkerId, said: &FromWorker, flights: &BTreeMap<DeliveryId, SubmitOrder>) {
        match said {
            FromWorker::LoggedOn(_) => self.ready = true,
            FromWorker::Polled { .. } => self.open.retain(|call| *call != Call::Receive { start: false }),
            FromWorker::StartEnded(_) => self.open.retain(|call| *call != Call::Receive { start: true }),
            FromWorker::Announced(_) => self.open.retain(|call| *call != Call::Announce),
            FromWorker::Idled => self.open.retain(|call| *call != Call::Idle),
            FromWorker::Notify(SpoolerNotify::CriticalError(_)) => self.failed |= self.ready,
            FromWorker::Notify(SpoolerNotify::ReadyToSend) => self.failed = false,
            FromWorker::Notify(SpoolerNotify::SentDeferred(id)) => self.kept.retain(|(kept, _)| kept != id),
            FromWorker::Finished { delivery, result, end, .. } => {
                let Some(order) = flights.get(delivery).filter(|order| order.worker == worker) else { return };
                self.ends(order, result, *end);
            }
            _ => {}
        }
    }

    fn ends(&mut self, order: &SubmitOrder, result: &SubmitResult, end: EndMessage) {
        // A provider that stops a delivery by itself wants the message again, too.
        let at_once = (result, end) == (&SubmitResult::Done, EndMessage::ResendNow);
        if at_once || (*result == SubmitResult::Cancelled && self.ready) {
            self.again.insert((order.id, order.recipients.clone()));
        }
        if (result, end) == (&SubmitResult::Done, EndMessage::Deferred) && self.ready {
            self.kept.extend(order.recipients.iter().map(|index| (order.id, *index)));
        }
    }
}
