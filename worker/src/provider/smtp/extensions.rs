//! What a server offers in its reply to EHLO or LHLO. Pure.

use super::reply::ServerReply;

/// The offers that matter here. Nothing is offered after HELO, or before EHLO.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    /// RFC 2920.
    pub(super) pipelining: bool,
    /// RFC 6152.
    pub(super) eight_bit_mime: bool,
    /// RFC 6531.
    pub(super) smtputf8: bool,
    /// RFC 3030.
    pub(super) chunking: bool,
    /// RFC 3461.
    pub(super) dsn: bool,
    /// RFC 3207.
    pub(super) starttls: bool,
    /// RFC 1870; 0 if no limit is given.
    pub(super) size: Option<u64>,
    /// RFC 4954: AUTH with PLAIN (RFC 4616).
    pub(super) auth_plain: bool,
    /// AUTH with LOGIN, which has no RFC.
    pub(super) auth_login: bool,
}

impl Extensions {
    /// Reads a positive reply; its first line is the server's name and greeting.
    pub(super) fn read(reply: &ServerReply) -> Self {
        let mut offered = Self::default();
        for line in reply.text.lines().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
            match keyword.as_str() {
                "PIPELINING" => offered.pipelining = true,
                "8BITMIME" => offered.eight_bit_mime = true,
                "SMTPUTF8" => offered.smtputf8 = true,
                "CHUNKING" => offered.chunking = true,
                "DSN" => offered.dsn = true,
                "STARTTLS" => offered.starttls = true,
                "SIZE" => offered.size = Some(words.next().and_then(|word| word.parse().ok()).unwrap_or(0)),
                "AUTH" => offered.read_mechanisms(words),
                // As servers said it before RFC 2554: AUTH=LOGIN.
                _ => {
                    if let Some(first) = keyword.strip_prefix("AUTH=") {
                        offered.read_mechanisms(std::iter::once(first).chain(words));
                    }
                }
            }
        }
        offered
    }

    fn read_mechanisms<'a>(&mut self, words: impl Iterator<Item = &'a str>) {
        for word in words {
            self.auth_plain |= word.eq_ignore_ascii_case("PLAIN");
            self.auth_login |= word.eq_ignore_ascii_case("LOGIN");
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    fn read(text: &str) -> Extensions {
        Extensions::read(&ServerReply::take(&mut BytesMut::from(text)).unwrap().unwrap())
    }

    #[test]
    fn offers_are_read_whatever_their_case_and_the_greeting_is_no_offer() {
        let offered = read(
            "250-DSN greets you\r\n250-pipelining\r\n250-8BITMIME\r\n250-SIZE 1000\r\n250-AUTH CRAM-MD5 plain\r\n250 X\r\n",
        );
        let expected = Extensions {
            pipelining: true,
            eight_bit_mime: true,
            size: Some(1000),
            auth_plain: true,
            ..Extensions::default()
        };
        assert_eq!(offered, expected);
    }

    #[test]
    fn a_size_without_a_number_is_no_limit() {
        assert_eq!(read("250-h\r\n250 SIZE\r\n").size, Some(0));
        assert_eq!(read("250 h\r\n").size, None);
        assert!(read("250-h\r\n250 AUTH=LOGIN\r\n").auth_login);
    }
}
