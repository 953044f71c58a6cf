//! The worker program: started by the supervisor with the name of its one-shot server; also checks settings.

use std::io::{Read, Write};
use std::process::ExitCode;

use spooler_protocol::settings::Settings;
use spooler_worker::runtime::Ended;
use spooler_worker::{bootstrap, provider};

const USAGE: &str = "usage: spooler-worker --connect NAME   (by the supervisor)
       spooler-worker --check KIND     (settings as TOML on standard input, findings as JSON on standard output)
       spooler-worker --kinds";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["--connect", name] => return connect(name),
        ["--check", kind] => check(kind),
        ["--kinds"] => write_out(&provider::KINDS.join("\n")),
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(64) // EX_USAGE
        }
    }
}

fn connect(name: &str) -> ExitCode {
    match bootstrap::run(name) {
        Ok(Ended::LoggedOff | Ended::LogonFailed) => ExitCode::SUCCESS,
        Ok(Ended::SupervisorGone) => ExitCode::from(69), // EX_UNAVAILABLE
        Err(error) => {
            tracing::error!(%error, "worker could not start");
            ExitCode::from(70) // EX_SOFTWARE
        }
    }
}

fn check(kind: &str) -> Result<(), String> {
    let mut text = String::new();
    std::io::stdin().lock().read_to_string(&mut text).map_err(|error| error.to_string())?;
    let table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let findings = provider::check(kind, Settings::new(table)).map_err(|error| error.to_string())?;
    let json = serde_json::to_string(&findings).map_err(|error| error.to_string())?;
    write_out(&json)
}

fn write_out(text: &str) -> Result<(), String> {
    writeln!(std::io::stdout().lock(), "{text}").map_err(|error| error.to_string())
}
