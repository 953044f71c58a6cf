//! A spool that somebody else has written to: rows with any values, and a database with any bytes changed.
//!
//! What holds: opening and reading give messages, damaged ones or an error with a sentence. A row that was changed hides no other row.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use bytes::Bytes;
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use spooler_protocol::control::{Filter, MessageState, RecipientState};
use spooler_protocol::fuzzing::sections;
use spooler_protocol::ids::MessageId;
use spooler_protocol::message::{Envelope, Recipient};
use spooler_protocol::outcome::Reply;
use tempfile::TempDir;

use super::sqlite::SqliteStore;
use super::{Change, NewMessage, RecipientUpdate, Scanned, Store, StoreError, StoredContent};

/// The columns that are changed: those of `rows`.
const COLUMNS: [&str; 25] = [
    "messages.submitted_ms",
    "messages.size",
    "messages.in_file",
    "messages.recipients",
    "messages.state",
    "messages.deaths",
    "messages.delay_reported",
    "messages.priority",
    "messages.body",
    "messages.smtputf8",
    "messages.ret",
    "messages.owner_uid",
    "messages.sender",
    "messages.envid",
    "messages.origin",
    "messages.why",
    "recipients.idx",
    "recipients.state",
    "recipients.attempts",
    "recipients.next_try_ms",
    "recipients.notify",
    "recipients.address",
    "recipients.orcpt",
    "recipients.provider",
    "recipients.reply",
];

const CONTENT: &[u8] = b"Subject: x\r\n\r\nhello\r\n";

/// Input: columns and their values in message 2, as in `messages.state=7`, a line each. A value is a number, `null`, or else a text.
pub(crate) fn rows(input: &[u8]) {
    let spool = spool();
    let Ok(connection) = Connection::open(spool.path().join("spool.db")) else { return };
    for line in input.split(|byte| *byte == b'\n') {
        let Some(at) = memchr::memchr(b'=', line) else { continue };
        let (name, value) = line.split_at(at);
        let Some((table, column)) =
            COLUMNS.iter().find(|known| known.as_bytes() == name).and_then(|name| name.split_once('.'))
        else {
            continue;
        };
        let id = if table == "messages" { "id" } else { "message_id" };
        let sql = format!("UPDATE {table} SET {column} = ?1 WHERE {id} = 2");
        // What the table does not take, a program that writes to it cannot have written.
        let _ = connection.execute(&sql, params_from_iter([value_of(value.get(1..).unwrap_or_default())]));
    }
    drop(connection);
    let store = SqliteStore::open(spool.path()).expect("the database as such is whole");
    let seen = read_everything(&store).expect("the database as such is whole");
    let whole = |id: u64| seen.iter().any(|scanned| matches!(scanned, Scanned::Message(message) if message.id.0 == id));
    assert!(whole(1) && whole(3), "another row is hidden: {seen:?}");
    assert_eq!(seen.len(), 3);
}

/// Input: places in the file and what is written there, as in `4096 0d00ff`, a line each.
pub(crate) fn damage(input: &[u8]) {
    let [patches, _] = sections(input);
    let spool = spool();
    let file = fs::OpenOptions::new().write(true).open(spool.path().join("spool.db")).expect("the file is there");
    for line in String::from_utf8_lossy(patches).lines().take(64) {
        let Some((at, hex)) = line.split_once(' ') else { continue };
        let digits: Vec<u8> = hex.chars().filter_map(|c| u8::try_from(c.to_digit(16)?).ok()).collect();
        let bytes: Vec<u8> =
            digits.chunks_exact(2).map(|two| two.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        if let Ok(at) = at.parse::<u64>()
            && at < size
        {
            file.write_all_at(&bytes, at).expect("it can be written");
        }
    }
    drop(file);
    match SqliteStore::open(spool.path()) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(mut store) => {
            let read = read_everything(&store).map(drop);
            let written = store.commit(&[vec![Change::Remove { id: MessageId(2), ending: None }], vec![accept(9)]]);
            let read_again = read_everything(&store).map(drop);
            for error in [read, written, read_again].into_iter().filter_map(Result::err) {
                assert!(!error.to_string().is_empty());
            }
        }
    }
}

fn value_of(text: &[u8]) -> Value {
    match std::str::from_utf8(text) {
        Ok("null") => Value::Null,
        Ok(text) => text.parse().map_or_else(|_| Value::Text(text.to_owned()), Value::Integer),
        Err(_) => Value::Blob(text.to_vec()),
    }
}

/// Reads everything in every way.
fn read_everything(store: &SqliteStore) -> Result<Vec<Scanned>, StoreError> {
    let mut reader = store.reader()?;
    let mut seen = Vec::new();
    reader.scan(&mut |scanned| {
        seen.push(scanned);
        if seen.len() < 1000 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    for filter in [
        Filter::default(),
        Filter { state: Some(MessageState::Quarantined), ..Filter::default() },
        Filter { to: Some("x".to_owned()), from: Some("ann".to_owned()), ..Filter::default() },
    ] {
        let mut count = 0;
        reader.list(&filter, 1_793_000_000_000, None, &mut |summary| {
            assert!(serde_json::to_string(&summary).is_ok());
            count += 1;
            if count < 1000 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
    }
    for id in [1, 2, 3, 4].map(MessageId) {
        if let Some((detail, _)) = reader.detail(id, 1_793_000_000_000)? {
            assert!(serde_json::to_string(&detail).is_ok());
        }
        let _ = reader.get(id)?;
        if let Ok(content) = reader.content(id, 3, 1000) {
            assert!(content.len() <= 1000);
        }
    }
    Ok(seen)
}

/// A spool with three messages: a copy of one that was made once.
fn spool() -> TempDir {
    static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
    let whole = WHOLE.get_or_init(|| {
        let made = folder();
        let mut store = SqliteStore::open(made.path()).expect("a spool can be made");
        let reply = Reply::local(451, "4.3.0", "later");
        let update = RecipientUpdate {
            index: 0,
            state: RecipientState::Pending,
            attempts: 1,
            next_try_ms: 1_793_000_100_000,
            provider: Some("relay".to_owned()),
            reply: Some(reply),
        };
        let units = [
            vec![accept(1)],
            vec![accept(2)],
            vec![accept(3)],
            vec![Change::Recipients { id: MessageId(2), updates: vec![update] }],
        ];
        store.commit(&units).expect("messages can be accepted");
        drop(store);
        let database = made.path().join("spool.db");
        let connection = Connection::open(&database).expect("it is a database");
        connection.pragma_update(None, "wal_checkpoint", "TRUNCATE").expect("the log can be emptied");
        drop(connection);
        fs::read(&database).expect("it can be read")
    });
    let spool = folder();
    fs::write(spool.path().join("spool.db"), whole).expect("it can be written");
    spool
}

/// In memory if it can be: nothing here has to survive.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder can be made")
}

fn accept(id: u64) -> Change {
    let recipient = |text: &str| Recipient::new(text.parse().expect("an address"));
    let envelope = Envelope {
        sender: "ann@x.test".to_owned(),
        recipients: vec![recipient("bob@y.test"), recipient("FAX:+15551212")],
        ..Envelope::default()
    };
    Change::Accept(Box::new(NewMessage {
        id: MessageId(id),
        envelope,
        submitted_ms: 1_793_000_000_000,
        origin: "uid 1000".to_owned(),
        owner_uid: Some(1000),
        content: StoredContent::Inline(Bytes::from_static(CONTENT)),
    }))
}
