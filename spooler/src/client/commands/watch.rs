//! `spoolctl status --watch`: the table as it changes, in place on a terminal, one below the other elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use spooler_protocol::status::StatusTable;
use spooler_protocol::watching::{StatusNews, StatusUpdate};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use super::{print_json, status};
use crate::client::connection::{Control, Lines, block_on};
use crate::client::failure::Failure;
use crate::client::layout::Page;
use crate::client::show::now_ms;
use crate::client::terminal;

/// The least time between two pictures.
const DRAW_EVERY: Duration = Duration::from_millis(200);
/// A picture is drawn again after so long even if nothing has changed, because it says how long things have been so.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// The last line of the screen.
const HELP: &str = "Ctrl-C ends this";

/// Shows the table after each change; as JSON each line as it comes.
pub(super) fn run(control: &Control, json: bool) -> Result<(), Failure> {
    block_on(async {
        // Before the screen is touched, so that it is always put right.
        let interrupt = signal(SignalKind::interrupt())?;
        let lines = control.lines("/v1/status/watch").await?;
        if json { copy(lines, interrupt).await } else { show(lines, interrupt).await }
    })
}

async fn copy(mut lines: Lines, mut interrupt: Signal) -> Result<(), Failure> {
    loop {
        let next = tokio::select! {
            next = lines.next::<StatusUpdate>() => next?,
            _ = interrupt.recv() => return Ok(()),
        };
        print_json(&next.ok_or_else(stopped)?)?;
    }
}

async fn show(mut lines: Lines, mut interrupt: Signal) -> Result<(), Failure> {
    let screen = io::stdout().is_terminal().then(Screen::open).transpose()?;
    let mut table: Option<StatusTable> = None;
    // When a picture was drawn last, and whether it is out of date.
    let (mut drawn, mut stale) = (None, false);
    loop {
        let due = drawn.map_or_else(Instant::now, |drawn| drawn + if stale { DRAW_EVERY } else { REFRESH_EVERY });
        let redraws = table.is_some() && (stale || screen.is_some());
        tokio::select! {
            next = lines.next::<StatusUpdate>() => {
                stale |= bring_up_to_date(&mut table, next?.ok_or_else(stopped)?);
            }
            () = sleep_until(due), if redraws => {
                (drawn, stale) = (Some(Instant::now()), false);
                if let Some(table) = &table {
                    draw(screen.as_ref(), table)?;
                }
            }
            _ = interrupt.recv() => return Ok(()),
        }
    }
}

/// Takes a line; tells whether there is something to see.
fn bring_up_to_date(table: &mut Option<StatusTable>, update: StatusUpdate) -> bool {
    match (update.news, table) {
        (StatusNews::Snapshot(new), table) => *table = Some(*new),
        (StatusNews::Changes(changes), Some(table)) => changes.into_iter().for_each(|change| table.apply(change)),
        // Changes of nothing: a snapshot always comes first.
        (StatusNews::Changes(_), None) => return false,
    }
    true
}

fn draw(screen: Option<&Screen>, table: &StatusTable) -> io::Result<()> {
    match screen {
        Some(screen) => screen.draw(table),
        None => {
            let mut out = io::stdout().lock();
            out.write_all(status::screen(table, Page::PLAIN, now_ms()).as_bytes())?;
            writeln!(out)
        }
    }
}

fn stopped() -> Failure {
    Failure::Temporary("The spooler stopped".to_owned())
}

/// The lines of a text that a window of `rows` has room for above the last line, and how many are missing.
fn fit(text: &str, rows: usize) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let room = rows.saturating_sub(1);
    if lines.len() <= room {
        return lines.into_iter().map(str::to_owned).collect();
    }
    let shown = room.saturating_sub(1);
    let mut fitting: Vec<String> = lines.iter().take(shown).map(|line| (*line).to_owned()).collect();
    fitting.push(format!("... {} more lines; make the window higher, or run `spoolctl status`", lines.len() - shown));
    fitting
}

/// The terminal while a table is redrawn in place; put right again at the end.
struct Screen;

impl Screen {
    fn open() -> io::Result<Self> {
        // Clear; lines fit, and one that does not is cut off.
        io::stdout().write_all(b"\x1b[2J\x1b[?7l")?;
        Ok(Self)
    }

    fn draw(&self, table: &StatusTable) -> io::Result<()> {
        let text = status::screen(table, terminal::page(), now_ms());
        // Some terminals do not know their size and say 0.
        let window = rustix::termios::tcgetwinsize(io::stdout()).ok().filter(|window| window.ws_row > 0);
        let rows = window.map_or(24, |window| usize::from(window.ws_row));
        let mut frame = String::from("\x1b[H");
        for line in fit(&text, rows) {
            frame.push_str(&line);
            frame.push_str("\x1b[K\r\n");
        }
        frame.push_str(HELP);
        frame.push_str("\x1b[K");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_tells_what_it_hides() {
        assert_eq!(fit("a\nb\n", 3), ["a", "b"]);
        let cut = fit("a\nb\nc\nd\n", 4);
        assert_eq!(cut, ["a", "b", "... 2 more lines; make the window higher, or run `spoolctl status`"]);
    }
}
