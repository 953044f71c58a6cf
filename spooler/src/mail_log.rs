//! The mail log in words: one event of a message becomes one line of fields, in logfmt, in JSON, or for the journal. Pure.
//!
//! ```text
//! id=42 event=accepted from=root@vm.example.org to=admin@example.org nrcpt=1 size=312 client=uid:1000 via=socket message_id=<1@vm>
//! id=42 event=attempt status=relayed from=root@vm.example.org to=admin@example.org provider=relay remote=mx.example.org[192.0.2.1]:25
//!   dsn=2.0.0 code=250 reply="Ok: queued as 4XyZ" remote_id=4XyZ delay=0.310 in_queue=0.008 connecting=0.102 transfer=0.200
//!   tls=TLSv1.3 cipher=TLS_AES_256_GCM_SHA384 attempt=1
//! id=42 event=held uid=0
//! ```
//!
//! Never the content, never a secret: the fields are those of [`MailEvent`] and no others. All foreign text is made harmless by [`text`].

mod remote_id;
/// Making foreign text harmless.
pub mod text;

use std::borrow::Cow;
use std::fmt::Write;
use std::net::SocketAddr;

use spooler_protocol::message::{Envelope, Recipient};
use spooler_protocol::outcome::{Hop, Reply};

pub use remote_id::remote_id;

use crate::supervisor::mail::{Accepted, Attempt, Change, Changed, Fate, MailEvent};
use text::{printable, push_quoted, push_value};

/// Characters of a remote's reply that are logged.
const REPLY_CHARS_MAX: usize = 1000;

/// How lines are written where no journal takes fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `key=value` pairs.
    #[default]
    Logfmt,
    /// One JSON object a line.
    Json,
}

/// How urgent a line is, as syslog numbers it (RFC 5424 6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// 3
    Error,
    /// 4
    Warning,
    /// 5
    Notice,
    /// 6
    Info,
    /// 7
    Debug,
}

impl Priority {
    /// The number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Error => 3,
            Self::Warning => 4,
            Self::Notice => 5,
            Self::Info => 6,
            Self::Debug => 7,
        }
    }
}

enum Value<'a> {
    Text(Cow<'a, str>),
    Number(u64),
    /// Milliseconds, shown as seconds.
    Seconds(i64),
}

/// One line of the mail log.
pub struct Line<'a> {
    /// How urgent it is.
    pub priority: Priority,
    /// What kind of line it is: the `MESSAGE_ID` of the journal, fixed for ever.
    pub kind: &'static str,
    fields: Vec<(&'static str, Value<'a>)>,
}

impl<'a> Line<'a> {
    /// The line of an event. The envelope is that of its message, where it is at hand.
    #[must_use]
    pub fn new(event: &'a MailEvent, envelope: Option<&'a Envelope>) -> Self {
        match event {
            MailEvent::Accepted(accepted) => of_accepted(accepted),
            MailEvent::Attempt(attempt) => of_attempt(attempt, envelope),
            MailEvent::Changed(changed) => of_changed(changed),
        }
    }

    fn start(id: u64, event: &'static str, priority: Priority, kind: &'static str) -> Self {
        let mut line = Self { priority, kind, fields: Vec::with_capacity(20) };
        line.number("id", id);
        line.text("event", event);
        line
    }

    fn text(&mut self, name: &'static str, text: impl Into<Cow<'a, str>>) {
        self.fields.push((name, Value::Text(text.into())));
    }

    fn text_if_any(&mut self, name: &'static str, text: &'a str) {
        if !text.is_empty() {
            self.text(name, text);
        }
    }

    fn number(&mut self, name: &'static str, number: impl Into<u64>) {
        self.fields.push((name, Value::Number(number.into())));
    }

    fn seconds(&mut self, name: &'static str, ms: i64) {
        self.fields.push((name, Value::Seconds(ms)));
    }

    /// Adds `key=value` pairs, without an end of line.
    pub fn logfmt(&self, out: &mut String) {
        for (place, (name, value)) in self.fields.iter().enumerate() {
            if place > 0 {
                out.push(' ');
            }
            out.push_str(name);
            out.push('=');
            match value {
                Value::Text(text) => push_value(text, out),
                number => push_number(number, out),
            }
        }
    }

