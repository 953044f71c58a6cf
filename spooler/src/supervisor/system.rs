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

use spooler_protocol::ids::MessageId;
use spooler_protocol::notification::{Notification, SystemMessage};
use spooler_protocol::status::WorkerState;
use spooler_protocol::to_worker::ToWorker;

use super::event::{Action, Loudness};
use super::{Supervisor, log};
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
        match idle {
            Some(true) if before != idle => log(actions, Loudness::Info, "the machine's user is away".to_owned()),
            Some(false) if before == Some(true) => {
                log(actions, Loudness::Info, "the machine's user is back".to_owned());
            }
            _ => {}
        }
    }

    /// Every provider that is logged on hears of it.
    pub(super) fn tell_all(&self, message: &SystemMessage, actions: &mut Vec<Action>) {
        for (id, provider) in &self.providers {
            if matches!(provider.life.state(), WorkerState::Ready | WorkerState::Draining) {
                self.say(*id, ToWorker::Notify(Notification::System(message.clone())), actions);
            }
        }
    }

    /// What runs may end if it is quick; everything that is known is on its way to the disk.
    fn on_power_failure(&mut self, now: Now, actions: &mut Vec<Action>) {
        let flushes: Vec<u64> = self.flushes.keys().copied().collect();
        flushes.into_iter().for_each(|number| self.end_flush(number));
        if self.stopping.is_none() {
            let quick = std::time::Duration::from_millis(POWER_MS);
            self.config.stop_timeout = self.config.stop_timeout.min(quick);
            self.stop(now, actions);
        }
    }

    fn on_resume(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.machine.rest = Rest::Awake;
        self.machine.shutdown_ms = None;
        self.tokens_touched = true;
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
            actions.push(Action::LetMachineGo);
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
            actions.push(Action::LetMachineGo);
        }
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
mod tests {
    use spooler_protocol::calls::{EndMessage, Methods, Wishes};
    use spooler_protocol::from_worker::{Destinations, FromWorker, LoggedOn};
    use spooler_protocol::message::{BodyType, Envelope, Priority, Recipient};
    use spooler_protocol::notification::Device;
    use spooler_protocol::outcome::SubmitResult;

    use super::super::event::{Ask, AskId, Event, Incoming, Ticket, WorkerId, WorkerNews};
    use super::super::{Supervisor, Surroundings};
    use super::*;

    const TEXT: &str = "[provider.a]\nkind = \"x\"\nclaims = [\"*\"]\nneeds_device = \"/dev/ttyUSB0\"\n\
        [provider.b]\nkind = \"y\"\n";

    fn at(mono_ms: i64) -> Now {
        Now { mono_ms, wall_ms: mono_ms }
    }

    /// A supervisor whose two providers are logged on, and the worker of the first.
    struct World {
        supervisor: Supervisor,
        workers: Vec<WorkerId>,
        actions: Vec<Action>,
    }

    impl World {
        fn new() -> Self {
            let config = crate::config::parse(TEXT, std::path::Path::new("x.toml")).unwrap();
            let surroundings = Surroundings { cores: 2, pid: 1, seed: 1, last_id: MessageId(0) };
            let (supervisor, actions) = Supervisor::new(config, surroundings, at(0));
            let spawned = |action: &Action| if let Action::Spawn(worker) = action { Some(*worker) } else { None };
            let workers: Vec<WorkerId> = actions.iter().filter_map(spawned).collect();
            assert!(actions.contains(&Action::LookForDevice("ttyUSB0".to_owned())), "it is looked for at the start");
            let mut world = Self { supervisor, workers: workers.clone(), actions: Vec::new() };
            for worker in workers {
                world.hear(0, Event::Worker(worker, WorkerNews::Started { pid: 2 }));
                world.said(0, worker, FromWorker::LoggedOn(logged_on()));
            }
            world.hear(0, Event::ScanEnded(Ok(())));
            world
        }

        fn hear(&mut self, now_ms: i64, event: Event) -> &[Action] {
            self.actions.clear();
            self.supervisor.step(at(now_ms), event, &mut self.actions);
            self.supervisor.check_invariants();
            &self.actions
        }

        fn said(&mut self, now_ms: i64, worker: WorkerId, said: FromWorker) {
            self.hear(now_ms, Event::Worker(worker, WorkerNews::Said { said, cpu_us: None }));
        }

