//! Temporary files of a worker that runs programs: messages on their way to them, and folders that they work in.
//!
//! ```text
//!   message ──▶ memory, up to 1 MiB ──┬──▶ sealed, opened again for reading only ──▶ standard input of a program
//!               a file without a name ┘
//! ```
//!
//! The folder is made before the sandbox closes and is the only one that the sandbox lets the worker write in, so nothing depends on
//! `/tmp` being reachable. The supervisor names a place in the spool (`SPOOLER_TMPDIR`), where the disk has to have room for messages
//! anyway. Where a worker cannot reach that place, as below a home folder of another user, it takes the first usual place that it can
//! write in. Without any, small messages still reach programs, because memory needs no folder.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use spooler_protocol::handshake::TEMPORARY_FOLDER;
use tempfile::TempDir;

use crate::provider::local::account::Account;

/// Bytes of a message that are kept in memory. Memory of a process (`memory_max`) does not count them; a worker keeps at most this for
/// each program that runs.
pub(crate) const MEMORY_BYTES_MAX: u64 = 1 << 20;
/// Places for the folder where the spool is out of reach. Folders on disk come first, because messages may be large.
const USUAL_PLACES: [&str; 3] = ["/var/tmp", "/tmp", "/dev/shm"];
/// Others pass through it to a folder of theirs: programs may have another user than the worker.
const PASSAGE: u32 = 0o711;

/// Where temporary files are. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Scratch(Rc<Place>);

#[derive(Debug)]
enum Place {
    /// In the spool; the next worker empties it. Locked, so that no other worker takes it over meanwhile.
    InSpool(PathBuf, #[expect(dead_code, reason = "held for its lock")] Flock<File>),
    /// Elsewhere; removed when the worker logs off.
    Elsewhere(TempDir),
    /// Nowhere: why not.
    Missing(String),
}

impl Default for Scratch {
    fn default() -> Self {
        Self(Rc::new(Place::Missing("the worker runs no programs".to_owned())))
    }
}

impl Scratch {
    /// Makes the folder of a provider's worker, or takes over what its predecessor has left. To be called as the user that the worker
    /// has from then on, before files are closed.
    pub(crate) fn make(provider: &str) -> Self {
        let in_spool = std::env::var_os(TEMPORARY_FOLDER).map(|place| Path::new(&place).join(provider));
        Self::at(in_spool, &USUAL_PLACES.map(Path::new), provider)
    }

    /// Makes the folder below another one.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn below(folder: &Path) -> Self {
        Self::at(None, &[folder], "test")
    }

    fn at(in_spool: Option<PathBuf>, elsewhere: &[&Path], provider: &str) -> Self {
        let mut refused = Vec::new();
        if let Some(path) = in_spool {
            match take_over(&path) {
                Ok(lock) => return Self(Rc::new(Place::InSpool(path, lock))),
                Err(error) => refused.push(format!("{}: {error}", path.display())),
            }
        }
        for place in elsewhere {
            let made = tempfile::Builder::new()
                .prefix(&format!("spooler-{provider}."))
                .permissions(Permissions::from_mode(PASSAGE))
                .tempdir_in(place)
                .and_then(|made| can_write(made.path()).map(|()| made));
            match made {
                Ok(made) => return Self(Rc::new(Place::Elsewhere(made))),
                Err(error) => refused.push(format!("{}: {error}", place.display())),
            }
        }
        Self(Rc::new(Place::Missing(refused.join("; "))))
    }

    /// The folder, if there is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        match &*self.0 {
            Place::InSpool(path, _) => Some(path),
            Place::Elsewhere(made) => Some(made.path()),
            Place::Missing(_) => None,
        }
    }

    fn existing(&self) -> io::Result<&Path> {
        let missing = |why: &String| io::Error::other(format!("no folder for temporary files can be written: {why}"));
        match &*self.0 {
            Place::InSpool(path, _) => Ok(path),
            Place::Elsewhere(made) => Ok(made.path()),
            Place::Missing(why) => Err(missing(why)),
        }
    }

    /// True once the folder was removed: only a new worker can make another one that its sandbox knows.
    pub(crate) fn is_gone(&self) -> bool {
        self.path().is_some_and(|path| fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound))
    }

    /// A file without a name, for reading and writing.
    ///
    /// # Errors
    /// If there is no folder, or nothing can be made in it; names the folder.
    pub(crate) fn file(&self) -> io::Result<File> {
        let folder = self.existing()?;
        tempfile::tempfile_in(folder).map_err(|error| in_folder(folder, &error))
    }

    /// A folder of one message, which only its owner enters: this process, or the user that its programs have.
    ///
    /// # Errors
    /// As for [`Scratch::file`].
    pub(crate) fn folder(&self, owner: Option<Account>) -> io::Result<TempDir> {
        let folder = self.existing()?;
        let made = tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir_in(folder);
        let made = made.map_err(|error| in_folder(folder, &error))?;
        if let Some(owner) = owner {
            nix::unistd::chown(made.path(), Some(owner.uid), Some(owner.gid))?;
        }
        Ok(made)
    }

    /// A message that is to be written for a program.
    ///
    /// # Errors
    /// If there is neither memory nor a file for it.
    pub(crate) fn draft(&self) -> io::Result<Draft> {
        match memory() {
            Ok(file) => Ok(Draft { scratch: self.clone(), file, bytes: 0, in_memory: true }),
            Err(_) => Ok(Draft { scratch: self.clone(), file: self.file()?, bytes: 0, in_memory: false }),
        }
    }
}

/// A message that is being written. Starts in memory and moves to a file when it grows.
#[derive(Debug)]
pub(crate) struct Draft {
    scratch: Scratch,
    file: File,
    bytes: u64,
    in_memory: bool,
}

