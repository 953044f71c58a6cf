//! The strict reader of message content, for DATA and BDAT. Pure: bytes in, pieces of text out.
//!
//! The only end of DATA is CR LF `.` CR LF (RFC 5321 4.1.1.4). A bare CR, a bare LF or a NUL is a fault of the whole message; reading
//! goes on to the true end all the same, so that client and server stay in step and nothing behind a false end is taken for commands.
//! Text is handed out as ranges of the input, so that nothing is copied and no line is ever held; only leading dots are cut out.
//!
//! ```text
//!               CR             LF                 '.' (dropped)          CR           LF
//!   Text ─────────────▶ Cr ─────────▶ LineStart ───────────────▶ Dot ─────────▶ DotCr ─────▶ the end
//!    ▲    other: fault  │                 │ other                │ other         │ other: fault
//!    └──────────────────┴─────────────────┴──────────────────────┴───────────────┘
//! ```

use std::ops::Range;

use super::reply::Reply;

const CR: u8 = b'\r';
const LF: u8 = b'\n';

/// What makes a message unacceptable as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A CR that no LF follows.
    BareCr,
    /// An LF that no CR precedes.
    BareLf,
    /// A NUL.
    Nul,
}

impl Fault {
    /// The refusal of a message that has this fault, with what its sender can do.
    pub(super) const fn reply(self) -> Reply {
        match self {
            Self::BareCr => Reply::new(
                550,
                "5.5.2",
                "bare CR in message; end lines with CRLF (python: pass str, or bytes with CRLF)",
            ),
            Self::BareLf => Reply::new(
                550,
                "5.5.2",
                "bare LF in message; end lines with CRLF (curl: --crlf; python: pass str, or bytes with CRLF)",
            ),
            Self::Nul => Reply::new(550, "5.5.2", "NUL byte in message; encode binary content (MIME base64)"),
        }
    }
}

/// What a look at the input brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The bytes of the input that are text of the message.
    pub(super) text: Range<usize>,
    /// How many bytes of the input are done with.
    pub(super) taken: usize,
    /// Whether the message ends here.
    pub(super) ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    LineStart,
    Text,
    Cr,
    Dot,
    DotCr,
}

/// Reads one message.
#[derive(Debug)]
pub(super) struct ContentReader {
    state: State,
    /// Whether dots mean something: in DATA, not in BDAT.
    dots: bool,
    fault: Option<Fault>,
}

impl ContentReader {
    /// A reader of what follows DATA.
    pub(super) const fn dotted() -> Self {
        Self { state: State::LineStart, dots: true, fault: None }
    }

    /// A reader of BDAT chunks; the end of the message is counted, not seen.
    pub(super) const fn chunked() -> Self {
        Self { state: State::LineStart, dots: false, fault: None }
    }

    /// The first fault so far.
    pub(super) const fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// The end of the last chunk: a CR there is a bare one.
    pub(super) fn finish(&mut self) {
        if self.state == State::Cr {
            self.note(Fault::BareCr);
        }
    }

    fn note(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
        self.state = State::Text;
    }

    /// Reads on. Takes all of the input, or up to a dot that has to be cut out, or up to the end of the message.
    pub(super) fn next(&mut self, input: &[u8]) -> Piece {
        let (mut start, mut at) = (0, 0);
        while let Some(&byte) = input.get(at) {
            match self.state {
                State::LineStart if self.dots && byte == b'.' => {
                    self.state = State::Dot;
                    return Piece { text: start..at, taken: at + 1, ended: false };
                }
                State::LineStart | State::Text => at = self.run(input, at),
                State::Cr if byte == LF => {
                    self.state = State::LineStart;
                    at += 1;
                }
                State::Dot if byte == CR => {
                    self.state = State::DotCr;
                    at += 1;
                    start = at;
                }
                State::DotCr if byte == LF => return Piece { text: at..at, taken: at + 1, ended: true },
                State::Cr | State::DotCr => self.note(Fault::BareCr),
                State::Dot => self.state = State::Text,
            }
        }
        Piece { text: start..at, taken: at, ended: false }
    }

