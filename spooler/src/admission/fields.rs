//! The header, one field after the other, and changes of it.

use bytes::Bytes;
use memchr::{memchr, memchr2};

/// A field with its folded lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found<'a> {
    /// As it is written.
    pub(super) name: &'a [u8],
    /// Everything behind the colon, line ends included.
    pub(super) value: &'a [u8],
    /// Where the value begins.
    pub(super) value_at: usize,
    /// Bytes of the whole field.
    pub(super) bytes: usize,
}

/// What stands where a field may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// A field.
    Field(Found<'a>),
    /// The first line of a message in an mbox, of so many bytes, before a field.
    Mbox(usize),
    /// The empty line behind a header.
    Empty,
    /// Something else: the header has ended without an empty line.
    Text,
    /// Nothing more.
    End,
    /// This cannot be told without what follows.
    Incomplete,
}

/// Judges the begin of `rest`. `last`: nothing follows it. `first`: it is the begin of the message.
pub(super) fn next(rest: &[u8], last: bool, first: bool) -> Line<'_> {
    match rest {
        [] if last => return Line::End,
        [] => return Line::Incomplete,
        [b'\n', ..] | [b'\r', b'\n', ..] => return Line::Empty,
        [b'\r'] if !last => return Line::Incomplete,
        _ => {}
    }
    if first && is_mbox(rest, last) {
        return mbox(rest, last);
    }
    let Some(name) = name(rest) else {
        // A name ends with a colon, or the line does.
        let undecided = !last && memchr2(b':', b'\n', rest).is_none() && could_be_name(rest);
        return if undecided { Line::Incomplete } else { Line::Text };
    };
    let Some(bytes) = field_end(rest, last) else { return Line::Incomplete };
    let value_at = memchr(b':', rest).map_or(bytes, |colon| colon + 1);
    Line::Field(Found { name, value: rest.get(value_at..bytes).unwrap_or_default(), value_at, bytes })
}

/// Whether a text begins as the first line of a message in an mbox. A text that is too short for that is not judged here.
fn is_mbox(rest: &[u8], last: bool) -> bool {
    let text = rest.strip_prefix(b">").unwrap_or(rest);
    text.starts_with(b"From ") || (!last && text.len() < 5 && b"From ".starts_with(text))
}

/// A first line `From …` is that of an mbox if a header follows; else it is text that begins so.
fn mbox(rest: &[u8], last: bool) -> Line<'_> {
    let Some(end) = memchr(b'\n', rest) else { return if last { Line::Text } else { Line::Incomplete } };
    let behind = rest.get(end + 1..).unwrap_or_default();
    // A name is enough: its field may be too long to be looked at whole.
    if name(behind).is_some() {
        return Line::Mbox(end + 1);
    }
    match next(behind, last, false) {
        Line::Incomplete => Line::Incomplete,
        Line::Field(_) | Line::Mbox(_) | Line::Empty | Line::Text | Line::End => Line::Text,
    }
}

/// The name of the field at the begin of a text, with nothing but printable ASCII in it (RFC 5322 3.6.8) and blanks before its colon (4.5).
pub(super) fn name(rest: &[u8]) -> Option<&[u8]> {
    let colon = memchr2(b':', b'\n', rest).filter(|at| rest.get(*at) == Some(&b':'))?;
    let name = rest.get(..colon)?.trim_ascii_end();
    (!name.is_empty() && name.iter().all(u8::is_ascii_graphic)).then_some(name)
}

fn could_be_name(rest: &[u8]) -> bool {
    rest.trim_ascii_end().iter().all(u8::is_ascii_graphic)
}

/// Behind the last line of the field at the begin of a text.
fn field_end(rest: &[u8], last: bool) -> Option<usize> {
    let mut at = 0;
    loop {
        let Some(end) = memchr(b'\n', rest.get(at..).unwrap_or_default()) else { return last.then_some(rest.len()) };
        at += end + 1;
        match rest.get(at) {
            Some(b' ' | b'\t') => {}
            Some(_) => return Some(at),
            None => return last.then_some(at),
        }
    }
}

/// How far a field goes that is not read.
pub(super) struct LongEnd {
    pub(super) taken: usize,
    pub(super) is_over: bool,
}

