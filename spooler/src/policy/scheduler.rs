//! Who holds a token next: weighted fair by the CPU that workers really use.
//!
//! Each worker has a virtual time that grows with the CPU it used, divided by its weight; among those that want a token the one with
//! the least goes first. Who was idle starts at the present: idleness is not saved up. That never goes back: being alone is no debt.
//!
//! A slot that somebody kept from others without computing is charged like computing: otherwise one that sleeps on its token would
//! stay the least served and go first for ever.
//!
//! **Bound.** With `w` workers, `s` slots and a slice of `t`, a round is `ceil(w / s)` slices. Who has waited for [`ROUNDS_MAX`] rounds
//! (at least [`PATIENCE_MS_MIN`]) goes before all that have not, whatever the virtual times say: weights and debts decide only for so
//! long. From then on every other one goes before it at most once, and a holder that does not give its token back in time does not
//! keep its slot. So nobody waits longer than that patience and `ceil(w / s)` times (`t` + [`OVERDUE_MS`]), while there are slots and
//! no section runs alone. Besides, no debt is larger than `DEBT_SLICES_MAX` (`debt`) slices.
//!
//! Who is urgent needs no slot ([`Urgency`]). The idle gate decides how many slots there are for the others, and there may be none.
//! Whoever got no token for `force_after` gets one regardless, one worker at a time.

mod debt;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};

use spooler_protocol::ids::Token;
use spooler_protocol::status::TokenState;

use crate::policy::ProviderId;
use crate::policy::idle_gate::Used;

/// A token that was recalled and is not back after its slice and so long does not keep its slot.
pub const OVERDUE_MS: i64 = 1000;
/// Rounds that a worker waits for its turn by virtual time.
pub const ROUNDS_MAX: i64 = 5;
/// It waits so long at least.
pub const PATIENCE_MS_MIN: i64 = 1000;
/// CPU past a slice, or without a token, that is not worth a word, microseconds.
const TOLERANCE_US: u64 = 10_000;
const WEIGHT_BASE: u64 = 100;
/// A token that was forced is not asked back before so long: there are many waits in one delivery.
const FORCED_MS: i64 = 10_000;
/// As in MS Mail's spooler.
const FORCE_AFTER_MS: i64 = 300_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    Idle,
    Wanting,
    Holding { token: Token, recalled: bool },
}

/// Where tokens come from: numbered, or made of their number and a secret.
#[derive(Debug, Default)]
struct Tokens {
    secret: Option<u64>,
    given: u64,
}

impl Tokens {
    fn next(&mut self) -> Token {
        self.given += 1;
        let Some(secret) = self.secret else { return Token(self.given) };
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(secret);
        hasher.write_u64(self.given);
        Token(hasher.finish())
    }
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
    /// It logs on or off: until that is over it is of no use, and its time is limited otherwise.
    pub passing: bool,
    /// It is told that the machine sleeps or goes down, which does not wait for it.
    pub told: bool,
}

impl Urgency {
    fn any(self) -> bool {
        self.interactive || self.flush || self.critical || self.passing || self.told
    }
}

#[derive(Clone, Debug)]
struct Worker {
    weight: u64,
    urgency: Urgency,
    hold: Hold,
    virtual_us: u64,
    cpu_us: u64,
    /// Whether it runs programs.
    runs_programs: bool,
    /// CPU of its programs.
    programs_us: u64,
    /// CPU since it got its token, or gave it back.
    stretch_us: u64,
    overdraft_us: u64,
    /// Its section is to run alone.
    alone: bool,
    /// Whether its overdraft counts more than once.
    surcharged: bool,
    /// Since when the token that it holds is asked back.
    recalled_ms: Option<i64>,
    /// Since when it wants a token in vain.
    denied_since_ms: Option<i64>,
    /// It got its token although there was no slot; nobody asks for it back before then.
    forced_until_ms: Option<i64>,
}

