//! The folders that the spooler works in: made with the modes that they need, or checked when they are there.
//!
//! | folder | mode when made | refused |
//! |---|---|---|
//! | the spool | 0711: others pass through it to the pick-up folder | not ours alone to write, or anything of the store in it not ours alone |
//! | `workers` in it | 0700 | not ours; what is in it is removed |
//! | `tmp` in it | 0711, and a folder in it where workers make theirs | not ours; what is in it is removed |
//! | the control socket's | 0755 | anybody but root and us could exchange the socket |
//!
//! What is there already keeps its mode: somebody may have had a reason. What would be dangerous is refused, not repaired.

use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::service_user::name_of;
use super::trust::{self, Untrusted};

/// Workers meet the supervisor here.
const WORKERS: &str = "workers";
/// Workers have the temporary files of their programs here.
const TEMPORARY: &str = "tmp";
/// What a worker appends to the name of that folder: `/.tmpXXXXXX/socket`.
const SOCKET_SUFFIX_BYTES: usize = 18;
/// Bytes of a Unix socket's name (`sun_path`, with its NUL).
const SOCKET_NAME_BYTES_MAX: usize = 107;
/// What the store keeps in the spool: for its user alone.
const OWN_ENTRIES: [&str; 5] = ["lock", "spool.db", "spool.db-wal", "spool.db-shm", "bodies"];

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Others could change what is in it.
    #[error("{0} is not safe to use: {1}")]
    Untrusted(&'static str, #[source] Untrusted),
    /// It is somebody else's, though root's perhaps.
    #[error(
        "{path} belongs to user {owner}, and this spooler runs as {user}; start the one that it belongs to (`systemctl start spooler`, or \
         run it as {owner}), or set another spool.path"
    )]
    NotOurs {
        /// What.
        path: String,
        /// Whose it is.
        owner: String,
        /// Who we are.
        user: String,
    },
    /// Others can read what is for the spooler alone.
    #[error("{path} has mode {mode:04o}, but messages are for the spooler's user alone; `chmod go= {path}`")]
    Open {
        /// What.
        path: String,
        /// Its mode.
        mode: u32,
    },
    /// Something else has the name.
    #[error("{0} is {1}; remove it, or set another path")]
    NotA(String, &'static str),
    /// The name is too long for sockets in it.
    #[error(
        "{path} has a name of {length} bytes, and the sockets of workers need one of at most {max}; set a shorter spool.path"
    )]
    TooLong {
        /// What.
        path: String,
        /// Its bytes.
        length: usize,
        /// The most that is allowed.
        max: usize,
    },
    /// What the file system says.
    #[error("{0} cannot be made or looked at: {1}")]
    Io(String, #[source] io::Error),
}

/// The folders that workers make things in.
#[derive(Clone, Debug)]
pub struct WorkersFolders {
    sockets: PathBuf,
    temporary: PathBuf,
}

impl WorkersFolders {
    /// The folder in which workers make the sockets where they meet the supervisor; nobody else may enter it.
    #[must_use]
    pub fn sockets(&self) -> &Path {
        &self.sockets
    }

    /// The folder in which each worker that runs programs makes one for their temporary files.
    #[must_use]
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Makes the folders in a spool that is locked, or empties them: a worker that was killed has left its things behind.
    ///
    /// # Errors
    /// If a folder cannot be had, or is not ours alone, or its name is too long.
    pub fn prepare(spool: &Path) -> Result<Self, FolderError> {
        let absolute = std::path::absolute(spool).map_err(|error| failed(spool, error))?;
        let folder = absolute.join(WORKERS);
        let (length, max) = (folder.as_os_str().len(), SOCKET_NAME_BYTES_MAX - SOCKET_SUFFIX_BYTES);
        if length > max {
            return Err(FolderError::TooLong { path: folder.display().to_string(), length, max });
        }
        make(&folder, 0o700)?;
        let found = fs::symlink_metadata(&folder).map_err(|error| failed(&folder, error))?;
        for_us_alone(&folder, &found)?;
        sweep(&folder).map_err(|error| failed(&folder, error))?;
        Ok(Self { sockets: folder, temporary: prepare_temporary(&absolute.join(TEMPORARY))? })
    }
}

