//! Addresses in place of others: maps for senders and recipients, and masquerading.
//!
//! | a map has | for |
//! |---|---|
//! | `user@domain` | that address |
//! | `user` | that local part at the origin |
//! | `@domain` | every address in that domain |
//! | `@.domain` | every address in its subdomains |
//! | `*` | every address |
//!
//! The narrowest entry counts, and it counts once: its result is not looked up again. An entry that begins with `@` on the right keeps
//! the local part. Masquerading comes after the map: `host.example.org` becomes `example.org`.

use std::collections::HashMap;

/// Whose address it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A sender's: the return path, `From`, `Sender`, `Reply-To`.
    Sender,
    /// A recipient's: an envelope's recipient, `To`, `Cc`.
    Recipient,
}

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the envelope.
    Envelope,
    /// In the header.
    Header,
}

/// Where something is rewritten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// In envelope and header.
    #[default]
    Both,
    /// In the envelope alone.
    Envelope,
    /// In the header alone.
    Header,
}

impl Scope {
    fn covers(self, place: Place) -> bool {
        match self {
            Self::Both => true,
            Self::Envelope => place == Place::Envelope,
            Self::Header => place == Place::Header,
        }
    }
}

/// Addresses in place of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Map {
    entries: HashMap<String, String>,
    scope: Scope,
}

impl Map {
    /// A map of pairs, each checked by [`check`]. `origin`: the domain of keys without one.
    #[must_use]
    pub fn new(pairs: Vec<(String, String)>, origin: &str, scope: Scope) -> Self {
        let key = |key: &str| {
            let whole = if key == "*" || key.contains('@') { key.to_owned() } else { format!("{key}@{origin}") };
            whole.to_ascii_lowercase()
        };
        let value = |value: String| if value.contains('@') { value } else { format!("{value}@{origin}") };
        Self { entries: pairs.into_iter().map(|(from, to)| (key(&from), value(to))).collect(), scope }
    }

    fn find(&self, address: &str) -> Option<String> {
        if self.entries.is_empty() {
            return None;
        }
        let lower = address.to_ascii_lowercase();
        let (local, domain) = address.rsplit_once('@')?;
        let at_domain = lower.get(local.len()..).unwrap_or_default();
        let parents =
            at_domain.match_indices('.').map(|(dot, _)| format!("@{}", at_domain.get(dot..).unwrap_or_default()));
        let found = self.entries.get(&lower).or_else(|| self.entries.get(at_domain));
        let found = found.or_else(|| parents.into_iter().find_map(|parent| self.entries.get(&parent)));
        let to = found.or_else(|| self.entries.get("*"))?;
        let rewritten = if to.starts_with('@') { format!("{local}{to}") } else { to.clone() };
        (rewritten != format!("{local}@{domain}")).then_some(rewritten)
    }
}

/// Why a pair of a map is wrong; `None` if it is not.
#[must_use]
pub fn check(from: &str, to: &str) -> Option<String> {
    let is_bad =
        |text: &str| text.is_empty() || text.chars().any(|c| c.is_control() || c.is_whitespace() || "<>,".contains(c));
    let local_and_domain = |text: &str| text.split_once('@').map(|(local, domain)| (local.len(), domain.len()));
    if is_bad(from) || matches!(local_and_domain(from), Some((_, 0))) {
        return Some(format!(
            "has the key {from:?}; write an address, \"@domain\", \"@.domain\", a local part or \"*\""
        ));
    }
    if is_bad(to) || to == "*" || matches!(local_and_domain(to), Some((_, 0))) || to.starts_with("@.") {
        return Some(format!("gives {to:?} for {from:?}; write an address, or \"@domain\" to keep the local part"));
    }
    None
}

/// Everything about rewriting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// For senders.
    pub sender: Map,
    /// For recipients.
    pub recipient: Map,
    /// Domains whose subdomains are not shown, in lower case. Recipients of the envelope keep theirs: they say where mail goes.
    pub masquerade: Vec<String>,
    /// Local parts that keep their domain, in lower case.
    pub masquerade_except: Vec<String>,
    /// Where masquerading applies.
    pub masquerade_scope: Scope,
}

impl Rewrite {
    /// Whether addresses in a role may be rewritten at all in an envelope.
    #[must_use]
    pub fn concerns(&self, role: Role) -> bool {
        match role {
            Role::Sender => !self.sender.entries.is_empty() || !self.masquerade.is_empty(),
            Role::Recipient => !self.recipient.entries.is_empty(),
        }
    }

