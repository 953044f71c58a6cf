//! `spoolctl provider`

use std::io::{self, Write};

use serde_json::Value;
use spooler_protocol::control::{ProviderAction, ProviderCommand};
use spooler_protocol::status::StatusTable;

use super::{print_json, status};
use crate::client::cli::Provider;
use crate::client::connection::{Control, block_on};
use crate::client::failure::Failure;

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
    }
}

fn act(control: &Control, name: &str, action: ProviderAction, done: &str) -> Result<(), Failure> {
    // It becomes part of a path.
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        return Err(Failure::Usage(format!(
            "{name:?} is not the name of a provider; `spoolctl provider list` shows them"
        )));
    }
    let path = format!("/v1/providers/{name}/do");
    let _: Value = block_on(control.post(&path, &ProviderCommand { action }))?;
    Ok(writeln!(io::stdout().lock(), "{name} {done}")?)
}
