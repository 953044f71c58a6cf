//! Connections to the database, and what is in it: the tables, their version, and the way from older versions.
//!
//! A database is ours if its application id says so. `user_version` is the number of migrations that were applied; the missing ones
//! are applied in order, in one transaction. A newer database is refused and left as it is.
//!
//! There is no index besides the keys: the schedule lives in RAM, so nothing is ever looked up by time, state or provider except in
//! a listing for a person, which may well read everything. Each index would cost every message twice.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::StoreError;
use super::failure::{damaged, failed, of_sqlite, of_sqlite_opening};

/// Bytes of a page of the database and of its write-ahead log.
pub(super) const PAGE_BYTES: u64 = 4096;

/// `SPLR`, in the header of the database.
const APPLICATION_ID: i32 = 0x5350_4C52;

/// How long a connection waits for a lock. Only a stranger, such as the `sqlite3` tool, can hold one for long.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Page cache of the writing connection, and of a reading one; KiB.
const CACHE_WRITER_KIB: i64 = 1024;
const CACHE_READER_KIB: i64 = 256;

/// Prepared statements that a connection keeps: more than there are.
const STATEMENTS_KEPT: usize = 40;

const MIGRATIONS: &[&str] = &[VERSION_1, VERSION_2, VERSION_3];

/// What the numbers in the columns mean is in `rows.rs`.
const VERSION_1: &str = "
    CREATE TABLE meta (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        last_id INTEGER NOT NULL
    ) STRICT;
    INSERT INTO meta (one, last_id) VALUES (1, 0);

    CREATE TABLE messages (
        id INTEGER PRIMARY KEY,
        submitted_ms INTEGER NOT NULL,
        size INTEGER NOT NULL,
        in_file INTEGER NOT NULL,
        recipients INTEGER NOT NULL,
        state INTEGER NOT NULL DEFAULT 0,
        deaths INTEGER NOT NULL DEFAULT 0,
        delay_reported INTEGER NOT NULL DEFAULT 0,
        priority INTEGER NOT NULL,
        body INTEGER NOT NULL,
        smtputf8 INTEGER NOT NULL,
        ret INTEGER,
        owner_uid INTEGER,
        sender TEXT NOT NULL,
        envid TEXT,
        origin TEXT NOT NULL,
        why TEXT NOT NULL DEFAULT ''
    ) STRICT;

    CREATE TABLE recipients (
        message_id INTEGER NOT NULL,
        idx INTEGER NOT NULL,
        state INTEGER NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0,
        next_try_ms INTEGER NOT NULL DEFAULT 0,
        notify INTEGER,
        address TEXT NOT NULL,
        orcpt TEXT,
        provider TEXT,
        reply TEXT,
        PRIMARY KEY (message_id, idx)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE bodies (
        message_id INTEGER PRIMARY KEY,
        content BLOB NOT NULL
    ) STRICT;
";

/// Deaths of workers that had the message, a list in JSON; and sums, see `sums.rs`.
const VERSION_2: &str = "
    ALTER TABLE messages ADD COLUMN died TEXT;
    ALTER TABLE messages ADD COLUMN envelope_sum INTEGER;
    ALTER TABLE messages ADD COLUMN content_sum INTEGER;
    ALTER TABLE recipients ADD COLUMN sum INTEGER;
";

/// What became of messages that have left the queue, see `history.rs`.
const VERSION_3: &str = "
    CREATE TABLE history (
        place INTEGER PRIMARY KEY,
        id INTEGER NOT NULL,
        ended_ms INTEGER NOT NULL,
        owner_uid INTEGER,
        entry TEXT NOT NULL
    ) STRICT;
";

/// Opens the database for writing, makes or migrates its tables, and checks what can be checked in constant time.
pub(super) fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    let access = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let connection = connect(path, access, CACHE_WRITER_KIB)?;
    let fail = |error: rusqlite::Error| of_sqlite(path, &connection, &error);
    check_owner(path, &connection)?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)).map_err(fail)?;
    if mode != "wal" {
        return Err(failed(path, "no write-ahead log is possible on this file system; put the spool on a local disk"));
    }
    migrate(path, &connection, MIGRATIONS)?;
    check_tables(path, &connection)?;
    Ok(connection)
}

/// A further connection to a database that [`open_writer`] has opened: one that checkpoints.
pub(super) fn open_checkpointer(path: &Path) -> Result<Connection, StoreError> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE, CACHE_READER_KIB)
}

/// A further connection to a database that [`open_writer`] has opened: one that reads.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY, CACHE_READER_KIB)
}

