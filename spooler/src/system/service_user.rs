//! The user that the service runs as: found in its unit, and taken on for good by a check that is to see what the service will see.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, initgroups, setgroups, setresgid, setresuid};

/// The unit of the service.
const UNIT: &str = "spooler.service";
/// Where units are, the first one counts (systemd.unit(5)).
const UNIT_FOLDERS: [&str; 6] = [
    "/etc/systemd/system.control",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// True once this program has taken on the user of the service.
static TAKEN_ON: AtomicBool = AtomicBool::new(false);

/// Why another user cannot be taken on.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// There is none of this name.
    #[error("there is no user {0:?}; name another one with --user")]
    Unknown(String),
    /// The system says no.
    #[error("cannot become user {0}: {1}")]
    Refused(String, #[source] Errno),
    /// Only root may.
    #[error("only root can check as another user; run it with sudo, or without --user")]
    NotRoot,
}

/// A user with its main group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceUser {
    /// Its name, or its number where it has none.
    pub name: String,
    uid: Uid,
    gid: Gid,
}

impl ServiceUser {
    /// The user that this program runs as.
    #[must_use]
    pub fn current() -> Self {
        let (uid, gid) = (geteuid(), getegid());
        Self { name: name_of(uid.as_raw()), uid, gid }
    }

    /// The user of this name or number.
    ///
    /// # Errors
    /// If there is none.
    pub fn named(name: &str) -> Result<Self, UserError> {
        let unknown = || UserError::Unknown(name.to_owned());
        let found = match name.parse() {
            Ok(uid) => User::from_uid(Uid::from_raw(uid)),
            Err(_) => User::from_name(name),
        };
        let user = found.ok().flatten().ok_or_else(unknown)?;
        Ok(Self { name: user.name, uid: user.uid, gid: user.gid })
    }

    /// The user that owns a folder.
    #[must_use]
    pub fn owner_of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let uid = fs::metadata(path).ok()?.uid();
        Self::named(&uid.to_string()).ok()
    }

    /// The user of the installed unit: root if the unit names none. `None` if no unit is installed.
    #[must_use]
    pub fn of_unit() -> Option<Self> {
        let folders: Vec<PathBuf> = UNIT_FOLDERS.iter().map(PathBuf::from).collect();
        let name = match shown_by_systemctl() {
            Some(shown) => user_shown(&shown),
            None => user_in_files(&folders),
        };
        Self::named(&name?).ok()
    }

    /// True for root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.uid.is_root()
    }

    /// True if this program runs as that user.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.uid == geteuid()
    }

    /// Becomes that user for good, with its groups, as systemd does for a service. For a program of one thread.
    ///
    /// # Errors
    /// If this program is not root's, or the system refuses.
    pub fn take_on(&self) -> Result<(), UserError> {
        if self.is_current() {
            return Ok(());
        }
        if !geteuid().is_root() {
            return Err(UserError::NotRoot);
        }
        let refused = |error| UserError::Refused(self.name.clone(), error);
        let name = std::ffi::CString::new(self.name.as_str()).map_err(|_| UserError::Unknown(self.name.clone()))?;
        initgroups(&name, self.gid).or_else(|_| setgroups(&[self.gid])).map_err(refused)?;
        setresgid(self.gid, self.gid, self.gid).map_err(refused)?;
        setresuid(self.uid, self.uid, self.uid).map_err(refused)?;
        TAKEN_ON.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// True if this program runs as root or as the service's user. Commands that change owners are for these two: for another user they would
/// take a file away from the service.
#[must_use]
pub fn is_for_the_service() -> bool {
    TAKEN_ON.load(Ordering::Relaxed)
        || geteuid().is_root()
        || ServiceUser::of_unit().is_some_and(|user| user.is_current())
}

/// The name of a user, or its number.
#[must_use]
pub fn name_of(uid: u32) -> String {
    let found = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    found.map_or_else(|| uid.to_string(), |user| user.name)
}

/// The name of a group, or its number.
#[must_use]
pub fn group_name_of(gid: u32) -> String {
    let found = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
    found.map_or_else(|| gid.to_string(), |group| group.name)
}

/// The unit as the running systemd knows it, drop-ins included.
fn shown_by_systemctl() -> Option<String> {
    if !Path::new("/run/systemd/system").is_dir() {
        return None;
    }
    let mut show = Command::new("systemctl");
    show.args(["show", "--property=LoadState", "--property=User", UNIT]).stdin(Stdio::null()).stderr(Stdio::null());
    let output = show.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

fn user_shown(shown: &str) -> Option<String> {
    let value = |key: &str| shown.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::trim);
    value("LoadState").filter(|state| *state == "loaded")?;
    Some(value("User").filter(|user| !user.is_empty()).unwrap_or("root").to_owned())
}

/// The user in the files of the unit; of several the last.
fn user_in_files(folders: &[PathBuf]) -> Option<String> {
    let unit = folders.iter().find_map(|folder| fs::read_to_string(folder.join(UNIT)).ok())?;
    let mut drop_ins: Vec<PathBuf> =
        folders.iter().flat_map(|folder| files_of(&folder.join(format!("{UNIT}.d")))).collect();
    drop_ins.sort_by_key(|path| path.file_name().map(ToOwned::to_owned));
    let texts = drop_ins.iter().filter_map(|path| fs::read_to_string(path).ok());
    let mut users = std::iter::once(unit).chain(texts).filter_map(|text| user_in(&text));
    Some(users.next_back().filter(|user| !user.is_empty()).unwrap_or_else(|| "root".to_owned()))
}

fn files_of(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "conf")).collect()
}

fn user_in(text: &str) -> Option<String> {
    let mut users = text.lines().filter_map(|line| line.trim().strip_prefix("User="));
    users.next_back().map(|user| user.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemctl_names_the_user() {
        assert_eq!(user_shown("LoadState=loaded\nUser=spooler\n").as_deref(), Some("spooler"));
        assert_eq!(user_shown("User=\nLoadState=loaded\n").as_deref(), Some("root"));
        assert_eq!(user_shown("LoadState=not-found\nUser=\n"), None);
    }

    #[test]
    fn last_drop_in_names_the_user() {
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().join("etc"), folder.path().join("lib")];
        assert_eq!(user_in_files(&folders), None);
        let drop_ins = folders[0].join("spooler.service.d");
        fs::create_dir_all(&drop_ins).unwrap();
        fs::create_dir_all(&folders[1]).unwrap();
        fs::write(folders[1].join(UNIT), include_str!("../../../scripts/spooler.service")).unwrap();
        assert_eq!(user_in_files(&folders).as_deref(), Some("spooler"), "the packaged unit's");
        fs::write(drop_ins.join("override.conf"), "[Service]\nUser=mail\n").unwrap();
        fs::write(drop_ins.join("note.txt"), "User=nobody\n").unwrap();
        assert_eq!(user_in_files(&folders).as_deref(), Some("mail"));
        fs::write(drop_ins.join("zz.conf"), "[Service]\nUser=\n").unwrap();
        assert_eq!(user_in_files(&folders).as_deref(), Some("root"));
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        let root = ServiceUser::named("root").unwrap();
        assert_eq!(ServiceUser::named("0").unwrap(), root);
        assert_eq!(ServiceUser::owner_of(Path::new("/proc")), Some(root));
        assert!(matches!(ServiceUser::named("no such user"), Err(UserError::Unknown(_))));
        assert!(ServiceUser::current().take_on().is_ok());
    }
}
