//! The pick-up folder: where `sendmail` leaves messages while no supervisor runs, and where the supervisor finds them later.
//!
//! ```text
//!  .NAME  being written (hidden, ignored)  ──sync, rename──▶  NAME  complete  ──read, accepted──▶  removed by the supervisor
//!                                                              └──cannot be accepted──▶  bad/NAME  for a person
//! ```
//!
//! A file is the same text as a submission on the control socket: one line of JSON ([`Submit`]), then the message. Anybody may leave a
//! file and nobody but the supervisor's user may see the others': the folder has mode 3733. Its set-group bit gives every file the
//! folder's group, so that a supervisor which is not root can read it. The owner of a file is its sender; a link of either kind
//! could make that a lie, so links are refused. Whether that owner may send is decided as on the control socket.

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;

use std::collections::BinaryHeap;
use std::fmt::Display;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, BufRead, BufReader, Read, Take, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use spooler_protocol::control::Submit;
use spooler_protocol::limits::ENVELOPE_LINE_BYTES_MAX;
use spooler_protocol::message::EnvelopeError;

use crate::line_ends::{LineEnds, NulByte};
use crate::system::control::Denied;
use crate::system::store::folders;

/// Where files go that cannot be accepted, inside the folder.
const BAD: &str = "bad";

/// Bytes of one piece of a message.
const PIECE_BYTES: usize = 32 * 1024;

/// Files that one look at the folder finds.
pub const SCAN_MAX: usize = 4096;

/// A file that was found; older ones come first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// When it was written: seconds and nanoseconds since 1970.
    left: (i64, i64),
    /// Where it is.
    pub path: PathBuf,
}

/// A complete file of the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picked {
    /// For whom; checked.
    pub submit: Submit,
    /// Who left it.
    pub owner_uid: u32,
    /// The message, CRLF line ends.
    pub content: Vec<u8>,
}

/// A file of the folder of which the message is still to be read.
#[derive(Debug)]
pub struct Opened {
    /// For whom; checked.
    pub submit: Submit,
    /// Who left it.
    pub owner_uid: u32,
    /// The message.
    pub content: Content,
}

/// A message on its way out of its file, however large it is.
#[derive(Debug)]
pub struct Content<R = BufReader<Take<File>>> {
    file: R,
    ends: LineEnds,
    size: u64,
    size_max: u64,
    ended: bool,
}

