//! `sendmail`, `mailq` and `newaliases`: what programs of forty years expect to find on a Unix machine.
//!
//! This path starts in about a millisecond: no argument parser, no logging, one connection. What cannot be queued is said on standard
//! error and in the exit code; reporting by mail (`-oem`) is left to the caller, who still has the message.

mod argv;
mod compose;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;
mod input;
mod notice;
mod smtp;

use std::io::{self, Write};

use argv::{Mode, Options};
use compose::Composed;
use spooler_protocol::control::{Filter, FlushCommand, FlushProgress, MessageSummary, QueueCount};

use super::commands::alias;
use super::connection::{Control, block_on};
use super::failure::Failure;
use super::handover::{Handed, hand_over};
use super::identity::Identity;
use super::queue_path;
use super::show;

/// `sendmail ARGUMENTS`
pub(super) fn run(arguments: &[String], control: &Control) -> Result<(), Failure> {
    let options = argv::parse(arguments)?;
    match options.mode {
        Mode::Deliver => deliver(&options, control),
        Mode::Smtp => smtp::serve(control, &mut io::stdin().lock(), &mut io::stdout().lock()),
        Mode::Queue => mailq(control),
        Mode::Verify => verify(&options),
        Mode::Aliases => alias::renew(control),
        Mode::Flush => flush(control),
    }
}

/// `--help` of `sendmail`, `mailq` and `newaliases`.
pub(super) fn help(name: &str) -> Result<(), Failure> {
    let text = match name {
        "mailq" => "Usage: mailq\n\nLists the mail queue. See also: spoolctl queue list --help\n",
        "newaliases" => {
            "Usage: newaliases\n\nChecks the files of aliases and reads them again. See also: spoolctl alias --help\n"
        }
        _ => {
            "Usage: sendmail [OPTIONS] [RECIPIENT...] < MESSAGE\n\n  \
             -t          take the recipients from the header, too\n  \
             -i          a line with only a dot does not end the message\n  \
             -f ADDRESS  the envelope sender\n  \
             -F NAME     the sender's full name\n  \
             -v          say where the message went\n  \
             -bs, -bv    speak SMTP; check addresses only\n  \
             -bp, -bi    list the queue; check the aliases\n  \
             -q          flush the queue\n  \
             -N, -R, -V  delivery reports: when, how much, envelope ID (RFC 3461)\n"
        }
    };
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}

fn deliver(options: &Options, control: &Control) -> Result<(), Failure> {
    let mut message = input::read(&mut io::stdin().lock(), options.ignore_dots)?;
    let removed = input::remove_nul(&mut message);
    let identity = Identity::of_this_process();
    let composed = compose::compose(options, &identity, &message)?;
    let handed = hand_over(control, &composed.submit, &composed.content)?;
    if removed > 0 {
        let bytes = if removed == 1 { "byte" } else { "bytes" };
        writeln!(io::stderr().lock(), "sendmail: {removed} NUL {bytes} removed from the message; {handed}")?;
    }
    if options.verbose {
        writeln!(io::stdout().lock(), "{handed}")?;
    }
    report_unreadable(&composed, &handed, &identity.host, control)
}

/// Tells the sender which addresses got nothing: on standard error, and by mail, because the others were served.
fn report_unreadable(composed: &Composed, handed: &Handed, host: &str, control: &Control) -> Result<(), Failure> {
    for unreadable in &composed.unreadable {
        writeln!(io::stderr().lock(), "sendmail: {}", unreadable.why)?;
    }
    match notice::undelivered(composed, handed, host) {
        Some((submit, content)) => hand_over(control, &submit, content.as_bytes()).map(drop),
        None => Ok(()),
    }
}

/// A submission of `spoolctl`: the message as it is, unless the recipients are in its header.
pub(super) fn submission(
    sender: Option<String>,
    recipients: Vec<String>,
    read_recipients: bool,
    message: Vec<u8>,
) -> Result<Composed, Failure> {
    let options = Options { sender, recipients, read_recipients, ..Options::default() };
    let composed = compose::compose(&options, &Identity::of_this_process(), &message)?;
    if let Some(first) = composed.unreadable.into_iter().next() {
        return Err(Failure::Data(first.why));
    }
    let content = if read_recipients { composed.content } else { message };
    Ok(Composed { submit: composed.submit, content, unreadable: Vec::new() })
}

