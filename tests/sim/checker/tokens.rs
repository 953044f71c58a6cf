//! Tokens, slots and priorities: who may run, how long anybody waits, and who is urgent to the kernel.

use std::collections::{BTreeMap, BTreeSet};

use spooler::policy::priority_plan::Level;
use spooler::policy::scheduler::{OVERDUE_MS, PATIENCE_MS_MIN, ROUNDS_MAX};
use spooler::policy::{Now, ProviderId};
use spooler::supervisor::event::{Action, Answer, Ask, AskId, Event, WorkerId, WorkerNews};
use spooler_protocol::calls::FlushFlags;
use spooler_protocol::from_worker::FromWorker;
use spooler_protocol::ids::Token;
use spooler_protocol::notification::Notification;
use spooler_protocol::to_worker::ToWorker;

use super::{Verdict, demand};
use crate::plan::Plan;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    Idle,
    Wanting { since_ms: i64 },
    Holding { token: Token, recalled_ms: Option<i64> },
}

#[derive(Clone, Debug)]
struct Section {
    /// Those that are open, by number.
    open: BTreeSet<u64>,
    since_ms: i64,
    /// The priority was refused: nobody else gets a token.
    alone: bool,
}

#[derive(Debug)]
struct Worker {
    id: WorkerId,
    interactive: bool,
    /// It logs on or off.
    passing: bool,
    logs_off: bool,
    /// In which directions it is flushed.
    flushing: FlushFlags,
    hold: Hold,
    section: Option<Section>,
    level: Option<Level>,
}

/// The second bookkeeping of tokens.
#[derive(Debug)]
pub(crate) struct Tokens {
    workers: BTreeMap<ProviderId, Worker>,
    interactive: BTreeMap<ProviderId, bool>,
    slots: u32,
    slice_ms: i64,
    critical_max_ms: i64,
    slack_ms: i64,
    flushes: BTreeSet<u64>,
    flushes_asked: BTreeSet<AskId>,
    given: BTreeSet<Token>,
    /// The longest wait for a token that was seen, milliseconds: for people.
    pub(crate) longest_wait_ms: i64,
}