        /// Hears one and gives how many workers are told of it before anything else is said to them.
        fn told(&mut self, now_ms: i64, message: &SystemMessage) -> usize {
            let word = ToWorker::Notify(Notification::System(message.clone()));
            let sent = self.hear(now_ms, Event::System(message.clone())).iter();
            let sent = sent.filter_map(|action| if let Action::Send(_, word) = action { Some(word) } else { None });
            sent.take_while(|said| **said == word).count()
        }

        /// Accepts a message and brings it to disk. It is the first provider's.
        fn submit(&mut self, now_ms: i64) {
            let envelope = Envelope {
                sender: "a@b.test".to_owned(),
                recipients: vec![Recipient::new("c@d.test".parse().unwrap())],
                ret: None,
                envid: None,
                body: BodyType::SevenBit,
                smtputf8: false,
                priority: Priority::Normal,
            };
            let content = Incoming::Inline(bytes::Bytes::from_static(b"x"));
            let ask = Ask::Submit { envelope, origin: String::new(), owner_uid: 0, content };
            let commits = self.hear(now_ms, Event::Asked(AskId(1), ask)).iter();
            let tickets: Vec<Ticket> = commits
                .filter_map(|action| if let Action::Commit(ticket, _) = action { Some(*ticket) } else { None })
                .collect();
            self.hear(now_ms, Event::Committed(tickets[0], Ok(())));
        }

        /// The delivery that the last event began.
        fn submitted(&self) -> Option<spooler_protocol::ids::DeliveryId> {
            self.actions
                .iter()
                .find_map(|action| if let Action::Submit(order) = action { Some(order.delivery) } else { None })
        }

        fn defer(&mut self, now_ms: i64, delivery: spooler_protocol::ids::DeliveryId) {
            let result = SubmitResult::Wait { after_ms: 3_600_000 };
            let said = FromWorker::Finished { delivery, result, end: EndMessage::Done, outcomes: Vec::new() };
            self.said(now_ms, self.workers[0], said);
        }

        fn grants(&self) -> usize {
            let granted = |action: &&Action| matches!(action, Action::Send(_, ToWorker::Grant { .. }));
            self.actions.iter().filter(granted).count()
        }
    }

    fn logged_on() -> LoggedOn {
        LoggedOn {
            address_types: vec!["SMTP".to_owned()],
            credit: 1,
            destinations: Destinations::default(),
            identity: String::new(),
            wishes: Wishes::default(),
            methods: Methods::default(),
            prefer_last: false,
        }
    }

    fn link_up() -> SystemMessage {
        SystemMessage::LinkUp { interface: "eth0".to_owned() }
    }

    #[test]
    fn every_provider_that_is_logged_on_hears_of_it() {
        let mut world = World::new();
        assert_eq!(world.told(1, &link_up()), 2);
        let died = world.workers[0];
        world.hear(2, Event::Worker(died, WorkerNews::Died("x".to_owned())));
        assert_eq!(world.told(3, &SystemMessage::Suspend), 1);
    }

    #[test]
    fn a_link_that_is_up_makes_ready_what_waits_but_not_again_and_again() {
        let mut world = World::new();
        world.submit(0);
        let first = world.submitted().unwrap();
        world.defer(1, first);
        assert_eq!(world.submitted(), None);
        world.hear(10, Event::System(link_up()));
        let second = world.submitted().expect("it is tried at once");
        world.defer(20, second);
        world.hear(30, Event::System(link_up()));
        assert_eq!(world.submitted(), None, "that was a moment ago");
        assert_eq!(world.supervisor.machine_deadline_ms(), Some(10 + WAKE_GAP_MS));
        world.hear(10 + WAKE_GAP_MS, Event::Tick);
        assert!(world.submitted().is_some(), "the last word counts");
    }

