//! The store: what is on disk, and how it gets there.
//!
//! The store does not schedule and the scheduler does not store: nothing here knows why a message waits, and the schedule in RAM is
//! rebuilt from `StoreReader::scan`. What is in flight is not on disk, so after a crash it is offered again.

/// The folder of contents that are too large for the database.
pub mod body_files;
/// Which messages a filter means, and what a listing says of them.
pub mod listing;
/// A store in memory, for simulations and tests.
pub mod memory;
/// Threads that read.
pub mod readers;
/// Space that is kept free for going on with what was accepted.
pub mod reserve;
/// The store of one host.
pub mod sqlite;
/// Large contents on their way in.
pub mod uploads;
/// The thread that commits.
pub mod writer;

mod changes;
mod checkpoint;
mod claim;
#[cfg(test)]
mod conformance;
mod failure;
mod lock;
mod rows;
mod schema;
mod sqlite_read;
#[cfg(test)]
mod sqlite_tests;
#[cfg(test)]
mod writer_tests;

use std::ops::ControlFlow;

use bytes::Bytes;
use spooler_protocol::control::{Filter, MessageDetail, MessageState, MessageSummary, RecipientState};
use spooler_protocol::ids::MessageId;
use spooler_protocol::message::Envelope;
use spooler_protocol::outcome::Reply;

/// Where the content of a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredContent {
    /// In the database: at most [`spooler_protocol::limits::BODY_INLINE_BYTES_MAX`] bytes.
    Inline(Bytes),
    /// In a file of so many bytes that is synced and has its final name already.
    File(u64),
}

/// A message that comes into the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMessage {
    /// Chosen by the caller, larger than every number before.
    pub id: MessageId,
    /// For whom.
    pub envelope: Envelope,
    /// When, milliseconds since 1970.
    pub submitted_ms: i64,
    /// Who handed it over, for people: `uid 1000`, `provider submission`, `report`.
    pub origin: String,
    /// The user who may see it besides the administrators, if it came over the control socket or the pick-up folder.
    pub owner_uid: Option<u32>,
    /// What.
    pub content: StoredContent,
}

/// What is known of a recipient after an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipientUpdate {
    /// Which recipient of the message, by its place in the envelope.
    pub index: u32,
    /// Whether it is settled.
    pub state: RecipientState,
    /// Attempts made so far.
    pub attempts: u32,
    /// When the next attempt is due, milliseconds since 1970; 0 for at once.
    pub next_try_ms: i64,
    /// The provider that made the attempt.
    pub provider: Option<String>,
    /// What came of it.
    pub reply: Option<Reply>,
}

/// One change of what is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A message comes in.
    Accept(Box<NewMessage>),
    /// Recipients of a message change.
    Recipients {
        /// Which message.
        id: MessageId,
        /// Which recipients, and how.
        updates: Vec<RecipientUpdate>,
    },
    /// A message is held, set aside, or goes on. Only `Ready` (goes on), `Held` and `Quarantined` are kept on disk.
    State {
        /// Which message.
        id: MessageId,
        /// Which state.
        state: MessageState,
        /// Why; empty if it goes on.
        why: String,
    },
    /// Workers that had the message in their hands died so many times, and a delay was or was not reported.
    Marks {
        /// Which message.
        id: MessageId,
        /// Deaths of workers while they had it.
        deaths: u32,
        /// Whether its sender was told of the delay.
        delay_reported: bool,
    },
    /// A message is forgotten, content and all.
    Remove {
        /// Which message.
        id: MessageId,
    },
}

/// What the schedule needs of one message, read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScannedMessage {
    /// Its number.
    pub id: MessageId,
    /// Its envelope, all recipients included.
    pub envelope: Envelope,
    /// `Ready`, `Held` or `Quarantined`.
    pub state: MessageState,
    /// When it was accepted, milliseconds since 1970.
    pub submitted_ms: i64,
    /// Bytes of the content.
    pub size: u64,
    /// Deaths of workers while they had it.
    pub deaths: u32,
    /// Whether its sender was told of the delay.
    pub delay_reported: bool,
    /// State, attempts and next try of each recipient, in the order of the envelope. `provider` and `reply` are those of the last
    /// attempt.
    pub recipients: Vec<RecipientUpdate>,
}

