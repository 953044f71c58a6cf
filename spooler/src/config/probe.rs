//! `spooler probe`: has the worker program try providers without a message, with the settings that are in effect.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Config, Eyes, Provider, find, load};

/// Exit codes of sysexits.h.
const EX_USAGE: u8 = 64;
const EX_UNAVAILABLE: u8 = 69;
const EX_CONFIG: u8 = 78;

/// Tries one provider, or every enabled one. The worker program writes each step to standard output as it is done;
/// `out` is that, too. Gives the exit code.
///
/// # Errors
/// The exit code and the reason, if nothing could be tried.
pub fn probe_command(
    config: Option<&Path>,
    name: Option<&str>,
    eyes: &Eyes,
    out: &mut impl Write,
) -> Result<u8, (u8, String)> {
    let config = find(config).and_then(|path| load(&path)).map_err(|error| (EX_CONFIG, error.to_string()))?;
    let chosen: Vec<&Provider> = match name {
        None => config.providers.iter().filter(|provider| provider.enabled).collect(),
        Some(name) => config.providers.iter().filter(|provider| provider.name == name).collect(),
    };
    if chosen.is_empty() {
        let names: Vec<&str> = config.providers.iter().map(|provider| provider.name.as_str()).collect();
        let text = match name {
            Some(name) => format!("there is no provider {name:?}; there are {}", names.join(", ")),
            None => "there is no provider that is enabled".to_owned(),
        };
        return Err((EX_USAGE, text));
    }
    let mut works = true;
    for provider in chosen {
        let whose = eyes.note().replacen("; checked", ", probed", 1);
        // A reader that has gone away has heard enough.
        let _ = writeln!(out, "provider {} ({}{whose}):", provider.name, provider.kind).and_then(|()| out.flush());
        works &= probe(&config, provider).map_err(|error| {
            let text = format!("the worker program {} cannot be run: {error}", config.worker.display());
            (EX_CONFIG, text)
        })?;
    }
    Ok(if works { 0 } else { EX_UNAVAILABLE })
}

/// Tries a provider; true if it works. The settings go over standard input, never over the command line, where everybody could read them.
fn probe(config: &Config, provider: &Provider) -> std::io::Result<bool> {
    let mut child = Command::new(&config.worker)
        .args(["--probe", &provider.kind, &config.hostname])
        .stdin(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read everything says why by itself.
        let _ = stdin.write_all(provider.settings.as_bytes());
    }
    Ok(child.wait()?.success())
}
