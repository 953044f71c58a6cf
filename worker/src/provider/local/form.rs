//! The form in which a message leaves the mail system: headers in front (RFC 5321 4.4), line ends.
//!
//! Everything else of the content stays as it is, byte by byte.

use spooler_protocol::message::Recipient;
use spooler_protocol::to_worker::Submission;

/// What ends a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineEnds {
    /// CRLF becomes LF; a CR elsewhere stays.
    Lf,
    /// As it is spooled.
    Crlf,
}

impl LineEnds {
    /// The end of a line.
    pub(crate) fn bytes(self) -> &'static [u8] {
        match self {
            Self::Lf => b"\n",
            Self::Crlf => b"\r\n",
        }
    }
}

/// Which lines go in front of the content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Front {
    /// The line that begins a message in an mbox file, with this time (seconds since 1970).
    pub(crate) from_line: Option<i64>,
    /// `Return-Path: <sender>`
    pub(crate) return_path: bool,
    /// `Delivered-To: recipient`, if there is only one.
    pub(crate) delivered_to: bool,
}

impl Front {
    /// The lines for a message to these recipients.
    pub(crate) fn lines(self, submission: &Submission, to: &[&Recipient], ends: LineEnds) -> Vec<u8> {
        let mut lines = Vec::new();
        if let Some(at_s) = self.from_line {
            let sender = if submission.sender.is_empty() { "MAILER-DAEMON" } else { &submission.sender };
            let time = jiff::Timestamp::from_second(at_s).unwrap_or_default();
            lines.push(format!("From {} {}", sender.replace(' ', "-"), time.strftime("%a %b %e %H:%M:%S %Y")));
        }
        if self.return_path {
            lines.push(format!("Return-Path: <{}>", submission.sender));
        }
        if let ([only], true) = (to, self.delivered_to) {
            lines.push(format!("Delivered-To: {}", only.address));
        }
        let end = if ends == LineEnds::Lf { "\n" } else { "\r\n" };
        // An address holds no control character; should one come all the same, it must not begin a line.
        let clean = |line: String| line.replace(|c: char| c.is_control(), "?") + end;
        lines.into_iter().map(clean).collect::<String>().into_bytes()
    }
}

/// Converts line ends in content that comes piece by piece.
#[derive(Debug)]
pub(crate) struct Converter {
    ends: LineEnds,
    /// The last piece ended with a CR, which is not written yet.
    cr: bool,
}

impl Converter {
    /// Starts with the first piece to come.
    pub(crate) fn new(ends: LineEnds) -> Self {
        Self { ends, cr: false }
    }

    /// Converts a piece into `out`, which is emptied before.
    pub(crate) fn convert(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        out.clear();
        if self.ends == LineEnds::Crlf {
            out.extend_from_slice(piece);
            return;
        }
        if piece.is_empty() {
            return;
        }
        if std::mem::take(&mut self.cr) && piece.first() != Some(&b'\n') {
            out.push(b'\r');
        }
        let mut from = 0;
        for at in memchr::memchr_iter(b'\r', piece) {
            let next = piece.get(at + 1);
            if next == Some(&b'\n') || next.is_none() {
                out.extend_from_slice(piece.get(from..at).unwrap_or_default());
                from = at + 1;
                self.cr = next.is_none();
            }
        }
        out.extend_from_slice(piece.get(from..).unwrap_or_default());
    }

    /// What is left after the last piece.
    pub(crate) fn finish(&mut self) -> &'static [u8] {
        if std::mem::take(&mut self.cr) { b"\r" } else { b"" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(content: &[u8], piece_bytes: usize) -> Vec<u8> {
        let mut converter = Converter::new(LineEnds::Lf);
        let (mut all, mut out) = (Vec::new(), Vec::new());
        for piece in content.chunks(piece_bytes) {
            converter.convert(piece, &mut out);
            all.extend_from_slice(&out);
        }
        all.extend_from_slice(converter.finish());
        all
    }

    #[test]
    fn only_crlf_is_converted_wherever_the_pieces_are_cut() {
        let content = b"\r\na\r\n\r\r\nb\rc\nd\r\n\r";
        let wanted = b"\na\n\r\nb\rc\nd\n\r";
        for piece_bytes in 1..=content.len() {
            assert_eq!(convert(content, piece_bytes), wanted, "in pieces of {piece_bytes}");
        }
    }

    #[test]
    fn crlf_is_kept_if_wanted() {
        let mut out = vec![1];
        Converter::new(LineEnds::Crlf).convert(b"a\r\n", &mut out);
        assert_eq!(out, b"a\r\n");
    }
}
