//! The disk fails: what that means for the schedule, which must never be ahead of the disk for long.
//!
//! | what | what is done |
//! |---|---|
//! | results of deliveries do not come to disk | they wait with the writer; nothing new is delivered until they are there |
//! | a result can never come to disk | its message is set aside: it is not delivered again by this supervisor |
//! | a message cannot be read now | its delivery is tried later; no attempt is counted |
//! | a report cannot be built now | what it reports, and what settles the message further, stays off the disk until it can (`telling`). If the spooler stops before, that is not known any more, and the recipients are tried again by the next one |
//! | a message cannot find its way again now | it waits, and is looked up later |
//! | the queue cannot be read at the start | it is read again (`accepting`) |

use spooler_protocol::control::ApiError;
use spooler_protocol::history::End;
use spooler_protocol::ids::{DeliveryId, MessageId};
use spooler_protocol::to_worker::Refusal;

use super::event::{Action, Loudness, Reading, Ticket};
use super::{Pending, Supervisor, log};
use crate::policy::Now;
use crate::policy::few::Few;
use crate::policy::queue::{Entry, Standing, Waiting};

/// A message that could not be read is tried again after so long.
const READ_AGAIN_MS: i64 = 10_000;

impl Supervisor {
    /// Nothing comes to disk now, or it does again.
    pub(super) fn on_store_stuck(&mut self, why: Option<String>) {
        self.store_stuck = why;
        self.touched.extend(self.order.iter().copied());
    }

    /// Whether a command that changes what is on disk can be done now.
    pub(super) fn check_disk(&self) -> Result<(), ApiError> {
        match &self.store_stuck {
            None => Ok(()),
            Some(why) => Err(ApiError { error: format!("Nothing can be changed now: {why}"), temporary: true }),
        }
    }

    /// A delivery could not be handed over because the store cannot be read now.
    pub(super) fn on_read_failed(&mut self, delivery: DeliveryId, why: &str, now: Now, actions: &mut Vec<Action>) {
        let Some(flight) = self.flights.get(&delivery) else { return };
        let (id, route, worker, given_up) = (flight.id, flight.route, flight.worker, flight.given_up);
        log(actions, Loudness::Warn, format!("message {id} cannot be read now and is tried again: {why}"));
        let later = (Waiting::Deferred { due_ms: now.mono_ms + READ_AGAIN_MS }, false);
        if self.queue.arrive(id, route, delivery, &[], (!given_up).then_some(later)) {
            self.keep(vec![self.remove_by_hand(id, End::Cancelled, None)], actions);
        }
        self.end_flight(delivery, worker, actions);
    }

    /// Something that was ordered needs the store, which cannot be read now: it is ordered again later.
    pub(super) fn on_not_read(&mut self, reading: Reading, why: &str, now: Now, actions: &mut Vec<Action>) {
        let (what, ticket) = match &reading {
            Reading::Message(id) => (format!("the way of message {id}"), None),
            Reading::Report(order) => (format!("the report about message {}", order.id), Some(order.ticket)),
            Reading::Notice(order) => ("the notice to the postmaster".to_owned(), Some(order.ticket)),
        };
        if self.stopping.is_some() {
            log(
                actions,
                Loudness::Warn,
                format!("{what} is left to the next spooler, for the store cannot be read: {why}"),
            );
            self.leave_off_the_disk(ticket, actions);
            return;
        }
        log(actions, Loudness::Warn, format!("{what} is deferred, because the store cannot be read now: {why}"));
        let number = self.next_number();
        self.readings.insert((now.mono_ms + READ_AGAIN_MS, number), reading);
    }

    /// What was to go to disk with a report does not go there.
    fn leave_off_the_disk(&mut self, ticket: Option<Ticket>, actions: &mut Vec<Action>) {
        let left = ticket.and_then(|ticket| self.pending.remove(&ticket));
        if let Some(Pending::Report(about, unit)) = left {
            self.leave_line(about, unit, actions);
        }
    }

    /// When [`Supervisor::read_again`] has something to do.
    pub(super) fn next_reading_ms(&self) -> Option<i64> {
        self.readings.first_key_value().map(|((at_ms, _), _)| *at_ms)
    }

    /// Orders again what could not be read, and is due by then.
    pub(super) fn read_again(&mut self, by_ms: i64, actions: &mut Vec<Action>) {
        while let Some(due) = self.readings.first_entry().filter(|due| due.key().0 <= by_ms) {
            actions.push(match due.remove() {
                Reading::Message(id) => Action::Lookup(id),
                Reading::Report(order) => Action::Report(order),
                Reading::Notice(order) => Action::Notice(order),
            });
        }
    }

    /// What became of messages can never be kept. They are on disk as they were, and here they are set aside: who was served shall not be
    /// served again and again.
    pub(super) fn on_not_kept(&mut self, ids: Few<MessageId>, refusal: &Refusal, actions: &mut Vec<Action>) {
        for id in ids.as_slice().iter().copied() {
            let text = format!("what became of message {id} cannot be kept, so it is set aside: {}", refusal.text);
            log(actions, Loudness::Warn, text);
            match self.queue.get(id) {
                // What comes of it next cannot be kept either, and is heard here.
                Some(entry) if entry.is_in_flight() => {}
                Some(_) => {
                    self.queue.change(id, |entry| entry.standing = Standing::Quarantined);
                }
                None => self.queue.add(id, Entry { standing: Standing::Quarantined, ..self.unknown_entry() }),
            }
        }
    }
}
