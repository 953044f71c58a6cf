//! Folders that outlive a power cut: a name is as durable as the folder that it stands in, and only that folder's sync makes it so.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Makes a folder and those above it, as far as they are missing, for this user alone; their names are on disk then.
///
/// # Errors
/// What the file system says.
pub(super) fn make(folder: &Path) -> io::Result<()> {
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound && above.is_some() => {
            above.map_or(Ok(()), make)?;
            DirBuilder::new().mode(0o700).create(folder)?;
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => {}
        result => result?,
    }
    // One that is there already may have been made a moment before the power failed the last time.
    sync_entry(folder)
}

/// Makes the names in a folder durable.
///
/// # Errors
/// What the file system says.
pub(super) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Makes the name of a folder durable. Who may not open the folder above syncs the whole file system.
///
/// # Errors
/// What the file system says.
pub fn sync_entry(folder: &Path) -> io::Result<()> {
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(above) {
        Ok(above) => above.sync_all(),
        Err(_) => Ok(nix::unistd::syncfs(File::open(folder)?)?),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_missing_is_made_for_its_user_alone_and_what_is_there_stays() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("a/b/c");
        for _ in 0..2 {
            make(&folder).unwrap();
        }
        for made in ["a", "a/b", "a/b/c"] {
            assert_eq!(home.path().join(made).metadata().unwrap().permissions().mode() & 0o777, 0o700);
        }
        std::fs::write(home.path().join("file"), b"").unwrap();
        assert!(make(&home.path().join("file")).is_err());
        assert!(make(&home.path().join("file/below")).is_err());
    }
}
