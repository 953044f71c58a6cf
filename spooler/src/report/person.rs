//! The part for people: what happened to each recipient, and what happens next.

use spooler_protocol::outcome::Cause;

use super::{Action, Part, ReportInput, ReportKind, ReportedRecipient, date, quote};

pub(super) fn part(input: &ReportInput) -> Part {
    let host = quote::word(&input.hostname);
    let submitted = date(input.submitted_ms);
    let mut text = format!("This is the mail system at {host}.\n\n");
    text.push_str(&match input.kind {
        ReportKind::Failed => format!(
            "Your message of {submitted} could not be delivered to the\nrecipients below, and will not be tried again.\n"
        ),
        ReportKind::Delayed { max_age_ms } => format!(
            "Your message of {submitted} could not be delivered to the\nrecipients below so far. You need not send it again: \
             it is tried again until\n{}, and you are told if that fails.\n",
            date(max_age_ms)
        ),
        ReportKind::Delivered => {
            format!("You asked to be told: your message of {submitted}\nreached the recipients below.\n")
        }
    });
    for recipient in &input.recipients {
        text.push('\n');
        text.push_str(&sentence(recipient));
    }
    text.push_str(match input.kind {
        ReportKind::Failed => "\nBelow are a report for programs and what you sent.\n",
        ReportKind::Delayed { .. } | ReportKind::Delivered => {
            "\nBelow are a report for programs and the header of what you sent.\n"
        }
    });
    text_part(&text)
}

/// A part of plain text.
pub(super) fn text_part(text: &str) -> Part {
    let content = quote::lines(text.as_bytes());
    if content.is_ascii() {
        return Part { head: "Content-Type: text/plain; charset=us-ascii\r\n".to_owned(), content };
    }
    let head = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n".to_owned();
    Part { head, content: quote::quoted_printable(&content) }
}

fn sentence(recipient: &ReportedRecipient) -> String {
    let reply = &recipient.reply;
    let attempts = match recipient.attempts {
        0 | 1 => String::new(),
        several => format!(" after {several} attempts"),
    };
    let what = match recipient.action {
        Action::Failed => format!("failed{attempts}"),
        Action::Delayed => format!("not delivered yet{attempts}"),
        Action::Delivered => "delivered".to_owned(),
        Action::Relayed => "passed on to a mail system that does not report further".to_owned(),
        Action::Expanded => "passed on to several other addresses".to_owned(),
    };
    let mut text = format!("<{}>: {what}.\n", quote::field(&recipient.address.to_string(), true));
    let remote = quote::field(&reply.remote, true);
    let lead = match (reply.cause, remote.is_empty()) {
        (Cause::Remote, false) => format!("{remote} said"),
        (Cause::Remote, true) => "The other side said".to_owned(),
        (Cause::Local, _) => "The reason found here".to_owned(),
        (Cause::Connect, false) => format!("{remote} could not be reached"),
        (Cause::Connect, true) => "No mail system could be reached".to_owned(),
        (Cause::Lost, _) => "The connection was lost".to_owned(),
        (Cause::Stalled, _) => "The other side stopped answering".to_owned(),
    };
    if matches!(recipient.action, Action::Failed | Action::Delayed) {
        text.push_str(&format!("    {lead}:\n"));
        let codes = if reply.code == 0 { String::new() } else { format!("{} ", reply.code) };
        let said = format!("{codes}{} {}", reply.enhanced, reply.text);
        for line in said.trim().lines().filter(|line| !line.trim().is_empty()) {
            text.push_str(&format!("        {}\n", quote::field(line.trim(), true)));
        }
    }
    text
}
