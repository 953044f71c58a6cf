//! Errors of the system in words for people.

use std::fmt::Display;

/// An error's text without the numbers of the system: `Connection refused`, not `Connection refused (os error 111)`. Wherever in the
/// text they stand, for an error may quote another one.
#[must_use]
pub fn plain(error: impl Display) -> String {
    const OPENING: &str = " (os error ";
    let text = error.to_string();
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find(OPENING) {
        let (before, found) = rest.split_at(at);
        let number = found.get(OPENING.len()..).unwrap_or_default();
        let digits = number.bytes().take_while(u8::is_ascii_digit).count();
        let tail = number.get(digits..).and_then(|tail| tail.strip_prefix(')')).filter(|_| digits > 0);
        out.push_str(before);
        match tail {
            Some(tail) => rest = tail,
            None => {
                out.push_str(OPENING);
                rest = number;
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::plain;

    #[test]
    fn errors_lose_their_numbers_and_nothing_else() {
        assert_eq!(plain(io::Error::from_raw_os_error(111)), "Connection refused");
        let quoted = format!("/x: {}: gone", io::Error::from_raw_os_error(2));
        assert_eq!(plain(quoted), "/x: No such file or directory: gone");
        for same in ["", "plain", "a (os error x)", "a (os error )", "a (os error 1", "(os error 1)"] {
            assert_eq!(plain(same), same);
        }
    }
}
