//! What is quoted in a report, made harmless: pure.
//!
//! After it nothing holds a NUL, a CR or LF that is not the end of a line meant to be one, or a line longer than 998 bytes.

use std::fmt::Write;

use memchr::memmem;

use crate::supervisor::mail;

/// Bytes of a line without its CRLF (RFC 5322 2.1.1).
const LINE_BYTES_MAX: usize = 998;

/// Bytes of a line of a field before it is folded (RFC 5322 2.1.1 recommends 78).
const FOLD_BYTES: usize = 76;

/// A text for the value of a field on one line: control characters become `?`, and so does what is not ASCII unless `utf8`.
pub(super) fn field(text: &str, utf8: bool) -> String {
    text.chars().map(|c| if c.is_control() || !(utf8 || c.is_ascii()) { '?' } else { c }).collect()
}

/// A text that stands where a host name stands: nothing but letters, digits, dots, hyphens and what literals need.
pub(super) fn word(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || ".-_[]:".contains(c) { c } else { '?' }).collect()
}

/// A text in ASCII with everything else as `\x{HEX}`, as in a utf-8-addr-unitext (RFC 6533 3).
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.push('?');
        } else if c.is_ascii() {
            out.push(c);
        } else {
            let _ = write!(out, "\\x{{{:X}}}", u32::from(c));
        }
    }
    out
}

/// A field whose value may be long and of several lines; each line goes on a folded line of its own, and long ones on several.
pub(super) fn folded(name: &str, value: &str, utf8: bool) -> String {
    let mut out = format!("{name}:");
    let mut used = out.len();
    for (number, line) in value.lines().enumerate() {
        if number > 0 {
            out.push_str("\r\n");
            used = 0;
        }
        let line = if utf8 { field(line, true) } else { escaped(line) };
        for piece in line.split(' ').filter(|piece| !piece.is_empty()).flat_map(pieces) {
            let behind_others = used > 1 + name.len() && used + piece.len() >= FOLD_BYTES;
            if behind_others || used + 1 + piece.len() > LINE_BYTES_MAX {
                out.push_str("\r\n");
                used = 0;
            }
            out.push(' ');
            out.push_str(piece);
            used += 1 + piece.len();
        }
        if used == 0 {
            // A folded line of nothing but white space would be taken for the end of the header by some.
            out.truncate(out.len() - 2);
            used = FOLD_BYTES;
        }
    }
    out + "\r\n"
}

/// A word in pieces that fit onto a line.
fn pieces(word: &str) -> impl Iterator<Item = &str> {
    let mut rest = word;
    std::iter::from_fn(move || {
        let (piece, tail) = rest.split_at(rest.floor_char_boundary(LINE_BYTES_MAX - 8));
        rest = tail;
        (!piece.is_empty()).then_some(piece)
    })
}

