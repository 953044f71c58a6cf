//! The idle gate: how many slots there can be at most, and from when on nobody may be kept waiting by it. A second bookkeeping of what
//! `policy/idle_gate.rs` promises, which is never stricter than that: where it is not sure, it takes the gate to be open for the
//! question who may run, and to be in the way for the question who has waited too long.

use spooler::policy::idle_gate::Observation;

use crate::plan::{Gate as Planned, Plan};

/// Of a core others leave so much, and it counts as free, thousandths.
const FREE_CORE: i64 = 400;
/// Debt beyond what is paid in this time is forgiven, milliseconds.
const DEBT_MS_MAX: i64 = 10_000;

/// What is known of the gate.
#[derive(Debug)]
pub(crate) struct Gate {
    planned: Planned,
    slots: u32,
    /// Looks in a row at which nothing was left for us.
    full_looks: u32,
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
        Self {
            planned: plan.gate,
            slots: plan.slots,
            full_looks: 0,
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
        self.full_looks = 0;
        (self.free_since_ms, self.in_the_way, self.every_ms, self.unseen_since_ms) = (None, false, None, None);
    }

    pub(super) fn looks(&mut self, every_ms: Option<i64>) {
        self.every_ms = every_ms;
    }

    pub(super) fn observed(&mut self, seen: Observation, now_ms: i64) {
        let Planned::Auto { idle_required_ms, .. } = self.planned else { return };
        let free = (seen.capacity - seen.others).max(0);
        let cores = u32::try_from((free + 1000 - FREE_CORE) / 1000).unwrap_or(0);
        if cores == 0 {
            self.full_looks += 1;
            if self.full_looks == 2 {
                (self.debt_us, self.paid_ms) = (0, now_ms);
            }
        } else {
            self.full_looks = 0;
        }
        if cores < self.slots {
            (self.free_since_ms, self.in_the_way) = (None, true);
            return;
        }
        let since_ms = *self.free_since_ms.get_or_insert(now_ms - seen.over_ms);
        // It may open by and by: as far as was possible first, then all the way.
        if now_ms - since_ms > 2 * idle_required_ms + seen.over_ms {
            self.in_the_way = false;
        }
    }

    /// Whether it is closed for sure.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.planned, Planned::Auto { .. }) && self.full_looks >= 2
    }

    /// Whether it may keep anybody waiting.
    pub(super) fn is_in_the_way(&self) -> bool {
        self.in_the_way || self.slots_max() < self.slots
    }

    /// After so long somebody gets a token regardless, milliseconds.
    pub(super) fn force_after_ms(&self) -> i64 {
        self.planned.force_after_ms()
    }

    /// Slots that there can be.
    pub(super) fn slots_max(&self) -> u32 {
        match self.planned {
            Planned::Off => self.slots,
            Planned::Fixed { slots, .. } => slots.min(self.slots),
            Planned::Auto { trickle, .. } if self.is_closed() => u32::from(trickle > 0),
            Planned::Auto { .. } => self.slots,
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
