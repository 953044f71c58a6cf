//! One provider's waiting work: which delivery is next, so that one slow destination never blocks the others.
//!
//! Each destination has its own ready deliveries in order. Only the first of each destination that may take one more is a *head*, and
//! the first head is next. Suspects (messages that were in flight when a worker died) wait apart and go out alone.

use std::collections::{BTreeSet, HashMap};

use spooler_protocol::ids::MessageId;
use spooler_protocol::message::Priority;

use crate::policy::routing::Destination;

/// A suspect gets its turn alone after this long, even if others are ready.
const SUSPECT_PATIENCE_MS: i64 = 2000;
/// When suspects have their turn, they go one after another for so long: the worker is empty anyway.
const SUSPECT_TURN_MS: i64 = 200;
/// Others wait so long at most for the worker to be empty. If a slow delivery keeps it busy, they go on, and wait twice as long the next
/// time.
const EMPTYING_MS_FIRST: i64 = 1000;
const EMPTYING_MS_MAX: i64 = 3_600_000;

/// The order of deliveries inside a provider: priority, then age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Urgent first.
    pub priority: Priority,
    /// Submitted first, first.
    pub born_ms: i64,
    /// For a total order, and to name the message.
    pub id: MessageId,
}

/// How deliveries of a provider are limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Deliveries in flight to one destination; 0 for no limit.
    pub concurrency: u32,
    /// Milliseconds between two deliveries to one destination; 0 for no limit.
    pub interval_ms: i64,
}

#[derive(Debug, Default)]
struct Queued {
    ready: BTreeSet<Key>,
    in_flight: u32,
    rest_until_ms: i64,
    head: Option<Key>,
}

/// One provider's waiting work.
#[derive(Debug, Default)]
pub struct Lane {
    destinations: HashMap<Destination, Queued>,
    heads: BTreeSet<(Key, Destination)>,
    resting: BTreeSet<(i64, Destination)>,
    suspects: BTreeSet<(Key, Destination)>,
    suspects_since_ms: Option<i64>,
    /// Until then, others wait for suspects whose turn has come.
    suspects_until_ms: i64,
    /// How often in a row the worker did not become empty in time.
    not_emptied: u32,
    suspect_out: bool,
    limits: Limits,
    ready: u64,
    in_flight: u64,
    /// Deliveries that wait for a later attempt; kept by the queue.
    pub deferred: u64,
}

impl Lane {
    /// Deliveries that could go out now.
    #[must_use]
    pub fn ready(&self) -> u64 {
        self.ready + self.suspects.len() as u64
    }

