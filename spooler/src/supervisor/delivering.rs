//! Messages go out, and what becomes of them.

use std::collections::{BTreeMap, BTreeSet};

use spooler_protocol::control::{MessageState, RecipientState};
use spooler_protocol::ids::{DeliveryId, MessageId};
use spooler_protocol::outcome::{Outcome, Reply, SubmitResult};

use super::event::{Action, Loudness, ReportKind, ReportedRecipient, SubmitOrder, WorkerId};
use super::{Flight, Pending, Supervisor, log};
use crate::policy::queue::{Standing, Waiting};
use crate::policy::routing::Route;
use crate::policy::{Now, ProviderId};
use crate::record::{Change, RecipientUpdate};

/// A provider that is busy is asked again after so long.
const BUSY_MS: i64 = 2000;
/// A message that was in flight in so many workers that died is set aside.
const DEATHS_MAX: u32 = 3;

/// What an attempt means for the recipients of a delivery.
#[derive(Default)]
pub(super) struct Verdict {
    sent: Vec<Sent>,
    failed: Vec<(u32, Reply)>,
    pub(super) deferred: Vec<(u32, Reply)>,
}

/// A recipient that was served.
struct Sent {
    recipient: ReportedRecipient,
    /// Whether a report of success, if one is wanted, is ours to make: a next hop may have taken that duty over.
    ours_to_report: bool,
}

impl Supervisor {
    /// Gives a provider's worker as many deliveries as it has credit for.
    pub(super) fn dispatch(&mut self, id: ProviderId, now: Now, actions: &mut Vec<Action>) {
        let Some(provider) = self.providers.get(&id) else { return };
        if !provider.life.is_ready() || provider.paused || self.stopping.is_some() {
            return;
        }
        // An offline provider tries by itself whether it can go on; a person's flush may want to see it fail.
        if provider.is_offline() && !self.is_flushing(id) {
            return;
        }
        let credit = u64::from(provider.announced.as_ref().map_or(0, |announced| announced.credit));
        let worker = WorkerId { provider: id, generation: provider.life.generation() };
        while self.queue.lane_of(id).is_some_and(|lane| lane.in_flight() < credit) {
            let delivery = DeliveryId(self.next);
            let Some(departure) = self.queue.depart(id, delivery, now.mono_ms) else { return };
            self.next += 1;
            let wants_success = self.queue.get(departure.id).is_some_and(|entry| entry.wants_success);
            let flight = Flight {
                worker,
                wants_success,
                id: departure.id,
                route: departure.route,
                recipients: departure.recipients.clone(),
                settled: BTreeSet::new(),
                deferred: BTreeMap::new(),
                attempt: departure.attempt,
                since_ms: now.mono_ms,
                phase: String::new(),
                bytes: 0,
                given_up: false,
            };
            self.flights.insert(delivery, flight);
            let (message, recipients, attempt) = (departure.id, departure.recipients, departure.attempt);
            actions.push(Action::Submit(SubmitOrder { worker, delivery, id: message, recipients, attempt }));
        }
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
        self.queue.settle(id, delivery, &indexes);
        self.record(delivery, verdict, false, now, actions);
    }

    /// A delivery is over.
    pub(super) fn on_finished(
        &mut self,
        worker: WorkerId,
        delivery: DeliveryId,
        result: SubmitResult,
        outcomes: Vec<(u32, Outcome)>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(mut verdict) = self.judge(worker, delivery, outcomes) else { return };
        let Some(flight) = self.flights.get_mut(&delivery) else { return };
        let mut deferred = std::mem::take(&mut flight.deferred);
        deferred.extend(std::mem::take(&mut verdict.deferred));
        verdict.deferred = deferred.into_iter().filter(|(index, _)| !flight.settled.contains(index)).collect();
        let named: BTreeSet<u32> = verdict.deferred.iter().map(|(index, _)| *index).collect();
        let open: Vec<u32> = flight
            .recipients
            .iter()
            .copied()
            .filter(|index| !flight.settled.contains(index) && !named.contains(index))
            .collect();
        let (id, route, given_up) = (flight.id, flight.route, flight.given_up);
        let mut wait = None;
        match result {
            _ if open.is_empty() => {}
            SubmitResult::Error(reply) => {
                let reply = reply.capped();
                verdict.deferred.extend(open.iter().map(|index| (*index, reply.clone())));
            }
            SubmitResult::Done => {
                let reply = Reply::local(450, "4.3.0", "The provider said nothing about this recipient");
                verdict.deferred.extend(open.iter().map(|index| (*index, reply.clone())));
            }
            SubmitResult::NetworkError { after_ms, reply } => {
                wait = Some(now.mono_ms + i64::try_from(after_ms).unwrap_or(i64::MAX));
                log(actions, Loudness::Info, format!("message {id}: {reply}"));
            }
            SubmitResult::NotWanted => wait = Some(now.mono_ms + BUSY_MS),
            SubmitResult::Busy => wait = Some(now.mono_ms + BUSY_MS),
            SubmitResult::Wait { after_ms } => {
                // Whatever a worker wishes, a message is looked at again when its time is up.
                let longest_ms = self.retry_plan(route.provider).map_or(BUSY_MS, |plan| plan.give_up_ms);
                wait = Some(now.mono_ms + i64::try_from(after_ms).unwrap_or(i64::MAX).min(longest_ms));
            }
            SubmitResult::NotMe => {
                // Nothing was done, says the contract; whom it has settled all the same is settled.
                let settled = verdict.settled_indexes();
                if !settled.is_empty() {
                    verdict.deferred.clear();
                    self.queue.settle(id, delivery, &settled);
                    self.record(delivery, verdict, false, now, actions);
                }
                self.pass_on(id, route, delivery, actions);
                self.end_flight(delivery, worker, actions);
                return;
            }
            SubmitResult::Cancelled => wait = Some(now.mono_ms),
        }
        if !verdict.sent.is_empty()
            && let Some(provider) = self.providers.get_mut(&worker.provider)
        {
            provider.life.on_success();
        }
        if given_up {
            verdict.deferred.clear();
        }
        self.conclude(delivery, verdict, wait.filter(|_| !given_up), now, actions);
        self.end_flight(delivery, worker, actions);
    }

