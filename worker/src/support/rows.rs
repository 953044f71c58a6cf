//! When words about the provider's status rows leave: pure, time comes in.
//!
//! A provider may change its rows as often as it likes. Changes of one row are put together, and one word leaves every
//! [`INTERVAL_US`]; the last state always leaves. Flush bits and `offline` are commands rather than display: they leave at once,
//! as long as they do not come in a flood, and take along what waits for the same row. Both together stay below
//! [`ROW_UPDATES_A_SECOND_MAX`], beyond which the supervisor would drop words.

use std::collections::BTreeMap;

use spooler_protocol::calls::FlushFlags;
use spooler_protocol::from_worker::RowUpdate;
use spooler_protocol::limits::{ROW_TEXT_BYTES_MAX, ROW_UPDATES_A_SECOND_MAX, ROWS_MAX};

/// Microseconds between two words that are not urgent.
pub(crate) const INTERVAL_US: u64 = 50_000;

/// Urgent words that may leave in one go, and so many more in each second.
const URGENT_MAX: u64 = 10;

const SECOND_US: u64 = 1_000_000;

const _: () = assert!(
    SECOND_US / INTERVAL_US + 2 * URGENT_MAX < ROW_UPDATES_A_SECOND_MAX as u64,
    "no second holds more words than the supervisor takes"
);

/// Why there is no such row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// The name is empty or too long.
    #[error("A row needs a name of 1 to {ROW_TEXT_BYTES_MAX} bytes, not {0}")]
    Name(usize),
    /// There are enough rows.
    #[error("A provider may have {ROWS_MAX} rows besides its own")]
    Full,
    /// It was never added.
    #[error("There is no row {0:?}; add it first")]
    Unknown(String),
}

#[derive(Debug, Default)]
struct Row {
    pending: Option<RowUpdate>,
    /// The flush bits as they were last set.
    flushing: FlushFlags,
}

/// The rows of one provider.
#[derive(Debug)]
pub(crate) struct Rows {
    rows: BTreeMap<String, Row>,
    /// The row whose word left last: the others come first.
    last: String,
    next_us: u64,
    urgent_left: u64,
    urgent_filled_us: u64,
}

impl Rows {
    /// The provider's own row, which has no name.
    pub(crate) fn new() -> Self {
        let rows = BTreeMap::from([(String::new(), Row::default())]);
        Self { rows, last: String::new(), next_us: 0, urgent_left: URGENT_MAX, urgent_filled_us: 0 }
    }

    /// One row more. Adding it twice changes nothing.
    pub(crate) fn add(&mut self, name: &str) -> Result<(), RowError> {
        if name.is_empty() || name.len() > ROW_TEXT_BYTES_MAX {
            return Err(RowError::Name(name.len()));
        }
        if !self.rows.contains_key(name) {
            if self.rows.len() > ROWS_MAX {
                return Err(RowError::Full);
            }
            // The first word about a row makes it, even if it says nothing of it.
            let row = Row { pending: Some(RowUpdate::default()), ..Row::default() };
            self.rows.insert(name.to_owned(), row);
        }
        Ok(())
    }

    /// Columns of a row change. Gives what has to leave now.
    pub(crate) fn modify(&mut self, name: &str, update: RowUpdate, now_us: u64) -> Result<Option<RowUpdate>, RowError> {
        let row = self.rows.get_mut(name).ok_or_else(|| RowError::Unknown(name.to_owned()))?;
        set(&mut row.flushing, FlushFlags::INBOUND, update.inbound_flush);
        set(&mut row.flushing, FlushFlags::OUTBOUND, update.outbound_flush);
        let urgent = update.inbound_flush.is_some() || update.outbound_flush.is_some() || update.offline.is_some();
        row.pending.get_or_insert_default().merge(update);
        if !urgent || !self.spend_urgent(now_us) {
            return Ok(None);
        }
        Ok(self.rows.get_mut(name).and_then(|row| row.pending.take()))
    }

    /// What is due: a row and its changes. Called until there is nothing more.
    pub(crate) fn due(&mut self, now_us: u64) -> Option<(String, RowUpdate)> {
        if now_us < self.next_us {
            return None;
        }
        let found = self.take_pending()?;
        self.next_us = now_us + INTERVAL_US;
        Some(found)
    }

    /// What waits, due or not: the session ends.
    pub(crate) fn take_pending(&mut self) -> Option<(String, RowUpdate)> {
        let waiting = |row: &Row| row.pending.is_some();
        let after = self.rows.iter().find(|(name, row)| waiting(row) && **name > self.last);
        let (name, _) = after.or_else(|| self.rows.iter().find(|(_, row)| waiting(row)))?;
        self.last = name.clone();
        let update = self.rows.get_mut(&self.last)?.pending.take()?;
        Some((self.last.clone(), update))
    }

