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
//! could make that a lie, so links are refused.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use spooler_protocol::control::Submit;
use spooler_protocol::limits::ENVELOPE_LINE_BYTES_MAX;
use spooler_protocol::message::EnvelopeError;

use crate::line_ends::{self, NulByte};
use crate::system::store::folders;

/// Where files go that cannot be accepted, inside the folder.
const BAD: &str = "bad";

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

/// The complete files, oldest first.
///
/// # Errors
/// If the folder cannot be read.
pub fn scan(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        // A file may go away while the folder is read; that is no error.
        let Ok(metadata) = entry.metadata() else { continue };
        if !hidden && !metadata.is_dir() {
            found.push((metadata.mtime(), metadata.mtime_nsec(), entry.path()));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, _, path)| path).collect())
}

/// Reads a file of the folder; `content_bytes_max` bounds its message.
///
/// # Errors
/// As [`PickupError`] says. The file stays where it is.
pub fn read(path: &Path, content_bytes_max: u64) -> Result<Picked, PickupError> {
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
    let mut bytes = Vec::new();
    // Bounded again: the file may still be growing.
    file.take(max).read_to_end(&mut bytes)?;
    let (submit, message) = split(&bytes)?;
    let content = line_ends::with_crlf(message)?;
    if content.len() as u64 > content_bytes_max {
        return Err(PickupError::TooLarge { size: content.len() as u64, max: content_bytes_max });
    }
    Ok(Picked { submit, owner_uid: metadata.uid(), content })
}

fn split(bytes: &[u8]) -> Result<(Submit, &[u8]), PickupError> {
    let end = memchr::memchr(b'\n', bytes).ok_or_else(|| PickupError::Envelope("it has no end".to_owned()))?;
    let (line, message) = bytes.split_at(end);
    if line.len() > ENVELOPE_LINE_BYTES_MAX {
        return Err(PickupError::Envelope(format!("it is longer than {ENVELOPE_LINE_BYTES_MAX} bytes")));
    }
    let submit: Submit = serde_json::from_slice(line).map_err(|error| PickupError::Envelope(error.to_string()))?;
    submit.envelope.check()?;
    Ok((submit, message.get(1..).unwrap_or_default()))
}

/// Moves a file that cannot be accepted out of the way, for a person; the caller's reason goes to the log.
///
/// # Errors
/// If it cannot be moved; it will be found again by the next scan then.
pub fn set_aside(path: &Path, reason: &PickupError) -> io::Result<PathBuf> {
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
    tracing::warn!(file = %path.display(), moved_to = %target.display(), %reason, "set a file of the pick-up folder aside");
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
    sync_name(folder, &file)?;
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
        Submit { envelope: Envelope { sender: "a@example.org".to_owned(), recipients, ..Envelope::default() } }
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path()).unwrap();
        folder
    }

    #[test]
    fn what_is_left_is_found_and_read_in_order() {
        let folder = folder();
        let first = deposit(folder.path(), &submit(), b"Subject: x\n\none\r\ntwo").unwrap();
        let second = deposit(folder.path(), &submit(), b"").unwrap();
        assert_eq!(scan(folder.path()).unwrap(), [first.clone(), second]);
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
        assert!(scan(folder.path()).unwrap().is_empty());
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
        assert!(scan(folder.path()).unwrap().is_empty());
        assert_eq!(fs::read_dir(folder.path().join(BAD)).unwrap().count(), 12);
    }

    #[test]
    fn a_deposit_that_fails_leaves_nothing_and_a_missing_file_is_temporary() {
        let folder = folder();
        assert!(deposit(&folder.path().join("absent"), &submit(), b"x").is_err());
        assert!(read(&folder.path().join("absent"), 10).unwrap_err().is_temporary());
    }
}
