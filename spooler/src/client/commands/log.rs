//! `spoolctl log`: what became of messages that have left the queue.

use std::io::{self, Write};
use std::time::Duration;

use spooler_protocol::history::{Fate, Finished, FinishedRecipient, HistoryFilter};

use crate::client::cli::Log;
use crate::client::connection::{Control, block_on};
use crate::client::failure::Failure;
use crate::client::show::{self, distance, exact_size, plain, short, span, time};
use crate::mail_log::remote;

/// Messages that are shown if nobody says how many.
const SHOWN: u64 = 50;
/// Messages that are shown before those that end from now on.
const SHOWN_BEFORE: u64 = 10;
/// How often new ones are asked for.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);
/// Recipients of a message that are shown.
const RECIPIENTS_MAX: usize = 10;
/// Columns before the reply of a recipient.
const INDENT: usize = 8;
/// Columns of a terminal that does not say how many it has.
const WIDTH: usize = 80;

pub(super) fn run(control: &Control, log: Log) -> Result<(), Failure> {
    let printer = Printer { json: log.json, width: width() };
    let mut filter = log.filter(show::now_ms());
    if !log.follow {
        let default = if log.json { None } else { Some(SHOWN) };
        filter.limit = filter.limit.or(default);
        return block_on(async {
            let mut out = io::BufWriter::new(io::stdout().lock());
            let mut lines = control.lines(&path(&filter)?).await?;
            let mut count = 0_u64;
            while let Some(finished) = lines.next::<Finished>().await? {
                printer.print(&mut out, &finished)?;
                count += 1;
            }
            if count == 0 && !log.json {
                writeln!(out, "No messages")?;
            }
            Ok(out.flush()?)
        });
    }
    filter.limit = filter.limit.or(Some(SHOWN_BEFORE));
    block_on(follow(control, filter, &printer))
}

/// Shows the newest, and then each that ends, until Ctrl-C.
async fn follow(control: &Control, mut filter: HistoryFilter, printer: &Printer) -> Result<(), Failure> {
    loop {
        let mut found = Vec::new();
        let mut lines = control.lines(&path(&filter)?).await?;
        while let Some(finished) = lines.next::<Finished>().await? {
            found.push(finished);
        }
        let mut out = io::stdout().lock();
        for finished in found.iter().rev() {
            printer.print(&mut out, finished)?;
        }
        out.flush()?;
        let newest = found.iter().map(|finished| finished.place).max();
        filter = HistoryFilter { after: newest.or(filter.after).or(Some(0)), limit: None, since_ms: None, ..filter };
        tokio::time::sleep(FOLLOW_EVERY).await;
    }
}

fn path(filter: &HistoryFilter) -> Result<String, Failure> {
    let query = serde_urlencoded::to_string(filter).map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(format!("/v1/history?{query}"))
}

/// Columns of the terminal; what goes to a file or a program is not cut.
fn width() -> Option<usize> {
    io::IsTerminal::is_terminal(&io::stdout()).then(|| {
        let window = rustix::termios::tcgetwinsize(io::stdout()).ok();
        window.map(|window| usize::from(window.ws_col)).filter(|columns| *columns >= 40).unwrap_or(WIDTH)
    })
}

struct Printer {
    json: bool,
    /// Columns that there are.
    width: Option<usize>,
}

impl Printer {
    fn print(&self, out: &mut dyn Write, finished: &Finished) -> io::Result<()> {
        if self.json {
            serde_json::to_writer(&mut *out, finished)?;
            return writeln!(out);
        }
        for recipient in finished.recipients.iter().take(RECIPIENTS_MAX) {
            let head = format!("{} {:>7} {:<9}", time(recipient.at_ms), finished.id.0, recipient.fate.word());
            let way = format!("{} > {}", sender_word(&finished.sender), recipient.address);
            let room = self.width.map_or(usize::MAX, |width| width.saturating_sub(head.chars().count() + 1));
            writeln!(out, "{head} {}", short(&way, room))?;
            let said = words(finished, recipient);
            let room = self.width.map_or(usize::MAX, |width| width.saturating_sub(INDENT));
            for line in wrapped(&plain(&said), room) {
                writeln!(out, "{:INDENT$}{line}", "")?;
            }
        }
        let unseen = finished.recipients.len().saturating_sub(RECIPIENTS_MAX);
        if unseen > 0 {
            writeln!(out, "{:INDENT$}and {unseen} more recipients: spoolctl queue show {}", "", finished.id.0)?;
        }
        Ok(())
    }
}

/// How it ended for a recipient, on one line.
fn words(finished: &Finished, recipient: &FinishedRecipient) -> String {
    let after = span((recipient.at_ms - finished.submitted_ms).max(0).unsigned_abs() / 1000);
    let by = finished.by_uid.filter(|_| matches!(recipient.fate, Fate::Discarded | Fate::Cancelled));
    let by = by.map(|uid| format!("by user {uid}"));
    let reply = recipient.reply.as_ref().map(|reply| {
        let code = if reply.code == 0 { String::new() } else { format!("{} ", reply.code) };
        let enhanced = if reply.enhanced.is_empty() { String::new() } else { format!("{} ", reply.enhanced) };
        format!("{code}{enhanced}{}", reply.text.replace('\n', " / "))
    });
    let remote = recipient.reply.as_ref().map(remote).filter(|remote| !remote.is_empty());
    let provider = recipient.provider.clone();
    let way = match (provider, remote) {
        (Some(provider), Some(remote)) => Some(format!("{provider} {remote}")),
        (provider, remote) => provider.or(remote.map(|remote| remote.into_owned())),
    };
    [by, way, reply].into_iter().flatten().chain([format!("after {after}")]).collect::<Vec<_>>().join(", ")
}

