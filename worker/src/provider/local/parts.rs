//! The parts of an address, as placeholders take them.

use spooler_protocol::message::Address;

/// The two parts of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::provider) struct Parts {
    /// What stands before the `@`, without quotes (RFC 5321 4.1.2: the quoted form means the same); all of an address without `@`.
    pub(in crate::provider) local: String,
    /// What stands behind the `@`, in lower case and without a trailing dot; empty if there is none.
    pub(in crate::provider) domain: String,
}

impl Parts {
    /// Splits an address. Of an address whose type is not mail, everything is the local part.
    pub(in crate::provider) fn of(address: &Address) -> Self {
        let split = if address.kind() == spooler_protocol::message::SMTP { address.local_and_domain() } else { None };
        let (local, domain) = split.unwrap_or((address.text(), ""));
        Self { local: unquoted(local), domain: domain.to_lowercase() }
    }
}

fn unquoted(local: &str) -> String {
    let Some(inner) = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return local.to_owned();
    };
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        text.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(address: &str) -> (String, String) {
        let Parts { local, domain } = Parts::of(&address.parse().unwrap());
        (local, domain)
    }

    fn pair(local: &str, domain: &str) -> (String, String) {
        (local.to_owned(), domain.to_owned())
    }

    #[test]
    fn an_address_is_split_at_its_last_at() {
        assert_eq!(parts("Bob@Example.ORG."), pair("Bob", "example.org"));
        assert_eq!(parts(r#""a@b\" c"@d"#), pair("a@b\" c", "d"));
        assert_eq!(parts("root"), pair("root", ""));
        assert_eq!(parts("FILE:/a@b"), pair("/a@b", ""));
    }
}