    /// Skips plain text up to and including the first byte that means something.
    fn run(&mut self, input: &[u8], at: usize) -> usize {
        let rest = input.get(at..).unwrap_or_default();
        let Some(found) = memchr::memchr3(CR, LF, 0, rest) else {
            self.state = State::Text;
            return input.len();
        };
        match rest.get(found) {
            Some(&CR) => self.state = State::Cr,
            Some(&LF) => self.note(Fault::BareLf),
            _ => self.note(Fault::Nul),
        }
        at + found + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads DATA in pieces of the given sizes, the last one as long as it takes. Returns the text, the fault, and what was left.
    fn read(input: &[u8], cuts: &[usize]) -> (Vec<u8>, Option<Fault>, Option<Vec<u8>>) {
        let mut reader = ContentReader::dotted();
        let mut text = Vec::new();
        let (mut from, mut cuts) = (0, cuts.iter().copied());
        while from < input.len() {
            let to = cuts.next().unwrap_or(input.len()).clamp(from, input.len());
            let mut part = &input[from..to];
            while !part.is_empty() {
                let piece = reader.next(part);
                text.extend_from_slice(&part[piece.text.clone()]);
                part = &part[piece.taken..];
                if piece.ended {
                    let left = [part, &input[to..]].concat();
                    return (text, reader.fault(), Some(left));
                }
            }
            from = to;
        }
        (text, reader.fault(), None)
    }

    /// The rows of the table of end-of-data vectors: name, bytes, fault.
    const ROWS: &[(&str, &[u8], Option<Fault>)] = &[
        ("lf.lf", b"\n.\n", Some(Fault::BareLf)),
        ("lf.crlf", b"\n.\r\n", Some(Fault::BareLf)),
        ("crlf.lf", b"\r\n.\n", Some(Fault::BareLf)),
        ("cr.cr", b"\r.\r", Some(Fault::BareCr)),
        ("cr.lf", b"\r.\n", Some(Fault::BareCr)),
        ("lf.cr", b"\n.\r", Some(Fault::BareLf)),
        ("cr.crlf", b"\r.\r\n", Some(Fault::BareCr)),
        ("crlf.cr", b"\r\n.\r", Some(Fault::BareCr)),
        ("crlf.crcrlf", b"\r\n.\r\r\n", Some(Fault::BareCr)),
        ("crcrlf.crcrlf", b"\r\r\n.\r\r\n", Some(Fault::BareCr)),
        ("nul-before", b"\r\n\0.\r\n", Some(Fault::Nul)),
        ("nul-after", b"\r\n.\0\r\n", Some(Fault::Nul)),
        ("sp-after", b"\r\n. \r\n", None),
    ];

    #[test]
    fn no_false_end_is_taken_wherever_the_input_is_cut() {
        for (name, bytes, fault) in ROWS {
            let input = [b"Subject: t\r\n\r\nline one", *bytes, b"MAIL FROM:<smug@example.net>\r\n.\r\nNEXT"].concat();
            let whole = read(&input, &[]);
            assert_eq!(whole.1, *fault, "{name}");
            assert_eq!(whole.2.as_deref(), Some(&b"NEXT"[..]), "{name}");
            for cut in 1..input.len() {
                assert_eq!(read(&input, &[cut]), whole, "{name} cut at {cut}");
            }
            let each: Vec<usize> = (1..input.len()).collect();
            assert_eq!(read(&input, &each), whole, "{name} byte by byte");
        }
    }

    /// What [`read`] has to find, by searching the whole input instead of walking through states.
    fn expected(input: &[u8]) -> (Vec<u8>, Option<Vec<u8>>, bool) {
        let framed = [b"\r\n", input].concat();
        let end = memchr::memmem::find(&framed, b"\r\n.\r\n");
        let text = &framed[2..end.map_or(framed.len(), |end| end + 2)];
        let stray = |at: usize| match text[at] {
            b'\r' => text.get(at + 1) != Some(&b'\n') && (end.is_some() || at + 1 < text.len()),
            b'\n' => at == 0 || text[at - 1] != b'\r',
            byte => byte == 0,
        };
        let faulty = (0..text.len()).any(stray);
        let plain = String::from_utf8(framed[..2 + text.len()].to_vec()).unwrap().replace("\r\n.", "\r\n");
        (plain.as_bytes()[2..].to_vec(), end.map(|end| framed[end + 5..].to_vec()), faulty)
    }

    #[test]
    fn every_short_input_is_read_as_a_search_would_read_it() {
        const LETTERS: [u8; 5] = [b'\r', b'\n', b'.', b'a', 0];
        for length in 0..=6 {
            for number in 0..5_usize.pow(length) {
                let input: Vec<u8> = (0..length).map(|at| LETTERS[number / 5_usize.pow(at) % 5]).collect();
                let (text, left, faulty) = expected(&input);
                for cut in 0..=input.len() {
                    let found = read(&input, &[cut]);
                    assert_eq!((found.1.is_some(), &found.2), (faulty, &left), "{input:?} cut at {cut}");
                    assert!(faulty || left.is_none() || found.0 == text, "{input:?} cut at {cut}: {:?}", found.0);
                }
            }
        }
    }

    #[test]
    fn a_false_end_alone_does_not_end_the_message() {
        for (name, bytes, _) in ROWS {
            assert_eq!(read(&[b"text", *bytes].concat(), &[]).2, None, "{name}");
        }
    }

    #[test]
    fn dots_are_unstuffed_and_nothing_else_is_changed() {
        let input = b"..\r\n.a\r\n..b.\r\n. \r\n\r\nx.y\r\n.\r\n";
        for cut in 0..input.len() {
            let (text, fault, left) = read(input, &[cut]);
            assert_eq!(text, b".\r\na\r\n.b.\r\n \r\n\r\nx.y\r\n", "cut at {cut}");
            assert_eq!((fault, left), (None, Some(Vec::new())));
        }
    }

    #[test]
    fn a_dot_at_once_is_an_empty_message() {
        assert_eq!(read(b".\r\nRSET\r\n", &[]), (Vec::new(), None, Some(b"RSET\r\n".to_vec())));
    }

    #[test]
    fn chunks_have_no_dots_and_the_same_faults_across_their_borders() {
        let chunks = |parts: &[&[u8]]| {
            let mut reader = ContentReader::chunked();
            let mut text = Vec::new();
            for part in parts {
                let piece = reader.next(part);
                assert_eq!((piece.taken, piece.ended), (part.len(), false));
                text.extend_from_slice(&part[piece.text]);
            }
            reader.finish();
            (text, reader.fault())
        };
        assert_eq!(chunks(&[b"a\r", b"\n.\r\n", b".b\r\n"]), (b"a\r\n.\r\n.b\r\n".to_vec(), None));
        assert_eq!(chunks(&[b"a\r", b"b\r\n"]).1, Some(Fault::BareCr));
        assert_eq!(chunks(&[b"a", b"\nb\r\n"]).1, Some(Fault::BareLf));
        assert_eq!(chunks(&[b"a\r\n", b"\n"]).1, Some(Fault::BareLf));
        assert_eq!(chunks(&[b"a\r"]).1, Some(Fault::BareCr));
        assert_eq!(chunks(&[b"\0"]).1, Some(Fault::Nul));
    }
}
