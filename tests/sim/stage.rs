//! What everything in the simulated world shares: time, chance, and what is going to happen.

use spooler::policy::Now;

use crate::agenda::{Agenda, Happening};
use crate::plan::Plan;
use crate::rng::Rng;

/// Time, chance, and what is going to happen.
#[derive(Debug)]
pub(crate) struct Stage {
    /// Chance.
    pub(crate) rng: Rng,
    /// What was drawn for this run as a whole.
    pub(crate) plan: Plan,
    /// What is going to happen.
    pub(crate) agenda: Agenda,
    /// Milliseconds that never jump.
    pub(crate) mono_ms: i64,
    /// What the wall clock is ahead of them.
    pub(crate) wall_ahead_ms: i64,
    /// Which run of the supervisor this is.
    pub(crate) life: u64,
    /// Whether nothing goes wrong any more.
    pub(crate) healed: bool,
}

impl Stage {
    /// The first moment.
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::draw(&mut rng);
        Self {
            rng,
            plan,
            agenda: Agenda::default(),
            mono_ms: 1_000_000,
            wall_ahead_ms: 1_700_000_000_000,
            life: 0,
            healed: false,
        }
    }

    /// Both clocks.
    pub(crate) fn now(&self) -> Now {
        Now { mono_ms: self.mono_ms, wall_ms: self.mono_ms + self.wall_ahead_ms }
    }

    /// Something happens in `after_ms`, unless the supervisor has gone by then.
    pub(crate) fn after(&mut self, after_ms: i64, what: Happening) {
        let tie = self.rng.next();
        self.agenda.put(self.mono_ms + after_ms, tie, Some(self.life), what);
    }

    /// Something happens in `after_ms`, whatever becomes of the supervisor.
    pub(crate) fn always_after(&mut self, after_ms: i64, what: Happening) {
        let tie = self.rng.next();
        self.agenda.put(self.mono_ms + after_ms, tie, None, what);
    }

    /// True so many times in a thousand, and never again once all is well.
    pub(crate) fn mishap(&mut self, per_mille: u32) -> bool {
        !self.healed && self.rng.chance(per_mille)
    }

    /// A short way between two processes or threads, milliseconds: mostly none, sometimes long.
    pub(crate) fn hop_ms(&mut self) -> i64 {
        match self.rng.below(20) {
            0..=11 => 0,
            12..=17 => self.rng.between(1, 3),
            18 => self.rng.between(3, 20),
            _ => self.rng.between(0, self.plan.hop_ms_max),
        }
    }
}
