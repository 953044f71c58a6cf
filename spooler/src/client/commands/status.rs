//! `spoolctl status`: the status table for people, once or as it changes.

use std::io::{self, IsTerminal, Write};

use spooler_protocol::status::{MessageRow, Overrun, ProviderRow, StatusTable, SupervisorRow, TokenState, WorkerState};
use tokio::signal::unix::{SignalKind, signal};

use super::print_json;
use crate::client::connection::{Control, block_on};
use crate::client::failure::Failure;
use crate::client::show::{Table, plain, size, span};

/// Shows the table as it is now.
pub(super) fn once(control: &Control, json: bool) -> Result<(), Failure> {
    let table: StatusTable = block_on(control.get("/v1/status"))?;
    if json { print_json(&table) } else { Ok(write(&mut io::stdout().lock(), &table)?) }
}

/// Shows the table after each change: in place on a terminal, one below the other elsewhere.
pub(super) fn watch(control: &Control, json: bool) -> Result<(), Failure> {
    let in_place = !json && io::stdout().is_terminal();
    block_on(async {
        // Before the screen is touched, so that it is always put right.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let screen = in_place.then(Screen::open).transpose()?;
        let mut lines = control.lines("/v1/status/watch").await?;
        loop {
            let next = tokio::select! {
                next = lines.next::<StatusTable>() => next?,
                _ = interrupt.recv() => return Ok(()),
            };
            let stopped = || Failure::Temporary("The spooler stopped".to_owned());
            let table = next.ok_or_else(stopped)?;
            match &screen {
                Some(screen) => screen.draw(&table)?,
                None if json => print_json(&table)?,
                None => {
                    let mut out = io::stdout().lock();
                    write(&mut out, &table)?;
                    writeln!(out)?;
                }
            }
        }
    })
}

/// The terminal while a table is redrawn in place; put right again at the end.
struct Screen;

impl Screen {
    fn open() -> io::Result<Self> {
        // Clear, and cut long lines off instead of wrapping them.
        io::stdout().write_all(b"\x1b[2J\x1b[?7l")?;
        Ok(Self)
    }

    fn draw(&self, table: &StatusTable) -> io::Result<()> {
        let mut text = Vec::new();
        write(&mut text, table)?;
        let text = String::from_utf8_lossy(&text);
        // Some terminals do not know their size and say 0.
        let window = rustix::termios::tcgetwinsize(io::stdout()).ok().filter(|window| window.ws_row > 0);
        let rows = window.map_or(24, |window| usize::from(window.ws_row));
        let mut frame = String::from("\x1b[H");
        for (place, line) in text.lines().take(rows.saturating_sub(1)).enumerate() {
            frame.push_str(if place == 0 { "" } else { "\r\n" });
            frame.push_str(line);
            frame.push_str("\x1b[K");
        }
        frame.push_str("\x1b[J");
        let mut out = io::stdout().lock();
        out.write_all(frame.as_bytes())?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = io::stdout().lock();
        let _ = out.write_all(b"\x1b[?7h\r\n").and_then(|()| out.flush());
    }
}

fn write(out: &mut dyn Write, table: &StatusTable) -> io::Result<()> {
    supervisor(out, &table.supervisor)?;
    writeln!(out)?;
    providers(out, &table.providers)?;
    if !table.messages.is_empty() {
        writeln!(out)?;
        messages(out, &table.messages)?;
    }
    Ok(())
}

fn supervisor(out: &mut dyn Write, row: &SupervisorRow) -> io::Result<()> {
    let up = span(row.up_s);
    writeln!(out, "spooler {} (pid {}, up {up}): {}", plain(&row.version), row.pid, plain(&row.text))?;
    writeln!(
        out,
        "queue: {} messages, {} ready, {} in flight, {} deferred, {} held; since the start {} accepted, {} sent, {} failed",
        row.queued, row.ready, row.in_flight, row.deferred, row.held, row.accepted, row.sent, row.failed
    )?;
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
        let progress = row.progress.map(|percent| format!(" {percent}%")).unwrap_or_default();
        table.row([
            row.name.clone(),
            row.kind.clone(),
            worker_word(row.state).to_owned(),
            span(row.since_s),
            token_word(row.token).to_owned(),
            row.in_flight.to_string(),
            row.ready.to_string(),
            row.deferred.to_string(),
            format!("{}.{:01}s", row.cpu_ms / 1000, row.cpu_ms % 1000 / 100),
            row.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            format!("{}{progress}", row.text),
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
        Overrun::Charged => ": charged twice",
        Overrun::Demoted => ": runs when nobody else does",
        Overrun::Asked => ": was asked to go",
        Overrun::Terminated | Overrun::Killed => ": is being made to go",
    }
}

fn remarks(out: &mut dyn Write, row: &ProviderRow) -> io::Result<()> {
    let name = plain(&row.name);
    if let Some(reason) = &row.critical {
        writeln!(out, "{name}: CRITICAL SECTION: {} ({})", plain(reason), plain(&row.priority))?;
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

fn messages(out: &mut dyn Write, rows: &[MessageRow]) -> io::Result<()> {
    let mut table = Table::new(&["MESSAGE", "PROVIDER", "FOR", "RECIPIENTS", "DONE", "PHASE"]);
    for row in rows {
        table.row([
            row.id.to_string(),
            row.provider.clone(),
            span(row.since_ms / 1000),
            row.recipients.to_string(),
            format!("{} of {}", size(row.bytes), size(row.size)),
            row.phase.clone(),
        ]);
    }
    table.write(out)
}

fn worker_word(state: WorkerState) -> &'static str {
    match state {
        WorkerState::Starting => "starting",
        WorkerState::Ready => "ready",
        WorkerState::Draining => "draining",
        WorkerState::Stopping => "stopping",
        WorkerState::Waiting => "waiting",
        WorkerState::Barred => "barred",
        WorkerState::Paused => "paused",
    }
}

fn token_word(state: TokenState) -> &'static str {
    match state {
        TokenState::Idle => "-",
        TokenState::Wanting => "wanting",
        TokenState::Running => "running",
        TokenState::Recalled => "recalled",
    }
}
