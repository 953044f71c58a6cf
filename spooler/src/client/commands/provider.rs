//! `spoolctl provider`

use std::io::{self, Write};

use serde_json::Value;
use spooler_protocol::calls::ValidateFlags;
use spooler_protocol::control::{ProviderAction, ProviderCommand, ProviderDetail, ValidateCommand, Validated};
use spooler_protocol::status::{StatusTable, TokenState};

use super::{print_json, status};
use crate::client::cli::{Provider, ValidateOptions};
use crate::client::connection::{Control, block_on};
use crate::client::failure::Failure;
use crate::client::layout::{Page, count};
use crate::client::show::{now_ms, plain, time};
use crate::client::terminal;

pub(super) fn run(control: &Control, provider: Provider) -> Result<(), Failure> {
    match provider {
        Provider::List { json } => {
            let table: StatusTable = block_on(control.get("/v1/status"))?;
            if json {
                return print_json(&table.providers);
            }
            let text = status::providers(&table.providers, terminal::page(), now_ms());
            Ok(io::stdout().lock().write_all(text.as_bytes())?)
        }
        Provider::Show { name, json } => {
            let detail: ProviderDetail = block_on(control.get(&path_of(&name, "")?))?;
            if json {
                return print_json(&detail);
            }
            let text = show(&detail, terminal::page(), now_ms());
            Ok(io::stdout().lock().write_all(text.as_bytes())?)
        }
        Provider::Restart { name } => act(control, &name, ProviderAction::Restart, "is restarted"),
        Provider::Pause { name } => act(
            control,
            &name,
            ProviderAction::Pause,
            "is paused: it finishes what it has and gets no more until it is resumed",
        ),
        Provider::Resume { name } => act(control, &name, ProviderAction::Resume, "is resumed"),
        Provider::Validate { name: Some(name), how, .. } => {
            let command = ProviderCommand { action: ProviderAction::Validate, flags: how.flags() };
            command_one(control, &name, &command, "is validated")
        }
        Provider::Validate { name: None, how, .. } => validate_all(control, &how),
    }
}

/// Everything about one provider, for people: its line of the list, then a fact a line.
fn show(detail: &ProviderDetail, page: Page, now_ms: i64) -> String {
    let row = &detail.row;
    let token = match row.token {
        TokenState::Idle => "idle",
        TokenState::Runnable => "runnable (waits for its turn)",
        TokenState::Running => "running",
        TokenState::Preempting => "preempting (was asked to give its turn back)",
    };
    let sandbox = if row.sandbox.is_empty() { "not closed yet" } else { &row.sandbox };
    let mut facts = vec![
        ("resource", row.resource.clone().unwrap_or_default()),
        ("process", row.pid.map(|pid| pid.to_string()).unwrap_or_default()),
        ("in this state", format!("since {}", time(row.since_ms))),
        ("scheduling", token.to_owned()),
        ("CPU used", format!("{}.{:01} s", row.cpu_ms / 1000, row.cpu_ms % 1000 / 100)),
        ("priority", row.priority.clone()),
        ("deaths", if row.deaths == 0 { String::new() } else { row.deaths.to_string() }),
        ("sandbox", sandbox.to_owned()),
    ];
    if row.hasty_words > 0 {
        facts.push(("status rows", format!("{} updates came too fast and were merged", row.hasty_words)));
    }
    if detail.closing_us > 0 {
        facts.push(("  closed in", format!("{} \u{b5}s", detail.closing_us)));
    }
    facts.retain(|(_, value)| !value.is_empty());
    let facts = facts.iter().map(|(name, value)| fact(name, value, page));
    let needs = detail.needs.iter().map(|(what, much)| fact(&format!("  {what}"), much, page));
    let table = status::providers(std::slice::from_ref(row), page, now_ms);
    table + "\n" + &facts.chain(needs).collect::<String>()
}

/// Columns of the names of facts.
const NAME_COLUMNS: usize = 18;

fn fact(name: &str, value: &str, page: Page) -> String {
    let name = format!("{:<width$}  ", plain(name), width = NAME_COLUMNS - 2);
    page.hanging(&name, &plain(value), NAME_COLUMNS) + "\n"
}

/// Checks the state of all providers, and says the result of each.
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
    Err(Failure::Temporary(format!("{failed} of {} failed", count(all.len() as u64, "provider"))))
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
