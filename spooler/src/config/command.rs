//! `spooler check`: says what is wrong with a configuration, or what it amounts to.

use std::path::Path;

use super::file::is_system_file;
use super::{Config, ConfigError, find, load, load_unchecked, print_effective};
use crate::system::folders;
use crate::system::service_user::{ServiceUser, UserError};

/// The exit code for a configuration with mistakes: `EX_CONFIG` of sysexits.h.
const EX_CONFIG: u8 = 78;

/// The user whose rights a check has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Eyes {
    /// The end of the sentence that gives the result: the user, if it is not the present one.
    note: String,
    /// They are not those of the service whose configuration this is, so nothing that is said of its spool would be true.
    foreign: bool,
}

impl Eyes {
    /// Takes on the user that the service runs as, for good: the one that is named; else the unit's; else the owner of the spool; else
    /// it stays the present one. A user other than root keeps its own rights. For a program of one thread.
    ///
    /// # Errors
    /// If there is no such user, or it cannot be taken on.
    pub fn open(config: Option<&Path>, named: Option<&str>) -> Result<Self, UserError> {
        let present = ServiceUser::current();
        let user = match named {
            Some(name) => ServiceUser::named(name)?,
            None => ServiceUser::of_unit().or_else(|| owner_of_spool(config)).unwrap_or_else(|| present.clone()),
        };
        if user.is_current() {
            return Ok(Self::default());
        }
        if !present.is_root() && named.is_none() {
            if !find(config).is_ok_and(|path| is_system_file(&path)) {
                return Ok(Self::default());
            }
            let note =
                format!("; checked as user {}, but the service runs as {}: check as root", present.name, user.name);
            return Ok(Self { note, foreign: true });
        }
        user.take_on()?;
        Ok(Self { note: format!("; checked as user {}", user.name), foreign: false })
    }
}

impl Eyes {
    /// The user, as the end of a sentence; empty for the present one.
    pub(super) fn note(&self) -> &str {
        &self.note
    }
}

fn owner_of_spool(config: Option<&Path>) -> Option<ServiceUser> {
    let config = load_unchecked(&find(config).ok()?).ok()?;
    ServiceUser::owner_of(&config.spool.path)
}

/// Checks the configuration in a file, or in the one that [`find`] finds: the exit code, and what to tell the user. With `print`, that
/// is the effective configuration as TOML, with warnings as comments.
#[must_use]
pub fn check_command(config: Option<&Path>, print: bool, eyes: &Eyes) -> (u8, String) {
    match find(config).and_then(|path| load(&path)) {
        Ok(config) if print => (0, printed(&config)),
        Ok(config) => match folders::check_spool(&config.spool.path) {
            Ok(()) => (0, summary(&config, eyes)),
            Err(_) if eyes.foreign => (0, summary(&config, eyes)),
            Err(error) => (EX_CONFIG, refusal(&ConfigError::whole_file(&config.source, error.to_string()), eyes)),
        },
        Err(error) => (EX_CONFIG, refusal(&error, eyes)),
    }
}

fn printed(config: &Config) -> String {
    let warnings: String = config.warnings.iter().map(|warning| format!("# warning: {warning}\n")).collect();
    format!(
        "# The configuration in {}, as it is in effect.\n{warnings}\n{}",
        config.source.display(),
        print_effective(config)
    )
}

fn summary(config: &Config, eyes: &Eyes) -> String {
    let warnings: String = config.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
    let counted = match config.warnings.len() {
        0 => String::new(),
        count => format!(", {}", plural(count, "warning")),
    };
    let providers = plural(config.providers.len(), "provider");
    format!("{warnings}{}: no mistakes{counted}, {providers}{}\n", config.source.display(), eyes.note)
}

fn refusal(error: &ConfigError, eyes: &Eyes) -> String {
    format!("{error}\n{}{}\n", plural(error.problems.len(), "mistake"), eyes.note)
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