/// Why a file of the folder cannot be accepted.
#[derive(Debug, thiserror::Error)]
pub enum PickupError {
    /// It could not be read; another try may help.
    #[error("The file cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A device, a pipe or a link, or a file with a second name.
    #[error("It is not a plain file with a single name, so its owner need not be its sender")]
    NotPlain,
    /// Larger than messages may be.
    #[error("It has {size} bytes; {max} are allowed")]
    TooLarge {
        /// Its bytes.
        size: u64,
        /// The most that is allowed.
        max: u64,
    },
    /// The first line is not an envelope.
    #[error("Its first line is not an envelope: {0}")]
    Envelope(String),
    /// The envelope cannot be delivered to anybody.
    #[error(transparent)]
    Refused(#[from] EnvelopeError),
    /// The message is not text.
    #[error(transparent)]
    Nul(#[from] NulByte),
    /// Who left it may not send here.
    #[error(transparent)]
    Denied(#[from] Denied),
}

impl PickupError {
    /// Whether the same file may be readable later; otherwise it is to be set aside.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Io(_))
    }
}

/// Creates the folder where it is missing, and sets its mode.
///
/// # Errors
/// If it cannot be created, or is not ours.
pub fn prepare(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    fs::set_permissions(folder, Permissions::from_mode(0o3733))?;
    let bad = folder.join(BAD);
    match DirBuilder::new().mode(0o700).create(&bad) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => result?,
    }
    let found = fs::symlink_metadata(&bad)?;
    if !found.is_dir() || found.uid() != fs::metadata(folder)?.uid() {
        let text = format!("{} is not a folder of the spooler's user; remove it", bad.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    fs::set_permissions(&bad, Permissions::from_mode(0o700))?;
    // Who leaves a message here syncs what is in the folder, not the folder's own name.
    File::open(folder)?.sync_all()?;
    folders::sync_entry(folder)
}

/// The complete files, oldest first: the first [`SCAN_MAX`] that come after `last`, so that memory is bounded however many there are.
///
/// # Errors
/// If the folder cannot be read.
pub fn scan(folder: &Path, last: Option<&Found>) -> io::Result<Vec<Found>> {
    let mut found = BinaryHeap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        // A file may go away while the folder is read; that is no error.
        let Ok(metadata) = entry.metadata() else { continue };
        if !hidden && !metadata.is_dir() {
            let file = Found { left: (metadata.mtime(), metadata.mtime_nsec()), path: entry.path() };
            if last.is_none_or(|last| file > *last) {
                found.push(file);
            }
            if found.len() > SCAN_MAX {
                found.pop();
            }
        }
    }
    Ok(found.into_sorted_vec())
}

/// Reads a whole file of the folder; `content_bytes_max` bounds its message.
///
/// # Errors
/// As [`PickupError`] says. The file stays where it is.
pub fn read(path: &Path, content_bytes_max: u64) -> Result<Picked, PickupError> {
    let Opened { submit, owner_uid, content: mut reader } = open(path, content_bytes_max)?;
    let mut content = Vec::new();
    while reader.next(&mut content)? {}
    Ok(Picked { submit, owner_uid, content })
}

/// Opens a file of the folder and reads its envelope; its message is read piece by piece, and bounded by `content_bytes_max`.
///
/// # Errors
/// As [`PickupError`] says. The file stays where it is.
pub fn open(path: &Path, content_bytes_max: u64) -> Result<Opened, PickupError> {
    let opened = OpenOptions::new().read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(nix::libc::ELOOP | nix::libc::ENXIO) => PickupError::NotPlain,
        _ => PickupError::Io(error),
    })?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.nlink() != 1 {
        return Err(PickupError::NotPlain);
    }
    let max = content_bytes_max.saturating_add(ENVELOPE_LINE_BYTES_MAX as u64);
    if metadata.len() > max {
        return Err(PickupError::TooLarge { size: metadata.len(), max });
    }
    // Bounded again: the file may still be growing.
    let mut file = BufReader::with_capacity(PIECE_BYTES, file.take(max));
    let submit = envelope(&mut file)?;
    let content = Content { file, ends: LineEnds::default(), size: 0, size_max: content_bytes_max, ended: false };
    Ok(Opened { submit, owner_uid: metadata.uid(), content })
}

#[cfg(feature = "fuzzing")]
fn picked(bytes: &[u8], owner_uid: u32, size_max: u64) -> Result<Picked, PickupError> {
    let mut file = bytes;
    let submit = envelope(&mut file)?;
    let mut reader = Content { file, ends: LineEnds::default(), size: 0, size_max, ended: false };
    let mut content = Vec::new();
    while reader.next(&mut content)? {}
    Ok(Picked { submit, owner_uid, content })
}

fn envelope(file: &mut impl BufRead) -> Result<Submit, PickupError> {
    let mut line = Vec::new();
    file.take(ENVELOPE_LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        let why = format!("it has no end within {ENVELOPE_LINE_BYTES_MAX} bytes");
        return Err(PickupError::Envelope(why));
    }
    let submit: Submit = serde_json::from_slice(&line).map_err(|error| PickupError::Envelope(error.to_string()))?;
    submit.envelope.check()?;
    Ok(submit)
}

