//! `spoolctl status`: the status table for people. How it is shown as it changes is in `watch`.

use std::io::{self, Write};

use spooler_protocol::status::{
    AddedRow, MessageRow, Overrun, ProviderRow, StatusCode, StatusTable, SupervisorRow, WorkerState,
};

use super::print_json;
use crate::client::connection::{Control, block_on};
use crate::client::failure::Failure;
use crate::client::layout::{Cell, Page, Side, Table, Tone, count};
use crate::client::show::{now_ms, plain, size, span, upcoming};
use crate::client::terminal;

/// Shows the table as it is now.
pub(super) fn once(control: &Control, json: bool) -> Result<(), Failure> {
    let table: StatusTable = block_on(control.get("/v1/status"))?;
    if json {
        return print_json(&table);
    }
    Ok(io::stdout().lock().write_all(screen(&table, terminal::page(), now_ms()).as_bytes())?)
}

/// The whole table for people.
pub(super) fn screen(table: &StatusTable, page: Page, now_ms: i64) -> String {
    let mut parts = vec![supervisor(&table.supervisor, page, now_ms), providers(&table.providers, page, now_ms)];
    if !table.added.is_empty() {
        parts.push(added(&table.added, page));
    }
    if !table.messages.is_empty() {
        parts.push(messages(&table.messages, page, now_ms));
    }
    parts.join("\n")
}

fn supervisor(row: &SupervisorRow, page: Page, now_ms: i64) -> String {
    let up = since(row.started_ms, now_ms);
    let mut lines = vec![
        format!("spooler {} (pid {}, up {up}): {}", row.version, row.pid, row.text),
        format!(
            "queue: {}, {} ready, {} in flight, {} deferred, {} held",
            count(row.queued, "message"),
            row.ready,
            row.in_flight,
            row.deferred,
            row.held
        ),
        format!("since the start: {} accepted, {} delivered, {} failed", row.accepted, row.sent, row.failed),
    ];
    if row.quarantined > 0 {
        let last = row.quarantine.as_deref().map(|text| format!("; last {text}")).unwrap_or_default();
        lines.push(format!("quarantine: {}{last}; see `spoolctl queue list --state quarantined`", row.quarantined));
    }
    if row.queued > 0 && (row.slots == 0 || row.gate.starts_with("closed")) {
        lines.push(format!("background work: gate {}", row.gate));
    }
    let wrapped = lines.iter().map(|line| page.hanging("", &plain(line), 4) + "\n");
    wrapped.collect()
}

/// A line for each provider, and below it what is wrong or special.
pub(super) fn providers(rows: &[ProviderRow], page: Page, now_ms: i64) -> String {
    if rows.is_empty() {
        return "No providers are configured\n".to_owned();
    }
    let mut table = Table::new(&[
        ("PROVIDER", Side::Left),
        ("KIND", Side::Left),
        ("STATE", Side::Left),
        ("FOR", Side::Right),
        ("READY", Side::Right),
        ("SENDING", Side::Right),
        ("DEFERRED", Side::Right),
        ("SERVES", Side::Left),
    ]);
    for row in rows {
        let (state, tone) = state(row);
        let cells = vec![
            Cell::new(&row.name),
            Cell::new(&row.kind),
            Cell::new(state).toned(tone),
            Cell::new(&since(row.since_ms, now_ms)),
            row.ready.into(),
            row.in_flight.into(),
            row.deferred.into(),
            Cell::new(&row.identity),
        ];
        table.row(cells, notes(row, now_ms));
    }
    table.lay_out(page)
}

/// The word for what a provider is doing.
fn state(row: &ProviderRow) -> (&'static str, Tone) {
    match row.state {
        WorkerState::Ready if row.code.contains(StatusCode::FAILURE) => ("failed", Tone::Red),
        WorkerState::Ready if row.code.contains(StatusCode::OFFLINE) => ("offline", Tone::Yellow),
        WorkerState::Ready => ("ready", Tone::Plain),
        WorkerState::Starting => ("starting", Tone::Plain),
        WorkerState::Draining => ("draining", Tone::Yellow),
        WorkerState::Stopping => ("stopping", Tone::Yellow),
        WorkerState::Backoff => ("backoff", Tone::Red),
        WorkerState::Failed => ("failed", Tone::Red),
        WorkerState::Paused => ("paused", Tone::Yellow),
    }
}

/// What the spooler does about a worker that overruns.
fn overrun_words(overrun: Overrun) -> &'static str {
    match overrun {
        Overrun::None | Overrun::Warned => "",
        Overrun::Penalized => "; its share is reduced",
        Overrun::Demoted => "; runs only when no other provider does",
        Overrun::Stopping => "; being logged off",
        Overrun::Terminated | Overrun::Killed => "; being stopped",
    }
}

