//! `spoolctl status`: the status table for people. How it is shown as it changes is in `watch`.

use std::io::{self, Write};

use spooler_protocol::status::{
    AddedRow, MessageRow, Overrun, ProviderRow, StatusTable, SupervisorRow, TokenState, WorkerState,
};

use super::print_json;
use crate::client::connection::{Control, block_on};
use crate::client::failure::Failure;
use crate::client::show::{Table, now_ms, plain, size, span};

/// Shows the table as it is now.
pub(super) fn once(control: &Control, json: bool) -> Result<(), Failure> {
    let table: StatusTable = block_on(control.get("/v1/status"))?;
    if json { print_json(&table) } else { Ok(write(&mut io::stdout().lock(), &table)?) }
}

/// The whole table for people.
pub(super) fn write(out: &mut dyn Write, table: &StatusTable) -> io::Result<()> {
    supervisor(out, &table.supervisor)?;
    writeln!(out)?;
    providers(out, &table.providers)?;
    if !table.added.is_empty() {
        writeln!(out)?;
        added(out, &table.added)?;
    }
    if !table.messages.is_empty() {
        writeln!(out)?;
        messages(out, &table.messages)?;
    }
    Ok(())
}

fn supervisor(out: &mut dyn Write, row: &SupervisorRow) -> io::Result<()> {
    let up = since(row.started_ms);
    writeln!(out, "spooler {} (pid {}, up {up}): {}", plain(&row.version), row.pid, plain(&row.text))?;
    writeln!(
        out,
        "queue: {} messages, {} ready, {} in flight, {} deferred, {} held; since the start {} accepted, {} sent, {} failed",
        row.queued, row.ready, row.in_flight, row.deferred, row.held, row.accepted, row.sent, row.failed
    )?;
    if row.quarantined > 0 {
        let last = row.quarantine.as_deref().map(|text| format!("; last {}", plain(text))).unwrap_or_default();
        writeln!(out, "quarantine: {}{last}; see `spoolctl queue list --state quarantined`", row.quarantined)?;
    }
    let slots = if row.slots == 1 { "1 slot" } else { &format!("{} slots", row.slots) };
    writeln!(out, "tokens: {} out, {slots} for background work; gate {}", row.tokens_out, plain(&row.gate))
}

/// A line for each provider, and below it what is wrong or special.
pub(super) fn providers(out: &mut dyn Write, rows: &[ProviderRow]) -> io::Result<()> {
    if rows.is_empty() {
        return writeln!(out, "No providers are configured");
    }
    let mut table = Table::new(&[
        "PROVIDER", "KIND", "STATE", "FOR", "TOKEN", "FLYING", "READY", "DEFERRED", "CPU", "PID", "DOING",
    ]);
    for row in rows {
        table.row([
            row.name.clone(),
            row.kind.clone(),
            worker_word(row.state).to_owned(),
            since(row.since_ms),
            token_word(row.token).to_owned(),
            row.in_flight.to_string(),
            row.ready.to_string(),
            row.deferred.to_string(),
            format!("{}.{:01}s", row.cpu_ms / 1000, row.cpu_ms % 1000 / 100),
            row.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            doing(&row.text, row.progress, row.progress_text.as_deref()),
        ]);
    }
    table.write(out)?;
    for row in rows {
        remarks(out, row)?;
    }
    Ok(())
}

/// What the spooler does about a worker that overruns.
fn overrun_words(overrun: Overrun) -> &'static str {
    match overrun {
        Overrun::None | Overrun::Warned => "",
        Overrun::Penalized => ": penalized",
        Overrun::Demoted => ": runs when nobody else does",
        Overrun::Stopping => ": stopping",
        Overrun::Terminated | Overrun::Killed => ": is being made to go",
    }
}

fn remarks(out: &mut dyn Write, row: &ProviderRow) -> io::Result<()> {
    let name = plain(&row.name);
    if let Some(reason) = &row.critical {
        writeln!(out, "{name}: CRITICAL SECTION: {} ({})", plain(reason), plain(&row.priority))?;
    }
    if let Some(phase) = &row.phase {
        writeln!(out, "{name}: {}", plain(phase))?;
    }
    if !row.sandbox.is_empty() {
        writeln!(out, "{name}: sandbox: {}", plain(&row.sandbox))?;
    }
    if row.hasty_words > 0 {
        writeln!(out, "{name}: said {} words about its rows too fast; they were taken together", row.hasty_words)?;
    }
    if row.overdraft_ms > 0 {
        writeln!(out, "{name}: used {} ms of CPU past its slices{}", row.overdraft_ms, overrun_words(row.overrun))?;
    }
    if let Some(error) = &row.last_error {
        let deaths = if row.deaths > 0 { format!(" ({} deaths)", row.deaths) } else { String::new() };
        writeln!(out, "{name}: last error{deaths}: {}", plain(error))?;
    }
    Ok(())
}

fn added(out: &mut dyn Write, rows: &[AddedRow]) -> io::Result<()> {
    let mut table = Table::new(&["PROVIDER", "ROW", "DOING"]);
    for row in rows {
        let doing = doing(&row.text, row.progress, row.progress_text.as_deref());
        table.row([row.provider.clone(), row.row.clone(), doing]);
    }
    table.write(out)
}

fn messages(out: &mut dyn Write, rows: &[MessageRow]) -> io::Result<()> {
    let mut table = Table::new(&["MESSAGE", "PROVIDER", "FOR", "RECIPIENTS", "DONE", "PHASE"]);
    for row in rows {
        table.row([
            row.id.to_string(),
            row.provider.clone(),
            since(row.since_ms),
            row.recipients.to_string(),
            format!("{} of {} ({}%)", size(row.bytes), size(row.size), row.progress),
            format!("{} for {}", row.phase, since(row.phase_since_ms)),
        ]);
    }
    table.write(out)
}

/// What it does, and how far it is: `sending page 3 40% of 8 pages`.
fn doing(text: &str, progress: Option<u8>, of: Option<&str>) -> String {
    let percent = progress.map(|percent| format!("{percent}%"));
    let of = of.filter(|_| progress.is_some()).map(|of| format!("of {of}"));
    [Some(text.to_owned()), percent, of].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// How long ago something was.
fn since(ms: i64) -> String {
    span(u64::try_from(now_ms() - ms).unwrap_or_default() / 1000)
}

fn worker_word(state: WorkerState) -> &'static str {
    match state {
        WorkerState::Starting => "starting",
        WorkerState::Ready => "ready",
        WorkerState::Draining => "draining",
        WorkerState::Stopping => "stopping",
        WorkerState::Backoff => "backoff",
        WorkerState::Failed => "failed",
        WorkerState::Paused => "paused",
    }
}

fn token_word(state: TokenState) -> &'static str {
    match state {
        TokenState::Idle => "-",
        TokenState::Runnable => "runnable",
        TokenState::Running => "running",
        TokenState::Preempting => "preempting",
    }
}
