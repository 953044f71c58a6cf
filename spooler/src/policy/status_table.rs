//! What a worker says about its status rows, put together: its own row, and those that it has added.
//!
//! Words are ordered by incarnation and number: what is older than what is known is dropped. Texts are cut to what a row shows. Words
//! that come too fast are not taken one by one: what they say is put together and taken at the end of the second, so that the last word
//! always counts, and the row says how many there were.

use std::collections::BTreeMap;

use spooler_protocol::from_worker::RowUpdate;
use spooler_protocol::ids::Generation;
use spooler_protocol::limits::{ROW_TEXT_BYTES_MAX, ROW_UPDATES_A_SECOND_MAX, ROWS_MAX};
use spooler_protocol::status::StatusCode;

/// In which no more than [`ROW_UPDATES_A_SECOND_MAX`] words are taken.
const WINDOW_MS: i64 = 1000;

/// One row as its worker describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// A sentence for a person, if there is one.
    pub text: Option<String>,
    /// 0 to 100, while something is under way.
    pub progress: Option<u8>,
    /// What the progress is of, if somebody said so.
    pub progress_text: Option<String>,
    /// The bits that the worker has set.
    pub code: StatusCode,
    /// Whether its state cannot be validated now.
    pub validate_refused: bool,
}

impl Row {
    /// Takes the columns that an update has.
    fn merge(&mut self, update: RowUpdate) {
        if let Some(text) = update.text {
            self.text = Some(capped(text)).filter(|text| !text.is_empty());
        }
        if let Some(progress) = update.progress {
            self.progress = Some(progress).filter(|progress| *progress <= 100);
        }
        if let Some(text) = update.progress_text {
            self.progress_text = Some(capped(text)).filter(|text| !text.is_empty());
        }
        for (bit, on) in [
            (StatusCode::OFFLINE, update.offline),
            (StatusCode::INBOUND_ACTIVE, update.inbound_active),
            (StatusCode::INBOUND_FLUSH, update.inbound_flush),
            (StatusCode::OUTBOUND_FLUSH, update.outbound_flush),
        ] {
            if let Some(on) = on {
                self.set(bit, on);
            }
        }
        if let Some(ok) = update.validate_ok {
            self.validate_refused = !ok;
        }
    }

    /// Sets or clears a bit.
    pub fn set(&mut self, bit: StatusCode, on: bool) {
        self.code = if on { self.code | bit } else { StatusCode(self.code.0 & !bit.0) };
    }
}

/// Every row of one provider.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    generation: Generation,
    /// The newest word that is known.
    sequence: Option<u64>,
    own: Row,
    added: BTreeMap<String, Row>,
    /// Words that wait for the end of the second, by row.
    put_off: BTreeMap<String, RowUpdate>,
    window_ms: i64,
    words: u32,
    hasty: u64,
}

impl Rows {
    /// A new incarnation: what the last one said is void.
    pub fn begin(&mut self, generation: Generation) {
        *self = Self { generation, ..Self::default() };
    }

    /// The provider's own row.
    #[must_use]
    pub fn own(&self) -> &Row {
        &self.own
    }

    /// The rows that it has added, by name.
    pub fn added(&self) -> impl Iterator<Item = (&str, &Row)> {
        self.added.iter().map(|(name, row)| (name.as_str(), row))
    }

    /// Words that came too fast.
    #[must_use]
    pub fn hasty_words(&self) -> u64 {
        self.hasty
    }

    /// Whether a word about a row says anything new of what is being done: its text or its progress.
    #[must_use]
    pub fn is_progress(&self, name: &str, update: &RowUpdate) -> bool {
        let row = if name.is_empty() { Some(&self.own) } else { self.added.get(&row_name(name)) };
        let before = row.cloned().unwrap_or_default();
        let mut after = before.clone();
        after.merge(update.clone());
        let shown = |row: Row| (row.text, row.progress, row.progress_text);
        shown(before) != shown(after)
    }

    /// Clears bits of the provider's own row, because what they stand for is over.
    pub fn clear(&mut self, bits: StatusCode) {
        self.own.set(bits, false);
    }

    /// A word about a row; an empty name means the provider's own. True if it was taken at once; otherwise it waits until
    /// [`Rows::deadline_ms`], or it is dropped because it is stale or names a row too many.
    pub fn on_word(
        &mut self,
        generation: Generation,
        sequence: u64,
        name: &str,
        update: RowUpdate,
        now_ms: i64,
    ) -> bool {
        if generation != self.generation || self.sequence.is_some_and(|known| sequence <= known) {
            return false;
        }
        self.sequence = Some(sequence);
        if self.words == 0 || now_ms >= self.window_ms + WINDOW_MS {
            self.settle();
            self.window_ms = now_ms;
            self.words = 0;
        }
        self.words += 1;
        let name = row_name(name);
        if self.words > ROW_UPDATES_A_SECOND_MAX {
            self.hasty += 1;
            let known = self.put_off.contains_key(&name);
            // Its own row, those that it may add, and not one more.
            if known || self.put_off.len() <= ROWS_MAX {
                self.put_off.entry(name).or_default().merge(update);
            }
            return false;
        }
        self.take(name, update);
        true
    }

