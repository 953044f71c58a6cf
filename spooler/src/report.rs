//! Reports to senders about what became of their messages (RFC 3461, 3464, 6522; 6533 for UTF-8): pure.
//!
//! ```text
//!   multipart/report
//!   ├── text/plain                 for people: a sentence for each recipient
//!   ├── message/delivery-status    for programs: fields for each recipient
//!   └── message/rfc822             the message, if all of it goes back
//!       or text/rfc822-headers     its header
//! ```
//!
//! What a report quotes is hostile: replies of remotes, headers, decoded parameters. Every quoted piece goes through `quote`, which
//! lets nothing through that could end a field or a part. This room does not decide whether a report goes out beyond [`wanted`], and
//! submits nothing; the caller gives the report the null sender, so that nobody reports about it.

mod fields;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
// A notice to the postmaster.
pub mod notice;
mod person;
mod quote;

use bytes::Bytes;
use jiff::Timestamp;
use memchr::memmem;
use spooler_protocol::ids::MessageId;
use spooler_protocol::message::{Address, Notify, Ret};
use spooler_protocol::outcome::Reply;

/// What a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportKind {
    /// Recipients that the message cannot be delivered to.
    Failed,
    /// Recipients that it could not be delivered to so far.
    Delayed {
        /// When the spooler gives up, milliseconds since 1970.
        max_age_ms: u64,
    },
    /// Recipients that were served and whose sender asked to be told.
    Delivered,
}

/// What happened to one recipient (RFC 3464 2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It cannot be delivered.
    Failed,
    /// It is tried again.
    Delayed,
    /// It is where it belongs.
    Delivered,
    /// A next hop took it that will not report.
    Relayed,
    /// It went to several other addresses.
    Expanded,
}

/// One recipient in a report.
#[derive(Clone, Debug)]
pub struct ReportedRecipient {
    /// Where it was to go.
    pub address: Address,
    /// The original recipient, `type;address` in xtext as it came (RFC 3461 4.2).
    pub orcpt: Option<String>,
    /// What happened.
    pub action: Action,
    /// The last word about it.
    pub reply: Reply,
    /// How many attempts were made.
    pub attempts: u32,
    /// When the last attempt was made, milliseconds since 1970.
    pub last_attempt_ms: Option<u64>,
}

/// Everything that a report is made of.
#[derive(Clone, Debug)]
pub struct ReportInput {
    /// This machine's name in mail.
    pub hostname: String,
    /// Whom the report goes to: the sender of the message, never empty.
    pub sender: String,
    /// The sender's envelope identifier, in xtext as it came.
    pub envid: Option<String>,
    /// How much the sender wants back.
    pub ret: Option<Ret>,
    /// The message's number in our queue.
    pub message: MessageId,
    /// When the message was accepted, milliseconds since 1970.
    pub submitted_ms: u64,
    /// Now, milliseconds since 1970.
    pub now_ms: u64,
    /// What the report is about.
    pub kind: ReportKind,
    /// Those it is about; at least one.
    pub recipients: Vec<ReportedRecipient>,
    /// The header of the message.
    pub header: Bytes,
    /// The body of the message, if it is small enough to go back. Sent only with failures, and unless the sender wants the header
    /// alone (RFC 3461 4.3).
    pub body: Option<Bytes>,
    /// Whether the header of the message may be UTF-8 (RFC 6531).
    pub original_smtputf8: bool,
}

impl ReportInput {
    /// Whether the report itself is UTF-8: only where its reader has an address that needs SMTPUTF8. All others can be reached without,
    /// and so can a report to them (RFC 6533 4).
    #[must_use]
    pub fn is_utf8(&self) -> bool {
        !self.sender.is_ascii()
    }
}

/// Whether a report of this kind goes out for a recipient. `delay_by_default` is the spooler's setting for senders who did not say.
///
/// Nothing is reported to the null sender, which is how reports about reports are avoided.
#[must_use]
pub fn wanted(kind: ReportKind, notify: Option<Notify>, sender_is_null: bool, delay_by_default: bool) -> bool {
    if sender_is_null {
        return false;
    }
    match (kind, notify) {
        (ReportKind::Failed, None) => true,
        (ReportKind::Failed, Some(notify)) => notify.failure,
        (ReportKind::Delayed { .. }, None) => delay_by_default,
        (ReportKind::Delayed { .. }, Some(notify)) => notify.delay,
        (ReportKind::Delivered, notify) => notify.is_some_and(|notify| notify.success),
    }
}