/// Where in a text the field ends in whose middle the text begins. The last byte stays if only what follows it tells.
pub(super) fn end_of_long(rest: &[u8], last: bool) -> LongEnd {
    match field_end(rest, last) {
        Some(taken) => LongEnd { taken, is_over: true },
        None => LongEnd { taken: rest.len() - usize::from(rest.ends_with(b"\n")), is_over: false },
    }
}

/// Changes of a text, in the order of their places.
#[derive(Debug, Default)]
pub(super) struct Edits {
    edits: Vec<Edit>,
}

#[derive(Debug)]
struct Edit {
    at: usize,
    removes: usize,
    inserts: Vec<u8>,
}

impl Edits {
    pub(super) fn insert(&mut self, at: usize, text: &[u8]) {
        self.edits.push(Edit { at, removes: 0, inserts: text.to_vec() });
    }

    pub(super) fn remove(&mut self, at: usize, bytes: usize) {
        if bytes > 0 {
            self.edits.push(Edit { at, removes: bytes, inserts: Vec::new() });
        }
    }

    /// The changed text; the same one, not copied, if nothing changes.
    pub(super) fn apply(self, text: Bytes) -> Bytes {
        if self.edits.is_empty() {
            return text;
        }
        let more: usize = self.edits.iter().map(|edit| edit.inserts.len()).sum();
        let mut out = Vec::with_capacity(text.len() + more);
        let mut done = 0;
        for edit in self.edits {
            out.extend_from_slice(text.get(done..edit.at).unwrap_or_default());
            out.extend_from_slice(&edit.inserts);
            done = edit.at + edit.removes;
        }
        out.extend_from_slice(text.get(done..).unwrap_or_default());
        out.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str, last: bool, first: bool) -> &'static str {
        match next(text.as_bytes(), last, first) {
            Line::Field(_) => "field",
            Line::Mbox(_) => "mbox",
            Line::Empty => "empty",
            Line::Text => "text",
            Line::End => "end",
            Line::Incomplete => "incomplete",
        }
    }

    #[test]
    fn lines_are_told_apart() {
        for (text, whole, begun) in [
            ("", "end", "incomplete"),
            ("\r\n", "empty", "empty"),
            ("\r", "text", "incomplete"),
            ("A: 1\r\n", "field", "incomplete"),
            ("A: 1\r\n b\r\n", "field", "incomplete"),
            ("A: 1\r\nB", "field", "field"),
            ("A", "text", "incomplete"),
            ("A \t: 1\r\nB", "field", "field"),
            ("a b", "text", "text"),
            (" A: 1\r\n", "text", "text"),
            (": 1\r\n", "text", "text"),
            ("no field\r\nA: 1\r\n", "text", "text"),
            ("From x Mon\r\nA: 1\r\nB", "mbox", "mbox"),
            (">From x Mon\r\nA: 1\r\nB", "mbox", "mbox"),
            ("From now on\r\nall is well\r\n", "text", "text"),
            ("From x\r\n", "text", "incomplete"),
            ("Fro", "text", "incomplete"),
        ] {
            assert_eq!((kind(text, true, true), kind(text, false, true)), (whole, begun), "{text:?}");
        }
        assert_eq!(kind("From x Mon\r\nA: 1\r\nB", true, false), "text", "only a message begins so");
    }

    #[test]
    fn fields_keep_their_bytes() {
        let Line::Field(found) = next(b"To : a,\r\n b\r\nCc: c", false, true) else { panic!("a field") };
        assert_eq!((found.name, found.value, found.bytes), (&b"To"[..], &b" a,\r\n b\r\n"[..], 13));
    }

    #[test]
    fn edits_change_their_places_and_nothing_copies_nothing() {
        let text = Bytes::from_static(b"abcdef");
        assert_eq!(Edits::default().apply(text.clone()).as_ptr(), text.as_ptr());
        let mut edits = Edits::default();
        edits.insert(0, b"<");
        edits.remove(1, 2);
        edits.insert(3, b"-");
        edits.insert(6, b">");
        assert_eq!(edits.apply(text), "<a-def>");
    }
}
