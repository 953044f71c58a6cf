//! The machine around the supervisor: what others use of it and who looks at that, devices and links, sleep, power.
//!
//! Others want so much of the processors, and our workers use what their clocks say. What is too much for the machine is taken from
//! others as the plan says: then what they use is less than what they want, and nothing is left unused. What somebody who looks sees is
//! that, with some noise, and sometimes nonsense.

use std::collections::{BTreeMap, BTreeSet};

use spooler::policy::idle_gate::Observation;
use spooler::supervisor::event::{Event, WorkerId};
use spooler_protocol::notification::{Device, SystemMessage};

use crate::agenda::Happening;
use crate::checker::Verdict;
use crate::plan::Gate;
use crate::world::World;

/// All cores, thousandths.
pub(crate) const CAPACITY: i64 = 2000;
/// What others want of them, from nothing to everything.
const LEVELS: [i64; 6] = [0, 100, 700, 1500, 1950, 2000];

/// The machine.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    /// What others want, thousandths of a core.
    others: i64,
    others_since_ms: i64,
    /// What they have wanted since the last look, thousandths of a core times milliseconds.
    wanted: i64,
    /// What the clocks of our workers said then, microseconds.
    clocks: BTreeMap<WorkerId, u64>,
    looked_ms: i64,
    every_ms: Option<i64>,
    /// Which order to look is in force.
    order: u64,
    /// Devices that are not there.
    pub(crate) gone: BTreeSet<String>,
}

impl World {
    /// Others begin to use the machine, if the supervisor goes by what they use.
    pub(crate) fn begin_foreground(&mut self) {
        if matches!(self.stage.plan.gate, Gate::Auto { .. }) {
            self.stage.always_after(100, Happening::Foreground);
        }
    }

    /// Somebody is to look at the machine so often.
    pub(crate) fn look_at_machine(&mut self, every_ms: Option<i64>) {
        let now_ms = self.stage.mono_ms;
        if self.machine.every_ms.is_none() {
            self.book_others();
            (self.machine.wanted, self.machine.looked_ms) = (0, now_ms);
            self.read_clocks();
        }
        self.machine.every_ms = every_ms;
        self.machine.order += 1;
        if let Some(every_ms) = every_ms {
            self.stage.after(every_ms, Happening::Probe(self.machine.order));
        }
    }

    /// Nobody looks any more.
    pub(crate) fn machine_unseen(&mut self) {
        self.machine.every_ms = None;
        self.machine.order += 1;
    }

    /// Somebody looks, because it is time or because there is pressure.
    pub(crate) fn probe(&mut self, order: u64) -> Verdict {
        if order != self.machine.order {
            return Ok(());
        }
        self.book_others();
        let now_ms = self.stage.mono_ms;
        let over_ms = now_ms - self.machine.looked_ms;
        if over_ms > 0 {
            let seen = self.see(over_ms);
            (self.machine.wanted, self.machine.looked_ms) = (0, now_ms);
            self.hear(Event::Observed(seen))?;
        }
        if let Some(every_ms) = self.machine.every_ms.filter(|_| order == self.machine.order) {
            self.machine.order += 1;
            self.stage.after(every_ms, Happening::Probe(self.machine.order));
        }
        Ok(())
    }

    /// What is seen of the machine in so long.
    fn see(&mut self, over_ms: i64) -> Observation {
        let wanted = self.machine.wanted / over_ms;
        let ours = (self.read_clocks() / over_ms).min(CAPACITY);
        let pressed = if let Gate::Auto { pressed, .. } = self.stage.plan.gate { i64::from(pressed) } else { 0 };
        let missed = (wanted + ours - CAPACITY).max(0) * pressed / 100;
        let others = wanted - missed;
        let rng = &mut self.stage.rng;
        let seen_unused =
            if rng.chance(30) { rng.between(0, CAPACITY) } else { CAPACITY - others - ours + rng.between(-40, 40) };
        let others = others + rng.between(-40, 40);
        Observation {
            over_ms,
            capacity: CAPACITY,
            others: others.clamp(0, CAPACITY),
            unused: seen_unused.clamp(0, CAPACITY),
        }
    }

