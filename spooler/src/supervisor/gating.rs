//! The idle gate at work: what was seen of the machine becomes slots, and somebody looks only while background work wants to run.

use super::Supervisor;
use super::event::Action;
use crate::config::Config;
use crate::policy::Now;
use crate::policy::idle_gate::{IdleGate, Observation};

/// While only a trickle goes on, slices are this much shorter: what the foreground notices is not the sum but the longest piece.
const TRICKLE_SLICES: u32 = 10;
/// A slice that is shorter is spent on handing it over.
const SLICE_MS_MIN: u32 = 10;

/// The gate of a configuration.
pub(super) fn gate_of(config: &Config, cores: u32, now: Now) -> IdleGate {
    IdleGate::new(config.scheduler.gate, config.scheduler.slots.unwrap_or(cores), now.mono_ms)
}

impl Supervisor {
    pub(super) fn on_observed(&mut self, seen: Observation, now: Now) {
        self.gate.observe(seen, now.mono_ms);
        self.tokens_touched = true;
    }

    /// Before tokens are given out: how many there may be, and whether somebody has to look at the machine.
    pub(super) fn ask_gate(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.gate.charge(self.scheduler.take_background(), now.mono_ms);
        self.scheduler.set_slots(self.gate.slots(now.mono_ms));
        if self.scheduler.wants_slot() || !self.flights.is_empty() {
            self.gate.on_demand();
        }
        let every_ms = self.gate.look_every_ms();
        if every_ms != self.look_every_ms {
            self.look_every_ms = every_ms;
            actions.push(Action::Look { every_ms });
        }
    }

    /// How long a token is good for now, milliseconds.
    pub(super) fn slice_ms(&self) -> u32 {
        let slice_ms = self.scheduler.slice_ms();
        if self.gate.is_trickling() { (slice_ms / TRICKLE_SLICES).max(SLICE_MS_MIN).min(slice_ms) } else { slice_ms }
    }

    /// When the gate gives a slot by itself, if anybody wants one and may get it.
    pub(super) fn gate_deadline_ms(&self) -> Option<i64> {
        // A pause that nobody has looked in is over, and nothing more comes of it by itself.
        let due_ms = self.gate.deadline_ms().filter(|at_ms| *at_ms > self.ticked_ms);
        due_ms.filter(|_| self.scheduler.wants_slot() && !self.machine.is_asleep())
    }
}
