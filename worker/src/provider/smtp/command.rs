//! MAIL and RCPT as bytes: paths and the parameters of what the server offers. Pure.

use spooler_protocol::international::wire_form;
use spooler_protocol::message::{BodyType, Recipient, Ret};
use spooler_protocol::to_worker::Submission;

use super::extensions::Extensions;

/// Appends MAIL (RFC 5321 4.1.1.2) with SIZE, BODY, SMTPUTF8 and the DSN parameters as far as they are offered.
///
/// A sender that is no path was refused before, by [`is_path`].
pub(super) fn mail(submission: &Submission, smtputf8: bool, extensions: &Extensions, out: &mut Vec<u8>) {
    out.extend_from_slice(b"MAIL FROM:<");
    path(&submission.sender, out);
    out.push(b'>');
    if extensions.size.is_some() {
        out.extend_from_slice(b" SIZE=");
        out.extend_from_slice(submission.size.to_string().as_bytes());
    }
    if extensions.eight_bit_mime && submission.body == BodyType::EightBit {
        out.extend_from_slice(b" BODY=8BITMIME");
    }
    if smtputf8 {
        out.extend_from_slice(b" SMTPUTF8");
    }
    if extensions.dsn {
        match submission.ret {
            Some(Ret::Full) => out.extend_from_slice(b" RET=FULL"),
            Some(Ret::Headers) => out.extend_from_slice(b" RET=HDRS"),
            None => {}
        }
        parameter(b" ENVID=", submission.envid.as_deref(), out);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends RCPT (RFC 5321 4.1.1.3) with the DSN parameters if they are offered.
pub(super) fn rcpt(recipient: &Recipient, extensions: &Extensions, out: &mut Vec<u8>) {
    out.extend_from_slice(b"RCPT TO:<");
    path(recipient.address.text(), out);
    out.push(b'>');
    if extensions.dsn {
        if let Some(notify) = recipient.notify {
            parameter(b" NOTIFY=", Some(&notify.keywords()), out);
        }
        parameter(b" ORCPT=", recipient.orcpt.as_deref(), out);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a parameter. One that could break out of the command was refused when the message came in, and is left out here too.
fn parameter(name: &[u8], value: Option<&str>, out: &mut Vec<u8>) {
    if let Some(value) = value.filter(|value| spooler_protocol::message::is_dsn_parameter(value)) {
        out.extend_from_slice(name);
        out.extend_from_slice(value.as_bytes());
    }
}

/// Whether an address can stand between the angle brackets of MAIL and RCPT, if need be with its local part quoted.
pub(super) fn is_path(address: &str) -> bool {
    let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
    !address.chars().any(char::is_control)
        && !address.ends_with('@')
        && !domain.chars().any(|c| c.is_whitespace() || matches!(c, '<' | '>' | '"' | '\\' | '(' | ')' | ',' | ';'))
}

/// Appends an address, its local part quoted where it must be (RFC 5321 4.1.2) and is not.
fn path(address: &str, out: &mut Vec<u8>) {
    let address = &*wire_form(address);
    let (local, domain) = match address.rfind('@') {
        Some(at) => address.split_at(at),
        None => (address, ""),
    };
    if address.is_empty() || is_dot_string(local) || is_quoted_string(local) {
        out.extend_from_slice(address.as_bytes());
        return;
    }
    out.push(b'"');
    for byte in local.bytes() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
    out.extend_from_slice(domain.as_bytes());
}

/// Atoms and dots. Dots in odd places are let through, as they are everywhere.
fn is_dot_string(local: &str) -> bool {
    let special = |byte: u8| {
        matches!(byte, b' ' | b'"' | b'(' | b')' | b',' | b':' | b';' | b'<' | b'>' | b'@' | b'[' | b'\\' | b']')
    };
    !local.is_empty() && !local.bytes().any(special)
}

fn is_quoted_string(local: &str) -> bool {
    let Some(inner) = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return false };
    let mut escaped = false;
    for byte in inner.bytes() {
        escaped = match byte {
            _ if escaped => false,
            b'\\' => true,
            b'"' => return false,
            _ => false,
        };
    }
    !escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(address: &str) -> String {
        let mut out = Vec::new();
        path(address, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn paths_are_quoted_where_they_must_be_and_only_there() {
        for same in
            ["", "a@b", "root", "a.b+c=d@e.f", "\"a b\"@c", "\"a\\\"b\"@c", "ä@ö", "user@[1.2.3.4]", "a@[IPv6:::1]"]
        {
            assert_eq!(shown(same), same);
        }
        assert_eq!(shown("a b@c"), "\"a b\"@c");
        assert_eq!(shown("a> NOTIFY=NEVER@c"), "\"a> NOTIFY=NEVER\"@c");
        assert_eq!(shown("\"a\"b\\@c"), "\"\\\"a\\\"b\\\\\"@c");
        assert_eq!(shown("a@b@c"), "\"a@b\"@c");
    }

    #[test]
    fn a_domain_cannot_break_out_of_the_command() {
        assert!(is_path("a@b") && is_path("") && is_path("root") && is_path("a b@c") && is_path("a@[IPv6:::1]"));
        for bad in ["a@b> SIZE=1", "a@b c", "a@", "a\r\n@b", "@"] {
            assert!(!is_path(bad), "{bad:?}");
        }
    }
}
