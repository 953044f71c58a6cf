//! What the server says: a code, an enhanced status code (RFC 3463) and a sentence.

use std::borrow::Cow;

use spooler_protocol::to_worker::Refusal;

/// Bytes of a reply's text that are sent, so that the line stays within 512 (RFC 5321 4.5.3.1.5).
const TEXT_BYTES_MAX: usize = 480;

/// A reply of one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// The three-digit code.
    pub(super) code: u16,
    /// The enhanced status code; empty for replies that carry none (greeting, EHLO, 354, 334).
    pub(super) enhanced: Cow<'static, str>,
    /// A sentence for a person, without line ends.
    pub(super) text: Cow<'static, str>,
}

impl Reply {
    /// A reply whose words are known beforehand.
    pub(super) const fn new(code: u16, enhanced: &'static str, text: &'static str) -> Self {
        Self { code, enhanced: Cow::Borrowed(enhanced), text: Cow::Borrowed(text) }
    }

    /// A reply with a text made for the occasion.
    pub(super) fn with_text(code: u16, enhanced: &'static str, text: String) -> Self {
        Self { code, enhanced: Cow::Borrowed(enhanced), text: Cow::Owned(text) }
    }

    /// What the supervisor's refusal is in SMTP. An enhanced code that does not fit is replaced by the general one of its class.
    pub(super) fn from_refusal(refusal: Refusal) -> Self {
        let (class, general, code) = if refusal.temporary { ('4', "4.3.0", 451) } else { ('5', "5.3.0", 554) };
        let fits = is_enhanced_code(&refusal.enhanced) && refusal.enhanced.starts_with(class);
        let enhanced = if fits { Cow::Owned(refusal.enhanced) } else { Cow::Borrowed(general) };
        let code = match enhanced.as_ref() {
            "4.3.1" | "4.2.2" => 452,
            "5.3.4" | "5.2.3" => 552,
            _ => code,
        };
        Self { code, enhanced, text: Cow::Owned(refusal.text) }
    }

    /// Whether this says that the client did something wrong.
    pub(super) fn is_error(&self) -> bool {
        self.code >= 500
    }

    /// Appends the reply as a line.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.code.to_string().as_bytes());
        out.push(b' ');
        if !self.enhanced.is_empty() {
            out.extend_from_slice(self.enhanced.as_bytes());
            out.push(b' ');
        }
        let end = self.text.floor_char_boundary(TEXT_BYTES_MAX);
        let text = self.text.as_bytes().get(..end).unwrap_or_default();
        out.extend(text.iter().map(|&byte| if byte.is_ascii_control() { b' ' } else { byte }));
        out.extend_from_slice(b"\r\n");
    }
}

fn is_enhanced_code(text: &str) -> bool {
    let mut parts = 0;
    let digits = text.split('.').all(|part| {
        parts += 1;
        (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    });
    digits && parts == 3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(reply: &Reply) -> String {
        let mut out = Vec::new();
        reply.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_reply_is_one_line_whatever_its_text_holds() {
        let reply = Reply::with_text(550, "5.1.2", format!("bad\r\n250 {}", "x".repeat(1000)));
        let line = line(&reply);
        assert!(line.starts_with("550 5.1.2 bad  250 xxx"));
        assert!(line.len() <= 512 && line.ends_with("\r\n"));
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn a_refusal_keeps_its_class_and_code() {
        let refusal = |temporary, enhanced: &str| {
            line(&Reply::from_refusal(Refusal { temporary, enhanced: enhanced.to_owned(), text: "no".to_owned() }))
        };
        assert_eq!(refusal(true, "4.3.1"), "452 4.3.1 no\r\n");
        assert_eq!(refusal(true, "4.3.2"), "451 4.3.2 no\r\n");
        assert_eq!(refusal(true, "5.0.0\r\n250"), "451 4.3.0 no\r\n");
        assert_eq!(refusal(false, "5.3.4"), "552 5.3.4 no\r\n");
        assert_eq!(refusal(false, "5.7.1"), "554 5.7.1 no\r\n");
        assert_eq!(refusal(false, ""), "554 5.3.0 no\r\n");
    }
}
