//! Foreign text in a log: one line stays one line, and nothing in it moves a cursor or turns the direction of writing. Pure.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether a character could break out of a line, hide, or change how what follows is shown: controls (C0, C1), line and paragraph
/// separators, marks of direction, characters without width, tags.
#[must_use]
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// The text with each unsafe character as a JSON escape, such as `\u001b`.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    text.chars().for_each(|c| push_printable(c, &mut out));
    Cow::Owned(out)
}

fn push_printable(c: char, out: &mut String) {
    if !is_unsafe(c) {
        return out.push(c);
    }
    for unit in c.encode_utf16(&mut [0; 2]) {
        let _ = write!(out, "\\u{unit:04x}");
    }
}

/// Adds the text as a JSON string, in quotes.
pub(super) fn push_quoted(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        push_printable(c, out);
    }
    out.push('"');
}

/// Adds the text as a value of logfmt: in quotes if it would not be one word without them.
pub(super) fn push_value(text: &str, out: &mut String) {
    let splits = |c: char| c.is_whitespace() || matches!(c, '"' | '=' | '\\') || is_unsafe(c);
    if text.is_empty() || text.contains(splits) { push_quoted(text, out) } else { out.push_str(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_stays_on_its_line() {
        let hostile = "a\r\nb\u{1b}[2J\u{85}\u{202e}\u{2028}\u{200b}\u{e0041}\u{7f}";
        let mut value = String::new();
        push_value(hostile, &mut value);
        assert!(!value.contains(is_unsafe), "{value:?}");
        assert_eq!(serde_json::from_str::<String>(&value).unwrap(), hostile, "an escaped text can be read back");
        assert!(!printable(hostile).contains(is_unsafe));
        assert_eq!(printable("Grüße 日本"), "Grüße 日本");
    }

    #[test]
    fn values_are_quoted_only_where_needed() {
        for (text, shown) in [
            ("a@b", "a@b"),
            ("", "\"\""),
            ("a b", "\"a b\""),
            ("k=v", "\"k=v\""),
            ("a\"b\\", r#""a\"b\\""#),
            ("<>", "<>"),
        ] {
            let mut value = String::new();
            push_value(text, &mut value);
            assert_eq!(value, shown);
        }
    }
}