/// Makes the folder where workers make theirs. Workers of root have users of their own, so it is open to all of them, and only its name,
/// which nobody can list, keeps others out.
fn prepare_temporary(above: &Path) -> Result<PathBuf, FolderError> {
    let prepare = || {
        let found = fs::symlink_metadata(above)?;
        if !found.is_dir() || found.uid() != geteuid().as_raw() {
            return Err(io::Error::other("it is not a folder of this user; remove it"));
        }
        sweep(above)?;
        fs::set_permissions(above, Permissions::from_mode(0o711))?;
        let folder = nix::unistd::mkdtemp(&above.join("XXXXXX"))?;
        let mode = if geteuid().is_root() { 0o1733 } else { 0o700 };
        fs::set_permissions(&folder, Permissions::from_mode(mode))?;
        Ok(folder)
    };
    make(above, 0o711)?;
    prepare().map_err(|error| failed(above, error))
}

/// Removes everything in a folder.
fn sweep(folder: &Path) -> io::Result<()> {
    fs::read_dir(folder)?.try_for_each(|entry| remove(&entry?.path()))
}

/// Makes the spool's folder where it is missing, and checks who may write it and what the store has in it.
///
/// # Errors
/// If the folder cannot be had, or somebody else could read or change what is in it.
pub fn prepare_spool(folder: &Path) -> Result<(), FolderError> {
    make(folder, 0o711)?;
    check_spool(folder)
}

/// Checks who may write the spool's folder and what the store has in it; nothing if it is not there yet.
///
/// # Errors
/// If somebody else could read or change what is in it.
pub fn check_spool(folder: &Path) -> Result<(), FolderError> {
    if matches!(fs::metadata(folder), Err(error) if error.kind() == io::ErrorKind::NotFound) {
        return Ok(());
    }
    let untrusted = |why| FolderError::Untrusted("The spool", why);
    trust::check_way(folder).map_err(untrusted)?;
    let found = fs::metadata(folder).map_err(|error| failed(folder, error))?;
    ours(folder, &found)?;
    trust::check(folder, &found).map_err(untrusted)?;
    for name in OWN_ENTRIES {
        let path = folder.join(name);
        match fs::symlink_metadata(&path) {
            Ok(found) => for_us_alone(&path, &found)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&path, error)),
        }
    }
    Ok(())
}

/// Makes the folder of the control socket where it is missing, and checks that nobody else could exchange the socket.
///
/// # Errors
/// If the folder cannot be had, or others may write it.
pub fn prepare_socket(socket: &Path) -> Result<(), FolderError> {
    if let Some(folder) = socket.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        make(folder, 0o755)?;
    }
    trust::check_way(socket).map_err(|why| FolderError::Untrusted("The control socket's folder", why))
}

/// Makes a folder and those on the way to it, whatever the umask says; one that is there stays as it is.
fn make(folder: &Path, mode: u32) -> Result<(), FolderError> {
    match fs::metadata(folder) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => return Err(FolderError::NotA(folder.display().to_string(), "no folder")),
        Err(_) => {}
    }
    if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make(parent, 0o755)?;
    }
    let made = DirBuilder::new().mode(0o700).create(folder);
    made.and_then(|()| fs::set_permissions(folder, Permissions::from_mode(mode))).map_err(|error| failed(folder, error))
}

fn ours(path: &Path, found: &Metadata) -> Result<(), FolderError> {
    let (owner, user) = (found.uid(), geteuid().as_raw());
    if owner == user {
        return Ok(());
    }
    Err(FolderError::NotOurs { path: path.display().to_string(), owner: name_of(owner), user: name_of(user) })
}

/// Nobody else may read it or write it; a link would lead who knows where.
fn for_us_alone(path: &Path, found: &Metadata) -> Result<(), FolderError> {
    if found.is_symlink() {
        return Err(FolderError::NotA(path.display().to_string(), "a link"));
    }
    ours(path, found)?;
    let mode = found.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(FolderError::Open { path: path.display().to_string(), mode });
    }
    Ok(())
}

