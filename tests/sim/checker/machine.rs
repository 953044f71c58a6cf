//! What happens to the machine: who has no device gets nothing to do, nothing begins before sleep, nobody runs in it, and the machine is
//! let go in time.

use std::collections::{BTreeMap, BTreeSet};

use spooler::policy::{Now, ProviderId};
use spooler::supervisor::event::{Action, Event};
use spooler_protocol::notification::SystemMessage;
use spooler_protocol::to_worker::ToWorker;

use super::{Verdict, demand};

/// Before sleep there is so much time at most, milliseconds.
const SETTLE_MS: i64 = 3000;
/// Before it shuts down, the machine waits so long.
const TOLD_MS: i64 = 500;
/// If nobody says that the machine is awake, it is after so long.
const ASLEEP_MS_MAX: i64 = 60_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Rest {
    #[default]
    Awake,
    Settling {
        since_ms: i64,
    },
    Asleep {
        since_ms: i64,
    },
}

/// What is known of the machine.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    needs: BTreeMap<ProviderId, String>,
    lacking: BTreeSet<ProviderId>,
    rest: Rest,
    shutdown_ms: Option<i64>,
    slack_ms: i64,
}

impl Machine {
    pub(super) fn new(slack_ms: i64) -> Self {
        Self { slack_ms, ..Self::default() }
    }

    /// Which device a provider needs.
    pub(crate) fn note_device(&mut self, provider: ProviderId, device: Option<String>) {
        if let Some(device) = device {
            self.needs.insert(provider, device);
        }
    }

    /// Whether a provider has been told to lack its device.
    pub(crate) fn is_lacking(&self, provider: ProviderId) -> bool {
        self.lacking.contains(&provider)
    }

    /// Whether nobody gets a token.
    pub(super) fn is_asleep(&self) -> bool {
        matches!(self.rest, Rest::Asleep { .. })
    }

    pub(super) fn hears(&mut self, now: Now, event: &Event) {
        match event {
            Event::DevicePresent(name, present) => {
                for (provider, _) in self.needs.iter().filter(|(_, needed)| *needed == name) {
                    if *present {
                        self.lacking.remove(provider);
                    } else {
                        self.lacking.insert(*provider);
                    }
                }
            }
            Event::System(SystemMessage::Suspend) => self.rest = Rest::Settling { since_ms: now.mono_ms },
            Event::System(SystemMessage::Resume) => (self.rest, self.shutdown_ms) = (Rest::Awake, None),
            Event::System(SystemMessage::Shutdown) => self.shutdown_ms = Some(now.mono_ms),
            Event::Tick => {
                if matches!(self.rest, Rest::Asleep { since_ms } if since_ms + ASLEEP_MS_MAX <= now.mono_ms) {
                    (self.rest, self.shutdown_ms) = (Rest::Awake, None);
                }
            }
            _ => {}
        }
    }

    pub(super) fn wants(&mut self, now: Now, action: &Action) -> Verdict {
        match action {
            Action::Submit(order) => {
                let lacks = self.lacking.contains(&order.worker.provider);
                demand(!lacks, "who lacks a device gets no delivery", || format!("{:?}", order.worker))?;
                self.demand_awake("a delivery")
            }
            Action::Send(_, ToWorker::Poll | ToWorker::StartMessage) => self.demand_awake("a call"),
            Action::Send(worker, ToWorker::Grant { .. }) => {
                demand(!self.is_asleep(), "nobody runs while the machine sleeps", || format!("{worker:?}"))
            }
            Action::LetMachineGo => {
                let shuts_down = self.shutdown_ms.take_if(|shutdown_ms| now.mono_ms - *shutdown_ms >= TOLD_MS);
                if shuts_down.is_none() && matches!(self.rest, Rest::Settling { .. }) {
                    self.rest = Rest::Asleep { since_ms: now.mono_ms };
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn demand_awake(&self, what: &str) -> Verdict {
        demand(self.rest == Rest::Awake, "before sleep nothing begins", || format!("{what}: {:?}", self.rest))
    }

    pub(super) fn stepped(&self, now: Now) -> Verdict {
        let since = match self.rest {
            Rest::Settling { since_ms } => since_ms + SETTLE_MS,
            Rest::Awake | Rest::Asleep { .. } => i64::MAX,
        };
        let since = self.shutdown_ms.map_or(since, |shutdown_ms| since.min(shutdown_ms + TOLD_MS));
        demand(now.mono_ms <= since.saturating_add(self.slack_ms), "the machine is let go in time", || {
            format!("{:?} at {now:?}", self.rest)
        })
    }

    pub(super) fn supervisor_gone(&mut self) {
        *self = Self::new(self.slack_ms);
    }
}

/// Whether the machine is about to go, and will not wait for long.
pub(super) fn is_farewell(message: &SystemMessage) -> bool {
    matches!(message, SystemMessage::Suspend | SystemMessage::Shutdown | SystemMessage::PowerFailure)
}
