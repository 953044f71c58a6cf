//! `spoolctl provider`

use std::io::{self, Write};

use serde_json::Value;
use spooler_protocol::calls::ValidateFlags;
use spooler_protocol::control::{ProviderAction, ProviderCommand, ProviderDetail, ValidateCommand, Validated};
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
        Provider::Show { name, json } => {
            let detail: ProviderDetail = block_on(control.get(&path_of(&name, "")?))?;
            if json { print_json(&detail) } else { Ok(show(&mut io::stdout().lock(), &detail)?) }
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

/// The row of a provider and what is known of its sandbox, for people.
fn show(out: &mut dyn Write, detail: &ProviderDetail) -> io::Result<()> {
    status::providers(out, std::slice::from_ref(&detail.row))?;
    writeln!(out)?;
    if !detail.row.identity.is_empty() {
        writeln!(out, "{:<16}{}", "serves as", plain(&detail.row.identity))?;
    }
    writeln!(out, "{:<16}{}", "priority", plain(&detail.row.priority))?;
    let sandbox = if detail.row.sandbox.is_empty() { "not closed yet" } else { &detail.row.sandbox };
    writeln!(out, "{:<16}{}", "sandbox", plain(sandbox))?;
    if detail.closing_us > 0 {
        writeln!(out, "  {:<14}{} \u{b5}s", "closed in", detail.closing_us)?;
    }
    for (what, much) in &detail.needs {
        writeln!(out, "  {:<14}{}", plain(what), plain(much))?;
    }
    Ok(())
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

/// The path of a request about a provider; an empty one asks for everything about it.
pub(super) fn path_of(name: &str, request: &str) -> Result<String, Failure> {
    // It becomes part of a path.
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        return Err(Failure::Usage(format!(
            "{name:?} is not the name of a provider; `spoolctl provider list` shows them"
        )));
    }
    let slash = if request.is_empty() { "" } else { "/" };
    Ok(format!("/v1/providers/{name}{slash}{request}"))
}