    /// Deliveries in the worker's hands.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Sets the limits, as the provider announced them.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        let all: Vec<Destination> = self.destinations.keys().copied().collect();
        for destination in all {
            self.rehead(destination);
        }
    }

    /// A delivery becomes ready.
    pub fn insert(&mut self, key: Key, destination: Destination, suspect: bool) {
        if suspect {
            self.suspects.insert((key, destination));
        } else if self.destinations.entry(destination).or_default().ready.insert(key) {
            self.ready += 1;
            self.rehead(destination);
        }
    }

    /// A delivery that was ready is not any more.
    pub fn remove(&mut self, key: Key, destination: Destination) {
        if self.suspects.remove(&(key, destination)) {
            return;
        }
        let queued = self.destinations.get_mut(&destination);
        if queued.is_some_and(|queued| queued.ready.remove(&key)) {
            self.ready -= 1;
            self.rehead(destination);
        }
    }

    /// Which delivery is next, if one may go out now. The caller then calls [`Lane::remove`] and [`Lane::depart`].
    pub fn next(&mut self, now_ms: i64) -> Option<(Key, Destination)> {
        if self.suspect_out {
            return None;
        }
        self.wake_rested(now_ms);
        let normal = self.heads.first().copied();
        let Some(suspect) = self.suspects.first().copied() else {
            self.suspects_since_ms = None;
            return normal;
        };
        let since = *self.suspects_since_ms.get_or_insert(now_ms);
        if normal.is_some() && now_ms >= self.suspects_until_ms {
            let in_vain = self.in_flight > 0 && now_ms - since >= SUSPECT_PATIENCE_MS + self.emptying_ms();
            if in_vain {
                self.suspects_since_ms = Some(now_ms);
                self.not_emptied += 1;
            }
            if in_vain || now_ms - since < SUSPECT_PATIENCE_MS {
                return normal;
            }
        }
        (self.in_flight == 0).then_some(suspect)
    }

    /// Whether a delivery may go out that is chosen by name: a suspect only alone, and nothing beside a suspect.
    #[must_use]
    pub fn may_take(&self, suspect: bool) -> bool {
        !self.suspect_out && (!suspect || self.in_flight == 0)
    }

    /// A delivery goes to the worker.
    pub fn depart(&mut self, destination: Destination, suspect: bool, now_ms: i64) {
        self.in_flight += 1;
        self.suspect_out = suspect;
        if suspect {
            self.not_emptied = 0;
            let had_waited = self.suspects_since_ms.take().is_some_and(|since| now_ms - since >= SUSPECT_PATIENCE_MS);
            if had_waited {
                self.suspects_until_ms = now_ms + SUSPECT_TURN_MS;
            }
        }
        let interval_ms = self.limits.interval_ms;
        let queued = self.destinations.entry(destination).or_default();
        queued.in_flight += 1;
        if interval_ms > 0 {
            queued.rest_until_ms = now_ms + interval_ms;
            self.resting.insert((queued.rest_until_ms, destination));
        }
        self.rehead(destination);
    }

    /// A delivery is back from the worker.
    pub fn arrive(&mut self, destination: Destination) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.in_flight == 0 {
            self.suspect_out = false;
        }
        if let Some(queued) = self.destinations.get_mut(&destination) {
            queued.in_flight = queued.in_flight.saturating_sub(1);
        }
        self.rehead(destination);
    }

    /// When, after `looked_ms`, a destination that rests may be served again, or a suspect gets its turn.
    #[must_use]
    pub fn wakes_after_ms(&self, looked_ms: i64) -> Option<i64> {
        let rested = self.resting.range((looked_ms + 1, Destination(0))..).next().map(|(at, _)| *at);
        let since = self.suspects_since_ms.filter(|_| !self.suspect_out);
        let turn = since.map(|since| since + SUSPECT_PATIENCE_MS);
        let in_vain = turn.map(|turn| turn + self.emptying_ms()).filter(|_| self.in_flight > 0);
        let suspect = turn.into_iter().chain(in_vain).find(|at| *at > looked_ms);
        [rested, suspect].into_iter().flatten().min()
    }

    /// Takes note of the time, also while nothing may go out: what has come due is not due again and again.
    pub fn wake(&mut self, now_ms: i64) {
        self.wake_rested(now_ms);
    }

    fn emptying_ms(&self) -> i64 {
        (EMPTYING_MS_FIRST << self.not_emptied.min(20)).min(EMPTYING_MS_MAX)
    }

    fn wake_rested(&mut self, now_ms: i64) {
        while let Some(&(at, destination)) = self.resting.first()
            && at <= now_ms
        {
            self.resting.remove(&(at, destination));
            if let Some(queued) = self.destinations.get_mut(&destination)
                && queued.rest_until_ms <= now_ms
            {
                queued.rest_until_ms = 0;
            }
            self.rehead(destination);
        }
    }

    /// Puts the first ready delivery of a destination among the heads, if it may go; forgets a destination without any work.
    fn rehead(&mut self, destination: Destination) {
        let Some(queued) = self.destinations.get_mut(&destination) else { return };
        let open =
            (self.limits.concurrency == 0 || queued.in_flight < self.limits.concurrency) && queued.rest_until_ms == 0;
        let head = queued.ready.first().copied().filter(|_| open);
        if head != queued.head {
            if let Some(old) = queued.head {
                self.heads.remove(&(old, destination));
            }
            if let Some(new) = head {
                self.heads.insert((new, destination));
            }
            queued.head = head;
        }
        if queued.ready.is_empty() && queued.in_flight == 0 && queued.rest_until_ms == 0 {
            self.destinations.remove(&destination);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: u64) -> Key {
        Key { priority: Priority::Normal, born_ms: i64::try_from(id).unwrap(), id: MessageId(id) }
    }

    fn send(lane: &mut Lane, now_ms: i64) -> Option<u64> {
        let (key, destination) = lane.next(now_ms)?;
        let suspect = lane.suspects.contains(&(key, destination));
        lane.remove(key, destination);
        lane.depart(destination, suspect, now_ms);
        Some(key.id.0)
    }

    #[test]
    fn a_slow_destination_does_not_block_others() {
        let mut lane = Lane::default();
        lane.set_limits(Limits { concurrency: 1, interval_ms: 0 });
        for id in 1..=3 {
            lane.insert(key(id), Destination(1), false);
        }
        lane.insert(key(9), Destination(2), false);
        assert_eq!([send(&mut lane, 0), send(&mut lane, 0), send(&mut lane, 0)], [Some(1), Some(9), None]);
        lane.arrive(Destination(1));
        assert_eq!(send(&mut lane, 0), Some(2));
    }

    #[test]
    fn urgent_goes_first_and_age_decides_otherwise() {
        let mut lane = Lane::default();
        lane.insert(key(1), Destination(1), false);
        lane.insert(Key { priority: Priority::Urgent, ..key(5) }, Destination(1), false);
        assert_eq!([send(&mut lane, 0), send(&mut lane, 0)], [Some(5), Some(1)]);
    }

    #[test]
    fn a_rate_is_kept() {
        let mut lane = Lane::default();
        lane.set_limits(Limits { concurrency: 0, interval_ms: 100 });
        lane.insert(key(1), Destination(1), false);
        lane.insert(key(2), Destination(1), false);
        assert_eq!([send(&mut lane, 0), send(&mut lane, 99)], [Some(1), None]);
        assert_eq!(lane.wakes_after_ms(99), Some(100));
        assert_eq!(send(&mut lane, 100), Some(2));
    }

    #[test]
    fn suspects_go_alone_and_get_their_turn() {
        let mut lane = Lane::default();
        lane.insert(key(1), Destination(1), true);
        lane.insert(key(2), Destination(1), false);
        assert_eq!(send(&mut lane, 0), Some(2), "others first");
        lane.insert(key(3), Destination(1), false);
        assert_eq!(send(&mut lane, 2000), None, "the suspect's turn has come: the worker empties");
        lane.arrive(Destination(1));
        assert_eq!(send(&mut lane, 2000), Some(1));
        assert_eq!(send(&mut lane, 2000), None, "a suspect is alone");
        lane.arrive(Destination(1));
        assert_eq!(send(&mut lane, 2000), Some(3));
    }

    #[test]
    fn suspects_go_one_after_another_while_it_is_their_turn() {
        let mut lane = Lane::default();
        for id in 1..=9 {
            lane.insert(key(id), Destination(1), id <= 4);
        }
        assert_eq!(send(&mut lane, 0), Some(5));
        lane.arrive(Destination(1));
        for (now_ms, next) in [(2000, 1), (2100, 2), (2199, 3), (2200, 6), (4198, 7), (4200, 4), (4201, 8), (4202, 9)] {
            assert_eq!(send(&mut lane, now_ms), Some(next), "at {now_ms}");
            lane.arrive(Destination(1));
        }
    }

    #[test]
    fn a_slow_delivery_that_a_suspect_waits_for_holds_up_nobody_for_long() {
        let mut lane = Lane::default();
        for id in 1..=9 {
            lane.insert(key(id), Destination(id), id == 1);
        }
        assert_eq!(send(&mut lane, 0), Some(2), "slow");
        assert_eq!(send(&mut lane, 2000), None, "the worker empties");
        assert_eq!(send(&mut lane, 2999), None);
        assert_eq!([send(&mut lane, 3000), send(&mut lane, 4999)], [Some(3), Some(4)], "it does not");
        assert_eq!([send(&mut lane, 5000), send(&mut lane, 6999)], [None, None], "once more, and for longer");
        assert_eq!(send(&mut lane, 7000), Some(5));
        assert_eq!(send(&mut lane, 9000), None);
        (2..=5).for_each(|id| lane.arrive(Destination(id)));
        assert_eq!(send(&mut lane, 9001), Some(1), "its turn at last");
        lane.arrive(Destination(1));
        assert_eq!((send(&mut lane, 9002), lane.not_emptied), (Some(6), 0));
    }

    #[test]
    fn what_has_come_due_while_nothing_goes_out_is_not_due_again() {
        let mut lane = Lane::default();
        lane.set_limits(Limits { concurrency: 0, interval_ms: 100 });
        lane.insert(key(1), Destination(1), false);
        lane.insert(key(2), Destination(2), true);
        lane.insert(key(3), Destination(2), false);
        assert_eq!(send(&mut lane, 0), Some(1));
        assert_eq!(lane.wakes_after_ms(0), Some(100));
        lane.wake(100);
        assert_eq!(lane.wakes_after_ms(100), Some(2000), "the suspect's turn");
        lane.wake(2000);
        assert_eq!(lane.wakes_after_ms(2000), Some(3000), "others do not wait for ever");
        lane.wake(3000);
        assert_eq!(lane.wakes_after_ms(3000), None);
        lane.arrive(Destination(1));
        assert_eq!(send(&mut lane, 2001), Some(2));
    }

    #[test]
    fn nothing_is_left_behind() {
        let mut lane = Lane::default();
        lane.insert(key(1), Destination(1), false);
        lane.remove(key(1), Destination(1));
        assert_eq!((lane.ready(), lane.destinations.len(), lane.heads.len()), (0, 0, 0));
    }

    #[test]
    fn what_waits_for_something_else_than_time_sets_no_time() {
        let mut lane = Lane::default();
        lane.insert(key(1), Destination(1), true);
        lane.insert(key(2), Destination(1), false);
        assert_eq!(send(&mut lane, 0), Some(2));
        assert_eq!(send(&mut lane, 0), None, "the suspect waits until the worker is empty");
        assert_eq!([0, 2000, 3000].map(|at| lane.wakes_after_ms(at)), [Some(2000), Some(3000), None]);
    }
}
