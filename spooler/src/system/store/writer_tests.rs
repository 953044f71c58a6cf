//! What the writer promises, against a store whose disk does what the test wants.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::Bytes;
use spooler_protocol::control::MessageState;
use spooler_protocol::ids::MessageId;

use super::conformance::{ids, message};
use super::memory::MemoryStore;
use super::reserve::Reserve;
use super::writer::{Ticket, Writer};
use super::{Change, NewMessage, Store, StoreError, StoreReader};
use crate::record::ORIGIN_REPORT;

const GOOD: u8 = 0;
const NO_ROOM_FOR_MESSAGES: u8 = 1;
const NO_ROOM: u8 = 2;
const FAILING: u8 = 3;
const DAMAGED: u8 = 4;

/// A store in memory on a disk with moods.
struct Faulty {
    inner: MemoryStore,
    mood: Arc<AtomicU8>,
    /// Told the number of units of each commit that begins.
    entered: Sender<usize>,
    /// Waited for before each commit goes on; open for good when the other end is dropped.
    gate: Receiver<()>,
}

impl Store for Faulty {
    fn commit(&mut self, units: &[Vec<Change>]) -> Result<(), StoreError> {
        let _ = self.entered.send(units.len());
        let _ = self.gate.recv();
        let accepts = units.iter().flatten().any(|change| matches!(change, Change::Accept(_)));
        let mood = self.mood.load(Ordering::SeqCst);
        if mood == NO_ROOM || (mood == NO_ROOM_FOR_MESSAGES && accepts) {
            return Err(StoreError::Full { path: "/x".to_owned() });
        }
        if mood == FAILING {
            return Err(StoreError::Failing { path: "/x".to_owned(), why: "EIO".to_owned() });
        }
        if mood == DAMAGED {
            return Err(StoreError::Damaged { path: "/x".to_owned(), why: "no page".to_owned() });
        }
        self.inner.commit(units)
    }

    fn reader(&self) -> Result<Box<dyn StoreReader>, StoreError> {
        self.inner.reader()
    }

    fn last_id(&mut self) -> Result<MessageId, StoreError> {
        self.inner.last_id()
    }

    fn tidy(&mut self) -> Result<(), StoreError> {
        self.inner.tidy()
    }
}

struct Fixture {
    store: MemoryStore,
    mood: Arc<AtomicU8>,
    entering: Receiver<usize>,
    go: Option<Sender<()>>,
    writer: Option<Writer>,
    reports: Receiver<(Ticket, Result<(), StoreError>)>,
    /// Why nothing comes to disk, whenever that changes.
    stuck: Receiver<Option<String>>,
}

impl Fixture {
    /// The gate is closed.
    fn new() -> Self {
        Self::with_reserve(Reserve::with_probe(Path::new("/x"), 0, || None))
    }

    fn with_reserve(reserve: Reserve) -> Self {
        let store = MemoryStore::new();
        let mood = Arc::new(AtomicU8::new(GOOD));
        let ((entered, entering), (go, gate)) = (channel(), channel());
        let faulty = Faulty { inner: store.clone(), mood: Arc::clone(&mood), entered, gate };
        let (sender, reports) = channel();
        let report = move |reported: Vec<_>| reported.into_iter().for_each(|one| sender.send(one).unwrap());
        let (stuck_sender, stuck) = channel();
        let tell_stuck = move |why| drop(stuck_sender.send(why));
        let writer = Some(Writer::start(Box::new(faulty), reserve, report, tell_stuck).unwrap());
        Self { store, mood, entering, go: Some(go), writer, reports, stuck }
    }

    fn set_mood(&self, mood: u8) {
        self.mood.store(mood, Ordering::SeqCst);
    }

    /// Waits until a commit begins; it stands at the gate then. Its number of units.
    fn at_the_gate(&self) -> usize {
        self.entering.recv().unwrap()
    }

    fn let_one_through(&self) {
        self.go.as_ref().unwrap().send(()).unwrap();
    }

    fn open_gate(&mut self) {
        self.go = None;
    }

    fn submit(&self, ticket: u64, unit: Vec<Change>) {
        self.writer.as_ref().unwrap().submit(Ticket(ticket), unit);
    }

    fn accept(&self, id: u64) {
        self.submit(id, vec![Change::Accept(Box::new(message(id, Bytes::from_static(b"x"))))]);
    }

