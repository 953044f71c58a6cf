//! What happens to the machine: providers hear of it, and the schedule follows.
//!
//! ```text
//!            Suspend            told, and deliveries ended or out of time          Resume
//!   awake ─────────▶ settling ───────────────────────────────────────────▶ asleep ───────▶ awake
//!                    no new deliveries                                     no tokens       what waits is tried
//! ```
//!
//! A network that is back and a machine that woke up make waiting deliveries ready, but not again and again while a link flaps. A
//! provider that needs a device is offline without it; whether it is there is seen by others and told here. Time that the machine slept
//! is no time: the clock that decides stands still meanwhile.
//!
//! Who hears that the machine is about to sleep or to go down gets its tokens at once, whatever the gate and the slots say, until the
//! machine is let go: otherwise it would hear of it too late.

use spooler_protocol::ids::MessageId;
use spooler_protocol::notification::{Notification, SystemMessage};
use spooler_protocol::to_worker::ToWorker;

use super::event::{Action, Loudness};
use super::{Supervisor, log};
use crate::policy::flush::Ways;
use crate::policy::routing::Route;
use crate::policy::{Now, ProviderId};

/// Providers have at least so long to act on what they hear before the machine sleeps.
const TOLD_MS: i64 = 500;
/// Deliveries in flight have at most so long. logind waits 5 s at most, unless it is configured otherwise.
const SETTLE_MS: i64 = 3000;
/// Awake for so long without being told: nobody will tell any more.
const ASLEEP_MS_MAX: i64 = 60_000;
/// What waits is made ready by a link or a wakening at most this often.
const WAKE_GAP_MS: i64 = 5000;
/// Between two looks at the devices that are needed, besides those that a device event causes.
const LOOK_MS: i64 = 10_000;
/// Devices and links that workers hear of in this time, at most so many: a loose contact is no reason to fill their channels.
const NEWS_WINDOW_MS: i64 = 10_000;
const NEWS_MAX: u32 = 64;
/// What runs when power fails may take so long.
const POWER_MS: u64 = 5000;

/// What is known of the machine.
#[derive(Debug, Default)]
pub(super) struct Machine {
    /// Whether its user is away, if that is known.
    pub(super) idle_hint: Option<bool>,
    rest: Rest,
    /// When the machine may shut down, if it wants to.
    shutdown_ms: Option<i64>,
    woken_ms: Option<i64>,
    wake_due_ms: Option<i64>,
    look_ms: Option<i64>,
    news_since_ms: i64,
    news: u32,
}

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

impl Machine {
    /// Whether deliveries may begin.
    pub(super) fn is_awake(&self) -> bool {
        self.rest == Rest::Awake
    }

    /// Whether nobody gets a token.
    pub(super) fn is_asleep(&self) -> bool {
        matches!(self.rest, Rest::Asleep { .. })
    }

    /// Whether workers may hear of one more device or link now.
    fn may_tell(&mut self, now: Now) -> bool {
        if now.mono_ms - self.news_since_ms >= NEWS_WINDOW_MS {
            self.news_since_ms = now.mono_ms;
            self.news = 0;
        }
        self.news += 1;
        self.news <= NEWS_MAX
    }
}

impl Supervisor {
    /// Something happens to the machine.
    pub(super) fn on_system(&mut self, message: SystemMessage, now: Now, actions: &mut Vec<Action>) {
        let frequent = match &message {
            SystemMessage::DeviceAdded(_) | SystemMessage::DeviceRemoved(_) => true,
            SystemMessage::LinkUp { .. } | SystemMessage::LinkDown { .. } => true,
            SystemMessage::Shutdown | SystemMessage::PowerFailure => false,
            SystemMessage::Suspend | SystemMessage::Resume => false,
        };
        if !frequent || self.machine.may_tell(now) {
            log(actions, Loudness::Info, in_words(&message));
            self.tell_all(&message, actions);
        }
        if matches!(message, SystemMessage::Shutdown | SystemMessage::PowerFailure | SystemMessage::Suspend) {
            self.let_told_pass();
        }
        match message {
            SystemMessage::Shutdown => self.machine.shutdown_ms = Some(now.mono_ms + TOLD_MS),
            SystemMessage::PowerFailure => self.on_power_failure(now, actions),
            SystemMessage::Suspend => self.machine.rest = Rest::Settling { since_ms: now.mono_ms },
            SystemMessage::Resume => self.on_resume(now, actions),
            SystemMessage::DeviceAdded(_) | SystemMessage::DeviceRemoved(_) => self.look_for_devices(actions),
            SystemMessage::LinkUp { .. } => self.wake_waiting(now),
            SystemMessage::LinkDown { .. } => {}
        }
    }

