//! Who holds a token next: weighted fair by the CPU that workers really use.
//!
//! Each worker has a virtual time that grows with the CPU it used, divided by its weight; among those that want a token the one
//! with the least goes first. A worker that was idle starts at the present, not in the past: idleness is not saved up.
//!
//! **Bound.** With `w` workers, `s` slots and a slice of `t`, a round is `ceil(w/s)` slices. Who has waited for [`ROUNDS_MAX`] rounds
//! (at least [`PATIENCE_MS_MIN`]) goes before all that have not, whatever the virtual times say: one that uses little CPU in its
//! slices because it waits for the disk, or has a large weight, would otherwise be first again and again. From then on every other
//! one goes before it at most once, and a holder that does not give its token back in time does not keep its slot. So nobody waits
//! longer than that patience and `ceil(w/s)` times (`t` + [`OVERDUE_MS`]).
//!
//! Listening providers, flushes and critical sections do not need a slot: somebody waits for them.

use std::collections::BTreeMap;

use spooler_protocol::ids::Token;
use spooler_protocol::status::TokenState;

use crate::policy::ProviderId;

/// A token that was recalled and is not back so long after that, and after its slice, does not keep its slot.
pub const OVERDUE_MS: i64 = 1000;
/// Rounds that a worker waits for its turn by virtual time.
pub const ROUNDS_MAX: i64 = 5;
/// It waits so long at least.
pub const PATIENCE_MS_MIN: i64 = 1000;
/// CPU past a slice, or without a token, that is not worth a word, microseconds.
const TOLERANCE_US: u64 = 10_000;
const WEIGHT_BASE: u64 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    Idle,
    Wanting,
    Holding { token: Token, since_ms: i64, recalled_ms: Option<i64> },
}

/// Why a worker needs no slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Urgency {
    /// Somebody waits for its answers.
    pub interactive: bool,
    /// A flush of its queue runs.
    pub flush: bool,
    /// It has an open critical section.
    pub critical: bool,
}

impl Urgency {
    fn any(self) -> bool {
        self.interactive || self.flush || self.critical
    }
}

#[derive(Clone, Debug)]
struct Worker {
    weight: u64,
    urgency: Urgency,
    hold: Hold,
    virtual_us: u64,
    cpu_us: u64,
    /// CPU since it got its token, or gave it back.
    stretch_us: u64,
    overdraft_us: u64,
    /// Its section is to run alone.
    alone: bool,
    /// Since when it waits for a token.
    waits_since_ms: Option<i64>,
}

impl Worker {
    fn turn(&mut self, hold: Hold) {
        self.hold = hold;
        self.stretch_us = 0;
        self.waits_since_ms = None;
    }
}

/// What is to be said to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may run.
    Grant(ProviderId, Token),
    /// It is to stop when its slice is used up, or at once if it is asleep.
    Recall(ProviderId, Token),
}

/// Tokens and who has them.
#[derive(Debug)]
pub struct Scheduler {
    slots: u32,
    slice_us: u64,
    next_token: u64,
    workers: BTreeMap<ProviderId, Worker>,
}

impl Scheduler {
    /// With so many slots and slices of so many milliseconds.
    #[must_use]
    pub fn new(slots: u32, slice_ms: u32) -> Self {
        Self { slots: slots.max(1), slice_us: u64::from(slice_ms) * 1000, next_token: 1, workers: BTreeMap::new() }
    }

    /// Changes the number of slots and the slice.
    pub fn configure(&mut self, slots: u32, slice_ms: u32) {
        self.slots = slots.max(1);
        self.slice_us = u64::from(slice_ms) * 1000;
    }

    /// Tokens that may be out for background work.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// Length of a slice, milliseconds.
    #[must_use]
    pub fn slice_ms(&self) -> u32 {
        u32::try_from(self.slice_us / 1000).unwrap_or(u32::MAX)
    }

    /// A worker of a provider is there. CPU is counted from zero.
    pub fn add(&mut self, id: ProviderId, weight: u32, interactive: bool) {
        let virtual_us = self.workers.get(&id).map_or(0, |worker| worker.virtual_us);
        let urgency = Urgency { interactive, ..Urgency::default() };
        let weight = u64::from(weight.max(1));
        self.workers.insert(
            id,
            Worker {
                weight,
                urgency,
                hold: Hold::Idle,
                virtual_us,
                cpu_us: 0,
                stretch_us: 0,
                overdraft_us: 0,
                alone: false,
                waits_since_ms: None,
            },
        );
    }

