//! Checksums over what is kept, so that what has rotted on disk is never delivered as good.
//!
//! | what | where its sum is | checked |
//! |---|---|---|
//! | an envelope, which never changes | `messages.envelope_sum` | whenever it is read |
//! | what became of a recipient | `recipients.sum` | whenever it is read |
//! | a content in the database | `messages.content_sum` | whenever any of it is read |
//! | a content in a file | at the end of the file (`body_files`) | before each delivery |
//!
//! CRC-32: against accidents, not against people, who could change the sum as well. No sum (null) is what earlier versions kept.

use std::fmt::{self, Write};

use crc32fast::Hasher;
use spooler_protocol::ids::MessageId;
use spooler_protocol::message::Envelope;

use super::RecipientUpdate;
use super::rows::{body_number, notify_number, priority_number, recipient_state_number, ret_number};

/// A sum in the making. Every part is told apart from its neighbours.
#[derive(Default)]
struct Sum(Hasher);

impl Sum {
    fn number(&mut self, number: impl Into<i64>) {
        self.0.update(&number.into().to_le_bytes());
    }

    fn optional(&mut self, number: Option<impl Into<i64>>) {
        self.number(number.is_some());
        number.into_iter().for_each(|number| self.number(number));
    }

    fn text(&mut self, text: Option<&str>) {
        self.0.update(text.unwrap_or_default().as_bytes());
        self.end(text.is_some());
    }

    fn shown(&mut self, shown: impl fmt::Display) {
        // Writing into a sum never fails.
        let _ = write!(self, "{shown}");
        self.end(true);
    }

    /// No text contains this byte.
    fn end(&mut self, some: bool) {
        self.0.update(&[0xFF, u8::from(some)]);
    }

    fn finish(self) -> u32 {
        self.0.finalize()
    }
}

impl fmt::Write for Sum {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

/// What never changes of a message, besides its content.
pub(super) struct Fixed<'a> {
    pub(super) id: MessageId,
    pub(super) submitted_ms: i64,
    pub(super) size: u64,
    pub(super) in_file: bool,
    pub(super) envelope: &'a Envelope,
    pub(super) origin: &'a str,
    pub(super) owner_uid: Option<u32>,
}

impl Fixed<'_> {
    pub(super) fn sum(&self) -> u32 {
        let envelope = self.envelope;
        let mut sum = Sum::default();
        sum.number(self.id.0.cast_signed());
        sum.number(self.submitted_ms);
        sum.number(self.size.cast_signed());
        sum.number(self.in_file);
        sum.number(priority_number(envelope.priority));
        sum.number(body_number(envelope.body));
        sum.number(envelope.smtputf8);
        sum.optional(envelope.ret.map(ret_number));
        sum.optional(self.owner_uid);
        sum.text(Some(&envelope.sender));
        sum.text(envelope.envid.as_deref());
        sum.text(Some(self.origin));
        for recipient in &envelope.recipients {
            sum.shown(&recipient.address);
            sum.optional(recipient.notify.map(notify_number));
            sum.text(recipient.orcpt.as_deref());
        }
        sum.finish()
    }
}

/// What became of a recipient; its reply as it is kept.
pub(super) fn recipient(id: MessageId, update: &RecipientUpdate, reply: Option<&str>) -> u32 {
    let mut sum = Sum::default();
    sum.number(id.0.cast_signed());
    sum.number(update.index);
    sum.number(recipient_state_number(update.state));
    sum.number(update.attempts);
    sum.number(update.next_try_ms);
    sum.text(update.provider.as_deref());
    sum.text(reply);
    sum.finish()
}

/// A content.
pub(super) fn content(content: &[u8]) -> u32 {
    crc32fast::hash(content)
}
