//! Messages go out, and what comes after: whom a delivery is offered to, and when it is offered again.

use std::collections::{BTreeMap, BTreeSet};

use spooler_protocol::calls::{EndMessage, Wishes};
use spooler_protocol::history::End;
use spooler_protocol::ids::DeliveryId;
use spooler_protocol::outcome::{Outcome, Reply, SubmitResult};

use super::event::{Action, ReportedRecipient, SubmitOrder, WorkerId};
use super::mail::{Change, Fate, log_change};
use super::recording::Verdict;
use super::{Flight, Supervisor};
use crate::policy::queue::{Again, Departure, Waiting};
use crate::policy::{Now, ProviderId};

/// A provider that is busy is asked again after so long (SpoolerBackoffInterval of the ancestor).
const BUSY_MS: i64 = 2000;
/// A provider that wants a message later gets it again after so long (SpoolerReconnectInterval of the ancestor).
const LATER_MS: i64 = 60_000;
/// A provider that wants a message again at once, or stops a delivery by itself, gets it so often in a row; then it is like wanting it
/// later.
const RESENDS_MAX: u8 = 10;
/// What a delivery does until its worker says more.
const FIRST_PHASE: &str = "starting";
/// Why a message is late that its provider deferred.
const KEPT: &str = "The provider deferred the message and did not ask for it";

impl Supervisor {
    /// Gives a provider's worker as many deliveries as it has credit for.
    pub(super) fn dispatch(&mut self, id: ProviderId, now: Now, actions: &mut Vec<Action>) {
        let Some(provider) = self.providers.get(&id) else { return };
        if !provider.may_be_called() || !provider.session.outbound || provider.paused || self.stopping.is_some() {
            return;
        }
        if provider.lacks_device || !self.machine.is_awake() || self.store_stuck.is_some() {
            return;
        }
        // An offline provider tries by itself whether it can go on; a person's flush or retry may want to see it fail.
        if provider.is_offline() && !self.is_flushing(id) && provider.retried.is_empty() {
            return;
        }
        if !self.holds_what_it_needs(id, now) {
            return;
        }
        let Some(provider) = self.providers.get(&id) else { return };
        let credit = u64::from(provider.announced.as_ref().map_or(0, |announced| announced.credit));
        let sees_others =
            provider.announced.as_ref().is_some_and(|announced| announced.wishes.contains(Wishes::RESOLVE));
        let worker = WorkerId { provider: id, generation: provider.life.generation() };
        while self.queue.lane_of(id).is_some_and(|lane| lane.in_flight() < credit) {
            let delivery = DeliveryId(self.next);
            let first = !self.has_flights(id);
            let Some(departure) = self.next_departure(id, delivery, now) else { return };
            if first && let Some(provider) = self.providers.get_mut(&id) {
                provider.overrun.on_given(now.mono_ms);
            }
            self.next += 1;
            let entry = self.queue.get(departure.id);
            let wants_success = entry.is_some_and(|entry| entry.wants_success);
            let born_ms = entry.map_or(now.mono_ms, |entry| entry.born_ms);
            let flight = Flight {
                worker,
                wants_success,
                id: departure.id,
                route: departure.route,
                recipients: departure.recipients.clone(),
                settled: BTreeSet::new(),
                deferred: BTreeMap::new(),
                attempt: departure.attempt,
                born_ms,
                since_ms: now.mono_ms,
                phase: FIRST_PHASE.to_owned(),
                phase_since_ms: now.mono_ms,
                bytes: 0,
                given_up: false,
                again: departure.again,
            };
            self.flights.insert(delivery, flight);
            let deferred_before = departure.again.asked_by == Some(worker.generation);
            actions.push(Action::Submit(SubmitOrder {
                worker,
                delivery,
                id: departure.id,
                recipients: departure.recipients,
                attempt: departure.attempt,
                sees_others,
                deferred_before,
            }));
        }
    }

