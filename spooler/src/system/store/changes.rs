//! Each [`Change`] as statements. They run inside a transaction that `sqlite.rs` begins and ends.
//!
//! A change of a message that is gone changes nothing and is no error: it may have been removed while the change was on its way.

use rusqlite::{Connection, OptionalExtension, Row};
use spooler_protocol::control::{Death, RecipientState};
use spooler_protocol::ids::MessageId;
use spooler_protocol::message::Recipient;

use super::history::Books;
use super::rows::{
    body_number, key, message_state_number, notify_number, priority_number, recipient_state, recipient_state_number,
    ret_number,
};
use super::sums::{self, Fixed};
use super::{Change, NewMessage, RecipientUpdate, StoredContent};
use crate::record::{Ending, Keep, Leaving};

const ACCEPT_MESSAGE: &str = "INSERT INTO messages (id, submitted_ms, size, in_file, recipients, priority, body, smtputf8, \
    ret, owner_uid, sender, envid, origin, envelope_sum, content_sum) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, \
    ?12, ?13, ?14, ?15)";
const ACCEPT_RECIPIENT: &str =
    "INSERT INTO recipients (message_id, idx, notify, address, orcpt, sum) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const ACCEPT_BODY: &str = "INSERT INTO bodies (message_id, content) VALUES (?1, ?2)";
const UPDATE_RECIPIENT: &str = "UPDATE recipients SET state = ?3, attempts = ?4, next_try_ms = ?5, provider = ?6, \
    reply = ?7, sum = ?8 WHERE message_id = ?1 AND idx = ?2";
const UPDATE_STATE: &str = "UPDATE messages SET state = ?2, why = ?3 WHERE id = ?1";
const UPDATE_MARKS: &str =
    "UPDATE messages SET deaths = ?2, delay_reported = ?3, died = CASE ?2 WHEN 0 THEN NULL ELSE died END WHERE id = ?1";
const ADD_DEATH: &str = "UPDATE messages SET died = json_insert(CASE WHEN json_valid(died) THEN died ELSE '[]' END, '$[#]', json(?2)) WHERE id = ?1";
const REMOVE_MESSAGE: &str = "DELETE FROM messages WHERE id = ?1";
const REMOVE_RECIPIENTS: &str = "DELETE FROM recipients WHERE message_id = ?1";
/// What the history keeps of both.
const LEAVING_MESSAGE: &str = "SELECT sender, size, submitted_ms, origin, owner_uid FROM messages WHERE id = ?1";
///
/// Without `ORDER BY`: with it, SQLite looks at the value of `?1` when it plans, and compiles the statement again for every message.
const LEAVING_RECIPIENTS: &str = "SELECT idx, state, attempts, next_try_ms, address, orcpt, provider, reply FROM recipients \
    WHERE message_id = ?1";
const REMOVE_BODY: &str = "DELETE FROM bodies WHERE message_id = ?1";
const KEEP_LAST_ID: &str = "UPDATE meta SET last_id = ?1";
/// What [`LastId::kept`] was, and the largest number that a row has.
pub(super) const LAST_ID: &str = "SELECT last_id, (SELECT max(id) FROM messages) FROM meta";

/// The largest number that was ever used.
///
/// The row with that number remembers it as long as it lives, so `meta` is written only when the row may go: a commit that only
/// accepts writes one page less.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastId {
    /// The largest number that was ever used.
    pub(super) used: MessageId,
    /// The number in `meta`. If it is smaller than `used`, then the message `used` has a row.
    pub(super) kept: MessageId,
}

/// What the units of one commit come to, besides their rows.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) last_id: LastId,
    /// Messages that were removed and had no content in the database: it may be in a file.
    pub(super) removed_with_file: Vec<MessageId>,
    removed_max: MessageId,
    /// The history with what is added to it.
    pub(super) books: Books,
    /// How much of it is kept, and how many rows were added.
    history: Option<(Keep, u32)>,
    /// Whether the history is left as it is.
    forgets: bool,
}

impl Tally {
    pub(super) fn new(last_id: LastId, books: Books, with_history: bool) -> Self {
        Self {
            last_id,
            removed_with_file: Vec::new(),
            removed_max: MessageId(0),
            books,
            history: None,
            forgets: !with_history,
        }
    }

