//! The content of a message at its final delivery (RFC 5321 4.4): what the outside claims of the envelope is dropped, and an mbox file
//! stays readable.
//!
//! | rule | effect |
//! |---|---|
//! | `drop_return_path` | header fields `Return-Path` of the content are left out, because ours stands in front |
//! | `quote_from` | lines that begin with `From `, or with `>` and that, get a `>` in front, and an empty line follows (mboxrd) |
//!
//! Content comes piece by piece. Of each line only its beginning is held back, until a rule applies or cannot apply any more.

use super::form::{Converter, LineEnds};

const RETURN_PATH: &[u8] = b"return-path";
const FROM: &[u8] = b"From ";
/// Bytes of a line's beginning that are looked at; a line with more `>` than this needs no quoting.
const BEGINNING_BYTES_MAX: usize = 80;

/// Which rules apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Leave out header fields `Return-Path`.
    pub(crate) drop_return_path: bool,
    /// Quote lines that would begin a message in an mbox file.
    pub(crate) quote_from: bool,
}

/// Converts content that comes piece by piece.
#[derive(Debug)]
pub(crate) struct LastForm {
    converter: Converter,
    end: &'static [u8],
    rules: Rules,
    converted: Vec<u8>,
    /// The beginning of a line about which nothing is decided yet.
    beginning: Vec<u8>,
    line: Line,
    in_header: bool,
    /// The header field that the last line belongs to is left out.
    dropping: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Begins,
    Kept,
    Dropped,
}

/// What becomes of a line.
enum Fate {
    Keep,
    Quote,
    Drop,
}

impl LastForm {
    /// Starts with the first piece to come.
    pub(crate) fn new(ends: LineEnds, rules: Rules) -> Self {
        Self {
            converter: Converter::new(ends),
            end: ends.bytes(),
            rules,
            converted: Vec::new(),
            beginning: Vec::new(),
            line: Line::Begins,
            in_header: true,
            dropping: false,
        }
    }

    /// Converts a piece into `out`, which is emptied before.
    pub(crate) fn convert(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        if self.rules == Rules::default() {
            self.converter.convert(piece, out);
            return;
        }
        let mut converted = std::mem::take(&mut self.converted);
        self.converter.convert(piece, &mut converted);
        out.clear();
        self.pass(&converted, out);
        self.converted = converted;
    }

    /// Adds to `out` what is left after the last piece.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        let rest = self.converter.finish();
        if self.rules == Rules::default() {
            out.extend_from_slice(rest);
            return;
        }
        self.pass(rest, out);
        if self.line == Line::Begins && !self.beginning.is_empty() {
            let fate = self.decide(true).unwrap_or(Fate::Keep);
            self.begin(&fate, out);
        }
        if self.rules.quote_from {
            if self.line != Line::Begins {
                out.extend_from_slice(self.end);
            }
            out.extend_from_slice(self.end);
        }
    }

    fn pass(&mut self, mut rest: &[u8], out: &mut Vec<u8>) {
        while let Some((&first, behind)) = rest.split_first() {
            if self.line == Line::Begins {
                self.beginning.push(first);
                rest = behind;
                let ended = first == b'\n';
                if let Some(fate) = self.decide(ended || self.beginning.len() >= BEGINNING_BYTES_MAX) {
                    self.begin(&fate, out);
                    if ended {
                        self.line = Line::Begins;
                    }
                }
                continue;
            }
            let length = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            let (line, behind) = rest.split_at(length);
            if self.line == Line::Kept {
                out.extend_from_slice(line);
            }
            if line.ends_with(b"\n") {
                self.line = Line::Begins;
            }
            rest = behind;
        }
    }

    /// What becomes of the line that begins so; `None` as long as more of it has to be seen. `whole`: there is no more.
    fn decide(&mut self, whole: bool) -> Option<Fate> {
        let line = self.beginning.as_slice();
        if self.in_header && self.rules.drop_return_path {
            match line {
                [b' ' | b'\t', ..] => {
                    return Some(if self.dropping { Fate::Drop } else { Fate::Keep });
                }
                [b'\n'] | [b'\r', b'\n'] => self.in_header = false,
                [b'\r'] if !whole => return None,
                _ => match names_return_path(line) {
                    None if !whole => return None,
                    named => self.dropping = named == Some(true),
                },
            }
            if self.in_header && self.dropping {
                return Some(Fate::Drop);
            }
        }
        if !self.rules.quote_from {
            return Some(Fate::Keep);
        }
        let marks = line.iter().take_while(|byte| **byte == b'>').count();
        let behind = line.get(marks..).unwrap_or_default();
        if behind.starts_with(FROM) {
            Some(Fate::Quote)
        } else if FROM.starts_with(behind) && !whole {
            None
        } else {
            Some(Fate::Keep)
        }
    }

    /// The fate of a line is known.
    fn begin(&mut self, fate: &Fate, out: &mut Vec<u8>) {
        self.line = if matches!(fate, Fate::Drop) { Line::Dropped } else { Line::Kept };
        if matches!(fate, Fate::Quote) {
            out.push(b'>');
        }
        if self.line == Line::Kept {
            out.extend_from_slice(&self.beginning);
        }
        self.beginning.clear();
    }
}

