//! Entering the maildir of a recipient, and making it where it is missing.
//!
//! Below the base every folder is opened relative to the one above it and never through a symbolic link, so that no user can lead a
//! worker that runs as root to somebody else's files. Nothing here looks at a path twice: what was opened is what is used.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, fchmod, fstat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, User, fchown, fsync, unlinkat};

use super::failure::Failure;
use super::place::{Base, Place};
use crate::provider::local::account::{Account, account_of, homes, user_of};

/// Folders above those of a recipient can be passed by everybody and listed by nobody.
const PASSAGE: Mode = Mode::from_bits_truncate(0o711);

/// How folders are made.
#[derive(Debug)]
pub(super) struct FolderRule {
    /// Mode of a recipient's folders.
    pub(super) mode: Mode,
    /// Whether the local part must be a system user.
    pub(super) require_user: bool,
    /// Who owns folders of recipients that are no system users; without it this process.
    pub(super) fallback: Option<Account>,
    /// Whether folders can be given away.
    pub(super) root: bool,
    /// One folder after the other: nobody may see one that does not belong to its owner yet.
    pub(super) making: Mutex<()>,
}

/// A maildir that is open for delivery.
#[derive(Debug)]
pub(super) struct Folder {
    /// Where it is, for people.
    pub(super) path: PathBuf,
    /// `tmp`, to be written in.
    pub(super) tmp: OwnedFd,
    /// `new`, to be renamed into; can be synced.
    pub(super) new: OwnedFd,
    /// Whom the messages in it belong to, if not this process.
    pub(super) owner: Option<Account>,
}

impl Folder {
    /// Opens the maildir at a place.
    pub(super) fn open(place: &Place, rule: &FolderRule) -> Result<Self, Failure> {
        let asks = rule.root || rule.require_user || place.base == Base::Home;
        let user = if asks { user_of(&place.user)? } else { None };
        let no_user = || Failure::NoUser(place.user.clone());
        if rule.require_user && user.is_none() {
            return Err(no_user());
        }
        let mut path = match &place.base {
            Base::Fixed(base) => base.clone(),
            Base::Home => home_of(user.as_ref().ok_or_else(no_user)?)?,
        };
        let recipient = if rule.root { user.as_ref().map(account_of).or(rule.fallback) } else { None };
        let _one_at_a_time = rule.making.lock().unwrap_or_else(PoisonError::into_inner);
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut at = open(&path, flags, Mode::empty()).map_err(|errno| Failure::os("open", &path, errno))?;
        for step in &place.below {
            path.push(&step.name);
            let (mode, owner) = if step.own { (rule.mode, recipient) } else { (PASSAGE, None) };
            at = enter(&at, &step.name, &path, &Making { mode, owner })?;
        }
        let found = fstat(&at).map_err(|errno| Failure::os("look at", &path, errno))?;
        let found = Account { uid: Uid::from_raw(found.st_uid), gid: Gid::from_raw(found.st_gid) };
        let owner = (rule.root && !found.uid.is_root()).then_some(found);
        let making = Making { mode: rule.mode, owner };
        enter(&at, "cur", &path.join("cur"), &making)?;
        let tmp = enter(&at, "tmp", &path.join("tmp"), &making)?;
        let new = reopened(&enter(&at, "new", &path.join("new"), &making)?)
            .map_err(|errno| Failure::os("open", &path.join("new"), errno))?;
        Ok(Self { path, tmp, new, owner })
    }
}

/// The home folder of a user, if it is one of those that the sandbox is closed around.
fn home_of(user: &User) -> Result<PathBuf, Failure> {
    let is_home = homes().iter().any(|home| user.dir.starts_with(home));
    if is_home { Ok(user.dir.clone()) } else { Err(Failure::NoHome(user.name.clone(), user.dir.clone())) }
}

struct Making {
    mode: Mode,
    owner: Option<Account>,
}

/// Opens a folder below another, or makes it.
fn enter(above: &OwnedFd, name: &str, path: &Path, making: &Making) -> Result<OwnedFd, Failure> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(above, name, flags, Mode::empty()) {
        Ok(folder) => Ok(folder),
        Err(Errno::ENOENT) => make(above, name, making).map_err(|errno| Failure::os("make", path, errno)),
        // O_PATH reports a link that it may not follow as something that is no directory.
        Err(Errno::ENOTDIR | Errno::ELOOP) => Err(Failure::NoFolder(path.to_owned())),
        Err(errno) => Err(Failure::os("open", path, errno)),
    }
}

fn make(above: &OwnedFd, name: &str, making: &Making) -> Result<OwnedFd, Errno> {
    let made = mkdirat(above, name, Mode::S_IRWXU);
    if !matches!(made, Ok(()) | Err(Errno::EEXIST)) {
        made?;
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let folder = openat(above, name, flags, Mode::empty())?;
    // Only what this process made is given away: somebody may have put another folder in its place meanwhile.
    if made.is_ok() && Uid::from_raw(fstat(&folder)?.st_uid) == Uid::effective() {
        let owner = making.owner;
        let given = fchmod(&folder, making.mode)
            .and_then(|()| owner.map_or(Ok(()), |owner| fchown(&folder, Some(owner.uid), Some(owner.gid))));
        if let Err(errno) = given {
            // The next attempt would find it and take it for what it should be.
            let _ = unlinkat(above, name, UnlinkatFlags::RemoveDir);
            return Err(errno);
        }
        // A folder that may be passed but not read cannot be synced.
        if let Ok(above) = reopened(above) {
            fsync(above)?;
        }
    }
    Ok(folder)
}

/// The same folder, opened so that it can be synced.
fn reopened(folder: &OwnedFd) -> Result<OwnedFd, Errno> {
    openat(folder, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}