    /// Applies one change.
    pub(super) fn apply(&mut self, connection: &Connection, change: &Change) -> rusqlite::Result<()> {
        match change {
            Change::Accept(message) => {
                accept(connection, message)?;
                self.last_id.used = self.last_id.used.max(message.id);
                Ok(())
            }
            Change::Recipients { id, updates } => {
                updates.iter().try_for_each(|update| update_recipient(connection, *id, update))
            }
            Change::State { id, state, why } => {
                run(connection, UPDATE_STATE, (key(*id), message_state_number(*state), why)).map(drop)
            }
            Change::Marks { id, deaths, delay_reported, death } => {
                run(connection, UPDATE_MARKS, (key(*id), deaths, delay_reported))?;
                death.as_deref().map_or(Ok(()), |death| add_death(connection, *id, death))
            }
            Change::Remove { id, ending } => self.remove(connection, *id, ending.as_deref()),
        }
    }

    /// All changes were applied; the commit comes next.
    pub(super) fn close(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if self.removed_max > self.last_id.kept {
            run(connection, KEEP_LAST_ID, [key(self.last_id.used)])?;
            self.last_id.kept = self.last_id.used;
        }
        match self.history.take() {
            Some((keep, added)) => self.books.tidy(connection, keep, added),
            None => Ok(()),
        }
    }

    fn remove(&mut self, connection: &Connection, id: MessageId, ending: Option<&Ending>) -> rusqlite::Result<()> {
        let ending = ending.filter(|_| !self.forgets);
        if let Some(ending) = ending {
            let added = self.history.map_or(0, |(_, added)| added);
            self.history = Some((ending.keep, added + 1));
        }
        if let Some(ending) = ending.filter(|ending| ending.keep.bytes_max > 0) {
            self.remember(connection, id, ending)?;
        }
        run(connection, REMOVE_MESSAGE, [key(id)])?;
        run(connection, REMOVE_RECIPIENTS, [key(id)])?;
        if run(connection, REMOVE_BODY, [key(id)])? == 0 {
            self.removed_with_file.push(id);
        }
        self.removed_max = self.removed_max.max(id);
        Ok(())
    }

    /// Copies a message that leaves the queue into the history. One whose rows cannot be read goes without a trace.
    fn remember(&mut self, connection: &Connection, id: MessageId, ending: &Ending) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(LEAVING_MESSAGE)?;
        let message = statement.query_row([key(id)], |row| Ok((leaving(row).ok(), row.get(4).unwrap_or(None))));
        let message = message.optional()?;
        let mut statement = connection.prepare_cached(LEAVING_RECIPIENTS)?;
        let mut recipients = Vec::new();
        let mut rows = statement.query([key(id)])?;
        while let Some(row) = rows.next()? {
            recipients.extend(leaving_recipient(row).ok().flatten());
        }
        recipients.sort_by_key(|(_, update)| update.index);
        let Some((Some(message), owner_uid)) = message else { return Ok(()) };
        let finished = ending.finish(id, message, recipients);
        self.books.add(connection, finished, owner_uid)
    }
}

fn leaving(row: &Row<'_>) -> rusqlite::Result<Leaving> {
    let size: i64 = row.get(1)?;
    Ok(Leaving { sender: row.get(0)?, size: size.cast_unsigned(), submitted_ms: row.get(2)?, origin: row.get(3)? })
}

/// A row of a recipient that leaves. What cannot be read of it is left out.
fn leaving_recipient(row: &Row<'_>) -> rusqlite::Result<Option<(Recipient, RecipientUpdate)>> {
    let reply: Option<String> = row.get(7)?;
    let update = RecipientUpdate {
        index: row.get(0)?,
        state: recipient_state(row.get(1)?).unwrap_or(RecipientState::Pending),
        attempts: row.get(2)?,
        next_try_ms: row.get(3)?,
        provider: row.get(6)?,
        reply: reply.and_then(|reply| serde_json::from_str(&reply).ok()),
    };
    let address: String = row.get(4)?;
    let recipient = address.parse().ok().map(|address| Recipient { address, notify: None, orcpt: None });
    let orcpt: Option<String> = row.get(5)?;
    Ok(recipient.map(|recipient| (Recipient { orcpt, ..recipient }, update)))
}

fn run(connection: &Connection, sql: &str, parameters: impl rusqlite::Params) -> rusqlite::Result<usize> {
    connection.prepare_cached(sql)?.execute(parameters)
}

