//! What is known of a message before a server is chosen: the first piece of its content, and whether it needs SMTPUTF8.

use bytes::Bytes;
use spooler_protocol::international::needs_smtputf8;
use spooler_protocol::message::BodyType;
use spooler_protocol::outcome::{Outcome, Reply};

use super::connection::Connection;
use super::header_scan::HeaderScan;
use crate::delivery::Delivery;

/// The beginning of a message.
pub(super) struct Opening {
    /// The first piece of the content.
    pub(super) first: Bytes,
    /// The sender or a header needs SMTPUTF8, and so does every recipient.
    smtputf8: bool,
}

impl Opening {
    /// Reads as much of the content as it takes. All of it only if a client said SMTPUTF8 and the message is a multipart one.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) async fn read(delivery: &Delivery) -> Result<Self, String> {
        let first = delivery.content(0).await?;
        let submission = delivery.submission();
        let mut smtputf8 = needs_smtputf8(&submission.sender);
        if !smtputf8 && submission.smtputf8 && submission.body != BodyType::SevenBit {
            let mut scan = HeaderScan::new();
            let (mut piece, mut offset) = (first.clone(), 0);
            while !piece.is_empty() {
                smtputf8 = scan.push(&piece);
                if !scan.may_go_on() {
                    break;
                }
                offset += u64::try_from(piece.len()).unwrap_or(u64::MAX);
                piece = delivery.content(offset).await?;
            }
        }
        Ok(Self { first, smtputf8 })
    }

    /// Whether the recipient at this place in the delivery can only be served with SMTPUTF8.
    pub(super) fn needs_smtputf8(&self, delivery: &Delivery, index: usize) -> bool {
        let recipient = delivery.recipients().get(index);
        self.smtputf8 || recipient.is_some_and(|recipient| needs_smtputf8(recipient.address.text()))
    }

    /// Those of `recipients` that this server can take. The others fail: it does not offer the SMTPUTF8 that they need.
    pub(super) fn takeable(&self, delivery: &Delivery, recipients: &[usize], connection: &Connection) -> Vec<usize> {
        let mut taken = recipients.to_vec();
        if !connection.offered.smtputf8 {
            for index in taken.extract_if(.., |index| self.needs_smtputf8(delivery, *index)) {
                let text = if self.smtputf8 {
                    "The message needs SMTPUTF8, which the server does not offer"
                } else {
                    "The address needs SMTPUTF8, which the server does not offer"
                };
                let reply = Reply { remote: connection.remote.to_string(), ..Reply::local(553, "5.6.7", text) };
                delivery.settle(index, Outcome::Failed(reply));
            }
        }
        taken
    }
}