impl<R: BufRead> Content<R> {
    /// Adds the next piece of the message to `out`, CRLF line ends; false at the end.
    ///
    /// # Errors
    /// As [`PickupError`] says.
    pub fn next(&mut self, out: &mut Vec<u8>) -> Result<bool, PickupError> {
        let before = out.len();
        let piece = self.file.fill_buf()?;
        let length = piece.len();
        if length > 0 {
            self.ends.feed(piece, out)?;
            self.file.consume(length);
        } else if !std::mem::replace(&mut self.ended, true) {
            self.ends.finish(out);
        }
        self.size += out.len().saturating_sub(before) as u64;
        if self.size > self.size_max {
            return Err(PickupError::TooLarge { size: self.size, max: self.size_max });
        }
        Ok(length > 0)
    }
}

/// Moves a file that cannot be accepted out of the way, for a person; the caller's reason goes to the log.
///
/// # Errors
/// If it cannot be moved; it will be found again by the next scan then.
pub fn set_aside(path: &Path, reason: &impl Display) -> io::Result<PathBuf> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file of a folder"));
    };
    let mut target = folder.join(BAD).join(name);
    if target.symlink_metadata().is_ok() {
        let mut other = name.to_owned();
        other.push(format!(".{}", unique_name()));
        target = folder.join(BAD).join(other);
    }
    fs::rename(path, &target)?;
    tracing::warn!(file = %path.display(), moved_to = %target.display(), %reason, "pick-up file moved to bad/");
    Ok(target)
}

/// Leaves a message in the folder; it is on disk, synced, when this returns.
///
/// # Errors
/// If it cannot be written; nothing is left behind then.
pub fn deposit(folder: &Path, submit: &Submit, content: &[u8]) -> io::Result<PathBuf> {
    let name = unique_name();
    let (hidden, complete) = (folder.join(format!(".{name}")), folder.join(&name));
    let unfinished = Unfinished(&hidden);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&hidden)?;
    let mut line = serde_json::to_vec(submit)?;
    line.push(b'\n');
    file.write_all(&line)?;
    file.write_all(content)?;
    // Not less, whatever the umask: the supervisor reads by the folder's group.
    file.set_permissions(Permissions::from_mode(0o640))?;
    file.sync_all()?;
    fs::rename(&hidden, &complete)?;
    std::mem::forget(unfinished);
    // The caller will try again: this copy must not be there as well.
    sync_name(folder, &file).inspect_err(|_| drop(fs::remove_file(&complete)))?;
    Ok(complete)
}

/// Makes a rename durable. The folder cannot be opened by everyone who may write to it; its file system is synced then.
fn sync_name(folder: &Path, file: &File) -> io::Result<()> {
    match File::open(folder) {
        Ok(folder) => folder.sync_all(),
        Err(_) => Ok(nix::unistd::syncfs(file)?),
    }
}

/// `TIME.PID.N`: ascending in time, and never the same twice on one machine.
fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{:010}{:06}.{}.{count}", since.as_secs(), since.subsec_micros(), std::process::id())
}

