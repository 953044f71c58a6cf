//! Deliveries that end without a word from the provider: its worker is gone, or the message cannot be read.

use spooler_protocol::control::Death;
use spooler_protocol::history::End;
use spooler_protocol::ids::DeliveryId;

use super::Supervisor;
use super::event::{Action, WorkerEnd, WorkerId};
use crate::policy::Now;
use crate::policy::queue::{Standing, Waiting};

/// What a worker died of that had messages in its hands.
pub(super) struct Blame {
    cause: String,
    stderr_tail: Vec<String>,
}

impl Blame {
    /// What is known of a death that nobody wanted; `condemned_for`: why the worker was being ended, if it was. `None` if it says
    /// nothing about the messages: somebody else has asked the process to go.
    pub(super) fn new(end: &WorkerEnd, condemned_for: Option<&str>) -> Option<Self> {
        let cause = match condemned_for {
            Some(why) => format!("{why}; {}", end.how),
            None if end.by_hand => return None,
            None => end.how.clone(),
        };
        Some(Self { cause, stderr_tail: end.stderr_tail.clone() })
    }
}

impl Supervisor {
    /// A worker has gone: what it had goes back into the schedule, and is suspect if the worker died of something.
    pub(super) fn return_flights(
        &mut self,
        worker: WorkerId,
        blame: Option<&Blame>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let back: Vec<DeliveryId> =
            self.flights.iter().filter(|(_, flight)| flight.worker == worker).map(|(delivery, _)| *delivery).collect();
        let company = u32::try_from(back.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let provider = self.name(worker.provider).to_owned();
        for delivery in back {
            let Some(flight) = self.flights.remove(&delivery) else { continue };
            actions.push(Action::Forget(delivery));
            let (id, route) = (flight.id, flight.route);
            let next = (!flight.given_up).then_some((Waiting::Ready, false));
            if self.queue.arrive(id, route, delivery, &[], next) {
                self.keep(vec![self.remove_by_hand(id, End::Cancelled, None)], actions);
            } else if let Some(blame) = blame {
                let death = Death {
                    at_ms: now.wall_ms,
                    provider: provider.clone(),
                    cause: blame.cause.clone(),
                    phase: flight.phase,
                    bytes: flight.bytes,
                    company,
                    stderr_tail: blame.stderr_tail.clone(),
                };
                self.suspect(id, death, actions);
            }
        }
        self.touched.insert(worker.provider);
    }

    /// A delivery could not be handed over because its message cannot be read: it is set aside.
    pub(super) fn on_unreadable(&mut self, delivery: DeliveryId, why: String, actions: &mut Vec<Action>) {
        let Some(flight) = self.flights.get(&delivery) else { return };
        let (id, route, worker) = (flight.id, flight.route, flight.worker);
        let gone = self.queue.arrive(id, route, delivery, &[], Some((Waiting::Ready, false)));
        self.queue.change(id, |entry| entry.standing = Standing::Quarantined);
        self.end_flight(delivery, worker, actions);
        if gone {
            self.keep(vec![self.remove_by_hand(id, End::Cancelled, None)], actions);
        } else {
            self.set_aside(id, why, None, actions);
        }
    }
}
