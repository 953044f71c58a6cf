//! The number that the next hop gave a message, out of its reply to the end of the data. Pure.
//!
//! No standard says how a server tells it; these are the ways of the servers that are out there.

/// Bytes of a number that is believed.
const BYTES_MAX: usize = 128;

/// The remote's number in the text of a positive reply, if it has one.
///
/// | server | reply |
/// |---|---|
/// | Postfix, this spooler | `Ok: queued as 4XyZ12`, `queued as 42` |
/// | Exim | `OK id=1tHk2B-000000001Xy-2abc` |
/// | Sendmail, OpenSMTPD | `4B1AbCdE012345 Message accepted for delivery` |
/// | qmail | `ok 1733000000 qp 12345` |
/// | Exchange | `<…> [InternalId=123, Hostname=…] … Queued mail for delivery` |
/// | Gmail | `OK  1733000000 a640c23a62f3a-aa5998e8a5dsi1.2 - gsmtp` |
/// | others | `Ok 4B1AbCdE`, `Message queued: 4B1AbCdE` |
#[must_use]
pub fn remote_id(text: &str) -> Option<&str> {
    let line = text.lines().next_back().unwrap_or_default().trim();
    let found = behind(line, "queued as ")
        .or_else(|| behind(line, "ok id="))
        .or_else(|| behind(line, "internalid="))
        .or_else(|| before(line, " message accepted for delivery"))
        .or_else(|| behind(line, " qp "))
        .or_else(|| gmail(line))
        .or_else(|| behind(line, "queued: "))
        .or_else(|| line.split_once(' ').filter(|(ok, _)| ok.eq_ignore_ascii_case("ok")).map(|(_, rest)| rest))?;
    let word = found.split([' ', ',', ';', ']', ')']).next().unwrap_or_default();
    let word = word.trim_matches(['<', '>', '.', '"', '\'']);
    let fits = (1..=BYTES_MAX).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_graphic());
    // A number has a digit in it, which no word of a sentence has.
    (fits && word.bytes().any(|byte| byte.is_ascii_digit())).then_some(word)
}

fn position(line: &str, words: &str) -> Option<usize> {
    line.as_bytes().windows(words.len()).position(|window| window.eq_ignore_ascii_case(words.as_bytes()))
}

fn behind<'a>(line: &'a str, words: &str) -> Option<&'a str> {
    line.get(position(line, words)? + words.len()..)
}

fn before<'a>(line: &'a str, words: &str) -> Option<&'a str> {
    line.get(..position(line, words)?)?.split(' ').next_back()
}

fn gmail(line: &str) -> Option<&str> {
    line.strip_suffix(" - gsmtp")?.split(' ').next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_ids_of_common_servers_are_found() {
        for (text, id) in [
            ("Ok: queued as 4XyZ12Abc", Some("4XyZ12Abc")),
            ("queued as 42", Some("42")),
            ("OK id=1tHk2B-000000001Xy-2abc", Some("1tHk2B-000000001Xy-2abc")),
            ("4B1AbCdE012345 Message accepted for delivery", Some("4B1AbCdE012345")),
            ("ok 1733000000 qp 12345", Some("12345")),
            ("<1@x> [InternalId=123, Hostname=a.b] 9 bytes in 0.1 Queued mail for delivery", Some("123")),
            ("OK  1733000000 a640c23a-aa5998dsi1.2 - gsmtp", Some("a640c23a-aa5998dsi1.2")),
            ("Ok 0100018f-abc", Some("0100018f-abc")),
            ("first line\nMessage queued: 77", Some("77")),
            ("Requested mail action okay, completed", None),
            ("Ok", None),
            ("OK thanks", None),
            ("queued as \u{202e}12", None),
            ("", None),
        ] {
            assert_eq!(remote_id(text), id, "{text:?}");
        }
    }
}
