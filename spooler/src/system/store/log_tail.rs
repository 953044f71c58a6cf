//! What a failed sync leaves in the write-ahead log.
//!
//! After a failed sync Linux keeps the pages in memory and calls them clean: they can be read, and they are not on disk, and no later sync
//! brings them there. Within one process that does no harm, because the next commit writes over them. But a process that starts then
//! would read them as committed, add to them, and sync what it adds: after a power cut the log ends at the gap.
//!
//! ```text
//!   sure ……… sure │ failed … failed          the next commit of this process begins at │
//!                 └ void: 24 zero bytes      a process that is started now stops at │
//! ```
//!
//! So a failed commit voids its first frame; and whoever opens a log that was left behind writes it again before it believes it, since
//! nobody knows how its last sync ended. The format of the log is a promise of SQLite (<https://sqlite.org/fileformat2.html#walformat>).

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::schema::PAGE_BYTES;

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
const FRAME_BYTES: usize = FRAME_HEADER_BYTES + 4096;
const _: () = assert!(FRAME_BYTES as u64 == 24 + PAGE_BYTES, "a frame holds a page");
/// Where the salts are, in the header and in each frame; they differ in what is left of an earlier round.
const HEADER_SALTS: std::ops::Range<usize> = 16..24;
const FRAME_SALTS: std::ops::Range<usize> = 8..16;
/// Frames that are read at once.
const FRAMES_A_PIECE: usize = 256;

/// Writes what a log holds once more, and syncs it. Without a log, nothing.
///
/// # Errors
/// What the file system says.
pub(super) fn write_again(database: &Path) -> io::Result<()> {
    let Some(file) = open(database)? else { return Ok(()) };
    let mut header = [0; HEADER_BYTES];
    match file.read_exact_at(&mut header, 0) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
        result => result?,
    }
    let salts = header.get(HEADER_SALTS).unwrap_or_default();
    file.write_all_at(&header, 0)?;
    let mut at = HEADER_BYTES as u64;
    let mut piece = vec![0; FRAMES_A_PIECE * FRAME_BYTES];
    loop {
        let read = read_at(&file, &mut piece, at)?;
        let frames = piece.get(..read).unwrap_or_default().chunks(FRAME_BYTES);
        let ours: usize = frames.take_while(|frame| frame.get(FRAME_SALTS) == Some(salts)).map(<[u8]>::len).sum();
        file.write_all_at(piece.get(..ours).unwrap_or_default(), at)?;
        if ours < piece.len() {
            return file.sync_all();
        }
        at += ours as u64;
    }
}

/// Whether files can be read at all there. The log is asked, because closing the database would drop SQLite's locks on it.
///
/// # Errors
/// What the file system says.
pub(super) fn probe(database: &Path) -> io::Result<()> {
    let Some(file) = open(database)? else { return Ok(()) };
    read_at(&file, &mut [0; HEADER_BYTES], 0).map(drop)
}

/// Makes a log end after so many frames, for whoever reads it after this process.
///
/// # Errors
/// What the file system says.
pub(super) fn void(database: &Path, frames: i64) -> io::Result<()> {
    // Less than none: it is not known.
    let Ok(frames) = u64::try_from(frames) else { return Ok(()) };
    let Some(file) = open(database)? else { return Ok(()) };
    let at = HEADER_BYTES as u64 + frames * FRAME_BYTES as u64;
    if file.metadata()?.len() > at { file.write_all_at(&[0; FRAME_HEADER_BYTES], at) } else { Ok(()) }
}

/// The log of a database. No lock of SQLite is on it, so that closing it drops none.
fn open(database: &Path) -> io::Result<Option<File>> {
    let mut path = database.as_os_str().to_owned();
    path.push("-wal");
    match OpenOptions::new().read(true).write(true).open(PathBuf::from(path)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// Fills the piece as far as the file goes.
fn read_at(file: &File, piece: &mut [u8], at: u64) -> io::Result<usize> {
    let mut read = 0;
    while let Some(rest) = piece.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + read as u64)? {
            0 => break,
            more => read += more,
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rusqlite::Connection;

    use super::super::schema::open_writer;
    use super::*;

    fn insert(connection: &Connection, count: i64) {
        for _ in 0..count {
            connection.execute("INSERT INTO bodies (content) VALUES (zeroblob(10000))", ()).unwrap();
        }
    }

    fn rows(folder: &Path) -> i64 {
        let connection = open_writer(&folder.join("spool.db")).unwrap();
        connection.query_row("SELECT count(*) FROM bodies", (), |row| row.get(0)).unwrap()
    }

    fn frames(connection: &Connection) -> i64 {
        connection.query_row("PRAGMA wal_checkpoint(NOOP)", (), |row| row.get(1)).unwrap()
    }

    /// What a process that starts now would find.
    fn copy(from: &Path) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        for name in ["spool.db", "spool.db-wal"] {
            fs::copy(from.join(name), copy.path().join(name)).unwrap();
        }
        copy
    }

    #[test]
    fn a_voided_log_ends_there_for_whoever_comes_and_not_for_whoever_is_here() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("spool.db");
        let connection = open_writer(&path).unwrap();
        insert(&connection, 3);
        let sure = frames(&connection);
        insert(&connection, 2);
        assert_eq!(rows(copy(home.path()).path()), 5);
        void(&path, sure).unwrap();
        assert_eq!(rows(copy(home.path()).path()), 3);
        void(&path, 1 << 40).unwrap();
        assert!(fs::metadata(home.path().join("spool.db-wal")).unwrap().len() < 1 << 20);
    }

    #[test]
    fn a_log_is_the_same_after_it_was_written_again() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("spool.db");
        write_again(&path).unwrap();
        let connection = open_writer(&path).unwrap();
        insert(&connection, 300);
        let before = fs::read(home.path().join("spool.db-wal")).unwrap();
        assert!(before.len() > 2 * FRAMES_A_PIECE * FRAME_BYTES);
        let copy = copy(home.path());
        write_again(&copy.path().join("spool.db")).unwrap();
        assert!(fs::read(copy.path().join("spool.db-wal")).unwrap() == before);
        assert_eq!(rows(copy.path()), 300);
    }
}
