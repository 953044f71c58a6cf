//! Whether a message needs SMTPUTF8 of the next server for its header or that of one of its MIME parts (RFC 6531 3.4). Pure.
//!
//! The parameter that a client gave says only that it may be needed.

/// Bytes of a line that are kept: enough for a delimiter (RFC 2046 5.1.1), and for a field with the parameter `boundary`.
const LINE_BYTES_MAX: usize = 1000;
const CONTENT_TYPE_BYTES_MAX: usize = 4000;
const BOUNDARIES_MAX: usize = 100;

/// Reads a message for header lines that are not ASCII, also those of the parts of a multipart message. A message inside the message
/// (message/rfc822, message/global) is content.
#[derive(Debug)]
pub(super) struct HeaderScan {
    line: Vec<u8>,
    in_header: bool,
    /// The value of the Content-Type of the header that is read.
    content_type: Vec<u8>,
    in_content_type: bool,
    boundaries: Vec<Vec<u8>>,
    found: bool,
}

impl HeaderScan {
    /// At the beginning of a message.
    pub(super) fn new() -> Self {
        Self {
            line: Vec::new(),
            in_header: true,
            content_type: Vec::new(),
            in_content_type: false,
            boundaries: Vec::new(),
            found: false,
        }
    }

    /// Reads the next piece; whether such a line was found so far.
    pub(super) fn push(&mut self, piece: &[u8]) -> bool {
        for chunk in piece.split_inclusive(|byte| *byte == b'\n') {
            self.found |= self.in_header && !chunk.is_ascii();
            if self.found {
                break;
            }
            let room = LINE_BYTES_MAX.saturating_sub(self.line.len());
            self.line.extend_from_slice(chunk.get(..room).unwrap_or(chunk));
            if chunk.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.end_line(line.trim_ascii_end());
                self.line = line;
                self.line.clear();
            }
        }
        self.found
    }

    /// Whether the rest of the message can hold a header at all.
    pub(super) fn may_go_on(&self) -> bool {
        !self.found && (self.in_header || !self.boundaries.is_empty())
    }

    fn end_line(&mut self, line: &[u8]) {
        if !self.in_header {
            let delimits = |delimiter: &[u8]| self.boundaries.iter().any(|boundary| boundary == delimiter);
            self.in_header = line.strip_prefix(b"--").is_some_and(delimits);
        } else if line.is_empty() {
            self.in_header = false;
            let boundary = boundary(&self.content_type).filter(|_| self.boundaries.len() < BOUNDARIES_MAX);
            self.boundaries.extend(boundary);
            self.content_type.clear();
            self.in_content_type = false;
        } else if line.first().is_some_and(|first| !matches!(first, b' ' | b'\t')) {
            const NAME: &[u8] = b"content-type:";
            let value = line.split_at_checked(NAME.len()).filter(|(name, _)| name.eq_ignore_ascii_case(NAME));
            self.in_content_type = value.is_some();
            if let Some((_, value)) = value {
                self.content_type = value.to_vec();
            }
        } else if self.in_content_type && self.content_type.len() < CONTENT_TYPE_BYTES_MAX {
            self.content_type.extend_from_slice(line);
        }
    }
}

/// The parameter `boundary` of a multipart type.
fn boundary(content_type: &[u8]) -> Option<Vec<u8>> {
    let lower = content_type.to_ascii_lowercase();
    lower.trim_ascii_start().strip_prefix(b"multipart/")?;
    let at = memchr::memmem::find(&lower, b"boundary")?;
    let rest = content_type.get(at + "boundary".len()..)?.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
    let value = match rest.strip_prefix(b"\"") {
        Some(quoted) => quoted.split(|byte| *byte == b'"').next()?,
        None => rest.split(|byte| matches!(byte, b';' | b' ' | b'\t')).next()?,
    };
    let value = value.trim_ascii_end();
    (!value.is_empty()).then(|| value.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(message: &str, piece: usize) -> bool {
        let mut scan = HeaderScan::new();
        message.as_bytes().chunks(piece).fold(false, |_, piece| scan.push(piece))
    }

    #[test]
    fn headers_of_message_and_parts_are_looked_at() {
        let multipart = "Content-Type: Multipart/mixed;\r\n Boundary=\"=_a b\"\r\n\r\npr\u{e9}amble\r\n";
        let rows = [
            ("Subject: a\r\n\r\n\u{fc}\r\n".to_owned(), false),
            ("Subject: \u{fc}\r\n\r\na\r\n".to_owned(), true),
            ("Subject: a\r\n \u{fc}\r\n\r\na\r\n".to_owned(), true),
            (format!("{multipart}--=_a b\r\nContent-Type: text/plain\r\n\r\n\u{fc}\r\n--=_a b--\r\n"), false),
            (format!("{multipart}--=_a b\r\nContent-Description: \u{fc}\r\n\r\nx\r\n"), true),
            (format!("{multipart}--=_a\r\nContent-Description: \u{fc}\r\n\r\nx\r\n--=_a b--\r\n\u{fc}\r\n"), false),
            (
                format!(
                    "{multipart}--=_a b\r\nContent-Type: multipart/related; boundary=in\r\n\r\n--in\r\n\r\n\u{fc}\r\n--in\r\nX: \u{fc}\r\n"
                ),
                true,
            ),
        ];
        for (message, expected) in rows {
            for piece in [1, 7, 10_000] {
                assert_eq!(scan(&message, piece), expected, "{message} in pieces of {piece}");
            }
        }
    }
}
