//! `spooler check`: says what is wrong with a configuration, or what it amounts to.

use std::path::Path;

use super::{Config, ConfigError, find, load, print_effective};

/// The exit code for a configuration with mistakes: `EX_CONFIG` of sysexits.h.
const EX_CONFIG: u8 = 78;

/// Checks the configuration in a file, or in the one that [`find`] finds: the exit code, and what to tell the user. With `print`, that
/// is the effective configuration as TOML, with warnings as comments.
#[must_use]
pub fn check_command(config: Option<&Path>, print: bool) -> (u8, String) {
    match find(config).and_then(|path| load(&path)) {
        Ok(config) if print => (0, printed(&config)),
        Ok(config) => (0, summary(&config)),
        Err(error) => (EX_CONFIG, refusal(&error)),
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

fn summary(config: &Config) -> String {
    let warnings: String = config.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
    let providers = match config.providers.len() {
        1 => "1 provider".to_owned(),
        count => format!("{count} providers"),
    };
    format!("{warnings}{}: no mistakes, {providers}\n", config.source.display())
}

fn refusal(error: &ConfigError) -> String {
    let count = match error.problems.len() {
        1 => "1 mistake".to_owned(),
        count => format!("{count} mistakes"),
    };
    format!("{error}\n{count}\n")
}