    #[test]
    fn the_machine_sleeps_when_providers_were_told_and_deliveries_have_ended() {
        let mut world = World::new();
        world.submit(0);
        let delivery = world.submitted().unwrap();
        world.hear(100, Event::System(SystemMessage::Suspend));
        world.submit(110);
        world.hear(100 + TOLD_MS, Event::Tick);
        assert!(!world.actions.contains(&Action::LetMachineGo), "a delivery runs");
        world.said(900, world.workers[1], FromWorker::Want);
        assert_eq!(world.grants(), 1, "whoever was told has to run");
        world.defer(1000, delivery);
        assert_eq!(world.submitted(), None, "none begins");
        assert!(world.actions.contains(&Action::LetMachineGo));
        world.said(1010, world.workers[0], FromWorker::Want);
        assert_eq!(world.grants(), 0, "nobody runs while the machine sleeps");
        let heard = world.told(1020, &SystemMessage::Resume);
        assert_eq!((heard, world.grants(), world.submitted().is_some()), (2, 1, true));
    }

    #[test]
    fn a_delivery_that_does_not_end_keeps_no_machine_awake() {
        let mut world = World::new();
        world.submit(0);
        world.hear(0, Event::System(SystemMessage::Suspend));
        assert_eq!(world.supervisor.machine_deadline_ms(), Some(SETTLE_MS));
        assert!(world.hear(SETTLE_MS, Event::Tick).contains(&Action::LetMachineGo));
        world.hear(SETTLE_MS + ASLEEP_MS_MAX, Event::Tick);
        assert!(world.supervisor.machine.is_awake(), "nobody says that it has woken up, but it has");
    }

    #[test]
    fn without_its_device_a_provider_is_offline_and_nothing_goes_out() {
        let mut world = World::new();
        world.hear(0, Event::DevicePresent("ttyUSB0".to_owned(), false));
        world.submit(1);
        assert_eq!(world.submitted(), None);
        let table = world.supervisor.status_table(at(2));
        assert_eq!(table.providers[0].text, "offline: device ttyUSB0 is not there");
        assert!(table.providers[0].code.contains(spooler_protocol::status::StatusCode::OFFLINE));
        assert!(!table.providers[1].code.contains(spooler_protocol::status::StatusCode::OFFLINE));
        let device = Device { subsystem: "tty".to_owned(), name: "ttyUSB0".to_owned() };
        let look = Action::LookForDevice("ttyUSB0".to_owned());
        assert!(world.hear(3, Event::System(SystemMessage::DeviceAdded(device))).contains(&look));
        world.hear(4, Event::DevicePresent("ttyUSB0".to_owned(), true));
        assert!(world.submitted().is_some());
        assert!(world.hear(4 + LOOK_MS, Event::Tick).contains(&look), "it is looked for without events, too");
    }

    #[test]
    fn power_failure_ends_flushes_and_stops_quickly() {
        let mut world = World::new();
        world.submit(0);
        let flush = spooler_protocol::control::FlushCommand { provider: None };
        world.hear(1, Event::Asked(AskId(2), Ask::FlushBegin(flush)));
        assert!(world.supervisor.is_flushing(world.workers[0].provider));
        let told = world.told(2, &SystemMessage::PowerFailure);
        assert_eq!(told, 2);
        assert!(!world.supervisor.is_flushing(world.workers[0].provider));
        let logoffs: Vec<&Action> = world
            .actions
            .iter()
            .filter(|action| matches!(action, Action::Send(_, ToWorker::Logoff { hurry: false })))
            .collect();
        assert_eq!(logoffs.len(), 2);
        assert!(world.supervisor.deadline_ms(at(2)).is_some_and(|at| at <= 2 + 5000));
    }

    #[test]
    fn shutdown_is_heard_before_logoff() {
        let mut world = World::new();
        let heard = ToWorker::Notify(Notification::System(SystemMessage::Shutdown));
        let worker = world.workers[0];
        let sent: Vec<Action> = world
            .hear(1, Event::Stop)
            .iter()
            .filter(|action| matches!(action, Action::Send(to, _) if *to == worker))
            .map(|action| match action {
                Action::Send(to, word) => Action::Send(*to, word.clone()),
                _ => unreachable!("only what is sent is left"),
            })
            .collect();
        assert_eq!(sent, [Action::Send(worker, heard), Action::Send(worker, ToWorker::Logoff { hurry: false })]);
    }

    #[test]
    fn a_loose_contact_does_not_fill_the_channels() {
        let mut world = World::new();
        let down = SystemMessage::LinkDown { interface: "eth0".to_owned() };
        let told: usize = (0..1000).map(|_| world.told(1, &down)).sum();
        assert_eq!(told, 2 * 64);
        assert_eq!(world.told(1 + NEWS_WINDOW_MS, &down), 2);
    }
}