/// The sentences below a provider's line: each reason once, nothing that is over, nothing that is as it should be.
fn notes(row: &ProviderRow, now_ms: i64) -> Vec<String> {
    let mut notes = Vec::new();
    let doing = doing(&row.text, row.progress, row.progress_text.as_deref());
    if doing != "idle" && doing != state(row).0 {
        notes.push(doing);
    }
    if let Some(ms) = row.next_start_ms {
        notes.push(format!("next start {}", upcoming(ms, now_ms)));
    }
    if let Some(reason) = &row.critical {
        notes.push(format!("critical section: {reason} ({})", row.priority));
    }
    notes.extend(row.phase.clone());
    if row.overrun != Overrun::None {
        notes.push(format!("used {} ms of CPU past its slices{}", row.overdraft_ms, overrun_words(row.overrun)));
    }
    if is_weak(&row.sandbox) {
        notes.push(format!("sandbox: {}", row.sandbox));
    }
    let is_over = row.state == WorkerState::Ready && !row.code.contains(StatusCode::FAILURE);
    if let Some(error) = row.last_error.as_ref().filter(|_| !is_over)
        && !notes.iter().any(|note| note.contains(error.as_str()))
    {
        notes.push(format!("last error: {error}"));
    }
    if row.deaths > 0 && !is_over {
        notes.push(format!("its worker has died {}", times(row.deaths)));
    }
    notes
}

fn times(number: u64) -> String {
    if number == 1 { "once".to_owned() } else { format!("{number} times") }
}

/// Whether a sandbox lacks what the kernel could not give, or is switched off.
fn is_weak(sandbox: &str) -> bool {
    sandbox.starts_with("none") || sandbox.contains("no Landlock") || sandbox.contains("no seccomp")
}

fn added(rows: &[AddedRow], page: Page) -> String {
    let mut table = Table::new(&[("PROVIDER", Side::Left), ("ROW", Side::Left), ("DOING", Side::Left)]);
    for row in rows {
        let doing = doing(&row.text, row.progress, row.progress_text.as_deref());
        table.row(vec![Cell::new(&row.provider), Cell::new(&row.row), Cell::new(&doing)], Vec::new());
    }
    table.lay_out(page)
}

fn messages(rows: &[MessageRow], page: Page, now_ms: i64) -> String {
    let mut table = Table::new(&[
        ("MESSAGE", Side::Right),
        ("PROVIDER", Side::Left),
        ("FOR", Side::Right),
        ("RECIPIENTS", Side::Right),
        ("DONE", Side::Left),
        ("PHASE", Side::Left),
    ]);
    for row in rows {
        let cells = vec![
            Cell::new(&row.id.to_string()),
            Cell::new(&row.provider),
            Cell::new(&since(row.since_ms, now_ms)),
            u64::from(row.recipients).into(),
            Cell::new(&format!("{}% of {}", row.progress, size(row.size))),
            Cell::new(&format!("{} for {}", row.phase, since(row.phase_since_ms, now_ms))),
        ];
        table.row(cells, Vec::new());
    }
    table.lay_out(page)
}

/// What it does, and how far it is: `sending page 3, 40% of 8 pages`.
fn doing(text: &str, progress: Option<u8>, of: Option<&str>) -> String {
    let of = of.map(|of| format!(" of {of}")).unwrap_or_default();
    progress.map_or_else(|| text.to_owned(), |percent| format!("{text}, {percent}%{of}"))
}

/// How long ago something was.
fn since(ms: i64, now_ms: i64) -> String {
    span(u64::try_from(now_ms.saturating_sub(ms)).unwrap_or_default() / 1000)
}

#[cfg(test)]
mod tests {
    use spooler_protocol::ids::{DeliveryId, Generation, MessageId};
    use spooler_protocol::status::TokenState;

    use super::*;

    const NOW_MS: i64 = 1_795_356_300_000;

    fn provider(name: &str, kind: &str, state: WorkerState, age_s: i64) -> ProviderRow {
        ProviderRow {
            name: name.to_owned(),
            kind: kind.to_owned(),
            display: String::new(),
            code: StatusCode::default(),
            state,
            text: "idle".to_owned(),
            progress: None,
            progress_text: None,
            phase: None,
            identity: String::new(),
            methods: Default::default(),
            validate_ok: true,
            hasty_words: 0,
            resource: None,
            pid: None,
            generation: Generation::default(),
            since_ms: NOW_MS - age_s * 1000,
            next_start_ms: None,
            token: TokenState::Idle,
            in_flight: 0,
            ready: 0,
            deferred: 0,
            cpu_ms: 0,
            overdraft_ms: 0,
            overrun: Overrun::None,
            priority: String::new(),
            sandbox: "Landlock ABI 7, seccomp, uid 60706, no capabilities".to_owned(),
            critical: None,
            deaths: 0,
            last_error: None,
        }
    }