fn sender_word(sender: &str) -> &str {
    if sender.is_empty() { "<>" } else { sender }
}

/// A text in lines of at most so many columns, broken at spaces where there are some.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let used = lines.last().map_or(0, |line| line.chars().count());
        let length = word.chars().count();
        if used > 0 && used + 1 + length > columns {
            lines.push(String::new());
        }
        for (place, character) in word.chars().enumerate() {
            let Some(line) = lines.last_mut() else { continue };
            if place == 0 && !line.is_empty() {
                line.push(' ');
            }
            if line.chars().count() >= columns {
                lines.push(String::new());
            }
            if let Some(line) = lines.last_mut() {
                line.push(character);
            }
        }
    }
    lines
}

/// Everything about a message that has left the queue.
pub(super) fn describe(out: &mut dyn Write, finished: &Finished, now_ms: i64) -> io::Result<()> {
    let when = |ms: i64| format!("{} ({})", time(ms), distance(ms, now_ms));
    let by = finished.by_uid.map(|uid| format!(" by user {uid}")).unwrap_or_default();
    let facts = [
        ("Message", finished.id.to_string()),
        ("State", format!("{}{by}; no longer in the queue", finished.fate().word())),
        ("Sender", sender_word(&finished.sender).to_owned()),
        ("Size", exact_size(finished.size)),
        ("Submitted", when(finished.submitted_ms)),
        ("Ended", when(finished.ended_ms)),
        ("By", finished.origin.clone()),
    ];
    for (name, value) in facts {
        writeln!(out, "{name:<12} {}", plain(&value))?;
    }
    for recipient in &finished.recipients {
        let by = recipient.provider.as_ref().map(|provider| format!(" through {provider}")).unwrap_or_default();
        let attempts = if recipient.attempts == 1 { "attempt" } else { "attempts" };
        let tries = format!("{} {attempts}", recipient.attempts);
        writeln!(out, "\n  {}", plain(&recipient.address))?;
        if let Some(orcpt) = &recipient.orcpt {
            writeln!(out, "    addressed as {}", plain(orcpt))?;
        }
        writeln!(out, "    {}{}, {tries}, {}", recipient.fate.word(), plain(&by), when(recipient.at_ms))?;
        let Some(reply) = &recipient.reply else { continue };
        writeln!(out, "    {}", plain(&reply.to_string()))?;
        let Some(hop) = &reply.hop else { continue };
        let tls = if hop.tls.is_empty() { "no TLS".to_owned() } else { format!("{} with {}", hop.tls, hop.cipher) };
        let seconds = |ms: u64| format!("{}.{:03} s", ms / 1000, ms % 1000);
        let (connecting, transfer) = (seconds(hop.connecting_ms), seconds(hop.transfer_ms));
        writeln!(out, "    {}, {}, connecting {connecting}, transfer {transfer}", plain(&hop.peer), plain(&tls))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use spooler_protocol::history::End;
    use spooler_protocol::ids::MessageId;
    use spooler_protocol::outcome::{Cause, Hop, Reply};

    use super::*;

    fn finished() -> Finished {
        let hop = Hop { peer: "192.0.2.1:25".to_owned(), ..Hop::default() };
        let text = "2.1.5 a remote that has a very long story to tell of why it took this one message\u{1b}[2J";
        let reply = Reply {
            cause: Cause::Remote,
            remote: "mx.example.org[192.0.2.1]".to_owned(),
            ..Reply::local(250, "2.0.0", text)
        };
        let recipient = FinishedRecipient {
            address: format!("{}@example.org", "x".repeat(80)),
            orcpt: None,
            fate: Fate::Relayed,
            attempts: 1,
            at_ms: 61_000,
            provider: Some("relay".to_owned()),
            reply: Some(reply.by(hop)),
        };
        Finished {
            place: 9,
            id: MessageId(42),
            end: End::Settled,
            by_uid: None,
            sender: String::new(),
            size: 10,
            submitted_ms: 1000,
            ended_ms: 61_000,
            origin: "uid 0".to_owned(),
            recipients: vec![recipient],
        }
    }

    fn printed(width: Option<usize>) -> String {
        let mut out = Vec::new();
        Printer { json: false, width }.print(&mut out, &finished()).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_fit_the_terminal_and_files_get_everything() {
        for width in [40, 80, 120] {
            let printed = printed(Some(width));
            assert!(printed.lines().all(|line| line.chars().count() <= width), "{printed}");
        }
        let whole = printed(None);
        assert_eq!(whole.lines().count(), 2, "{whole}");
        assert!(whole.contains(&"x".repeat(80)) && whole.contains("mx.example.org[192.0.2.1]:25"), "{whole}");
        assert!(whole.contains(" 42 relayed   <> > ") && whole.contains(", after 1m"), "{whole}");
        assert!(!whole.contains('\u{1b}'));
    }

    #[test]
    fn finished_message_is_described_in_full() {
        let mut out = Vec::new();
        describe(&mut out, &finished(), 61_000).unwrap();
        let text = String::from_utf8(out).unwrap();
        for words in ["relayed; no longer in the queue", "relayed through relay, 1 attempt", "192.0.2.1:25, no TLS"] {
            assert!(text.contains(words), "{words} is missing in {text}");
        }
    }
}
