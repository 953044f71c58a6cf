//! Putting one message into one maildir: blocking, on a thread of its own.
//!
//! ```text
//!   tmp/name  created, written, synced ──rename──▶ new/name,S=bytes ──▶ new/ synced: delivered
//!      │
//!      └── anything fails: removed
//! ```
//!
//! A reader of `new/` never sees a part of a message, and a message that is said to be delivered survives a power cut.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use bytes::Bytes;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, fchown, fsync, unlinkat};
use tokio::sync::mpsc;

use super::failure::Failure;
use super::folder::Folder;
use super::unique;
use crate::provider::local::form::LineEnds;
use crate::provider::local::last_form::{LastForm, Rules};

/// What is to be written.
#[derive(Debug)]
pub(super) struct Letter {
    /// A name that nobody else uses.
    pub(super) name: String,
    /// Lines in front of the content.
    pub(super) front: Vec<u8>,
    /// Line ends in the file.
    pub(super) ends: LineEnds,
    /// Bytes of the content as it comes.
    pub(super) size: u64,
}

/// Writes a message whose content comes from a channel, and says where it is.
pub(super) fn write(
    folder: &Folder,
    letter: &Letter,
    content: &mut mpsc::Receiver<Result<Bytes, String>>,
) -> Result<PathBuf, Failure> {
    let path = folder.path.join("tmp").join(&letter.name);
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = openat(&folder.tmp, letter.name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)
        .map_err(|errno| Failure::os("create", &path, errno))?;
    let unfinished = Unfinished { tmp: &folder.tmp, name: &letter.name };
    if let Some(owner) = folder.owner {
        fchown(&file, Some(owner.uid), Some(owner.gid)).map_err(|errno| Failure::os("give away", &path, errno))?;
    }
    let mut file = File::from(file);
    let failed = |error: std::io::Error| Failure::io("write", &path, &error);
    file.write_all(&letter.front).map_err(failed)?;
    let mut written = letter.front.len() as u64;
    let rules = Rules { drop_return_path: true, ..Rules::default() };
    let mut form = LastForm::new(letter.ends, rules);
    let (mut out, mut read) = (Vec::new(), 0);
    while read < letter.size {
        let piece = content.blocking_recv().ok_or(Failure::BrokenOff)?.map_err(Failure::Content)?;
        read += piece.len() as u64;
        form.convert(&piece, &mut out);
        file.write_all(&out).map_err(failed)?;
        written += out.len() as u64;
    }
    out.clear();
    form.finish(&mut out);
    file.write_all(&out).map_err(failed)?;
    written += out.len() as u64;
    file.sync_all().map_err(failed)?;
    let name = unique::with_size(&letter.name, written);
    let path = folder.path.join("new").join(&name);
    renameat(&folder.tmp, letter.name.as_str(), &folder.new, name.as_str())
        .map_err(|errno| Failure::os("rename to", &path, errno))?;
    std::mem::forget(unfinished);
    if let Err(errno) = fsync(&folder.new) {
        // The message will be tried again: this copy must not be there as well.
        let _ = unlinkat(&folder.new, name.as_str(), UnlinkatFlags::NoRemoveDir);
        return Err(Failure::os("sync the folder of", &path, errno));
    }
    Ok(path)
}

/// A file in `tmp` that is removed unless it is renamed.
struct Unfinished<'a> {
    tmp: &'a OwnedFd,
    name: &'a str,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Err(errno) = unlinkat(self.tmp, self.name, UnlinkatFlags::NoRemoveDir) {
            tracing::warn!(name = self.name, %errno, "an unfinished file stays in tmp");
        }
    }
}