    fn supervisor_row() -> SupervisorRow {
        SupervisorRow {
            pid: 7,
            version: "0.1.0".to_owned(),
            code: StatusCode::AVAILABLE,
            text: "running".to_owned(),
            started_ms: NOW_MS - 200_000,
            slots: 2,
            gate: "open: others use 0.2 of 2 cores".to_owned(),
            tokens_out: 0,
            queued: 1,
            ready: 0,
            in_flight: 1,
            deferred: 2,
            held: 0,
            quarantined: 0,
            quarantine: None,
            accepted: 4,
            sent: 3,
            failed: 0,
        }
    }

    fn table() -> StatusTable {
        let why = "4.4.1 Cannot connect to 192.0.2.1:587: Network is unreachable, as is every other address";
        let relay = ProviderRow {
            code: StatusCode::OFFLINE,
            text: why.to_owned(),
            identity: "mail.example.net:587".to_owned(),
            deferred: 1,
            last_error: Some("cured".to_owned()),
            ..provider("relay", "smtp", WorkerState::Ready, 37)
        };
        let desk = ProviderRow {
            text: "exit code 3".to_owned(),
            last_error: Some("exit code 3".to_owned()),
            next_start_ms: Some(NOW_MS + 32_000),
            deaths: 1,
            ..provider("desk", "pipe", WorkerState::Backoff, 20)
        };
        let local = ProviderRow {
            identity: "/home/{local}/Maildir".to_owned(),
            in_flight: 1,
            sandbox: "none: switched off in the configuration".to_owned(),
            ..provider("local", "maildir", WorkerState::Ready, 200)
        };
        let message = MessageRow {
            delivery: DeliveryId(1),
            id: MessageId(42),
            provider: "local".to_owned(),
            code: StatusCode::OUTBOUND_ACTIVE,
            phase: "waiting for the greeting of mail.example.net[192.0.2.1]:25".to_owned(),
            phase_since_ms: NOW_MS - 42_000,
            progress: 50,
            bytes: 131,
            size: 263,
            recipients: 1,
            since_ms: NOW_MS - 43_000,
        };
        StatusTable {
            supervisor: supervisor_row(),
            providers: vec![relay, desk, local],
            added: Vec::new(),
            messages: vec![message],
        }
    }

    #[test]
    fn status_fits_eighty_columns() {
        let next = upcoming(NOW_MS + 32_000, NOW_MS);
        let expected = format!(
            "\
spooler 0.1.0 (pid 7, up 3m20s): running
queue: 1 message, 0 ready, 1 in flight, 2 deferred, 0 held
since the start: 4 accepted, 3 delivered, 0 failed

PROVIDER  KIND     STATE      FOR  READY  SENDING  DEFERRED  SERVES
relay     smtp     offline    37s      0        0         1
    mail.example.net:587
    4.4.1 Cannot connect to 192.0.2.1:587: Network is unreachable, as is every
    other address
desk      pipe     backoff    20s      0        0         0
    exit code 3
    next start {next}
    its worker has died once
local     maildir  ready    3m20s      0        1         0
    /home/{{local}}/Maildir
    sandbox: none: switched off in the configuration

MESSAGE  PROVIDER  FOR  RECIPIENTS  DONE          PHASE
     42  local     43s           1  50% of 263 B  waiting for the greeting of
                                                  mail.example.net[192.0.2.1]:25
                                                  for 42s
"
        );
        assert_eq!(screen(&table(), Page { columns: 80, colour: false }, NOW_MS), expected);
    }

    #[test]
    fn cured_errors_are_not_shown() {
        let text = screen(&table(), Page::PLAIN, NOW_MS);
        assert!(!text.contains("cured") && text.matches("exit code 3").count() == 1, "{text}");
    }

    #[test]
    fn states_are_coloured_on_terminals() {
        let text = screen(&table(), Page { columns: 120, colour: true }, NOW_MS);
        assert!(text.contains("\u{1b}[33moffline\u{1b}[0m") && text.contains("\u{1b}[31mbackoff\u{1b}[0m"), "{text:?}");
    }
}