impl Tokens {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            workers: BTreeMap::new(),
            interactive: BTreeMap::new(),
            slots: plan.slots,
            slice_ms: i64::from(plan.slice_ms),
            critical_max_ms: i64::from(plan.critical_max_s) * 1000,
            slack_ms: plan.tick_late_ms_max + 2,
            flushes: BTreeSet::new(),
            flushes_asked: BTreeSet::new(),
            given: BTreeSet::new(),
            longest_wait_ms: 0,
        }
    }

    /// The configuration is as it is now.
    pub(crate) fn configure(&mut self, plan: &Plan) {
        self.slots = plan.slots;
    }

    /// How a provider is configured when its worker says hello.
    pub(crate) fn note_interactive(&mut self, provider: ProviderId, interactive: bool) {
        self.interactive.insert(provider, interactive);
    }

    /// Tokens that are out.
    pub(crate) fn out(&self) -> usize {
        self.workers.values().filter(|worker| matches!(worker.hold, Hold::Holding { .. })).count()
    }

    /// Workers that want a token and have none.
    pub(crate) fn wanting(&self) -> usize {
        self.workers.values().filter(|worker| matches!(worker.hold, Hold::Wanting { .. })).count()
    }

    pub(super) fn hears_other(&mut self, event: &Event) {
        match event {
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
                    flushing: FlushFlags::default(),
                    hold: Hold::Idle,
                    section: None,
                    level: None,
                },
            );
            return;
        }
        let Some(worker) = self.workers.get_mut(&id.provider).filter(|worker| worker.id == id) else { return };
        match news {
            WorkerNews::Died(_) | WorkerNews::StartFailed(_) => {
                self.workers.remove(&id.provider);
            }
            WorkerNews::Said { said: FromWorker::LoggedOn(_), .. } => worker.passing = worker.logs_off,
            WorkerNews::Said { said: FromWorker::Want, .. } if worker.hold == Hold::Idle => {
                worker.hold = Hold::Wanting { since_ms: now.mono_ms };
            }
            WorkerNews::Said { said: FromWorker::Yield { token, more }, .. } => {
                if matches!(worker.hold, Hold::Holding { token: held, .. } if held == *token) {
                    worker.hold = if *more { Hold::Wanting { since_ms: now.mono_ms } } else { Hold::Idle };
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

    pub(super) fn wants(&mut self, now: Now, action: &Action) -> Verdict {
        match action {
            Action::Send(id, ToWorker::Grant { token, .. }) => self.grants(*id, *token, now),
            Action::Send(id, ToWorker::Recall { token }) => {
                let worker = self.workers.get_mut(&id.provider).filter(|worker| worker.id == *id);
                if let Some(Worker { hold: Hold::Holding { token: held, recalled_ms, .. }, .. }) = worker
                    && held == token
                {
                    recalled_ms.get_or_insert(now.mono_ms);
                }
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
            Action::Send(id, ToWorker::FlushQueues(flags)) => {
                self.flushes_worker(*id, |flushing| flushing | *flags);
                Ok(())
            }
            Action::Send(id, ToWorker::Notify(Notification::EndOutboundFlush)) => {
                self.flushes_worker(*id, |flushing| FlushFlags(flushing.0 & !FlushFlags::OUTBOUND.0));
                Ok(())
            }
            Action::Send(id, ToWorker::Notify(Notification::EndInboundFlush)) => {
                self.flushes_worker(*id, |flushing| FlushFlags(flushing.0 & !FlushFlags::INBOUND.0));
                Ok(())
            }
            // One that is to go before it has logged on passes the gate as well.
            Action::Send(id, ToWorker::Logoff { .. }) | Action::Term(id) => {
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

    /// Whether a worker needs no slot. While a flush runs, nobody here knows for whom.
    fn is_urgent(&self, worker: &Worker) -> bool {
        worker.interactive
            || worker.passing
            || worker.section.is_some()
            || worker.flushing.0 & (FlushFlags::OUTBOUND | FlushFlags::INBOUND).0 != 0
            || !self.flushes.is_empty()
            || !self.flushes_asked.is_empty()
    }

    fn flushes_worker(&mut self, id: WorkerId, change: impl FnOnce(FlushFlags) -> FlushFlags) {
        if let Some(worker) = self.workers.get_mut(&id.provider).filter(|worker| worker.id == id) {
            worker.flushing = change(worker.flushing);
        }
    }

    fn grants(&mut self, id: WorkerId, token: Token, now: Now) -> Verdict {
        let worker = self.workers.get(&id.provider).filter(|worker| worker.id == id);
        let Some(worker) = worker else {
            return demand(false, "tokens go to workers that live", || format!("{id:?}"));
        };
        let Hold::Wanting { since_ms } = worker.hold else {
            return demand(false, "one token each, for those that want one", || format!("{id:?}: {:?}", worker.hold));
        };
        demand(self.given.insert(token), "every token is new", || format!("{token}"))?;
        let is_alone = |worker: &Worker| worker.section.as_ref().is_some_and(|section| section.alone);
        let alone = self.workers.values().find(|other| is_alone(other));
        demand(alone.is_none() || is_alone(worker), "a section that is not raised runs alone", || {
            format!("{id:?} beside {alone:?}")
        })?;
        if !self.is_urgent(worker) {
            let taken = self.workers.values().filter(|other| self.has_slot(other, now)).count();
            demand(
                taken < usize::try_from(self.slots).unwrap_or_default(),
                "tokens out do not exceed the slots",
                || {
                    let out = self.workers.values().filter(|other| self.has_slot(other, now));
                    format!("{id:?} gets one; of {} are out: {:?}", self.slots, out.collect::<Vec<_>>())
                },
            )?;
        }
        self.longest_wait_ms = self.longest_wait_ms.max(now.mono_ms - since_ms);
        if let Some(worker) = self.workers.get_mut(&id.provider) {
            worker.hold = Hold::Holding { token, recalled_ms: None };
        }
        Ok(())
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

    pub(super) fn stepped(&mut self, now: Now) -> Verdict {
        let alone = self.workers.values().any(|worker| worker.section.as_ref().is_some_and(|section| section.alone));
        let rounds = i64::try_from(self.workers.len().div_ceil(usize::try_from(self.slots).unwrap_or(1).max(1)));
        let rounds = rounds.unwrap_or(1);
        let patience_ms = (rounds * ROUNDS_MAX * self.slice_ms).max(PATIENCE_MS_MIN);
        let bound_ms = patience_ms + rounds * (self.slice_ms + OVERDUE_MS + self.slack_ms) + self.slack_ms;
        for worker in self.workers.values_mut() {
            let raised = matches!(worker.level, Some(Level::Critical { .. }));
            let since = worker.section.as_ref().map(|section| section.since_ms);
            let in_time = since.is_some_and(|since| now.mono_ms - since <= self.critical_max_ms + 2 * self.slack_ms);
            demand(!raised || in_time, "priority is put back", || format!("{worker:?} at {now:?}"))?;
            if let Hold::Wanting { since_ms } = &mut worker.hold {
                // Who has a section that was raised waits for the other one, too.
                if alone && !worker.section.as_ref().is_some_and(|section| section.alone) {
                    *since_ms = now.mono_ms;
                }
                demand(now.mono_ms - *since_ms <= bound_ms, "nobody waits past the bound", || {
                    format!(
                        "{:?} waits for a token since {} ms; the bound is {bound_ms}",
                        worker.id,
                        now.mono_ms - *since_ms
                    )
                })?;
            }
        }
        Ok(())
    }

    pub(super) fn supervisor_gone(&mut self) {
        self.workers.clear();
        self.flushes.clear();
        self.flushes_asked.clear();
        self.given.clear();
    }
}
