//! Command lines out of the input. Pure.
//!
//! A line ends with CR LF and with nothing else (RFC 5321 2.3.8). One that is too long, or holds a bare CR, a bare LF or a NUL, is
//! refused once, as soon as that is seen, and drained up to its CR LF: its tail is never taken for a command.

use super::reply::Reply;

/// Bytes of a command line without its CR LF. RFC 5321 4.5.3.1.4 asks for 512; the parameters of DSN and AUTH need more.
pub(super) const LINE_BYTES_MAX: usize = 2048;

/// What is at the front of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// No whole line yet; everything was looked at.
    Incomplete,
    /// A line of so many bytes, its CR LF not counted.
    Complete(usize),
    /// So many bytes are to be thrown away.
    Drained(usize),
    /// The line is refused; so many bytes of it are to be thrown away.
    Refused(usize, Reply),
}

/// Splits input into command lines.
#[derive(Debug, Default)]
pub(super) struct LineReader {
    /// Bytes at the front that were looked at without finding an end.
    seen: usize,
    /// Whether the line was refused and only its end is looked for; if so, whether its last byte so far was a CR.
    draining: Option<bool>,
}

impl LineReader {
    /// Looks at the input. After anything but [`Line::Incomplete`] the caller removes the line, or the bytes it is told to.
    pub(super) fn next(&mut self, input: &[u8]) -> Line {
        if let Some(after_cr) = self.draining {
            return self.drain(input, after_cr);
        }
        let fresh = input.get(self.seen..).unwrap_or_default();
        let Some(found) = memchr::memchr3(b'\r', b'\n', 0, fresh).map(|at| at + self.seen) else {
            self.seen = input.len();
            return if input.len() > LINE_BYTES_MAX { self.refuse(input.len(), TOO_LONG) } else { Line::Incomplete };
        };
        if found > LINE_BYTES_MAX {
            return self.refuse(found, TOO_LONG);
        }
        match (input.get(found), input.get(found + 1)) {
            (Some(b'\r'), Some(b'\n')) => {
                self.seen = 0;
                Line::Complete(found)
            }
            (Some(b'\r'), None) => {
                self.seen = found;
                Line::Incomplete
            }
            (Some(b'\r'), _) => self.refuse(found + 1, BARE_CR),
            (Some(b'\n'), _) => self.refuse(found + 1, BARE_LF),
            _ => self.refuse(found + 1, NUL),
        }
    }

    fn refuse(&mut self, bytes: usize, reply: Reply) -> Line {
        self.seen = 0;
        self.draining = Some(false);
        Line::Refused(bytes, reply)
    }

    fn drain(&mut self, input: &[u8], after_cr: bool) -> Line {
        if input.is_empty() {
            return Line::Incomplete;
        }
        if after_cr && input.first() == Some(&b'\n') {
            self.draining = None;
            return Line::Drained(1);
        }
        if let Some(at) = memchr::memmem::find(input, b"\r\n") {
            self.draining = None;
            return Line::Drained(at + 2);
        }
        self.draining = Some(input.last() == Some(&b'\r'));
        Line::Drained(input.len())
    }
}

const TOO_LONG: Reply = Reply::new(500, "5.5.2", "Line too long");
const BARE_CR: Reply = Reply::new(500, "5.5.2", "bare CR in command; end lines with CRLF");
const BARE_LF: Reply = Reply::new(500, "5.5.2", "bare LF in command; end lines with CRLF");
const NUL: Reply = Reply::new(500, "5.5.2", "NUL byte in command");

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads everything in parts of `step` bytes: lines as they are, refusals as their text.
    fn read(input: &[u8], step: usize) -> Vec<String> {
        let (mut reader, mut buffer, mut found) = (LineReader::default(), Vec::new(), Vec::new());
        for part in input.chunks(step) {
            buffer.extend_from_slice(part);
            loop {
                match reader.next(&buffer) {
                    Line::Incomplete => break,
                    Line::Complete(bytes) => {
                        found.push(String::from_utf8(buffer[..bytes].to_vec()).unwrap());
                        buffer.drain(..bytes + 2);
                    }
                    Line::Drained(bytes) => drop(buffer.drain(..bytes)),
                    Line::Refused(bytes, reply) => {
                        found.push(reply.text.into_owned());
                        buffer.drain(..bytes);
                    }
                }
                assert!(buffer.len() <= LINE_BYTES_MAX + 2 + step);
            }
        }
        found
    }

    #[test]
    fn lines_come_out_whole_however_they_arrive() {
        for step in 1..40 {
            assert_eq!(read(b"EHLO a\r\n\r\nMAIL FROM:<>\r\nQU", step), ["EHLO a", "", "MAIL FROM:<>"], "step {step}");
        }
    }

    #[test]
    fn a_spoilt_line_is_one_refusal_and_its_tail_is_no_command() {
        let cases: [(&[u8], &str); 6] = [
            (b"NOOP\nMAIL FROM:<x@y>\r\n", "bare LF in command; end lines with CRLF"),
            (b"NOOP\rMAIL FROM:<x@y>\r\n", "bare CR in command; end lines with CRLF"),
            (b"NOOP\r\rMAIL FROM:<x@y>\n\0\r\n", "bare CR in command; end lines with CRLF"),
            (b"NOOP\0MAIL FROM:<x@y>\r\n", "NUL byte in command"),
            (b"NOOP\r\r\n", "bare CR in command; end lines with CRLF"),
            (b"\n\r\n", "bare LF in command; end lines with CRLF"),
        ];
        for (spoilt, refusal) in cases {
            for step in 1..30 {
                assert_eq!(read(&[spoilt, b"RSET\r\n"].concat(), step), [refusal, "RSET"], "{spoilt:?} step {step}");
            }
        }
    }

    #[test]
    fn an_over_long_line_is_drained_to_its_end() {
        for length in [LINE_BYTES_MAX - 10, LINE_BYTES_MAX, LINE_BYTES_MAX + 1, 4096, 200_000] {
            let tail = "MAIL FROM:<x@y>";
            let long = format!("{}{tail}", "x".repeat(length - tail.len()));
            let input = format!("{long}\r\nRSET\r\n");
            for step in [1, 7, 1000, 8192, 1 << 20] {
                let first = if length <= LINE_BYTES_MAX { long.as_str() } else { "Line too long" };
                assert_eq!(read(input.as_bytes(), step), [first, "RSET"], "length {length} step {step}");
            }
        }
    }
}
