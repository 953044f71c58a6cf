//! What only the store on disk promises: locks, damage, left-over files, a full disk.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::channel;

use bytes::Bytes;
use spooler_protocol::control::{Filter, MessageState};
use spooler_protocol::ids::MessageId;

use super::body_files::BodyFolder;
use super::conformance::{ids, list, message};
use super::reserve::Reserve;
use super::sqlite::SqliteStore;
use super::writer::{Report, Ticket, Writer};
use super::{Change, NewMessage, Scanned, Store, StoreError, StoredContent};

fn accept(message: NewMessage) -> Vec<Change> {
    vec![Change::Accept(Box::new(message))]
}

fn accept_sized(id: u64, bytes: usize) -> Vec<Change> {
    accept(message(id, Bytes::from(vec![b'x'; bytes])))
}

fn remove(id: u64) -> Vec<Change> {
    vec![Change::Remove { id: MessageId(id), ending: None }]
}

/// Changes the database behind the store's back.
fn tamper(folder: &Path, sql: &str) {
    rusqlite::Connection::open(folder.join("spool.db")).unwrap().execute_batch(sql).unwrap();
}

fn damaged(store: &dyn Store) -> Vec<(u64, String)> {
    let mut damaged = Vec::new();
    let mut visit = |scanned| {
        if let Scanned::Damaged { id, why } = scanned {
            damaged.push((id.0, why));
        }
        ControlFlow::Continue(())
    };
    store.reader().unwrap().scan(&mut visit).unwrap();
    damaged
}

#[test]
fn a_spool_is_opened_once() {
    let home = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(home.path()).unwrap();
    let own = std::process::id().to_string();
    let refused = SqliteStore::open(home.path()).err().unwrap();
    assert!(matches!(&refused, StoreError::InUse { pid, .. } if *pid == own), "{refused}");
    drop(store);
    SqliteStore::open(home.path()).unwrap();
}

#[test]
fn an_overwritten_header_is_refused_as_damage() {
    let home = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(home.path()).unwrap();
    store.commit(&[accept_sized(1, 10)]).unwrap();
    drop(store);
    let file = fs::OpenOptions::new().write(true).open(home.path().join("spool.db")).unwrap();
    file.write_all_at(b"garbage garbage garbage", 0).unwrap();
    let refused = SqliteStore::open(home.path()).err().unwrap();
    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
}

#[test]
fn overwritten_pages_are_damage_and_no_panic() {
    let home = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(home.path()).unwrap();
    store.commit(&(1..=200).map(|id| accept_sized(id, 3000)).collect::<Vec<_>>()).unwrap();
    drop(store);
    let file = fs::OpenOptions::new().write(true).open(home.path().join("spool.db")).unwrap();
    let pages = file.metadata().unwrap().len() / 4096;
    (1..pages).for_each(|page| file.write_all_at(&[0xA5; 4096], page * 4096).unwrap());
    let refused = SqliteStore::open(home.path())
        .and_then(|store| store.reader()?.scan(&mut |_| ControlFlow::Continue(())))
        .unwrap_err();
    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
}

#[test]
fn damaged_messages_are_set_aside_and_the_others_go_on() {
    let home = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(home.path()).unwrap();
    fs::write(BodyFolder::of_spool(home.path()).file(MessageId(6)), b"large").unwrap();
    store.commit(&(1..=5).map(|id| accept_sized(id, 10)).collect::<Vec<_>>()).unwrap();
    let large = NewMessage { content: StoredContent::File(5), ..message(6, Bytes::new()) };
    store.commit(&[accept(large), accept_sized(7, 10)]).unwrap();
    tamper(
        home.path(),
        "UPDATE messages SET priority = 44 WHERE id = 1; \
         DELETE FROM recipients WHERE message_id = 2; \
         UPDATE recipients SET address = CAST(x'ff' AS TEXT) WHERE message_id = 3; \
         UPDATE messages SET recipients = 2 WHERE id = 4; \
         DELETE FROM bodies WHERE message_id = 5;",
    );
    fs::remove_file(BodyFolder::of_spool(home.path()).file(MessageId(6))).unwrap();

    let found = damaged(&store);
    assert_eq!(found.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 2, 3, 4, 6], "{found:?}");
    for ((_, why), expected) in found.iter().zip(["priority", "no recipients", "address", "of its 2", "content"]) {
        assert!(why.contains(expected), "{why}");
    }
    assert_eq!(ids(&store), [1, 2, 3, 4, 5, 6, 7]);
    let quarantined = Filter { state: Some(MessageState::Quarantined), ..Filter::default() };
    let listed = list(&store, &quarantined, 0, None);
    assert_eq!(listed.len(), 5);
    assert!(listed.iter().all(|summary| summary.why.starts_with("damaged: ")), "{listed:?}");
    assert_eq!(listed[0].sender, "from@example.org", "what can be read is shown");

    let mut reader = store.reader().unwrap();
    for id in 1..=6 {
        let scanned = reader.get(MessageId(id)).unwrap();
        assert!(matches!(scanned, Some(Scanned::Damaged { .. })), "{scanned:?}");
    }
    assert!(matches!(reader.content(MessageId(5), 0, 1), Err(StoreError::Failed { .. })));
    store.commit(&(1..=6).map(remove).collect::<Vec<_>>()).unwrap();
    assert_eq!(ids(&store), [7], "damaged messages can be removed");
}