    /// What our workers have used since the last look, microseconds.
    fn read_clocks(&mut self) -> i64 {
        let now_ms = self.stage.mono_ms;
        let clocks: BTreeMap<WorkerId, u64> =
            self.workers.iter().map(|(id, worker)| (*id, worker.clock_us(now_ms))).collect();
        let last = std::mem::replace(&mut self.machine.clocks, clocks);
        let used = |(id, cpu_us): (&WorkerId, &u64)| cpu_us.saturating_sub(last.get(id).copied().unwrap_or_default());
        i64::try_from(self.machine.clocks.iter().map(used).sum::<u64>()).unwrap_or(i64::MAX)
    }

    fn book_others(&mut self) {
        let now_ms = self.stage.mono_ms;
        self.machine.wanted += self.machine.others * (now_ms - self.machine.others_since_ms);
        self.machine.others_since_ms = now_ms;
    }

    fn others_use(&mut self, others: i64) {
        self.book_others();
        let more = others > self.machine.others;
        self.machine.others = others;
        if more && self.machine.every_ms.is_some() {
            // The kernel tells of pressure.
            let wait_ms = self.stage.rng.between(0, 200);
            self.stage.after(wait_ms, Happening::Probe(self.machine.order));
        }
    }

    /// Others use more of the machine, or less.
    pub(crate) fn foreground(&mut self) {
        if self.stage.healed {
            return;
        }
        let others = *self.stage.rng.pick(&LEVELS).unwrap_or(&0);
        self.others_use(others);
        let wait_ms = *self.stage.rng.pick(&[200, 3000, 10_000]).unwrap_or(&3000);
        let wait_ms = self.stage.rng.between(100, wait_ms);
        self.stage.always_after(wait_ms, Happening::Foreground);
    }

    /// Everything is there; others leave the machine alone, or use it for ever.
    pub(crate) fn heal_machine(&mut self) {
        self.machine.gone.clear();
        if let Gate::Auto { stays_busy, .. } = self.stage.plan.gate {
            self.others_use(if stays_busy { CAPACITY } else { 0 });
        }
    }

    /// Something happens to the machine.
    pub(crate) fn machine_event(&mut self) -> Verdict {
        match self.stage.rng.below(12) {
            0..=3 => self.device_event(),
            4 | 5 => self.system(SystemMessage::LinkUp { interface: "eth0".to_owned() }),
            6 => self.system(SystemMessage::LinkDown { interface: "eth0".to_owned() }),
            7 | 8 => {
                if self.stage.rng.chance(800) {
                    let wait_ms = self.stage.rng.between(100, 12_000);
                    self.stage.after(wait_ms, Happening::Hear(Box::new(Event::System(SystemMessage::Resume))));
                }
                self.system(SystemMessage::Suspend)
            }
            9 => self.system(SystemMessage::Shutdown),
            10 => {
                let hint = *self.stage.rng.pick(&[None, Some(true), Some(false)]).unwrap_or(&None);
                self.hear(Event::IdleHint(hint))
            }
            _ if self.stage.rng.chance(600) => {
                self.checker.stops();
                self.system(SystemMessage::PowerFailure)
            }
            _ => Ok(()),
        }
    }

    fn system(&mut self, message: SystemMessage) -> Verdict {
        self.hear(Event::System(message))
    }

    /// A device vanishes or comes back. The supervisor hears of it, hears that something was not heard, or hears nothing.
    fn device_event(&mut self) -> Verdict {
        let devices: Vec<String> =
            self.stage.plan.providers.iter().filter_map(|provider| provider.device.clone()).collect();
        let Some(name) = self.stage.rng.pick(&devices).cloned() else { return Ok(()) };
        let back = self.machine.gone.remove(&name);
        if !back {
            self.machine.gone.insert(name.clone());
        }
        let device = Device { subsystem: "tty".to_owned(), name };
        match self.stage.rng.below(10) {
            0..=6 if back => self.system(SystemMessage::DeviceAdded(device)),
            0..=6 => self.system(SystemMessage::DeviceRemoved(device)),
            7 => self.hear(Event::DevicesUncertain),
            _ => Ok(()),
        }
    }
}
