//! The idle gate: how many slots there can be at most, and from when on nobody may be kept waiting by it. A second bookkeeping of what
//! `policy/idle_gate.rs` promises, which is never stricter than that: where it is not sure, it takes the gate to be open for the
//! question who may run, and to be in the way for the question who has waited too long.

use spooler::policy::idle_gate::{Observation, PROVEN_MS};

use crate::plan::{Gate as Planned, Plan};

/// Of a core others leave so much, and it counts as free, thousandths.
const FREE_CORE: i64 = 400;
/// Debt beyond what is paid in this time is forgiven, milliseconds.
const DEBT_MS_MAX: i64 = 10_000;
/// Others use so much, and it is worth a pause of ours, thousandths; and so is a change by as much.
const NOTICEABLE: i64 = 200;
/// A pause of ours is over after so long, milliseconds.
const PAUSE_MS_MAX: i64 = 1000;

/// Whether background work pauses, so that others show what they use without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    No,
    /// Nobody here knows: it depends on slots that were not counted.
    Maybe,
    Until(i64),
}

/// What others used while we paused: with so much nobody doubts until then.
#[derive(Clone, Copy, Debug)]
struct Proven {
    others: i64,
    until_ms: i64,
}

impl Proven {
    fn holds(self, seen: Observation, now_ms: i64) -> bool {
        now_ms < self.until_ms && seen.others <= self.others + NOTICEABLE
    }
}

/// What is known of the gate.
#[derive(Debug)]
pub(crate) struct Gate {
    planned: Planned,
    slots: u32,
    /// There are at most so many.
    most: u32,
    /// There are at least so many.
    least: u32,
    /// What the last two looks allowed, the later one first.
    before: [Option<u32>; 2],
    pause: Pause,
    /// A pause has begun in this step.
    begun: bool,
    /// Proven for sure.
    proven: Option<Proven>,
    /// It may be proven.
    maybe_proven: Option<Proven>,
    /// The last look that was not quite free, or the beginning of those that are.
    free_since_ms: Option<i64>,
    /// Since it may be in the way.
    in_the_way: bool,
    /// CPU used while it was closed and not made good, microseconds.
    debt_us: i64,
    paid_ms: i64,
    /// How often somebody looks, as last ordered.
    every_ms: Option<i64>,
    /// Since when background work waits while nobody looks.
    unseen_since_ms: Option<i64>,
}

impl Gate {
    pub(super) fn new(plan: &Plan) -> Self {
        Self::fresh(plan.gate, plan.slots)
    }

    fn fresh(planned: Planned, slots: u32) -> Self {
        Self {
            planned,
            slots,
            most: slots,
            least: slots,
            before: [None; 2],
            pause: Pause::No,
            begun: false,
            proven: None,
            maybe_proven: None,
            free_since_ms: None,
            in_the_way: false,
            debt_us: 0,
            paid_ms: 0,
            every_ms: None,
            unseen_since_ms: None,
        }
    }

    /// The configuration has changed: with another number of slots the gate begins anew, open.
    pub(super) fn configure(&mut self, plan: &Plan) {
        if plan.slots != self.slots {
            *self = Self { every_ms: self.every_ms, ..Self::new(plan) };
        }
    }

    pub(super) fn supervisor_gone(&mut self) {
        *self = Self::fresh(self.planned, self.slots);
    }

    pub(super) fn looks(&mut self, every_ms: Option<i64>) {
        self.every_ms = every_ms;
    }

    pub(super) fn observed(&mut self, seen: Observation, now_ms: i64) {
        let Planned::Auto { idle_required_ms, .. } = self.planned else { return };
        let free = (seen.capacity - seen.others).max(0);
        let possible = u32::try_from((free + 1000 - FREE_CORE) / 1000).unwrap_or(0).min(self.slots);
        let paused = self.end_pause(seen, now_ms);
        // A look that ends a pause settles it.
        self.pause = if matches!(paused, Pause::Until(_)) { Pause::No } else { self.begin_pause(seen, now_ms) };
        self.begun = matches!(self.pause, Pause::Until(_));
        self.bound(possible, paused, now_ms);
        if self.pause != Pause::No {
            self.free_since_ms = None;
            return;
        }
        if possible < self.slots {
            (self.free_since_ms, self.in_the_way) = (None, true);
            return;
        }
        let since_ms = *self.free_since_ms.get_or_insert(now_ms - seen.over_ms);
        // It may open by and by: as far as was possible first, then all the way.
        if now_ms - since_ms > 2 * idle_required_ms + seen.over_ms {
            (self.in_the_way, self.least) = (false, self.slots);
        }
    }

