//! Every message on its way in comes through here, whatever the entrance: the one place that looks at its header before it is kept.
//!
//! ```text
//!  control socket ─┐
//!  pick-up folder ─┼─▶ Admission: whole, or chunk by chunk ─▶ store
//!  workers ────────┘        │
//!                           └ a circle of hosts ─▶ refused
//! ```
//!
//! | | submission | passed on |
//! |---|---|---|
//! | more than 100 hosts | refused | refused |
//! | `Bcc`, `Resent-Bcc`, `Return-Path` | removed | stays |
//! | addresses in `From`, `To`, `Cc`, `Sender`, `Reply-To` and their `Resent-` fields | completed with the origin, rewritten | stay |
//! | `Date`, `From`, `Message-ID` missing | added (RFC 6409 8) | stay away |
//! | a first line `From …` of an mbox before a header | removed | stays |
//! | no empty line before text that is no header | added (RFC 5322 2.1) | added behind our own trace header |
//!
//! Everything else goes through byte by byte, the body always. A header that needs nothing is not copied. No more than one field is held,
//! and no field of more than [`FIELD_BYTES_MAX`]: a longer one goes through unread. A message without any mail recipient only loses its
//! `Bcc`: what it is otherwise made of is the business of its provider.

// Addresses in the value of a field, in their places.
mod addresses;
// One field after the other.
mod fields;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
// Messages that go round in circles.
mod hops;
// Dates and numbers that no other message has.
mod stamp;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use spooler_protocol::control::Submit;
use spooler_protocol::from_worker::Arrival;
use spooler_protocol::message::SMTP;
use spooler_protocol::to_worker::Refusal;

use crate::policy::addressing::Addressing;
use crate::policy::addressing::rewrite::{Place, Role};
use crate::supervisor::mail::message_id;
use fields::{Edits, Found, Line};
pub(crate) use stamp::{Stamp, stamp};

/// Bytes of a field that is read.
pub(crate) const FIELD_BYTES_MAX: usize = 64 * 1024;

/// What is done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Care {
    /// Nothing is changed.
    PassOn,
    /// Only `Bcc` goes.
    HideOthers,
    /// Everything is completed.
    Complete,
}

/// How far the header is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes of our own trace header are still to come.
    Trace(usize),
    /// The message begins.
    Start,
    /// Its header goes on.
    Header,
    /// In a field that is too long to be read, which is kept or not.
    Long(bool),
    /// The rest goes through.
    Body,
}

/// Fields that the header has.
#[derive(Clone, Copy, Debug, Default)]
struct Has {
    date: bool,
    from: bool,
    message_id: bool,
}

/// One message on its way in.
#[derive(Debug)]
pub(crate) struct Admission {
    addressing: Arc<Addressing>,
    care: Care,
    /// The return path, for a missing `From`.
    sender: String,
    /// The trace header that is still to be written.
    trace: Option<String>,
    /// Whether a trace header stands before the message.
    traced: bool,
    state: State,
    stamp: fn(&str) -> Stamp,
    /// What cannot be judged yet.
    held: Bytes,
    has: Has,
    /// For the mail log.
    message_id: Option<String>,
    hops: usize,
}

impl Admission {
    /// A message that user `uid` of this machine hands in.
    pub(crate) fn local(addressing: Arc<Addressing>, submit: &Submit, uid: u32, stamp: fn(&str) -> Stamp) -> Self {
        let Submit { envelope, as_is } = submit;
        if *as_is {
            return Self::new(addressing, Care::PassOn, String::new(), State::Start, stamp);
        }
        let is_mail = envelope.recipients.iter().any(|recipient| recipient.address.kind() == SMTP);
        let care = if is_mail { Care::Complete } else { Care::HideOthers };
        let trace = is_mail.then(|| {
            let host = &addressing.hostname;
            format!("Received: by {host} (spooler, from userid {uid});\r\n\t{}\r\n", stamp(host).date)
        });
        let traced = trace.is_some();
        Self { trace, traced, ..Self::new(addressing, care, envelope.sender.clone(), State::Start, stamp) }
    }

    /// A message that a worker hands in.
    pub(crate) fn of_worker(addressing: Arc<Addressing>, arrival: Arrival, stamp: fn(&str) -> Stamp) -> Self {
        let care = if arrival.submission { Care::Complete } else { Care::PassOn };
        let trace = usize::try_from(arrival.trace_bytes).unwrap_or(usize::MAX);
        let state = if trace > 0 { State::Trace(trace) } else { State::Start };
        let hops = usize::from(trace > 0);
        Self { traced: trace > 0, hops, ..Self::new(addressing, care, arrival.sender, state, stamp) }
    }

