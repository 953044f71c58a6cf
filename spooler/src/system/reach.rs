//! Access to a file, by the present user and by others; with the command that puts it right.
//!
//! The user is the one that this program runs as: the service's own, or the one that `spooler check` has taken on.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access, getegid, geteuid};

use super::service_user::{group_name_of, is_for_the_service, name_of};
use super::trust;

/// Reads of others are the last of these bits.
const OTHERS_READ: u32 = 0o004;
const GROUP_READS: u32 = 0o040;
const OTHERS_ENTER: u32 = 0o001;

/// The reason why a file cannot be read, with the command that helps; `None` if it can be.
#[must_use]
pub fn why_not_readable(path: &Path) -> Option<String> {
    why_not(path, AccessFlags::R_OK)
}

/// The reason why a program cannot be run, with the command that helps; `None` if it can be.
#[must_use]
pub fn why_not_executable(path: &Path) -> Option<String> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Some(format!("{} is no program but a folder or a device", path.display()));
    }
    why_not(path, AccessFlags::X_OK)
}

fn why_not(path: &Path, wanted: AccessFlags) -> Option<String> {
    let shown = path.display();
    match access(path, wanted) {
        Ok(()) => None,
        Err(Errno::ENOENT | Errno::ENOTDIR) => Some(format!("{shown} does not exist")),
        Err(Errno::EACCES) => Some(refused(path, wanted)),
        Err(error) => Some(format!("{shown} cannot be reached: {}", error.desc())),
    }
}

/// Why a file is refused that is there: the first folder on the way that may not be entered, or its own mode.
fn refused(path: &Path, wanted: AccessFlags) -> String {
    let (user, group) = (name_of(geteuid().as_raw()), group_name_of(getegid().as_raw()));
    let shown = path.display();
    if let Some(folder) = closed_folder(path) {
        let text = format!("user {user} cannot reach {shown}: it may not enter {}", folder.display());
        // Folders that others have to do with too are not ours to give advice about.
        let own = folder.file_name().is_some_and(|name| name == "spooler") && path.parent() == Some(&folder);
        return if !is_for_the_service() {
            text
        } else if own {
            format!("{text}; `chgrp {group} {0} && chmod g+rx {0}`", folder.display())
        } else {
            format!("{text}; keep the file where user {user} can read it, such as in /etc/spooler")
        };
    }
    let verb = if wanted == AccessFlags::X_OK { "run" } else { "read" };
    let bit = if wanted == AccessFlags::X_OK { 'x' } else { 'r' };
    let found = fs::metadata(path).ok();
    let command = match found {
        Some(found) if found.uid() == geteuid().as_raw() => format!("chmod u+{bit} {shown}"),
        Some(found) if found.gid() == getegid().as_raw() => format!("chmod g+{bit} {shown}"),
        _ if !is_for_the_service() => return format!("user {user} cannot {verb} {shown}"),
        _ if wanted == AccessFlags::X_OK => format!("chmod a+x {shown}"),
        _ => format!("chgrp {group} {shown} && chmod g+r {shown}"),
    };
    format!("user {user} cannot {verb} {shown}; `{command}`")
}

/// The first folder on the way that the present user may not enter.
fn closed_folder(path: &Path) -> Option<PathBuf> {
    let mut folders: Vec<&Path> = path.ancestors().skip(1).collect();
    folders.reverse();
    let closed = |folder: &&&Path| !folder.as_os_str().is_empty() && access(**folder, AccessFlags::X_OK).is_err();
    folders.iter().find(closed).map(|folder| folder.to_path_buf())
}

/// The others who can read a secret, and the command that keeps it to the present user; `None` if nobody but that user, root, and their own
/// groups can. A folder that others may not enter protects what is in it.
#[must_use]
pub fn who_else_reads(path: &Path, found: &Metadata) -> Option<String> {
    let mode = found.mode() & 0o7777;
    let whom = if mode & OTHERS_READ != 0 && others_reach(path) {
        "everybody".to_owned()
    } else if mode & GROUP_READS != 0 && !trust::is_own_group(found.gid()) {
        format!("every member of group {}", group_name_of(found.gid()))
    } else {
        return None;
    };
    let advice = closing_command(path, found).map_or_else(
        || "`sudo spooler check` says how to close it to others".to_owned(),
        |command| format!("`{command}`"),
    );
    Some(format!("has mode {mode:04o}, so that {whom} can read it; {advice}"))
}

/// The command that leaves a secret readable for the present user, and for nobody else; `None` if that is not the user to decide.
fn closing_command(path: &Path, found: &Metadata) -> Option<String> {
    let shown = path.display();
    let group = group_name_of(getegid().as_raw());
    if found.uid() == geteuid().as_raw() {
        Some(format!("chmod go= {shown}"))
    } else if !is_for_the_service() {
        None
    } else if found.gid() == getegid().as_raw() {
        Some(format!("chmod g=r,o= {shown}"))
    } else {
        Some(format!("chgrp {group} {shown} && chmod g=r,o= {shown}"))
    }
}

/// True if others may enter every folder on the way.
fn others_reach(path: &Path) -> bool {
    let Ok(absolute) = fs::canonicalize(path) else { return true };
    absolute.ancestors().skip(1).all(|folder| fs::metadata(folder).is_ok_and(|found| found.mode() & OTHERS_ENTER != 0))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn secret(mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        set_mode(folder.path(), 0o755);
        let path = folder.path().join("password");
        fs::write(&path, "sesame\n").unwrap();
        set_mode(&path, mode);
        (folder, path)
    }

    fn judged(path: &Path) -> Option<String> {
        who_else_reads(path, &fs::metadata(path).unwrap())
    }

    /// Runs the command in backquotes, word by word.
    fn follow(advice: &str) {
        let command = advice.split('`').nth(1).unwrap();
        assert!(Command::new("/bin/sh").args(["-c", command]).status().unwrap().success(), "{command}");
    }

    #[test]
    fn open_secret_is_closed_by_its_advice() {
        for mode in [0o644, 0o604, 0o664] {
            let (_folder, path) = secret(mode);
            let advice = judged(&path).unwrap();
            assert!(advice.contains("everybody"), "{advice}");
            follow(&advice);
            assert_eq!(judged(&path), None);
            assert_eq!(why_not_readable(&path), None);
        }
    }

    #[test]
    fn closed_folder_protects_what_is_in_it() {
        let (folder, path) = secret(0o644);
        set_mode(folder.path(), 0o750);
        assert_eq!(judged(&path), None);
        let (_folder, path) = secret(0o600);
        assert_eq!(judged(&path), None);
    }

    #[test]
    fn missing_file_and_folder_are_told_apart() {
        let (folder, path) = secret(0o600);
        let missing = folder.path().join("missing");
        assert_eq!(why_not_readable(&missing), Some(format!("{} does not exist", missing.display())));
        assert!(why_not_executable(folder.path()).unwrap().contains("is no program"));
        let advice = why_not_executable(&path).unwrap();
        follow(&advice);
        assert_eq!(why_not_executable(&path), None);
    }
}
