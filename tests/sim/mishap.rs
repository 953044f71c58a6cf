//! What goes wrong by itself: the disk, the clock, the configuration, the supervisor, and any process at any time.

use spooler::supervisor::event::{Event, WorkerId, WorkerNews};

use crate::agenda::Happening;
use crate::checker::Verdict;
use crate::world::World;

impl World {
    /// Now and then something goes wrong, until all is well.
    pub(crate) fn mishap(&mut self) -> Verdict {
        if self.stage.healed {
            return Ok(());
        }
        let wait_ms = self.stage.rng.between(50, 1000);
        self.stage.always_after(wait_ms, Happening::Mishap);
        let troubles = self.stage.plan.troubles;
        if self.stage.mishap(troubles.disk_state) {
            self.disk.full = self.stage.rng.chance(300);
            self.disk.slow_ms = if self.stage.rng.chance(300) { self.stage.rng.between(100, 3000) } else { 0 };
        }
        if self.stage.mishap(troubles.clock) {
            let hour_ms = 3_600_000;
            self.stage.wall_ahead_ms += self.stage.rng.between(-30 * hour_ms, 30 * hour_ms);
        }
        if self.stage.mishap(troubles.reload) {
            let mut rng = self.stage.rng.clone();
            self.stage.plan.vary(&mut rng);
            self.stage.rng = rng;
            self.reload()?;
        }
        if self.supervisor.is_some() && self.stage.mishap(troubles.machine) {
            self.machine_event()?;
        }
        if self.stage.mishap(troubles.death) {
            self.strike();
        }
        if self.stage.mishap(troubles.lie)
            && let Some(id) = self.any_worker()
            && self.checker.is_alive(id)
        {
            let garbage = WorkerNews::Garbled("what it says cannot be decoded".to_owned());
            self.hear(Event::Worker(id, garbage))?;
        }
        let impatient = self.checker.is_stopping() && self.stage.rng.chance(100);
        if impatient || self.stage.mishap(troubles.stop) {
            self.checker.stops();
            self.hear(Event::Stop)?;
        }
        if self.supervisor.is_some() && self.stage.mishap(troubles.crash) {
            self.crash();
        }
        Ok(())
    }

    fn any_worker(&mut self) -> Option<WorkerId> {
        let living: Vec<WorkerId> = self.workers.keys().copied().collect();
        self.stage.rng.pick(&living).copied()
    }

    /// A process dies or is stopped, whatever it does.
    fn strike(&mut self) {
        let Some(id) = self.any_worker() else { return };
        if self.stage.rng.chance(700) {
            self.stage.after(0, Happening::Dies(id, "signal 9"));
        } else {
            let wait_ms = self.stage.rng.between(10, 10_000);
            self.stage.after(0, Happening::Hangs(id));
            self.stage.after(wait_ms, Happening::GoesOn(id));
        }
    }
}
