//! One supervisor per spool: an advisory lock on a file that names its holder.
//!
//! The kernel drops the lock with the process, however it ends, so nothing is left to clean up; the file itself stays.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::failure::of_io;
use super::{StoreError, folders};

/// Holds the lock until it is dropped.
#[derive(Debug)]
pub(super) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Makes the folder if there is none, for this user alone, and locks it.
    pub(super) fn take(folder: &Path) -> Result<Self, StoreError> {
        folders::make(folder).map_err(|error| of_io(folder, "make the folder", &error))?;
        let path = folder.join("lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(|error| of_io(&path, "open the lock", &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse { path: folder.display().to_string(), pid: holder(&mut file) });
            }
            Err(TryLockError::Error(error)) => return Err(of_io(&path, "lock it", &error)),
        }
        let named = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        named.map_err(|error| of_io(&path, "write the process number", &error))?;
        Ok(Self { _file: file })
    }
}

/// The process number in a lock file, or `?`.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(32).read_to_string(&mut text);
    let pid = text.trim();
    let is_pid = read.is_ok() && !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
    if is_pid { pid.to_owned() } else { "?".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_learns_who_has_it_and_the_next_gets_it() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("a/b");
        let first = FolderLock::take(&folder).unwrap();
        let refused = FolderLock::take(&folder).unwrap_err();
        let own = std::process::id().to_string();
        assert!(matches!(&refused, StoreError::InUse { pid, .. } if *pid == own), "{refused}");
        drop(first);
        FolderLock::take(&folder).unwrap();
    }

    #[test]
    fn a_new_folder_is_for_its_user_alone() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("a/b");
        let _lock = FolderLock::take(&folder).unwrap();
        for made in [&folder, &home.path().join("a")] {
            assert_eq!(made.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        }
    }
}
