//! When the write-ahead log is copied into the database, and by whom.
//!
//! A checkpoint never runs inside a commit. Small ones run on a connection and a thread of their own, beside the commits (`PASSIVE`
//! waits for nobody). They never quite catch up with a busy writer, so the log grows; when it is large, the writer itself copies
//! the little that is left, and the log begins again at its start (`RESTART`). The same thread removes the files of contents
//! that nobody needs any more: that can take long, too.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use rusqlite::Connection;
use spooler_protocol::ids::MessageId;

use super::StoreError;
use super::body_files::BodyFolder;
use super::failure::{of_io, of_sqlite};
use super::schema::{BUSY_TIMEOUT, PAGE_BYTES, open_checkpointer};

/// Pages in the log that are not in the database yet, from which on a checkpoint is worth its two fsyncs.
const BACKLOG_PAGES: i64 = 1000;

/// Bytes of the log from which on it has to begin again at its start.
pub(super) const LOG_BYTES_MAX: u64 = 64 << 20;

const LOG_PAGES_MAX: i64 = (LOG_BYTES_MAX / PAGE_BYTES).cast_signed();

enum Chore {
    Checkpoint,
    Remove(MessageId),
}

/// How full the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Log {
    /// Pages in the log.
    pub(super) pages: i64,
    /// Of these, copied into the database.
    pub(super) copied: i64,
}

/// The thread for what must not happen inside a commit.
pub(super) struct Checkpointer {
    path: PathBuf,
    chores: Option<Sender<Chore>>,
    busy: Arc<AtomicBool>,
    /// Checkpoints that are over so far.
    count: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
    /// Length of the log at which a restart is tried, or tried again after a reader was in its way.
    restart_at: i64,
}

