//! What servers say: whole replies out of the bytes received so far (RFC 5321 4.2), and the words for a status. Pure.
//!
//! smtp-proto has a parser for this too, but it keeps the numbers of an enhanced status code in a byte each, and codes such as
//! 5.7.509 are common; a reply has to reach the sender as it was said.

use bytes::{Buf, BytesMut};
use spooler_protocol::outcome::{Cause, Reply};

/// Bytes of one reply, all its lines together. RFC 5321 4.5.3.1.5 gives 512 to a line.
const REPLY_BYTES_MAX: usize = 32 * 1024;

/// What came is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Garbled {
    /// A line without a code.
    #[error("The server does not speak SMTP: a line of its reply has no code")]
    NoCode,
    /// No end in sight.
    #[error("The server's reply is longer than {REPLY_BYTES_MAX} bytes")]
    TooLong,
}

/// One whole reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerReply {
    /// 200 to 599.
    pub(super) code: u16,
    /// The enhanced status code of the first line that has one, or nothing.
    pub(super) enhanced: String,
    /// The lines without their codes, joined by `\n`; control characters become `?`.
    pub(super) text: String,
}

impl ServerReply {
    /// Takes the first whole reply off `input`, if there is one.
    ///
    /// # Errors
    /// If this can never become a reply.
    pub(super) fn take(input: &mut BytesMut) -> Result<Option<Self>, Garbled> {
        let mut end = 0;
        loop {
            let rest = input.get(end..).unwrap_or_default();
            let Some(line_feed) = memchr::memchr(b'\n', rest) else {
                return if input.len() > REPLY_BYTES_MAX { Err(Garbled::TooLong) } else { Ok(None) };
            };
            let (line, _) = rest.split_at(line_feed);
            let (_, last, _) = split_line(line)?;
            end += line_feed + 1;
            if last {
                break;
            }
        }
        let reply = Self::read(input.get(..end).unwrap_or_default())?;
        input.advance(end);
        Ok(Some(reply))
    }

    fn read(bytes: &[u8]) -> Result<Self, Garbled> {
        let mut reply = Self { code: 0, enhanced: String::new(), text: String::with_capacity(bytes.len()) };
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        for (number, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            let (code, _, text) = split_line(line)?;
            let (enhanced, text) = split_enhanced(text);
            if number > 0 {
                reply.text.push('\n');
            }
            if reply.enhanced.is_empty() {
                reply.enhanced.push_str(enhanced);
            }
            // The last line decides, should they differ.
            reply.code = code;
            let text = String::from_utf8_lossy(text);
            reply.text.extend(text.chars().map(|c| if c.is_control() && c != '\t' { '?' } else { c }));
        }
        Ok(reply)
    }

    /// Whether it is a 2yz reply.
    pub(super) fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// Whether it is a 4yz or 5yz reply: a refusal.
    pub(super) fn is_negative(&self) -> bool {
        matches!(self.code / 100, 4 | 5)
    }

    /// Whether what was refused is refused for good.
    pub(super) fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }

    /// Whether a recipient is one too many for this transaction, if others were accepted before (RFC 5321 4.5.3.1.10): 452, and 552
    /// as older servers have it, unless an enhanced code names another reason such as a full mailbox; and whatever says X.5.3.
    pub(super) fn is_too_many(&self) -> bool {
        matches!((self.code, self.enhanced.as_str()), (452 | 552, "" | "4.5.3") | (_, "5.5.3"))
    }

    /// Whether the server ends the session (RFC 5321 3.8).
    pub(super) fn is_closing(&self) -> bool {
        self.code == 421
    }

    /// The same in the words of the spooler.
    pub(super) fn from(self, remote: &str) -> Reply {
        Reply {
            cause: Cause::Remote,
            code: self.code,
            enhanced: self.enhanced,
            text: self.text,
            remote: remote.to_owned(),
            hop: None,
        }
    }
}

