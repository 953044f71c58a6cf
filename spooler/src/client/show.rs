//! Values as people read them: local times, spans, sizes, and tables with aligned columns.

use std::io::{self, Write};

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A time in the local time zone: `2026-11-22 14:05:09`.
pub(super) fn time(ms: i64) -> String {
    formatted(ms, "%Y-%m-%d %H:%M:%S")
}

/// A time as `mailq` prints it: `Sun Nov 22 14:05:09`.
pub(super) fn mailq_time(ms: i64) -> String {
    formatted(ms, "%a %b %e %H:%M:%S")
}

fn formatted(ms: i64, format: &str) -> String {
    let Ok(time) = Timestamp::from_millisecond(ms) else { return "?".to_owned() };
    time.to_zoned(TimeZone::system()).strftime(format).to_string()
}

/// A span with its two largest units: `45s`, `3m20s`, `2h`, `5d4h`.
pub(super) fn span(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut out = String::new();
    let mut left = seconds;
    for (place, (unit_s, unit)) in UNITS.iter().enumerate() {
        let count = left / unit_s;
        if count > 0 {
            out.push_str(&format!("{count}{unit}"));
            left %= unit_s;
            // One smaller unit, and no more.
            if let Some((next_s, next)) = UNITS.get(place + 1)
                && left / next_s > 0
            {
                out.push_str(&format!("{}{next}", left / next_s));
            }
            return out;
        }
    }
    "0s".to_owned()
}

/// How far a time is away: `in 5m`, `3h ago`, `now`.
pub(super) fn distance(ms: i64, now_ms: i64) -> String {
    let seconds = ms.abs_diff(now_ms) / 1000;
    match seconds {
        0 => "now".to_owned(),
        _ if ms > now_ms => format!("in {}", span(seconds)),
        _ => format!("{} ago", span(seconds)),
    }
}

/// Now, milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// A size: `512 B`, `4.0 KiB`, `25 MiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut tenths = u128::from(bytes) * 10 / 1024;
    let mut unit = "KiB";
    for larger in UNITS.iter().skip(1) {
        if tenths < 10 * 1024 {
            break;
        }
        tenths /= 1024;
        unit = larger;
    }
    if tenths < 100 { format!("{}.{} {unit}", tenths / 10, tenths % 10) } else { format!("{} {unit}", tenths / 10) }
}

/// A text from outside without what could move a terminal's cursor.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A text of at most so many characters, with an ellipsis if some are missing.
pub(super) fn short(text: &str, characters: usize) -> String {
    let text = plain(text);
    if text.chars().count() <= characters {
        return text;
    }
    text.chars().take(characters.saturating_sub(1)).chain(['\u{2026}']).collect()
}

/// Rows under headings; columns as wide as their widest cell.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| (*heading).to_owned()).collect()] }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.iter().map(|cell| plain(cell)).collect());
    }

    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut widths = Vec::new();
        for row in &self.rows {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for row in &self.rows {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            writeln!(out, "{}", cells.join("  ").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_are_short() {
        for (seconds, text) in [(0, "0s"), (45, "45s"), (200, "3m20s"), (7200, "2h"), (7201, "2h"), (446_400, "5d4h")] {
            assert_eq!(span(seconds), text);
        }
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (4096, "4.0 KiB"), (26_214_400, "25 MiB"), (u64::MAX, "16777215 TiB")]
        {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(distance(61_000, 1_000), "in 1m");
        assert_eq!(distance(1_000, 61_000), "1m ago");
    }

    #[test]
    fn tables_align_and_hold_no_escape_sequences() {
        let mut table = Table::new(&["a", "long"]);
        table.row(["\u{1b}[31mx".to_owned(), "y".to_owned()]);
        table.row(["\u{e4}".to_owned(), String::new()]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a       long\n [31mx  y\n\u{e4}\n");
        assert_eq!(short("abcdef", 4), "abc\u{2026}");
    }
}
