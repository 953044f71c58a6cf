//! The store of one host: a SQLite database in a folder, larger contents as files beside it.
//!
//! ```text
//! FOLDER/lock       locked by the supervisor that uses the spool; holds its process number
//! FOLDER/spool.db   envelopes, states, and contents up to BODY_INLINE_BYTES_MAX (and -wal, -shm)
//! FOLDER/bodies/    larger contents
//! ```
//!
//! One connection writes, from one thread; a commit is synced when it returns (`synchronous = FULL` in write-ahead mode). Readers
//! have connections of their own and never wait for the writer, nor it for them. Pages of removed messages are used again, the file does
//! not shrink.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use spooler_protocol::ids::MessageId;

use super::body_files::BodyFolder;
use super::changes::{LAST_ID, LastId, Tally};
use super::checkpoint::{Checkpointer, LOG_BYTES_MAX};
use super::claim::{Claim, DatabaseFile, open_file};
use super::failure::{failed, of_io, of_sqlite};
use super::history::Books;
use super::lock::FolderLock;
use super::log_tail;
use super::rows::{key, message_id};
use super::schema::open_writer;
pub use super::sqlite_read::SqliteReader;
use super::{Change, Store, StoreError, StoreReader, StoredContent};

/// The writing end of a spool on disk. Dropping it finishes the housekeeping and unlocks the spool.
pub struct SqliteStore {
    // In the order in which they have to go: the lock last.
    checkpointer: Checkpointer,
    connection: Connection,
    claim: Claim,
    last_id: LastId,
    /// How much history there is.
    books: Books,
    bodies: BodyFolder,
    path: PathBuf,
    file: DatabaseFile,
    _lock: FolderLock,
}