/// Code, whether it is the last line, and text of a line without its LF.
fn split_line(line: &[u8]) -> Result<(u16, bool, &[u8]), Garbled> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let [hundreds @ b'2'..=b'5', tens @ b'0'..=b'9', ones @ b'0'..=b'9', rest @ ..] = line else {
        return Err(Garbled::NoCode);
    };
    let digit = |byte: &u8| u16::from(byte - b'0');
    let code = digit(hundreds) * 100 + digit(tens) * 10 + digit(ones);
    match rest {
        [] => Ok((code, true, rest)),
        [b' ', text @ ..] => Ok((code, true, text)),
        [b'-', text @ ..] => Ok((code, false, text)),
        _ => Err(Garbled::NoCode),
    }
}

/// The enhanced status code (RFC 3463 2) that a text starts with, and what follows it.
fn split_enhanced(text: &[u8]) -> (&str, &[u8]) {
    let end = memchr::memchr(b' ', text).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let number = |part: &&str| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    let Ok(word) = std::str::from_utf8(word) else { return ("", text) };
    let mut parts = word.split('.');
    let is_code = parts.next().is_some_and(|class| matches!(class, "2" | "4" | "5"))
        && parts.next().as_ref().is_some_and(number)
        && parts.next().as_ref().is_some_and(number)
        && parts.next().is_none();
    if is_code { (word, rest.strip_prefix(b" ").unwrap_or(rest)) } else { ("", text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(text: &str) -> Result<Option<ServerReply>, Garbled> {
        ServerReply::take(&mut BytesMut::from(text))
    }

    #[test]
    fn a_reply_keeps_its_words_and_its_large_numbers() {
        let reply = take("550-5.7.509 Access denied,\r\n550 5.7.509 ask\tyour \x1bpostmaster\r\n").unwrap().unwrap();
        assert_eq!((reply.code, reply.enhanced.as_str()), (550, "5.7.509"));
        assert_eq!(reply.text, "Access denied,\nask\tyour ?postmaster");
        assert!(reply.is_negative() && reply.is_permanent() && !reply.is_closing());
    }

    #[test]
    fn what_only_looks_like_an_enhanced_code_stays_in_the_text() {
        for text in ["8BITMIME", "1.2.3.4 is listed", "5.1 no", "5.1.1111 no", "9.1.1 no", "127.0.0.1"] {
            let reply = take(&format!("450 {text}\r\n")).unwrap().unwrap();
            assert_eq!((reply.enhanced.as_str(), reply.text.as_str()), ("", text));
        }
        assert_eq!(take("250 2.0.0\r\n").unwrap().unwrap().enhanced, "2.0.0");
        assert_eq!(take("354\r\n").unwrap().unwrap().code, 354);
    }

    #[test]
    fn replies_come_off_one_by_one_however_they_are_cut() {
        let all = "250-a\r\n250 b\r\n354 c\n";
        for cut in 0..all.len() {
            let mut input = BytesMut::from(&all[..cut]);
            let mut codes = Vec::new();
            while let Some(reply) = ServerReply::take(&mut input).unwrap() {
                codes.push(reply.code);
            }
            input.extend_from_slice(&all.as_bytes()[cut..]);
            while let Some(reply) = ServerReply::take(&mut input).unwrap() {
                codes.push(reply.code);
            }
            assert_eq!((codes, input.len()), (vec![250, 354], 0));
        }
    }

    #[test]
    fn garbage_is_said_to_be_garbage() {
        for text in ["\r\n", "hello\r\n", "99\r\n", "600 x\r\n", "250_x\r\n", "2500\r\n", "250-a\r\nb\r\n"] {
            assert_eq!(take(text), Err(Garbled::NoCode), "{text:?}");
        }
        assert_eq!(take(&"250-".repeat(10_000)), Err(Garbled::TooLong));
        assert_eq!(take("250-and"), Ok(None));
    }
}
