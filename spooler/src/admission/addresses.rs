//! Where the addresses are in the value of a field (RFC 5322 3.4), byte by byte, so that they can be completed in their places.
//!
//! A field that cannot be taken apart (a quote, comment or bracket that is never closed) has none. A member of a list that is no address
//! is passed over: what cannot be understood stays as it is. Display names, comments, groups and folding are never touched.

use std::ops::Range;

/// An address in a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// From the first byte of the local part to the last of the domain, or of the local part if there is none.
    pub(super) range: Range<usize>,
    /// Whether it has a domain.
    pub(super) has_domain: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// An atom with dots, or a quoted string: a local part, a domain, or a word of a display name.
    Word,
    /// A domain literal.
    Literal,
    /// One of `<>@,;:`.
    Mark(u8),
}

#[derive(Clone, Debug)]
struct Token {
    kind: Kind,
    range: Range<usize>,
}

/// The addresses of a value; `None` if it cannot be taken apart.
pub(super) fn find(value: &[u8]) -> Option<Vec<Place>> {
    let tokens = tokens(value)?;
    let mut places = Vec::new();
    // What stands before an angle bracket is a name; what stands in it, or in a member without one, may be an address.
    let (mut member, mut in_angle, mut after_angle): (Vec<Token>, bool, bool) = (Vec::new(), false, false);
    for token in tokens {
        match token.kind {
            Kind::Mark(b'<') => {
                if in_angle {
                    return None;
                }
                member.clear();
                (in_angle, after_angle) = (true, false);
            }
            Kind::Mark(b'>') => {
                if !in_angle {
                    return None;
                }
                places.extend(address(value, &member));
                member.clear();
                (in_angle, after_angle) = (false, true);
            }
            Kind::Mark(b',' | b';') if !in_angle => {
                if !after_angle {
                    places.extend(address(value, &member));
                }
                member.clear();
                after_angle = false;
            }
            // The name of a group stands before it.
            Kind::Mark(b':') if !in_angle => member.clear(),
            _ => member.push(token),
        }
    }
    if in_angle {
        return None;
    }
    if !after_angle {
        places.extend(address(value, &member));
    }
    Some(places)
}

/// The address that some tokens are, if they are one. A source route is none that is touched.
fn address(value: &[u8], tokens: &[Token]) -> Option<Place> {
    let is_address_word = |token: &Token| {
        let text = value.get(token.range.clone()).unwrap_or_default();
        token.kind == Kind::Word && !text.starts_with(b"=?") && !text.iter().any(u8::is_ascii_control)
    };
    match tokens {
        [local] if is_address_word(local) => Some(Place { range: local.range.clone(), has_domain: false }),
        [local, at, domain] if is_address_word(local) && at.kind == Kind::Mark(b'@') => {
            let touches = local.range.end == at.range.start && at.range.end == domain.range.start;
            let is_domain = matches!(domain.kind, Kind::Word | Kind::Literal);
            (touches && is_domain).then_some(Place { range: local.range.start..domain.range.end, has_domain: true })
        }
        _ => None,
    }
}

fn tokens(value: &[u8]) -> Option<Vec<Token>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(byte) = value.get(at) {
        let start = at;
        let kind = match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {
                at += 1;
                continue;
            }
            b'(' => {
                at = comment_end(value, at)?;
                continue;
            }
            b'"' => {
                at = enclosed_end(value, at, b'"')?;
                Kind::Word
            }
            b'[' => {
                at = enclosed_end(value, at, b']')?;
                Kind::Literal
            }
            b'<' | b'>' | b'@' | b',' | b';' | b':' => {
                at += 1;
                Kind::Mark(*byte)
            }
            b')' | b']' | b'\\' => return None,
            _ => {
                let rest = value.get(at..).unwrap_or_default();
                at += rest.iter().position(|byte| b" \t\r\n()<>[]:;@\\,\"".contains(byte)).unwrap_or(rest.len());
                Kind::Word
            }
        };
        found.push(Token { kind, range: start..at });
    }
    Some(found)
}

fn comment_end(value: &[u8], start: usize) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, start);
    loop {
        match value.get(at)? {
            b'(' => depth += 1,
            b')' => depth -= 1,
            b'\\' => at += 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
}

fn enclosed_end(value: &[u8], start: usize, close: u8) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match value.get(at)? {
            b'\\' => at += 2,
            byte if *byte == close => return Some(at + 1),
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each address with `*` where a domain would be added.
    fn marked(value: &str) -> Option<String> {
        let mut out = String::new();
        let mut done = 0;
        for place in find(value.as_bytes())? {
            out.push_str(&value[done..place.range.end]);
            out.push_str(if place.has_domain { "!" } else { "*" });
            done = place.range.end;
        }
        Some(out + &value[done..])
    }

    #[test]
    fn addresses_are_found_in_their_places() {
        for (value, expected) in [
            (" root (Cron Daemon)\r\n", " root* (Cron Daemon)\r\n"),
            ("root", "root*"),
            ("Cron Daemon <root>", "Cron Daemon <root*>"),
            ("\"root\" <a@b>", "\"root\" <a@b!>"),
            ("a@b, root,\r\n c (x, y)", "a@b!, root*,\r\n c* (x, y)"),
            ("G: ann, bob@x;, c", "G: ann*, bob@x!;, c*"),
            ("undisclosed-recipients:;", "undisclosed-recipients:;"),
            ("\"a@b\"", "\"a@b\"*"),
            ("j.doe@[192.0.2.1]", "j.doe@[192.0.2.1]!"),
            ("=?utf-8?q?J=C3=B6rg?= <j>", "=?utf-8?q?J=C3=B6rg?= <j*>"),
            ("J\u{f6}rg <j>", "J\u{f6}rg <j*>"),
            ("a(x(y)\\))@b", "a(x(y)\\))@b"),
            ("host!user", "host!user*"),
        ] {
            assert_eq!(marked(value).as_deref(), Some(expected), "{value:?}");
        }
    }

    #[test]
    fn nothing_is_found_where_no_address_is() {
        for value in [
            "",
            "<>",
            "John Doe",
            "=?utf-8?q?x?=",
            "<@a,@b:c>",
            "a@",
            "@b",
            "a @ b",
            "a@b@c",
            "<a b>",
            "Name <x> y",
            "a\u{1}b",
        ] {
            let found: Vec<Place> = find(value.as_bytes()).unwrap();
            assert!(
                found.iter().all(|place| place.range.len() == 1 && value.starts_with("Name")),
                "{value:?} {found:?}"
            );
        }
    }

    #[test]
    fn a_value_that_never_ends_is_left_alone() {
        for value in ["a (x", "\"a", "<a", "a@[1", "a>", "a <b <c>", "a\\", "a)", "\"\\"] {
            assert_eq!(find(value.as_bytes()), None, "{value:?}");
        }
    }
}
