//! `spoolctl provider`

use std::io::{self, Write};

use serde_json::Value;
use spooler_protocol::calls::ValidateFlags;
use spooler_protocol::control::{ProviderAction, ProviderCommand, ValidateCommand, Validated};
use spooler_protocol::status::StatusTable;

use super::{print_json, status};
use crate::client::cli::{Provider, ValidateOptions};
use crate::client::connection::{Control, block_on};
use crate::client::failure::Failure;
use crate::client::show::plain;

pub(super) fn run(control: &Control, provider: Provider) -> Result<(), Failure> {
    match provider {
        Provider::List { json } => {
            let table: StatusTable = block_on(control.get("/v1/status"))?;
            if json {
                return print_json(&table.providers);
            }
            Ok(status::providers(&mut io::stdout().lock(), &table.providers)?)
        }
        Provider::Restart { name } => act(control, &name, ProviderAction::Restart, "is restarted"),
        Provider::Pause { name } => act(control, &name, ProviderAction::Pause, "gets nothing more until it is resumed"),
        Provider::Resume { name } => act(control, &name, ProviderAction::Resume, "goes on"),
        Provider::Validate { name: Some(name), how, .. } => {
            let command = ProviderCommand { action: ProviderAction::Validate, flags: how.flags() };
            command_one(control, &name, &command, "is validated")
        }
        Provider::Validate { name: None, how, .. } => validate_all(control, &how),
    }
}

/// Has all providers look after their state, and says what became of each.
pub(super) fn validate_all(control: &Control, how: &ValidateOptions) -> Result<(), Failure> {
    let command = ValidateCommand { flags: how.flags() };
    let all: Vec<Validated> = block_on(control.post("/v1/validate", &command))?;
    let mut out = io::stdout().lock();
    for Validated { provider, ok, text } in &all {
        let colon = if *ok { "" } else { ":" };
        writeln!(out, "{provider}{colon} {}", plain(text))?;
    }
    let failed = all.iter().filter(|validated| !validated.ok).count();
    if failed == 0 {
        return Ok(());
    }
    Err(Failure::Temporary(format!("{failed} of {} providers were not validated", all.len())))
}

fn act(control: &Control, name: &str, action: ProviderAction, done: &str) -> Result<(), Failure> {
    command_one(control, name, &ProviderCommand { action, flags: ValidateFlags::default() }, done)
}

fn command_one(control: &Control, name: &str, command: &ProviderCommand, done: &str) -> Result<(), Failure> {
    let _: Value = block_on(control.post(&path_of(name, "do")?, command))?;
    Ok(writeln!(io::stdout().lock(), "{name} {done}")?)
}

/// The path of a request about a provider.
pub(super) fn path_of(name: &str, request: &str) -> Result<String, Failure> {
    // It becomes part of a path.
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        return Err(Failure::Usage(format!(
            "{name:?} is not the name of a provider; `spoolctl provider list` shows them"
        )));
    }
    Ok(format!("/v1/providers/{name}/{request}"))
}
