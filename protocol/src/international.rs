//! Addresses that are not ASCII, towards servers that take only ASCII.
//!
//! Only the local part needs SMTPUTF8 (RFC 6531): a domain goes out in A-labels (RFC 5891 4.4), which every server takes.

use std::borrow::Cow;

/// An address as it stands in SMTP: its domain in A-labels if that makes it ASCII.
#[must_use]
pub fn wire_form(address: &str) -> Cow<'_, str> {
    if let Some((local, domain)) = address.rsplit_once('@')
        && local.is_ascii()
        && !domain.is_ascii()
        // Strict: mapping must not make a character with a meaning in SMTP out of a harmless one.
        && let Ok(domain) = idna::domain_to_ascii_strict(domain)
    {
        return Cow::Owned(format!("{local}@{domain}"));
    }
    Cow::Borrowed(address)
}

/// Whether an address can only be said with SMTPUTF8.
#[must_use]
pub fn needs_smtputf8(address: &str) -> bool {
    !address.is_ascii() && !wire_form(address).is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_domain_becomes_a_labels() {
        for (address, expected) in [
            ("a@ex\u{e4}mple.example", "a@xn--exmple-cua.example"),
            ("a@\u{4f8b}.example", "a@xn--fsq.example"),
            ("j\u{f6}rg@ex\u{e4}mple.example", "j\u{f6}rg@ex\u{e4}mple.example"),
            ("a@b", "a@b"),
            ("", ""),
            // Fullwidth `>` and space would become those of ASCII.
            ("a@b\u{ff1e}\u{3000}x", "a@b\u{ff1e}\u{3000}x"),
        ] {
            assert_eq!(wire_form(address), expected);
        }
        assert!(needs_smtputf8("\u{f6}@a") && !needs_smtputf8("a@\u{f6}.example") && !needs_smtputf8("a@b"));
    }
}