    /// Whether the machine's user is away, as far as somebody knows.
    pub(super) fn on_idle_hint(&mut self, idle: Option<bool>, actions: &mut Vec<Action>) {
        let before = std::mem::replace(&mut self.machine.idle_hint, idle);
        self.gate.set_idle_hint(idle);
        match idle {
            Some(true) if before != idle => log(actions, Loudness::Info, "the machine's user is away".to_owned()),
            Some(false) if before == Some(true) => {
                log(actions, Loudness::Info, "the machine's user is back".to_owned());
            }
            _ => {}
        }
    }

    /// Every provider that is logged on hears of it, unless nothing is called there.
    pub(super) fn tell_all(&self, message: &SystemMessage, actions: &mut Vec<Action>) {
        for id in self.audience() {
            self.say(id, ToWorker::Notify(Notification::System(message.clone())), actions);
        }
    }

    /// Who hears what happens to the machine.
    fn audience(&self) -> impl Iterator<Item = ProviderId> {
        self.providers.iter().filter(|(_, provider)| provider.may_be_told()).map(|(id, _)| *id)
    }

    /// The machine is about to go: who hears of it waits neither for the gate nor for a slot.
    fn let_told_pass(&mut self) {
        let told: Vec<ProviderId> = self.audience().collect();
        self.scheduler.set_told(&told);
        self.tokens_touched = true;
    }

    /// The machine may go; or it stays.
    fn end_passing(&mut self) {
        self.scheduler.set_told(&[]);
        self.tokens_touched = true;
    }

    /// What runs may end if it is quick; everything that is known is on its way to the disk.
    fn on_power_failure(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.stop_flushes(None, Ways::BOTH, now, actions);
        if self.stopping.is_none() {
            let quick = std::time::Duration::from_millis(POWER_MS);
            self.config.stop_timeout = self.config.stop_timeout.min(quick);
            self.stop(now, actions);
        }
    }

    fn on_resume(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.machine.rest = Rest::Awake;
        self.machine.shutdown_ms = None;
        self.end_passing();
        self.touched.extend(self.order.iter().copied());
        self.look_for_devices(actions);
        self.wake_waiting(now);
    }

    /// What waits for a later attempt is tried now, or in a moment if that has just been done.
    fn wake_waiting(&mut self, now: Now) {
        if let Some(woken_ms) = self.machine.woken_ms.filter(|woken_ms| now.mono_ms < woken_ms + WAKE_GAP_MS) {
            self.machine.wake_due_ms = Some(woken_ms + WAKE_GAP_MS);
            return;
        }
        self.machine.woken_ms = Some(now.mono_ms);
        self.machine.wake_due_ms = None;
        let waiting: Vec<(MessageId, Route)> = self.queue.deferred(None).collect();
        for (message, route) in waiting {
            self.queue.make_ready(message, Some(route));
            self.touched.insert(route.provider);
        }
    }

    /// Asks for every device that a provider needs.
    pub(super) fn look_for_devices(&mut self, actions: &mut Vec<Action>) {
        let needed = self.providers.values().filter_map(|provider| provider.config.needs_device.as_ref());
        let needed: std::collections::BTreeSet<&String> = needed.collect();
        // The next look is due when its answer has come.
        actions.extend(needed.into_iter().map(|name| Action::LookForDevice(name.clone())));
    }

