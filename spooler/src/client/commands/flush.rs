//! `spoolctl flush`: delivers what is queued now and shows how far it is.

use std::io::{self, IsTerminal, Write};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use spooler_protocol::control::{FlushCommand, FlushFailure, FlushProgress, MessageDetail};
use tokio::signal::unix::{SignalKind, signal};

use crate::client::cli::Flush;
use crate::client::connection::{Control, Lines, block_on};
use crate::client::failure::Failure;
use crate::client::layout::{Page, count};
use crate::client::show::plain;
use crate::client::terminal;

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
        let title = command.provider.clone().unwrap_or_else(|| "all providers".to_owned());
        let progress = tokio::select! {
            watched = watch(lines, &title) => watched?,
            _ = interrupt.recv() => {
                let text = "Stopped watching; what is queued is delivered in the background like any message";
                return Err(Failure::Interrupted(text.to_owned()));
            }
        };
        let mut named = Vec::new();
        for failure in &progress.failures {
            named.push((failure.clone(), recipient_of(control, failure).await));
        }
        io::stdout().lock().write_all(summary(&progress, &named, terminal::page()).as_bytes())?;
        outcome(&progress)
    })
}

/// The address of a recipient that failed; nothing if its message has left the queue.
async fn recipient_of(control: &Control, failure: &FlushFailure) -> Option<String> {
    let detail: MessageDetail = control.get(&format!("/v1/messages/{}", failure.id)).await.ok()?;
    let place = usize::try_from(failure.recipient).ok()?;
    detail.recipient_details.get(place).map(|recipient| recipient.address.clone())
}

/// What the exit code says: 75 if any recipient failed or was deferred, or any message was not attempted.
fn outcome(progress: &FlushProgress) -> Result<(), Failure> {
    let left = progress.total.saturating_sub(progress.attempted);
    match (progress.not_sent, left) {
        (0, 0) => Ok(()),
        (0, left) => Err(Failure::Temporary(format!("{} not attempted", count(left, "message")))),
        (not_sent, _) => Err(Failure::Temporary(format!("{} not delivered", count(not_sent, "recipient")))),
    }
}

/// Shows a bar on a terminal, nothing elsewhere; gives the last progress.
async fn watch(mut lines: Lines, title: &str) -> Result<FlushProgress, Failure> {
    // Hides itself when standard error is not a terminal.
    let bar = if io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:20} {pos}/{len} {wide_msg}") {
        bar.set_style(style);
    }
    bar.set_prefix(plain(title));
    let begun = Instant::now();
    let result = loop {
        match lines.next::<FlushProgress>().await {
            Ok(Some(progress)) => {
                bar.set_length(progress.total);
                bar.set_position(progress.attempted);
                bar.set_message(bar_text(&progress, begun.elapsed().as_secs()));
                if progress.done {
                    break Ok(progress);
                }
            }
            Ok(None) => {
                break Err(Failure::Temporary("The spooler stopped before the flush was done".to_owned()));
            }
            Err(failure) => break Err(failure),
        }
    };
    bar.finish_and_clear();
    result
}

/// What is said beside the bar: the rate, how many failed, and what it waits for.
fn bar_text(progress: &FlushProgress, elapsed_s: u64) -> String {
    let rate = progress.attempted.checked_div(elapsed_s).filter(|rate| *rate > 0).map(|rate| format!("{rate}/s"));
    let failed = (progress.not_sent > 0).then(|| format!("{} not delivered", progress.not_sent));
    let why = (!progress.why.is_empty()).then(|| plain(&progress.why));
    rate.into_iter().chain(failed).chain(why).collect::<Vec<_>>().join(", ")
}

/// What is said of a flush that goes on without the client, or of its end.
fn begun(command: &FlushCommand, progress: Option<FlushProgress>) -> String {
    let total = progress.map_or(0, |progress| progress.total);
    match total {
        _ if command.stop => "The flush is stopped; what is queued is delivered in the background".to_owned(),
        0 => "The flush has begun; no message waits to go out".to_owned(),
        _ => format!("The flush has begun; {} to deliver", count(total, "message")),
    }
}

/// How it went, and which recipients were not delivered, with the reason.
fn summary(progress: &FlushProgress, named: &[(FlushFailure, Option<String>)], page: Page) -> String {
    let FlushProgress { total, attempted, sent, not_sent, received, .. } = progress;
    let why = if progress.why.is_empty() { String::new() } else { format!(" ({})", plain(&progress.why)) };
    let received = if *received == 0 { String::new() } else { format!("; {} received", count(*received, "message")) };
    let first = if *total == 0 {
        format!("No message was waiting{why}{received}")
    } else {
        let messages = count(*total, "message");
        format!(
            "{attempted} of {messages} attempted{why}; recipients: {sent} delivered, {not_sent} not delivered{received}"
        )
    };
    let mut out = page.hanging("", &first, 4) + "\n";
    for (failure, address) in named {
        let to = address.as_ref().map(|address| format!(" to {address}")).unwrap_or_default();
        let how = if failure.permanent { "failed" } else { "deferred" };
        let text = format!("{}{to}: {how} by {}: {}", failure.id, failure.provider, failure.reason);
        out.push_str(&page.hanging("  ", &plain(&text), 4));
        out.push('\n');
    }
    let more = not_sent.saturating_sub(named.len() as u64);
    if more > 0 {
        out.push_str(&format!("  and {more} more; `spoolctl queue list --state deferred` shows what waits\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(total: u64, attempted: u64, sent: u64, not_sent: u64) -> FlushProgress {
        let (why, failures) = (String::new(), Vec::new());
        FlushProgress { total, attempted, sent, not_sent, received: 0, done: true, why, failures }
    }

    #[test]
    fn summary_names_failures() {
        let refused = FlushFailure {
            id: spooler_protocol::ids::MessageId(7),
            recipient: 0,
            provider: "relay".to_owned(),
            permanent: false,
            reason: "450 4.2.1 Try later".to_owned(),
        };
        let named = [(refused, Some("b@x.test".to_owned()))];
        let page = Page { columns: 50, colour: false };
        let expected = "\
1 of 1 message attempted; recipients: 0 delivered,
    2 not delivered
  7 to b@x.test: deferred by relay: 450 4.2.1 Try
    later
  and 1 more; `spoolctl queue list --state deferred` shows what waits
";
        assert_eq!(summary(&progress(1, 1, 0, 2), &named, page), expected);
    }

    #[test]
    fn exit_code_tells_failures() {
        assert!(outcome(&progress(0, 0, 0, 0)).is_ok() && outcome(&progress(2, 2, 2, 0)).is_ok());
        for progress in [progress(1, 1, 0, 1), progress(2, 1, 1, 0)] {
            assert_eq!(outcome(&progress).unwrap_err().code(), 75);
        }
    }

    #[test]
    fn bar_tells_rate_and_reason() {
        let progress = FlushProgress { why: "waits for the greeting".to_owned(), ..progress(60, 20, 18, 2) };
        assert_eq!(bar_text(&progress, 10), "2/s, 2 not delivered, waits for the greeting");
        assert_eq!(bar_text(&progress, 0), "2 not delivered, waits for the greeting");
    }
}
