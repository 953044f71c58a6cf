//! The store: what is on disk, and how it gets there.
//!
//! The store does not schedule and the scheduler does not store: nothing here knows why a message waits, and the schedule in RAM is
//! rebuilt from `StoreReader::scan`. What is in flight is not on disk, so after a crash it is offered again.

// The folder of contents that are too large for the database.
pub mod body_files;
// Which messages a filter means, and what a listing says of them.
pub mod listing;
// A store in memory, for simulations and tests.
pub mod memory;
// Threads that read.
pub mod readers;
// Space that is kept free for going on with what was accepted.
pub mod reserve;
// The store of one host.
pub mod sqlite;
// Large contents on their way in.
pub mod uploads;
// The thread that commits.
pub mod writer;

mod changes;
mod checkpoint;
mod claim;
mod company;
#[cfg(test)]
mod conformance;
mod damage;
#[cfg(test)]
mod damage_tests;
mod failure;
mod history;
mod history_entry;
#[cfg(test)]
mod history_tests;
// Folders that outlive a power cut.
pub mod folders;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod lock;
mod log_tail;
mod rows;
mod schema;
mod sqlite_read;
#[cfg(test)]
mod sqlite_tests;
mod sums;
#[cfg(test)]
mod writer_tests;

use std::ops::ControlFlow;

use bytes::Bytes;
use spooler_protocol::control::{Filter, MessageDetail, MessageSummary};
use spooler_protocol::history::{Finished, HistoryFilter};
use spooler_protocol::ids::MessageId;

pub use crate::record::{Change, NewMessage, RecipientUpdate, Scanned, ScannedMessage, StoredContent};

/// Why the store cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk or the quota is full.
    #[error("The disk is full at {path}")]
    Full {
        /// Where.
        path: String,
    },
    /// A message is larger than messages may be.
    #[error("The message is larger than {bytes_max} bytes, the most that is allowed")]
    TooLarge {
        /// Bytes.
        bytes_max: u64,
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
    /// The disk does not do what it is asked, now; it may do it later.
    #[error(
        "The disk of {path} fails: {why}. Look at the kernel's log (dmesg), the health of the disk and the limit of open files"
    )]
    Failing {
        /// Where.
        path: String,
        /// What happened.
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

impl StoreError {
    /// Whether the same request may do well later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Failing { .. })
    }
}

/// A page of the history.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistoryPage {
    /// Messages that a filter means, newest first.
    pub found: Vec<Finished>,
    /// Where the next page begins; `None` if there is none.
    pub next: Option<u64>,
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

    /// Reads all of a content, and whether it is as it was when it came. Where contents cannot rot, nothing.
    ///
    /// # Errors
    /// [`StoreError::Failed`] if it is damaged or missing.
    fn check_content(&mut self, _id: MessageId) -> Result<(), StoreError> {
        Ok(())
    }

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

    /// A page of the messages of a filter that have left the queue, newest first, from those that ended before place `before`. Few rows
    /// are looked at for each page: it may well be empty. `owner_uid` restricts to messages of that user. The filter's limit is the
    /// caller's.
    ///
    /// # Errors
    /// If the history cannot be read.
    fn history(
        &mut self,
        filter: &HistoryFilter,
        owner_uid: Option<u32>,
        before: u64,
    ) -> Result<HistoryPage, StoreError>;

    /// The message of a number that has left the queue, if the history still has it. `owner_uid` as above.
    ///
    /// # Errors
    /// If the history cannot be read.
    fn finished(&mut self, id: MessageId, owner_uid: Option<u32>) -> Result<Option<Finished>, StoreError>;

    /// Everything about one message but its content, with its owner.
    ///
    /// # Errors
    /// If the store as a whole cannot be read.
    fn detail(&mut self, id: MessageId, now_ms: i64) -> Result<Option<(MessageDetail, Option<u32>)>, StoreError>;
}