    /// Adds a JSON object, without an end of line; with the time, where one is given.
    pub fn json(&self, time: Option<&str>, out: &mut String) {
        out.push('{');
        if let Some(time) = time {
            out.push_str("\"time\":");
            push_quoted(time, out);
            out.push(',');
        }
        for (place, (name, value)) in self.fields.iter().enumerate() {
            if place > 0 {
                out.push(',');
            }
            push_quoted(name, out);
            out.push(':');
            match value {
                Value::Text(text) => push_quoted(text, out),
                number => push_number(number, out),
            }
        }
        out.push('}');
    }

    /// The fields for the journal: name and value, made harmless.
    pub fn journal_fields(&self) -> impl Iterator<Item = (String, Cow<'_, str>)> {
        self.fields.iter().map(|(name, value)| {
            let value = match value {
                Value::Text(text) => printable(text),
                number => {
                    let mut shown = String::new();
                    push_number(number, &mut shown);
                    Cow::Owned(shown)
                }
            };
            (journal_name(name), value)
        })
    }
}

/// The name of a field in the journal: `SPOOLER_` and capitals; the number of the message is `SPOOLER_QUEUE_ID`.
#[must_use]
pub fn journal_name(name: &str) -> String {
    let name = if name == "id" { "queue_id" } else { name };
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("SPOOLER_{}", name.chars().map(plain).collect::<String>())
}

fn push_number(value: &Value<'_>, out: &mut String) {
    let _ = match value {
        Value::Text(_) => Ok(()),
        Value::Number(number) => write!(out, "{number}"),
        Value::Seconds(ms) => write!(out, "{}.{:03}", ms / 1000, (ms % 1000).abs()),
    };
}

fn or_null(sender: &str) -> &str {
    if sender.is_empty() { "<>" } else { sender }
}

fn of_accepted(accepted: &Accepted) -> Line<'_> {
    let mut line = Line::start(accepted.id.0, "accepted", Priority::Info, "f8e0a3f2b55d4c0e9a3b1d7c64e2a101");
    line.text("from", or_null(&accepted.sender));
    let more = accepted.recipient_count.saturating_sub(accepted.recipients.len());
    let mut to = accepted.recipients.join(",");
    if more > 0 {
        let _ = write!(to, ",+{more} more");
    }
    line.text("to", to);
    line.number("nrcpt", accepted.recipient_count as u64);
    line.number("size", accepted.size);
    line.text_if_any("client", &accepted.client);
    let via = accepted.origin.strip_prefix("provider ").unwrap_or(&accepted.origin);
    line.text("via", if via.starts_with("uid ") { "local" } else { via });
    if let Some(message_id) = &accepted.message_id {
        line.text("message_id", message_id);
    }
    line
}

fn of_attempt<'a>(attempt: &'a Attempt, envelope: Option<&'a Envelope>) -> Line<'a> {
    let (status, priority, kind) = match attempt.fate {
        Fate::Delivered => ("delivered", Priority::Info, "f8e0a3f2b55d4c0e9a3b1d7c64e2a102"),
        Fate::Relayed => ("relayed", Priority::Info, "f8e0a3f2b55d4c0e9a3b1d7c64e2a103"),
        Fate::Deferred => ("deferred", Priority::Notice, "f8e0a3f2b55d4c0e9a3b1d7c64e2a104"),
        Fate::Failed => ("failed", Priority::Warning, "f8e0a3f2b55d4c0e9a3b1d7c64e2a105"),
        Fate::Cancelled => ("cancelled", Priority::Notice, "f8e0a3f2b55d4c0e9a3b1d7c64e2a106"),
    };
    let mut line = Line::start(attempt.id.0, "attempt", priority, kind);
    line.text("status", status);
    let recipient = usize::try_from(attempt.index).ok().and_then(|index| envelope?.recipients.get(index));
    if let (Some(envelope), Some(recipient)) = (envelope, recipient) {
        line.text("from", or_null(&envelope.sender));
        line.text("to", recipient.address.to_string());
        if let Some(original) = original(recipient) {
            line.text("orig_to", original);
        }
    }
    line.text("provider", attempt.provider.as_str());
    let reply = &attempt.reply;
    let remote = remote(reply);
    if !remote.is_empty() {
        line.text("remote", remote);
    }
    line.text("dsn", dsn(attempt));
    if reply.code != 0 {
        line.number("code", reply.code);
    }
    line.text("reply", reply.text.replace('\n', " / ").chars().take(REPLY_CHARS_MAX).collect::<String>());
    if let (Fate::Relayed | Fate::Delivered, Some(id)) = (attempt.fate, remote_id(&reply.text)) {
        line.text("remote_id", id);
    }
    line.seconds("delay", attempt.delays.total);
    line.seconds("in_queue", attempt.delays.in_queue);
    line.seconds("connecting", attempt.delays.connecting);
    line.seconds("transfer", attempt.delays.transfer);
    if let Some(Hop { tls, cipher, .. }) = reply.hop.as_deref() {
        line.text_if_any("tls", tls);
        line.text_if_any("cipher", cipher);
    }
    line.number("attempt", attempt.number);
    if let Some(next_try) = attempt.next_try_ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()) {
        line.text("next_try", format!("{next_try:.0}"));
    }
    line
}