    /// When [`Rows::due`] has something, if anything waits; microseconds.
    pub(crate) fn next_us(&self) -> Option<u64> {
        self.rows.values().any(|row| row.pending.is_some()).then_some(self.next_us)
    }

    /// Which flush bits of the provider's own row are set.
    pub(crate) fn flushing(&self) -> FlushFlags {
        self.rows.get("").map(|row| row.flushing).unwrap_or_default()
    }

    fn spend_urgent(&mut self, now_us: u64) -> bool {
        let refill = now_us.saturating_sub(self.urgent_filled_us) * URGENT_MAX / SECOND_US;
        if refill > 0 {
            self.urgent_left = (self.urgent_left + refill).min(URGENT_MAX);
            self.urgent_filled_us = now_us;
        }
        let left = self.urgent_left.checked_sub(1);
        self.urgent_left = left.unwrap_or(0);
        left.is_some()
    }
}

fn set(flags: &mut FlushFlags, bit: FlushFlags, on: Option<bool>) {
    match on {
        None => {}
        Some(true) => flags.0 |= bit.0,
        Some(false) => flags.0 &= !bit.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(percent: u8) -> RowUpdate {
        RowUpdate { progress: Some(percent), ..RowUpdate::default() }
    }

    fn offline(offline: bool) -> RowUpdate {
        RowUpdate { offline: Some(offline), ..RowUpdate::default() }
    }

    #[test]
    fn changes_are_put_together_and_the_last_state_leaves() {
        let mut rows = Rows::new();
        assert_eq!(rows.modify("", progress(0), 0), Ok(None));
        assert_eq!(rows.due(0), Some((String::new(), progress(0))), "the first word does not wait");
        for percent in 1..=100 {
            assert_eq!(rows.modify("", progress(percent), 1000), Ok(None));
            assert_eq!(rows.due(1000), None);
        }
        assert_eq!(rows.next_us(), Some(INTERVAL_US));
        assert_eq!(rows.due(INTERVAL_US), Some((String::new(), progress(100))));
        assert_eq!((rows.due(2 * INTERVAL_US), rows.next_us()), (None, None));
    }

    #[test]
    fn commands_leave_at_once_and_take_along_what_waits() {
        let mut rows = Rows::new();
        rows.modify("", progress(1), 0).unwrap();
        rows.due(0).unwrap();
        rows.modify("", progress(2), 1).unwrap();
        let both = RowUpdate { progress: Some(2), ..offline(true) };
        assert_eq!(rows.modify("", offline(true), 2), Ok(Some(both)));
        assert_eq!(rows.next_us(), None);
        let flush = RowUpdate { inbound_flush: Some(true), ..RowUpdate::default() };
        assert_eq!(rows.modify("", flush.clone(), 3), Ok(Some(flush)));
        assert_eq!(rows.flushing(), FlushFlags::INBOUND);
    }

    #[test]
    fn no_provider_comes_near_the_supervisors_limit() {
        let mut rows = Rows::new();
        let names: Vec<String> = (0..ROWS_MAX).map(|number| format!("queue {number}")).collect();
        names.iter().for_each(|name| rows.add(name).unwrap());
        let mut left_at = Vec::new();
        for now_us in (0..3 * SECOND_US).step_by(1000) {
            let offline_now = offline(now_us % 2000 == 0);
            left_at.extend(rows.modify("", offline_now, now_us).unwrap().map(|_| now_us));
            for name in &names {
                rows.modify(name, progress(7), now_us).unwrap();
            }
            while rows.due(now_us).is_some() {
                left_at.push(now_us);
            }
        }
        let max = usize::try_from(ROW_UPDATES_A_SECOND_MAX).unwrap();
        for (index, end) in left_at.iter().enumerate() {
            let within = left_at[..=index].iter().filter(|at| **at + SECOND_US > *end).count();
            assert!(within <= max, "{within} words in the second up to {end}");
        }
        assert!(left_at.len() > 60, "{} words", left_at.len());
    }

    #[test]
    fn every_row_has_its_turn() {
        let mut rows = Rows::new();
        rows.add("a").unwrap();
        rows.add("b").unwrap();
        let mut turns = Vec::new();
        for turn in 0..6 {
            for name in ["", "a", "b"] {
                rows.modify(name, progress(1), turn * INTERVAL_US).unwrap();
            }
            turns.push(rows.due(turn * INTERVAL_US).unwrap().0);
        }
        assert_eq!(turns, ["a", "b", "", "a", "b", ""]);
    }

    #[test]
    fn rows_have_names_and_an_end() {
        let mut rows = Rows::new();
        assert_eq!(rows.add(""), Err(RowError::Name(0)));
        assert_eq!(rows.modify("x", progress(1), 0), Err(RowError::Unknown("x".to_owned())));
        for number in 0..ROWS_MAX {
            assert_eq!(rows.add(&number.to_string()), Ok(()));
        }
        assert_eq!((rows.add("0"), rows.add("one more")), (Ok(()), Err(RowError::Full)));
    }
}