impl Worker {
    fn turn(&mut self, hold: Hold) {
        self.recalled_ms = None;
        self.hold = hold;
        self.stretch_us = 0;
        self.denied_since_ms = None;
        self.forced_until_ms = None;
    }

    fn is_forced(&self, now_ms: i64) -> bool {
        self.forced_until_ms.is_some_and(|until| until > now_ms)
    }

    /// CPU that its present stretch may use without being overdraft, microseconds.
    fn allowed_us(&self, slice_us: u64) -> u64 {
        match self.hold {
            _ if self.urgency.critical => u64::MAX,
            Hold::Holding { .. } if self.urgency.flush => u64::MAX,
            Hold::Holding { .. } => slice_us + TOLERANCE_US,
            Hold::Idle | Hold::Wanting => TOLERANCE_US,
        }
    }
}

/// A worker's place among those that want a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// No slot needed, waits longer than its patience, since when, virtual time: the least goes first.
    rank: (bool, bool, Option<i64>, u64, ProviderId),
    /// It needs no slot.
    urgent: bool,
    id: ProviderId,
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
    tokens: Tokens,
    workers: BTreeMap<ProviderId, Worker>,
    /// Virtual time of the least served worker that runs or wants to, when that was largest.
    present_us: u64,
    /// Turns that are over and were in the way of others: whose, since when, and the CPU that they used.
    kept: Vec<(ProviderId, i64, u64)>,
    force_after_ms: i64,
    /// CPU of workers that need a slot, not yet fetched.
    background: Used,
}

impl Scheduler {
    /// With so many slots and slices of so many milliseconds.
    #[must_use]
    pub fn new(slots: u32, slice_ms: u32) -> Self {
        Self {
            slots: slots.max(1),
            slice_us: u64::from(slice_ms) * 1000,
            tokens: Tokens::default(),
            workers: BTreeMap::new(),
            present_us: 0,
            kept: Vec::new(),
            force_after_ms: FORCE_AFTER_MS,
            background: Used::default(),
        }
    }

    /// The same with tokens that cannot be guessed by who does not know the secret: who gives one back has read it.
    #[must_use]
    pub fn with_secret(self, secret: u64) -> Self {
        Self { tokens: Tokens { secret: Some(secret), given: 0 }, ..self }
    }

    /// Changes the slice, and after how long without a token one is forced.
    pub fn configure(&mut self, slice_ms: u32, force_after_ms: i64) {
        self.slice_us = u64::from(slice_ms) * 1000;
        self.force_after_ms = force_after_ms;
    }

    /// Changes the number of slots; 0: only who needs none gets a token, and who has waited too long.
    pub fn set_slots(&mut self, slots: u32) {
        self.slots = slots;
    }

    /// CPU that workers that need a slot have used since the last call.
    pub fn take_background(&mut self) -> Used {
        std::mem::take(&mut self.background)
    }

    /// Whether a worker wants a token that needs a slot for it.
    #[must_use]
    pub fn wants_slot(&self) -> bool {
        self.workers.values().any(|worker| worker.hold == Hold::Wanting && !worker.urgency.any())
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
        let worker = Worker {
            weight,
            urgency,
            hold: Hold::Idle,
            virtual_us,
            cpu_us: 0,
            runs_programs: false,
            programs_us: 0,
            stretch_us: 0,
            overdraft_us: 0,
            alone: false,
            surcharged: false,
            recalled_ms: None,
            denied_since_ms: None,
            forced_until_ms: None,
        };
        self.workers.insert(id, worker);
    }

    /// The worker is gone, and its token with it.
    pub fn remove(&mut self, id: ProviderId) {
        self.workers.remove(&id);
    }

