//! What a turn costs: virtual time for CPU, that of programs too, and for a slot that was kept from others.

use super::{Decision, Hold, OVERDUE_MS, Scheduler, WEIGHT_BASE};
use crate::policy::ProviderId;

/// Nobody is further behind the others than so many slices of its share; who overruns more than that climbs the ladder of
/// [`crate::policy::overrun`].
pub(super) const DEBT_SLICES_MAX: u64 = 16;

impl Scheduler {
    /// Adds to the virtual time of a worker; what is more than a debt may be is let off.
    pub(super) fn spend(&mut self, id: ProviderId, spent_us: u64) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.virtual_us += spent_us * WEIGHT_BASE / worker.weight;
        let present_us = self.advance();
        if let Some(worker) = self.workers.get_mut(&id) {
            let most_us = present_us + DEBT_SLICES_MAX * self.slice_us * WEIGHT_BASE / worker.weight;
            worker.virtual_us = worker.virtual_us.min(most_us);
        }
    }

    /// Books what the worker's CPU clock says. What goes beyond what a token allows is overdraft, however often the clock is read.
    pub fn charge(&mut self, id: ProviderId, cpu_us: Option<u64>) {
        let slice_us = self.slice_us;
        let (Some(worker), Some(cpu_us)) = (self.workers.get_mut(&id), cpu_us) else { return };
        let used_us = cpu_us.saturating_sub(worker.cpu_us);
        worker.cpu_us = cpu_us;
        let allowed_us = worker.allowed_us(slice_us);
        match (worker.urgency.any(), worker.runs_programs) {
            (true, _) => {}
            (false, true) => self.background.programs_us += used_us,
            (false, false) => self.background.sliced_us += used_us,
        }
        let before_us = worker.stretch_us.saturating_sub(allowed_us);
        worker.stretch_us += used_us;
        let over_us = worker.stretch_us.saturating_sub(allowed_us) - before_us;
        worker.overdraft_us += over_us;
        let surcharge_us = if worker.surcharged { over_us } else { 0 };
        self.spend(id, used_us + surcharge_us);
    }

    /// Books what the programs of a worker have used. It is as good as CPU of its own for who is next and for what the gate allows, but
    /// never overdraft: a program knows of no slices and cannot yield, and its worker waits for it as for a network. How long it may take
    /// is limited by its own timeout.
    pub fn charge_programs(&mut self, id: ProviderId, programs_us: u64) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let used_us = programs_us.saturating_sub(worker.programs_us);
        worker.programs_us += used_us;
        self.background.programs_us += if worker.urgency.any() { 0 } else { used_us };
        self.spend(id, used_us);
    }

    /// Its work is running programs: the gate then counts its own CPU as theirs.
    pub fn set_runs_programs(&mut self, id: ProviderId, on: bool) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.runs_programs = on;
        }
    }

    /// From now on what the worker overruns counts twice, or once again.
    pub fn set_surcharge(&mut self, id: ProviderId, on: bool) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.surcharged = on;
        }
    }

    /// Asks one worker for its token, whoever wants it; `None` if it has none, or was asked before.
    pub fn recall_one(&mut self, id: ProviderId, now_ms: i64) -> Option<Decision> {
        let worker = self.workers.get_mut(&id)?;
        let Hold::Holding { token, recalled: recalled @ false, .. } = &mut worker.hold else { return None };
        *recalled = true;
        worker.recalled_ms = Some(now_ms);
        Some(Decision::Recall(id, *token))
    }

    /// Charges those that kept a slot from others without computing, as far as they did.
    pub(super) fn charge_kept_slots(&mut self, now_ms: i64) {
        let longest_ms = i64::from(self.slice_ms()) + OVERDUE_MS;
        for (id, since_ms, used_us) in std::mem::take(&mut self.kept) {
            let kept_ms = (now_ms - since_ms).min(longest_ms);
            // The clock's last digit is no time.
            let kept_us = u64::try_from(kept_ms - 1).unwrap_or_default() * 1000;
            self.spend(id, kept_us.saturating_sub(used_us));
        }
    }

    /// Moves the present on to the least served worker that runs or wants to.
    pub(super) fn advance(&mut self) -> u64 {
        let active = self.workers.values().filter(|worker| worker.hold != Hold::Idle);
        let least_us = active.map(|worker| worker.virtual_us).min().unwrap_or_default();
        self.present_us = self.present_us.max(least_us);
        self.present_us
    }
}