    /// The worker is gone, and its token with it.
    pub fn remove(&mut self, id: ProviderId) {
        self.workers.remove(&id);
    }

    /// The worker could go on and has no token.
    pub fn on_want(&mut self, id: ProviderId) {
        let present = self.present_us();
        if let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.hold == Hold::Idle) {
            worker.virtual_us = worker.virtual_us.max(present);
            worker.hold = Hold::Wanting;
        }
    }

    /// The worker gives a token back. An old or invented token is nothing. `cpu_us`: its CPU clock.
    pub fn on_yield(&mut self, id: ProviderId, token: Token, more: bool, cpu_us: Option<u64>) {
        self.charge(id, cpu_us);
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if matches!(worker.hold, Hold::Holding { token: held, .. } if held == token) {
            worker.turn(if more { Hold::Wanting } else { Hold::Idle });
        }
    }

    /// Books what the worker's CPU clock says. What goes beyond what a token allows is overdraft, however often the clock is read.
    pub fn charge(&mut self, id: ProviderId, cpu_us: Option<u64>) {
        let slice_us = self.slice_us;
        let (Some(worker), Some(cpu_us)) = (self.workers.get_mut(&id), cpu_us) else { return };
        let used_us = cpu_us.saturating_sub(worker.cpu_us);
        worker.cpu_us = cpu_us;
        worker.virtual_us += used_us * WEIGHT_BASE / worker.weight;
        let allowed_us = match worker.hold {
            Hold::Holding { .. } if worker.urgency.any() => u64::MAX,
            Hold::Holding { .. } => slice_us + TOLERANCE_US,
            Hold::Idle | Hold::Wanting => TOLERANCE_US,
        };
        let before_us = worker.stretch_us.saturating_sub(allowed_us);
        worker.stretch_us += used_us;
        worker.overdraft_us += worker.stretch_us.saturating_sub(allowed_us) - before_us;
    }

    /// A flush of its queue begins or ends.
    pub fn set_flush(&mut self, id: ProviderId, on: bool) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.urgency.flush = on;
        }
    }

    /// A critical section begins or ends.
    pub fn set_critical(&mut self, id: ProviderId, on: bool) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.urgency.critical = on;
            worker.alone &= on;
        }
    }

    /// Withholds tokens from all others, for a critical section whose priority could not be raised. Several such sections run beside
    /// each other.
    pub fn set_exclusive(&mut self, id: ProviderId) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.alone = worker.urgency.critical;
        }
    }

    /// Decides who runs and who has to make room.
    pub fn decide(&mut self, now_ms: i64) -> Vec<Decision> {
        let mut decisions = Vec::new();
        let mut free = i64::from(self.slots) - self.slots_taken(now_ms);
        let alone = self.workers.values().any(|worker| worker.alone);
        let patience_ms = self.patience_ms();
        let mut wanting: Vec<(ProviderId, bool, (Option<i64>, u64))> = self
            .workers
            .iter_mut()
            .filter(|(_, worker)| worker.hold == Hold::Wanting && (!alone || worker.alone))
            .map(|(id, worker)| {
                let since_ms = *worker.waits_since_ms.get_or_insert(now_ms);
                let overdue = Some(since_ms).filter(|since_ms| now_ms - since_ms >= patience_ms);
                (*id, worker.urgency.any(), (overdue, worker.virtual_us))
            })
            .collect();
        wanting.sort_by_key(|&(_, urgent, (overdue, virtual_us))| {
            (!urgent, overdue.is_none(), overdue.unwrap_or_default(), virtual_us)
        });
        let mut waiting = false;
        for (id, urgent, _) in wanting {
            if urgent || free > 0 {
                free -= i64::from(!urgent);
                decisions.push(self.grant(id, now_ms));
            } else {
                waiting = true;
            }
        }
        if waiting || alone {
            self.recall(now_ms, &mut decisions);
        }
        decisions
    }

    /// Who has waited so long goes first.
    fn patience_ms(&self) -> i64 {
        let rounds = self.workers.len().div_ceil(usize::try_from(self.slots).unwrap_or(1));
        let rounds = i64::try_from(rounds).unwrap_or(i64::MAX);
        rounds.saturating_mul(ROUNDS_MAX * i64::from(self.slice_ms())).max(PATIENCE_MS_MIN)
    }

    fn grant(&mut self, id: ProviderId, now_ms: i64) -> Decision {
        let token = Token(self.next_token);
        self.next_token += 1;
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.turn(Hold::Holding { token, since_ms: now_ms, recalled_ms: None });
        }
        Decision::Grant(id, token)
    }

    /// Somebody waits for a slot, or a section is to run alone: whoever is not urgent makes room.
    fn recall(&mut self, now_ms: i64, decisions: &mut Vec<Decision>) {
        for (id, worker) in &mut self.workers {
            let urgent = worker.urgency.any();
            if let Hold::Holding { token, recalled_ms, .. } = &mut worker.hold
                && !urgent
                && recalled_ms.is_none()
            {
                *recalled_ms = Some(now_ms);
                decisions.push(Decision::Recall(*id, *token));
            }
        }
    }

    fn slots_taken(&self, now_ms: i64) -> i64 {
        let keeps_slot = |worker: &&Worker| match worker.hold {
            Hold::Holding { .. } if worker.urgency.any() => false,
            Hold::Holding { .. } => self.overdue_ms(worker).is_none_or(|at| now_ms < at),
            Hold::Idle | Hold::Wanting => false,
        };
        i64::try_from(self.workers.values().filter(keeps_slot).count()).unwrap_or(i64::MAX)
    }

    /// When a worker whose token was asked back loses its slot. It has its slice, however late it was asked, and a while to answer.
    fn overdue_ms(&self, worker: &Worker) -> Option<i64> {
        let Hold::Holding { since_ms, recalled_ms: Some(recalled_ms), .. } = worker.hold else { return None };
        Some(recalled_ms.max(since_ms + i64::from(self.slice_ms())) + OVERDUE_MS + 1)
    }

    /// When, after the last look, a slot becomes free by itself because its holder is overdue.
    #[must_use]
    pub fn deadline_ms(&self, looked_ms: i64) -> Option<i64> {
        if !self.workers.values().any(|worker| worker.hold == Hold::Wanting) {
            return None;
        }
        let due = self.workers.values().filter_map(|worker| self.overdue_ms(worker));
        due.filter(|at| *at > looked_ms).min()
    }

    /// Virtual time of the least served worker that runs or wants to.
    fn present_us(&self) -> u64 {
        let active = self.workers.values().filter(|worker| worker.hold != Hold::Idle);
        active.map(|worker| worker.virtual_us).min().unwrap_or_default()
    }

    /// Tokens that are out.
    #[must_use]
    pub fn tokens_out(&self) -> u32 {
        let out = self.workers.values().filter(|worker| matches!(worker.hold, Hold::Holding { .. })).count();
        u32::try_from(out).unwrap_or(u32::MAX)
    }

    /// Whether a worker may run, for its row.
    #[must_use]
    pub fn token_state(&self, id: ProviderId) -> TokenState {
        match self.workers.get(&id).map(|worker| worker.hold) {
            None | Some(Hold::Idle) => TokenState::Idle,
            Some(Hold::Wanting) => TokenState::Wanting,
            Some(Hold::Holding { recalled_ms: None, .. }) => TokenState::Running,
            Some(Hold::Holding { recalled_ms: Some(_), .. }) => TokenState::Recalled,
        }
    }

    /// CPU and overdraft of a worker so far, microseconds.
    #[must_use]
    pub fn cpu_us(&self, id: ProviderId) -> (u64, u64) {
        self.workers.get(&id).map_or((0, 0), |worker| (worker.cpu_us, worker.overdraft_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(decisions: &[Decision]) -> Vec<(u32, Token)> {
        let pick = |decision: &Decision| match decision {
            Decision::Grant(id, token) => Some((id.0, *token)),
            Decision::Recall(..) => None,
        };
        decisions.iter().filter_map(pick).collect()
    }

    fn scheduler(slots: u32, workers: u32) -> Scheduler {
        let mut scheduler = Scheduler::new(slots, 200);
        for id in 1..=workers {
            scheduler.add(ProviderId(id), 100, false);
            scheduler.on_want(ProviderId(id));
        }
        scheduler
    }

    #[test]
    fn tokens_out_never_exceed_the_slots() {
        let mut scheduler = scheduler(2, 4);
        let decisions = scheduler.decide(0);
        assert_eq!(grants(&decisions).len(), 2);
        assert_eq!(decisions.len(), 4, "and both holders are asked to make room: {decisions:?}");
        assert_eq!(scheduler.decide(1), []);
    }

    #[test]
    fn cpu_is_shared_by_weight() {
        let mut scheduler = Scheduler::new(1, 200);
        scheduler.add(ProviderId(1), 300, false);
        scheduler.add(ProviderId(2), 100, false);
        let mut cpu = [0_u64; 3];
        for id in [1, 2] {
            scheduler.on_want(ProviderId(id));
        }
        let mut now_ms = 0;
        for _ in 0..400 {
            for (id, token) in grants(&scheduler.decide(now_ms)) {
                let index = usize::try_from(id).unwrap();
                cpu[index] += 200_000;
                now_ms += 200;
                scheduler.on_yield(ProviderId(id), token, true, Some(cpu[index]));
            }
        }
        let share = cpu[1] as f64 / cpu[2] as f64;
        assert!((2.9..3.1).contains(&share), "{share}");
        assert_eq!(scheduler.cpu_us(ProviderId(1)).1, 0, "a whole slice is no overdraft");
    }

    #[test]
    fn idleness_is_not_saved_up() {
        let mut scheduler = scheduler(1, 1);
        let token = grants(&scheduler.decide(0))[0].1;
        scheduler.on_yield(ProviderId(1), token, true, Some(10_000_000));
        scheduler.add(ProviderId(2), 100, false);
        scheduler.on_want(ProviderId(2));
        assert!(scheduler.workers[&ProviderId(2)].virtual_us >= 10_000_000);
    }

    #[test]
    fn a_holder_that_hangs_loses_its_slot() {
        let mut scheduler = scheduler(1, 2);
        assert_eq!(grants(&scheduler.decide(0)).len(), 1);
        let due = scheduler.deadline_ms(0).unwrap();
        assert_eq!(grants(&scheduler.decide(due - 1)), []);
        assert_eq!(grants(&scheduler.decide(due)).len(), 1);
    }

    #[test]
    fn somebody_waits_for_the_urgent() {
        let mut scheduler = scheduler(1, 1);
        scheduler.decide(0);
        scheduler.add(ProviderId(7), 100, true);
        scheduler.on_want(ProviderId(7));
        assert_eq!(grants(&scheduler.decide(0)).len(), 1);
    }

    #[test]
    fn cpu_without_a_token_and_past_the_slice_is_overdraft() {
        let mut scheduler = scheduler(1, 1);
        scheduler.charge(ProviderId(1), Some(50_000));
        assert_eq!(scheduler.cpu_us(ProviderId(1)), (50_000, 40_000));
        let token = grants(&scheduler.decide(0))[0].1;
        scheduler.on_yield(ProviderId(1), token, false, Some(50_000 + 300_000));
        assert_eq!(scheduler.cpu_us(ProviderId(1)), (350_000, 130_000));
    }

    #[test]
    fn lies_about_tokens_change_nothing() {
        let mut scheduler = scheduler(1, 2);
        scheduler.decide(0);
        scheduler.on_yield(ProviderId(1), Token(77), false, None);
        scheduler.on_yield(ProviderId(2), Token(1), false, None);
        scheduler.on_yield(ProviderId(9), Token(1), false, None);
        assert_eq!(scheduler.tokens_out(), 1);
    }

    #[test]
    fn an_exclusive_section_keeps_the_others_waiting() {
        let mut scheduler = scheduler(2, 3);
        let first = grants(&scheduler.decide(0));
        let id = ProviderId(first[0].0);
        scheduler.set_critical(id, true);
        scheduler.set_exclusive(id);
        let other = first[1];
        scheduler.on_yield(ProviderId(other.0), other.1, true, None);
        assert_eq!(grants(&scheduler.decide(1)), []);
        scheduler.set_critical(id, false);
        assert!(!grants(&scheduler.decide(2)).is_empty());
    }

    #[test]
    fn two_sections_run_alone_beside_each_other() {
        let mut scheduler = scheduler(3, 3);
        for id in [ProviderId(1), ProviderId(2)] {
            scheduler.set_critical(id, true);
            scheduler.set_exclusive(id);
        }
        assert_eq!(grants(&scheduler.decide(0)).len(), 2);
        scheduler.set_critical(ProviderId(2), false);
        assert_eq!(grants(&scheduler.decide(1)), [], "the other one still runs alone");
        scheduler.set_critical(ProviderId(1), false);
        assert_eq!(grants(&scheduler.decide(2)).len(), 1);
    }

    #[test]
    fn nobody_is_passed_over_for_ever() {
        let mut scheduler = scheduler(1, 2);
        let mut now_ms = 0;
        let mut last = ProviderId(0);
        // The first one never uses any CPU, so its virtual time stays behind.
        while last != ProviderId(2) {
            assert!(now_ms <= 2 * ROUNDS_MAX * 200 + 200, "the second one waits since {now_ms} ms");
            let (id, token) = grants(&scheduler.decide(now_ms))[0];
            last = ProviderId(id);
            now_ms += 200;
            scheduler.on_yield(last, token, true, Some(0));
        }
    }
}
