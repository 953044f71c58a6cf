//! The mail log: what becomes of messages, as plain data. One event is one line; `mail_log` puts it into words.
//!
//! A recipient is named by its place in the envelope: addresses are not kept in RAM. The driver adds them.

use spooler_protocol::ids::{DeliveryId, MessageId};
use spooler_protocol::outcome::{Hop, Reply};

use super::event::Action;
use super::recording::Verdict;
use super::{Flight, Supervisor};
use crate::policy::Now;
use crate::record::{NewMessage, StoredContent};

/// Recipients that the line of an accepted message names.
pub const NAMED_MAX: usize = 20;
/// Bytes of a Message-ID, or of the name of a client, that are logged.
const WORD_BYTES_MAX: usize = 256;

/// One line of the mail log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MailEvent {
    /// A message is on disk.
    Accepted(Box<Accepted>),
    /// An attempt ended for one recipient.
    Attempt(Box<Attempt>),
    /// Something else happened to a message.
    Changed(Box<Changed>),
}

/// A message that is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its number.
    pub id: MessageId,
    /// The return path; empty is the null sender.
    pub sender: String,
    /// The first [`NAMED_MAX`] recipients.
    pub recipients: Vec<String>,
    /// How many recipients there are.
    pub recipient_count: usize,
    /// Bytes of the content.
    pub size: u64,
    /// Who handed it in: `uid:1000`, `host.example[192.0.2.1]`; empty if nobody did.
    pub client: String,
    /// How it came in: `uid 1000`, `provider submission`, `report`.
    pub origin: String,
    /// The `Message-ID` field of its header, where it has one.
    pub message_id: Option<String>,
}

/// What an attempt meant for a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is where it belongs.
    Delivered,
    /// A next hop took it.
    Relayed,
    /// It is tried again.
    Deferred,
    /// It can never be delivered, or its time is up.
    Failed,
    /// A person gave up on it.
    Cancelled,
}

/// The end of an attempt, for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Which message.
    pub id: MessageId,
    /// In which delivery.
    pub delivery: DeliveryId,
    /// Which recipient, by its place in the envelope.
    pub index: u32,
    /// Which attempt, from 1.
    pub number: u32,
    /// What it meant.
    pub fate: Fate,
    /// Who made it.
    pub provider: String,
    /// What the remote said, or what this machine found.
    pub reply: Reply,
    /// How long everything took.
    pub delays: Delays,
    /// When the next attempt is due, milliseconds since 1970, if there is one at a known time.
    pub next_try_ms: Option<i64>,
}

/// Where the time since a message was accepted went, milliseconds. The parts add up to the total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delays {
    /// Since it was accepted.
    pub total: i64,
    /// In the queue, earlier attempts included.
    pub in_queue: i64,
    /// Connecting in this attempt.
    pub connecting: i64,
    /// Handing the message over in this attempt.
    pub transfer: i64,
}

/// What happened to a message besides attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Its time is up: what is left of its recipients failed.
    Expired,
    /// A person holds it.
    Held,
    /// A person lets it go on.
    Released,
    /// A person removed it.
    Deleted,
    /// A person gave up on what is left of it.
    Cancelled,
    /// It was set aside.
    Quarantined,
    /// Every provider that serves what is left of its recipients has declined it: they failed.
    Declined,
}

/// Something happened to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Which message.
    pub id: MessageId,
    /// What.
    pub change: Change,
    /// The user who wanted it, if one did.
    pub uid: Option<u32>,
    /// Why; empty if nobody said.
    pub why: String,
}

impl Accepted {
    /// What is logged of a message once it is on disk.
    pub(super) fn of(message: &NewMessage) -> Self {
        let envelope = &message.envelope;
        let named = envelope.recipients.iter().take(NAMED_MAX);
        let size = match &message.content {
            StoredContent::Inline(bytes) => bytes.len() as u64,
            StoredContent::File(size) => *size,
        };
        Self {
            id: message.id,
            sender: envelope.sender.clone(),
            recipients: named.map(|recipient| recipient.address.to_string()).collect(),
            recipient_count: envelope.recipients.len(),
            size,
            client: String::new(),
            origin: message.origin.clone(),
            message_id: None,
        }
    }
}

