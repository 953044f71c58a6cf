//! Tokens, slots and priorities: who may run, how long anybody waits, and who is urgent to the kernel.

use std::collections::{BTreeMap, BTreeSet};

use spooler::policy::priority_plan::Level;
use spooler::policy::scheduler::{OVERDUE_MS, PATIENCE_MS_MIN, ROUNDS_MAX};
use spooler::policy::{Now, ProviderId};
use spooler::supervisor::event::{Action, Answer, Ask, AskId, Event, WorkerId, WorkerNews};
use spooler_protocol::calls::FlushFlags;
use spooler_protocol::from_worker::FromWorker;
use spooler_protocol::ids::Token;
use spooler_protocol::notification::{Notification, SystemMessage};
use spooler_protocol::to_worker::ToWorker;

use super::gate::Gate;
use super::holding::{Hold, Section, Worker};
use super::machine::is_farewell;
use super::{Broken, Verdict, demand};
use crate::plan::{ANSWER_MS, Plan};

/// A token that was given beside the slots is not asked back for so long, milliseconds.
const FORCED_MS: i64 = 10_000;

/// The second bookkeeping of tokens.
#[derive(Debug)]
pub(crate) struct Tokens {
    workers: BTreeMap<ProviderId, Worker>,
    interactive: BTreeMap<ProviderId, bool>,
    pub(super) gate: Gate,
    /// Since when the gate keeps nobody waiting.
    clear_since_ms: i64,
    slice_ms: i64,
    critical_max_ms: i64,
    slack_ms: i64,
    flushes: BTreeSet<u64>,
    flushes_asked: BTreeSet<AskId>,
    given: BTreeSet<Token>,
    /// Given in this step to workers that did not want any.
    unasked: BTreeSet<Token>,
    /// The longest wait for a token that was seen, milliseconds: for people.
    pub(crate) longest_wait_ms: i64,
}

