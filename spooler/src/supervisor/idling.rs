//! Housekeeping while nothing else is wanted: providers that wish it are called when the machine is idle (IXPLogon::Idle), at no
//! promised rate. Idle is a machine on which nothing of ours is wanted and the gate is open.

use spooler_protocol::calls::Wishes;
use spooler_protocol::to_worker::ToWorker;

use super::event::{Action, WorkerId};
use super::{Provider, Supervisor};
use crate::policy::lane::Lane;
use crate::policy::overrun::Call;
use crate::policy::{Now, ProviderId};

/// Nothing was wanted for so long (IdleRequiredInterval of the ancestor); also how soon a machine that was not idle is looked at
/// again (ScanAgainInterval).
const QUIET_MS: i64 = 2000;
/// Between two calls of one provider.
const INTERVAL_MS: i64 = 60_000;

/// How far idling is with a provider.
#[derive(Debug, Default)]
pub(super) struct Idle {
    /// It was called and has not answered.
    running: bool,
    /// Not before.
    next_ms: i64,
}

impl Provider {
    fn wishes_idle(&self) -> bool {
        self.may_be_called()
            && !self.session.idle.running
            && self.critical.is_none()
            && self.announced.as_ref().is_some_and(|announced| announced.wishes.contains(Wishes::IDLE))
    }
}

impl Supervisor {
    /// Whether nothing of ours has been wanted for a while: no worker wants or wanted a token, and nothing is ready that could go out.
    pub(super) fn machine_is_idle(&self, now: Now) -> bool {
        let could_go = |id: &ProviderId| {
            let provider = self.providers.get(id).filter(|provider| provider.may_be_called() && !provider.is_offline());
            provider.is_some() && self.queue.lane_of(*id).is_some_and(|lane: &Lane| lane.ready() > 0)
        };
        now.mono_ms - self.active_ms >= QUIET_MS && !self.scheduler.is_wanted() && !self.order.iter().any(could_go)
    }

    /// When idle time may come, if anybody waits for it.
    pub(super) fn idle_at_ms(&self) -> Option<i64> {
        let wishing = self.providers.values().filter(|provider| provider.wishes_idle());
        let at_ms = wishing.map(|provider| provider.session.idle.next_ms).min()?.max(self.active_ms + QUIET_MS);
        Some(if at_ms <= self.ticked_ms { self.ticked_ms + QUIET_MS } else { at_ms })
    }

    /// Calls everybody who wishes it, if the machine is idle.
    pub(super) fn offer_idle(&mut self, now: Now, actions: &mut Vec<Action>) {
        let is_due = |provider: &Provider| provider.wishes_idle() && provider.session.idle.next_ms <= now.mono_ms;
        let due: Vec<ProviderId> =
            self.order.iter().copied().filter(|id| self.providers.get(id).is_some_and(is_due)).collect();
        if due.is_empty() || self.stopping.is_some() || !self.machine_is_idle(now) {
            return;
        }
        if !self.gate.is_open() {
            // That others use the machine may be long ago: somebody has to look again.
            self.gate.on_demand();
            self.tokens_touched = true;
            return;
        }
        for id in due {
            let Some(provider) = self.providers.get_mut(&id) else { continue };
            provider.session.idle = Idle { running: true, next_ms: now.mono_ms + INTERVAL_MS };
            self.note_call(id, Call::Idle, now);
            self.say(id, ToWorker::Idle, actions);
        }
    }

    /// A provider is through with its housekeeping.
    pub(super) fn on_idled(&mut self, worker: WorkerId) {
        if let Some(provider) = self.providers.get_mut(&worker.provider) {
            provider.session.idle.running = false;
        }
    }
}
