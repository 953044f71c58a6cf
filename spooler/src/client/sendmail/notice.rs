//! A report about recipients whose addresses cannot be read (RFC 3464). The spooler never sees such an address: it keeps good ones only.

use std::fmt::Write as _;

use spooler_protocol::control::Submit;
use spooler_protocol::message::{Address, Envelope, Recipient};

use super::compose::Composed;
use crate::client::handover::Handed;

/// Addresses that a report names; the others are counted.
const NAMED_MAX: usize = 20;
/// Characters of an address that a report shows.
const ADDRESS_CHARS_MAX: usize = 200;

/// The report to the sender of a message; none if every address was good, or if there is no sender to tell.
pub(super) fn undelivered(composed: &Composed, handed: &Handed, host: &str) -> Option<(Submit, String)> {
    let sender = &composed.submit.envelope.sender;
    if composed.unreadable.is_empty() || sender.is_empty() {
        return None;
    }
    let recipient = Recipient::new(Address::smtp(sender).ok()?);
    let envelope = Envelope { recipients: vec![recipient], ..Envelope::default() };
    let boundary = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
    Some((Submit { envelope, as_is: false }, content(composed, handed, host, &boundary)))
}

fn content(composed: &Composed, handed: &Handed, host: &str, boundary: &str) -> String {
    let mut out = format!(
        "From: Mail Delivery System <MAILER-DAEMON>\nTo: {}\nSubject: Undelivered Mail Returned to Sender\n\
         Auto-Submitted: auto-replied\nMIME-Version: 1.0\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=\"{boundary}\"\n\n\
         --{boundary}\nContent-Type: text/plain; charset=utf-8\n\n\
         Your message ({handed}) was not sent to the following addresses, because they\ncannot be read. It goes to all others.\n\n",
        composed.submit.envelope.sender
    );
    let named = || composed.unreadable.iter().take(NAMED_MAX);
    for unreadable in named() {
        let _ = writeln!(out, "  {}", shown(&unreadable.text));
    }
    let more = composed.unreadable.len().saturating_sub(NAMED_MAX);
    if more > 0 {
        let _ = writeln!(out, "  and {more} more");
    }
    let _ = write!(out, "\n--{boundary}\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; {host}\n");
    for unreadable in named() {
        let text: String = shown(&unreadable.text).chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
        let _ = write!(out, "\nFinal-Recipient: rfc822; {text}\nAction: failed\nStatus: 5.1.3\n");
    }
    let _ = writeln!(out, "\n--{boundary}--");
    out
}

/// An address as a report shows it: one line, no control characters.
fn shown(text: &str) -> String {
    text.chars().take(ADDRESS_CHARS_MAX).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use spooler_protocol::ids::MessageId;

    use super::*;
    use crate::client::sendmail::compose::Unreadable;

    fn composed(sender: &str, texts: &[&str]) -> Composed {
        let unreadable = |text: &&str| Unreadable { text: (*text).to_owned(), why: String::new() };
        let envelope = Envelope { sender: sender.to_owned(), ..Envelope::default() };
        let submit = Submit { envelope, as_is: false };
        Composed { submit, content: Vec::new(), unreadable: texts.iter().map(unreadable).collect() }
    }

    #[test]
    fn report_names_each_bad_address_once() {
        let handed = Handed::Queued(MessageId(7));
        let (submit, text) = undelivered(&composed("ann", &["b@", "c\r\nBcc: x@\u{e4}"]), &handed, "box.test").unwrap();
        assert_eq!((submit.envelope.sender.as_str(), submit.envelope.recipients.len()), ("", 1));
        assert!(text.contains("(queued as 7)") && text.contains("\n  b@\n  c??Bcc: x@\u{e4}\n"), "{text}");
        assert!(text.contains("Final-Recipient: rfc822; c??Bcc: x@?\nAction: failed\nStatus: 5.1.3\n"), "{text}");
    }

    #[test]
    fn nobody_hears_of_nothing() {
        let handed = Handed::Queued(MessageId(7));
        assert!(undelivered(&composed("ann", &[]), &handed, "box.test").is_none());
        assert!(undelivered(&composed("", &["b@"]), &handed, "box.test").is_none());
    }
}