/// Whether a line is the field `Return-Path`, in any case, with blanks before the colon; `None` if that cannot be said yet.
fn names_return_path(line: &[u8]) -> Option<bool> {
    let common = line.iter().zip(RETURN_PATH).take_while(|(byte, wanted)| byte.eq_ignore_ascii_case(wanted)).count();
    if common < RETURN_PATH.len() {
        return if common == line.len() { None } else { Some(false) };
    }
    let behind = line.get(common..).unwrap_or_default();
    let next = behind.iter().find(|byte| !matches!(byte, b' ' | b'\t'))?;
    Some(*next == b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Rules = Rules { drop_return_path: true, quote_from: true };

    fn in_pieces(content: &[u8], piece_bytes: usize, ends: LineEnds, rules: Rules) -> Vec<u8> {
        let mut form = LastForm::new(ends, rules);
        let (mut all, mut out) = (Vec::new(), Vec::new());
        for piece in content.chunks(piece_bytes) {
            form.convert(piece, &mut out);
            all.extend_from_slice(&out);
        }
        form.finish(&mut all);
        all
    }

    #[track_caller]
    fn check(content: &str, wanted: &str, rules: Rules) {
        for piece_bytes in 1..=content.len().max(1) {
            let lf = in_pieces(content.as_bytes(), piece_bytes, LineEnds::Lf, rules);
            assert_eq!(String::from_utf8_lossy(&lf), wanted, "in pieces of {piece_bytes}");
            let crlf = in_pieces(content.as_bytes(), piece_bytes, LineEnds::Crlf, rules);
            assert_eq!(String::from_utf8_lossy(&crlf), wanted.replace('\n', "\r\n"), "in pieces of {piece_bytes}");
        }
    }

    #[test]
    fn return_path_of_the_header_is_dropped() {
        let rules = Rules { drop_return_path: true, quote_from: false };
        let content = "Return-Path: <a@b>\r\nTo: x\r\n\tfolded\r\nRETURN-PATH \t:\r\n <forged@b>\r\n\tmore\r\nReturn-Path-X: y\r\n\
             Return-Paths\r\nReturn\r\n\r\nReturn-Path: <in@body>\r\n z\r\n";
        let wanted = "To: x\n\tfolded\nReturn-Path-X: y\nReturn-Paths\nReturn\n\nReturn-Path: <in@body>\n z\n";
        check(content, wanted, rules);
        check("return-path: x", "", rules);
        check("Return-Path", "Return-Path", rules);
        check("\r\nReturn-Path: x\r\n", "\nReturn-Path: x\n", rules);
        check("", "", rules);
    }

    #[test]
    fn lines_of_an_mbox_are_quoted() {
        let content = "From x\r\nTo: From y\r\n\r\nFrom here\r\n>From there\r\n>>>From \r\nFrom\r\n Fro\r\n>Fr\r\n> From x\r\nFrom end";
        let wanted =
            ">From x\nTo: From y\n\n>From here\n>>From there\n>>>>From \nFrom\n Fro\n>Fr\n> From x\n>From end\n\n";
        check(content, wanted, ALL);
        check("Return-Path: x\r\n\r\nFrom\r\n", "\nFrom\n\n", ALL);
        check("", "\n", ALL);
    }

    #[test]
    fn long_beginnings_are_not_kept_for_ever() {
        let mut form = LastForm::new(LineEnds::Lf, ALL);
        let mut out = Vec::new();
        form.convert(&[b'>'; 100_000], &mut out);
        assert_eq!(out.len(), 100_000);
        form.convert(format!("\r\n\r\nReturn-Path{}", " ".repeat(1000)).as_bytes(), &mut out);
        assert!(out.len() > 900 && form.beginning.len() < BEGINNING_BYTES_MAX);
    }

    #[test]
    fn without_rules_nothing_else_changes() {
        let content = b"Return-Path: x\r\n\r\nFrom y\r\n\r";
        assert_eq!(in_pieces(content, 3, LineEnds::Lf, Rules::default()), b"Return-Path: x\n\nFrom y\n\r");
    }
}
