//! Who could change what the spooler trusts: the owners and modes of a file and of every folder on the way to it.
//!
//! Trusted are root and the user that the spooler runs as. A folder that others may write is a way in, because names in it can be exchanged,
//! unless it is sticky (as `/tmp` is) and what stands in it is ours again. Links are followed step by step, or a link in a stranger's hands
//! would lead past the check. Nothing is repaired here: what is wrong is said, with the command that makes it right.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::unistd::{getegid, geteuid};

/// Links on one way, as many as the kernel follows.
const LINKS_MAX: usize = 40;
/// Set on a folder, its entries can be renamed and removed by their owners only.
const STICKY: u32 = 0o1000;

/// Why something cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// A stranger owns it.
    #[error(
        "{path} belongs to user {owner}, who could change it; allowed are root and the user that runs this program ({user}): `chown {user} {path}`"
    )]
    Owner {
        /// What.
        path: String,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// Others may write it.
    #[error("{path} has mode {mode:04o}, so that others can change it; `chmod go-w {path}`")]
    Writable {
        /// What.
        path: String,
        /// Its mode.
        mode: u32,
    },
    /// Links that lead round in circles.
    #[error("{0} leads over too many links")]
    Links(String),
    /// What the file system says.
    #[error("{0} cannot be looked at: {1}")]
    Io(String, #[source] io::Error),
}

/// Whether a file or a folder is in trusted hands alone; `path` only names it.
///
/// # Errors
/// Who else could write it.
pub fn check(path: &Path, found: &Metadata) -> Result<(), Untrusted> {
    judge(path, found, Ourselves::now(), false)
}

/// Checks every folder and every link on the way to `path`, but not what is there, nor whether anything is.
///
/// # Errors
/// Who could exchange what is there.
pub fn check_way(path: &Path) -> Result<(), Untrusted> {
    let io = |at: &Path, error| Untrusted::Io(at.display().to_string(), error);
    let absolute = std::path::absolute(path).map_err(|error| io(path, error))?;
    let ourselves = Ourselves::now();
    let mut ahead = names(&absolute);
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    while let Some(name) = ahead.pop_front() {
        let found = fs::symlink_metadata(&at).map_err(|error| io(&at, error))?;
        judge(&at, &found, ourselves, true)?;
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(name);
        let Ok(found) = fs::symlink_metadata(&next) else { break };
        if !found.is_symlink() {
            at = next;
            continue;
        }
        links += 1;
        if links > LINKS_MAX {
            return Err(Untrusted::Links(path.display().to_string()));
        }
        judge_owner(&next, &found, ourselves)?;
        let target = fs::read_link(&next).map_err(|error| io(&next, error))?;
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        names(&target).into_iter().rev().for_each(|name| ahead.push_front(name));
    }
    Ok(())
}

/// Whether a group is one whose members are trusted as much as its user: root's, and the own one.
#[must_use]
pub fn is_own_group(gid: u32) -> bool {
    Ourselves::now().has_group(gid)
}

/// The parts of a path that lead somewhere.
fn names(path: &Path) -> VecDeque<OsString> {
    let name = |component: Component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(name).collect()
}

/// As whom this program runs.
#[derive(Clone, Copy)]
struct Ourselves {
    uid: u32,
    gid: u32,
}

impl Ourselves {
    fn now() -> Self {
        Self { uid: geteuid().as_raw(), gid: getegid().as_raw() }
    }

    fn has_group(self, gid: u32) -> bool {
        gid == 0 || gid == self.gid
    }
}

fn judge_owner(path: &Path, found: &Metadata, ourselves: Ourselves) -> Result<(), Untrusted> {
    let owner = found.uid();
    if owner == 0 || owner == ourselves.uid {
        return Ok(());
    }
    Err(Untrusted::Owner { path: path.display().to_string(), owner, user: ourselves.uid })
}

/// `sticky_will_do`: for a folder on the way, whose next entry is judged as well.
fn judge(path: &Path, found: &Metadata, ourselves: Ourselves, sticky_will_do: bool) -> Result<(), Untrusted> {
    judge_owner(path, found, ourselves)?;
    let mode = found.mode() & 0o7777;
    let by_others = mode & 0o002 != 0 || (mode & 0o020 != 0 && !ourselves.has_group(found.gid()));
    if by_others && !(sticky_will_do && mode & STICKY != 0) {
        return Err(Untrusted::Writable { path: path.display().to_string(), mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// A folder below a sticky one, with a file in it.
    fn home() -> (tempfile::TempDir, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("a/file");
        fs::create_dir(home.path().join("a")).unwrap();
        fs::write(&file, "").unwrap();
        (home, file)
    }

    #[test]
    fn a_folder_on_the_way_that_anybody_writes_is_a_way_in_unless_it_is_sticky() {
        let (home, file) = home();
        check_way(&file).unwrap();
        set_mode(home.path(), 0o777);
        let text = check_way(&file).unwrap_err().to_string();
        let expected = format!("{} has mode 0777", home.path().display());
        assert!(text.starts_with(&expected) && text.contains("chmod go-w"), "{text}");
        set_mode(home.path(), 0o1777);
        check_way(&file).unwrap();
    }

    #[test]
    fn a_link_does_not_lead_past_the_check() {
        let (home, file) = home();
        let link = home.path().join("link");
        symlink("a/../a", &link).unwrap();
        check_way(&link.join("file")).unwrap();
        set_mode(file.parent().unwrap(), 0o757);
        assert!(matches!(check_way(&link.join("file")), Err(Untrusted::Writable { .. })));
        symlink("circle", home.path().join("circle")).unwrap();
        assert!(matches!(check_way(&home.path().join("circle")), Err(Untrusted::Links(_))));
    }

    #[test]
    fn a_file_is_for_its_owner_to_write() {
        let (_home, file) = home();
        for (mode, good) in [(0o600, true), (0o644, true), (0o664, true), (0o646, false), (0o1666, false)] {
            set_mode(&file, mode);
            assert_eq!(check(&file, &fs::metadata(&file).unwrap()).is_ok(), good, "{mode:o}");
        }
    }

    #[test]
    fn strangers_own_nothing_that_is_trusted() {
        let (_home, file) = home();
        let found = fs::metadata(&file).unwrap();
        let stranger = Ourselves { uid: found.uid() + 1, gid: found.gid() + 1 };
        // Root's files are good for everybody.
        assert_eq!(judge(&file, &found, stranger, false).is_ok(), found.uid() == 0);
        set_mode(&file, 0o660);
        let found = fs::metadata(&file).unwrap();
        let same_user = Ourselves { uid: found.uid(), gid: found.gid() + 1 };
        assert_eq!(judge(&file, &found, same_user, false).is_ok(), found.gid() == 0);
    }
}