impl Checkpointer {
    pub(super) fn start(path: &Path, bodies: BodyFolder) -> Result<Self, StoreError> {
        let connection = open_checkpointer(path)?;
        let (sender, receiver) = unbounded();
        let busy = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicU64::new(0));
        let (also_busy, also_count) = (Arc::clone(&busy), Arc::clone(&count));
        let worker = Housekeeper { path: path.to_owned(), connection, bodies, busy: also_busy, count: also_count };
        let spawned = Builder::new().name("store-checkpoint".to_owned()).spawn(move || worker.run(&receiver));
        let thread = spawned.map_err(|error| of_io(path, "start a thread", &error))?;
        let path = path.to_owned();
        Ok(Self { path, chores: Some(sender), busy, count, thread: Some(thread), restart_at: LOG_PAGES_MAX })
    }

    /// Checkpoints that are over so far.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// How full the log is, without doing anything; `writer` is the connection that commits.
    pub(super) fn log(&self, writer: &Connection) -> Result<Log, StoreError> {
        let log = checkpoint(writer, "PRAGMA wal_checkpoint(NOOP)");
        log.map_err(|error| of_sqlite(&self.path, writer, &error))
    }

    /// Removes the file of a content, some time.
    pub(super) fn remove(&self, id: MessageId) {
        self.ask(Chore::Remove(id));
    }

    /// The disk is full: at the next opportunity the log begins again at its start, so that commits need no further space for it.
    pub(super) fn save_space(&mut self) {
        self.restart_at = 1;
    }

    /// Looks after the log; `writer` is the connection that commits, and does not do so now.
    pub(super) fn tidy(&mut self, writer: &Connection) -> Result<(), StoreError> {
        let fail = |error: rusqlite::Error| of_sqlite(&self.path, writer, &error);
        if self.busy.load(Ordering::Acquire) {
            return Ok(());
        }
        let log = self.log(writer)?;
        if log.pages >= self.restart_at {
            // A reader that is in the way must not hold up the commits: the next try comes when the log has grown.
            writer.busy_timeout(Duration::ZERO).map_err(fail)?;
            let restarted = checkpoint(writer, "PRAGMA wal_checkpoint(RESTART)");
            writer.busy_timeout(BUSY_TIMEOUT).map_err(fail)?;
            self.count.fetch_add(1, Ordering::Release);
            let after = restarted.map_err(fail)?;
            let in_the_way = after.copied < after.pages;
            self.restart_at = if in_the_way { after.pages + BACKLOG_PAGES } else { LOG_PAGES_MAX };
        } else if log.pages - log.copied >= BACKLOG_PAGES {
            self.busy.store(true, Ordering::Release);
            self.ask(Chore::Checkpoint);
        }
        Ok(())
    }

    fn ask(&self, chore: Chore) {
        if let Some(chores) = &self.chores {
            // The thread ends only after this sender; if it has panicked, the next open cleans up.
            let _ = chores.send(chore);
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        drop(self.chores.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Housekeeper {
    path: PathBuf,
    connection: Connection,
    bodies: BodyFolder,
    busy: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
}

impl Housekeeper {
    fn run(&self, chores: &Receiver<Chore>) {
        for chore in chores {
            let done = match chore {
                Chore::Checkpoint => {
                    let done = checkpoint(&self.connection, "PRAGMA wal_checkpoint(PASSIVE)");
                    self.count.fetch_add(1, Ordering::Release);
                    self.busy.store(false, Ordering::Release);
                    done.map(drop).map_err(|error| of_sqlite(&self.path, &self.connection, &error))
                }
                Chore::Remove(id) => self.bodies.remove(id),
            };
            if let Err(error) = done {
                tracing::warn!(%error, "Housekeeping of the store failed; it is tried again later");
            }
        }
    }
}

fn checkpoint(connection: &Connection, pragma: &str) -> rusqlite::Result<Log> {
    connection.prepare_cached(pragma)?.query_row((), |row| Ok(Log { pages: row.get(1)?, copied: row.get(2)? }))
}

#[cfg(test)]
mod tests {
    use super::super::schema::{open_reader, open_writer};
    use super::*;

    fn log(writer: &Connection) -> Log {
        checkpoint(writer, "PRAGMA wal_checkpoint(NOOP)").unwrap()
    }

    fn fill(writer: &Connection, pages: i64) {
        let until = log(writer).pages + pages;
        while log(writer).pages < until {
            writer.execute("INSERT INTO bodies (content) VALUES (zeroblob(100000))", ()).unwrap();
        }
    }

    /// Waits until the thread is through with all that it was asked.
    fn settled(checkpointer: Checkpointer) {
        drop(checkpointer);
    }

    #[test]
    fn a_small_log_is_left_alone_and_a_larger_one_is_copied() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("spool.db");
        let writer = open_writer(&path).unwrap();
        let start = || Checkpointer::start(&path, BodyFolder::of_spool(home.path())).unwrap();
        fill(&writer, 100);
        let copied = log(&writer).copied;
        let mut checkpointer = start();
        checkpointer.tidy(&writer).unwrap();
        settled(checkpointer);
        assert_eq!(log(&writer).copied, copied);

        fill(&writer, BACKLOG_PAGES);
        let mut checkpointer = start();
        checkpointer.tidy(&writer).unwrap();
        settled(checkpointer);
        assert_eq!(log(&writer).copied, log(&writer).pages);
    }

    #[test]
    fn a_large_log_begins_again_unless_a_reader_is_in_the_way() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("spool.db");
        let writer = open_writer(&path).unwrap();
        let mut checkpointer = Checkpointer::start(&path, BodyFolder::of_spool(home.path())).unwrap();
        let reader = open_reader(&path).unwrap();
        let snapshot = reader.unchecked_transaction().unwrap();
        snapshot.query_row("SELECT count(*) FROM bodies", (), |row| row.get::<_, i64>(0)).unwrap();

        fill(&writer, LOG_PAGES_MAX);
        checkpointer.tidy(&writer).unwrap();
        let grown = log(&writer).pages;
        assert!(grown >= LOG_PAGES_MAX);
        drop(snapshot);
        fill(&writer, BACKLOG_PAGES);
        checkpointer.tidy(&writer).unwrap();
        writer.execute("DELETE FROM bodies WHERE message_id = 1", ()).unwrap();
        assert!(log(&writer).pages < BACKLOG_PAGES, "the log has begun again");
    }
}