    fn remove(&self, ticket: u64, id: u64) {
        self.submit(ticket, vec![Change::Remove { id: MessageId(id), ending: None }]);
    }

    fn hold(&self, ticket: u64, id: u64, why: &str) {
        let why = why.to_owned();
        self.submit(ticket, vec![Change::State { id: MessageId(id), state: MessageState::Held, why }]);
    }

    fn succeeds(&self, ticket: u64) {
        let (reported, result) = self.reports.recv().unwrap();
        assert_eq!(reported, Ticket(ticket));
        result.unwrap();
    }

    fn refused_as_full(&self, ticket: u64) {
        let (reported, result) = self.reports.recv().unwrap();
        assert_eq!(reported, Ticket(ticket));
        assert!(matches!(result, Err(StoreError::Full { .. })), "{result:?}");
    }

    fn ids(&self) -> Vec<u64> {
        ids(&self.store)
    }

    fn why(&self, id: u64) -> String {
        let detail = self.store.reader().unwrap().detail(MessageId(id), 0).unwrap();
        detail.unwrap().0.summary.why
    }
}

#[test]
fn what_waits_for_the_disk_goes_into_one_commit() {
    let fixture = Fixture::new();
    fixture.accept(1);
    assert_eq!(fixture.at_the_gate(), 1, "the first one waits for nobody");
    (2..=30).for_each(|id| fixture.accept(id));
    fixture.let_one_through();
    assert_eq!(fixture.at_the_gate(), 29);
    fixture.let_one_through();
    (1..=30).for_each(|id| fixture.succeeds(id));
    assert_eq!(fixture.store.commits(), 2);
    assert_eq!(fixture.ids().len(), 30);
}

#[test]
fn a_commit_is_bounded_in_units_and_in_bytes() {
    let mut fixture = Fixture::new();
    fixture.accept(1);
    fixture.at_the_gate();
    (0..600).for_each(|n| fixture.remove(1000 + n, 99_999));
    let megabyte = Bytes::from(vec![0; 1 << 20]);
    (100..120).for_each(|id| fixture.submit(id, vec![Change::Accept(Box::new(message(id, megabyte.clone())))]));
    fixture.open_gate();
    assert!((1..=1 + 600 + 20).all(|_| fixture.reports.recv().unwrap().1.is_ok()));
    let sizes: Vec<usize> = fixture.entering.try_iter().collect();
    assert_eq!(sizes, [512, 88 + 8, 8, 4]);
}

#[test]
fn stopping_commits_all_that_waits() {
    let mut fixture = Fixture::new();
    fixture.accept(1);
    fixture.at_the_gate();
    (2..=5).for_each(|id| fixture.accept(id));
    fixture.open_gate();
    fixture.writer.take().unwrap().stop();
    (1..=5).for_each(|id| fixture.succeeds(id));
    assert_eq!(fixture.ids(), [1, 2, 3, 4, 5]);
}

#[test]
fn a_bad_unit_fails_alone() {
    let mut fixture = Fixture::new();
    fixture.accept(1);
    fixture.at_the_gate();
    fixture.accept(2);
    fixture.submit(
        50,
        vec![Change::Accept(Box::new(message(1, Bytes::new()))), Change::Remove { id: MessageId(2), ending: None }],
    );
    fixture.accept(3);
    fixture.open_gate();
    fixture.succeeds(1);
    fixture.succeeds(2);
    let (ticket, result) = fixture.reports.recv().unwrap();
    assert_eq!(ticket, Ticket(50));
    assert!(matches!(result, Err(StoreError::Failed { .. })), "the number is taken: {result:?}");
    fixture.succeeds(3);
    assert_eq!(fixture.ids(), [1, 2, 3], "nothing of the bad unit was done");
}

#[test]
fn a_full_disk_refuses_new_messages_and_lets_the_others_go_on() {
    let mut fixture = Fixture::new();
    fixture.accept(1);
    fixture.at_the_gate();
    fixture.accept(2);
    fixture.hold(10, 1, "held");
    fixture.accept(3);
    fixture.let_one_through();
    fixture.succeeds(1);
    assert_eq!(fixture.at_the_gate(), 3);
    fixture.set_mood(NO_ROOM_FOR_MESSAGES);
    fixture.open_gate();
    fixture.refused_as_full(2);
    fixture.refused_as_full(3);
    fixture.succeeds(10);
    assert_eq!(fixture.why(1), "held");
    fixture.accept(4);
    fixture.refused_as_full(4);
    fixture.set_mood(GOOD);
    fixture.accept(5);
    fixture.succeeds(5);
    assert_eq!(fixture.ids(), [1, 5]);
}

