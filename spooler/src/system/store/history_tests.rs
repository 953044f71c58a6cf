//! What every store must do with messages that leave the queue; and that the one on disk ends them whatever becomes of its history.

use std::os::unix::fs::FileExt;

use bytes::Bytes;
use spooler_protocol::control::RecipientState;
use spooler_protocol::history::{End, Fate, Finished, HistoryFilter};
use spooler_protocol::ids::MessageId;

use super::conformance::{Subject, accept, accept_simple, deferred, memory, message, rich_message, sqlite, update};
use super::sqlite::SqliteStore;
use super::{Change, NewMessage, RecipientUpdate, Store};
use crate::record::{Ending, Keep};

const KEEP: Keep = Keep { since_ms: 0, bytes_max: 1 << 30 };

fn remove(id: u64, ending: Ending) -> Vec<Change> {
    vec![Change::Remove { id: MessageId(id), ending: Some(Box::new(ending)) }]
}

fn settled(at_ms: i64, updates: Vec<RecipientUpdate>, keep: Keep) -> Ending {
    Ending { at_ms, end: End::Settled, by_uid: None, updates, keep }
}

fn history(store: &dyn Store, filter: &HistoryFilter, owner_uid: Option<u32>) -> Vec<Finished> {
    let mut reader = store.reader().unwrap();
    let (mut found, mut before) = (Vec::new(), Some(u64::MAX));
    while let Some(place) = before {
        let page = reader.history(filter, owner_uid, place).unwrap();
        assert!(page.next.is_none_or(|next| next < place), "it gets on");
        found.extend(page.found);
        before = page.next;
    }
    found
}

fn ids(store: &dyn Store, filter: &HistoryFilter) -> Vec<u64> {
    history(store, filter, None).iter().map(|finished| finished.id.0).collect()
}

