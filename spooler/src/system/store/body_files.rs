//! The folder of contents that are too large for the database.
//!
//! ```text
//! bodies/incoming/KEY   an upload that is not finished; nobody else knows of it
//! bodies/ID             the content of message ID, complete and synced, and 8 bytes more: "SUM1" and its CRC-32
//! ```
//!
//! Files of earlier versions end with the content.
//!
//! What a crash can leave, and who cleans it up:
//!
//! | file | row | how it came | at the next open |
//! |---|---|---|---|
//! | `incoming/KEY` | no | crash while it came in | removed |
//! | `ID` | no | crash before the commit that names it, or after the commit that forgot it | removed |
//! | `ID` | yes | the normal case | kept |
//! | none | yes | cannot come from a crash | the message is damaged |

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use crc32fast::Hasher;
use spooler_protocol::ids::MessageId;

use super::failure::{failed, of_io};
use super::{StoreError, folders};

/// What follows the content in its file.
const TRAILER_BYTES: usize = 8;

/// Bytes of a content that are checked at once.
const CHECKED_AT_ONCE: usize = 256 << 10;

/// What follows a content with this sum.
pub(super) fn trailer(content: &Hasher) -> [u8; TRAILER_BYTES] {
    let mut trailer = *b"SUM1\0\0\0\0";
    let (_, sum) = trailer.split_at_mut(4);
    sum.copy_from_slice(&content.clone().finalize().to_le_bytes());
    trailer
}

/// The folder, by its path; cheap to copy.
#[derive(Clone, Debug)]
pub struct BodyFolder {
    path: PathBuf,
}

impl BodyFolder {
    /// The folder that belongs to a spool. Nothing is touched.
    #[must_use]
    pub fn of_spool(spool: &Path) -> Self {
        Self { path: spool.join("bodies") }
    }

    /// Makes what is missing of the folder; what is there is on disk then.
    pub(super) fn make(&self) -> Result<(), StoreError> {
        let made = folders::make(&self.path).and_then(|()| folders::make(&self.incoming()));
        made.map_err(|error| of_io(&self.path, "make the folder", &error))
    }

    /// Where unfinished uploads are.
    pub(super) fn incoming(&self) -> PathBuf {
        self.path.join("incoming")
    }

    /// The file of a message.
    pub(super) fn file(&self, id: MessageId) -> PathBuf {
        self.path.join(id.to_string())
    }

    /// Makes the names in the folder as durable as what they name.
    pub(super) fn sync_names(&self) -> io::Result<()> {
        folders::sync(&self.path)
    }

    /// Whether the file of a message is there, for a content of so many bytes; or what is wrong with it.
    pub(super) fn check(&self, id: MessageId, size: u64) -> Result<(), String> {
        match fs::metadata(self.file(id)) {
            Ok(metadata) if metadata.len() == size || metadata.len() == size + TRAILER_BYTES as u64 => Ok(()),
            Ok(metadata) => {
                Err(format!("the file of its content has {} bytes, which does not fit {size}", metadata.len()))
            }
            Err(error) => Err(format!("its content cannot be read: {error}")),
        }
    }

    /// Up to `length` bytes of the content of a message, which has `size`.
    pub(super) fn read(&self, id: MessageId, size: u64, offset: u64, length: usize) -> Result<Bytes, StoreError> {
        let path = self.file(id);
        let read = || {
            let file = File::open(&path)?;
            let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
            let mut piece = vec![0; length.min(left)];
            file.read_exact_at(&mut piece, offset)?;
            Ok(Bytes::from(piece))
        };
        read().map_err(|error: io::Error| of_io(&path, "read the content", &error))
    }

    /// Whether the content of a message, which has `size`, is as it was.
    pub(super) fn check_sum(&self, id: MessageId, size: u64) -> Result<(), StoreError> {
        let path = self.file(id);
        let checked = || -> io::Result<Result<(), String>> {
            let file = File::open(&path)?;
            if file.metadata()?.len() == size {
                return Ok(Ok(()));
            }
            let (mut hasher, mut piece) = (Hasher::new(), vec![0; CHECKED_AT_ONCE]);
            let mut at = 0;
            while at < size {
                let left = usize::try_from(size - at).unwrap_or(usize::MAX).min(CHECKED_AT_ONCE);
                let part = piece.get_mut(..left).unwrap_or_default();
                file.read_exact_at(part, at)?;
                hasher.update(part);
                at += left as u64;
            }
            let mut kept = [0; TRAILER_BYTES];
            file.read_exact_at(&mut kept, size)?;
            let same = kept == trailer(&hasher);
            Ok(if same {
                Ok(())
            } else {
                Err(format!("the content of message {id} is not what it was: the checksum is wrong"))
            })
        };
        let checked = checked().map_err(|error: io::Error| of_io(&path, "read the content", &error))?;
        checked.map_err(|why| failed(&path, why))
    }

    /// Removes the file of a message, if there is one.
    pub(super) fn remove(&self, id: MessageId) -> Result<(), StoreError> {
        remove(&self.file(id))
    }

    /// Removes what a crash has left: every unfinished upload, and the files of messages that `is_known` does not know.
    /// Other names are not ours and stay.
    pub(super) fn sweep(
        &self,
        mut is_known: impl FnMut(MessageId) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        for entry in self.list(&self.incoming())? {
            remove(&entry.map_err(|error| of_io(&self.path, "list the folder", &error))?.path())?;
        }
        for entry in self.list(&self.path)? {
            let entry = entry.map_err(|error| of_io(&self.path, "list the folder", &error))?;
            let id = entry.file_name().to_str().and_then(|name| name.parse().ok()).map(MessageId);
            let Some(id) = id.filter(|id| self.file(*id) == entry.path()) else { continue };
            if !is_known(id)? {
                self.remove(id)?;
            }
        }
        Ok(())
    }

    fn list(&self, folder: &Path) -> Result<fs::ReadDir, StoreError> {
        fs::read_dir(folder).map_err(|error| of_io(folder, "list the folder", &error))
    }
}

/// Removes a file that may be gone already.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(path, format!("cannot remove it: {error}"))),
        _ => Ok(()),
    }
}