/// What reading the next message of a scan gives: a damaged one is reported and passed over, never the end of the scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scanned {
    /// A message.
    Message(Box<ScannedMessage>),
    /// A row that cannot be read; it stays on disk and is shown as quarantined.
    Damaged {
        /// Which.
        id: MessageId,
        /// What is wrong with it.
        why: String,
    },
}

/// Why the store cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk or the quota is full.
    #[error("The disk is full at {path}")]
    Full {
        /// Where.
        path: String,
    },
    /// Another supervisor has this spool.
    #[error("The spool {path} is in use by process {pid}; one supervisor runs per spool")]
    InUse {
        /// Where.
        path: String,
        /// Who, or `?`.
        pid: String,
    },
    /// The database was made by a newer version.
    #[error(
        "The spool {path} has schema version {found}; this program knows up to {known}. Use the newer program, or another spool"
    )]
    TooNew {
        /// Where.
        path: String,
        /// Its version.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// The database cannot be trusted.
    #[error(
        "The database {path} is damaged ({why}). Stop here, copy it away, and try `sqlite3 {path} .recover | sqlite3 new.db`"
    )]
    Damaged {
        /// Where.
        path: String,
        /// What SQLite says.
        why: String,
    },
    /// Anything else that the file system or the database says.
    #[error("The store at {path} failed: {why}")]
    Failed {
        /// Where.
        path: String,
        /// What happened.
        why: String,
    },
}

/// The writing end: one per spool, used by one thread.
pub trait Store: Send {
    /// Applies all units in one synced commit, or none of them.
    ///
    /// # Errors
    /// Nothing was applied then.
    fn commit(&mut self, units: &[Vec<Change>]) -> Result<(), StoreError>;

    /// A reading end that sees every finished commit.
    ///
    /// # Errors
    /// If no further connection can be opened.
    fn reader(&self) -> Result<Box<dyn StoreReader>, StoreError>;

    /// The largest number that was ever used, also by messages that are gone.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn last_id(&mut self) -> Result<MessageId, StoreError>;

    /// Housekeeping that must not happen inside a commit (SQLite: a checkpoint). Called between commits.
    ///
    /// # Errors
    /// Only what the caller should log; the store stays usable.
    fn tidy(&mut self) -> Result<(), StoreError>;
}

/// A reading end, used by one thread at a time. Never blocks the writing end.
pub trait StoreReader: Send {
    /// Visits every message in ascending order of number, until the visitor breaks.
    ///
    /// # Errors
    /// If the store as a whole cannot be read.
    fn scan(&mut self, visit: &mut dyn FnMut(Scanned) -> ControlFlow<()>) -> Result<(), StoreError>;

    /// One message as [`StoreReader::scan`] gives it; `None` if there is no such message.
    ///
    /// # Errors
    /// If the store as a whole cannot be read.
    fn get(&mut self, id: MessageId) -> Result<Option<Scanned>, StoreError>;

    /// Up to `length` bytes of the content from `offset`; shorter only at its end.
    ///
    /// # Errors
    /// [`StoreError::Failed`] if there is no such message or its content is missing.
    fn content(&mut self, id: MessageId, offset: u64, length: usize) -> Result<Bytes, StoreError>;

    /// The messages of a filter, oldest first, until the visitor breaks. States that only the schedule knows (`InFlight`,
    /// `Deferred` by time against `now_ms`) are derived from the recipients' next tries; `InFlight` is never given, and a filter
    /// for it matches nothing here. `owner_uid` restricts to messages of that user.
    ///
    /// # Errors
    /// If the store as a whole cannot be read.
    fn list(
        &mut self,
        filter: &Filter,
        now_ms: i64,
        owner_uid: Option<u32>,
        visit: &mut dyn FnMut(MessageSummary) -> ControlFlow<()>,
    ) -> Result<(), StoreError>;

    /// Everything about one message but its content, with its owner.
    ///
    /// # Errors
    /// If the store as a whole cannot be read.
    fn detail(&mut self, id: MessageId, now_ms: i64) -> Result<Option<(MessageDetail, Option<u32>)>, StoreError>;
}