    /// What others use while we pause is proven for a while.
    fn end_pause(&mut self, seen: Observation, now_ms: i64) -> Pause {
        let paused = std::mem::replace(&mut self.pause, Pause::No);
        let proven = Proven { others: seen.others, until_ms: now_ms + PROVEN_MS };
        match paused {
            Pause::No => {}
            Pause::Until(_) => (self.proven, self.maybe_proven) = (Some(proven), Some(proven)),
            Pause::Maybe => {
                let others = self.maybe_proven.map_or(proven.others, |maybe| maybe.others.max(proven.others));
                (self.proven, self.maybe_proven) = (None, Some(Proven { others, ..proven }));
            }
        }
        paused
    }

    /// Whether others may want more than they use, because we use the rest.
    fn begin_pause(&self, seen: Observation, now_ms: i64) -> Pause {
        let full = seen.unused < FREE_CORE && seen.others >= NOTICEABLE;
        if !full || self.most == 0 || self.proven.is_some_and(|proven| proven.holds(seen, now_ms)) {
            return Pause::No;
        }
        let sure = self.least > 0 && !self.maybe_proven.is_some_and(|proven| proven.holds(seen, now_ms));
        if sure { Pause::Until(now_ms + PAUSE_MS_MAX) } else { Pause::Maybe }
    }

    /// How many slots there can be after a look that allows so many: one that ended a pause counts at once, the second in a row always
    /// but when it begins a pause, and the third in any case.
    fn bound(&mut self, possible: u32, paused: Pause, now_ms: i64) {
        let was_open = self.most > 0;
        let second = self.before[0].map(|first| first.max(possible));
        let third = second.zip(self.before[1]).map(|(second, first)| second.max(first));
        let once = matches!(paused, Pause::Until(_)).then_some(possible);
        let bounds = [once, second.filter(|_| self.pause == Pause::No), third];
        self.most = bounds.into_iter().flatten().fold(self.most.max(possible), u32::min);
        self.least = self.least.min(possible);
        self.before = [Some(possible), self.before[0]];
        if was_open && self.most == 0 {
            (self.debt_us, self.paid_ms) = (0, now_ms);
        }
    }

    /// Whether it is closed for sure.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.planned, Planned::Auto { .. }) && self.most == 0
    }

    /// Whether background work pauses for sure.
    pub(super) fn is_paused(&self, now_ms: i64) -> bool {
        matches!(self.pause, Pause::Until(until_ms) if now_ms < until_ms)
    }

    /// Whether a pause has begun since this was asked last.
    pub(super) fn take_begun(&mut self) -> bool {
        std::mem::take(&mut self.begun)
    }

    /// Whether it may keep anybody waiting.
    pub(super) fn is_in_the_way(&self) -> bool {
        self.in_the_way || self.pause != Pause::No || self.slots_max() < self.slots
    }

    /// After so long somebody gets a token regardless, milliseconds.
    pub(super) fn force_after_ms(&self) -> i64 {
        self.planned.force_after_ms()
    }

    /// Slots that there can be, but for a pause of ours.
    pub(super) fn slots_max(&self) -> u32 {
        match self.planned {
            Planned::Off => self.slots,
            Planned::Fixed { slots, .. } => slots.min(self.slots),
            Planned::Auto { trickle, .. } if self.is_closed() => u32::from(trickle > 0),
            Planned::Auto { .. } => self.most,
        }
    }

    /// Background work has used so much CPU.
    pub(super) fn charge(&mut self, used_us: u64, now_ms: i64) {
        self.pay(now_ms);
        if self.is_closed() {
            let most_us = DEBT_MS_MAX * self.pay_us_per_ms();
            self.debt_us = (self.debt_us + i64::try_from(used_us).unwrap_or(i64::MAX / 2)).min(most_us);
        }
    }

    /// Whether everything that was used while it is closed is made good.
    pub(super) fn is_paid(&mut self, now_ms: i64) -> bool {
        self.pay(now_ms);
        !self.is_closed() || self.debt_us == 0
    }

    fn pay_us_per_ms(&self) -> i64 {
        let Planned::Auto { trickle, .. } = self.planned else { return 0 };
        i64::from(trickle) * crate::machine::CAPACITY / 1000
    }

    fn pay(&mut self, now_ms: i64) {
        let paid_us = (now_ms - self.paid_ms).max(0) * self.pay_us_per_ms();
        self.debt_us = (self.debt_us - paid_us).max(0);
        self.paid_ms = now_ms;
    }

    /// Whether somebody looks at the machine; nobody has to if nothing waits. Gives for how long nobody did while something waited.
    pub(super) fn unseen_ms(&mut self, waits: bool, now_ms: i64) -> i64 {
        if !waits || self.every_ms.is_some() || !matches!(self.planned, Planned::Auto { .. }) {
            self.unseen_since_ms = None;
            return 0;
        }
        now_ms - *self.unseen_since_ms.get_or_insert(now_ms)
    }
}
