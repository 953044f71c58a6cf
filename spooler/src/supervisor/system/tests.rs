//! What providers hear of the machine, and what the schedule does.

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
        let surroundings = Surroundings { cores: 2, pid: 1, reload: String::new(), seed: 1, last_id: MessageId(0) };
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
        let ask = Ask::Submit { envelope, submission: true, origin: String::new(), owner_uid: 0, content };
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
    world.hear(2, Event::Worker(died, WorkerNews::Died("x".into())));
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
    let flush = spooler_protocol::control::FlushCommand::default();
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
    assert!(world.supervisor.deadline_ms().is_some_and(|at| at <= 2 + 5000));
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
    let words = [
        heard,
        ToWorker::Notify(Notification::EndInbound),
        ToWorker::Notify(Notification::EndOutbound),
        ToWorker::Logoff { hurry: false },
    ];
    assert_eq!(sent, words.map(|word| Action::Send(worker, word)));
}

#[test]
fn a_loose_contact_does_not_fill_the_channels() {
    let mut world = World::new();
    let down = SystemMessage::LinkDown { interface: "eth0".to_owned() };
    let told: usize = (0..1000).map(|_| world.told(1, &down)).sum();
    assert_eq!(told, 2 * 64);
    assert_eq!(world.told(1 + NEWS_WINDOW_MS, &down), 2);
}
