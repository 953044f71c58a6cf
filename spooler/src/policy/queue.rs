//! The schedule in RAM: which messages wait for whom, and until when. Rebuilt from the store at every start.
//!
//! A message has one *part* for each way that its unsettled recipients go. Each part is, by itself, in one of these states:
//!
//! ```text
//!            depart                    settled
//!   ready ────────────▶ in flight ────────────────▶ gone
//!     ▲  ▲                 │  │
//!     │  └── worker died ──┘  │ not now
//!     ├──────── due ── deferred
//!     └── asked for ── callback: its provider has what it needs and asks for it when it wants it again
//! ```
//!
//! A message that is held or quarantined keeps its parts, but none of them is in a lane.

mod invariants;
mod part;

pub use part::{Again, Part, Waiting};

use std::collections::{BTreeMap, BTreeSet, HashMap};

use spooler_protocol::ids::{DeliveryId, Generation, MessageId};
use spooler_protocol::message::Priority;

use crate::policy::ProviderId;
use crate::policy::few::Few;
use crate::policy::lane::{Key, Lane};
use crate::policy::routing::{Destination, Route};

/// Whether a message may move at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may.
    Active,
    /// A person holds it.
    Held,
    /// It was set aside.
    Quarantined,
}

/// What the schedule knows of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it was submitted, on the clock that never jumps (negative if before the start).
    pub born_ms: i64,
    /// Bytes of the content.
    pub size: u64,
    /// How urgent it is.
    pub priority: Priority,
    /// Whether it may move.
    pub standing: Standing,
    /// Workers that died while they had it.
    pub deaths: u32,
    /// Whether its sender was told of the delay.
    pub delay_reported: bool,
    /// Whether its sender is the null sender, which gets no reports.
    pub null_sender: bool,
    /// Whether some recipient wants a report of success.
    pub wants_success: bool,
    /// Its unsettled recipients.
    pub parts: Few<Part>,
}

impl Entry {
    fn key(&self, id: MessageId) -> Key {
        Key { priority: self.priority, born_ms: self.born_ms, id }
    }

    /// Providers that keep something of it.
    #[must_use]
    pub fn kept_by(&self) -> Vec<ProviderId> {
        let kept = self.parts.as_slice().iter().filter(|part| part.waiting == Waiting::Callback);
        kept.filter_map(|part| Some(part.route?.provider)).collect()
    }

    /// Makes ready what a provider keeps, or any provider.
    pub fn free(&mut self, provider: Option<ProviderId>) {
        for part in self.parts.as_mut_slice().iter_mut().filter(|part| part.waiting == Waiting::Callback) {
            if provider.is_none_or(|wanted| part.route.is_some_and(|route| route.provider == wanted)) {
                part.waiting = Waiting::Ready;
            }
        }
    }

    fn flying(&mut self, delivery: DeliveryId) -> Option<&mut Part> {
        self.parts.as_mut_slice().iter_mut().find(|part| part.waiting == Waiting::InFlight(delivery))
    }

    /// A part that was away joins the one that waits for the same way.
    fn land(&mut self, delivery: DeliveryId, waiting: Waiting) {
        let Some(landed) = self.flying(delivery).cloned() else { return };
        self.parts.retain(|part| part.waiting != Waiting::InFlight(delivery));
        let mut parts = self.parts.as_mut_slice().iter_mut();
        let Some(part) = parts.find(|part| landed.route.is_some_and(|route| part.waits_for(route))) else { return };
        landed.recipients.as_slice().iter().for_each(|index| part.recipients.push(*index));
        part.attempts = part.attempts.max(landed.attempts);
        part.waiting = part.waiting.sooner(waiting);
        if part.waiting == waiting {
            part.again = landed.again;
        }
        part.declined_by(landed.not_me.as_deref().map_or(&[][..], Vec::as_slice));
    }

    /// Whether a worker has any of it.
    #[must_use]
    pub fn is_in_flight(&self) -> bool {
        self.parts.as_slice().iter().any(|part| matches!(part.waiting, Waiting::InFlight(_)))
    }
}

/// A part that goes to a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    /// Of which message.
    pub id: MessageId,
    /// Which way.
    pub route: Route,
    /// Whom to serve.
    pub recipients: Vec<u32>,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// How it is offered again.
    pub again: Again,
}

