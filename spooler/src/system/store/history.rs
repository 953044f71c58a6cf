//! The history: one compact row for each message that has left the queue, written in the commit that removes it.
//!
//! ```text
//!  place │ id │ ended_ms │ owner_uid │ entry (`history_entry`)
//!    ▲ appended, so rows of one commit share their pages; oldest first, which is how they are pruned
//! ```
//!
//! There is no index, not even by number: `queue show` of a message that has ended reads back to it. Pruning takes a few rows in
//! each commit that adds some: no commit is long, and none is there for pruning alone. How many bytes there are is counted in small
//! steps after the start, and known from then on.

use rusqlite::{Connection, OptionalExtension, Row};
use spooler_protocol::history::{Finished, HistoryFilter};
use spooler_protocol::ids::MessageId;

use super::rows::{key, message_id};
use super::{HistoryPage, history_entry};
use crate::record::Keep;

/// Rows that are pruned for each row that is added, and for each commit besides.
const PRUNED_A_ROW: u32 = 2;
const PRUNED_A_COMMIT: u32 = 8;
/// Rows that are counted in one commit.
const COUNTED_A_COMMIT: u32 = 256;
/// Rows that are looked at for one page.
const LOOKED_AT_A_PAGE: u32 = 1000;
/// The wall clock may have been set back by so much within the history.
const CLOCK_SLACK_MS: i64 = 3_600_000;
/// What a row takes besides its entry, about.
const ROW_BYTES: u64 = 48;

/// Places only grow, even after the history was emptied: a reader that follows it asks for what came after a place.
pub(super) const ADD: &str = "INSERT INTO history (place, id, ended_ms, owner_uid, entry) \
    VALUES (max(?2, 1 + ifnull((SELECT max(place) FROM history), 0)), ?1, ?2, ?3, ?4)";
const OLDEST: &str = "SELECT place, ended_ms, octet_length(entry) FROM history ORDER BY place LIMIT ?1";
const UNCOUNTED: &str = "SELECT place, octet_length(entry) FROM history WHERE place > ?1 ORDER BY place LIMIT ?2";
/// Reads from behind place 1 back to behind place 2, of owner 3 unless that is null, at most 4.
pub(super) const PAGE: &str = "SELECT place, entry, id, ended_ms, owner_uid IS ?3 OR ?3 IS NULL FROM history WHERE place < ?1 AND place > ?2 \
    ORDER BY place DESC LIMIT ?4";
const OF_NUMBER: &str =
    "SELECT place, entry, id FROM history WHERE id = ?1 AND (?2 IS NULL OR owner_uid = ?2) ORDER BY place DESC LIMIT 1";
const PRUNE: &str = "DELETE FROM history WHERE place <= ?1";
const EMPTY: &str = "DELETE FROM history";

/// How much history there is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Books {
    /// Bytes of the rows up to `counted`.
    bytes: u64,
    /// The last place that was counted; [`i64::MAX`] once all were.
    counted: i64,
    /// When the oldest row ended, if that is known.
    oldest_ms: Option<i64>,
}

impl Books {
    /// Adds a row.
    pub(super) fn add(
        &mut self,
        connection: &Connection,
        finished: Finished,
        owner_uid: Option<u32>,
    ) -> rusqlite::Result<()> {
        let (id, ended_ms) = (finished.id, finished.ended_ms);
        let entry = history_entry::write(finished)?;
        let row = (key(id), ended_ms, owner_uid, &entry);
        connection.prepare_cached(ADD)?.execute(row)?;
        if connection.last_insert_rowid() <= self.counted {
            self.bytes += entry.len() as u64 + ROW_BYTES;
        }
        Ok(())
    }

    /// Counts, and prunes, a few rows; `added` were added in this commit. Without a history, all rows go at once.
    pub(super) fn tidy(&mut self, connection: &Connection, keep: Keep, added: u32) -> rusqlite::Result<()> {
        if keep.bytes_max == 0 {
            return self.empty(connection);
        }
        self.count(connection)?;
        let too_many = self.counted == i64::MAX && self.bytes > keep.bytes_max;
        if too_many || self.oldest_ms.is_none_or(|oldest_ms| oldest_ms < keep.since_ms) {
            self.prune(connection, keep, PRUNED_A_COMMIT + PRUNED_A_ROW.saturating_mul(added))?;
        }
        Ok(())
    }