    /// The worker could go on and has no token.
    pub fn on_want(&mut self, id: ProviderId) {
        let present = self.advance();
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
            self.kept.extend(worker.recalled_ms.map(|since_ms| (id, since_ms, worker.stretch_us)));
            worker.turn(if more { Hold::Wanting } else { Hold::Idle });
        }
    }

    /// It begins or ends to log on or off.
    pub fn set_passing(&mut self, id: ProviderId, on: bool) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.urgency.passing = on;
        }
    }

    /// These are told that the machine sleeps or goes down.
    pub fn set_told(&mut self, told: &[ProviderId]) {
        self.workers.iter_mut().for_each(|(id, worker)| worker.urgency.told = told.contains(id));
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

    /// Whether somebody waits for a token.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.workers.values().any(|worker| worker.hold == Hold::Wanting)
    }

    /// Decides who runs and who has to make room.
    pub fn decide(&mut self, now_ms: i64) -> Vec<Decision> {
        self.charge_kept_slots(now_ms);
        let mut decisions = Vec::new();
        let mut free = i64::from(self.slots) - self.slots_taken(now_ms);
        let alone = self.workers.values().any(|worker| worker.alone);
        let (first, denied) = self.in_order(alone, free, now_ms);
        for place in first {
            free -= i64::from(!place.urgent);
            decisions.push(self.grant(place.id));
        }
        let mut waiting = !denied.is_empty();
        if let Some(id) = self.longest_denied(&denied, now_ms) {
            decisions.push(self.grant(id));
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.forced_until_ms = Some(now_ms + FORCED_MS);
            }
            waiting = denied.len() > 1;
        }
        // There may be fewer slots than a moment ago.
        let in_the_way = waiting || free < 0;
        if in_the_way || alone {
            self.recall(in_the_way, alone, now_ms, &mut decisions);
        }
        decisions
    }

    /// Those that get a token, who goes first, first; and those for which there is no slot, in no order.
    fn in_order(&self, alone: bool, free: i64, now_ms: i64) -> (Vec<Place>, Vec<Place>) {
        let patience_ms = self.patience_ms();
        let may = |worker: &&Worker| worker.hold == Hold::Wanting && (!alone || worker.alone);
        let place = |(id, worker): (&ProviderId, &Worker)| {
            let overdue_ms = worker.denied_since_ms.filter(|since_ms| now_ms - since_ms >= patience_ms);
            let urgent = worker.urgency.any();
            let rank = (!urgent, overdue_ms.is_none(), overdue_ms, worker.virtual_us, *id);
            Place { rank, urgent, id: *id }
        };
        let mut wanting: Vec<Place> = self.workers.iter().filter(|(_, worker)| may(worker)).map(place).collect();
        let urgent = wanting.iter().filter(|place| place.urgent).count();
        let slots = urgent + usize::try_from(free).unwrap_or_default();
        // Of many that wait, only who goes first has to be found out.
        let denied = if slots < wanting.len() {
            wanting.select_nth_unstable(slots);
            wanting.split_off(slots)
        } else {
            Vec::new()
        };
        wanting.sort_unstable();
        (wanting, denied)
    }

    /// Who has waited so long goes first.
    fn patience_ms(&self) -> i64 {
        let rounds = self.workers.len().div_ceil(usize::try_from(self.slots.max(1)).unwrap_or(1));
        let rounds = i64::try_from(rounds).unwrap_or(i64::MAX);
        rounds.saturating_mul(ROUNDS_MAX * i64::from(self.slice_ms())).max(PATIENCE_MS_MIN)
    }

    /// Notes that these wait. Gives the first of those that have waited so long that they get a token regardless, if nobody has such a
    /// token already.
    fn longest_denied(&mut self, denied: &[Place], now_ms: i64) -> Option<ProviderId> {
        let forced = self.workers.values().any(|worker| worker.forced_until_ms.is_some());
        let mut first: Option<&Place> = None;
        for place in denied {
            let Some(worker) = self.workers.get_mut(&place.id) else { continue };
            let since_ms = *worker.denied_since_ms.get_or_insert(now_ms);
            if now_ms - since_ms >= self.force_after_ms && first.is_none_or(|first| place < first) {
                first = Some(place);
            }
        }
        first.filter(|_| !forced).map(|place| place.id)
    }

    fn grant(&mut self, id: ProviderId) -> Decision {
        let token = self.tokens.next();
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.turn(Hold::Holding { token, recalled: false });
        }
        Decision::Grant(id, token)
    }

    fn recall(&mut self, waiting: bool, alone: bool, now_ms: i64, decisions: &mut Vec<Decision>) {
        for (id, worker) in &mut self.workers {
            let in_the_way = if worker.urgency.any() {
                false
            } else if worker.is_forced(now_ms) {
                alone
            } else {
                waiting || alone
            };
            if let Hold::Holding { token, recalled, .. } = &mut worker.hold
                && in_the_way
                && !*recalled
            {
                *recalled = true;
                worker.recalled_ms = Some(now_ms);
                decisions.push(Decision::Recall(*id, *token));
            }
        }
    }

    fn slots_taken(&self, now_ms: i64) -> i64 {
        let slice_ms = i64::from(self.slice_ms());
        let keeps_slot = |worker: &&Worker| match worker.hold {
            Hold::Holding { .. } if worker.urgency.any() || worker.is_forced(now_ms) => false,
            Hold::Holding { .. } => {
                worker.recalled_ms.is_none_or(|since_ms| now_ms - since_ms <= slice_ms + OVERDUE_MS)
            }
            Hold::Idle | Hold::Wanting => false,
        };
        i64::try_from(self.workers.values().filter(keeps_slot).count()).unwrap_or(i64::MAX)
    }

    /// When a slot becomes free by itself because its holder is overdue, a worker has waited too long for one, or a forced token is to
    /// be asked back.
    #[must_use]
    pub fn deadline_ms(&self, looked_ms: i64) -> Option<i64> {
        let forced = self.workers.values().find_map(|worker| worker.forced_until_ms);
        if forced.is_none() && !self.workers.values().any(|worker| worker.hold == Hold::Wanting) {
            return None;
        }
        let slice_ms = i64::from(self.slice_ms());
        let due = |worker: &Worker| match worker.hold {
            Hold::Holding { .. } => match worker.recalled_ms {
                None => worker.forced_until_ms,
                Some(since_ms) => Some(since_ms + slice_ms + OVERDUE_MS + 1),
            },
            Hold::Wanting if forced.is_none() => Some(worker.denied_since_ms? + self.force_after_ms),
            Hold::Wanting | Hold::Idle => None,
        };
        self.workers.values().filter_map(due).filter(|at| *at > looked_ms).min()
    }

    /// Tokens that are out.
    #[must_use]
    pub fn tokens_out(&self) -> u32 {
        let out = self.workers.values().filter(|worker| matches!(worker.hold, Hold::Holding { .. })).count();
        u32::try_from(out).unwrap_or(u32::MAX)
    }

    /// Whether a worker has this token.
    #[must_use]
    pub fn holds(&self, id: ProviderId, token: Token) -> bool {
        let hold = self.workers.get(&id).map(|worker| worker.hold);
        matches!(hold, Some(Hold::Holding { token: held, .. }) if held == token)
    }

    /// Whether a worker may run, for its row.
    #[must_use]
    pub fn token_state(&self, id: ProviderId) -> TokenState {
        match self.workers.get(&id).map(|worker| worker.hold) {
            None | Some(Hold::Idle) => TokenState::Idle,
            Some(Hold::Wanting) => TokenState::Runnable,
            Some(Hold::Holding { recalled: false, .. }) => TokenState::Running,
            Some(Hold::Holding { recalled: true, .. }) => TokenState::Preempting,
        }
    }

    /// CPU of a worker with its programs, and overdraft, so far, microseconds.
    #[must_use]
    pub fn cpu_us(&self, id: ProviderId) -> (u64, u64) {
        self.workers.get(&id).map_or((0, 0), |worker| (worker.cpu_us + worker.programs_us, worker.overdraft_us))
    }
}

#[cfg(test)]
mod debt_tests;

#[cfg(test)]
mod slot_tests;

#[cfg(test)]
mod tests;
