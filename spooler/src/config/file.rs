//! The file of the configuration: where it is, and what is in it.

use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::notes::{ConfigError, Notes};
use super::{Config, addressing, outside, places, provider_check, read, routes};
use crate::system::service_user::is_for_the_service;
use crate::system::{reach, trust};

/// The file of the whole machine.
const SYSTEM_FILE: &str = "/etc/spooler/spooler.toml";

/// Bytes of a configuration.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Which file holds the configuration: the one that is asked for, else `/etc/spooler/spooler.toml`, else `spooler/spooler.toml` in
/// `$XDG_CONFIG_HOME` or `~/.config`.
///
/// # Errors
/// If none is asked for, and none of those is there.
pub fn find(explicit: Option<&Path>) -> Result<PathBuf, ConfigError> {
    let user_file = user_file(std::env::var_os("XDG_CONFIG_HOME"), std::env::var_os("HOME"));
    find_among(explicit, Path::new(SYSTEM_FILE), user_file)
}

/// Whether a configuration is that of the whole machine.
pub(super) fn is_system_file(path: &Path) -> bool {
    path == Path::new(SYSTEM_FILE)
}

fn user_file(config_home: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let config_home = config_home.map(PathBuf::from).filter(|path| path.is_absolute());
    let config_home = config_home.or_else(|| home.map(|home| Path::new(&home).join(".config")))?;
    Some(config_home.join("spooler/spooler.toml"))
}

fn find_among(explicit: Option<&Path>, system: &Path, user: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
    if let Some(path) = explicit {
        return Ok(path.to_owned());
    }
    let mut candidates = vec![system.to_owned()];
    candidates.extend(user);
    // One that cannot be read is taken too, unless there is another one: reading it says why.
    let there = |path: &&PathBuf| path.try_exists().unwrap_or(true);
    let readable =
        |path: &&PathBuf| !matches!(fs::File::open(path), Err(error) if error.kind() == ErrorKind::PermissionDenied);
    let found: Vec<&PathBuf> = candidates.iter().filter(there).collect();
    if let Some(best) = found.iter().find(|path| readable(path)).or(found.first()) {
        return Ok((*best).clone());
    }
    let others: Vec<String> = candidates.iter().skip(1).map(|path| format!(" and no {}", path.display())).collect();
    let message = format!("there is no such file{}; write one, or name one with --config", others.concat());
    Err(ConfigError::whole_file(system, message))
}

/// Reads and checks a configuration, and has the worker program check what is particular to the providers' kinds.
///
/// # Errors
/// If the file cannot be read or there is any mistake in it; all of them are named.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let file = open(path)?;
    // Before it is believed: it names the program that is run next.
    let metadata = trusted(path, &file)?;
    let (mut config, mut notes) = read(&text_of(path, file)?, path)?;
    let secrets = provider_check::check_all(&mut config, &mut notes);
    routes::check(&config, &mut notes);
    outside::check_host_name(&config, &mut notes);
    addressing::read_alias_files(&mut config, &mut notes);
    if secrets {
        check_secrecy(path, &metadata, &mut notes);
    }
    Ok(Config { warnings: notes.finish()?, ..config })
}

/// As [`load`], but without the worker program: what is particular to a provider's kind is not looked at. Nor does it matter who may write
/// the file: this is for clients, which only look for the socket.
///
/// # Errors
/// As [`load`].
pub fn load_unchecked(path: &Path) -> Result<Config, ConfigError> {
    super::parse(&text_of(path, open(path)?)?, path)
}

fn open(path: &Path) -> Result<fs::File, ConfigError> {
    fs::File::open(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &std::io::Error) -> ConfigError {
    let refused = error.kind() == ErrorKind::PermissionDenied;
    match reach::why_not_readable(path).filter(|_| refused) {
        Some(why) if is_system_file(path) && !is_for_the_service() => {
            let text = format!(
                "cannot be read: {why}. It is the system's: `sudo spooler check` checks it; `spooler init` writes one for a spooler of your own"
            );
            ConfigError::whole_file(path, text)
        }
        Some(why) => ConfigError::whole_file(path, format!("cannot be read: {why}")),
        None => ConfigError::whole_file(path, format!("cannot be read: {error}")),
    }
}

/// What the file system says of an open configuration, if nobody can have changed it who is not trusted.
fn trusted(path: &Path, file: &fs::File) -> Result<fs::Metadata, ConfigError> {
    let metadata = file.metadata().map_err(|error| unreadable(path, &error))?;
    let checked = trust::check_way(path).and_then(|()| trust::check(path, &metadata));
    checked.map_err(|why| ConfigError::whole_file(path, format!("is not safe to use: {why}")))?;
    Ok(metadata)
}

fn text_of(path: &Path, file: fs::File) -> Result<String, ConfigError> {
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(ConfigError::whole_file(path, format!("is too large; allowed are {FILE_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(error.as_bytes().get(..valid).unwrap_or_default()).into_owned();
        let mut mistake = ConfigError::whole_file(path, "is not UTF-8");
        mistake.problems.iter_mut().for_each(|problem| problem.line = Some(places::line_of(&before, valid)));
        mistake
    })
}

/// Secrets are for the spooler's user, its own group and root. A group may read them if somebody has said so by the mode; that is warned of.
fn check_secrecy(path: &Path, metadata: &fs::Metadata, notes: &mut Notes) {
    let Some(why) = reach::who_else_reads(path, metadata) else { return };
    let text = format!("holds a password and {why}");
    if metadata.permissions().mode() & 0o004 != 0 {
        notes.mistake("", &text);
    } else {
        notes.warn("", text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_that_is_asked_for_is_taken() {
        let asked = Path::new("/nowhere/x.toml");
        assert_eq!(find_among(Some(asked), Path::new("/"), None).unwrap(), asked);
    }

    #[test]
    fn the_machine_comes_before_the_user() {
        let folder = tempfile::tempdir().unwrap();
        let (system, user) = (folder.path().join("system"), folder.path().join("user"));
        let find = || find_among(None, &system, Some(user.clone()));
        let error = find().unwrap_err().to_string();
        assert!(error.contains("system") && error.contains("user") && error.contains("--config"), "{error}");
        fs::write(&user, "").unwrap();
        assert_eq!(find().unwrap(), user);
        fs::write(&system, "").unwrap();
        assert_eq!(find().unwrap(), system);
    }

    #[test]
    fn the_user_has_a_file_of_their_own() {
        let file = |config_home: Option<&str>, home: Option<&str>| {
            user_file(config_home.map(OsString::from), home.map(OsString::from))
        };
        assert_eq!(file(Some("/c"), Some("/h")).unwrap(), Path::new("/c/spooler/spooler.toml"));
        assert_eq!(file(Some("c"), Some("/h")).unwrap(), Path::new("/h/.config/spooler/spooler.toml"));
        assert_eq!(file(None, None), None);
    }

    #[test]
    fn a_file_that_is_not_text_is_refused_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spooler.toml");
        fs::write(&path, b"[spool]\npath = '\xff'\n").unwrap();
        assert_eq!(load_unchecked(&path).unwrap_err().to_string(), format!("{}:2: is not UTF-8", path.display()));
        let missing = folder.path().join("missing.toml");
        assert!(load_unchecked(&missing).unwrap_err().to_string().contains("cannot be read"));
    }
}