    /// What a provider gets next: while it is offline and no flush runs, only what a person wants retried.
    fn next_departure(&mut self, id: ProviderId, delivery: DeliveryId, now: Now) -> Option<Departure> {
        let is_flushing = self.is_flushing(id);
        let provider = self.providers.get_mut(&id)?;
        if !provider.is_offline() || is_flushing {
            provider.retried.clear();
            return self.queue.depart(id, delivery, now.mono_ms);
        }
        while let Some(message) = provider.retried.pop_first() {
            if let Some(departure) = self.queue.depart_message(id, message, delivery, now.mono_ms) {
                return Some(departure);
            }
        }
        None
    }

    /// Some recipients are settled while others are under way.
    pub(super) fn on_settled(
        &mut self,
        worker: WorkerId,
        delivery: DeliveryId,
        outcomes: Vec<(u32, Outcome)>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(mut verdict) = self.judge(worker, delivery, outcomes) else { return };
        let Some(flight) = self.flights.get_mut(&delivery) else { return };
        // Only what settles goes to disk now.
        flight.deferred.extend(std::mem::take(&mut verdict.deferred));
        let id = flight.id;
        let indexes: Vec<u32> = verdict.settled_indexes();
        if indexes.is_empty() {
            return;
        }
        self.on_news(worker, now, actions);
        self.queue.settle(id, delivery, &indexes);
        self.record(delivery, verdict, false, now, actions);
    }

    /// A delivery is over.
    pub(super) fn on_finished(
        &mut self,
        worker: WorkerId,
        delivery: DeliveryId,
        (result, end): (SubmitResult, EndMessage),
        outcomes: Vec<(u32, Outcome)>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        if result == SubmitResult::NotMe && self.flights.get(&delivery).is_some_and(|flight| !flight.given_up) {
            // What was settled nevertheless is settled; the rest goes on.
            self.on_settled(worker, delivery, outcomes, now, actions);
            self.pass_on(worker, delivery, actions);
            return;
        }
        let Some(mut verdict) = self.judge(worker, delivery, outcomes) else { return };
        self.on_news(worker, now, actions);
        let Some(flight) = self.flights.get_mut(&delivery) else { return };
        let mut deferred = std::mem::take(&mut flight.deferred);
        deferred.extend(std::mem::take(&mut verdict.deferred));
        verdict.deferred = deferred.into_iter().filter(|(index, _)| !flight.settled.contains(index)).collect();
        let named: BTreeSet<u32> = verdict.deferred.iter().map(|(index, _)| *index).collect();
        let unnamed = |index: &u32| !flight.settled.contains(index) && !named.contains(index);
        let open: Vec<u32> = flight.recipients.iter().copied().filter(unnamed).collect();
        let (route, again) = (flight.route, flight.again);
        if !verdict.sent.is_empty()
            && let Some(provider) = self.providers.get_mut(&worker.provider)
        {
            provider.life.on_success();
        }
        let longest_ms = self.retry_plan(route.provider).map_or(BUSY_MS, |plan| plan.max_age_ms);
        let sequel = match result {
            // It was told to come to an end: that is no wish of its own.
            SubmitResult::Cancelled if self.is_leaving(worker) => {
                Sequel { again, ..plain(Some(Waiting::Ready), "The delivery was stopped") }
            }
            result => sequel(result, end, again, longest_ms, now),
        };
        self.conclude(delivery, verdict, open, sequel, now, actions);
        self.end_flight(delivery, worker, actions);
    }