fn connect(path: &Path, access: OpenFlags, cache_kib: i64) -> Result<Connection, StoreError> {
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| of_sqlite_opening(path, &error))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    let set = || {
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.pragma_update(None, "cache_size", -cache_kib)?;
        // Checkpoints are the business of `checkpoint.rs`: inside a commit they would make everybody wait.
        connection.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))
    };
    set().map_err(|error| of_sqlite(path, &connection, &error))?;
    Ok(connection)
}

/// Refuses what is not a spool, before anything is written to it.
fn check_owner(path: &Path, connection: &Connection) -> Result<(), StoreError> {
    let fail = |error: rusqlite::Error| of_sqlite(path, connection, &error);
    let application: i32 = number(connection, "application_id").map_err(fail)?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0)).map_err(fail)?;
    if application == APPLICATION_ID || (application == 0 && tables == 0) {
        return Ok(());
    }
    Err(failed(path, "this database belongs to another program; give the spool a folder of its own"))
}

/// Applies what is missing of `migrations`, all in one transaction.
fn migrate(path: &Path, connection: &Connection, migrations: &[&str]) -> Result<(), StoreError> {
    let fail = |error: rusqlite::Error| of_sqlite(path, connection, &error);
    let found: i64 = number(connection, "user_version").map_err(fail)?;
    let known = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(StoreError::TooNew { path: path.display().to_string(), found, known });
    }
    if found == known {
        return Ok(());
    }
    let applied = usize::try_from(found).map_err(|_| damaged(path, format!("its schema version is {found}")))?;
    let transaction = connection.unchecked_transaction().map_err(fail)?;
    for migration in migrations.iter().skip(applied) {
        transaction.execute_batch(migration).map_err(fail)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(fail)?;
    transaction.pragma_update(None, "user_version", known).map_err(fail)?;
    transaction.commit().map_err(fail)
}

/// Every table that there should be, with every column that there should be: a query that does not fit them cannot be prepared.
fn check_tables(path: &Path, connection: &Connection) -> Result<(), StoreError> {
    let queries = [
        super::rows::MESSAGES_PAGE,
        super::rows::RECIPIENTS_PAGE,
        super::sqlite_read::CONTENT,
        super::changes::LAST_ID,
        super::history::PAGE,
    ];
    for query in queries {
        connection.prepare_cached(query).map_err(|error| match of_sqlite(path, connection, &error) {
            StoreError::Failed { why, .. } => damaged(path, why),
            other => other,
        })?;
    }
    Ok(())
}

fn number<T: rusqlite::types::FromSql>(connection: &Connection, pragma: &str) -> rusqlite::Result<T> {
    connection.pragma_query_value(None, pragma, |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(connection: &Connection, table: &str) -> i64 {
        connection.query_row("SELECT count(*) FROM pragma_table_info(?1)", [table], |row| row.get(0)).unwrap()
    }

    #[test]
    fn an_older_database_is_brought_forward_in_one_transaction() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("spool.db");
        let connection = open_writer(&path).unwrap();
        let before = columns(&connection, "messages");
        connection.execute("UPDATE meta SET last_id = 41", ()).unwrap();

        let broken = [VERSION_1, VERSION_2, VERSION_3, "ALTER TABLE messages ADD COLUMN a INTEGER", "no sql at all"];
        migrate(&path, &connection, &broken).unwrap_err();
        assert_eq!(number::<i64>(&connection, "user_version").unwrap(), 3);
        assert_eq!(columns(&connection, "messages"), before, "half a migration is none");

        let more = [VERSION_1, VERSION_2, VERSION_3, "ALTER TABLE messages ADD COLUMN a INTEGER"];
        migrate(&path, &connection, &more).unwrap();
        migrate(&path, &connection, &more).unwrap();
        assert_eq!(number::<i64>(&connection, "user_version").unwrap(), 4);
        assert_eq!(columns(&connection, "messages"), before + 1);
        let kept: i64 = connection.query_row("SELECT last_id FROM meta", (), |row| row.get(0)).unwrap();
        assert_eq!(kept, 41);
    }

    #[test]
    fn a_newer_database_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("spool.db");
        open_writer(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let refused = open_writer(&path).unwrap_err();
        assert!(matches!(refused, StoreError::TooNew { found: 99, known: 3, .. }), "{refused}");
    }

    #[test]
    fn the_database_of_another_program_is_refused_and_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("spool.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (a)").unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let refused = open_writer(&path).unwrap_err();
        assert!(refused.to_string().contains("another program"), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }

    #[test]
    fn a_missing_table_is_damage() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("spool.db");
        open_writer(&path).unwrap().execute_batch("DROP TABLE bodies").unwrap();
        assert!(matches!(open_writer(&path), Err(StoreError::Damaged { .. })));
    }
}