    /// Whether any header may have to be rewritten.
    #[must_use]
    pub fn concerns_headers(&self) -> bool {
        let in_header = |map: &Map| !map.entries.is_empty() && map.scope.covers(Place::Header);
        let masked = !self.masquerade.is_empty() && self.masquerade_scope.covers(Place::Header);
        masked || in_header(&self.sender) || in_header(&self.recipient)
    }

    /// The address in place of a qualified one; `None` if it stays. The null sender is never rewritten.
    #[must_use]
    pub fn address(&self, role: Role, place: Place, address: &str) -> Option<String> {
        if address.is_empty() {
            return None;
        }
        let map = match role {
            Role::Sender => &self.sender,
            Role::Recipient => &self.recipient,
        };
        let mapped = if map.scope.covers(place) { map.find(address) } else { None };
        let masked = match (role, place) {
            (Role::Recipient, Place::Envelope) => None,
            _ if !self.masquerade_scope.covers(place) => None,
            _ => self.masked(mapped.as_deref().unwrap_or(address)),
        };
        masked.or(mapped)
    }

    fn masked(&self, address: &str) -> Option<String> {
        let (local, domain) = address.rsplit_once('@')?;
        if self.masquerade_except.iter().any(|except| except.eq_ignore_ascii_case(local)) {
            return None;
        }
        let domain = domain.to_ascii_lowercase();
        let is_below = |parent: &&String| domain.strip_suffix(parent.as_str()).is_some_and(|head| head.ends_with('.'));
        let parent = self.masquerade.iter().find(is_below)?;
        Some(format!("{local}@{parent}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> Map {
        let pairs = pairs.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
        Map::new(pairs, "here.test", Scope::Both)
    }

    #[test]
    fn the_narrowest_entry_counts() {
        let map = map(&[
            ("root@Host.test", "alerts@example.org"),
            ("cron", "jobs"),
            ("@host.test", "@example.org"),
            ("@.internal", "@example.net"),
            ("*", "all@example.com"),
        ]);
        for (address, expected) in [
            ("root@host.test", "alerts@example.org"),
            ("Root@HOST.test", "alerts@example.org"),
            ("cron@here.test", "jobs@here.test"),
            ("Ann@host.test", "Ann@example.org"),
            ("ann@a.b.internal", "ann@example.net"),
            ("ann@internal", "all@example.com"),
        ] {
            assert_eq!(map.find(address).as_deref(), Some(expected), "{address}");
        }
        assert_eq!(map.find("all@example.com"), None, "nothing changes");
    }

    #[test]
    fn scopes_choose_envelope_or_header() {
        let of = |scope| Rewrite { sender: Map { scope, ..map(&[("*", "a@b")]) }, ..Rewrite::default() };
        let both = |scope| {
            [Place::Envelope, Place::Header].map(|place| of(scope).address(Role::Sender, place, "x@y").is_some())
        };
        assert_eq!(
            [both(Scope::Both), both(Scope::Envelope), both(Scope::Header)],
            [[true, true], [true, false], [false, true]]
        );
        assert_eq!(of(Scope::Both).address(Role::Sender, Place::Envelope, ""), None, "the null sender stays");
        assert_eq!(of(Scope::Both).address(Role::Recipient, Place::Envelope, "x@y"), None);
        assert!(!of(Scope::Envelope).concerns_headers() && of(Scope::Header).concerns_headers());
    }

    #[test]
    fn masquerading_hides_hosts_but_moves_no_mail() {
        let rewrite = Rewrite {
            masquerade: vec!["example.org".to_owned()],
            masquerade_except: vec!["root".to_owned()],
            ..Rewrite::default()
        };
        let masked = |role, place, address| rewrite.address(role, place, address);
        let envelope = |address| masked(Role::Sender, Place::Envelope, address);
        assert_eq!(envelope("a@h.Example.org").as_deref(), Some("a@example.org"));
        assert_eq!(envelope("a@example.org"), None);
        assert_eq!(envelope("a@xexample.org"), None);
        assert_eq!(envelope("Root@h.example.org"), None);
        assert_eq!(masked(Role::Recipient, Place::Envelope, "a@h.example.org"), None);
        assert_eq!(masked(Role::Recipient, Place::Header, "a@h.example.org").as_deref(), Some("a@example.org"));
    }

    #[test]
    fn pairs_that_cannot_work_are_refused() {
        for (from, to) in [("a@b", "c@d"), ("@b", "@c"), ("*", "a@b"), ("root", "a@b"), ("@.b", "a")] {
            assert_eq!(check(from, to), None, "{from} {to}");
        }
        for (from, to) in [("", "a@b"), ("a@", "a@b"), ("a b", "c"), ("a", ""), ("a", "*"), ("a", "b@"), ("a", "@.b")] {
            assert!(check(from, to).is_some(), "{from} {to}");
        }
    }
}
