//! What every store must do, whatever it is made of: the same tests for each.
//!
//! Also the messages that other tests of the store use.

use std::any::Any;
use std::ops::ControlFlow;

use bytes::Bytes;
use spooler_protocol::control::{Death, Filter, MessageState, MessageSummary, RecipientState};
use spooler_protocol::ids::MessageId;
use spooler_protocol::message::{BodyType, Envelope, Notify, Priority, Recipient, Ret};
use spooler_protocol::outcome::{Cause, Reply};

use super::body_files::BodyFolder;
use super::memory::MemoryStore;
use super::sqlite::SqliteStore;
use super::{Change, NewMessage, RecipientUpdate, Scanned, ScannedMessage, Store, StoreError, StoredContent};

/// One store that can be opened, closed and opened again.
pub(super) struct Subject {
    /// Opens it again after the last one was dropped.
    pub(super) open: Box<dyn Fn() -> Box<dyn Store>>,
    /// Puts a large content where it belongs.
    put_file: Box<dyn Fn(MessageId, &'static [u8])>,
    _keep: Box<dyn Any>,
}

pub(super) fn sqlite() -> Subject {
    let home = tempfile::tempdir().unwrap();
    let (folder, bodies) = (home.path().join("spool"), BodyFolder::of_spool(&home.path().join("spool")));
    Subject {
        open: Box::new(move || Box::new(SqliteStore::open(&folder).unwrap())),
        put_file: Box::new(move |id, content| std::fs::write(bodies.file(id), content).unwrap()),
        _keep: Box::new(home),
    }
}

pub(super) fn memory() -> Subject {
    let store = MemoryStore::new();
    let files = store.clone();
    Subject {
        open: Box::new(move || Box::new(store.clone())),
        put_file: Box::new(move |id, content| files.put_file(id, Bytes::from_static(content))),
        _keep: Box::new(()),
    }
}

macro_rules! conformance {
    ($($test:ident),* $(,)?) => {
        mod sqlite_store { $( #[test] fn $test() { super::$test(&super::sqlite()) } )* }
        mod memory_store { $( #[test] fn $test() { super::$test(&super::memory()) } )* }
    };
}

conformance!(
    everything_of_an_accepted_message_comes_back_after_a_reopening,
    a_large_content_comes_back_from_its_file,
    a_large_content_that_is_not_there_is_not_accepted,
    content_is_read_in_pieces,
    updates_of_recipients_come_back,
    states_and_marks_come_back,
    deaths_are_kept_in_order_until_there_are_none,
    a_removed_message_is_gone_with_its_content,
    numbers_are_never_used_twice,
    a_commit_is_all_or_nothing,
    changes_of_messages_that_are_gone_change_nothing,
    a_reader_sees_finished_commits_and_the_visitor_can_stop,
    listings_derive_the_state_and_say_why,
    listings_name_unsettled_recipients_first,
    every_filter_filters,
    a_detail_shows_each_recipient_and_the_owner,
);

/// A message to one recipient.
pub(super) fn message(id: u64, content: Bytes) -> NewMessage {
    let recipients = vec![Recipient::new("to@example.org".parse().unwrap())];
    NewMessage {
        id: MessageId(id),
        envelope: Envelope { sender: "from@example.org".to_owned(), recipients, ..Envelope::default() },
        submitted_ms: 1_000_000 + id.cast_signed(),
        origin: "uid 1000".to_owned(),
        owner_uid: Some(1000),
        content: StoredContent::Inline(content),
    }
}

/// A message that uses every field there is.
pub(super) fn rich_message(id: u64) -> NewMessage {
    let recipient = |address: &str, notify, orcpt: Option<&str>| Recipient {
        address: address.parse().unwrap(),
        notify,
        orcpt: orcpt.map(str::to_owned),
    };
    let some = Notify { success: true, failure: false, delay: true };
    let envelope = Envelope {
        sender: String::new(),
        recipients: vec![
            recipient("SMTP:FAX:odd@example.org", Some(some), Some("rfc822;a+2Bb@example.org")),
            recipient("FAX:+15551212", Some(Notify::NEVER), None),
            recipient("jörg@bücher.example", None, None),
        ],
        body: BodyType::EightBit,
        smtputf8: true,
        ret: Some(Ret::Headers),
        envid: Some("QQ314159".to_owned()),
        priority: Priority::NonUrgent,
    };
    let origin = "provider submission".to_owned();
    NewMessage { envelope, origin, owner_uid: None, ..message(id, Bytes::from_static(b"Subject: x\r\n\r\n\0\xff")) }
}

pub(super) fn accept(message: NewMessage) -> Vec<Change> {
    vec![Change::Accept(Box::new(message))]
}

pub(super) fn accept_simple(id: u64) -> Vec<Change> {
    accept(message(id, Bytes::from(format!("content {id}"))))
}

pub(super) fn deferred(index: u32, next_try_ms: i64) -> RecipientUpdate {
    let reply = Reply {
        cause: Cause::Remote,
        code: 450,
        enhanced: "4.2.1".to_owned(),
        text: format!("try {index} later"),
        remote: "mx.example".to_owned(),
        hop: None,
    };
    let (provider, reply) = (Some(format!("relay{index}")), Some(reply));
    RecipientUpdate { index, state: RecipientState::Pending, attempts: index + 1, next_try_ms, provider, reply }
}

pub(super) fn update(id: u64, updates: Vec<RecipientUpdate>) -> Vec<Change> {
    vec![Change::Recipients { id: MessageId(id), updates }]
}

fn state(id: u64, state: MessageState, why: &str) -> Vec<Change> {
    vec![Change::State { id: MessageId(id), state, why: why.to_owned() }]
}

fn remove(id: u64) -> Vec<Change> {
    vec![Change::Remove { id: MessageId(id), ending: None }]
}

fn get(store: &dyn Store, id: u64) -> Option<ScannedMessage> {
    match store.reader().unwrap().get(MessageId(id)).unwrap()? {
        Scanned::Message(message) => Some(*message),
        Scanned::Damaged { why, .. } => panic!("{why}"),
    }
}

/// All numbers in a store, in the order of a scan.
pub(super) fn ids(store: &dyn Store) -> Vec<u64> {
    let mut ids = Vec::new();
    let mut visit = |scanned| {
        let id = match scanned {
            Scanned::Message(message) => message.id,
            Scanned::Damaged { id, .. } => id,
        };
        ids.push(id.0);
        ControlFlow::Continue(())
    };
    store.reader().unwrap().scan(&mut visit).unwrap();
    ids
}

/// The listing of a filter.
pub(super) fn list(store: &dyn Store, filter: &Filter, now_ms: i64, owner_uid: Option<u32>) -> Vec<MessageSummary> {
    let mut summaries = Vec::new();
    let mut visit = |summary| {
        summaries.push(summary);
        ControlFlow::Continue(())
    };
    store.reader().unwrap().list(filter, now_ms, owner_uid, &mut visit).unwrap();
    summaries
}

fn everything_of_an_accepted_message_comes_back_after_a_reopening(subject: &Subject) {
    let rich = rich_message(7);
    let mut store = (subject.open)();
    store.commit(&[accept_simple(3), accept(rich.clone())]).unwrap();
    drop(store);
    let store = (subject.open)();
    assert_eq!(ids(&*store), [3, 7]);
    let found = get(&*store, 7).unwrap();
    let fresh = |index| RecipientUpdate {
        index,
        state: RecipientState::Pending,
        attempts: 0,
        next_try_ms: 0,
        provider: None,
        reply: None,
    };
    let expected = ScannedMessage {
        id: MessageId(7),
        envelope: rich.envelope,
        state: MessageState::Ready,
        submitted_ms: rich.submitted_ms,
        size: 16,
        deaths: 0,
        delay_reported: false,
        recipients: vec![fresh(0), fresh(1), fresh(2)],
    };
    assert_eq!(found, expected);
    let mut scanned = Vec::new();
    let mut visit = |message| {
        scanned.push(message);
        ControlFlow::Continue(())
    };
    store.reader().unwrap().scan(&mut visit).unwrap();
    assert_eq!(scanned[1], Scanned::Message(Box::new(expected)), "a scan gives the same");
    assert_eq!(store.reader().unwrap().content(MessageId(7), 0, 100).unwrap(), b"Subject: x\r\n\r\n\0\xff".as_slice());
}

fn a_large_content_comes_back_from_its_file(subject: &Subject) {
    let mut store = (subject.open)();
    (subject.put_file)(MessageId(1), b"from a file");
    store.commit(&[accept(NewMessage { content: StoredContent::File(11), ..message(1, Bytes::new()) })]).unwrap();
    assert_eq!(get(&*store, 1).unwrap().size, 11);
    let mut reader = store.reader().unwrap();
    assert_eq!(reader.content(MessageId(1), 5, 2).unwrap(), "a ");
    assert_eq!(reader.content(MessageId(1), 5, 200).unwrap(), "a file");
}

fn a_large_content_that_is_not_there_is_not_accepted(subject: &Subject) {
    let mut store = (subject.open)();
    let large = |id| accept(NewMessage { content: StoredContent::File(11), ..message(id, Bytes::new()) });
    (subject.put_file)(MessageId(1), b"too short");
    assert!(matches!(store.commit(&[large(1)]), Err(StoreError::Failed { .. })));
    assert!(matches!(store.commit(&[large(2)]), Err(StoreError::Failed { .. })));
    assert_eq!(ids(&*store), Vec::<u64>::new());
}

fn content_is_read_in_pieces(subject: &Subject) {
    let mut store = (subject.open)();
    let large = Bytes::from_iter((0..100_000_u32).map(|n| n.to_le_bytes()[0]));
    store.commit(&[accept(message(1, large.clone())), accept(message(2, Bytes::new()))]).unwrap();
    let mut reader = store.reader().unwrap();
    let mut piece = |id, offset, length| reader.content(MessageId(id), offset, length);
    assert_eq!(piece(1, 0, 100_000).unwrap(), large);
    assert_eq!(piece(1, 60_000, 50_000).unwrap(), large.slice(60_000..));
    assert_eq!(piece(1, 99_999, 1).unwrap(), large.slice(99_999..));
    assert_eq!(piece(1, 100_000, 10).unwrap(), "");
    assert_eq!(piece(1, u64::MAX, usize::MAX).unwrap(), "");
    assert_eq!(piece(2, 0, 10).unwrap(), "");
    assert!(matches!(piece(3, 0, 10), Err(StoreError::Failed { .. })));
}

fn updates_of_recipients_come_back(subject: &Subject) {
    let mut store = (subject.open)();
    let sent = RecipientUpdate { state: RecipientState::Delivered, reply: None, provider: None, ..deferred(0, 0) };
    let failed = RecipientUpdate { state: RecipientState::Failed, ..deferred(2, 5) };
    store.commit(&[accept(rich_message(1)), update(1, vec![failed.clone(), sent.clone()])]).unwrap();
    store.commit(&[update(1, vec![deferred(1, 77)])]).unwrap();
    drop(store);
    let store = (subject.open)();
    assert_eq!(get(&*store, 1).unwrap().recipients, [sent, deferred(1, 77), failed]);
}

fn deaths_are_kept_in_order_until_there_are_none(subject: &Subject) {
    let death = |cause: &str| Death {
        at_ms: 7,
        provider: "relay".to_owned(),
        cause: cause.to_owned(),
        phase: "sending \"quoted\"".to_owned(),
        bytes: 4096,
        company: 3,
        stderr_tail: vec!["it's on fire".to_owned(), "é".to_owned()],
    };
    let marks = |deaths, death: Option<Death>| {
        vec![Change::Marks { id: MessageId(1), deaths, delay_reported: false, death: death.map(Box::new) }]
    };
    let told = |store: &dyn Store| store.reader().unwrap().detail(MessageId(1), 0).unwrap().unwrap().0.deaths;
    let mut store = (subject.open)();
    store.commit(&[accept_simple(1), marks(1, Some(death("signal 11")))]).unwrap();
    store.commit(&[marks(2, Some(death("signal 9"))), marks(2, None)]).unwrap();
    drop(store);
    let mut store = (subject.open)();
    assert_eq!(told(&*store), [death("signal 11"), death("signal 9")]);
    store.commit(&[marks(0, None)]).unwrap();
    assert_eq!(told(&*store), []);
}

fn states_and_marks_come_back(subject: &Subject) {
    let mut store = (subject.open)();
    let marks = vec![Change::Marks { id: MessageId(1), deaths: 2, delay_reported: true, death: None }];
    store.commit(&[accept_simple(1), accept_simple(2), accept_simple(3), marks]).unwrap();
    store.commit(&[state(1, MessageState::Quarantined, "it kills"), state(2, MessageState::Held, "by root")]).unwrap();
    store.commit(&[state(3, MessageState::Held, "by root"), state(3, MessageState::Ready, "")]).unwrap();
    drop(store);
    let store = (subject.open)();
    let one = get(&*store, 1).unwrap();
    assert_eq!((one.state, one.deaths, one.delay_reported), (MessageState::Quarantined, 2, true));
    assert_eq!(get(&*store, 2).unwrap().state, MessageState::Held);
    assert_eq!(get(&*store, 3).unwrap().state, MessageState::Ready);
    let whys: Vec<String> = list(&*store, &Filter::default(), 0, None).into_iter().map(|summary| summary.why).collect();
    assert_eq!(whys, ["it kills", "by root", ""]);
}

fn a_removed_message_is_gone_with_its_content(subject: &Subject) {
    let mut store = (subject.open)();
    (subject.put_file)(MessageId(2), b"large");
    let large = NewMessage { content: StoredContent::File(5), ..message(2, Bytes::new()) };
    store.commit(&[accept_simple(1), accept(large), accept_simple(3)]).unwrap();
    store.commit(&[remove(1), remove(2)]).unwrap();
    let mut reader = store.reader().unwrap();
    for id in [1, 2] {
        assert_eq!(reader.get(MessageId(id)).unwrap(), None);
        assert!(reader.detail(MessageId(id), 0).unwrap().is_none());
        assert!(reader.content(MessageId(id), 0, 1).is_err());
    }
    assert_eq!(ids(&*store), [3]);
}

fn numbers_are_never_used_twice(subject: &Subject) {
    let mut store = (subject.open)();
    assert_eq!(store.last_id().unwrap(), MessageId(0));
    store.commit(&[accept_simple(1), accept_simple(2), accept_simple(3)]).unwrap();
    store.commit(&[remove(1)]).unwrap();
    store.commit(&[accept_simple(9), remove(3)]).unwrap();
    assert_eq!(store.last_id().unwrap(), MessageId(9));
    drop(store);
    let mut store = (subject.open)();
    assert_eq!(store.last_id().unwrap(), MessageId(9));
    store.commit(&[remove(9), remove(2)]).unwrap();
    drop(store);
    let mut store = (subject.open)();
    assert_eq!(store.last_id().unwrap(), MessageId(9));
    store.commit(&[accept_simple(10), remove(10)]).unwrap();
    drop(store);
    assert_eq!((subject.open)().last_id().unwrap(), MessageId(10));
}

fn a_commit_is_all_or_nothing(subject: &Subject) {
    let mut store = (subject.open)();
    store.commit(&[accept_simple(1)]).unwrap();
    let units = [accept_simple(2), state(1, MessageState::Held, "x"), accept_simple(1)];
    assert!(matches!(store.commit(&units), Err(StoreError::Failed { .. })));
    assert_eq!(ids(&*store), [1]);
    assert_eq!(get(&*store, 1).unwrap().state, MessageState::Ready);
    assert_eq!(store.last_id().unwrap(), MessageId(1));
    store.commit(&[accept_simple(2)]).unwrap();
    assert_eq!(ids(&*store), [1, 2], "the store goes on after a failure");
}

fn changes_of_messages_that_are_gone_change_nothing(subject: &Subject) {
    let mut store = (subject.open)();
    let marks = vec![Change::Marks { id: MessageId(5), deaths: 1, delay_reported: false, death: None }];
    let units = [update(5, vec![deferred(0, 1)]), state(5, MessageState::Held, ""), marks, remove(5), accept_simple(1)];
    store.commit(&units).unwrap();
    store.commit(&[update(1, vec![deferred(44, 1)])]).unwrap();
    assert_eq!(ids(&*store), [1]);
    assert_eq!(get(&*store, 1).unwrap().recipients.len(), 1);
}

fn a_reader_sees_finished_commits_and_the_visitor_can_stop(subject: &Subject) {
    let mut store = (subject.open)();
    let mut reader = store.reader().unwrap();
    store.commit(&(1..=1000).map(accept_simple).collect::<Vec<_>>()).unwrap();
    let mut seen = Vec::new();
    let mut visit = |scanned| {
        if let Scanned::Message(message) = scanned {
            seen.push(message.id.0);
        }
        // Writing goes on while somebody looks, and what is new may come into view.
        if seen.len() == 10 {
            store.commit(&[accept_simple(1001), remove(999)]).unwrap();
        }
        if seen.len() == 999 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    reader.scan(&mut visit).unwrap();
    let expected: Vec<u64> = (1..=998).chain([1000]).collect();
    assert_eq!(seen, expected);
    let mut listed = 0;
    let mut stop = |_| {
        listed += 1;
        ControlFlow::Break(())
    };
    reader.list(&Filter::default(), 0, None, &mut stop).unwrap();
    assert_eq!(listed, 1);
    assert!(reader.get(MessageId(1001)).unwrap().is_some());
}

fn listings_derive_the_state_and_say_why(subject: &Subject) {
    let mut store = (subject.open)();
    store.commit(&[accept(rich_message(1)), accept_simple(2)]).unwrap();
    store.commit(&[update(1, vec![deferred(0, 300), deferred(1, 200), deferred(2, 100)])]).unwrap();
    let at = |now_ms| list(&*store, &Filter::default(), now_ms, None).remove(0);
    let early = at(50);
    assert_eq!((early.state, early.next_try_ms, early.attempts), (MessageState::Deferred, Some(100), 3));
    assert_eq!(early.why, "450 4.2.1 try 2 later (mx.example)");
    let later = at(100);
    assert_eq!((later.state, later.next_try_ms, later.why.as_str()), (MessageState::Ready, Some(200), ""));
    assert_eq!((at(300).state, at(300).next_try_ms), (MessageState::Ready, None));
    let other = list(&*store, &Filter::default(), 0, None).remove(1);
    assert_eq!((other.state, other.size, other.submitted_ms), (MessageState::Ready, 9, 1_000_002));
}

fn listings_name_unsettled_recipients_first(subject: &Subject) {
    let mut store = (subject.open)();
    let mut many = message(1, Bytes::new());
    many.envelope.recipients = (0..12).map(|n| Recipient::new(format!("r{n}@x").parse().unwrap())).collect();
    let sent = |index| RecipientUpdate { state: RecipientState::Delivered, ..deferred(index, 0) };
    store.commit(&[accept(many), update(1, (0..9).map(sent).collect())]).unwrap();
    let summary = list(&*store, &Filter::default(), 0, None).remove(0);
    let expected = ["r9@x", "r10@x", "r11@x", "r0@x", "r1@x", "r2@x", "r3@x", "r4@x", "r5@x", "r6@x"];
    assert_eq!((summary.recipients, summary.pending), (expected.map(str::to_owned).to_vec(), 3));
}

fn every_filter_filters(subject: &Subject) {
    let mut store = (subject.open)();
    let other = NewMessage { owner_uid: Some(7), ..message(4, Bytes::new()) };
    let units = [accept_simple(1), accept(rich_message(2)), accept_simple(3), accept(other)];
    store.commit(&units).unwrap();
    store.commit(&[update(3, vec![deferred(0, 5_000_000)]), state(4, MessageState::Held, "")]).unwrap();
    let found = |filter: Filter, owner_uid| -> Vec<u64> {
        list(&*store, &filter, 2_000_003, owner_uid).into_iter().map(|summary| summary.id.0).collect()
    };
    let text = |text: &str| Some(text.to_owned());
    let none = Filter::default;
    assert_eq!(found(none(), None), [1, 2, 3, 4]);
    assert_eq!(found(none(), Some(7)), [4]);
    assert_eq!(found(none(), Some(8)), Vec::<u64>::new());
    assert_eq!(found(Filter { ids: text("3, 1,99"), ..none() }, None), [1, 3]);
    assert_eq!(found(Filter { ids: text("3,4"), ..none() }, Some(7)), [4]);
    assert_eq!(found(Filter { provider: text("relay0"), ..none() }, None), [3]);
    assert_eq!(found(Filter { provider: text("relay"), ..none() }, None), Vec::<u64>::new());
    assert_eq!(found(Filter { to: text("BÜCHER"), ..none() }, None), [2]);
    assert_eq!(found(Filter { to: text("fax:+1"), ..none() }, None), [2]);
    assert_eq!(found(Filter { from: text("FROM@"), ..none() }, None), [1, 3, 4]);
    assert_eq!(found(Filter { from: text("<>"), ..none() }, None), [2]);
    let by_state = |state| found(Filter { state: Some(state), ..none() }, None);
    assert_eq!(by_state(MessageState::Ready), [1, 2]);
    assert_eq!(by_state(MessageState::Deferred), [3]);
    assert_eq!(by_state(MessageState::Held), [4]);
    assert_eq!(by_state(MessageState::Quarantined), Vec::<u64>::new());
    assert_eq!(by_state(MessageState::InFlight), Vec::<u64>::new());
    assert_eq!(found(Filter { older_s: Some(1000), ..none() }, None), [1, 2]);
    assert_eq!(found(Filter { older_s: Some(1001), ..none() }, None), Vec::<u64>::new());
    assert_eq!(found(Filter { older_s: Some(0), ..none() }, None), [1, 2, 3, 4]);
    assert_eq!(found(Filter { older_s: Some(u64::MAX), ..none() }, None), Vec::<u64>::new());
    assert_eq!(found(Filter { limit: Some(2), ..none() }, None), [1, 2]);
    assert_eq!(found(Filter { limit: Some(1), from: text("from@"), older_s: Some(1), ..none() }, None), [1]);
    let nonsense = Filter { ids: text("1,x"), ..none() };
    let refused = store.reader().unwrap().list(&nonsense, 0, None, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(refused.to_string().contains("\"x\" is not a message number"), "{refused}");
}

fn a_detail_shows_each_recipient_and_the_owner(subject: &Subject) {
    let mut store = (subject.open)();
    let sent = RecipientUpdate { state: RecipientState::Delivered, ..deferred(1, 0) };
    store.commit(&[accept(rich_message(1)), accept_simple(2), update(1, vec![deferred(0, 900), sent])]).unwrap();
    let mut reader = store.reader().unwrap();
    let (detail, owner) = reader.detail(MessageId(1), 100).unwrap().unwrap();
    assert_eq!(owner, None);
    assert_eq!(detail.summary, list(&*store, &Filter::default(), 100, None).remove(0));
    assert_eq!((detail.envid.as_deref(), detail.origin.as_str()), (Some("QQ314159"), "provider submission"));
    let [first, second, third] = detail.recipient_details.as_slice() else { panic!("{detail:?}") };
    assert_eq!(
        (first.address.as_str(), first.state, first.next_try_ms),
        ("SMTP:FAX:odd@example.org", RecipientState::Pending, Some(900))
    );
    assert_eq!((second.provider.as_deref(), second.notify), (Some("relay1"), Some(Notify::NEVER)));
    assert_eq!((second.state, second.next_try_ms, second.attempts), (RecipientState::Delivered, None, 2));
    assert_eq!(second.reply.as_ref().map(|reply| reply.code), Some(450));
    assert_eq!((third.attempts, third.reply.as_ref(), third.next_try_ms), (0, None, None));
    assert_eq!(reader.detail(MessageId(2), 0).unwrap().unwrap().1, Some(1000));
    assert!(reader.detail(MessageId(3), 0).unwrap().is_none());
}
