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
const FRAME_SUMS: std::ops::Range<usize> = 16..24;
/// Frames that are read at once.
const FRAMES_A_PIECE: usize = 256;

/// What was found in a log that was left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// Frames up to the first that is not as it was written.
    pub(super) whole: u64,
    /// Frames of the same round from there on: nobody reads them any more.
    pub(super) cut_off: u64,
}

/// Writes what a log holds once more, and syncs it. Without a log, nothing.
///
/// # Errors
/// What the file system says.
pub(super) fn write_again(database: &Path) -> io::Result<Left> {
    let mut left = Left::default();
    let Some(file) = open(database)? else { return Ok(left) };
    let mut header = [0; HEADER_BYTES];
    match file.read_exact_at(&mut header, 0) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(left),
        result => result?,
    }
    let salts = header.get(HEADER_SALTS).unwrap_or_default();
    let mut chain = Chain::of(&header);
    file.write_all_at(&header, 0)?;
    let mut at = HEADER_BYTES as u64;
    let mut piece = vec![0; FRAMES_A_PIECE * FRAME_BYTES];
    loop {
        let read = read_at(&file, &mut piece, at)?;
        let mut ours = 0;
        for frame in piece.get(..read).unwrap_or_default().chunks(FRAME_BYTES) {
            if frame.get(FRAME_SALTS) != Some(salts) {
                break;
            }
            ours += frame.len();
            let counted = if left.cut_off == 0 && chain.goes_on(frame) { &mut left.whole } else { &mut left.cut_off };
            *counted += 1;
        }
        file.write_all_at(piece.get(..ours).unwrap_or_default(), at)?;
        if ours < piece.len() {
            file.sync_all()?;
            return Ok(left);
        }
        at += ours as u64;
    }
}

/// The running checksum of a log: each frame's is made of all before it.
struct Chain {
    big_endian: bool,
    sums: (u32, u32),
}

impl Chain {
    fn of(header: &[u8; HEADER_BYTES]) -> Self {
        let mut chain = Self { big_endian: header.get(3).is_some_and(|byte| byte & 1 == 1), sums: (0, 0) };
        chain.add(header.get(..24).unwrap_or_default());
        chain
    }

    fn add(&mut self, bytes: &[u8]) {
        for pair in bytes.as_chunks::<8>().0 {
            let [a, b, c, d, e, f, g, h] = *pair;
            let word =
                |bytes: [u8; 4]| if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
            self.sums.0 = self.sums.0.wrapping_add(word([a, b, c, d])).wrapping_add(self.sums.1);
            self.sums.1 = self.sums.1.wrapping_add(word([e, f, g, h])).wrapping_add(self.sums.0);
        }
    }

    /// Whether this frame is whole and follows those before it.
    fn goes_on(&mut self, frame: &[u8]) -> bool {
        self.add(frame.get(..8).unwrap_or_default());
        self.add(frame.get(FRAME_HEADER_BYTES..).unwrap_or_default());
        let mut kept = self.sums.0.to_be_bytes().to_vec();
        kept.extend(self.sums.1.to_be_bytes());
        frame.len() == FRAME_BYTES && frame.get(FRAME_SUMS) == Some(kept.as_slice())
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
        let left = write_again(&copy.path().join("spool.db")).unwrap();
        assert_eq!(left, Left { whole: u64::try_from(frames(&connection)).unwrap(), cut_off: 0 });
        assert!(fs::read(copy.path().join("spool.db-wal")).unwrap() == before);
        assert_eq!(rows(copy.path()), 300);
    }

    #[test]
    fn damage_in_the_middle_of_a_log_is_found() {
        let home = tempfile::tempdir().unwrap();
        let connection = open_writer(&home.path().join("spool.db")).unwrap();
        insert(&connection, 20);
        let all = u64::try_from(frames(&connection)).unwrap();
        let copy = copy(home.path());
        let log = OpenOptions::new().write(true).open(copy.path().join("spool.db-wal")).unwrap();
        log.write_all_at(b"x", (HEADER_BYTES + 10 * FRAME_BYTES + 1000) as u64).unwrap();
        let left = write_again(&copy.path().join("spool.db")).unwrap();
        assert_eq!(left, Left { whole: 10, cut_off: all - 10 });
        assert!(rows(copy.path()) < 20);
    }
}
