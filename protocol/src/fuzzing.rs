//! What fuzz targets have in common, and those of this crate. Only with the feature `fuzzing`; nothing that is shipped has it.
//!
//! A target is a function of bytes. It panics if something does not hold that has to hold whatever the bytes are; not panicking is the
//! least of it. Each target is a folder of `fuzz/corpus/` and a program of `fuzz/fuzz_targets/`.
//!
//! An input that stands for several things at once is cut into sections by lines of `%%`, so that a person can write and read it.

use crate::claims::Pattern;
use crate::codec;
use crate::message::{Address, Notify, SMTP};
use crate::units;

/// A name, as in `fuzz/corpus/NAME`, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// The targets of this crate.
pub const TARGETS: &[Target] =
    &[("addresses", addresses), ("from_worker", codec::fuzzing::from_worker), ("to_worker", codec::fuzzing::to_worker)];

/// The sections of an input, at most `N`: those that are missing are empty, and the last one holds the rest.
#[must_use]
pub fn sections<const N: usize>(input: &[u8]) -> [&[u8]; N] {
    const MARK: &[u8] = b"\n%%\n";
    let mut sections = [input.split_at(0).0; N];
    let mut rest = input;
    let mut left = N;
    for section in &mut sections {
        left -= 1;
        let found = if left == 0 { None } else { rest.windows(MARK.len()).position(|window| window == MARK) };
        let (head, tail) = rest.split_at(found.unwrap_or(rest.len()));
        *section = head;
        rest = tail.get(MARK.len()..).unwrap_or_default();
    }
    sections
}

/// Cuts bytes into pieces as a network might, by the digits of a section: each digit is the length of the next piece, `0` is all
/// that is left, and after the last digit they begin again. Without digits there is one piece.
pub fn pieces<'a>(bytes: &'a [u8], cuts: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let digits = cuts.iter().filter(|byte| byte.is_ascii_digit());
    let mut lengths = digits.map(|byte| usize::from(byte - b'0')).cycle();
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = lengths.next().filter(|length| *length > 0).unwrap_or(rest.len());
        let (piece, tail) = rest.split_at(length.min(rest.len()));
        rest = tail;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Where a CR, an LF or a NUL stands that no mail may hold; the only line end is CRLF (RFC 5321 2.3.8).
#[must_use]
pub fn stray_byte(bytes: &[u8]) -> Option<usize> {
    let before = |at: usize| at.checked_sub(1).and_then(|at| bytes.get(at));
    bytes.iter().enumerate().position(|(at, byte)| match byte {
        b'\r' => bytes.get(at + 1) != Some(&b'\n'),
        b'\n' => before(at) != Some(&b'\r'),
        byte => *byte == 0,
    })
}

/// Panics if the bytes are not made of CRLF lines alone.
///
/// # Panics
/// With `what`, and where.
pub fn assert_clean(what: &str, bytes: &[u8]) {
    let stray = stray_byte(bytes);
    assert_eq!(stray, None, "{what}: a stray CR, LF or NUL in {:?}", bytes.escape_ascii().to_string());
}

/// Addresses, patterns, report wishes, durations and sizes, as people and programs write them: what is read prints as what reads the
/// same again, and no control character is let through.
fn addresses(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(address) = text.parse::<Address>() {
        assert!(!address.text().chars().any(char::is_control));
        assert_eq!(address.to_string().parse(), Ok(address.clone()));
        if let Some((local, domain)) = address.local_and_domain() {
            assert!(!domain.is_empty() && local.len() + domain.len() < address.text().len());
        }
        if let Ok(pattern) = Pattern::parse(&text) {
            let _ = pattern.matches(&address);
        }
        if let Ok(mail) = Address::smtp(address.text()) {
            assert_eq!((mail.kind(), mail.to_string().parse()), (SMTP, Ok(mail.clone())));
        }
    }
    if let Ok(notify) = text.parse::<Notify>() {
        assert_eq!(notify.keywords().parse(), Ok(notify));
    }
    if let Ok(duration) = units::duration(&text) {
        assert!(!units::show_duration(duration).is_empty());
    }
    let _ = units::size(&text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_cut_at_its_marks() {
        assert_eq!(sections(b"a\n%%\nb\n%%\nc\n%%\nd"), [&b"a"[..], b"b", b"c\n%%\nd"]);
        assert_eq!(sections(b"a"), [&b"a"[..], b"", b""]);
        let pieces = |bytes, cuts| pieces(bytes, cuts).collect::<Vec<&[u8]>>();
        assert_eq!(pieces(b"abcdef", b"1x2"), [&b"a"[..], b"bc", b"d", b"ef"]);
        assert_eq!(pieces(b"abcdef", b"20"), [&b"ab"[..], b"cdef"]);
        assert_eq!(pieces(b"abc", b""), [b"abc"]);
        assert_eq!(pieces(b"", b"3"), [&b""[..]; 0]);
    }

    #[test]
    fn stray_bytes_are_found() {
        for (bytes, at) in [("", None), ("a\r\n\r\n", None), ("a\n", Some(1)), ("\r\r\n", Some(0)), ("a\0", Some(1))] {
            assert_eq!(stray_byte(bytes.as_bytes()), at, "{bytes:?}");
        }
        assert_eq!(stray_byte(b"a\r"), Some(1));
    }
}