impl Tokens {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            workers: BTreeMap::new(),
            interactive: BTreeMap::new(),
            gate: Gate::new(plan),
            clear_since_ms: 0,
            slice_ms: i64::from(plan.slice_ms),
            critical_max_ms: i64::from(plan.critical_max_s) * 1000,
            slack_ms: plan.tick_late_ms_max + 2,
            flushes: BTreeSet::new(),
            flushes_asked: BTreeSet::new(),
            given: BTreeSet::new(),
            unasked: BTreeSet::new(),
            longest_wait_ms: 0,
        }
    }

    /// The configuration is as it is now.
    pub(crate) fn configure(&mut self, plan: &Plan) {
        self.gate.configure(plan);
    }

    /// How a provider is configured when its worker says hello.
    pub(crate) fn note_interactive(&mut self, provider: ProviderId, interactive: bool) {
        self.interactive.insert(provider, interactive);
    }

    /// Tokens that are out.
    pub(crate) fn out(&self) -> usize {
        self.workers.values().filter(|worker| matches!(worker.hold, Hold::Holding { .. })).count()
    }

    /// Whether nothing excuses a worker that says nothing: it is logged on, waits for no token, and is in no section.
    pub(super) fn could_answer(&self, id: WorkerId) -> bool {
        let worker = self.workers.get(&id.provider).filter(|worker| worker.id == id);
        worker.is_some_and(|worker| {
            let waits = matches!(worker.hold, Hold::Wanting { .. });
            !worker.passing && !waits && worker.section.is_none() && !self.is_anybody_alone()
        })
    }

    /// Whether nothing excuses a worker that computes without end: it holds its token as one of many, or has none.
    pub(super) fn could_be_lost(&self, id: WorkerId) -> bool {
        let flushed =
            |worker: &&Worker| worker.flushing.0 == 0 && self.flushes.is_empty() && self.flushes_asked.is_empty();
        self.workers.get(&id.provider).filter(flushed).is_some() && self.could_answer(id)
    }

    /// Workers that want a token, have none, and are kept waiting by nothing but each other.
    pub(crate) fn wanting(&self) -> usize {
        if self.gate.is_in_the_way() {
            return 0;
        }
        self.workers.values().filter(|worker| matches!(worker.hold, Hold::Wanting { .. })).count()
    }

    pub(super) fn hears_other(&mut self, event: &Event, now: Now) {
        match event {
            Event::Observed(seen) => self.gate.observed(*seen, now.mono_ms),
            Event::System(SystemMessage::Resume) => self.forget_told(),
            Event::Asked(ask, Ask::FlushBegin(_)) => {
                self.flushes_asked.insert(*ask);
            }
            Event::Asked(_, Ask::FlushEnd(number)) => {
                self.flushes.remove(number);
            }
            _ => {}
        }
    }

    pub(super) fn hears(&mut self, id: WorkerId, news: &WorkerNews, now: Now) {
        if let WorkerNews::Started { .. } = news {
            let interactive = self.interactive.get(&id.provider).copied().unwrap_or_default();
            self.workers.insert(
                id.provider,
                Worker {
                    id,
                    interactive,
                    passing: true,
                    logs_off: false,
                    told: false,
                    flushing: FlushFlags::default(),
                    hold: Hold::Idle,
                    section: None,
                    level: None,
                    cpu_us: 0,
                    idle_ms: now.mono_ms,
                },
            );
            return;
        }
        if let WorkerNews::Said { cpu_us: Some(cpu_us), .. } | WorkerNews::Cpu(Some(cpu_us)) = news {
            self.charge(id, *cpu_us, now);
        }
        let Some(worker) = self.workers.get_mut(&id.provider).filter(|worker| worker.id == id) else { return };
        match news {
            WorkerNews::Died(_) | WorkerNews::StartFailed(_) => {
                self.workers.remove(&id.provider);
            }
            WorkerNews::Said { said: FromWorker::LoggedOn(_), .. } => worker.passing = worker.logs_off,
            WorkerNews::Said { said: FromWorker::Want, .. } if worker.hold == Hold::Idle => {
                // Somebody may have wanted it to get one before that, to see whether it is alive.
                let asked_ms = (worker.idle_ms + ANSWER_MS / 2).min(now.mono_ms);
                worker.hold = Hold::Wanting { since_ms: now.mono_ms, asked_ms };
            }
            WorkerNews::Said { said: FromWorker::Yield { token, more }, .. } => {
                if matches!(worker.hold, Hold::Holding { token: held, .. } if held == *token) {
                    let wants = Hold::Wanting { since_ms: now.mono_ms, asked_ms: now.mono_ms };
                    worker.hold = if *more { wants } else { Hold::Idle };
                    worker.idle_ms = now.mono_ms;
                }
            }
            WorkerNews::Said { said: FromWorker::CriticalBegin { section: number, .. }, .. } => {
                let new = || Section { open: BTreeSet::new(), since_ms: now.mono_ms, alone: false };
                worker.section.get_or_insert_with(new).open.insert(*number);
            }
            WorkerNews::Said { said: FromWorker::CriticalEnd { section: number }, .. } => {
                let left = worker.section.take_if(|section| section.open.remove(number) && section.open.is_empty());
                drop(left);
            }
            WorkerNews::Priority(Level::Critical { .. }, reached) => {
                if let Some(section) = &mut worker.section {
                    section.alone |= reached.refused.is_some();
                }
            }
            _ => {}
        }
    }

    /// What background workers use while the gate is closed is counted.
    fn charge(&mut self, id: WorkerId, cpu_us: u64, now: Now) {
        let Some(worker) = self.workers.get_mut(&id.provider).filter(|worker| worker.id == id) else { return };
        let used_us = cpu_us.saturating_sub(worker.cpu_us);
        worker.cpu_us = cpu_us;
        let urgent = self.workers.get(&id.provider).is_none_or(|worker| self.is_urgent(worker));
        if !urgent {
            self.gate.charge(used_us, now.mono_ms);
        }
    }

    fn recalls(&mut self, id: WorkerId, token: Token, now: Now) {
        self.unasked.remove(&token);
        let worker = self.workers.get_mut(&id.provider).filter(|worker| worker.id == id);
        if let Some(Worker { hold: Hold::Holding { token: held, recalled_ms, .. }, .. }) = worker
            && *held == token
        {
            recalled_ms.get_or_insert(now.mono_ms);
        }
    }

    pub(super) fn wants(&mut self, now: Now, action: &Action) -> Verdict {
        match action {
            Action::Send(id, ToWorker::Grant { token, recalled, .. }) => {
                let verdict = self.grants(*id, *token, now);
                if *recalled {
                    self.recalls(*id, *token, now);
                }
                verdict
            }
            Action::Look { every_ms } => {
                self.gate.looks(*every_ms);
                Ok(())
            }
            Action::Send(id, ToWorker::Recall { token }) => {
                self.recalls(*id, *token, now);
                Ok(())
            }
            Action::Send(id, ToWorker::CriticalEnded { up_to, .. }) => {
                if let Some(worker) = self.workers.get_mut(&id.provider).filter(|worker| worker.id == *id) {
                    let over = |section: &mut Section| {
                        section.open.retain(|number| number > up_to);
                        section.open.is_empty()
                    };
                    drop(worker.section.take_if(over));
                }
                Ok(())
            }
            Action::Send(id, ToWorker::FlushQueues(flags)) => self.flushes_worker(*id, |flushing| flushing | *flags),
            Action::Send(id, ToWorker::Notify(Notification::BeginOutboundFlush)) => {
                self.flushes_worker(*id, |flushing| flushing | FlushFlags::OUTBOUND)
            }
            Action::Send(id, ToWorker::Notify(Notification::BeginInboundFlush)) => {
                self.flushes_worker(*id, |flushing| flushing | FlushFlags::INBOUND)
            }
            Action::Send(id, ToWorker::Notify(Notification::EndOutboundFlush)) => {
                self.flushes_worker(*id, |flushing| FlushFlags(flushing.0 & !FlushFlags::OUTBOUND.0))
            }
            Action::Send(id, ToWorker::Notify(Notification::EndInboundFlush)) => {
                self.flushes_worker(*id, |flushing| FlushFlags(flushing.0 & !FlushFlags::INBOUND.0))
            }
            Action::Send(id, ToWorker::Notify(Notification::System(message))) => {
                let told = self.workers.get_mut(&id.provider).filter(|worker| worker.id == *id);
                told.into_iter().for_each(|worker| worker.told |= is_farewell(message));
                Ok(())
            }
            Action::LetMachineGo => {
                self.forget_told();
                Ok(())
            }
            // One that is to go before it has logged on passes the gate as well.
            Action::Send(id, ToWorker::Logoff { .. }) | Action::Term(id) | Action::Kill(id) => {
                if let Some(worker) = self.workers.get_mut(&id.provider).filter(|worker| worker.id == *id) {
                    (worker.passing, worker.logs_off) = (true, true);
                }
                Ok(())
            }
            Action::SetPriority(id, level) => self.sets(*id, *level, now),
            Action::Answer(ask, Answer::Flush(result)) => {
                self.flushes_asked.remove(ask);
                self.flushes.extend(result.as_ref().ok());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn forget_told(&mut self) {
        self.workers.values_mut().for_each(|worker| worker.told = false);
    }

    /// Whether a worker needs no slot. While a flush runs, nobody here knows for whom.
    fn is_urgent(&self, worker: &Worker) -> bool {
        worker.interactive
            || worker.passing
            || worker.told
            || worker.section.is_some()
            || worker.flushing.0 & (FlushFlags::OUTBOUND | FlushFlags::INBOUND).0 != 0
            || !self.flushes.is_empty()
            || !self.flushes_asked.is_empty()
    }

    fn flushes_worker(&mut self, id: WorkerId, change: impl FnOnce(FlushFlags) -> FlushFlags) -> Verdict {
        if let Some(worker) = self.workers.get_mut(&id.provider).filter(|worker| worker.id == id) {
            worker.flushing = change(worker.flushing);
        }
        Ok(())
    }

    fn grants(&mut self, id: WorkerId, token: Token, now: Now) -> Verdict {
        let worker = self.workers.get(&id.provider).filter(|worker| worker.id == id);
        let Some(worker) = worker else {
            return demand(false, "tokens go to workers that live", || format!("{id:?}"));
        };
        // A worker whose deliveries are silent is given one unasked, to be asked for it at once.
        let since_ms = match worker.hold {
            Hold::Wanting { asked_ms, .. } => asked_ms,
            Hold::Idle => {
                if !worker.passing {
                    self.unasked.insert(token);
                }
                (worker.idle_ms + ANSWER_MS / 2).min(now.mono_ms)
            }
            Hold::Holding { .. } => {
                return demand(false, "one token each, for those that want one", || {
                    format!("{id:?}: {:?}", worker.hold)
                });
            }
        };
        demand(self.given.insert(token), "every token is new", || format!("{token}"))?;
        let is_alone = |worker: &Worker| worker.section.as_ref().is_some_and(|section| section.alone);
        let alone = self.workers.values().find(|other| is_alone(other));
        demand(alone.is_none() || is_alone(worker), "a section that is not raised runs alone", || {
            format!("{id:?} beside {alone:?}")
        })?;
        let waited_long = now.mono_ms - since_ms >= self.gate.force_after_ms();
        let forced_until_ms = waited_long.then_some(now.mono_ms + FORCED_MS);
        if let Hold::Wanting { since_ms, .. } = worker.hold {
            self.longest_wait_ms = self.longest_wait_ms.max(now.mono_ms - since_ms);
        }
        let urgent = self.is_urgent(worker);
        let beside_slots = !urgent && self.demand_slot(id, waited_long, now)?;
        if let Some(worker) = self.workers.get_mut(&id.provider) {
            worker.hold = Hold::Holding { token, recalled_ms: None, forced_until_ms, beside_slots };
        }
        Ok(())
    }

    /// There is a slot for a worker, or it has waited so long that it needs none: one at a time does so.
    /// Gives whether it has none.
    fn demand_slot(&mut self, id: WorkerId, waited_long: bool, now: Now) -> Result<bool, Broken> {
        let paid = self.gate.is_paid(now.mono_ms);
        let pauses = self.gate.is_paused(now.mono_ms);
        let slots = if pauses { 0 } else { usize::try_from(self.gate.slots_max()).unwrap_or_default() };
        let out: Vec<&Worker> = self.workers.values().filter(|other| self.has_slot(other, now)).collect();
        let is_forced = |worker: &&&Worker| match worker.hold {
            Hold::Holding { forced_until_ms, .. } => forced_until_ms.is_some_and(|until_ms| now.mono_ms < until_ms),
            Hold::Idle | Hold::Wanting { .. } => false,
        };
        let beside = out.iter().filter(is_forced).count().min(1);
        let fits = out.len() - beside < slots && paid;
        let rule = if pauses {
            "in a pause nobody begins"
        } else if self.gate.is_closed() {
            "a closed gate lets only a trickle through"
        } else {
            "tokens out do not exceed the slots"
        };
        // Who only may have been forced may as well have had a slot then.
        let has_none = |worker: &&&Worker| matches!(worker.hold, Hold::Holding { beside_slots: true, .. });
        let forced = waited_long && !out.iter().any(|worker| has_none(&worker));
        demand(fits || forced, rule, || format!("{id:?} gets one; of {slots} are out: {out:?}; {:?}", self.gate))?;
        Ok(!fits)
    }

    fn has_slot(&self, worker: &Worker, now: Now) -> bool {
        match worker.hold {
            Hold::Holding { recalled_ms, .. } => {
                let late = |recalled_ms: i64| now.mono_ms - recalled_ms > self.slice_ms + OVERDUE_MS;
                !recalled_ms.is_some_and(late) && !self.is_urgent(worker)
            }
            Hold::Idle | Hold::Wanting { .. } => false,
        }
    }

    fn sets(&mut self, id: WorkerId, level: Level, now: Now) -> Verdict {
        let Some(worker) = self.workers.get_mut(&id.provider).filter(|worker| worker.id == id) else { return Ok(()) };
        worker.level = Some(level);
        match level {
            Level::Critical { .. } => {
                demand(worker.section.is_some(), "priority is raised in sections only", || format!("{id:?}"))
            }
            Level::Base { .. } | Level::Demoted { .. } => {
                let overlong = |section: &Section| now.mono_ms - section.since_ms >= self.critical_max_ms;
                if worker.section.as_ref().is_some_and(overlong) {
                    worker.section = None;
                }
                Ok(())
            }
        }
    }

    fn is_anybody_alone(&self) -> bool {
        self.workers.values().any(|worker| worker.section.as_ref().is_some_and(|section| section.alone))
    }

    /// How long somebody may wait for a token at most.
    pub(super) fn bound_ms(&self) -> i64 {
        let workers = i64::try_from(self.workers.len()).unwrap_or(1);
        let turn_ms = self.slice_ms + OVERDUE_MS + self.slack_ms;
        if self.gate.is_in_the_way() {
            // One at a time gets a token regardless, and keeps it for a while.
            return self.gate.force_after_ms() + workers * (FORCED_MS + turn_ms) + self.slack_ms;
        }
        let slots = i64::from(self.gate.slots_max().max(1));
        let rounds = workers.unsigned_abs().div_ceil(slots.unsigned_abs());
        let rounds = i64::try_from(rounds).unwrap_or(1);
        let patience_ms = (rounds * ROUNDS_MAX * self.slice_ms).max(PATIENCE_MS_MIN);
        patience_ms + rounds * turn_ms + self.slack_ms
    }

    /// While background work waits and the gate goes by what others use, somebody looks.
    fn demand_looks(&mut self, now: Now, asleep: bool) -> Verdict {
        let background = |worker: &Worker| matches!(worker.hold, Hold::Wanting { .. }) && !self.is_urgent(worker);
        let waits = !asleep && self.workers.values().any(background);
        let unseen_ms = self.gate.unseen_ms(waits, now.mono_ms);
        demand(unseen_ms <= self.slack_ms, "somebody looks while background work waits", || format!("{unseen_ms} ms"))
    }

    /// Where others may want what we use, it is asked back, so that they can show it.
    fn demand_pause(&mut self, asleep: bool) -> Verdict {
        if !self.gate.take_begun() || asleep {
            return Ok(());
        }
        let keeps = |worker: &&Worker| {
            let kept = matches!(worker.hold, Hold::Holding { recalled_ms: None, forced_until_ms: None, .. });
            kept && !self.is_urgent(worker)
        };
        let keeps = self.workers.values().find(keeps);
        demand(keeps.is_none(), "for a pause tokens are asked back", || format!("{keeps:?}; {:?}", self.gate))
    }

    pub(super) fn stepped(&mut self, now: Now, asleep: bool) -> Verdict {
        let alone = self.is_anybody_alone();
        let (in_the_way, clear_since_ms) = (self.gate.is_in_the_way(), &mut self.clear_since_ms);
        if in_the_way {
            *clear_since_ms = now.mono_ms;
        }
        // What somebody waited for the gate is not held against the others.
        let clear_since_ms = if in_the_way { i64::MIN } else { *clear_since_ms };
        let bound_ms = self.bound_ms();
        self.demand_looks(now, asleep)?;
        self.demand_pause(asleep)?;
        demand(self.unasked.is_empty(), "one token each, for those that want one", || {
            format!("{:?} were not wanted, nor asked back at once", self.unasked)
        })?;
        for worker in self.workers.values_mut() {
            let raised = matches!(worker.level, Some(Level::Critical { .. }));
            let since = worker.section.as_ref().map(|section| section.since_ms);
            let in_time = since.is_some_and(|since| now.mono_ms - since <= self.critical_max_ms + 2 * self.slack_ms);
            demand(!raised || in_time, "priority is put back", || format!("{worker:?} at {now:?}"))?;
            if let Hold::Wanting { since_ms, .. } = &mut worker.hold {
                // Who has a section that was raised waits for the other one, too.
                if asleep || (alone && !worker.section.as_ref().is_some_and(|section| section.alone)) {
                    *since_ms = now.mono_ms;
                }
                let urgent = worker.interactive || worker.told || worker.section.is_some();
                demand(!urgent || alone || asleep, "who is urgent waits for nobody", || format!("{:?}", worker.id))?;
                let waited_ms = now.mono_ms - (*since_ms).max(clear_since_ms);
                demand(waited_ms <= bound_ms, "nobody waits past the bound", || {
                    format!("{:?} waits for a token since {waited_ms} ms; the bound is {bound_ms}", worker.id)
                })?;
            }
        }
        Ok(())
    }

    pub(super) fn supervisor_gone(&mut self) {
        self.gate.supervisor_gone();
        self.workers.clear();
        self.flushes.clear();
        self.flushes_asked.clear();
        self.given.clear();
        self.unasked.clear();
    }
}
