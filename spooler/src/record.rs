//! What is kept on disk, as plain data: the words between the supervisor, which decides, and the store, which keeps.

use bytes::Bytes;
use spooler_protocol::control::{Death, MessageState, RecipientState};
use spooler_protocol::history::{End, Fate, Finished, FinishedRecipient};
use spooler_protocol::ids::MessageId;
use spooler_protocol::message::{Envelope, Recipient};
use spooler_protocol::outcome::Reply;

/// Where the content of a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredContent {
    /// In the database: at most [`spooler_protocol::limits::BODY_INLINE_BYTES_MAX`] bytes.
    Inline(Bytes),
    /// In a file of so many bytes that is synced and has its final name already.
    File(u64),
}

/// A message that comes into the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMessage {
    /// Chosen by the caller, larger than every number before.
    pub id: MessageId,
    /// For whom.
    pub envelope: Envelope,
    /// When, milliseconds since 1970.
    pub submitted_ms: i64,
    /// Who handed it over, for people: `uid 1000`, `provider submission`, `report`.
    pub origin: String,
    /// The user who may see it besides the administrators, if it came over the control socket or the pick-up folder.
    pub owner_uid: Option<u32>,
    /// What.
    pub content: StoredContent,
}

/// The origin of reports that the spooler makes itself.
pub const ORIGIN_REPORT: &str = "report";

impl NewMessage {
    /// Whether nobody waits for an answer who could be told to come again later: what is reported goes to disk with its report.
    #[must_use]
    pub fn is_report(&self) -> bool {
        self.origin == ORIGIN_REPORT
    }
}

/// What is known of a recipient after an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipientUpdate {
    /// Which recipient of the message, by its place in the envelope.
    pub index: u32,
    /// Whether it is settled.
    pub state: RecipientState,
    /// Attempts made so far.
    pub attempts: u32,
    /// When the next attempt is due, milliseconds since 1970; 0 for at once. Of a settled one, when it was settled.
    pub next_try_ms: i64,
    /// The provider that made the attempt.
    pub provider: Option<String>,
    /// What came of it.
    pub reply: Option<Reply>,
}

impl RecipientUpdate {
    /// A recipient of a message that has just come in.
    #[must_use]
    pub fn untried(index: u32) -> Self {
        Self { index, state: RecipientState::Pending, attempts: 0, next_try_ms: 0, provider: None, reply: None }
    }
}

/// How much history is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// What ended before may go, milliseconds since 1970.
    pub since_ms: i64,
    /// So many bytes at most; 0 for no history.
    pub bytes_max: u64,
}

/// How a message left the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// How.
    pub end: End,
    /// The user who wanted that, if one did.
    pub by_uid: Option<u32>,
    /// The last word about recipients, where it is not on disk yet.
    pub updates: Vec<RecipientUpdate>,
    /// How much history is kept.
    pub keep: Keep,
}

impl Ending {
    /// What the history keeps of a message that had these recipients; they are as the store has them.
    #[must_use]
    pub fn finish(&self, id: MessageId, message: Leaving, recipients: Vec<(Recipient, RecipientUpdate)>) -> Finished {
        let Leaving { sender, size, submitted_ms, origin } = message;
        let recipients = recipients.into_iter().map(|(recipient, stored)| self.finish_recipient(recipient, stored));
        Finished {
            place: 0,
            id,
            end: self.end,
            by_uid: self.by_uid,
            sender,
            size,
            submitted_ms,
            ended_ms: self.at_ms,
            origin,
            recipients: recipients.collect(),
        }
    }