fn of_changed(changed: &Changed) -> Line<'_> {
    let (event, priority, kind) = match changed.change {
        Change::Expired => ("expired", Priority::Warning, "f8e0a3f2b55d4c0e9a3b1d7c64e2a107"),
        Change::Declined => ("declined", Priority::Warning, "f8e0a3f2b55d4c0e9a3b1d7c64e2a108"),
        Change::Quarantined => ("quarantined", Priority::Warning, "f8e0a3f2b55d4c0e9a3b1d7c64e2a109"),
        Change::Held => ("held", Priority::Info, "f8e0a3f2b55d4c0e9a3b1d7c64e2a10a"),
        Change::Released => ("released", Priority::Info, "f8e0a3f2b55d4c0e9a3b1d7c64e2a10b"),
        Change::Deleted => ("deleted", Priority::Info, "f8e0a3f2b55d4c0e9a3b1d7c64e2a10c"),
        Change::Cancelled => ("cancelled", Priority::Info, "f8e0a3f2b55d4c0e9a3b1d7c64e2a10d"),
    };
    let mut line = Line::start(changed.id.0, event, priority, kind);
    if let Some(uid) = changed.uid {
        line.number("uid", uid);
    }
    line.text_if_any("why", &changed.why);
    line
}

/// The remote with the port of the connection: `mx.example.org[192.0.2.1]:25`.
#[must_use]
pub fn remote(reply: &Reply) -> Cow<'_, str> {
    let peer = reply.hop.as_ref().map_or("", |hop| hop.peer.as_str());
    if reply.remote.is_empty() {
        return Cow::Borrowed(peer);
    }
    match peer.parse::<SocketAddr>() {
        Ok(address) if reply.remote == address.ip().to_string() => Cow::Borrowed(peer),
        Ok(address) if reply.remote.ends_with(']') => Cow::Owned(format!("{}:{}", reply.remote, address.port())),
        _ => Cow::Borrowed(&reply.remote),
    }
}

/// The enhanced status code; that of its class where the remote gave none (RFC 3463 3.1).
fn dsn(attempt: &Attempt) -> &str {
    match attempt.fate {
        _ if !attempt.reply.enhanced.is_empty() => &attempt.reply.enhanced,
        Fate::Delivered | Fate::Relayed => "2.0.0",
        Fate::Deferred | Fate::Cancelled => "4.0.0",
        Fate::Failed => "5.0.0",
    }
}

/// To whom the message was first addressed, where that was somebody else (RFC 3461 4.2).
fn original(recipient: &Recipient) -> Option<String> {
    let (_, xtext) = recipient.orcpt.as_deref()?.split_once(';')?;
    let address = from_xtext(xtext);
    (!address.eq_ignore_ascii_case(recipient.address.text())).then_some(address)
}

/// The text behind xtext (RFC 3461 4).
fn from_xtext(xtext: &str) -> String {
    let mut bytes = Vec::with_capacity(xtext.len());
    let mut rest = xtext.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = (*first == b'+').then(|| tail.get(..2)).flatten();
        let code = code.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests;
