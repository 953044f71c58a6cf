//! Values as people read them: local times, spans, sizes.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::layout::count;
use crate::mail_log::text::is_unsafe;

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

/// A time to come, as a person plans by it: `14:32, in 5 min`.
pub(super) fn upcoming(ms: i64, now_ms: i64) -> String {
    upcoming_in(ms, now_ms, &TimeZone::system())
}

fn upcoming_in(ms: i64, now_ms: i64, zone: &TimeZone) -> String {
    let seconds = ms.saturating_sub(now_ms) / 1000;
    let at = |ms| Timestamp::from_millisecond(ms).map(|time| time.to_zoned(zone.clone()));
    let (Ok(then), Ok(now)) = (at(ms), at(now_ms)) else { return "?".to_owned() };
    let format = match seconds {
        ..=0 => return "now".to_owned(),
        1..120 => "%H:%M:%S",
        _ if then.date() == now.date() => "%H:%M",
        _ => "%b %-d %H:%M",
    };
    format!("{}, in {}", then.strftime(format), long_span(seconds.unsigned_abs()))
}

/// A span in words: `32 s`, `5 min`, `2 h 10 min`, `3 d 4 h`.
fn long_span(seconds: u64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let two = |large: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {small_unit}"),
    };
    match seconds {
        ..120 => format!("{seconds} s"),
        120..3600 => format!("{minutes} min"),
        3600..86_400 => two(hours, "h", minutes % 60, "min"),
        _ => two(hours / 24, "d", hours % 24, "h"),
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

/// A size with its bytes, where the unit hides them: `263 bytes`, `4.0 KiB (4096 bytes)`.
pub(super) fn exact_size(bytes: u64) -> String {
    if bytes < 1024 { count(bytes, "byte") } else { format!("{} ({bytes} bytes)", size(bytes)) }
}

/// A text from outside without characters that move a terminal's cursor or turn the direction of text.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if is_unsafe(c) { ' ' } else { c }).collect()
}

/// A text cut to `characters`, with an ellipsis if some are missing.
pub(super) fn short(text: &str, characters: usize) -> String {
    let text = plain(text);
    if text.chars().count() <= characters {
        return text;
    }
    text.chars().take(characters.saturating_sub(1)).chain(['\u{2026}']).collect()
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
    fn coming_times_are_short() {
        let now = 1_795_356_300_000;
        for (after_s, text) in [
            (0, "now"),
            (-5, "now"),
            (32, "14:05:32, in 32 s"),
            (300, "14:10, in 5 min"),
            (7800, "16:15, in 2 h 10 min"),
            (86_400, "Nov 23 14:05, in 1 d"),
        ] {
            assert_eq!(upcoming_in(now + after_s * 1000, now, &TimeZone::UTC), text);
        }
    }

    #[test]
    fn sizes_are_told_once() {
        assert_eq!([exact_size(1), exact_size(263), exact_size(4096)], ["1 byte", "263 bytes", "4.0 KiB (4096 bytes)"]);
    }

    #[test]
    fn foreign_text_moves_no_cursor() {
        assert_eq!(plain("\u{1b}[31mx"), " [31mx");
        assert_eq!(short("abcdef", 4), "abc\u{2026}");
    }
}
