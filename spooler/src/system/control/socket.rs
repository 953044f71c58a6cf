//! The socket's file: made, with the mode that fits, in place of one that a dead supervisor left.
//!
//! The mode only keeps the curious away early; who may do what is decided by [`super::access::may`].

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use super::access::Access;

/// Why the control socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A supervisor answers there.
    #[error("Another supervisor answers on {0}; stop it first, or set another control socket")]
    InUse(String),
    /// Something else has the name.
    #[error("{0} is not a socket; remove it, or set another control socket")]
    NotASocket(String),
    /// What the file system says.
    #[error("The control socket {path} cannot be made: {error}")]
    Io {
        /// Where.
        path: String,
        /// Why.
        error: io::Error,
    },
}

/// Listens on `path`. The folder is created where it is missing.
///
/// # Errors
/// As [`BindError`] says.
pub fn bind(path: &Path, access: &Access) -> Result<UnixListener, BindError> {
    let named = || path.display().to_string();
    let failed = |error| BindError::Io { path: named(), error };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(failed)?;
    }
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket(named())),
        Ok(_) if UnixStream::connect(path).is_ok() => return Err(BindError::InUse(named())),
        Ok(_) => fs::remove_file(path).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let mode = match access {
        // A file has one group only; who may do what is checked for each request.
        Access { anyone_may_submit: true, .. } | Access { submit_group: Some(_), monitor_group: Some(_), .. } => 0o666,
        Access { submit_group: Some(group), .. } | Access { monitor_group: Some(group), .. } => {
            chown(path, None, Some(*group)).map_err(failed)?;
            0o660
        }
        Access { submit_group: None, monitor_group: None, .. } => 0o600,
    };
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const NOBODY_ELSE: Access =
        Access { owner_uid: 0, submit_group: None, monitor_group: None, anyone_may_submit: false };

    #[test]
    fn the_mode_says_who_may_submit() {
        let folder = tempfile::tempdir().unwrap();
        let group = nix::unistd::getgid().as_raw();
        for (name, access, mode) in [
            ("a", NOBODY_ELSE, 0o600),
            ("b", Access { submit_group: Some(group), ..NOBODY_ELSE }, 0o660),
            ("d", Access { monitor_group: Some(group), ..NOBODY_ELSE }, 0o660),
            ("e", Access { monitor_group: Some(group), submit_group: Some(group), ..NOBODY_ELSE }, 0o666),
            ("c", Access { anyone_may_submit: true, ..NOBODY_ELSE }, 0o666),
        ] {
            let path = folder.path().join("made").join(name);
            let _listener = bind(&path, &access).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, mode, "{name}");
        }
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let first = bind(&path, &NOBODY_ELSE).unwrap();
        assert!(matches!(bind(&path, &NOBODY_ELSE), Err(BindError::InUse(_))));
        drop(first);
        let _second = bind(&path, &NOBODY_ELSE).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn other_files_are_left_alone_and_long_names_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "mine").unwrap();
        assert!(matches!(bind(&path, &NOBODY_ELSE), Err(BindError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        let long = folder.path().join("x".repeat(120));
        assert!(matches!(bind(&long, &NOBODY_ELSE), Err(BindError::Io { .. })));
    }
}
