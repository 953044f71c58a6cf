//! The trace header that every accepted message gets (RFC 5321 4.4). Pure, but for the clock of [`DateCache`].

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Zoned;

/// What the header tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trace<'a> {
    /// What the client called itself.
    pub(super) name: &'a str,
    /// Where it is.
    pub(super) peer: IpAddr,
    /// What this server calls itself.
    pub(super) hostname: &'a str,
    /// How it came, such as `ESMTPSA`.
    pub(super) protocol: &'static str,
    /// The recipient if there is only one; several would tell them of each other.
    pub(super) recipient: Option<&'a str>,
    /// RFC 5322 date.
    pub(super) date: &'a str,
}

impl Trace<'_> {
    /// The header, folded, with its CR LF.
    pub(super) fn header(&self) -> String {
        let name: String = self.name.chars().map(|c| if is_plain(c) { c } else { '?' }).collect();
        let literal = if self.peer.is_ipv6() { "IPv6:" } else { "" };
        let mut text = format!(
            "Received: from {name} ([{literal}{}])\r\n\tby {} with {}",
            self.peer, self.hostname, self.protocol
        );
        if let Some(recipient) = self.recipient {
            let _ = write!(text, "\r\n\tfor <{recipient}>");
        }
        let _ = write!(text, ";\r\n\t{}\r\n", self.date);
        text
    }
}

/// Whether a character of a client's name can stand in the header as it is: what domains and address literals are made of.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._:[]".contains(c)
}

/// The `with` keyword (RFC 3848, RFC 6531 4.3).
pub(super) fn protocol(extended: bool, utf8: bool, tls: bool, authenticated: bool) -> &'static str {
    match (extended, utf8, tls, authenticated) {
        (_, true, true, true) => "UTF8SMTPSA",
        (_, true, true, false) => "UTF8SMTPS",
        (_, true, false, true) => "UTF8SMTPA",
        (_, true, false, false) => "UTF8SMTP",
        (true, false, true, true) => "ESMTPSA",
        (true, false, true, false) => "ESMTPS",
        (true, false, false, true) => "ESMTPA",
        (true, false, false, false) => "ESMTP",
        (false, false, _, _) => "SMTP",
    }
}

/// The date of this second, made once a second.
#[derive(Debug, Default)]
pub(super) struct DateCache {
    second: u64,
    text: String,
}

impl DateCache {
    /// The date now, in RFC 5322's form.
    pub(super) fn now(&mut self) -> &str {
        let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text = jiff::fmt::rfc2822::to_string(&Zoned::now()).unwrap_or_default();
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_folded_and_ends_its_line() {
        let mut trace = Trace {
            name: "client.example",
            peer: "192.0.2.1".parse().unwrap(),
            hostname: "spooler.test",
            protocol: protocol(true, false, true, true),
            recipient: Some("a@b"),
            date: "Tue, 3 Nov 2026 10:00:00 +0100",
        };
        let expected = "Received: from client.example ([192.0.2.1])\r\n\tby spooler.test with ESMTPSA\r\n\tfor <a@b>;\r\n\
                        \tTue, 3 Nov 2026 10:00:00 +0100\r\n";
        assert_eq!(trace.header(), expected);
        trace.recipient = None;
        trace.peer = "::1".parse().unwrap();
        assert!(trace.header().contains("([IPv6:::1])\r\n\tby spooler.test with ESMTPSA;\r\n\tTue"));
    }

    #[test]
    fn a_name_cannot_break_out() {
        let trace = Trace {
            name: "x(\r\n\tEvil: 1;\u{e4}",
            peer: "192.0.2.1".parse().unwrap(),
            hostname: "h",
            protocol: "ESMTP",
            recipient: None,
            date: "now",
        };
        assert!(trace.header().starts_with("Received: from x????Evil:?1?? ([192"));
    }

    #[test]
    fn dates_are_rfc_5322() {
        let mut cache = DateCache::default();
        let text = cache.now().to_owned();
        assert!(jiff::fmt::rfc2822::parse(&text).is_ok(), "{text}");
        assert!(!cache.now().is_empty());
    }
}