/// Removes a half-written file.
struct Unfinished<'a>(&'a Path);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use spooler_protocol::message::{Address, Envelope, Recipient};

    use super::*;

    fn submit() -> Submit {
        let recipients = vec![Recipient::new(Address::smtp("b@example.org").unwrap())];
        Submit {
            envelope: Envelope { sender: "a@example.org".to_owned(), recipients, ..Envelope::default() },
            as_is: false,
        }
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path()).unwrap();
        folder
    }

    fn names(folder: &Path) -> Vec<PathBuf> {
        scan(folder, None).unwrap().into_iter().map(|found| found.path).collect()
    }

    #[test]
    fn however_many_there_are_each_look_finds_a_bounded_number_and_all_together_find_all() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..SCAN_MAX + 10 {
            File::create(folder.path().join(number.to_string())).unwrap();
        }
        let first = scan(folder.path(), None).unwrap();
        assert_eq!(first.len(), SCAN_MAX);
        let second = scan(folder.path(), first.last()).unwrap();
        assert_eq!(second.len(), 10);
        assert!(first.is_sorted() && first.last() < second.first());
        assert!(scan(folder.path(), second.last()).unwrap().is_empty());
    }

    #[test]
    fn a_large_message_is_read_in_pieces() {
        let folder = folder();
        let message = "a line\n".repeat(100_000);
        let path = deposit(folder.path(), &submit(), message.as_bytes()).unwrap();
        let mut opened = open(&path, 1 << 20).unwrap();
        let (mut whole, mut piece) = (Vec::new(), Vec::new());
        while opened.content.next(&mut piece).unwrap() {
            assert!(piece.len() <= 2 * PIECE_BYTES);
            whole.append(&mut piece);
        }
        assert_eq!(whole, message.replace('\n', "\r\n").as_bytes());
        assert_eq!(read(&path, 1 << 20).unwrap().content, whole);
        let mut content = open(&path, 799_999).unwrap().content;
        let refused = std::iter::repeat_with(|| content.next(&mut piece)).find_map(Result::err);
        assert!(matches!(refused, Some(PickupError::TooLarge { .. })), "{refused:?}");
    }

    #[test]
    fn what_is_left_is_found_and_read_in_order() {
        let folder = folder();
        let first = deposit(folder.path(), &submit(), b"Subject: x\n\none\r\ntwo").unwrap();
        let second = deposit(folder.path(), &submit(), b"").unwrap();
        assert_eq!(names(folder.path()), [first.clone(), second]);
        let picked = read(&first, 1000).unwrap();
        assert_eq!(picked.submit, submit());
        assert_eq!(picked.content, b"Subject: x\r\n\r\none\r\ntwo\r\n");
        assert_eq!(picked.owner_uid, nix::unistd::getuid().as_raw());
    }

    #[test]
    fn the_folder_lets_everybody_write_and_nobody_look() {
        let folder = folder();
        prepare(folder.path()).unwrap();
        assert_eq!(fs::metadata(folder.path()).unwrap().mode() & 0o7777, 0o3733);
        assert_eq!(fs::metadata(folder.path().join(BAD)).unwrap().mode() & 0o7777, 0o700);
        let path = deposit(folder.path(), &submit(), b"x").unwrap();
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o640);
    }

    #[test]
    fn hidden_files_and_folders_are_not_for_us() {
        let folder = folder();
        fs::write(folder.path().join(".half"), b"x").unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn links_and_pipes_are_refused() {
        let folder = folder();
        let file = deposit(folder.path(), &submit(), b"x").unwrap();
        let (soft, hard, pipe) = (folder.path().join("s"), folder.path().join("h"), folder.path().join("p"));
        symlink(&file, &soft).unwrap();
        fs::hard_link(&file, &hard).unwrap();
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [soft, hard, pipe, file] {
            assert!(matches!(read(&path, 1000), Err(PickupError::NotPlain)), "{}", path.display());
        }
    }

    #[test]
    fn damaged_files_are_refused_for_good_and_set_aside_side_by_side() {
        let folder = folder();
        let line = serde_json::to_string(&submit()).unwrap();
        let nobody = r#"{"envelope":{"sender":"","recipients":[]}}"#;
        for (name, text) in [
            ("a", String::new()),
            ("b", "{}\nx".to_owned()),
            ("c", line.clone()),
            ("d", format!("{nobody}\nx")),
            ("e", format!("{line}\n{}", "x".repeat(2000))),
            ("f", format!("{line}\n\0")),
        ] {
            let path = folder.path().join(name);
            for _ in 0..2 {
                fs::write(&path, &text).unwrap();
                let error = read(&path, 1000).unwrap_err();
                assert!(!error.is_temporary(), "{name}: {error}");
                assert!(set_aside(&path, &error).unwrap().starts_with(folder.path().join(BAD)));
            }
        }
        assert!(names(folder.path()).is_empty());
        assert_eq!(fs::read_dir(folder.path().join(BAD)).unwrap().count(), 12);
    }

    #[test]
    fn a_deposit_that_fails_leaves_nothing_and_a_missing_file_is_temporary() {
        let folder = folder();
        assert!(deposit(&folder.path().join("absent"), &submit(), b"x").is_err());
        assert!(read(&folder.path().join("absent"), 10).unwrap_err().is_temporary());
    }
}