#[test]
fn what_a_crash_left_of_large_contents_is_removed_at_open() {
    let home = tempfile::tempdir().unwrap();
    let bodies = BodyFolder::of_spool(home.path());
    let mut store = SqliteStore::open(home.path()).unwrap();
    fs::write(bodies.file(MessageId(1)), b"large").unwrap();
    store.commit(&[accept(NewMessage { content: StoredContent::File(5), ..message(1, Bytes::new()) })]).unwrap();
    store.commit(&[accept_sized(2, 10)]).unwrap();
    drop(store);
    for orphan in [bodies.file(MessageId(2)), bodies.file(MessageId(3)), bodies.incoming().join("77")] {
        fs::write(orphan, b"left over").unwrap();
    }
    fs::write(home.path().join("bodies/notes.txt"), b"of a person").unwrap();
    let store = SqliteStore::open(home.path()).unwrap();
    let names = |folder: &Path| {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&home.path().join("bodies")), ["1", "incoming", "notes.txt"]);
    assert_eq!(names(&bodies.incoming()).len(), 0);
    drop(store);
}

#[test]
fn the_file_of_a_removed_message_goes_with_it() {
    let home = tempfile::tempdir().unwrap();
    let file = BodyFolder::of_spool(home.path()).file(MessageId(1));
    let mut store = SqliteStore::open(home.path()).unwrap();
    fs::write(&file, b"large").unwrap();
    store.commit(&[accept(NewMessage { content: StoredContent::File(5), ..message(1, Bytes::new()) })]).unwrap();
    store.commit(&[remove(1)]).unwrap();
    // Waits for the housekeeping.
    drop(store);
    assert!(!file.exists());
}

/// A small file system that is unmounted when it is dropped.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` if this process may not mount.
    fn mount(bytes: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).arg(folder.path());
        mount.output().is_ok_and(|output| output.status.success()).then_some(Self { folder })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.folder.path()).output();
    }
}

#[test]
fn a_disk_that_is_really_full_refuses_messages_and_works_them_off() {
    let Some(disk) = SmallDisk::mount(32 << 20) else {
        eprintln!(
            "skipped a_disk_that_is_really_full_refuses_messages_and_works_them_off: it needs the right to mount a tmpfs"
        );
        return;
    };
    let store = SqliteStore::open(disk.folder.path()).unwrap();
    let (sender, reports) = channel();
    let report = move |reported: Report| reported.into_iter().for_each(|one| sender.send(one).unwrap());
    let writer = Writer::start(Box::new(store), Reserve::of(disk.folder.path(), 0), report, |_| ()).unwrap();
    let accepted = (1..)
        .take_while(|id| {
            writer.submit(Ticket(*id), accept_sized(*id, 20_000));
            let (_, result) = reports.recv().unwrap();
            assert!(matches!(result, Ok(()) | Err(StoreError::Full { .. })), "{result:?}");
            result.is_ok()
        })
        .last()
        .unwrap();
    assert!(accepted > 100);

    (1..=accepted).for_each(|id| writer.submit(Ticket(id), remove(id)));
    let mut removed: Vec<u64> = (0..accepted)
        .map(|_| {
            let (ticket, result) = reports.recv().unwrap();
            result.unwrap();
            ticket.0
        })
        .collect();
    removed.sort_unstable();
    assert_eq!(removed, (1..=accepted).collect::<Vec<_>>(), "what became of the old ones is never dropped");
    writer.submit(Ticket(0), accept_sized(accepted + 1, 20_000));
    reports.recv().unwrap().1.unwrap();
    writer.stop();
    let mut store = SqliteStore::open(disk.folder.path()).unwrap();
    assert_eq!(store.last_id().unwrap(), MessageId(accepted + 1));
    assert_eq!(ids(&store), [accepted + 1]);
}
