//! What the numbers in the columns mean, and how rows become messages again.
//!
//! | column | numbers |
//! |---|---|
//! | `messages.state` | 0 ready, 1 held, 2 quarantined |
//! | `messages.priority` | 1 urgent, 0 normal, -1 non-urgent (as `PR_PRIORITY`) |
//! | `messages.body` | 0 `7BIT`, 1 `8BITMIME` |
//! | `messages.ret` | 0 full, 1 headers, null: not given |
//! | `recipients.state` | 0 pending, 1 delivered, 2 failed, 3 relayed |
//! | `recipients.next_try_ms` | the next try of a pending one; when any other was settled |
//! | `recipients.notify` | sum of 1 success, 2 failure, 4 delay; 0 never, null: not given |
//! | `recipients.reply` | the last reply as JSON, null: none |
//! | `messages.died` | deaths of workers that had it as a list in JSON, null: none |
//!
//! A row that cannot be read is [`Stored::Damaged`] with what can still be said of it: one bad row never hides the others.

use rusqlite::Row;
use rusqlite::types::{FromSql, ValueRef};
use spooler_protocol::control::{Death, MessageState, RecipientState};
use spooler_protocol::ids::MessageId;
use spooler_protocol::message::{BodyType, Envelope, Notify, Priority, Recipient, Ret};
use spooler_protocol::outcome::Reply;

use super::listing::{DamagedMessage, Stored, StoredMessage};
use super::sums::{self, Fixed};
use super::{RecipientUpdate, ScannedMessage};

pub(super) fn message_state_number(state: MessageState) -> u8 {
    match state {
        MessageState::Ready | MessageState::InFlight | MessageState::Deferred => 0,
        MessageState::Held => 1,
        MessageState::Quarantined => 2,
    }
}

fn message_state(number: i64) -> Option<MessageState> {
    [MessageState::Ready, MessageState::Held, MessageState::Quarantined].get(usize::try_from(number).ok()?).copied()
}

pub(super) fn recipient_state_number(state: RecipientState) -> u8 {
    match state {
        RecipientState::Pending => 0,
        RecipientState::Delivered => 1,
        RecipientState::Failed => 2,
        RecipientState::Relayed => 3,
    }
}

pub(super) fn recipient_state(number: i64) -> Option<RecipientState> {
    let states = [RecipientState::Pending, RecipientState::Delivered, RecipientState::Failed, RecipientState::Relayed];
    states.get(usize::try_from(number).ok()?).copied()
}

pub(super) fn priority_number(priority: Priority) -> i8 {
    match priority {
        Priority::Urgent => 1,
        Priority::Normal => 0,
        Priority::NonUrgent => -1,
    }
}

fn priority(number: i64) -> Option<Priority> {
    match number {
        1 => Some(Priority::Urgent),
        0 => Some(Priority::Normal),
        -1 => Some(Priority::NonUrgent),
        _ => None,
    }
}

pub(super) fn body_number(body: BodyType) -> u8 {
    match body {
        BodyType::SevenBit => 0,
        BodyType::EightBit => 1,
    }
}

fn body(number: i64) -> Option<BodyType> {
    [BodyType::SevenBit, BodyType::EightBit].get(usize::try_from(number).ok()?).copied()
}

pub(super) fn ret_number(ret: Ret) -> u8 {
    match ret {
        Ret::Full => 0,
        Ret::Headers => 1,
    }
}

fn ret(number: i64) -> Option<Ret> {
    [Ret::Full, Ret::Headers].get(usize::try_from(number).ok()?).copied()
}

pub(super) fn notify_number(notify: Notify) -> u8 {
    u8::from(notify.success) | (u8::from(notify.failure) << 1) | (u8::from(notify.delay) << 2)
}

fn notify(number: i64) -> Option<Notify> {
    let on = |bit: i64| number & bit != 0;
    (0..8).contains(&number).then(|| Notify { success: on(1), failure: on(2), delay: on(4) })
}