    /// Ends a delivery in the schedule and on disk: settled recipients leave, the others wait.
    fn conclude(
        &mut self,
        delivery: DeliveryId,
        mut verdict: Verdict,
        open: Vec<u32>,
        sequel: Sequel,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(flight) = self.flights.get(&delivery) else { return };
        let (worker, id, route, attempt, given_up) =
            (flight.worker, flight.id, flight.route, flight.attempt, flight.given_up);
        let Some(entry) = self.queue.get(id) else { return };
        let plan = self.retry_plan(route.provider);
        let expired = plan.is_some_and(|plan| now.mono_ms - entry.born_ms >= plan.max_age_ms);
        let attempted = sequel.attempted || expired;
        if attempted {
            verdict.deferred.extend(open.iter().map(|index| (*index, sequel.why.clone())));
        }
        let left = !verdict.deferred.is_empty() || !open.is_empty();
        if given_up {
            self.log_given_up(delivery, &verdict, &open, now, actions);
            verdict.deferred.clear();
        } else if expired {
            if let Some((_, reply)) = verdict.deferred.first() {
                log_change(id, Change::Expired, None, reply.to_string(), actions);
            }
            verdict.failed.append(&mut verdict.deferred);
        }
        let next = (left && !given_up && !expired).then(|| {
            let mut planned = || plan.as_ref().map_or(BUSY_MS, |plan| plan.wait_ms(attempt, &mut self.jitter));
            let waiting = sequel.waiting.unwrap_or_else(|| Waiting::Deferred { due_ms: now.mono_ms + planned() });
            (waiting, sequel.attempted)
        });
        if sequel.waiting == Some(Waiting::Callback) && left && next.is_none() {
            self.abort_kept(worker.provider, id, actions);
        }
        self.note_busy(worker, (id, route), sequel.busy && next.is_some());
        let settled = verdict.settled_indexes();
        let provider = self.name(route.provider).to_owned();
        self.flushing.note_sent(id, (route.provider, &provider), &verdict);
        if let (Some((Waiting::Deferred { due_ms }, _)), Some(plan)) = (next, plan) {
            // Those whom nobody tried are as late as the others: the provider was busy, or wanted them later.
            let untried = open.iter().filter(|_| !attempted).map(|index| (*index, sequel.why.clone()));
            let late = verdict.deferred.iter().cloned().chain(untried);
            let late = late.map(|(index, reply)| ReportedRecipient { index, reply, relayed: false }).collect();
            self.report_delay(id, late, due_ms, &plan, now, actions);
        }
        self.queue.set_again(id, delivery, sequel.again);
        let gone = self.queue.arrive(id, route, delivery, &settled, next);
        self.record(delivery, verdict, gone, now, actions);
    }

    /// A person gave up on those that are not settled.
    fn log_given_up(&self, delivery: DeliveryId, verdict: &Verdict, open: &[u32], now: Now, actions: &mut Vec<Action>) {
        let unsaid = Reply::local(0, "", "Cancelled before the provider said anything");
        for (index, reply) in &verdict.deferred {
            self.log_attempt(delivery, (*index, Fate::Cancelled, reply), None, now, actions);
        }
        let said = |index: &&u32| verdict.deferred.iter().any(|(said, _)| said == *index);
        for index in open.iter().filter(|index| !said(index)) {
            self.log_attempt(delivery, (*index, Fate::Cancelled, &unsaid), None, now, actions);
        }
    }

    /// The provider has said that a message is not for it: the next one that serves its recipients gets it.
    fn pass_on(&mut self, worker: WorkerId, delivery: DeliveryId, actions: &mut Vec<Action>) {
        let Some(flight) = self.flights.get(&delivery).filter(|flight| flight.worker == worker) else { return };
        let (id, route) = (flight.id, flight.route);
        let gone = self.queue.arrive(id, route, delivery, &[], Some((Waiting::Ready, false)));
        let declined = self.queue.change(id, |entry| {
            let mut declined = Vec::new();
            for part in entry.parts.as_mut_slice().iter_mut().filter(|part| part.waits_for(route)) {
                part.declined_by(&[route.provider]);
                part.again = Again::default();
                part.route = None;
                declined.extend_from_slice(part.recipients.as_slice());
            }
            declined
        });
        if gone {
            self.keep(vec![self.remove_by_hand(id, End::Cancelled, None)], actions);
        } else {
            self.declined.entry(id).or_default().extend(declined.into_iter().flatten());
            actions.push(Action::Lookup(id));
        }
        self.end_flight(delivery, worker, actions);
    }