macro_rules! conformance {
    ($($test:ident),* $(,)?) => {
        mod sqlite_store { $( #[test] fn $test() { super::$test(&super::sqlite()) } )* }
        mod memory_store { $( #[test] fn $test() { super::$test(&super::memory()) } )* }
    };
}

conformance!(
    finished_message_is_kept_with_each_recipient,
    deleted_message_says_by_whom,
    history_is_newest_first_and_filtered,
    history_is_pruned_by_age_and_size,
    history_goes_when_switched_off,
);

fn finished_message_is_kept_with_each_recipient(subject: &Subject) {
    let mut store = (subject.open)();
    let owner = 1000;
    let new = NewMessage { owner_uid: Some(owner), ..rich_message(7) };
    let envelope = new.envelope.clone();
    let first = RecipientUpdate { state: RecipientState::Relayed, next_try_ms: 50, ..deferred(0, 0) };
    let last = RecipientUpdate { state: RecipientState::Failed, next_try_ms: 90, ..deferred(1, 0) };
    store.commit(&[accept(new)]).unwrap();
    store.commit(&[update(7, vec![first.clone()])]).unwrap();
    let mut updates: Vec<RecipientUpdate> = (2..)
        .take(envelope.recipients.len() - 2)
        .map(|index| RecipientUpdate { state: RecipientState::Delivered, next_try_ms: 90, ..deferred(index, 0) })
        .collect();
    updates.push(last.clone());
    store.commit(&[remove(7, settled(100, updates, KEEP))]).unwrap();
    drop(store);

    let store = (subject.open)();
    let found = store.reader().unwrap().finished(MessageId(7), None).unwrap().unwrap();
    assert_eq!((found.ended_ms, found.end, found.by_uid, &found.sender), (100, End::Settled, None, &envelope.sender));
    assert_eq!(found.recipients.len(), envelope.recipients.len());
    for (kept, sent) in found.recipients.iter().zip(&envelope.recipients) {
        assert_eq!((&kept.address, &kept.orcpt), (&sent.address.to_string(), &sent.orcpt));
    }
    let [one, two] = &found.recipients[..2] else { panic!("{found:?}") };
    assert_eq!((one.fate, one.at_ms, &one.reply, one.attempts), (Fate::Relayed, 50, &first.reply, first.attempts));
    assert_eq!((two.fate, two.at_ms, &two.reply, &two.provider), (Fate::Failed, 90, &last.reply, &last.provider));
    let of = |uid| store.reader().unwrap().finished(MessageId(7), Some(uid)).unwrap().is_some();
    assert!(of(owner) && !of(owner + 1), "others do not see it");
    assert!(history(&*store, &HistoryFilter::default(), Some(owner + 1)).is_empty());
}

fn deleted_message_says_by_whom(subject: &Subject) {
    let mut store = (subject.open)();
    store.commit(&[accept_simple(1), accept_simple(2)]).unwrap();
    let ending = Ending { end: End::Deleted, by_uid: Some(1000), ..settled(5, Vec::new(), KEEP) };
    store.commit(&[remove(1, ending), vec![Change::Remove { id: MessageId(2), ending: None }]]).unwrap();
    let found = history(&*store, &HistoryFilter::default(), None);
    assert_eq!(found.len(), 1, "of the other one nothing was to be kept");
    assert_eq!((found[0].by_uid, found[0].fate(), found[0].recipients[0].at_ms), (Some(1000), Fate::Discarded, 5));
    store.commit(&[remove(1, settled(9, Vec::new(), KEEP))]).unwrap();
    assert_eq!(history(&*store, &HistoryFilter::default(), None).len(), 1, "a message ends once");
}

fn history_is_newest_first_and_filtered(subject: &Subject) {
    let mut store = (subject.open)();
    store.commit(&(1..=2500).map(accept_simple).collect::<Vec<_>>()).unwrap();
    let ends = |id: u64| remove(id, settled(i64::try_from(id).unwrap() * 10_000_000, Vec::new(), KEEP));
    store.commit(&(1..=2500).map(ends).collect::<Vec<_>>()).unwrap();
    let all = ids(&*store, &HistoryFilter::default());
    assert_eq!((all.len(), all[0], all[2499]), (2500, 2500, 1));
    let since = HistoryFilter { since_ms: Some(24_990_000_000), ..HistoryFilter::default() };
    assert_eq!(ids(&*store, &since), [2500, 2499]);
    assert_eq!(ids(&*store, &HistoryFilter { id: Some(3), ..HistoryFilter::default() }), [3]);
    let place = history(&*store, &since, None)[1].place;
    assert_eq!(ids(&*store, &HistoryFilter { after: Some(place), ..HistoryFilter::default() }), [2500]);
    assert!(ids(&*store, &HistoryFilter { to: Some("nobody".to_owned()), ..HistoryFilter::default() }).is_empty());
}

fn history_is_pruned_by_age_and_size(subject: &Subject) {
    let mut store = (subject.open)();
    let end = |store: &mut dyn Store, id: u64, at_ms: i64, keep: Keep| {
        store.commit(&[accept(message(id, Bytes::new())), remove(id, settled(at_ms, Vec::new(), keep))]).unwrap();
    };
    (1..=40).for_each(|id| end(&mut *store, id, 10, KEEP));
    (41..=60).for_each(|id| end(&mut *store, id, 20, KEEP));
    // What is old goes in steps; each takes more than comes.
    (61..=70).for_each(|id| end(&mut *store, id, 30, Keep { since_ms: 20, ..KEEP }));
    let left = ids(&*store, &HistoryFilter::default());
    assert_eq!((left.len(), left.last()), (30, Some(&41)));
    drop(store);
    // How much there is has to be counted anew.
    let mut store = (subject.open)();
    (71..=80).for_each(|id| end(&mut *store, id, 30, Keep { since_ms: 0, bytes_max: 2000 }));
    let left = ids(&*store, &HistoryFilter::default());
    assert!((5..20).contains(&left.len()) && left[0] == 80, "{left:?}");
}

fn history_goes_when_switched_off(subject: &Subject) {
    let mut store = (subject.open)();
    let off = Keep { since_ms: i64::MAX, bytes_max: 0 };
    for id in 1..=200 {
        store.commit(&[accept_simple(id)]).unwrap();
    }
    store.commit(&(1..=150).map(|id| remove(id, settled(1, Vec::new(), KEEP))).collect::<Vec<_>>()).unwrap();
    let newest = history(&*store, &HistoryFilter::default(), None)[0].place;
    store.commit(&[remove(151, settled(2, Vec::new(), off))]).unwrap();
    assert_eq!(history(&*store, &HistoryFilter::default(), None), []);

    // Switched on again, it is followed from where it was.
    store.commit(&[remove(152, settled(i64::try_from(newest).unwrap() + 1, Vec::new(), KEEP))]).unwrap();
    assert_eq!(ids(&*store, &HistoryFilter { after: Some(newest), ..HistoryFilter::default() }), [152]);
}

#[test]
fn start_without_history_empties_it() {
    let home = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(home.path()).unwrap();
    store.commit(&[accept_simple(1), accept_simple(2)]).unwrap();
    store.commit(&[remove(1, settled(1, Vec::new(), KEEP))]).unwrap();
    store.empty_history().unwrap();
    assert!(ids(&store, &HistoryFilter::default()).is_empty());
    store.commit(&[remove(2, settled(2, Vec::new(), KEEP))]).unwrap();
    assert_eq!(ids(&store, &HistoryFilter::default()), [2]);
}

#[test]
fn damaged_history_keeps_no_message_queued() {
    let home = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(home.path()).unwrap();
    store.commit(&[accept_simple(1), accept_simple(2)]).unwrap();
    store.commit(&[remove(1, settled(1, Vec::new(), KEEP))]).unwrap();
    drop(store);
    let database = home.path().join("spool.db");
    let page: u64 = {
        let connection = rusqlite::Connection::open(&database).unwrap();
        let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'history'";
        connection.query_row(root, (), |row| row.get::<_, i64>(0)).unwrap().cast_unsigned()
    };
    let file = std::fs::File::options().write(true).open(&database).unwrap();
    file.write_all_at(&[0xA5; 4096], (page - 1) * 4096).unwrap();

    let mut store = SqliteStore::open(home.path()).unwrap();
    store.commit(&[remove(2, settled(2, Vec::new(), KEEP)), accept_simple(3)]).unwrap();
    assert_eq!(super::conformance::ids(&store), [3]);
    assert!(store.reader().unwrap().history(&HistoryFilter::default(), None, u64::MAX).is_err());
}
