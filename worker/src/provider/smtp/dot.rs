//! Stored content to wire form: clean line ends first, then a dot in front of every line that starts with one. Pure.
//!
//! | stored | sent |
//! |---|---|
//! | CR LF | CR LF |
//! | LF alone | CR LF |
//! | CR alone, NUL | a space, as Postfix does with CR |
//! | a dot that starts a line | two dots (only for DATA, RFC 5321 4.5.2) |
//! | no line end at the end | CR LF is added |
//!
//! So nothing that a lenient server could take for the end of the message leaves this machine. Lines longer than the 998 bytes of
//! RFC 5322 2.1.1 are sent unchanged: cutting them would break signatures, and every server that was tried takes them.

/// Turns stored content into wire form, piece by piece.
#[derive(Debug)]
pub(crate) struct WireForm {
    stuff_dots: bool,
    at_line_start: bool,
    /// The last piece ended with CR; what it is depends on the next byte.
    after_cr: bool,
}

impl WireForm {
    /// For DATA: with dots stuffed.
    pub(crate) fn for_data() -> Self {
        Self { stuff_dots: true, at_line_start: true, after_cr: false }
    }

    /// For BDAT (RFC 3030), which has no end mark and so no stuffing.
    pub(crate) fn for_bdat() -> Self {
        Self { stuff_dots: false, ..Self::for_data() }
    }

    /// Appends the wire form of the next piece to `out`.
    pub(crate) fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        out.reserve(piece.len() + piece.len() / 32 + 8);
        let mut rest = piece;
        while let Some(&first) = rest.first() {
            if self.after_cr {
                self.after_cr = false;
                if first == b'\n' {
                    self.end_line(out);
                    rest = rest.get(1..).unwrap_or_default();
                    continue;
                }
                self.space(out);
            }
            if self.at_line_start && self.stuff_dots && first == b'.' {
                out.push(b'.');
            }
            let plain = memchr::memchr3(b'\r', b'\n', 0, rest).unwrap_or(rest.len());
            let (run, tail) = rest.split_at(plain);
            out.extend_from_slice(run);
            self.at_line_start &= run.is_empty();
            rest = match tail {
                [b'\r', b'\n', tail @ ..] | [b'\n', tail @ ..] => {
                    self.end_line(out);
                    tail
                }
                [b'\r', tail @ ..] => {
                    self.after_cr = true;
                    tail
                }
                [_, tail @ ..] => {
                    self.space(out);
                    tail
                }
                [] => tail,
            };
        }
    }

    /// Appends what is missing at the end: the last line end, but no empty line, and for DATA the dot.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.after_cr) {
            self.space(out);
        }
        if !self.at_line_start {
            self.end_line(out);
        }
        if self.stuff_dots {
            out.extend_from_slice(b".\r\n");
        }
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n");
        self.at_line_start = true;
    }

    fn space(&mut self, out: &mut Vec<u8>) {
        out.push(b' ');
        self.at_line_start = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(mut form: WireForm, pieces: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in pieces {
            form.push(piece, &mut out);
        }
        form.finish(&mut out);
        out
    }

    #[test]
    fn each_row_of_the_table_holds() {
        let rows: [(&[u8], &[u8]); 12] = [
            (b"", b".\r\n"),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b"a", b"a\r\n.\r\n"),
            (b"a\nb\n", b"a\r\nb\r\n.\r\n"),
            (b"a\rb", b"a b\r\n.\r\n"),
            (b"a\0b\r", b"a b \r\n.\r\n"),
            (b".", b"..\r\n.\r\n"),
            (b"\n.\n", b"\r\n..\r\n.\r\n"),
            (b"a\r\r\n.\r\r\n", b"a \r\n.. \r\n.\r\n"),
            (b"a\r.\rb", b"a . b\r\n.\r\n"),
            (b"a\n\0.\r\n", b"a\r\n .\r\n.\r\n"),
            (b"..a\r\n. \r\n", b"...a\r\n.. \r\n.\r\n"),
        ];
        for (stored, sent) in rows {
            assert_eq!(
                wire(WireForm::for_data(), &[stored]).escape_ascii().to_string(),
                sent.escape_ascii().to_string()
            );
        }
        assert_eq!(wire(WireForm::for_bdat(), &[b".\n\r"]), b".\r\n \r\n");
    }

    #[test]
    fn where_the_content_is_cut_makes_no_difference() {
        let content = b"\r\n.\r\n.x\n.\n\r.\r\r\n..\r\n\0.\0\n.\0\r\n.\rMAIL FROM:<a@b>\r\n.";
        let whole = wire(WireForm::for_data(), &[content]);
        for first in 0..=content.len() {
            for second in first..=content.len() {
                let pieces = [&content[..first], &content[first..second], &content[second..]];
                assert_eq!(wire(WireForm::for_data(), &pieces), whole, "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn nothing_that_leaves_can_be_taken_for_an_early_end() {
        // Every string of six bytes over the bytes that matter.
        let letters = [b'\r', b'\n', b'.', 0, b'a'];
        for number in 0..letters.len().pow(6) {
            let mut rest = number;
            let content: Vec<u8> = (0..6)
                .map(|_| {
                    let letter = letters[rest % letters.len()];
                    rest /= letters.len();
                    letter
                })
                .collect();
            let sent = wire(WireForm::for_data(), &[&content]);
            let body = sent.strip_suffix(b".\r\n").unwrap();
            assert!(body.is_empty() || body.ends_with(b"\r\n"), "{content:?}");
            assert!(!body.contains(&0), "{content:?}");
            let text = String::from_utf8(body.to_vec()).unwrap();
            let lines: Vec<&str> = text.split("\r\n").collect();
            assert!(
                lines.iter().all(|line| !line.contains(['\r', '\n']) && *line != "."),
                "{content:?} became {text:?}"
            );
        }
    }

    #[test]
    fn long_lines_stay_whole() {
        for length in [998, 999, 1000, 100_000] {
            let line = vec![b'x'; length];
            assert_eq!(wire(WireForm::for_bdat(), &[&line]).len(), length + 2);
        }
    }
}