    fn finish_recipient(&self, recipient: Recipient, stored: RecipientUpdate) -> FinishedRecipient {
        let last = self.updates.iter().find(|update| update.index == stored.index).cloned().unwrap_or(stored);
        let fate = match (last.state, self.end) {
            (RecipientState::Delivered, _) => Fate::Delivered,
            (RecipientState::Relayed, _) => Fate::Relayed,
            (RecipientState::Failed, _) => Fate::Failed,
            (RecipientState::Pending, End::Deleted) => Fate::Discarded,
            (RecipientState::Pending, End::Cancelled | End::Settled) => Fate::Cancelled,
        };
        let settled = last.state != RecipientState::Pending && last.next_try_ms > 0;
        FinishedRecipient {
            address: recipient.address.to_string(),
            orcpt: recipient.orcpt,
            fate,
            attempts: last.attempts,
            at_ms: if settled { last.next_try_ms } else { self.at_ms },
            provider: last.provider,
            reply: last.reply,
        }
    }
}

/// What the history keeps of a message as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// Return path.
    pub sender: String,
    /// Bytes of the content.
    pub size: u64,
    /// When it was accepted, milliseconds since 1970.
    pub submitted_ms: i64,
    /// How it came in.
    pub origin: String,
}

/// One change of what is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A message comes in.
    Accept(Box<NewMessage>),
    /// Recipients of a message change.
    Recipients {
        /// Which message.
        id: MessageId,
        /// Which recipients, and how.
        updates: Vec<RecipientUpdate>,
    },
    /// A message is held, set aside, or goes on. Only `Ready` (goes on), `Held` and `Quarantined` are kept on disk.
    State {
        /// Which message.
        id: MessageId,
        /// Which state.
        state: MessageState,
        /// Why; empty if it goes on.
        why: String,
    },
    /// Workers that had the message in their hands died so many times, and a delay was or was not reported.
    Marks {
        /// Which message.
        id: MessageId,
        /// Deaths of workers while they had it.
        deaths: u32,
        /// Whether its sender was told of the delay.
        delay_reported: bool,
        /// The latest of these deaths, to be kept beside those before it. With no deaths at all, those before it are forgotten.
        death: Option<Box<Death>>,
    },
    /// A message leaves the queue, content and all.
    Remove {
        /// Which message.
        id: MessageId,
        /// What the history keeps of it. `None` leaves the history as it is.
        ending: Option<Box<Ending>>,
    },
}

impl Change {
    /// Which message it is about.
    #[must_use]
    pub fn message(&self) -> MessageId {
        match self {
            Self::Accept(message) => message.id,
            Self::Recipients { id, .. } | Self::State { id, .. } | Self::Marks { id, .. } | Self::Remove { id, .. } => {
                *id
            }
        }
    }

    /// Whether the history gets something to keep.
    #[must_use]
    pub fn is_remembered(&self) -> bool {
        matches!(self, Self::Remove { ending: Some(ending), .. } if ending.keep.bytes_max > 0)
    }

    /// Whether recipients are not tried again once this is on disk.
    #[must_use]
    pub fn settles(&self) -> bool {
        match self {
            Self::Recipients { updates, .. } => updates.iter().any(|update| update.state != RecipientState::Pending),
            Self::Remove { .. } => true,
            Self::Accept(_) | Self::State { .. } | Self::Marks { .. } => false,
        }
    }
}

/// What the schedule needs of one message, read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScannedMessage {
    /// Its number.
    pub id: MessageId,
    /// Its envelope, all recipients included.
    pub envelope: Envelope,
    /// `Ready`, `Held` or `Quarantined`.
    pub state: MessageState,
    /// When it was accepted, milliseconds since 1970.
    pub submitted_ms: i64,
    /// Bytes of the content.
    pub size: u64,
    /// Deaths of workers while they had it.
    pub deaths: u32,
    /// Whether its sender was told of the delay.
    pub delay_reported: bool,
    /// State, attempts and next try of each recipient, in the order of the envelope. `provider` and `reply` are those of the last
    /// attempt.
    pub recipients: Vec<RecipientUpdate>,
}

/// What reading the next message of a scan gives: a damaged one is reported and passed over, never the end of the scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scanned {
    /// A message.
    Message(Box<ScannedMessage>),
    /// A row that cannot be read; it stays on disk and is shown as quarantined.
    Damaged {
        /// Which.
        id: MessageId,
        /// What is wrong with it.
        why: String,
    },
}