/// The schedule in RAM.
#[derive(Debug, Default)]
pub struct Queue {
    messages: HashMap<MessageId, Entry>,
    lanes: BTreeMap<ProviderId, Lane>,
    due: BTreeSet<(i64, MessageId, Option<Route>)>,
    callbacks: BTreeSet<(ProviderId, MessageId, Destination)>,
    stopped: u64,
    quarantined: u64,
}

impl Queue {
    /// Messages on disk.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.messages.len() as u64
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Messages that are held or quarantined.
    #[must_use]
    pub fn stopped(&self) -> u64 {
        self.stopped
    }

    /// Messages that are quarantined.
    #[must_use]
    pub fn quarantined(&self) -> u64 {
        self.quarantined
    }

    /// One message.
    #[must_use]
    pub fn get(&self, id: MessageId) -> Option<&Entry> {
        self.messages.get(&id)
    }

    /// Every message, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (MessageId, &Entry)> {
        self.messages.iter().map(|(id, entry)| (*id, entry))
    }

    /// A provider's lane, made if it is new.
    pub fn lane(&mut self, provider: ProviderId) -> &mut Lane {
        self.lanes.entry(provider).or_default()
    }

    /// A provider's lane, to be read.
    #[must_use]
    pub fn lane_of(&self, provider: ProviderId) -> Option<&Lane> {
        self.lanes.get(&provider)
    }

    /// Adds a message.
    pub fn add(&mut self, id: MessageId, entry: Entry) {
        self.remove(id);
        self.enter_all(id, &entry);
        self.stopped += u64::from(entry.standing != Standing::Active);
        self.quarantined += u64::from(entry.standing == Standing::Quarantined);
        self.messages.insert(id, entry);
    }

    /// Takes a message out.
    pub fn remove(&mut self, id: MessageId) -> Option<Entry> {
        let entry = self.messages.remove(&id)?;
        self.leave_all(id, &entry);
        self.stopped -= u64::from(entry.standing != Standing::Active);
        self.quarantined -= u64::from(entry.standing == Standing::Quarantined);
        Some(entry)
    }

    /// Changes a message; every lane follows.
    pub fn change<T>(&mut self, id: MessageId, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let mut entry = self.remove(id)?;
        let value = change(&mut entry);
        self.add(id, entry);
        Some(value)
    }

    /// Hands the next ready part of a provider to its worker, as this delivery.
    pub fn depart(&mut self, provider: ProviderId, delivery: DeliveryId, now_ms: i64) -> Option<Departure> {
        let (key, destination) = self.lanes.get_mut(&provider)?.next(now_ms)?;
        self.depart_part(key, Route { provider, destination }, delivery, now_ms)
    }

    /// Hands the ready part of one message to a provider's worker, whatever else is ready there; `None` if it has none, or must wait
    /// because a suspect goes alone.
    pub fn depart_message(
        &mut self,
        provider: ProviderId,
        id: MessageId,
        delivery: DeliveryId,
        now_ms: i64,
    ) -> Option<Departure> {
        let entry = self.messages.get(&id).filter(|entry| entry.standing == Standing::Active)?;
        let is_ready =
            |part: &&Part| part.waiting == Waiting::Ready && part.route.is_some_and(|way| way.provider == provider);
        let route = entry.parts.as_slice().iter().find(is_ready)?.route?;
        let (key, suspect) = (entry.key(id), entry.deaths > 0);
        if !self.lanes.get(&provider)?.may_take(suspect) {
            return None;
        }
        self.depart_part(key, route, delivery, now_ms)
    }

    fn depart_part(&mut self, key: Key, route: Route, delivery: DeliveryId, now_ms: i64) -> Option<Departure> {
        let Route { provider, destination } = route;
        let lane = self.lanes.get_mut(&provider)?;
        let entry = self.messages.get_mut(&key.id)?;
        let part = entry.parts.as_mut_slice().iter_mut().find(|part| part.waits_for(route))?;
        part.waiting = Waiting::InFlight(delivery);
        lane.remove(key, destination);
        lane.depart(destination, entry.deaths > 0, now_ms);
        Some(Departure {
            id: key.id,
            route,
            recipients: part.recipients.as_slice().to_vec(),
            attempt: part.attempts + 1,
            again: part.again,
        })
    }

    /// A delivery is back: `settled` recipients leave, the others wait for what is given, or all leave with `None`. The message is
    /// taken out when nothing of it is left; tells whether it was.
    pub fn arrive(
        &mut self,
        id: MessageId,
        route: Route,
        delivery: DeliveryId,
        settled: &[u32],
        next: Option<(Waiting, bool)>,
    ) -> bool {
        if let Some(lane) = self.lanes.get_mut(&route.provider) {
            lane.arrive(route.destination);
        }
        let Some(entry) = self.messages.get_mut(&id) else { return false };
        let key = entry.key(id);
        let (active, suspect) = (entry.standing == Standing::Active, entry.deaths > 0);
        // While it was away, others may have found the same way: they go on together.
        let company = entry.parts.as_slice().iter().any(|part| part.waits_for(route));
        if let Some(part) = entry.flying(delivery) {
            part.recipients.retain(|index| !settled.contains(index));
            match next {
                None => part.recipients = Few::default(),
                Some((waiting, attempted)) if !part.recipients.as_slice().is_empty() => {
                    part.attempts += u32::from(attempted);
                    if company {
                        self.change(id, |entry| entry.land(delivery, waiting));
                        return false;
                    }
                    part.waiting = waiting;
                    if active {
                        enter(&mut self.lanes, &mut self.due, &mut self.callbacks, key, suspect, part);
                    }
                }
                Some(_) => {}
            }
        }
        let landed = |part: &Part| part.recipients.as_slice().is_empty() && part.waiting == Waiting::InFlight(delivery);
        entry.parts.retain(|part| !landed(part));
        let gone = entry.parts.as_slice().is_empty();
        if gone {
            self.remove(id);
        }
        gone
    }

    /// Notes how a part that is in flight will be offered again.
    pub fn set_again(&mut self, id: MessageId, delivery: DeliveryId, again: Again) {
        if let Some(part) = self.messages.get_mut(&id).and_then(|entry| entry.flying(delivery)) {
            part.again = again;
        }
    }

    /// Some recipients of a delivery that goes on are settled.
    pub fn settle(&mut self, id: MessageId, delivery: DeliveryId, settled: &[u32]) {
        let part = self.messages.get_mut(&id).and_then(|entry| entry.flying(delivery));
        if let Some(part) = part {
            part.recipients.retain(|index| !settled.contains(index));
        }
    }

    /// Makes ready what is due. Gives the providers that have something new.
    pub fn wake(&mut self, now_ms: i64) -> BTreeSet<ProviderId> {
        let mut woken = BTreeSet::new();
        self.lanes.values_mut().for_each(|lane| lane.wake(now_ms));
        while let Some(&(due_ms, id, route)) = self.due.first()
            && due_ms <= now_ms
        {
            woken.extend(route.map(|route| route.provider));
            self.make_ready(id, route);
            self.due.remove(&(due_ms, id, route));
        }
        woken
    }

    /// Makes a deferred part ready before its time. Only this part is touched: a message may have a thousand.
    pub fn make_ready(&mut self, id: MessageId, route: Option<Route>) {
        let Some(entry) = self.messages.get_mut(&id) else { return };
        let (key, suspect, active) = (entry.key(id), entry.deaths > 0, entry.standing == Standing::Active);
        let deferred = entry.parts.as_mut_slice().iter_mut().filter(|part| part.route == route);
        let due_ms = |part: &Part| if let Waiting::Deferred { due_ms } = part.waiting { Some(due_ms) } else { None };
        let Some((part, due_ms)) = deferred.filter_map(|part| due_ms(part).map(|due_ms| (part, due_ms))).next() else {
            return;
        };
        part.waiting = Waiting::Ready;
        if active {
            let lane = route.and_then(|route| self.lanes.get_mut(&route.provider));
            if self.due.remove(&(due_ms, id, route))
                && let Some(lane) = lane
            {
                lane.deferred -= 1;
            }
            enter(&mut self.lanes, &mut self.due, &mut self.callbacks, key, suspect, part);
        }
    }

    /// When something becomes due, or a lane's rest is over. What a lane could do at `looked_ms` and did not, it cannot do for other
    /// reasons than time.
    #[must_use]
    pub fn next_due_ms(&self, looked_ms: i64) -> Option<i64> {
        let due = self.due.first().map(|(at, _, _)| *at);
        self.lanes.values().filter_map(|lane| lane.wakes_after_ms(looked_ms)).chain(due).min()
    }

    /// Deferred parts of one provider, or of all.
    pub fn deferred(&self, provider: Option<ProviderId>) -> impl Iterator<Item = (MessageId, Route)> {
        self.due
            .iter()
            .filter_map(|(_, id, route)| Some((*id, (*route)?)))
            .filter(move |(_, route)| provider.is_none_or(|wanted| wanted == route.provider))
    }

    /// Parts that a provider keeps until it asks for them; those of held messages are left out.
    pub fn callbacks(&self, provider: ProviderId) -> impl Iterator<Item = (MessageId, Route)> {
        let all = (provider, MessageId(0), Destination(0))..=(provider, MessageId(u64::MAX), Destination(u64::MAX));
        self.callbacks
            .range(all)
            .map(|(provider, id, destination)| (*id, Route { provider: *provider, destination: *destination }))
    }

    /// A provider's worker asks for a message that it deferred. False if it keeps nothing of it.
    pub fn call_back(&mut self, id: MessageId, provider: ProviderId, worker: Generation) -> bool {
        let keeps = |part: &Part| {
            part.waiting == Waiting::Callback && part.route.is_some_and(|route| route.provider == provider)
        };
        if !self.messages.get(&id).is_some_and(|entry| entry.parts.as_slice().iter().any(keeps)) {
            return false;
        }
        self.change(id, |entry| {
            for part in entry.parts.as_mut_slice().iter_mut().filter(|part| keeps(part)) {
                part.waiting = Waiting::Ready;
                part.again.asked_by = Some(worker);
            }
        });
        true
    }

    /// A provider's worker has gone and cannot ask any more: what it kept is as if it had never been deferred. What is held comes
    /// free when it is released.
    pub fn free_callbacks(&mut self, provider: ProviderId) {
        let kept: Vec<(MessageId, Route)> = self.callbacks(provider).collect();
        for (id, _) in kept {
            self.change(id, |entry| entry.free(Some(provider)));
        }
    }

    fn enter_all(&mut self, id: MessageId, entry: &Entry) {
        for part in entry.parts.as_slice() {
            match (part.waiting, part.route) {
                // In flight is in flight, whatever was decided about the message meanwhile.
                (Waiting::InFlight(_), _) => {}
                _ if entry.standing != Standing::Active => {}
                _ => {
                    let suspect = entry.deaths > 0;
                    enter(&mut self.lanes, &mut self.due, &mut self.callbacks, entry.key(id), suspect, part);
                }
            }
        }
    }

    fn leave_all(&mut self, id: MessageId, entry: &Entry) {
        for part in entry.parts.as_slice() {
            let Some(lane) = part.route.and_then(|route| self.lanes.get_mut(&route.provider)) else {
                if let Waiting::Deferred { due_ms } = part.waiting {
                    self.due.remove(&(due_ms, id, part.route));
                }
                continue;
            };
            let destination = part.route.map(|route| route.destination).unwrap_or_default();
            match part.waiting {
                Waiting::Ready => lane.remove(entry.key(id), destination),
                Waiting::InFlight(_) => {}
                Waiting::Deferred { due_ms } => {
                    if self.due.remove(&(due_ms, id, part.route)) {
                        lane.deferred -= 1;
                    }
                }
                Waiting::Callback => {
                    let provider = part.route.map(|route| route.provider).unwrap_or_default();
                    if self.callbacks.remove(&(provider, id, destination)) {
                        lane.deferred -= 1;
                    }
                }
            }
        }
    }
}

fn enter(
    lanes: &mut BTreeMap<ProviderId, Lane>,
    due: &mut BTreeSet<(i64, MessageId, Option<Route>)>,
    callbacks: &mut BTreeSet<(ProviderId, MessageId, Destination)>,
    key: Key,
    suspect: bool,
    part: &Part,
) {
    match (part.waiting, part.route) {
        (Waiting::Ready, Some(route)) => {
            lanes.entry(route.provider).or_default().insert(key, route.destination, suspect);
        }
        (Waiting::Deferred { due_ms }, route) => {
            due.insert((due_ms, key.id, route));
            if let Some(route) = route {
                lanes.entry(route.provider).or_default().deferred += 1;
            }
        }
        (Waiting::Callback, Some(route)) => {
            callbacks.insert((route.provider, key.id, route.destination));
            lanes.entry(route.provider).or_default().deferred += 1;
        }
        (Waiting::Ready | Waiting::Callback, None) | (Waiting::InFlight(_), _) => {}
    }
}

#[cfg(test)]
mod tests;
