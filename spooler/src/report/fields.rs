//! The part for programs: message/delivery-status (RFC 3464), or message/global-delivery-status (RFC 6533).

use spooler_protocol::message::{Address, SMTP};
use spooler_protocol::outcome::{Cause, Reply};

use super::{Action, Part, ReportInput, ReportKind, ReportedRecipient, date, quote};

pub(super) fn part(input: &ReportInput) -> Part {
    let utf8 = input.is_utf8();
    let mut content = format!("Reporting-MTA: dns; {}\r\n", quote::word(&input.hostname));
    if let Some(envid) = &input.envid {
        content.push_str(&quote::folded("Original-Envelope-Id", &quote::field(&quote::from_xtext(envid), utf8), utf8));
    }
    content.push_str(&format!("Arrival-Date: {}\r\n", date(input.submitted_ms)));
    for recipient in &input.recipients {
        content.push_str("\r\n");
        content.push_str(&fields(input, recipient));
    }
    let (kind, encoding) = if utf8 { ("global-delivery-status", "8bit") } else { ("delivery-status", "7bit") };
    let head = format!("Content-Type: message/{kind}\r\nContent-Transfer-Encoding: {encoding}\r\n");
    Part { head, content: content.into_bytes() }
}

fn fields(input: &ReportInput, recipient: &ReportedRecipient) -> String {
    let utf8 = input.is_utf8();
    let mut out = String::new();
    if let Some((kind, address)) = recipient.orcpt.as_deref().and_then(|orcpt| orcpt.split_once(';')) {
        let address = quote::field(&quote::from_xtext(address), true);
        out.push_str(&quote::folded("Original-Recipient", &format!("{}; {address}", quote::word(kind)), utf8));
    }
    out.push_str(&quote::folded("Final-Recipient", &typed(&recipient.address, utf8), utf8));
    out.push_str(&format!("Action: {}\r\n", action(recipient.action)));
    out.push_str(&format!("Status: {}\r\n", status(recipient.action, &recipient.reply)));
    let reply = &recipient.reply;
    if reply.cause != Cause::Local && !reply.remote.is_empty() {
        out.push_str(&quote::folded("Remote-MTA", &format!("dns; {}", one_line(&reply.remote)), utf8));
    }
    if recipient.action != Action::Expanded && !reply.text.is_empty() {
        out.push_str(&quote::folded("Diagnostic-Code", &diagnostic(reply), utf8));
    }
    if let Some(at_ms) = recipient.last_attempt_ms {
        out.push_str(&format!("Last-Attempt-Date: {}\r\n", date(at_ms)));
    }
    if let ReportKind::Delayed { max_age_ms } = input.kind {
        out.push_str(&format!("Will-Retry-Until: {}\r\n", date(max_age_ms)));
    }
    out
}

fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], "?")
}

/// Type and address. An address that is not ASCII stands in a 7-bit report as utf-8-addr-unitext (RFC 6533 3), in which a backslash
/// begins an escape.
fn typed(address: &Address, utf8: bool) -> String {
    let text = address.text();
    if address.kind() != SMTP {
        return format!("{}; {text}", quote::word(address.kind()).to_ascii_lowercase());
    }
    match (text.is_ascii(), utf8) {
        (true, _) => format!("rfc822; {text}"),
        (false, true) => format!("utf-8; {text}"),
        (false, false) => format!("utf-8; {}", text.replace('\\', "\\x{5C}")),
    }
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Failed => "failed",
        Action::Delayed => "delayed",
        Action::Delivered => "delivered",
        Action::Relayed => "relayed",
        Action::Expanded => "expanded",
    }
}

/// The status of a recipient: what the remote gave if it fits the action (RFC 3464 2.3.4), else what follows from code and cause.
pub(super) fn status(action: Action, reply: &Reply) -> String {
    let class = match action {
        Action::Failed => '5',
        Action::Delayed => '4',
        Action::Delivered | Action::Relayed | Action::Expanded => '2',
    };
    if let Some(detail) = detail(&reply.enhanced) {
        // A delivery that failed in the end after "try again later" keeps what was said, in the class of what came of it.
        return format!("{class}.{detail}");
    }
    let detail = match (reply.cause, reply.code) {
        _ if class == '2' => "0.0",
        (Cause::Connect, _) => "4.1",
        (Cause::Lost, _) => "4.2",
        (Cause::Stalled, _) => "4.7",
        (Cause::Remote, 550 | 551 | 450) => "1.0",
        (Cause::Remote, 553) => "1.3",
        (Cause::Remote, 552 | 452) => "2.2",
        (Cause::Remote, 500..=504) => "5.0",
        (Cause::Remote | Cause::Local, _) => "0.0",
    };
    format!("{class}.{detail}")
}

/// Subject and detail of an enhanced status code (RFC 3463 2).
fn detail(enhanced: &str) -> Option<&str> {
    let (class, detail) = enhanced.split_once('.')?;
    let (subject, rest) = detail.split_once('.')?;
    let number = |text: &str| (1..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    (matches!(class, "2" | "4" | "5") && number(subject) && number(rest)).then_some(detail)
}

fn diagnostic(reply: &Reply) -> String {
    let mut out = if reply.cause == Cause::Remote && reply.code != 0 {
        format!("smtp; {} ", reply.code)
    } else {
        "x-spooler; ".to_owned()
    };
    if reply.cause == Cause::Remote && !reply.enhanced.is_empty() {
        out.push_str(&one_line(&reply.enhanced));
        out.push(' ');
    }
    out.push_str(&reply.text);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(cause: Cause, code: u16, enhanced: &str) -> Reply {
        Reply { cause, ..Reply::local(code, enhanced, "t") }
    }

    #[test]
    fn a_status_fits_its_action_whatever_the_remote_said() {
        for (action, cause, code, enhanced, wanted) in [
            (Action::Failed, Cause::Remote, 550, "5.1.1", "5.1.1"),
            (Action::Failed, Cause::Remote, 450, "4.2.1", "5.2.1"),
            (Action::Delayed, Cause::Remote, 450, "", "4.1.0"),
            (Action::Delayed, Cause::Connect, 0, "", "4.4.1"),
            (Action::Failed, Cause::Stalled, 0, "", "5.4.7"),
            (Action::Failed, Cause::Remote, 554, "5.1.1\r\nX: y", "5.0.0"),
            (Action::Delivered, Cause::Remote, 250, "", "2.0.0"),
            (Action::Relayed, Cause::Remote, 250, "2.1.5", "2.1.5"),
        ] {
            assert_eq!(
                status(action, &reply(cause, code, enhanced)),
                wanted,
                "{action:?} {cause:?} {code} {enhanced:?}"
            );
        }
    }
}
