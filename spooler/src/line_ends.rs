//! Line ends of a message on its way in: whatever a program wrote becomes CRLF, once, at the entrance.
//!
//! | comes in | goes out |
//! |---|---|
//! | CRLF | CRLF |
//! | LF alone | CRLF |
//! | CR alone | a space |
//! | NUL | refused |
//! | no line end at the end | CRLF added |
//!
//! What two servers would read differently (RFC 5321 4.1.1.4: "smuggling") can then be nowhere in the queue. The state survives
//! chunk borders, and nothing is kept but two bits. An empty message stays empty.

use memchr::memchr3;

/// Turns a message into CRLF lines, chunk by chunk.
#[derive(Debug, Default)]
pub struct LineEnds {
    /// The last byte so far was a CR; what it means depends on the next one.
    after_cr: bool,
    /// Something was written since the last line end.
    line_open: bool,
}

/// The message holds a NUL byte, which no mail format allows (RFC 5322 4.1 makes it obsolete, RFC 5321 4.5.2 forbids it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The message holds a NUL byte; send binary data as an attachment in base64")]
pub struct NulByte;

impl LineEnds {
    /// Appends the chunk to `out` with CRLF line ends.
    ///
    /// # Errors
    /// If the chunk holds a NUL; the message is to be refused then.
    pub fn feed(&mut self, chunk: &[u8], out: &mut Vec<u8>) -> Result<(), NulByte> {
        out.reserve(chunk.len() + chunk.len() / 32);
        let mut rest = chunk;
        while let Some((&first, behind_first)) = rest.split_first() {
            if self.after_cr {
                self.after_cr = false;
                if first == b'\n' {
                    self.end_line(out);
                    rest = behind_first;
                    continue;
                }
                self.text(b" ", out);
            }
            let special = memchr3(b'\r', b'\n', 0, rest).unwrap_or(rest.len());
            let (text, tail) = rest.split_at(special);
            self.text(text, out);
            let Some((&byte, tail)) = tail.split_first() else { break };
            match byte {
                b'\r' => self.after_cr = true,
                b'\n' => self.end_line(out),
                _ => return Err(NulByte),
            }
            rest = tail;
        }
        Ok(())
    }

    /// The message ends here; appends what is missing to its last line.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.after_cr) {
            self.text(b" ", out);
        }
        if self.line_open {
            self.end_line(out);
        }
    }

    fn text(&mut self, text: &[u8], out: &mut Vec<u8>) {
        if !text.is_empty() {
            out.extend_from_slice(text);
            self.line_open = true;
        }
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n");
        self.line_open = false;
    }
}

/// A whole message with CRLF line ends.
///
/// # Errors
/// If it holds a NUL.
pub fn with_crlf(message: &[u8]) -> Result<Vec<u8>, NulByte> {
    let mut out = Vec::new();
    let mut ends = LineEnds::default();
    ends.feed(message, &mut out)?;
    ends.finish(&mut out);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_end_becomes_crlf() {
        for (given, expected) in [
            ("", ""),
            ("a", "a\r\n"),
            ("a\n", "a\r\n"),
            ("a\r\n", "a\r\n"),
            ("a\rb\n", "a b\r\n"),
            ("a\r", "a \r\n"),
            ("\r", " \r\n"),
            ("\n\n", "\r\n\r\n"),
            ("\r\r\n", " \r\n"),
            ("a\n\rb", "a\r\n b\r\n"),
            (".\n..\n.x", ".\r\n..\r\n.x\r\n"),
            ("\u{e4}\n", "\u{e4}\r\n"),
        ] {
            assert_eq!(with_crlf(given.as_bytes()).unwrap(), expected.as_bytes(), "{given:?}");
        }
    }

    #[test]
    fn chunk_borders_make_no_difference() {
        let message = b"a\r\nb\nc\rd\r\r\n\n\n.\r\n.\n e\r";
        let whole = with_crlf(message).unwrap();
        for first in 0..=message.len() {
            for second in first..=message.len() {
                let (mut out, mut ends) = (Vec::new(), LineEnds::default());
                for chunk in [&message[..first], &message[first..second], &message[second..]] {
                    ends.feed(chunk, &mut out).unwrap();
                }
                ends.finish(&mut out);
                assert_eq!(out, whole, "split at {first} and {second}");
            }
        }
    }

    #[test]
    fn the_result_has_no_bare_line_end_and_is_a_fixed_point() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..500 {
            let message: Vec<u8> = (0..random.usize(0..40)).map(|_| *random.choice(b"\r\n.a ").unwrap()).collect();
            let out = with_crlf(&message).unwrap();
            let bare = String::from_utf8(out.clone()).unwrap().replace("\r\n", "");
            assert!(!bare.contains(['\r', '\n']), "{message:?}");
            assert!(out.is_empty() || out.ends_with(b"\r\n"), "{message:?}");
            assert_eq!(with_crlf(&out).unwrap(), out);
        }
    }

    #[test]
    fn a_nul_is_refused_wherever_it_stands() {
        for message in [&b"\0"[..], b"a\0", b"a\r\0", b"a\n\0b"] {
            assert_eq!(with_crlf(message), Err(NulByte), "{message:?}");
        }
    }
}
