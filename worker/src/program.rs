//! The command line of a worker program: how the supervisor and `spooler check` call it.
//!
//! ```text
//!   --connect        runs one provider, for the supervisor whose socket is standard input
//!   --check KIND     reads settings as TOML from standard input, and writes what it finds as JSON to standard output
//!   --probe KIND HOST  reads settings as TOML from standard input, tries them, and writes each step; HOST is our name in mail
//!   --kinds          writes the kinds that it has, one a line
//! ```

use std::io::{Read, Write};
use std::process::ExitCode;
use std::rc::Rc;

use spooler_protocol::plain::plain;
use spooler_protocol::settings::{Findings, Settings};
use spooler_protocol::to_worker::{ToWorker, Welcome};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::bootstrap;
use crate::contract::Provider;
use crate::link::LinkSender;
use crate::probe::{Probe, Probed};
use crate::provider::{self, UnknownKind};
use crate::runtime::{self, Ended};

const USAGE: &str = "usage: spooler-worker --connect        (by the supervisor)
       spooler-worker --check KIND     (settings as TOML on standard input, findings as JSON on standard output)
       spooler-worker --probe KIND HOST  (settings as TOML on standard input, steps on standard output)
       spooler-worker --kinds";

/// The whole `main` of a program that has the built-in kinds.
#[must_use]
pub fn main() -> ExitCode {
    run(provider::KINDS, provider::run, provider::check, provider::probe)
}

/// The whole `main` of a program that has the built-in kinds and a provider of its own, by the name of `kind`. It takes the place of
/// `spooler-worker` with `program` in `[worker]`.
#[must_use]
pub fn main_with<P: Provider>(kind: &str) -> ExitCode {
    let kinds: Vec<&str> = provider::KINDS.iter().copied().chain([kind]).collect();
    let session = async |link, inbox, welcome: Welcome| {
        if welcome.kind == kind {
            Ok(runtime::run::<P>(link, inbox, welcome).await)
        } else {
            provider::run(link, inbox, welcome).await
        }
    };
    let check = |checked: &str, settings| {
        if checked == kind { Ok(provider::check_settings::<P>(settings)) } else { provider::check(checked, settings) }
    };
    run(&kinds, session, check, async |probed: &str, settings, probe| {
        if probed == kind {
            Ok(provider::probe_settings::<P>(settings, probe).await)
        } else {
            provider::probe(probed, settings, probe).await
        }
    })
}

fn run<S>(
    kinds: &[&str],
    session: S,
    check: impl FnOnce(&str, Settings) -> Result<Findings, UnknownKind>,
    probe: impl AsyncFnOnce(&str, Settings, Rc<Probe>) -> Result<Probed, UnknownKind>,
) -> ExitCode
where
    S: AsyncFnOnce(LinkSender, UnboundedReceiver<ToWorker>, Welcome) -> Result<Ended, UnknownKind>,
{
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["--connect"] => return connect(session),
        ["--check", kind] => findings(kind, check),
        ["--probe", kind, host] => match probed(kind, host, probe) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::from(69), // EX_UNAVAILABLE
            Err(error) => Err(error),
        },
        ["--kinds"] => write_out(&kinds.join("\n")),
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", plain(error));
            ExitCode::from(64) // EX_USAGE
        }
    }
}

fn connect<S>(session: S) -> ExitCode
where
    S: AsyncFnOnce(LinkSender, UnboundedReceiver<ToWorker>, Welcome) -> Result<Ended, UnknownKind>,
{
    match bootstrap::run_with(session) {
        Ok(Ended::LoggedOff | Ended::LogonFailed) => ExitCode::SUCCESS,
        Ok(Ended::SupervisorGone) => ExitCode::from(69), // EX_UNAVAILABLE
        Err(error) => {
            tracing::error!(%error, "worker could not start");
            ExitCode::from(70) // EX_SOFTWARE
        }
    }
}

/// Whether a provider works, which is told on standard output.
fn probed(
    kind: &str,
    host: &str,
    probe: impl AsyncFnOnce(&str, Settings, Rc<Probe>) -> Result<Probed, UnknownKind>,
) -> Result<bool, String> {
    let settings = settings()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let probed = runtime.block_on(probe(kind, settings, Rc::new(Probe::new(host))));
    Ok(probed.map_err(|error| error.to_string())?.tell())
}

fn settings() -> Result<Settings, String> {
    let mut text = String::new();
    std::io::stdin().lock().read_to_string(&mut text).map_err(|error| error.to_string())?;
    let table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    Ok(Settings::new(table))
}

fn findings(kind: &str, check: impl FnOnce(&str, Settings) -> Result<Findings, UnknownKind>) -> Result<(), String> {
    let findings = check(kind, settings()?).map_err(|error| error.to_string())?;
    let json = serde_json::to_string(&findings).map_err(|error| error.to_string())?;
    write_out(&json)
}

fn write_out(text: &str) -> Result<(), String> {
    writeln!(std::io::stdout().lock(), "{text}").map_err(|error| error.to_string())
}
