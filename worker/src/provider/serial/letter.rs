//! From a frame to a message and back. Pure, but for the date.
//!
//! | header | of a frame |
//! |---|---|
//! | `From`, `To`, `Subject` | as configured; recipients that are no mail addresses are named in a comment |
//! | `Content-Type` | `application/octet-stream` in base64, or `text/plain` if the frame is to be text and can be |
//! | `X-Serial-Damage` | what is wrong with the frame, if anything is |
//!
//! The way back undoes base64, so that what came in on one line goes out on another one as it was.

use std::fmt::Write as _;

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use spooler_protocol::message::{BodyType, SMTP};

use super::framing::{Damage, Frame};
use super::settings::SerialSettings;

/// Bytes of a frame in a line of base64: 76 characters (RFC 2045 6.8).
const BYTES_IN_A_LINE: usize = 57;
/// Characters of a line of text (RFC 5322 2.1.1).
const LINE_CHARS_MAX: usize = 998;

/// What a message is made of besides its frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Occasion<'a> {
    pub(super) provider: &'a str,
    pub(super) hostname: &'a str,
    /// In RFC 5322's form.
    pub(super) date: &'a str,
    /// Different for each message of this machine.
    pub(super) unique: &'a str,
}

/// A message with a frame in it, and what its body is declared as.
pub(super) fn message(frame: &Frame, settings: &SerialSettings, occasion: &Occasion<'_>) -> (Vec<u8>, BodyType) {
    let text = settings.text.then(|| as_text(&frame.bytes)).flatten();
    let from = if settings.from.is_empty() { format!("spooler@{}", occasion.hostname) } else { settings.from.clone() };
    let mut head = format!("From: <{from}>\r\nTo: {}\r\n", shown_recipients(settings));
    let subject = settings.subject.replace("{provider}", occasion.provider);
    let _ = write!(head, "Subject: {subject}\r\nDate: {}\r\n", occasion.date);
    let _ = write!(head, "Message-ID: <{}@{}>\r\nMIME-Version: 1.0\r\n", occasion.unique, occasion.hostname);
    match frame.damage {
        None => {}
        Some(Damage::Incomplete) => {
            head.push_str("X-Serial-Damage: incomplete; the line fell silent before its end\r\n")
        }
        Some(Damage::Cut(bytes)) => {
            let _ = write!(head, "X-Serial-Damage: cut; {bytes} bytes beyond frame_max are missing\r\n");
        }
    }
    let (kind, encoding, body) = match &text {
        Some(_) if frame.bytes.is_ascii() => ("text/plain; charset=us-ascii", "7bit", BodyType::SevenBit),
        Some(_) => ("text/plain; charset=utf-8", "8bit", BodyType::EightBit),
        None => ("application/octet-stream", "base64", BodyType::SevenBit),
    };
    let _ = write!(head, "Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n");
    let mut message = head.into_bytes();
    match text {
        Some(text) => message.extend_from_slice(text.as_bytes()),
        None => {
            for piece in frame.bytes.chunks(BYTES_IN_A_LINE) {
                message.extend_from_slice(STANDARD.encode(piece).as_bytes());
                message.extend_from_slice(b"\r\n");
            }
        }
    }
    (message, body)
}

fn shown_recipients(settings: &SerialSettings) -> String {
    let mail: Vec<String> =
        settings.to.iter().filter(|to| to.kind() == SMTP).map(|to| format!("<{}>", to.text())).collect();
    if mail.is_empty() { "undisclosed-recipients:;".to_owned() } else { mail.join(",\r\n ") }
}

/// The frame as lines of text, if that is what it is.
fn as_text(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = String::with_capacity(text.len() + 2);
    for line in text.lines() {
        if line.len() > LINE_CHARS_MAX || line.chars().any(|c| c.is_control() && c != '\t') {
            return None;
        }
        lines.push_str(line);
        lines.push_str("\r\n");
    }
    Some(lines)
}