fn flag(number: i64) -> Option<bool> {
    match number {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// The number of a message as SQLite's signed key. No spool lives to see a number that would wrap.
pub(super) fn key(id: MessageId) -> i64 {
    id.0.cast_signed()
}

pub(super) fn message_id(key: i64) -> MessageId {
    MessageId(key.cast_unsigned())
}

/// Reads messages: from number 1 to number 2, of owner 3 and submitted before time 4 unless these are null, at most 5.
/// The columns are read by number: a name would be searched for each time.
pub(super) const MESSAGES_PAGE: &str = "SELECT id, submitted_ms, size, in_file, recipients, state, deaths, delay_reported, \
    priority, body, smtputf8, ret, owner_uid, sender, envid, origin, why, died, envelope_sum FROM messages WHERE id BETWEEN ?1 AND ?2 \
    AND (?3 IS NULL OR owner_uid = ?3) AND (?4 IS NULL OR submitted_ms < ?4) ORDER BY id LIMIT ?5";

mod message {
    pub(super) const ID: usize = 0;
    pub(super) const SUBMITTED_MS: usize = 1;
    pub(super) const SIZE: usize = 2;
    pub(super) const IN_FILE: usize = 3;
    pub(super) const RECIPIENTS: usize = 4;
    pub(super) const STATE: usize = 5;
    pub(super) const DEATHS: usize = 6;
    pub(super) const DELAY_REPORTED: usize = 7;
    pub(super) const PRIORITY: usize = 8;
    pub(super) const BODY: usize = 9;
    pub(super) const SMTPUTF8: usize = 10;
    pub(super) const RET: usize = 11;
    pub(super) const OWNER_UID: usize = 12;
    pub(super) const SENDER: usize = 13;
    pub(super) const ENVID: usize = 14;
    pub(super) const ORIGIN: usize = 15;
    pub(super) const WHY: usize = 16;
    pub(super) const DIED: usize = 17;
    pub(super) const SUM: usize = 18;
}

/// Reads the recipients of the messages from number 1 to number 2.
pub(super) const RECIPIENTS_PAGE: &str = "SELECT message_id, idx, state, attempts, next_try_ms, notify, address, orcpt, provider, \
    reply, sum FROM recipients WHERE message_id BETWEEN ?1 AND ?2 ORDER BY message_id, idx";

mod recipient {
    pub(super) const MESSAGE_ID: usize = 0;
    pub(super) const IDX: usize = 1;
    pub(super) const STATE: usize = 2;
    pub(super) const ATTEMPTS: usize = 3;
    pub(super) const NEXT_TRY_MS: usize = 4;
    pub(super) const NOTIFY: usize = 5;
    pub(super) const ADDRESS: usize = 6;
    pub(super) const ORCPT: usize = 7;
    pub(super) const PROVIDER: usize = 8;
    pub(super) const REPLY: usize = 9;
    pub(super) const SUM: usize = 10;
}

fn name<'row>(row: &'row Row<'_>, column: usize) -> &'row str {
    row.as_ref().column_name(column).unwrap_or("?")
}

fn get<T: FromSql>(row: &Row<'_>, column: usize) -> Result<T, String> {
    row.get(column).map_err(|error| format!("column {}: {error}", name(row, column)))
}

/// A number that stands for one of few things, or null.
fn code_or_null<T>(row: &Row<'_>, column: usize, decode: impl FnOnce(i64) -> Option<T>) -> Result<Option<T>, String> {
    let number: Option<i64> = get(row, column)?;
    let Some(number) = number else { return Ok(None) };
    decode(number).map(Some).ok_or_else(|| format!("column {}: {number} means nothing", name(row, column)))
}

/// A number that stands for one of few things.
fn code<T>(row: &Row<'_>, column: usize, decode: impl FnOnce(i64) -> Option<T>) -> Result<T, String> {
    code_or_null(row, column, decode)?.ok_or_else(|| format!("column {}: it is null", name(row, column)))
}

/// The message that a row of `recipients` belongs to.
pub(super) fn recipient_of(row: &Row<'_>) -> rusqlite::Result<MessageId> {
    row.get(recipient::MESSAGE_ID).map(message_id)
}

/// A message of which the recipients are still to come.
pub(super) struct Draft {
    pub(super) id: MessageId,
    /// Whether the content is in a file.
    pub(super) in_file: bool,
    /// How many recipients there must be.
    pub(super) recipients: u32,
    /// The sum of the envelope; older messages have none.
    sum: Option<u32>,
    message: Result<Box<StoredMessage>, Box<DamagedMessage>>,
}

impl Draft {
    /// Reads a row of `messages`.
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let id = message_id(row.get(message::ID)?);
        Ok(Self {
            id,
            in_file: row.get(message::IN_FILE).unwrap_or(false),
            recipients: row.get(message::RECIPIENTS).unwrap_or(0),
            sum: row.get(message::SUM).unwrap_or(Some(0)),
            message: read_message(id, row).map(Box::new).map_err(|why| Box::new(read_remains(id, row, why))),
        })
    }

    /// Adds the next row of `recipients`.
    pub(super) fn push(&mut self, row: &Row<'_>) {
        let Ok(message) = &mut self.message else { return };
        match read_recipient(row) {
            Ok((recipient, update)) => {
                message.scanned.envelope.recipients.push(recipient);
                message.scanned.recipients.push(update);
            }
            Err(why) => self.spoil(why),
        }
    }

    /// Something else of the message is not as it should be.
    pub(super) fn spoil(&mut self, why: String) {
        if let Ok(message) = &self.message {
            self.message = Err(Box::new(message.remains(why)));
        }
    }

    /// Bytes that the content must have.
    pub(super) fn size(&self) -> u64 {
        match &self.message {
            Ok(message) => message.scanned.size,
            Err(damaged) => damaged.size,
        }
    }

    /// All recipients were pushed.
    pub(super) fn finish(mut self) -> Stored {
        if let Ok(message) = &self.message {
            let found = message.scanned.recipients.len();
            let in_order =
                message.scanned.recipients.iter().zip(0..).all(|(recipient, index)| recipient.index == index);
            if found == 0 {
                self.spoil("it has no recipients".to_owned());
            } else if self.sum.is_some_and(|sum| sum != fixed(message, self.in_file).sum()) {
                self.spoil("its envelope is not what it was: the checksum is wrong".to_owned());
            } else if !in_order || usize::try_from(self.recipients) != Ok(found) {
                self.spoil(format!("of its {} recipients, {found} are there", self.recipients));
            }
        }
        match self.message {
            Ok(message) => Stored::Message(message),
            Err(damaged) => Stored::Damaged(damaged),
        }
    }
}

/// What the sum of an envelope is made of.
fn fixed(message: &StoredMessage, in_file: bool) -> Fixed<'_> {
    let scanned = &message.scanned;
    Fixed {
        id: scanned.id,
        submitted_ms: scanned.submitted_ms,
        size: scanned.size,
        in_file,
        envelope: &scanned.envelope,
        origin: &message.origin,
        owner_uid: message.owner_uid,
    }
}

