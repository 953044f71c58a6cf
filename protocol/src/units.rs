//! Units that people write: durations and sizes.

use std::time::Duration;

/// Why a text is not a duration or a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a duration.
    #[error("{0:?} is not a duration; write a number and ms, s, m, h or d, such as \"90s\" or \"5d\"")]
    Duration(String),
    /// Not a size.
    #[error("{0:?} is not a size; write a number of bytes, or a number and K, M or G, such as \"25M\"")]
    Size(String),
}

/// Reads `500ms`, `90s`, `5m`, `1h`, `5d`, or several in a row such as `1h30m`.
///
/// # Errors
/// If the text is anything else, or more than 1,000 years.
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    let bad = || UnitError::Duration(text.to_owned());
    let mut rest = text.trim();
    let mut total_ms: u64 = 0;
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let unit_ms: u64 = match unit.trim() {
            "ms" => 1,
            "s" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(bad()),
        };
        let number: u64 = number.parse().map_err(|_| bad())?;
        total_ms = number.checked_mul(unit_ms).and_then(|ms| total_ms.checked_add(ms)).ok_or_else(bad)?;
        rest = tail;
    }
    if total_ms > 1000 * 366 * 86_400_000 { Err(bad()) } else { Ok(Duration::from_millis(total_ms)) }
}

/// Reads `1000`, `10K`, `25M`, `1G`, with or without `iB` or `B` behind the letter; K is 1024.
///
/// # Errors
/// If the text is anything else, or too large for 63 bits.
pub fn size(text: &str) -> Result<u64, UnitError> {
    let bad = || UnitError::Size(text.to_owned());
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let shift = match unit.trim().to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        _ => return Err(bad()),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).filter(|bytes| i64::try_from(*bytes).is_ok()).ok_or_else(bad)
}

/// A duration for a person: the largest unit that divides it, such as `5d` or `90s`.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    for (unit_ms, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")] {
        if ms >= unit_ms && ms.is_multiple_of(unit_ms) {
            return format!("{}{unit}", ms / unit_ms);
        }
    }
    if ms == 0 { "0s".to_owned() } else { format!("{ms}ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for bad in ["", "5", "h", "5x", "-1s", "99999999999999999999d", "400000d"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
        for text in ["5d", "90s", "1h", "250ms", "0s"] {
            assert_eq!(show_duration(duration(text).unwrap()), text);
        }
    }

    #[test]
    fn sizes_read() {
        assert_eq!(size("25M"), Ok(25 << 20));
        assert_eq!(size("10 KiB"), Ok(10 << 10));
        assert_eq!(size("77"), Ok(77));
        for bad in ["", "M", "1.5G", "-1", "9999999999G"] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
    }
}
