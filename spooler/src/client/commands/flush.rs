//! `spoolctl flush`: works the queue off and shows how far it is.

use std::io::{self, Write};

use indicatif::{ProgressBar, ProgressStyle};
use spooler_protocol::control::{FlushCommand, FlushProgress};
use tokio::signal::unix::{SignalKind, signal};

use crate::client::cli::Flush;
use crate::client::connection::{Control, Lines, block_on};
use crate::client::failure::Failure;
use crate::client::show::plain;

pub(super) fn run(control: &Control, flush: Flush) -> Result<(), Failure> {
    let Flush { provider, outbound, inbound, no_wait, stop } = flush;
    let command = FlushCommand { provider, outbound, inbound, no_wait, stop };
    block_on(async {
        // Before anything is begun, so that Ctrl-C never goes by unnoticed.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut lines = control.flush(&command).await?;
        if stop || no_wait {
            let first = lines.next::<FlushProgress>().await?;
            return Ok(writeln!(io::stdout().lock(), "{}", begun(&command, first))?);
        }
        let watched = tokio::select! {
            watched = watch(lines) => watched?,
            _ = interrupt.recv() => {
                let text = "Stopped watching; what is queued is delivered in the background like any message";
                return Err(Failure::Interrupted(text.to_owned()));
            }
        };
        Ok(writeln!(io::stdout().lock(), "{}", summary(&watched))?)
    })
}

/// Shows a bar on a terminal, nothing elsewhere; gives the last word.
async fn watch(mut lines: Lines) -> Result<FlushProgress, Failure> {
    // Hides itself when standard error is not a terminal.
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    let result = loop {
        match lines.next::<FlushProgress>().await {
            Ok(Some(progress)) => {
                bar.set_length(progress.total);
                bar.set_position(progress.attempted);
                bar.set_message(plain(&progress.why));
                if progress.done {
                    break Ok(progress);
                }
            }
            Ok(None) => {
                break Err(Failure::Temporary("The spooler stopped before the queue was worked off".to_owned()));
            }
            Err(failure) => break Err(failure),
        }
    };
    bar.finish_and_clear();
    result
}

/// What is said of a flush that nobody waits for, or of its end.
fn begun(command: &FlushCommand, progress: Option<FlushProgress>) -> String {
    let total = progress.map_or(0, |progress| progress.total);
    match total {
        _ if command.stop => "No flush runs any more there; what is queued is delivered in the background".to_owned(),
        0 => "A flush has begun; nothing waits to go out".to_owned(),
        _ => format!("A flush has begun; {total} messages wait to go out"),
    }
}

fn summary(progress: &FlushProgress) -> String {
    let FlushProgress { total, attempted, sent, not_sent, received, .. } = progress;
    let why = if progress.why.is_empty() { String::new() } else { format!(" ({})", plain(&progress.why)) };
    let received = if *received == 0 { String::new() } else { format!("; {received} received") };
    if *total == 0 {
        return format!("Nothing was waiting{why}{received}");
    }
    format!("{attempted} of {total} messages attempted{why}; recipients: {sent} sent, {not_sent} not sent{received}")
}