    /// A device was looked for.
    pub(super) fn on_device_present(&mut self, name: &str, present: bool, now: Now, actions: &mut Vec<Action>) {
        self.machine.look_ms = Some(now.mono_ms + LOOK_MS);
        let needs = |id: &ProviderId| {
            self.providers.get(id).is_some_and(|provider| provider.config.needs_device.as_deref() == Some(name))
        };
        let concerned: Vec<ProviderId> = self.providers.keys().copied().filter(needs).collect();
        for id in concerned {
            let Some(provider) = self.providers.get_mut(&id) else { continue };
            if provider.lacks_device != present {
                continue;
            }
            provider.lacks_device = !present;
            let how = if present { "is there again" } else { "is not there: offline" };
            let text = format!("provider {}: device {name} {how}", provider.config.name);
            let online = present && !provider.is_offline();
            log(actions, if present { Loudness::Info } else { Loudness::Warn }, text);
            if online {
                self.on_online(id);
            }
        }
    }

    /// Time has passed.
    pub(super) fn on_machine_tick(&mut self, now: Now, actions: &mut Vec<Action>) {
        let due = |at: Option<i64>| at.is_some_and(|at| at <= now.mono_ms);
        if due(self.machine.shutdown_ms) {
            self.machine.shutdown_ms = None;
            self.let_machine_go(actions);
        }
        if due(self.machine.wake_due_ms) {
            self.wake_waiting(now);
        }
        if due(self.machine.look_ms) {
            self.machine.look_ms = None;
            self.look_for_devices(actions);
        }
        self.settle(now, actions);
        if matches!(self.machine.rest, Rest::Asleep { since_ms } if since_ms + ASLEEP_MS_MAX <= now.mono_ms) {
            log(actions, Loudness::Warn, "the machine did not sleep after all".to_owned());
            self.on_system(SystemMessage::Resume, now, actions);
        }
    }

    /// Lets the machine sleep when nothing stands against it any more. Called whenever that may have changed.
    pub(super) fn settle(&mut self, now: Now, actions: &mut Vec<Action>) {
        let Rest::Settling { since_ms } = self.machine.rest else { return };
        let told = now.mono_ms >= since_ms + TOLD_MS;
        if now.mono_ms >= since_ms + SETTLE_MS || (told && self.flights.is_empty()) {
            self.machine.rest = Rest::Asleep { since_ms: now.mono_ms };
            self.let_machine_go(actions);
        }
    }

    fn let_machine_go(&mut self, actions: &mut Vec<Action>) {
        self.end_passing();
        actions.push(Action::LetMachineGo);
    }

    /// When [`Supervisor::on_machine_tick`] has something to do.
    pub(super) fn machine_deadline_ms(&self) -> Option<i64> {
        let machine = &self.machine;
        let rest = match machine.rest {
            Rest::Awake => None,
            Rest::Settling { since_ms } if self.flights.is_empty() => Some(since_ms + TOLD_MS),
            Rest::Settling { since_ms } => Some(since_ms + SETTLE_MS),
            Rest::Asleep { since_ms } => Some(since_ms + ASLEEP_MS_MAX),
        };
        [rest, machine.shutdown_ms, machine.wake_due_ms, machine.look_ms].into_iter().flatten().min()
    }
}

fn in_words(message: &SystemMessage) -> String {
    match message {
        SystemMessage::Shutdown => "the machine is about to shut down".to_owned(),
        SystemMessage::PowerFailure => "power fails".to_owned(),
        SystemMessage::Suspend => "the machine is about to sleep".to_owned(),
        SystemMessage::Resume => "the machine has woken up".to_owned(),
        SystemMessage::DeviceAdded(device) => format!("device {} ({}) has appeared", device.name, device.subsystem),
        SystemMessage::DeviceRemoved(device) => format!("device {} ({}) has gone", device.name, device.subsystem),
        SystemMessage::LinkUp { interface } => format!("network interface {interface} can be used"),
        SystemMessage::LinkDown { interface } => format!("network interface {interface} cannot be used any more"),
    }
}

#[cfg(test)]
mod tests;
