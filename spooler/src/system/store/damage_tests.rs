//! Damage in the middle of the store: what is changed is found by its sum, and a page that is gone takes its own messages only.

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use spooler_protocol::ids::MessageId;

use super::body_files::{BodyFolder, trailer};
use super::conformance::message;
use super::sqlite::SqliteStore;
use super::{Change, NewMessage, Scanned, Store, StoreError, StoredContent, sums};

const PAGE: usize = 4096;

fn accept(message: NewMessage) -> Vec<Change> {
    vec![Change::Accept(Box::new(message))]
}

fn tamper(folder: &Path, sql: &str) {
    rusqlite::Connection::open(folder.join("spool.db")).unwrap().execute_batch(sql).unwrap();
}

/// Whole messages, and damaged ones.
fn scan(store: &dyn Store) -> Result<(BTreeSet<u64>, BTreeSet<u64>), StoreError> {
    let (mut whole, mut damaged) = (BTreeSet::new(), BTreeSet::new());
    store.reader()?.scan(&mut |scanned| {
        match scanned {
            Scanned::Message(message) => whole.insert(message.id.0),
            Scanned::Damaged { id, .. } => damaged.insert(id.0),
        };
        ControlFlow::Continue(())
    })?;
    Ok((whole, damaged))
}

/// A content in a file, as an upload leaves it.
fn put_file(folder: &Path, id: u64, content: &[u8]) {
    let mut sum = crc32fast::Hasher::new();
    sum.update(content);
    let bytes = [content, &trailer(&sum)].concat();
    fs::write(BodyFolder::of_spool(folder).file(MessageId(id)), bytes).unwrap();
}

#[test]
fn what_was_changed_is_found_by_its_sum() {
    let home = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(home.path()).unwrap();
    for id in [4, 5] {
        put_file(home.path(), id, b"large");
    }
    let small = |id| accept(message(id, Bytes::from_static(b"0123456789")));
    let large = |id| accept(NewMessage { content: StoredContent::File(5), ..message(id, Bytes::new()) });
    store.commit(&[small(1), small(2), small(3), large(4), large(5), small(6)]).unwrap();
    tamper(
        home.path(),
        "UPDATE messages SET sender = 'other@example.org' WHERE id = 1; \
         UPDATE recipients SET state = 1 WHERE message_id = 2; \
         UPDATE bodies SET content = CAST('0123456780' AS BLOB) WHERE message_id = 3;",
    );
    let file = fs::OpenOptions::new().write(true).open(BodyFolder::of_spool(home.path()).file(MessageId(4))).unwrap();
    file.write_all_at(b"M", 2).unwrap();

    let (whole, damaged) = scan(&store).unwrap();
    assert_eq!((whole, damaged), (BTreeSet::from([3, 4, 5, 6]), BTreeSet::from([1, 2])));
    let mut reader = store.reader().unwrap();
    for id in [3, 4] {
        let why = reader.check_content(MessageId(id)).unwrap_err().to_string();
        assert!(why.contains("checksum"), "{why}");
    }
    assert!(reader.content(MessageId(3), 0, 5).is_err(), "no piece of it is given");
    for id in [5, 6] {
        reader.check_content(MessageId(id)).unwrap();
    }
    assert_eq!(reader.content(MessageId(5), 0, 100).unwrap(), "large", "and nothing of what follows it");
}

#[test]
fn messages_of_earlier_versions_have_no_sums_and_are_read() {
    let home = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(home.path()).unwrap();
    fs::write(BodyFolder::of_spool(home.path()).file(MessageId(2)), b"large").unwrap();
    let large = NewMessage { content: StoredContent::File(5), ..message(2, Bytes::new()) };
    store.commit(&[accept(message(1, Bytes::from_static(b"x"))), accept(large)]).unwrap();
    tamper(
        home.path(),
        "UPDATE messages SET envelope_sum = NULL, content_sum = NULL; UPDATE recipients SET sum = NULL;",
    );
    let (whole, damaged) = scan(&store).unwrap();
    assert_eq!((whole.len(), damaged.len()), (2, 0));
    for id in [1, 2] {
        store.reader().unwrap().check_content(MessageId(id)).unwrap();
    }
}

#[test]
fn a_page_that_is_gone_takes_its_own_messages_only() {
    const MESSAGES: u64 = 400;
    let home = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(home.path()).unwrap();
    let all: Vec<Vec<Change>> = (1..=MESSAGES).map(|id| accept(message(id, Bytes::from(vec![b'x'; 100])))).collect();
    store.commit(&all).unwrap();
    drop(store);
    let good = fs::read(home.path().join("spool.db")).unwrap();
    let pages = good.len() / PAGE;
    let (mut read, mut refused, mut set_aside) = (0, 0, 0);
    for page in 0..pages {
        fs::write(home.path().join("spool.db"), &good).unwrap();
        let file = fs::OpenOptions::new().write(true).open(home.path().join("spool.db")).unwrap();
        file.write_all_at(&[0xA5; PAGE], (page * PAGE) as u64).unwrap();
        match SqliteStore::open(home.path()).and_then(|store| scan(&store)) {
            Ok((whole, damaged)) => {
                read += 1;
                set_aside += damaged.len();
                assert_eq!(whole.len() + damaged.len(), 400, "page {page}: every message is known to somebody");
                assert!(damaged.len() < 200, "page {page} took {} messages with it", damaged.len());
            }
            Err(error) => {
                refused += 1;
                assert!(matches!(error, StoreError::Damaged { .. }), "page {page}: {error}");
            }
        }
    }
    println!(
        "{pages} pages gone one by one: {read} times read around ({set_aside} set aside), {refused} times refused"
    );
    assert!(read > refused && set_aside > 0);
}

#[test]
fn every_part_of_an_envelope_has_a_part_in_its_sum() {
    let sent = message(1, Bytes::new());
    let sum = |change: &dyn Fn(&mut NewMessage)| {
        let mut changed = sent.clone();
        change(&mut changed);
        let (id, submitted_ms, owner_uid) = (changed.id, changed.submitted_ms, changed.owner_uid);
        let (envelope, origin) = (&changed.envelope, changed.origin.as_str());
        sums::Fixed { id, submitted_ms, size: 1, in_file: false, envelope, origin, owner_uid }.sum()
    };
    let changes: [&dyn Fn(&mut NewMessage); 8] = [
        &|_| (),
        &|message| message.id.0 += 1,
        &|message| message.submitted_ms += 1,
        &|message| message.owner_uid = Some(77),
        &|message| message.origin.push('x'),
        &|message| message.envelope.sender.push('x'),
        &|message| message.envelope.envid = Some(String::new()),
        &|message| message.envelope.recipients[0].orcpt = Some("x".to_owned()),
    ];
    let sums: BTreeSet<u32> = changes.iter().map(|change| sum(*change)).collect();
    assert_eq!(sums.len(), changes.len());
}
