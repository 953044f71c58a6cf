//! Reading on behind a damaged place of the database.
//!
//! A page of the database that cannot be read takes the messages with it that stand there, and no others. Which these are is found in the
//! other tables: they are shown as damaged. What stands nowhere else is said in the log, by number.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use rusqlite::{Connection, Error as SqlError, ErrorCode};
use spooler_protocol::ids::MessageId;

use super::StoreError;
use super::listing::{DamagedMessage, Stored};
use super::rows::message_id;
use super::sqlite_read::{Range, SqliteReader, Visit};

const KNOWN_ELSEWHERE: [&str; 2] = [
    "SELECT DISTINCT message_id FROM recipients WHERE message_id BETWEEN ?1 AND ?2",
    "SELECT message_id FROM bodies WHERE message_id BETWEEN ?1 AND ?2",
];
/// No number is larger: it may be the end of the table that is damaged.
const LAST: &str = "SELECT max(last_id, (SELECT coalesce(max(message_id), 0) FROM recipients)) FROM meta";

/// Whether an error is about a place of the database, not about all of it.
pub(super) fn is_damage(error: &SqlError) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt))
}

impl SqliteReader {
    /// Visits what is known of messages that cannot be read, from the beginning of a range on; gives where reading goes on.
    pub(super) fn pass_over(&self, range: Range, visit: &mut Visit<'_>) -> Result<ControlFlow<(), i64>, StoreError> {
        let fail = |error: SqlError| self.fail(&error);
        let last: i64 = self.connection.query_row(LAST, (), |row| row.get(0)).map_err(fail)?;
        let next = self.readable_after(range, last.min(range.last))?;
        let ids = known_elsewhere(&self.connection, range.first, next - 1);
        if ids.is_empty() {
            tracing::error!(
                "The database {} is damaged: messages from {} to {} cannot be read",
                self.path.display(),
                range.first,
                next - 1
            );
        }
        for id in ids {
            let alone = Range { first: id, last: id, ..range };
            let mut readable = self.page(alone, 1).unwrap_or_default().into_iter();
            let stored = match readable.next() {
                Some(draft) => self.complete(draft)?,
                None => Some(Stored::Damaged(Box::new(unreadable(message_id(id))))),
            };
            if let Some(stored) = stored
                && visit(stored).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(next))
    }

    /// The first number behind the damage at which reading can go on; one more than `last` if there is none.
    fn readable_after(&self, range: Range, last: i64) -> Result<i64, StoreError> {
        let readable = |first: i64| match self.page(Range { first, ..range }, 1) {
            Ok(_) => Ok(true),
            Err(error) if is_damage(&error) => Ok(false),
            Err(error) => Err(self.fail(&error)),
        };
        let (mut bad, mut step) = (range.first, 1);
        let mut good = loop {
            let candidate = bad.saturating_add(step);
            if candidate > last {
                break last.saturating_add(1).max(range.first + 1);
            }
            if readable(candidate)? {
                break candidate;
            }
            (bad, step) = (candidate, step * 2);
        };
        while good - bad > 1 {
            let middle = bad + (good - bad) / 2;
            if middle <= last && readable(middle)? {
                good = middle;
            } else {
                bad = middle;
            }
        }
        Ok(good)
    }
}

/// Numbers of messages that other tables know. These may be damaged as well.
fn known_elsewhere(connection: &Connection, first: i64, last: i64) -> BTreeSet<i64> {
    let mut known = BTreeSet::new();
    for query in KNOWN_ELSEWHERE {
        let Ok(mut statement) = connection.prepare_cached(query) else { continue };
        let Ok(rows) = statement.query_map((first, last), |row| row.get::<_, i64>(0)) else { continue };
        known.extend(rows.map_while(Result::ok));
    }
    known
}

fn unreadable(id: MessageId) -> DamagedMessage {
    DamagedMessage {
        id,
        why: "the database is damaged where it stands".to_owned(),
        sender: String::new(),
        origin: String::new(),
        owner_uid: None,
        submitted_ms: 0,
        size: 0,
    }
}
