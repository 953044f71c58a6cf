//! One mail transaction: from MAIL to the end of its content. Pure.
//!
//! ```text
//!   MAIL ──▶ open ──RCPT──▶ open … ──DATA──▶ content ──▶ over
//!                             │BDAT                        ▲
//!                             ▼                            │ LAST
//!                          taking ──── more BDAT ──▶ … ────┤
//!                             │ a chunk is refused         │ LAST
//!                             ▼                            │
//!                           failed: chunks are read and thrown away
//! ```

use spooler_protocol::message::{Address, Envelope, Recipient};

use super::parameters::{MailParameters, RcptParameters};
use super::reply::Reply;

const NEED_RECIPIENT: Reply = Reply::new(503, "5.5.1", "Need RCPT command first");
const NO_VALID_RECIPIENT: Reply = Reply::new(554, "5.5.1", "No valid recipients");
const TOO_MANY_RECIPIENTS: Reply = Reply::new(452, "4.5.3", "Too many recipients; send the rest in another message");
const DATA_AMID_CHUNKS: Reply = Reply::new(503, "5.5.1", "DATA cannot follow BDAT; go on with BDAT, or RSET");
const CHUNKS_FAILED: Reply = Reply::new(503, "5.5.1", "An earlier chunk was refused; RSET first");
const NEEDS_SMTPUTF8: Reply = Reply::new(553, "5.6.7", "Non-ASCII address; MAIL needs the SMTPUTF8 parameter");

/// The refusal of a message larger than the limit.
pub(super) const TOO_LARGE: Reply =
    Reply::new(552, "5.3.4", "Message size exceeds the fixed limit (see SIZE in the EHLO reply)");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunks {
    None,
    Taking,
    Failed,
}

/// A transaction that is open.
#[derive(Debug)]
pub(super) struct Transaction {
    envelope: Envelope,
    recipient_refused: bool,
    chunks: Chunks,
    chunk_bytes: u64,
}

impl Transaction {
    /// Begins with MAIL.
    pub(super) fn begin(sender: &str, parameters: MailParameters, message_bytes_max: u64) -> Result<Self, Reply> {
        if parameters.size.is_some_and(|size| size > message_bytes_max) {
            return Err(TOO_LARGE);
        }
        if !sender.is_ascii() && !parameters.smtputf8 {
            return Err(NEEDS_SMTPUTF8);
        }
        let envelope = Envelope {
            sender: sender.to_owned(),
            body: parameters.body.unwrap_or_default(),
            smtputf8: parameters.smtputf8,
            ret: parameters.ret,
            envid: parameters.envid,
            ..Envelope::default()
        };
        Ok(Self { envelope, recipient_refused: false, chunks: Chunks::None, chunk_bytes: 0 })
    }

    /// Adds a recipient.
    pub(super) fn recipient(
        &mut self,
        text: &str,
        parameters: RcptParameters,
        recipients_max: usize,
        may_serve: impl FnOnce(&Address) -> bool,
    ) -> Result<(), Reply> {
        if self.chunks != Chunks::None {
            return Err(Reply::new(503, "5.5.1", "RCPT cannot follow BDAT"));
        }
        if self.envelope.recipients.len() >= recipients_max {
            return Err(TOO_MANY_RECIPIENTS);
        }
        let checked = self.check_recipient(text, may_serve);
        self.recipient_refused |= checked.is_err();
        let RcptParameters { notify, orcpt } = parameters;
        self.envelope.recipients.push(Recipient { address: checked?, notify, orcpt });
        Ok(())
    }

    fn check_recipient(&self, text: &str, may_serve: impl FnOnce(&Address) -> bool) -> Result<Address, Reply> {
        if !text.is_ascii() && !self.envelope.smtputf8 {
            return Err(NEEDS_SMTPUTF8);
        }
        let address = Address::smtp(text).map_err(|error| Reply::with_text(501, "5.1.3", error.to_string()))?;
        if may_serve(&address) {
            Ok(address)
        } else {
            Err(Reply::with_text(550, "5.1.2", format!("No provider serves <{address}>")))
        }
    }

    /// Remembers that a recipient was refused for a reason outside this transaction.
    pub(super) fn refuse_recipient(&mut self) {
        self.recipient_refused = true;
    }

    fn check_recipients(&self) -> Result<(), Reply> {
        match (self.envelope.recipients.is_empty(), self.recipient_refused) {
            (false, _) => Ok(()),
            (true, false) => Err(NEED_RECIPIENT),
            (true, true) => Err(NO_VALID_RECIPIENT),
        }
    }

    /// Whether DATA may come now.
    pub(super) fn data(&self) -> Result<(), Reply> {
        if self.chunks != Chunks::None {
            return Err(DATA_AMID_CHUNKS);
        }
        self.check_recipients()
    }

    /// Whether a chunk is taken. One that is not fails the message.
    pub(super) fn chunk(&mut self, size: u64, message_bytes_max: u64) -> Result<(), Reply> {
        if self.chunks == Chunks::Failed {
            return Err(CHUNKS_FAILED);
        }
        self.check_recipients()?;
        self.chunk_bytes = self.chunk_bytes.saturating_add(size);
        if self.chunk_bytes > message_bytes_max {
            self.chunks = Chunks::Failed;
            return Err(TOO_LARGE);
        }
        self.chunks = Chunks::Taking;
        Ok(())
    }

    /// A chunk turned out to be unacceptable.
    pub(super) fn chunk_failed(&mut self) {
        self.chunks = Chunks::Failed;
    }

    /// Whether chunks of a message are being put together.
    pub(super) fn takes_chunks(&self) -> bool {
        self.chunks == Chunks::Taking
    }

    /// The envelope so far.
    pub(super) fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The envelope, at the end.
    pub(super) fn into_envelope(self) -> Envelope {
        self.envelope
    }
}