/// A block of lines: every line end becomes CRLF, NUL becomes `?`, long lines are cut and go on after a space.
pub(super) fn lines(block: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(block.len() + 2);
    let mut rest = block;
    while !rest.is_empty() {
        let end = memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
        let (line, tail) = rest.split_at(end);
        rest = tail.strip_prefix(b"\r\n").or_else(|| tail.get(1..)).unwrap_or_default();
        for (number, piece) in line.chunks(LINE_BYTES_MAX - 1).enumerate() {
            if number > 0 {
                out.extend_from_slice(b"\r\n ");
            }
            out.extend(piece.iter().map(|byte| if *byte == 0 { b'?' } else { *byte }));
        }
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Lines with CRLF ends in quoted-printable (RFC 2045 6.7).
pub(super) fn quoted_printable(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() * 2);
    let mut rest = text;
    while !rest.is_empty() {
        let end = memmem::find(rest, b"\r\n").unwrap_or(rest.len());
        let (line, tail) = rest.split_at(end);
        rest = tail.get(2..).unwrap_or_default();
        let mut used = 0;
        for (at, byte) in line.iter().enumerate() {
            let last = at + 1 == line.len();
            let plain = (b'!'..=b'~').contains(byte) && *byte != b'=' || (matches!(byte, b' ' | b'\t') && !last);
            let length = if plain { 1 } else { 3 };
            if used + length >= FOLD_BYTES {
                out.extend_from_slice(b"=\r\n");
                used = 0;
            }
            if plain {
                out.push(*byte);
            } else {
                out.extend_from_slice(format!("={byte:02X}").as_bytes());
            }
            used += length;
        }
        if !tail.is_empty() {
            out.extend_from_slice(b"\r\n");
        }
    }
    out
}

/// What stands in an xtext (RFC 3461 4): `+HH` is the byte HH.
pub(super) fn from_xtext(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let coded = tail.get(..2).filter(|_| *first == b'+').and_then(|hex| std::str::from_utf8(hex).ok());
        match coded
            .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
        {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The Message-ID in a header, if it is one that can be repeated as it is.
pub(super) fn message_id(header: &[u8]) -> Option<String> {
    let value = mail::message_id(header)?;
    let inner = value.strip_prefix('<')?.strip_suffix('>')?;
    let plain = inner.bytes().all(|b| b.is_ascii_graphic() && b != b'<' && b != b'>');
    (plain && inner.contains('@') && inner.len() <= 250).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_ends_every_line_alike_and_cuts_long_ones() {
        assert_eq!(lines(b"a\rb\nc\r\n\r\nd\0"), b"a\r\nb\r\nc\r\n\r\nd?\r\n");
        let long = lines(&[b'x'; 3000]);
        assert!(long.split(|byte| *byte == b'\n').all(|line| line.len() <= LINE_BYTES_MAX + 1));
        assert_eq!(long.iter().filter(|byte| **byte == b'x').count(), 3000);
    }

    #[test]
    fn a_field_is_folded_and_cannot_be_left() {
        let value = format!("smtp; 550-first line\n\r\n\nInjected: x\r\ry\u{e9}\n{}", "z".repeat(3000));
        let field = folded("Diagnostic-Code", &value, false);
        let lines: Vec<&str> = field.trim_end().split("\r\n").collect();
        assert!(lines.iter().skip(1).all(|line| line.starts_with(' ') && !line.trim().is_empty()), "{field}");
        assert!(lines.iter().all(|line| line.len() <= LINE_BYTES_MAX && !line.contains(['\r', '\n'])));
        assert!(field.contains(" Injected: x??y\\x{E9}\r\n") && field.is_ascii(), "{field}");
    }

    #[test]
    fn one_long_word_is_folded_behind_the_name() {
        let field = folded("Original-Envelope-Id", &"z".repeat(2000), false);
        assert!(field.starts_with("Original-Envelope-Id:\r\n zzz"), "{field}");
        assert!(field.split("\r\n").all(|line| line.len() <= LINE_BYTES_MAX), "{field}");
    }

    #[test]
    fn quoted_printable_keeps_lines_short_and_ends_safe() {
        let out = quoted_printable(&[b"caf\xe9 = \r\n.\r\n".as_slice(), &[0xff; 100], b"\r\n"].concat());
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("caf=E9 =3D=20\r\n.\r\n=FF"), "{text}");
        assert!(text.split("\r\n").all(|line| line.len() <= FOLD_BYTES));
    }

    #[test]
    fn xtext_is_decoded_and_bad_xtext_stays() {
        assert_eq!(from_xtext("a+2Bb+3D+zz+4"), "a+b=+zz+4");
    }

    #[test]
    fn only_a_plain_message_id_is_repeated() {
        let id = |header: &str| message_id(header.as_bytes());
        assert_eq!(id("A: b\r\nMESSAGE-id: <a@b>\r\n"), Some("<a@b>".to_owned()));
        assert_eq!(id("Message-ID:\r\n <a@b>\r\n"), Some("<a@b>".to_owned()));
        for bad in
            ["Message-ID: <a@b> <c@d>", "Message-ID: a@b", "Message-ID: <a\rb@c>", "Message-ID:\r\nX: <a@b>", "X: y"]
        {
            assert_eq!(id(bad), None, "{bad:?}");
        }
    }
}