/// What of a message goes to the line: all of it, or its body without base64.
pub(super) fn content(message: &[u8], whole: bool) -> Result<Vec<u8>, String> {
    if whole {
        return Ok(message.to_vec());
    }
    let (head, body) = split(message);
    if !is_base64(head) {
        return Ok(body.to_vec());
    }
    // What other programs write may lack the padding.
    let lenient = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let letters: Vec<u8> = body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    lenient.decode(letters).map_err(|error| format!("The body is not the base64 that its header says: {error}"))
}

/// Header and body, without the empty line between them.
fn split(message: &[u8]) -> (&[u8], &[u8]) {
    let mut at = 0;
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        if matches!(line, b"\n" | b"\r\n") {
            let (head, rest) = message.split_at(at);
            return (head, rest.get(line.len()..).unwrap_or_default());
        }
        at += line.len();
    }
    (message, &[])
}

fn is_base64(head: &[u8]) -> bool {
    let is_field = |line: &[u8]| {
        let line = String::from_utf8_lossy(line).to_ascii_lowercase();
        line.strip_prefix("content-transfer-encoding:").is_some_and(|value| value.trim() == "base64")
    };
    head.split(|byte| *byte == b'\n').any(is_field)
}

#[cfg(test)]
mod tests {
    use spooler_protocol::settings::Settings as Reader;

    use super::*;

    const OCCASION: Occasion<'_> = Occasion {
        provider: "scales",
        hostname: "host.test",
        date: "Tue, 3 Nov 2026 10:00:00 +0100",
        unique: "serial.1.2",
    };

    fn settings(text: &str) -> SerialSettings {
        let table = format!("device = '/dev/ttyS0'\nto = ['a@b.test', 'FAX:+1']\n{text}");
        super::super::settings::read(&mut Reader::new(table.parse().unwrap()))
    }

    #[test]
    fn a_frame_comes_back_as_it_went_in() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let frame = Frame { bytes: bytes.clone(), damage: None };
        let (message, body) = message(&frame, &settings(""), &OCCASION);
        let text = String::from_utf8(message.clone()).unwrap();
        assert!(
            text.starts_with("From: <spooler@host.test>\r\nTo: <a@b.test>\r\nSubject: Received by scales\r\nDate: Tue")
        );
        assert!(text.contains("\r\nMessage-ID: <serial.1.2@host.test>\r\n") && !text.contains("Damage"));
        assert!(text.lines().all(|line| line.len() <= 76));
        assert_eq!((body, content(&message, false).unwrap()), (BodyType::SevenBit, bytes));
    }

    #[test]
    fn text_stays_readable_where_it_can() {
        let settings = settings("content = 'text'");
        let made = |bytes: &[u8]| {
            let frame = Frame { bytes: bytes.to_vec(), damage: Some(Damage::Incomplete) };
            let (made, body) = message(&frame, &settings, &OCCASION);
            (String::from_utf8(made).unwrap(), body)
        };
        let (plain, body) = made(b"12.5 kg\nnet");
        assert!(plain.ends_with("us-ascii\r\nContent-Transfer-Encoding: 7bit\r\n\r\n12.5 kg\r\nnet\r\n"), "{plain}");
        assert!(plain.contains("X-Serial-Damage: incomplete") && body == BodyType::SevenBit);
        assert_eq!(made("5 \u{b5}g".as_bytes()).1, BodyType::EightBit);
        assert!(made(b"\x00\x01").0.contains("base64"));
        assert!(made(&[b'x'; 999]).0.contains("base64"));
    }

    #[test]
    fn what_goes_out_is_the_body_or_all_of_it() {
        let message = b"Subject: x\r\n\r\nhello\r\n";
        assert_eq!(content(message, false).unwrap(), b"hello\r\n");
        assert_eq!(content(message, true).unwrap(), message);
        assert_eq!(content(b"Subject: no body\r\n", false).unwrap(), b"");
        let base64 = b"CONTENT-TRANSFER-ENCODING: Base64\n\naGVs\nbG8\n";
        assert_eq!(content(base64, false).unwrap(), b"hello");
        assert!(content(b"Content-Transfer-Encoding: base64\n\n?!\n", false).is_err());
    }
}