    fn new(addressing: Arc<Addressing>, care: Care, sender: String, state: State, stamp: fn(&str) -> Stamp) -> Self {
        let (held, has) = (Bytes::new(), Has::default());
        let message_id = None;
        Self { addressing, care, sender, trace: None, traced: false, state, stamp, held, has, message_id, hops: 0 }
    }

    /// The whole message at once. One that needs nothing comes back as it is, not copied.
    ///
    /// # Errors
    /// The refusal, for good.
    pub(crate) fn whole(mut self, message: Bytes) -> Result<Bytes, Refusal> {
        let out = self.go_on(message, true);
        hops::check(self.hops).map(|()| out)
    }

    /// The `Message-ID` of what has come so far.
    pub(crate) fn message_id(&self) -> Option<String> {
        self.message_id.clone()
    }

    /// The next piece of the message: what can be kept of it and of what came before.
    ///
    /// # Errors
    /// The refusal, for good. What comes after that is of no use.
    pub(crate) fn feed(&mut self, piece: Bytes) -> Result<Bytes, Refusal> {
        if self.state == State::Body {
            return Ok(piece);
        }
        let input = if self.held.is_empty() { piece } else { [std::mem::take(&mut self.held), piece].concat().into() };
        let out = self.go_on(input, false);
        hops::check(self.hops).map(|()| out)
    }

    /// The message has ended: what is left to be kept of it.
    ///
    /// # Errors
    /// The refusal, for good.
    pub(crate) fn finish(&mut self) -> Result<Bytes, Refusal> {
        let input = std::mem::take(&mut self.held);
        let out = if self.state == State::Body { input } else { self.go_on(input, true) };
        hops::check(self.hops).map(|()| out)
    }

    /// Judges the header as far as it is there. What cannot be judged without more is held, unless this is the end.
    fn go_on(&mut self, input: Bytes, last: bool) -> Bytes {
        let mut edits = Edits::default();
        if let Some(trace) = self.trace.take() {
            edits.insert(0, trace.as_bytes());
        }
        let mut at = 0;
        while self.state != State::Body {
            let rest = input.get(at..).unwrap_or_default();
            if let State::Trace(left) = self.state {
                let taken = left.min(rest.len());
                at += taken;
                self.state = if taken == left { State::Start } else { State::Trace(left - taken) };
                if taken < left {
                    break;
                }
                continue;
            }
            match self.line(rest, at, last, &mut edits) {
                Some(taken) => at += taken,
                None => break,
            }
        }
        if self.state == State::Body {
            at = input.len();
        }
        self.held = input.slice(at..);
        edits.apply(input.slice(..at))
    }

    /// Judges what stands at the begin of `rest`: how much of it is dealt with, or `None` if more has to come first.
    fn line(&mut self, rest: &[u8], at: usize, last: bool, edits: &mut Edits) -> Option<usize> {
        if let State::Long(keeps) = self.state {
            let end = fields::end_of_long(rest, last);
            if !keeps {
                edits.remove(at, end.taken);
            }
            if end.is_over {
                self.state = State::Header;
                self.close_line(keeps, rest.get(..end.taken), at + end.taken, edits);
            }
            return if end.taken == 0 && !end.is_over { None } else { Some(end.taken) };
        }
        match fields::next(rest, last, self.state == State::Start) {
            Line::Incomplete if rest.len() > FIELD_BYTES_MAX => {
                match fields::name(rest) {
                    Some(name) => {
                        self.note(name);
                        self.state = State::Long(!self.goes_away(name));
                    }
                    None => self.end(at, rest, false, edits),
                }
                Some(0)
            }
            Line::Incomplete => None,
            Line::Field(found) => {
                self.state = State::Header;
                self.field(&found, rest, at, edits);
                Some(found.bytes)
            }
            Line::Mbox(bytes) => {
                if self.care == Care::Complete {
                    edits.remove(at, bytes);
                    return Some(bytes);
                }
                self.end(at, rest, false, edits);
                Some(0)
            }
            Line::Empty | Line::End => {
                self.end(at, rest, true, edits);
                Some(0)
            }
            Line::Text => {
                self.end(at, rest, false, edits);
                Some(0)
            }
        }
    }

    fn goes_away(&self, name: &[u8]) -> bool {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        match self.care {
            Care::PassOn => false,
            Care::HideOthers => is("Bcc") || is("Resent-Bcc"),
            Care::Complete => is("Bcc") || is("Resent-Bcc") || is("Return-Path"),
        }
    }