fn accept(connection: &Connection, message: &NewMessage) -> rusqlite::Result<()> {
    let envelope = &message.envelope;
    let (size, inline) = match &message.content {
        StoredContent::Inline(content) => (u64::try_from(content.len()).unwrap_or(u64::MAX), Some(content)),
        StoredContent::File(size) => (*size, None),
    };
    let id = key(message.id);
    let fixed = Fixed {
        id: message.id,
        submitted_ms: message.submitted_ms,
        size,
        in_file: inline.is_none(),
        envelope,
        origin: &message.origin,
        owner_uid: message.owner_uid,
    };
    let columns = (
        id,
        message.submitted_ms,
        size.cast_signed(),
        inline.is_none(),
        u32::try_from(envelope.recipients.len()).unwrap_or(u32::MAX),
        priority_number(envelope.priority),
        body_number(envelope.body),
        envelope.smtputf8,
        envelope.ret.map(ret_number),
        message.owner_uid,
        &envelope.sender,
        &envelope.envid,
        &message.origin,
        fixed.sum(),
        inline.map(|content| sums::content(content)),
    );
    run(connection, ACCEPT_MESSAGE, columns)?;
    for (recipient, index) in envelope.recipients.iter().zip(0_u32..) {
        accept_recipient(connection, message.id, index, recipient)?;
    }
    if let Some(content) = inline {
        run(connection, ACCEPT_BODY, (id, content.as_ref()))?;
    }
    Ok(())
}

fn accept_recipient(connection: &Connection, id: MessageId, index: u32, recipient: &Recipient) -> rusqlite::Result<()> {
    let notify = recipient.notify.map(notify_number);
    let sum = sums::recipient(id, &RecipientUpdate::untried(index), None);
    let columns = (key(id), index, notify, recipient.address.to_string(), &recipient.orcpt, sum);
    run(connection, ACCEPT_RECIPIENT, columns).map(drop)
}

fn add_death(connection: &Connection, id: MessageId, death: &Death) -> rusqlite::Result<()> {
    run(connection, ADD_DEATH, (key(id), json(death)?)).map(drop)
}

pub(super) fn json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

fn update_recipient(connection: &Connection, id: MessageId, update: &RecipientUpdate) -> rusqlite::Result<()> {
    let reply = update.reply.as_ref().map(json).transpose()?;
    let sum = sums::recipient(id, update, reply.as_deref());
    let columns = (
        key(id),
        update.index,
        recipient_state_number(update.state),
        update.attempts,
        update.next_try_ms,
        &update.provider,
        reply,
        sum,
    );
    run(connection, UPDATE_RECIPIENT, columns).map(drop)
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::super::conformance::{accept_simple, deferred, update};
    use super::super::history;
    use super::super::schema::open_writer;
    use super::*;
    use crate::record::Ending;
    use spooler_protocol::history::End;

    /// Each statement is compiled once for a connection, not anew for each message.
    #[test]
    fn statements_are_compiled_once() {
        let home = tempfile::tempdir().unwrap();
        let connection = open_writer(&home.path().join("spool.db")).unwrap();
        let none = MessageId(0);
        let mut tally = Tally::new(LastId { used: none, kept: none }, Books::default(), true);
        let keep = Keep { since_ms: 0, bytes_max: 1 << 20 };
        for id in 1..=20 {
            let ending = Ending { at_ms: 1, end: End::Settled, by_uid: None, updates: Vec::new(), keep };
            let removed = Change::Remove { id: MessageId(id), ending: Some(Box::new(ending)) };
            let unit = [accept_simple(id), update(id, vec![deferred(0, 5)]), vec![removed]].concat();
            unit.iter().for_each(|change| tally.apply(&connection, change).unwrap());
            tally.close(&connection).unwrap();
        }
        let statements = [
            ACCEPT_MESSAGE,
            ACCEPT_RECIPIENT,
            ACCEPT_BODY,
            UPDATE_RECIPIENT,
            REMOVE_MESSAGE,
            REMOVE_RECIPIENTS,
            REMOVE_BODY,
            LEAVING_MESSAGE,
            LEAVING_RECIPIENTS,
            history::ADD,
        ];
        for sql in statements {
            let statement = connection.prepare_cached(sql).unwrap();
            assert!(statement.get_status(StatementStatus::Run) >= 20, "{sql} was not used");
            assert_eq!(statement.get_status(StatementStatus::RePrepare), 0, "{sql}");
        }
    }
}