    /// Turns outcomes into what they mean; `None` if the delivery is not this worker's. Unknown and repeated recipients are dropped.
    fn judge(&mut self, worker: WorkerId, delivery: DeliveryId, outcomes: Vec<(u32, Outcome)>) -> Option<Verdict> {
        let flight = self.flights.get_mut(&delivery).filter(|flight| flight.worker == worker)?;
        let mut verdict = Verdict::default();
        for (place, outcome) in outcomes {
            let Some(&index) = usize::try_from(place).ok().and_then(|place| flight.recipients.get(place)) else {
                continue;
            };
            if flight.settled.contains(&index) {
                continue;
            }
            if outcome.settles() {
                flight.settled.insert(index);
            }
            match outcome.capped() {
                Outcome::Delivered(reply) => {
                    let recipient = ReportedRecipient { index, reply, relayed: false };
                    verdict.sent.push(Sent { recipient, ours_to_report: true });
                }
                Outcome::Relayed { reply, reports } => {
                    let recipient = ReportedRecipient { index, reply, relayed: true };
                    verdict.sent.push(Sent { recipient, ours_to_report: !reports });
                }
                Outcome::Failed(reply) => verdict.failed.push((index, reply)),
                Outcome::Deferred(reply) => verdict.deferred.push((index, reply)),
            }
        }
        Some(verdict)
    }

    /// Ends a delivery in the schedule and on disk: settled recipients leave, the others wait.
    fn conclude(
        &mut self,
        delivery: DeliveryId,
        mut verdict: Verdict,
        wait: Option<i64>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(flight) = self.flights.get(&delivery) else { return };
        let (id, route, attempt) = (flight.id, flight.route, flight.attempt);
        let Some(entry) = self.queue.get(id) else { return };
        let age_ms = now.mono_ms - entry.born_ms;
        let plan = self.retry_plan(route.provider);
        if plan.as_ref().is_some_and(|plan| age_ms >= plan.give_up_ms) {
            verdict.failed.append(&mut verdict.deferred);
        }
        let next = if let Some(due_ms) = wait {
            Some((if due_ms > now.mono_ms { Waiting::Deferred { due_ms } } else { Waiting::Ready }, false))
        } else if verdict.deferred.is_empty() {
            None
        } else {
            let wait_ms = plan.as_ref().map_or(BUSY_MS, |plan| plan.wait_ms(attempt, &mut self.jitter));
            Some((Waiting::Deferred { due_ms: now.mono_ms + wait_ms }, true))
        };
        let settled = verdict.settled_indexes();
        self.note_flushed(id, route.provider, verdict.sent.len(), verdict.failed.len() + verdict.deferred.len());
        if let (Some((Waiting::Deferred { due_ms }, _)), Some(plan)) = (next, plan) {
            self.report_delay(delivery, &verdict, due_ms, &plan, now, actions);
        }
        let gone = self.queue.arrive(id, route, delivery, &settled, next);
        self.record(delivery, verdict, gone, now, actions);
    }