    /// Whether a worker was told to log off, or to go.
    fn is_leaving(&self, worker: WorkerId) -> bool {
        self.providers.get(&worker.provider).is_none_or(|provider| !provider.life.is_ready())
    }

    pub(super) fn end_flight(&mut self, delivery: DeliveryId, worker: WorkerId, actions: &mut Vec<Action>) {
        self.flights.remove(&delivery);
        self.touched.insert(worker.provider);
        self.release_what_is_left(worker.provider);
        actions.push(Action::Forget(delivery));
    }
}

/// What comes after a delivery, for those who are not settled.
struct Sequel {
    /// What they wait for; `None` for the retry plan.
    waiting: Option<Waiting>,
    /// Whether it counts as an attempt.
    attempted: bool,
    /// Whether they wait only because the provider was busy.
    busy: bool,
    /// Why they were not served, in so far as nobody said more.
    why: Reply,
    again: Again,
}

/// What a provider's answer means. Nothing is put off for longer than `longest_ms`, whatever a worker wishes: a message is looked at
/// again when its time is up.
fn sequel(result: SubmitResult, end: EndMessage, again: Again, longest_ms: i64, now: Now) -> Sequel {
    let in_ms = |ms: i64| Some(Waiting::Deferred { due_ms: now.mono_ms + ms });
    let wished = |ms: u64| in_ms(i64::try_from(ms).unwrap_or(i64::MAX).min(longest_ms));
    let attempt = |waiting, why| Sequel { attempted: true, why, ..plain(waiting, "") };
    // So often in a row, and then later.
    let at_once = |why| {
        if again.resends < RESENDS_MAX {
            Sequel {
                again: Again { resends: again.resends + 1, ..Again::default() },
                ..plain(Some(Waiting::Ready), why)
            }
        } else {
            plain(in_ms(LATER_MS), why)
        }
    };
    let silence = || Reply::local(450, "4.3.0", "The provider said nothing about this recipient");
    match (result, end) {
        (SubmitResult::Error(reply), _) => attempt(None, reply.capped()),
        (SubmitResult::NetworkError { after_ms, reply }, _) => attempt(wished(after_ms), reply.capped()),
        // Nothing was done with it: it is still what it was.
        (SubmitResult::Busy, _) => {
            Sequel { busy: true, again, ..plain(in_ms(BUSY_MS), "The provider was busy all the time") }
        }
        (SubmitResult::Wait { after_ms }, _) => {
            Sequel { busy: true, again, ..plain(wished(after_ms), "The provider wanted to wait") }
        }
        // A person gave up on what is not served yet, or the delivery would have been passed on.
        (SubmitResult::NotMe, _) => plain(Some(Waiting::Ready), "The provider does not serve the recipient"),
        (SubmitResult::Cancelled, _) => at_once("The provider stopped the delivery each time"),
        (SubmitResult::NotWanted, _) if again.asked_by.is_some() => plain(Some(Waiting::Callback), KEPT),
        (SubmitResult::NotWanted, _) | (SubmitResult::Done, EndMessage::ResendLater) => {
            plain(in_ms(LATER_MS), "The provider wanted the message later each time")
        }
        (SubmitResult::Done, EndMessage::Done) => attempt(None, silence()),
        (SubmitResult::Done, EndMessage::Deferred) => plain(Some(Waiting::Callback), KEPT),
        (SubmitResult::Done, EndMessage::ResendNow) => at_once("The provider wanted the message again each time"),
    }
}

/// What comes after a delivery of which nothing was said: no attempt, and nothing to be remembered.
fn plain(waiting: Option<Waiting>, why: &str) -> Sequel {
    Sequel { waiting, attempted: false, busy: false, why: Reply::local(450, "4.4.7", why), again: Again::default() }
}