/// Removes whatever it is. A link is removed, not followed; what is gone already is well.
fn remove(path: &Path) -> io::Result<()> {
    let removed = fs::symlink_metadata(path)
        .and_then(|found| if found.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) });
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn failed(path: &Path, error: io::Error) -> FolderError {
    FolderError::Io(path.display().to_string(), error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn folders_are_made_with_the_modes_that_they_need() {
        let home = tempfile::tempdir().unwrap();
        let spool = home.path().join("var/spool");
        prepare_spool(&spool).unwrap();
        assert_eq!((mode(&spool), mode(&home.path().join("var"))), (0o711, 0o755));
        let workers = WorkersFolders::prepare(&spool).unwrap();
        assert_eq!(mode(workers.sockets()), 0o700);
        let open = if geteuid().is_root() { 0o1733 } else { 0o700 };
        assert_eq!((mode(&spool.join("tmp")), mode(workers.temporary())), (0o711, open));
        prepare_socket(&home.path().join("run/control.sock")).unwrap();
        assert_eq!(mode(&home.path().join("run")), 0o755);
        set_mode(&spool, 0o700);
        prepare_spool(&spool).unwrap();
        assert_eq!(mode(&spool), 0o700, "what is there keeps its mode");
    }

    #[test]
    fn a_spool_that_others_can_write_or_read_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let spool = home.path().join("spool");
        prepare_spool(&spool).unwrap();
        set_mode(&spool, 0o1777);
        let text = prepare_spool(&spool).unwrap_err().to_string();
        assert!(text.contains("mode 1777") && text.contains("chmod go-w"), "{text}");
        set_mode(&spool, 0o711);
        let database = spool.join("spool.db");
        fs::write(&database, "").unwrap();
        set_mode(&database, 0o644);
        let text = prepare_spool(&spool).unwrap_err().to_string();
        assert!(text.contains("spool.db has mode 0644") && text.contains("chmod go="), "{text}");
        fs::remove_file(&database).unwrap();
        symlink("/dev/null", &database).unwrap();
        assert!(matches!(prepare_spool(&spool), Err(FolderError::NotA(..))));
    }

    #[test]
    fn what_is_not_ours_is_refused_with_both_ways_out() {
        let found = fs::metadata("/").unwrap();
        let us = geteuid().as_raw();
        let text = ours(Path::new("/"), &found).map_or_else(|error| error.to_string(), |()| String::new());
        assert_eq!(text.is_empty(), found.uid() == us, "{text}");
        let (owner, user) = ("spooler".to_owned(), "ann".to_owned());
        let error = FolderError::NotOurs { path: "/s".to_owned(), owner, user }.to_string();
        assert!(error.contains("run it as spooler") && !error.contains("chown"), "{error}");
    }

    #[test]
    fn a_socket_that_others_could_exchange_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let socket = home.path().join("control.sock");
        prepare_socket(&socket).unwrap();
        set_mode(home.path(), 0o777);
        let text = prepare_socket(&socket).unwrap_err().to_string();
        assert!(text.starts_with("The control socket's folder is not safe to use"), "{text}");
        set_mode(home.path(), 0o1777);
        prepare_socket(&socket).unwrap();
    }

    #[test]
    fn leftovers_of_workers_are_removed_and_links_are_not_followed() {
        let home = tempfile::tempdir().unwrap();
        let left = home.path().join("workers/.tmpabc");
        fs::create_dir_all(&left).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(left.join("socket")).unwrap();
        fs::write(home.path().join("kept"), "").unwrap();
        symlink(home.path(), home.path().join("workers/link")).unwrap();
        set_mode(&home.path().join("workers"), 0o700);
        let before = WorkersFolders::prepare(home.path()).unwrap().temporary;
        fs::create_dir(before.join("program")).unwrap();
        let workers = WorkersFolders::prepare(home.path()).unwrap();
        assert_eq!(fs::read_dir(workers.sockets()).unwrap().count(), 0);
        assert!(!before.exists() && fs::read_dir(workers.temporary()).unwrap().count() == 0);
        assert!(home.path().join("kept").exists());
        set_mode(workers.sockets(), 0o755);
        assert!(matches!(WorkersFolders::prepare(home.path()), Err(FolderError::Open { .. })));
    }

    #[test]
    fn a_name_that_is_too_long_for_sockets_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let text = WorkersFolders::prepare(&home.path().join("x".repeat(80))).unwrap_err().to_string();
        assert!(text.contains("at most 89") && text.contains("spool.path"), "{text}");
    }
}