    /// Takes what came too fast, because somebody has to know the last word now. True if there was something.
    pub fn settle(&mut self) -> bool {
        let put_off = std::mem::take(&mut self.put_off);
        let some = !put_off.is_empty();
        for (name, update) in put_off {
            self.take(name, update);
        }
        some
    }

    /// Takes what came too fast, if its time has come. True if there was something.
    pub fn on_tick(&mut self, now_ms: i64) -> bool {
        self.deadline_ms().is_some_and(|at_ms| at_ms <= now_ms) && self.settle()
    }

    /// When what came too fast is taken.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<i64> {
        (!self.put_off.is_empty()).then_some(self.window_ms + WINDOW_MS)
    }

    fn take(&mut self, name: String, update: RowUpdate) {
        if name.is_empty() {
            self.own.merge(update);
        } else if update.text.as_ref().is_some_and(String::is_empty) {
            // A row without a word has gone: the spooler has no words of its own for it.
            self.added.remove(&name);
        } else if self.added.contains_key(&name) || self.added.len() < ROWS_MAX {
            self.added.entry(name).or_default().merge(update);
        }
    }
}

/// A text from a worker, cut to what a row shows.
#[must_use]
pub fn capped(mut text: String) -> String {
    let end = text.floor_char_boundary(ROW_TEXT_BYTES_MAX);
    text.truncate(end);
    text.retain(|c| !c.is_control());
    text
}

/// The name of a row, cut to what a table shows.
fn row_name(name: &str) -> String {
    const NAME_CHARS_MAX: usize = 64;
    name.chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Generation = Generation(2);

    fn text(text: &str) -> RowUpdate {
        RowUpdate { text: Some(text.to_owned()), ..RowUpdate::default() }
    }

    fn rows() -> Rows {
        let mut rows = Rows::default();
        rows.begin(NOW);
        rows
    }

    #[test]
    fn what_is_stale_is_dropped() {
        let mut rows = rows();
        assert!(rows.on_word(NOW, 7, "", text("new"), 0));
        for (generation, sequence) in [(NOW, 7), (NOW, 3), (Generation(1), 9), (Generation(3), 9)] {
            assert!(!rows.on_word(generation, sequence, "", text("stale"), 0));
        }
        assert_eq!(rows.own().text.as_deref(), Some("new"));
        rows.begin(Generation(3));
        assert_eq!(rows.own(), &Row::default(), "another incarnation has said nothing yet");
        assert!(rows.on_word(Generation(3), 1, "", text("back"), 0), "and counts from the start");
    }

    #[test]
    fn columns_that_are_not_named_stay_as_they_are() {
        let mut rows = rows();
        let busy = RowUpdate { progress: Some(40), outbound_flush: Some(true), ..text("dialling") };
        rows.on_word(NOW, 1, "", busy, 0);
        rows.on_word(NOW, 2, "", RowUpdate { offline: Some(true), ..RowUpdate::default() }, 0);
        let own = rows.own();
        assert_eq!((own.text.as_deref(), own.progress), (Some("dialling"), Some(40)));
        assert_eq!(own.code, StatusCode::OFFLINE | StatusCode::OUTBOUND_FLUSH);
        let over = RowUpdate { progress: Some(255), outbound_flush: Some(false), ..text("") };
        rows.on_word(NOW, 3, "", over, 0);
        let own = rows.own();
        assert_eq!((own.text.as_deref(), own.progress, own.code), (None, None, StatusCode::OFFLINE));
    }

    #[test]
    fn texts_are_cut_and_cannot_move_a_cursor() {
        let mut rows = rows();
        rows.on_word(NOW, 1, "li\u{1b}ne", text(&format!("\u{1b}[2J{}", "\u{e4}".repeat(500))), 0);
        let (name, row) = rows.added().next().unwrap();
        let shown = row.text.as_deref().unwrap();
        assert_eq!(name, "line");
        assert!(shown.starts_with("[2J") && shown.len() <= ROW_TEXT_BYTES_MAX, "{shown}");
    }

    #[test]
    fn rows_are_added_up_to_a_limit_and_taken_away() {
        let mut rows = rows();
        for number in 0..ROWS_MAX + 5 {
            rows.on_word(NOW, number as u64 + 1, &format!("line{number}"), text("free"), 0);
        }
        assert_eq!(rows.added().count(), ROWS_MAX);
        rows.on_word(NOW, 100, "line0", text(""), 0);
        assert_eq!(rows.added().count(), ROWS_MAX - 1);
    }

    #[test]
    fn of_what_comes_too_fast_the_last_word_counts() {
        let mut rows = rows();
        for number in 0..500_u64 {
            let update = RowUpdate { outbound_flush: (number == 100).then_some(true), ..text(&number.to_string()) };
            rows.on_word(NOW, number, "", update, 5);
        }
        assert_eq!(rows.own().text.as_deref(), Some("49"));
        assert_eq!((rows.hasty_words(), rows.deadline_ms()), (450, Some(1005)));
        assert!(!rows.on_tick(1004) && rows.on_tick(1005));
        assert_eq!(rows.own().text.as_deref(), Some("499"));
        assert_eq!(rows.own().code, StatusCode::OUTBOUND_FLUSH, "and no column is lost that it did not name");
        assert_eq!(rows.deadline_ms(), None);
    }
}