    /// Brings what became of recipients to disk; with a report where one may be wanted.
    fn record(&mut self, delivery: DeliveryId, verdict: Verdict, gone: bool, now: Now, actions: &mut Vec<Action>) {
        let Some(flight) = self.flights.get(&delivery) else { return };
        let (id, attempts, route, wants_success) = (flight.id, flight.attempt, flight.route, flight.wants_success);
        self.sent += verdict.sent.len() as u64;
        let next_try_ms = self.next_try_ms(id, route.provider, now);
        let provider = self.name(route.provider).to_owned();
        let update = |index: u32, state, reply: &Reply, next_try_ms| RecipientUpdate {
            index,
            state,
            attempts,
            next_try_ms,
            provider: Some(provider.clone()),
            reply: Some(reply.clone()),
        };
        let sent = verdict
            .sent
            .iter()
            .map(|sent| update(sent.recipient.index, RecipientState::Sent, &sent.recipient.reply, 0));
        let deferred =
            verdict.deferred.iter().map(|(index, reply)| update(*index, RecipientState::Pending, reply, next_try_ms));
        let failed = verdict.failed.iter().map(|(index, reply)| update(*index, RecipientState::Failed, reply, 0));
        let (settled, deferred): (Vec<RecipientUpdate>, Vec<RecipientUpdate>) =
            (sent.chain(failed).collect(), deferred.collect());
        for (index, reply) in &verdict.deferred {
            log(actions, Loudness::Info, format!("message {id} recipient {index} deferred by {provider}: {reply}"));
        }
        // What is tried again does not wait for a report to be built: by then the next attempt may be known.
        if !deferred.is_empty() {
            self.commit(vec![Change::Recipients { id, updates: deferred }], Pending::Nothing, actions);
        }
        let mut unit = Vec::new();
        if gone {
            unit.push(Change::Remove { id });
        } else if !settled.is_empty() {
            unit.push(Change::Recipients { id, updates: settled });
        }
        let ours = verdict.sent.into_iter().filter(|sent| wants_success && sent.ours_to_report);
        let ours: Vec<ReportedRecipient> = ours.map(|sent| sent.recipient).collect();
        if !verdict.failed.is_empty() {
            self.report_failure(id, verdict.failed, unit, actions);
            unit = Vec::new();
        }
        if !ours.is_empty() {
            self.report(id, ReportKind::Sent, ours, unit, actions);
        } else if !unit.is_empty() {
            self.commit(unit, Pending::Nothing, actions);
        }
    }

    /// Recipients fail without having been in flight.
    pub(super) fn fail(&mut self, id: MessageId, failed: Vec<(u32, Reply)>, actions: &mut Vec<Action>) {
        let updates = failed.iter().map(|(index, reply)| RecipientUpdate {
            index: *index,
            state: RecipientState::Failed,
            attempts: 0,
            next_try_ms: 0,
            provider: None,
            reply: Some(reply.clone()),
        });
        let gone = self.queue.get(id).is_none_or(|entry| entry.parts.as_slice().is_empty());
        let unit = if gone {
            self.queue.remove(id);
            vec![Change::Remove { id }]
        } else {
            vec![Change::Recipients { id, updates: updates.collect() }]
        };
        self.report_failure(id, failed, unit, actions);
    }

    /// The provider has said that a message is not for it: the next one that serves its recipients gets it.
    fn pass_on(&mut self, id: MessageId, route: Route, delivery: DeliveryId, actions: &mut Vec<Action>) {
        self.queue.arrive(id, route, delivery, &[], Some((Waiting::Ready, false)));
        self.queue.change(id, |entry| {
            for part in entry.parts.as_mut_slice().iter_mut().filter(|part| part.waits_for(route)) {
                part.not_me.get_or_insert_default().push(route.provider);
                part.route = None;
            }
        });
        actions.push(Action::Lookup(id));
    }

    fn end_flight(&mut self, delivery: DeliveryId, worker: WorkerId, actions: &mut Vec<Action>) {
        self.flights.remove(&delivery);
        self.touched.insert(worker.provider);
        actions.push(Action::Forget(delivery));
    }

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

    /// When a provider's part of a message is tried next, as it is kept on disk.
    fn next_try_ms(&self, id: MessageId, provider: ProviderId, now: Now) -> i64 {
        let entry = self.queue.get(id);
        let parts = entry.map(|entry| entry.parts.as_slice()).unwrap_or_default();
        let due =
            parts.iter().filter(|part| part.route.is_some_and(|route| route.provider == provider)).find_map(|part| {
                match part.waiting {
                    Waiting::Deferred { due_ms } => Some(due_ms),
                    Waiting::Ready | Waiting::InFlight(_) => None,
                }
            });
        due.map_or(0, |due_ms| now.wall_ms + (due_ms - now.mono_ms))
    }
}

impl Verdict {
    fn settled_indexes(&self) -> Vec<u32> {
        let sent = self.sent.iter().map(|sent| sent.recipient.index);
        sent.chain(self.failed.iter().map(|(index, _)| *index)).collect()
    }
}