fn read_message(id: MessageId, row: &Row<'_>) -> Result<StoredMessage, String> {
    let envelope = Envelope {
        sender: get(row, message::SENDER)?,
        recipients: Vec::new(),
        body: code(row, message::BODY, body)?,
        smtputf8: code(row, message::SMTPUTF8, flag)?,
        ret: code_or_null(row, message::RET, ret)?,
        envid: get(row, message::ENVID)?,
        priority: code(row, message::PRIORITY, priority)?,
    };
    code(row, message::IN_FILE, flag)?;
    let scanned = ScannedMessage {
        id,
        envelope,
        state: code(row, message::STATE, message_state)?,
        submitted_ms: get(row, message::SUBMITTED_MS)?,
        size: code(row, message::SIZE, |size| u64::try_from(size).ok())?,
        deaths: get(row, message::DEATHS)?,
        delay_reported: code(row, message::DELAY_REPORTED, flag)?,
        recipients: Vec::new(),
    };
    Ok(StoredMessage {
        scanned,
        why: get(row, message::WHY)?,
        origin: get(row, message::ORIGIN)?,
        owner_uid: get(row, message::OWNER_UID)?,
        died: read_deaths(row),
    })
}

/// A list that cannot be read is as good as none: it is for people, and no reason to set the message aside.
fn read_deaths(row: &Row<'_>) -> Vec<Death> {
    let text = row.get_ref(message::DIED).ok().and_then(|value| value.as_str_or_null().ok()).flatten();
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// What can still be said of a row that is not a message.
fn read_remains(id: MessageId, row: &Row<'_>, why: String) -> DamagedMessage {
    let text = |column: usize| match row.get_ref(column) {
        Ok(ValueRef::Text(bytes) | ValueRef::Blob(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    };
    DamagedMessage {
        id,
        why,
        sender: text(message::SENDER),
        origin: text(message::ORIGIN),
        owner_uid: row.get(message::OWNER_UID).ok(),
        submitted_ms: row.get(message::SUBMITTED_MS).unwrap_or(0),
        size: row.get(message::SIZE).ok().and_then(|size: i64| u64::try_from(size).ok()).unwrap_or(0),
    }
}

fn read_recipient(row: &Row<'_>) -> Result<(Recipient, RecipientUpdate), String> {
    let index = get(row, recipient::IDX)?;
    let read = || -> Result<(Recipient, RecipientUpdate), String> {
        let address = row.get_ref(recipient::ADDRESS).ok().and_then(|value| value.as_str().ok());
        let address = address.ok_or("column address: it is not a text")?;
        let of_envelope = Recipient {
            address: address.parse().map_err(|error| format!("column address: {error}"))?,
            notify: code_or_null(row, recipient::NOTIFY, notify)?,
            orcpt: get(row, recipient::ORCPT)?,
        };
        let update = RecipientUpdate {
            index,
            state: code(row, recipient::STATE, recipient_state)?,
            attempts: get(row, recipient::ATTEMPTS)?,
            next_try_ms: get(row, recipient::NEXT_TRY_MS)?,
            provider: get(row, recipient::PROVIDER)?,
            reply: read_reply(row)?,
        };
        let reply = row.get_ref(recipient::REPLY).ok().and_then(|value| value.as_str_or_null().ok()).flatten();
        let id = recipient_of(row).map_err(|error| error.to_string())?;
        let sum: Option<u32> = get(row, recipient::SUM)?;
        if sum.is_some_and(|sum| sum != sums::recipient(id, &update, reply)) {
            return Err("its state is not what it was: the checksum is wrong".to_owned());
        }
        Ok((of_envelope, update))
    };
    read().map_err(|why| format!("recipient {index}, {why}"))
}

fn read_reply(row: &Row<'_>) -> Result<Option<Reply>, String> {
    let value = row.get_ref(recipient::REPLY).ok().and_then(|value| value.as_str_or_null().ok());
    let Some(text) = value.ok_or("column reply: it is not a text")? else { return Ok(None) };
    serde_json::from_str(text).map(Some).map_err(|error| format!("column reply: {error}"))
}
