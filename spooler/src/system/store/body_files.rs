//! The folder of contents that are too large for the database.
//!
//! ```text
//! bodies/incoming/KEY   an upload that is not finished; nobody else knows of it
//! bodies/ID             the content of message ID, complete and synced
//! ```
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
use spooler_protocol::ids::MessageId;

use super::failure::{failed, of_io};
use super::{StoreError, folders};

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

    /// Whether the file of a message is there, with so many bytes; or what is wrong with it.
    pub(super) fn check(&self, id: MessageId, size: u64) -> Result<(), String> {
        match fs::metadata(self.file(id)) {
            Ok(metadata) if metadata.len() == size => Ok(()),
            Ok(metadata) => Err(format!("its content has {} bytes instead of {size}", metadata.len())),
            Err(error) => Err(format!("its content cannot be read: {error}")),
        }
    }

    /// Up to `length` bytes of the file of a message.
    pub(super) fn read(&self, id: MessageId, offset: u64, length: usize) -> Result<Bytes, StoreError> {
        let path = self.file(id);
        let read = || {
            let file = File::open(&path)?;
            let left = usize::try_from(file.metadata()?.len().saturating_sub(offset)).unwrap_or(usize::MAX);
            let mut piece = vec![0; length.min(left)];
            file.read_exact_at(&mut piece, offset)?;
            Ok(Bytes::from(piece))
        };
        read().map_err(|error: io::Error| of_io(&path, "read the content", &error))
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