/// `-bv`: the addresses as they were understood.
fn verify(options: &Options) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    for address in compose::arguments(&options.recipients)? {
        writeln!(out, "{address}: the syntax is right; whether it can be delivered is known when it is tried")?;
    }
    Ok(())
}

/// `-q`: begins a flush and does not wait for it.
fn flush(control: &Control) -> Result<(), Failure> {
    block_on(async {
        control
            .flush(&FlushCommand { no_wait: true, ..FlushCommand::default() })
            .await?
            .next::<FlushProgress>()
            .await?;
        Ok(())
    })
}

/// `mailq`: the queue as mail programs print it.
pub(super) fn mailq(control: &Control) -> Result<(), Failure> {
    let (mut messages, mut bytes) = (0_u64, 0_u64);
    block_on(async {
        let mut lines = control.lines(&queue_path(&Filter::default())?).await?;
        let mut out = io::BufWriter::new(io::stdout().lock());
        while let Some(summary) = lines.next::<MessageSummary>().await? {
            if messages == 0 {
                writeln!(out, "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------")?;
            }
            messages += 1;
            bytes += summary.size;
            entry(&mut out, &summary)?;
        }
        let counted: QueueCount = control.get("/v1/messages/count").await?;
        out.write_all(mailq_end(messages, bytes, &counted).as_bytes())?;
        Ok(out.flush()?)
    })
}

/// The end of the listing, which programs parse: the last line counts every message of the queue, also those that the user may not see.
fn mailq_end(messages: u64, bytes: u64, counted: &QueueCount) -> String {
    let others = if counted.all_visible { 0 } else { counted.total.saturating_sub(messages) };
    let requests = |number: u64| if number == 1 { "1 Request".to_owned() } else { format!("{number} Requests") };
    let total = requests(messages + others);
    match (messages, others) {
        (0, 0) => "Mail queue is empty\n".to_owned(),
        (_, 0) => format!("-- {} Kbytes in {total}.\n", bytes.div_ceil(1024)),
        (0, _) => format!("You have no messages here ({others} of others)\n-- ? Kbytes in {total}.\n"),
        (_, _) => format!("Not shown: {others} of others\n-- ? Kbytes in {total}.\n"),
    }
}

/// One message; `*` is in flight and `!` is held or set aside, as Postfix marks them.
fn entry(out: &mut dyn Write, summary: &MessageSummary) -> io::Result<()> {
    use spooler_protocol::control::MessageState::{Deferred, Held, InFlight, Quarantined, Ready};
    let mark = match summary.state {
        InFlight => "*",
        Held | Quarantined => "!",
        Ready | Deferred => " ",
    };
    let sender = if summary.sender.is_empty() { "MAILER-DAEMON" } else { &summary.sender };
    let id = format!("{}{mark}", summary.id);
    let arrival = show::mailq_time(summary.submitted_ms);
    writeln!(out, "{id:<11} {:>8} {arrival:<20} {}", summary.size, show::plain(sender))?;
    if !summary.why.is_empty() {
        writeln!(out, "{:>41}({})", "", show::plain(&summary.why))?;
    }
    let unsettled = usize::try_from(summary.pending).unwrap_or(usize::MAX);
    for recipient in summary.recipients.iter().take(unsettled) {
        writeln!(out, "{:>41} {}", "", show::plain(recipient))?;
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mailq_never_calls_hidden_queues_empty() {
        let end = |messages, total, all_visible| {
            mailq_end(messages, 1500, &QueueCount { total, all_visible, ..QueueCount::default() })
        };
        assert_eq!(end(0, 0, false), "Mail queue is empty\n");
        assert_eq!(end(1, 1, true), "-- 2 Kbytes in 1 Request.\n");
        assert_eq!(end(10, 10, true), "-- 2 Kbytes in 10 Requests.\n");
        assert_eq!(end(0, 10, false), "You have no messages here (10 of others)\n-- ? Kbytes in 10 Requests.\n");
        assert_eq!(end(2, 10, false), "Not shown: 8 of others\n-- ? Kbytes in 10 Requests.\n");
    }
}
