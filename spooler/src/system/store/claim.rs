//! Space on disk for every page that is committed, claimed before the commit.
//!
//! A commit only grows the write-ahead log; the database grows at a checkpoint. Without a claim a disk could be filled with a log
//! that no checkpoint can ever empty, and then not even a removal could be written. With it a checkpoint never needs space, so the log
//! can always begin again at its start, and what was accepted can be worked off on a disk without a single free block.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::StoreError;
use super::failure::{full, of_io};
use super::schema::PAGE_BYTES;

/// Claims are made in pieces of so many bytes, as far as there is room.
const PIECE_BYTES: u64 = 1 << 20;

/// The file of the database, opened beside SQLite.
///
/// Closing any descriptor of a file drops all POSIX locks that the process has on it, those of SQLite's connections too. So everyone
/// who has a connection holds this as well, and lets go of it after the connection.
pub(super) type DatabaseFile = Arc<File>;

/// Opens the file of the database, or makes an empty one for this user alone.
pub(super) fn open_file(path: &Path) -> Result<DatabaseFile, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map(Arc::new).map_err(|error| of_io(path, "open the database", &error))
}

/// How much is claimed.
#[derive(Debug)]
pub(super) struct Claim {
    file: DatabaseFile,
    bytes: u64,
    /// Number of checkpoints when the claim was made: each gives back what the database did not need yet.
    checkpoints: u64,
    /// Bytes that committed pages need.
    committed_bytes: u64,
}

impl Claim {
    pub(super) fn new(file: DatabaseFile) -> Self {
        Self { file, bytes: 0, checkpoints: 0, committed_bytes: 0 }
    }

    /// Claims space for a database of so many pages, before the commit that makes it so large.
    ///
    /// # Errors
    /// [`StoreError::Full`] if the database grows and the disk has no room for that. A file system that cannot claim is trusted.
    pub(super) fn extend(&mut self, path: &Path, pages: i64, checkpoints: u64) -> Result<(), StoreError> {
        let needed = u64::try_from(pages).unwrap_or(0).saturating_mul(PAGE_BYTES);
        if needed > self.bytes || checkpoints != self.checkpoints {
            let rounded = needed.next_multiple_of(PIECE_BYTES);
            let claimed = self.allocate(rounded).map(|()| rounded).or_else(|_| self.allocate(needed).map(|()| needed));
            match claimed {
                Err(Errno::ENOSPC | Errno::EDQUOT) if needed > self.committed_bytes => return Err(full(path)),
                // Tried again by the next commit.
                Err(Errno::ENOSPC | Errno::EDQUOT) => self.bytes = 0,
                Ok(bytes) => (self.bytes, self.checkpoints) = (bytes, checkpoints),
                Err(_) => (self.bytes, self.checkpoints) = (needed, checkpoints),
            }
        }
        Ok(())
    }

    /// The commit went well.
    pub(super) fn committed(&mut self, pages: i64) {
        self.committed_bytes = u64::try_from(pages).unwrap_or(0).saturating_mul(PAGE_BYTES);
    }

    /// Gives the file blocks, and leaves its length alone: that is SQLite's.
    fn allocate(&self, bytes: u64) -> nix::Result<()> {
        fallocate(&*self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, bytes.cast_signed())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_claim_takes_blocks_but_not_length_and_is_made_again_after_a_checkpoint() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("spool.db");
        let file = open_file(&path).unwrap();
        if Claim::new(Arc::clone(&file)).allocate(PAGE_BYTES).is_err() {
            eprintln!(
                "skipped a_claim_takes_blocks_but_not_length_and_is_made_again_after_a_checkpoint: no fallocate here"
            );
            return;
        }
        let blocks = || file.metadata().unwrap().blocks() * 512;
        let mut claim = Claim::new(Arc::clone(&file));
        claim.extend(&path, 100, 0).unwrap();
        assert_eq!((file.metadata().unwrap().len(), blocks()), (0, PIECE_BYTES));
        claim.extend(&path, 300, 0).unwrap();
        assert_eq!(blocks(), 2 * PIECE_BYTES);
        // As SQLite does at the end of a checkpoint.
        file.set_len(PAGE_BYTES).unwrap();
        claim.extend(&path, 100, 1).unwrap();
        assert!(blocks() >= PIECE_BYTES);
    }

    #[test]
    fn only_a_database_that_grows_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("spool.db");
        let mut claim = Claim::new(open_file(&path).unwrap());
        let more_than_any_disk = 1 << 40;
        let refused = claim.extend(&path, more_than_any_disk, 0);
        // Some file systems say that the file would be too large, and are trusted.
        if let Err(error) = refused {
            assert!(matches!(error, StoreError::Full { .. }), "{error}");
        }
        claim.committed(more_than_any_disk);
        claim.extend(&path, more_than_any_disk, 0).unwrap();
    }
}