impl Draft {
    /// Bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds to the message.
    ///
    /// # Errors
    /// If there is no space for it.
    pub(crate) fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        let bytes = self.bytes + piece.len() as u64;
        if self.in_memory && bytes > MEMORY_BYTES_MAX {
            let mut file = self.scratch.file()?;
            self.file.rewind()?;
            io::copy(&mut self.file, &mut file)?;
            (self.file, self.in_memory) = (file, false);
        }
        self.file.write_all(piece)?;
        self.bytes = bytes;
        Ok(())
    }

    /// The whole message, for reading from its beginning. Nobody can change it any more.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn finish(self) -> io::Result<File> {
        if self.in_memory {
            let all = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
            fcntl_add_seals(&self.file, all)?;
        } else {
            // A program of another user may open its standard input by name (/dev/stdin).
            self.file.set_permissions(Permissions::from_mode(0o444))?;
        }
        for_reading(self.file)
    }
}

/// The same file, opened once more: a program that may write its standard input would have the worker's right to do so.
fn for_reading(mut file: File) -> io::Result<File> {
    if let Ok(reader) = File::open(format!("/proc/self/fd/{}", file.as_raw_fd())) {
        return Ok(reader);
    }
    // Without /proc: memory is sealed, and a file without a name is the program's alone.
    file.rewind()?;
    Ok(file)
}

/// A file in memory whose content can be sealed and never run.
fn memory() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let made = memfd_create("message", flags | MemfdFlags::NOEXEC_SEAL);
    // Kernels before 6.3 do not know the last flag.
    Ok(File::from(made.or_else(|_| memfd_create("message", flags))?))
}

/// Makes a folder of this user's, or empties the one that is there.
fn take_over(path: &Path) -> io::Result<Flock<File>> {
    match DirBuilder::new().mode(PASSAGE).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() || found.uid() != geteuid().as_raw() {
        return Err(io::Error::other("it belongs to another user"));
    }
    let lock = Flock::lock(File::open(path)?, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)?;
    for entry in fs::read_dir(path)? {
        remove(&entry?.path())?;
    }
    can_write(path).map(|()| lock)
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

fn can_write(folder: &Path) -> io::Result<()> {
    tempfile::tempfile_in(folder).map(drop)
}

fn in_folder(folder: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", folder.display()))
}

/// The text of a file from its beginning, up to a number of bytes.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn text_of(mut file: &File, bytes_max: u64) -> io::Result<String> {
    file.rewind()?;
    let mut text = String::new();
    file.take(bytes_max).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn message_is_sealed_and_whole_at_any_size() {
        let folder = folder();
        let scratch = Scratch::below(folder.path());
        let border = usize::try_from(MEMORY_BYTES_MAX).unwrap();
        for size in [0, 1, border, border + 1, 3 * border] {
            let content: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let mut draft = scratch.draft().unwrap();
            content.chunks(100_000).for_each(|piece| draft.write(piece).unwrap());
            assert_eq!((draft.bytes(), draft.in_memory), (size as u64, size <= border));
            let mut message = draft.finish().unwrap();
            let mut found = Vec::new();
            message.read_to_end(&mut found).unwrap();
            assert!(found == content, "{size} bytes");
            assert!(message.write_all(b"x").is_err() && message.set_len(0).is_err(), "{size} bytes");
            // Nor can a program that opens its standard input by name change it.
            let by_name = format!("/proc/self/fd/{}", message.as_raw_fd());
            let changed = fs::OpenOptions::new().write(true).open(by_name).and_then(|mut file| file.write_all(b"x"));
            assert!(changed.is_err() || geteuid().is_root() && size > border, "{size} bytes");
        }
        assert_eq!(fs::read_dir(scratch.path().unwrap()).unwrap().count(), 0);
    }

    #[test]
    fn small_message_needs_no_folder() {
        let scratch = Scratch::at(None, &[Path::new("/nonexistent")], "slow");
        let mut draft = scratch.draft().unwrap();
        draft.write(b"small").unwrap();
        assert_eq!(text_of(&draft.finish().unwrap(), 9).unwrap(), "small");
        let mut draft = scratch.draft().unwrap();
        let why = draft.write(&vec![0; 2 << 20]).unwrap_err().to_string();
        assert!(why.starts_with("no folder for temporary files can be written: /nonexistent: No such file"), "{why}");
    }

    #[test]
    fn folder_in_the_spool_is_emptied_and_locked() {
        let place = folder();
        let path = place.path().join("slow");
        fs::create_dir_all(path.join("left")).unwrap();
        fs::write(path.join("left/behind"), "").unwrap();
        std::os::unix::fs::symlink("/etc", path.join("link")).unwrap();
        let first = Scratch::at(Some(path.clone()), &[], "slow");
        assert_eq!(first.path(), Some(path.as_path()));
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
        let kept = first.folder(None).unwrap();
        let second = Scratch::at(Some(path.clone()), &[place.path()], "slow");
        assert_ne!(second.path(), Some(path.as_path()), "another worker works there");
        assert!(kept.path().exists() && !first.is_gone());
        fs::remove_dir_all(&path).unwrap();
        assert!(first.is_gone());
        let why = first.file().unwrap_err().to_string();
        assert!(why.starts_with(&format!("{}: ", path.display())), "{why}");
    }

    #[test]
    fn folder_of_another_user_is_not_taken() {
        let place = folder();
        std::os::unix::fs::symlink(place.path(), place.path().join("slow")).unwrap();
        let scratch = Scratch::at(Some(place.path().join("slow")), &[], "slow");
        assert!(scratch.file().unwrap_err().to_string().contains("belongs to another user"));
    }
}
