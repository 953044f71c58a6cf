//! Addresses in angle brackets (RFC 5321 4.1.2), with UTF-8 (RFC 6531). Pure.
//!
//! The address is kept as it was written, quotes included, so that it can be handed on. A source route is dropped (RFC 5321 appendix
//! C). More is let through than the grammar allows where senders are known to differ (dots anywhere in a local part, local names
//! without a domain), but nothing that could be read two ways: no unquoted special character, no space, no control character.

use spooler_protocol::limits::ADDRESS_BYTES_MAX;

/// Splits `<address> rest` into the address without brackets (empty for `<>`) and what follows the brackets.
pub(super) fn split(text: &str) -> Option<(&str, &str)> {
    let inside = text.strip_prefix('<')?;
    let (path, rest) = inside.split_at(closing_bracket(inside)?);
    let rest = rest.strip_prefix('>')?;
    if !rest.is_empty() && !rest.starts_with(' ') {
        return None;
    }
    let address = without_route(path)?;
    (address.is_empty() || is_address(address)).then_some((address, rest))
}

/// The same for an address without brackets, with a pair too many, or with spaces inside the brackets: nothing of it can be read in two
/// ways. The null sender needs its brackets.
pub(super) fn split_tolerant(text: &str) -> Option<(&str, &str)> {
    let (path, rest) = match text.strip_prefix('<') {
        Some(inside) => {
            let (path, rest) = inside.split_at(closing_bracket(inside)?);
            let rest = rest.strip_prefix('>')?;
            match path.strip_prefix('<') {
                Some(path) => (path, rest.strip_prefix('>')?),
                None => (path, rest),
            }
        }
        None => text.split_at(text.find(' ').unwrap_or(text.len())),
    };
    let address = without_route(path.trim_matches(' '))?;
    let ends = rest.is_empty() || rest.starts_with(' ');
    (ends && !address.is_empty() && is_address(address)).then_some((address, rest))
}

/// Where the first `>` outside quotes is.
fn closing_bracket(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    text.bytes().position(|byte| {
        let escapes = quoted && !escaped && byte == b'\\';
        if byte == b'"' && !escaped {
            quoted = !quoted;
        }
        escaped = escapes;
        byte == b'>' && !quoted
    })
}

/// Drops `@one,@two:` at the front.
fn without_route(path: &str) -> Option<&str> {
    if !path.starts_with('@') {
        return Some(path);
    }
    let (route, address) = path.split_once(':')?;
    let hops_ok = route.split(',').all(|hop| hop.strip_prefix('@').is_some_and(is_domain));
    (hops_ok && !address.is_empty()).then_some(address)
}

fn is_address(address: &str) -> bool {
    if address.len() > ADDRESS_BYTES_MAX || address.chars().any(char::is_control) {
        return false;
    }
    let local_end = if address.starts_with('"') { quoted_end(address) } else { Some(atoms_end(address)) };
    let Some((local, domain)) = local_end.and_then(|end| address.split_at_checked(end)) else {
        return false;
    };
    match domain.strip_prefix('@') {
        Some(domain) => !local.is_empty() && is_domain(domain),
        None => domain.is_empty(),
    }
}

/// Behind the quotes that the text starts with.
fn quoted_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    let inside = text.get(1..)?;
    let closing = inside.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })?;
    Some(closing + 2)
}

/// Behind the run of characters that may stand in an unquoted local part.
fn atoms_end(text: &str) -> usize {
    text.find(|c: char| c.is_whitespace() || "()<>[]:;@\\,\"".contains(c)).unwrap_or(text.len())
}

/// Whether a text is a domain or an address literal in brackets.
pub(super) fn is_domain(text: &str) -> bool {
    if let Some(literal) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return !literal.is_empty() && literal.bytes().all(|b| b.is_ascii_alphanumeric() || b".:-".contains(&b));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let label_ok = |label: &str| {
        !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_' || !c.is_ascii())
    };
    name.len() <= 255 && name.split('.').all(label_ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_out_as_written() {
        let cases = [
            ("<a@b.example>", "a@b.example", ""),
            ("<> BODY=7BIT", "", " BODY=7BIT"),
            ("<root>", "root", ""),
            ("<\"a > b\"@c> SIZE=1", "\"a > b\"@c", " SIZE=1"),
            ("<\"a\\\"> b\"@c>", "\"a\\\"> b\"@c", ""),
            ("<@one,@two.example:a@b>", "a@b", ""),
            ("<ä@exämple.org> SMTPUTF8", "ä@exämple.org", " SMTPUTF8"),
            ("<a@[127.0.0.1]>", "a@[127.0.0.1]", ""),
            ("<a@[IPv6:::1]>", "a@[IPv6:::1]", ""),
            ("<a..b.@docomo.example>", "a..b.@docomo.example", ""),
            ("<prvs=x/y+tag=z!@b>", "prvs=x/y+tag=z!@b", ""),
        ];
        for (text, address, rest) in cases {
            assert_eq!(split(text), Some((address, rest)), "{text}");
        }
    }

    #[test]
    fn what_could_be_read_two_ways_is_refused() {
        let long = format!("<{}@b>", "x".repeat(600));
        let cases = [
            "a@b",
            "<a@b",
            "<a@b>x",
            "<a b@c>",
            "<a@b c>",
            "<@b>",
            "<a@>",
            "<a@b@c>",
            "<<a@b>>",
            "<a@b>>",
            "<a,b@c>",
            "<\"a@b>",
            "<\"a\"b@c>",
            "<@x:>",
            "<@x@y:a@b>",
            "<a@b..c>",
            "<a@[]>",
            "<FAX:+1>",
            "<a@b\u{7f}>",
            "<\u{85}@b>",
            &long,
        ];
        for text in cases {
            assert_eq!(split(text), None, "{text}");
        }
    }
}