impl SqliteStore {
    /// Opens the spool in `folder`, or makes one there; cleans up what a crash has left. Takes as long for a full spool as for an
    /// empty one, apart from a look at each large content.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another supervisor has it, [`StoreError::TooNew`], [`StoreError::Damaged`], or what the file system
    /// says.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let lock = FolderLock::take(folder)?;
        let path = folder.join("spool.db");
        let file = open_file(&path)?;
        let left = log_tail::write_again(&path).map_err(|error| of_io(&path, "write its log again", &error))?;
        if left.cut_off > 0 {
            tracing::warn!(
                "The log of {} ends early, after {} pages of {}. That is how a power cut leaves it, and then nothing is missing; \
                 if there was none, the disk has changed it, and what was accepted or delivered last is not known any more",
                path.display(),
                left.whole,
                left.whole + left.cut_off
            );
        }
        let connection = open_writer(&path)?;
        let fail = |error: rusqlite::Error| of_sqlite(&path, &connection, &error);
        connection
            .pragma_update_and_check(None, "journal_size_limit", LOG_BYTES_MAX.cast_signed(), |_| Ok(()))
            .map_err(fail)?;
        let last_id = read_last_id(&connection).map_err(fail)?;
        let bodies = BodyFolder::of_spool(folder);
        // Syncs the name of every file and folder in `folder`, too.
        bodies.make()?;
        bodies.sweep(|id| has_file(&connection, id).map_err(fail))?;
        let checkpointer = Checkpointer::start(&path, bodies.clone())?;
        let claim = Claim::new(Arc::clone(&file));
        let books = Books::default();
        Ok(Self { checkpointer, connection, claim, last_id, books, bodies, path, file, _lock: lock })
    }

    /// Deletes what the history has kept, because it is switched off.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn empty_history(&mut self) -> Result<(), StoreError> {
        let emptied = self.books.empty(&self.connection);
        emptied.map_err(|error| of_sqlite(&self.path, &self.connection, &error))
    }

    fn transact(&mut self, units: &[Vec<Change>], with_history: bool) -> Result<Tally, StoreError> {
        let fail = |error: rusqlite::Error| of_sqlite(&self.path, &self.connection, &error);
        let mut tally = Tally::new(self.last_id, self.books, with_history);
        run(&self.connection, "BEGIN IMMEDIATE").map_err(fail)?;
        for change in units.iter().flatten() {
            tally.apply(&self.connection, change).map_err(fail)?;
        }
        tally.close(&self.connection).map_err(fail)?;
        let pages = page_count(&self.connection).map_err(fail)?;
        self.claim.extend(&self.path, pages, self.checkpointer.count())?;
        run(&self.connection, "COMMIT").map_err(fail)?;
        self.claim.committed(pages);
        Ok(tally)
    }

    /// Applies all units or none.
    fn try_commit(&mut self, units: &[Vec<Change>], with_history: bool) -> Result<(), StoreError> {
        match self.transact(units, with_history) {
            Ok(tally) => {
                self.last_id = tally.last_id;
                self.books = tally.books;
                tally.removed_with_file.iter().for_each(|id| self.checkpointer.remove(*id));
                Ok(())
            }
            Err(error) => {
                if !self.connection.is_autocommit() {
                    let undone = run(&self.connection, "ROLLBACK");
                    undone.map_err(|error| of_sqlite(&self.path, &self.connection, &error))?;
                }
                self.void_tail();
                if matches!(error, StoreError::Full { .. }) {
                    self.checkpointer.save_space();
                }
                Err(error)
            }
        }
    }

    /// A commit has failed: nobody shall take what it has written for committed.
    fn void_tail(&self) {
        let sure = self.checkpointer.log(&self.connection).map(|log| log.pages);
        let voided = sure.and_then(|frames| {
            log_tail::void(&self.path, frames).map_err(|error| of_io(&self.path, "void the end of its log", &error))
        });
        if let Err(error) = voided {
            // Not even that can be written; then what was refused may be delivered if this process is killed now.
            tracing::debug!(%error, "The end of the log cannot be voided");
        }
    }

    /// A row must never name a content that is not there.
    fn check_files(&self, units: &[Vec<Change>]) -> Result<(), StoreError> {
        for change in units.iter().flatten() {
            let Change::Accept(message) = change else { continue };
            let StoredContent::File(size) = message.content else { continue };
            let checked = self.bodies.check(message.id, size);
            checked.map_err(|why| failed(&self.bodies.file(message.id), why))?;
        }
        Ok(())
    }
}

impl Store for SqliteStore {
    fn commit(&mut self, units: &[Vec<Change>]) -> Result<(), StoreError> {
        self.check_files(units)?;
        match self.try_commit(units, true) {
            // What became of deliveries must get to disk, remembered or not: to end a message makes room, to remember it takes some, and
            // the history alone may be damaged.
            Err(error @ (StoreError::Full { .. } | StoreError::Damaged { .. }))
                if units.iter().flatten().any(Change::is_remembered) =>
            {
                self.try_commit(units, false)?;
                tracing::warn!("What has ended now is missing in the history: {error}");
                Ok(())
            }
            result => result,
        }
    }

    fn reader(&self) -> Result<Box<dyn StoreReader>, StoreError> {
        Ok(Box::new(SqliteReader::open(&self.path, Arc::clone(&self.file), self.bodies.clone())?))
    }

    fn last_id(&mut self) -> Result<MessageId, StoreError> {
        Ok(self.last_id.used)
    }

    fn tidy(&mut self) -> Result<(), StoreError> {
        self.checkpointer.tidy(&self.connection)
    }
}

fn run(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute(()).map(drop)
}

fn page_count(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA page_count")?.query_row((), |row| row.get(0))
}

fn read_last_id(connection: &Connection) -> rusqlite::Result<LastId> {
    let (kept, in_rows): (i64, Option<i64>) =
        connection.query_row(LAST_ID, (), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let kept = message_id(kept);
    Ok(LastId { used: kept.max(message_id(in_rows.unwrap_or(0))), kept })
}

fn has_file(connection: &Connection, id: MessageId) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM messages WHERE id = ?1 AND in_file = 1")?.exists([key(id)])
}