/// Builds the report: a whole message with CRLF line ends, none longer than 998 bytes.
///
/// It is 7-bit unless it returns a body that is not, or its reader needs RFC 6531; `is_ascii` on the result tells.
#[must_use]
pub fn build(input: &ReportInput) -> Vec<u8> {
    let parts = [person::part(input), fields::part(input), returned(input)];
    let boundary = boundary(input, &parts);
    let mut report = head(input, &boundary, &parts);
    for part in &parts {
        report.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
        report.extend_from_slice(part.head.as_bytes());
        report.extend_from_slice(b"\r\n");
        report.extend_from_slice(&part.content);
        report.extend_from_slice(b"\r\n");
    }
    report.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    report
}

/// One part of the report.
struct Part {
    /// Its header, with CRLF at the end of each line.
    head: String,
    content: Vec<u8>,
}

fn head(input: &ReportInput, boundary: &str, parts: &[Part]) -> Vec<u8> {
    let host = quote::word(&input.hostname);
    let subject = match input.kind {
        ReportKind::Failed => "Your message could not be delivered",
        ReportKind::Delayed { .. } => "Your message is delayed",
        ReportKind::Delivered => "Your message was delivered",
    };
    let sender = quote::field(&input.sender, input.is_utf8());
    let mut head = format!(
        "From: Mail Delivery System <MAILER-DAEMON@{host}>\r\n\
         To: <{sender}>\r\n\
         Subject: {subject}\r\n\
         Date: {date}\r\n\
         Message-ID: <report.{id}.{now}@{host}>\r\n",
        date = date(input.now_ms),
        id = input.message,
        now = input.now_ms,
    );
    if let Some(original) = quote::message_id(&input.header) {
        head.push_str(&format!("In-Reply-To: {original}\r\nReferences: {original}\r\n"));
    }
    head.push_str("Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n");
    head.push_str(&format!(
        "Content-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"{boundary}\"\r\n"
    ));
    if parts.iter().any(|part| !part.content.is_ascii()) {
        head.push_str("Content-Transfer-Encoding: 8bit\r\n");
    }
    head.push_str("\r\nThis is a report about a message, for programs that read MIME.\r\n");
    head.into_bytes()
}

/// The third part: the message or its header.
fn returned(input: &ReportInput) -> Part {
    let header = quote::lines(input.header.trim_ascii_end());
    let body = input.body.as_ref().filter(|_| input.kind == ReportKind::Failed && input.ret != Some(Ret::Headers));
    // In a report without UTF-8 such a message can only be quoted in part.
    let global = input.original_smtputf8 && !header.is_ascii();
    let Some(body) = body.filter(|_| !global || input.is_utf8()) else {
        return returned_header(global && input.is_utf8(), header);
    };
    let mut content = header;
    content.extend_from_slice(b"\r\n");
    content.extend_from_slice(&quote::lines(body));
    let kind = if global { "message/global" } else { "message/rfc822" };
    let encoding = if content.is_ascii() { "7bit" } else { "8bit" };
    Part { head: format!("Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n"), content }
}

fn returned_header(global: bool, header: Vec<u8>) -> Part {
    if global {
        let head = "Content-Type: message/global-headers\r\nContent-Transfer-Encoding: 8bit\r\n".to_owned();
        return Part { head, content: header };
    }
    if header.is_ascii() {
        return Part { head: "Content-Type: text/rfc822-headers\r\n".to_owned(), content: header };
    }
    let head = "Content-Type: text/rfc822-headers\r\nContent-Transfer-Encoding: quoted-printable\r\n".to_owned();
    Part { head, content: quote::quoted_printable(&header) }
}

/// A line that separates the parts and occurs in none of them.
fn boundary(input: &ReportInput, parts: &[Part]) -> String {
    let mut number: u64 = 0;
    loop {
        let boundary = format!("=_report_{}_{}_{number}", input.message, input.now_ms);
        if parts.iter().all(|part| memmem::find(&part.content, boundary.as_bytes()).is_none()) {
            return boundary;
        }
        number += 1;
    }
}

/// A date as in a header (RFC 5322 3.3).
fn date(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    time.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

#[cfg(test)]
mod tests;
