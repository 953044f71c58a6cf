//! `spooler init`: writes a configuration that hands all mail to one mail server, and tries whether that works.
//!
//! Nothing that is there is overwritten. The password gets a file of its own, which the service's user may read and others may not.
//!
//! ```text
//!   options ─▶ text ─▶ password ─▶ place: files with their owners and modes ─▶ `spooler check` ─▶ `spooler probe relay`
//! ```

// Where files go, and how they get there whole.
mod place;
// The text of the configuration.
mod text;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use nix::unistd::geteuid;

use crate::client::terminal;
use crate::config;

use place::Place;
use text::Plan;

/// The options of `spooler init`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// The mail server that everything goes to; port 587 with --user, else 25. 465 means TLS from the first byte.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub relay: String,
    /// The name to log in with. The password is asked for, or read from standard input if that is no terminal.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// A file with the password, instead of being asked.
    #[arg(long, value_name = "FILE", requires = "user")]
    pub password_file: Option<PathBuf>,
    /// The address that gets mail for root and the spooler's notices.
    #[arg(long, value_name = "ADDRESS")]
    pub root: Option<String>,
    /// The full name of this machine [default: as it is set up].
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Where to write it [default: /etc/spooler/spooler.toml; for other users than root ~/.config/spooler/spooler.toml].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Show the configuration, write nothing, and try nothing.
    #[arg(long)]
    pub print: bool,
    /// Do not try whether the mail server takes mail.
    #[arg(long)]
    pub no_probe: bool,
}

/// Why there is no configuration, or none that works.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The options make no configuration.
    #[error("{0}")]
    Usage(String),
    /// Something is there already.
    #[error("{0} is there already, and nothing was changed. {1}")]
    Exists(PathBuf, String),
    /// The file system refuses.
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] io::Error),
    /// It is written, but `spooler check` refuses it or the mail server cannot be used; what they said stands above.
    #[error("{text}")]
    Unfinished {
        /// The exit code of the step that failed.
        code: u8,
        /// The next step for the person.
        text: String,
    },
}

impl InitError {
    /// The exit code by sysexits.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 64,                  // EX_USAGE
            Self::Exists(..) | Self::Io(..) => 73, // EX_CANTCREAT
            Self::Unfinished { code, .. } => *code,
        }
    }
}

/// Writes the configuration, checks it and tries it; says on `out` what it has done and what is next.
///
/// # Errors
/// If nothing could be written, or what was written does not work.
pub fn run(options: &Options, out: &mut impl Write) -> Result<(), InitError> {
    let place = Place::of(options.config.as_deref())?;
    let plan = Plan::new(options, &place)?;
    let text = plan.text();
    config::parse(&text, &place.config).map_err(|error| InitError::Usage(error.to_string()))?;
    if options.print {
        say(out, &text);
        return Ok(());
    }
    place.refuse_to_overwrite(options.user.is_some())?;
    if let Some(user) = &options.user {
        let password = password(options, user)?;
        place.write(&place.password, format!("{password}\n").as_bytes())?;
    }
    if let Err(error) = place.write(&place.config, text.as_bytes()) {
        if options.user.is_some() {
            place.take_back(&place.password);
        }
        return Err(error);
    }
    say(
        out,
        &format!(
            "Wrote {}{}.\n",
            place.config.display(),
            if options.user.is_some() { " and the password beside it" } else { "" }
        ),
    );
    try_out(options, &place)?;
    say(out, &place.next());
    Ok(())
}

fn password(options: &Options, user: &str) -> Result<String, InitError> {
    let password = match &options.password_file {
        Some(path) => std::fs::read_to_string(path).map_err(|error| InitError::Io(path.clone(), error))?,
        None => {
            let asked = terminal::ask(&format!("Password of {user} at {}", options.relay), true);
            let answer = asked.map_err(|error| InitError::Usage(format!("the password cannot be read: {error}")))?;
            answer.ok_or_else(|| InitError::Usage("no password was given; nothing was written".to_owned()))?
        }
    };
    let password = password.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(InitError::Usage("the password is empty; nothing was written".to_owned()));
    }
    Ok(password.to_owned())
}

/// Has this program check what was written and try the mail server, each in a process of its own that takes on the service's user.
fn try_out(options: &Options, place: &Place) -> Result<(), InitError> {
    let file = place.config.display();
    let checked = ourselves(&["check", "--config"], &place.config)?;
    if !checked.success() {
        let text = format!("{file} is written, but not right; correct it, then run `spooler check --config {file}`");
        return Err(unfinished(checked, text));
    }
    if options.no_probe {
        return Ok(());
    }
    let probed = ourselves(&["probe", "relay", "--config"], &place.config)?;
    if !probed.success() {
        let text = format!(
            "{file} is written, but its mail server could not be used; correct it, then run `spooler probe relay --config {file}`"
        );
        return Err(unfinished(probed, text));
    }
    Ok(())
}

fn unfinished(status: ExitStatus, text: String) -> InitError {
    InitError::Unfinished { code: status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(70), text }
}

fn ourselves(arguments: &[&str], config: &Path) -> Result<ExitStatus, InitError> {
    let failed = |error| InitError::Io(PathBuf::from("spooler"), error);
    let program = std::env::current_exe().map_err(failed)?;
    Command::new(program).args(arguments).arg(config).stdin(Stdio::null()).status().map_err(failed)
}

/// A reader that has gone away changes nothing about what was done.
fn say(out: &mut impl Write, text: &str) {
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn is_root() -> bool {
    geteuid().is_root()
}
