//! Where the files of a new configuration go, and how they get there: whole or not at all, with the right owner and mode from the first
//! moment, and never in the place of another.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, fchown};
use std::path::{Path, PathBuf};

use nix::unistd::Group;

use super::{InitError, is_root};

const SYSTEM_FILE: &str = "/etc/spooler/spooler.toml";
/// The group of the service's user (`scripts/spooler.sysusers.conf`).
const GROUP: &str = "spooler";
const UNIT: &str = "/etc/systemd/system/spooler.service";

/// The files of a new configuration.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) config: PathBuf,
    pub(super) password: PathBuf,
    /// Where an ordinary user keeps the spool; `None` for the spooler of the machine.
    pub(super) own_spool: Option<PathBuf>,
    /// Of the group that may read the files: the service's, where root writes them.
    gid: Option<u32>,
}

impl Place {
    /// The given file, or the one that `spooler run` finds.
    pub(super) fn of(given: Option<&Path>) -> Result<Self, InitError> {
        let home = || {
            let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
            home.ok_or_else(|| InitError::Usage("HOME is not set; name a file with --config".to_owned()))
        };
        let folder_of = |variable: &str, below: &str| match std::env::var_os(variable).map(PathBuf::from) {
            Some(folder) if folder.is_absolute() => Ok(folder),
            _ => home().map(|home| home.join(below)),
        };
        let config = match given {
            Some(path) => std::path::absolute(path).map_err(|error| InitError::Io(path.to_owned(), error))?,
            None if is_root() => PathBuf::from(SYSTEM_FILE),
            None => folder_of("XDG_CONFIG_HOME", ".config")?.join("spooler/spooler.toml"),
        };
        let own_spool =
            if is_root() { None } else { Some(folder_of("XDG_STATE_HOME", ".local/state")?.join("spooler")) };
        let group = if is_root() { Group::from_name(GROUP).ok().flatten() } else { None };
        let password = config.with_file_name("relay-password");
        Ok(Self { config, password, own_spool, gid: group.map(|group| group.gid.as_raw()) })
    }

    /// The control socket of an ordinary user's spooler.
    pub(super) fn own_socket(&self) -> Option<PathBuf> {
        self.own_spool.as_ref().map(|spool| spool.join("control.sock"))
    }

    pub(super) fn refuse_to_overwrite(&self, with_password: bool) -> Result<(), InitError> {
        if self.config.symlink_metadata().is_ok() {
            let file = self.config.display();
            let advice = format!(
                "Edit it, then run `spooler check` and reload. For a new one, move it away first: `mv {file} {file}.old`; \
                 --print only shows one"
            );
            return Err(InitError::Exists(self.config.clone(), advice));
        }
        if with_password && self.password.symlink_metadata().is_ok() {
            let file = self.password.display();
            let advice = format!("If it is not needed any more, move it away first: `mv {file} {file}.old`");
            return Err(InitError::Exists(self.password.clone(), advice));
        }
        Ok(())
    }

    /// Writes a file that others cannot read, and makes the folder for it.
    pub(super) fn write(&self, path: &Path, content: &[u8]) -> Result<(), InitError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists => InitError::Exists(path.to_owned(), String::new()),
            _ => InitError::Io(path.to_owned(), error),
        };
        if let Some(folder) = path.parent() {
            self.make_folder(folder).map_err(failed)?;
        }
        let mut draft = path.as_os_str().to_owned();
        draft.push(".new");
        let draft = PathBuf::from(draft);
        let _ = fs::remove_file(&draft);
        // A link, not a renaming: that would take the place of a file that came meanwhile.
        let written = self.write_draft(&draft, content).and_then(|()| fs::hard_link(&draft, path));
        let _ = fs::remove_file(&draft);
        written.map_err(failed)
    }

    fn write_draft(&self, draft: &Path, content: &[u8]) -> io::Result<()> {
        let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
        if self.gid.is_some() {
            fchown(&file, None, self.gid)?;
            file.set_permissions(Permissions::from_mode(0o640))?;
        }
        file.write_all(content)?;
        file.sync_all()
    }

    /// Makes the folder where it is missing: for the service's group, or for its user alone.
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        if let Some(parent) = folder.parent() {
            fs::create_dir_all(parent)?;
        }
        DirBuilder::new().mode(0o700).create(folder)?;
        if self.gid.is_some() {
            chown(folder, None, self.gid)?;
            fs::set_permissions(folder, Permissions::from_mode(0o750))?;
        }
        Ok(())
    }

    /// Removes a file that was just written.
    pub(super) fn take_back(&self, path: &Path) {
        let _ = fs::remove_file(path);
    }

    /// The next step for the person, with its commands.
    pub(super) fn next(&self) -> String {
        match self.own_socket() {
            None if self.config != Path::new(SYSTEM_FILE) => {
                format!("Next: spooler run --config {}\n", self.config.display())
            }
            None if Path::new(UNIT).exists() => "Next: systemctl enable --now spooler\n".to_owned(),
            None => "Next: spooler run\n".to_owned(),
            Some(socket) => format!(
                "Next: spooler run --config {}\nClients find it with: export SPOOLER_SOCKET={} SPOOLER_PICKUP={}\n",
                self.config.display(),
                socket.display(),
                socket.with_file_name("pickup").display()
            ),
        }
    }
}