    /// Deletes all rows: about a second for 256 MiB.
    pub(super) fn empty(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        connection.prepare_cached(EMPTY)?.execute(())?;
        *self = Self { counted: i64::MAX, ..Self::default() };
        Ok(())
    }

    fn count(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if self.counted == i64::MAX {
            return Ok(());
        }
        let mut statement = connection.prepare_cached(UNCOUNTED)?;
        let mut rows = statement.query((self.counted, COUNTED_A_COMMIT))?;
        let mut found = 0;
        while let Some(row) = rows.next()? {
            self.counted = row.get(0)?;
            self.bytes += row.get::<_, i64>(1)?.cast_unsigned() + ROW_BYTES;
            found += 1;
        }
        if found < COUNTED_A_COMMIT {
            self.counted = i64::MAX;
        }
        Ok(())
    }

    fn prune(&mut self, connection: &Connection, keep: Keep, most: u32) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(OLDEST)?;
        let mut rows = statement.query([most.saturating_add(1)])?;
        let (mut last, mut pruned) = (None, 0);
        self.oldest_ms = None;
        while let Some(row) = rows.next()? {
            let (place, ended_ms): (i64, i64) = (row.get(0)?, row.get(1)?);
            let too_many = self.counted == i64::MAX && self.bytes > keep.bytes_max;
            if pruned == most || !(too_many || ended_ms < keep.since_ms) {
                self.oldest_ms = Some(ended_ms);
                break;
            }
            if place <= self.counted {
                let bytes = row.get::<_, i64>(2)?.cast_unsigned() + ROW_BYTES;
                self.bytes = self.bytes.saturating_sub(bytes);
            }
            (last, pruned) = (Some(place), pruned + 1);
        }
        drop(rows);
        if let Some(place) = last {
            connection.prepare_cached(PRUNE)?.execute([place])?;
        }
        Ok(())
    }
}

/// The next messages of a filter that ended before `before`, newest first.
pub(super) fn page(
    connection: &Connection,
    filter: &HistoryFilter,
    owner_uid: Option<u32>,
    before: u64,
) -> rusqlite::Result<HistoryPage> {
    let before = i64::try_from(before).unwrap_or(i64::MAX);
    let after = filter.after.map_or(-1, |after| i64::try_from(after).unwrap_or(i64::MAX));
    let mut statement = connection.prepare_cached(PAGE)?;
    let mut rows = statement.query((before, after, owner_uid, LOOKED_AT_A_PAGE))?;
    let (mut found, mut looked_at, mut last, mut past) = (Vec::new(), 0, 0, false);
    while let Some(row) = rows.next()? {
        (looked_at, last) = (looked_at + 1, row.get::<_, i64>(0)?);
        let (ended_ms, visible): (i64, bool) = (row.get(3)?, row.get(4)?);
        let recent = filter.since_ms.is_none_or(|since_ms| ended_ms >= since_ms);
        past |= filter.since_ms.is_some_and(|since_ms| ended_ms < since_ms.saturating_sub(CLOCK_SLACK_MS));
        if visible && recent {
            let asked_for = |finished: &Finished| filter.id.is_none_or(|id| finished.id.0 == id);
            found.extend(read(row)?.filter(|finished| asked_for(finished) && filter.matches(finished)));
        }
    }
    let more = looked_at == LOOKED_AT_A_PAGE && !past;
    Ok(HistoryPage { found, next: more.then(|| last.cast_unsigned()) })
}

/// The message of a number, if it has left the queue and is still known.
pub(super) fn of_number(
    connection: &Connection,
    id: MessageId,
    owner_uid: Option<u32>,
) -> rusqlite::Result<Option<Finished>> {
    let mut statement = connection.prepare_cached(OF_NUMBER)?;
    Ok(statement.query_row((key(id), owner_uid), read).optional()?.flatten())
}

/// An entry that cannot be read is passed over: the others can still be of use.
fn read(row: &Row<'_>) -> rusqlite::Result<Option<Finished>> {
    let place: i64 = row.get(0)?;
    let entry = row.get_ref(1)?.as_bytes().unwrap_or_default();
    Ok(history_entry::read(place.cast_unsigned(), message_id(row.get(2)?), entry))
}
