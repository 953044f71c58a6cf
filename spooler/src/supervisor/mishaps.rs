//! Deliveries that end without a word from the provider: its worker is gone, or the message cannot be read.

use spooler_protocol::control::MessageState;
use spooler_protocol::ids::{DeliveryId, MessageId};

use super::event::{Action, Loudness, WorkerId};
use super::{Pending, Supervisor, log};
use crate::policy::queue::{Standing, Waiting};
use crate::record::Change;

/// A message that was in flight in so many workers that died is set aside.
const DEATHS_MAX: u32 = 3;

impl Supervisor {
    /// A worker has gone: what it had goes back into the schedule, and is suspect if the worker died of something.
    pub(super) fn return_flights(&mut self, worker: WorkerId, unasked: bool, actions: &mut Vec<Action>) {
        let back: Vec<DeliveryId> =
            self.flights.iter().filter(|(_, flight)| flight.worker == worker).map(|(delivery, _)| *delivery).collect();
        let alone = back.len() == 1;
        for delivery in back {
            let Some(flight) = self.flights.remove(&delivery) else { continue };
            actions.push(Action::Forget(delivery));
            let (id, route) = (flight.id, flight.route);
            let next = (!flight.given_up).then_some((Waiting::Ready, false));
            if self.queue.arrive(id, route, delivery, &[], next) {
                self.commit(vec![Change::Remove { id }], Pending::Nothing, actions);
            } else if unasked {
                self.suspect(id, alone, actions);
            }
        }
        self.touched.insert(worker.provider);
    }

    /// A delivery could not be handed over because its message cannot be read: it is set aside.
    pub(super) fn on_unreadable(&mut self, delivery: DeliveryId, why: String, actions: &mut Vec<Action>) {
        let Some(flight) = self.flights.get(&delivery) else { return };
        let (id, route, worker) = (flight.id, flight.route, flight.worker);
        log(actions, Loudness::Warn, format!("message {id} is set aside: {why}"));
        let gone = self.queue.arrive(id, route, delivery, &[], Some((Waiting::Ready, false)));
        self.queue.change(id, |entry| entry.standing = Standing::Quarantined);
        self.end_flight(delivery, worker, actions);
        let change =
            if gone { Change::Remove { id } } else { Change::State { id, state: MessageState::Quarantined, why } };
        self.commit(vec![change], Pending::Nothing, actions);
    }

    /// A message was in flight when its worker died. In company that makes it suspect, once; alone it counts against it.
    fn suspect(&mut self, id: MessageId, alone: bool, actions: &mut Vec<Action>) {
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
        let mut unit = vec![Change::Marks { id, deaths, delay_reported }];
        if deaths >= DEATHS_MAX {
            let why = format!("its worker died {deaths} times while it had this message");
            log(actions, Loudness::Warn, format!("message {id} is quarantined: {why}"));
            unit.push(Change::State { id, state: MessageState::Quarantined, why });
        }
        self.commit(unit, Pending::Nothing, actions);
    }
}