/// The value of the `Message-ID` field (RFC 5322 3.6.4) of a header that `start` begins with.
#[must_use]
pub fn message_id(start: &[u8]) -> Option<String> {
    const NAME: &[u8] = b"message-id:";
    let mut lines = start.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut header = lines.by_ref().take_while(|line| !line.is_empty());
    let first = header.find_map(|line| {
        let (name, value) = line.split_at_checked(NAME.len())?;
        name.eq_ignore_ascii_case(NAME).then_some(value)
    })?;
    // A long one stands folded on the next line.
    let mut folded =
        || header.next().filter(|line| line.starts_with(b" ") || line.starts_with(b"\t")).unwrap_or_default();
    let value = if first.trim_ascii().is_empty() { folded() } else { first };
    let text = cut(String::from_utf8_lossy(value.trim_ascii()).into_owned());
    (!text.is_empty()).then_some(text)
}

/// A text from outside, cut to what is logged.
pub(super) fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(WORD_BYTES_MAX));
    text
}

impl Delays {
    /// A worker's word about its part of the time is believed as far as the whole attempt goes.
    fn new(now: Now, flight: &Flight, hop: Option<&Hop>) -> Self {
        let total = (now.mono_ms - flight.born_ms).max(0);
        let attempt = (now.mono_ms - flight.since_ms).clamp(0, total);
        let told = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let connecting = hop.map_or(0, |hop| told(hop.connecting_ms)).min(attempt);
        let rest = attempt - connecting;
        let transfer = hop.map_or(rest, |hop| told(hop.transfer_ms).min(rest));
        Self { total, in_queue: total - connecting - transfer, connecting, transfer }
    }
}

impl Supervisor {
    /// Logs what an attempt meant for its recipients.
    pub(super) fn log_verdict(
        &self,
        delivery: DeliveryId,
        verdict: &Verdict,
        next_try_ms: i64,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        for sent in verdict.sent() {
            let fate = if sent.relayed { Fate::Relayed } else { Fate::Delivered };
            self.log_attempt(delivery, (sent.index, fate, &sent.reply), None, now, actions);
        }
        for (index, reply) in &verdict.failed {
            self.log_attempt(delivery, (*index, Fate::Failed, reply), None, now, actions);
        }
        let next = (next_try_ms > 0).then_some(next_try_ms);
        for (index, reply) in &verdict.deferred {
            self.log_attempt(delivery, (*index, Fate::Deferred, reply), next, now, actions);
        }
    }

    /// Logs what an attempt meant for one recipient.
    pub(super) fn log_attempt(
        &self,
        delivery: DeliveryId,
        (index, fate, reply): (u32, Fate, &Reply),
        next_try_ms: Option<i64>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(flight) = self.flights.get(&delivery) else { return };
        let attempt = Attempt {
            id: flight.id,
            delivery,
            index,
            number: flight.attempt,
            fate,
            provider: self.name(flight.route.provider).to_owned(),
            delays: Delays::new(now, flight, reply.hop.as_deref()),
            reply: reply.clone(),
            next_try_ms,
        };
        actions.push(Action::Mail(MailEvent::Attempt(Box::new(attempt))));
    }
}

/// Logs what happened to a message.
pub(super) fn log_change(
    id: MessageId,
    change: Change,
    uid: Option<u32>,
    why: impl Into<String>,
    actions: &mut Vec<Action>,
) {
    let changed = Changed { id, change, uid, why: why.into() };
    actions.push(Action::Mail(MailEvent::Changed(Box::new(changed))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_id_is_found_in_the_header() {
        let found = |text: &str| message_id(text.as_bytes());
        assert_eq!(found("From: a\r\nMESSAGE-ID: <1@x>\r\n\r\n"), Some("<1@x>".to_owned()));
        assert_eq!(found("Message-ID:\r\n <long@x>\r\nTo: b\r\n\r\n"), Some("<long@x>".to_owned()));
        assert_eq!(found("To: b\r\n\r\nMessage-ID: <body@x>\r\n"), None);
        assert_eq!(found("Message-ID:\r\n\r\nx"), None);
        assert_eq!(found(&format!("Message-ID: <{}>", "é".repeat(300))).map(|id| id.len()), Some(255));
    }
}