    fn note(&mut self, name: &[u8]) {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        match name.len() {
            8 if is("Received") => self.hops += 1,
            4 => {
                self.has.date |= is("Date");
                self.has.from |= is("From");
            }
            10 => self.has.message_id |= is("Message-ID"),
            _ => {}
        }
    }

    fn field(&mut self, found: &Found<'_>, rest: &[u8], at: usize, edits: &mut Edits) {
        if self.message_id.is_none() && found.name.eq_ignore_ascii_case(b"Message-ID") {
            self.message_id = message_id(rest.get(..found.bytes).unwrap_or_default());
        }
        let is_read = found.bytes <= FIELD_BYTES_MAX;
        self.note(found.name);
        if self.goes_away(found.name) {
            edits.remove(at, found.bytes);
            return;
        }
        if self.care == Care::Complete
            && is_read
            && let Some(role) = role_of(found.name)
        {
            self.complete(found, role, at, edits);
        }
        self.close_line(true, rest.get(..found.bytes), at + found.bytes, edits);
    }

    /// Ends the last line of a header that breaks off, if fields are to follow.
    fn close_line(&self, keeps: bool, field: Option<&[u8]>, end: usize, edits: &mut Edits) {
        let unfinished = keeps && field.is_some_and(|field| !field.ends_with(b"\n"));
        if unfinished && self.care == Care::Complete && self.lacks_fields() {
            edits.insert(end, b"\r\n");
        }
    }

    /// Completes and rewrites the addresses of a field.
    fn complete(&self, found: &Found<'_>, role: Role, at: usize, edits: &mut Edits) {
        let rewrites = self.addressing.rewrite.concerns_headers();
        let value_at = at + found.value_at;
        for address in addresses::find(found.value).unwrap_or_default() {
            let text = found.value.get(address.range.clone()).and_then(|bytes| std::str::from_utf8(bytes).ok());
            let place = value_at + address.range.start;
            let rewritten = text.filter(|_| rewrites).and_then(|text| self.addressing.in_header(role, text));
            if let Some(rewritten) = rewritten {
                edits.remove(place, address.range.len());
                edits.insert(place + address.range.len(), rewritten.as_bytes());
            } else if !address.has_domain && !self.addressing.origin.is_empty() {
                let domain = format!("@{}", self.addressing.origin);
                edits.insert(value_at + address.range.end, domain.as_bytes());
            }
        }
    }

    fn lacks_fields(&self) -> bool {
        !(self.has.date && self.has.from && self.has.message_id)
    }

    /// The header ends, properly or because what follows is none.
    fn end(&mut self, at: usize, rest: &[u8], properly: bool, edits: &mut Edits) {
        let bare = self.state == State::Start;
        self.state = State::Body;
        if self.care == Care::Complete && self.lacks_fields() {
            edits.insert(at, self.missing_fields().as_bytes());
        }
        let to_be_parted = self.care == Care::Complete || (bare && self.traced);
        if !properly && to_be_parted && !rest.is_empty() {
            edits.insert(at, b"\r\n");
        }
    }

    fn missing_fields(&mut self) -> String {
        let stamp = (self.stamp)(&self.addressing.hostname);
        let mut text = String::new();
        if !self.has.date {
            text.push_str(&format!("Date: {}\r\n", stamp.date));
        }
        if !self.has.from {
            let sender = if self.sender.is_empty() { "MAILER-DAEMON" } else { &self.sender };
            let qualified = self.addressing.qualified(sender).into_owned();
            let author = self.addressing.rewrite.address(Role::Sender, Place::Header, &qualified).unwrap_or(qualified);
            text.push_str(&format!("From: {author}\r\n"));
        }
        if !self.has.message_id {
            text.push_str(&format!("Message-ID: {}\r\n", stamp.message_id));
            self.message_id = Some(stamp.message_id);
        }
        text
    }
}

/// Whose addresses a field holds; `None` for a field that holds none that are completed.
fn role_of(name: &[u8]) -> Option<Role> {
    let plain = match name.get(..7) {
        Some(prefix) if prefix.eq_ignore_ascii_case(b"Resent-") => name.get(7..).unwrap_or_default(),
        _ => name,
    };
    let is = |other: &str| plain.eq_ignore_ascii_case(other.as_bytes());
    if is("From") || is("Sender") || is("Reply-To") {
        Some(Role::Sender)
    } else if is("To") || is("Cc") {
        Some(Role::Recipient)
    } else {
        None
    }
}