#[test]
fn results_wait_for_space_in_their_order_and_are_never_dropped() {
    let mut fixture = Fixture::new();
    fixture.accept(1);
    fixture.open_gate();
    fixture.succeeds(1);
    fixture.set_mood(NO_ROOM);
    fixture.hold(10, 1, "first");
    // The commit alone, and again after the store has tidied up.
    assert_eq!([0; 3].map(|_| fixture.at_the_gate()), [1; 3]);
    fixture.hold(11, 1, "second");
    fixture.accept(2);
    fixture.refused_as_full(2);
    fixture.set_mood(GOOD);
    fixture.succeeds(10);
    fixture.succeeds(11);
    assert_eq!(fixture.why(1), "second");
    fixture.accept(3);
    fixture.succeeds(3);
}

#[test]
fn a_failing_disk_refuses_new_messages_and_results_wait_and_both_sides_are_told() {
    let mut fixture = Fixture::new();
    fixture.accept(1);
    fixture.open_gate();
    fixture.succeeds(1);
    fixture.set_mood(FAILING);
    fixture.accept(2);
    let (ticket, result) = fixture.reports.recv().unwrap();
    assert_eq!(ticket, Ticket(2));
    assert!(matches!(result, Err(StoreError::Failing { .. })), "{result:?}");
    assert!(fixture.stuck.try_recv().is_err(), "nothing waits yet");
    fixture.hold(10, 1, "kept");
    assert!(fixture.stuck.recv().unwrap().unwrap().contains("EIO"));
    fixture.set_mood(GOOD);
    fixture.succeeds(10);
    assert_eq!(fixture.stuck.recv().unwrap(), None);
    assert_eq!(fixture.why(1), "kept");
}

#[test]
fn when_what_waited_can_never_be_written_others_are_tried_again() {
    let mut fixture = Fixture::new();
    fixture.accept(1);
    fixture.open_gate();
    fixture.succeeds(1);
    fixture.set_mood(NO_ROOM);
    fixture.hold(10, 1, "kept");
    fixture.stuck.recv().unwrap().unwrap();
    fixture.set_mood(DAMAGED);
    let (ticket, result) = fixture.reports.recv().unwrap();
    assert!(ticket == Ticket(10) && matches!(result, Err(StoreError::Damaged { .. })), "{result:?}");
    assert_eq!(fixture.stuck.recv().unwrap(), None);
    fixture.set_mood(GOOD);
    fixture.accept(2);
    fixture.succeeds(2);
}

#[test]
fn a_report_waits_for_the_disk_with_what_it_reports() {
    let mut fixture = Fixture::new();
    fixture.accept(1);
    fixture.open_gate();
    fixture.succeeds(1);
    fixture.set_mood(NO_ROOM);
    let report = NewMessage { origin: ORIGIN_REPORT.to_owned(), ..message(2, Bytes::from_static(b"x")) };
    fixture.submit(10, vec![Change::Remove { id: MessageId(1), ending: None }, Change::Accept(Box::new(report))]);
    fixture.stuck.recv().unwrap().unwrap();
    fixture.set_mood(GOOD);
    fixture.succeeds(10);
    assert_eq!(fixture.ids(), [2]);
}

#[test]
fn stopping_on_a_full_disk_ends_with_a_word_for_each() {
    let mut fixture = Fixture::new();
    fixture.set_mood(NO_ROOM);
    fixture.open_gate();
    (10..13).for_each(|ticket| fixture.remove(ticket, 1));
    fixture.writer.take().unwrap().stop();
    (10..13).for_each(|ticket| fixture.refused_as_full(ticket));
}

#[test]
fn below_the_reserve_only_new_messages_are_refused() {
    let mut fixture = Fixture::with_reserve(Reserve::with_probe(Path::new("/x"), 1000, || Some(999)));
    fixture.open_gate();
    fixture.accept(1);
    fixture.refused_as_full(1);
    fixture.remove(10, 1);
    fixture.succeeds(10);
    assert_eq!(fixture.store.commits(), 1, "the refused message was never tried");
}
