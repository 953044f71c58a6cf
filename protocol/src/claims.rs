//! Which recipients a provider serves: patterns and address types.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::message::{Address, SMTP, has_domain};

/// One explicit claim. Comparison ignores the case of ASCII letters, except in a local part that is claimed as a whole address.
///
/// | written | claims |
/// |---|---|
/// | `@example.org` | every address in that domain |
/// | `@.example.org` | every address in its subdomains |
/// | `user@example.org` | that address |
/// | `user@` | that local part in any domain, or without one |
/// | `FAX:+49` | every address of type FAX that starts with +49 |
/// | `*` | everything |
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pattern {
    /// `*`
    Any,
    /// `@example.org`, kept in lower case.
    Domain(String),
    /// `@.example.org`, kept as `.example.org` in lower case.
    Subdomains(String),
    /// `user@`
    Local(String),
    /// `user@example.org`, domain in lower case.
    Exact(String, String),
    /// `FAX:+49`
    Prefix {
        /// The address type.
        kind: String,
        /// What the address starts with; empty takes all of the type.
        prefix: String,
    },
}

/// Why a text is not a [`Pattern`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a claim; allowed are \"@domain\", \"@.parent-domain\", \"user@domain\", \"user@\", \"TYPE:prefix\" and \"*\""
)]
pub struct PatternError(pub String);

impl Pattern {
    /// Reads a claim as it is written in the configuration.
    ///
    /// # Errors
    /// If the text is none of the forms in the table above.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let bad = || PatternError(text.to_owned());
        if text.is_empty() || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(bad());
        }
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some((kind, prefix)) = text.split_once(':')
            && !kind.is_empty()
            && kind.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
        {
            return Ok(Self::Prefix { kind: kind.to_owned(), prefix: prefix.to_owned() });
        }
        let (local, domain) = text.rsplit_once('@').ok_or_else(bad)?;
        match (local.is_empty(), domain.is_empty()) {
            (true, true) => Err(bad()),
            (false, true) => Ok(Self::Local(local.to_ascii_lowercase())),
            (true, false) if domain.starts_with('.') => Ok(Self::Subdomains(domain.to_ascii_lowercase())),
            (true, false) => Ok(Self::Domain(domain.to_ascii_lowercase())),
            (false, false) => Ok(Self::Exact(local.to_owned(), domain.to_ascii_lowercase())),
        }
    }

    /// Whether this claim covers every address that the other one covers.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (one, other) if one == other => true,
            (Self::Domain(domain), Self::Exact(_, of)) => of == domain,
            (Self::Subdomains(parent), Self::Domain(domain) | Self::Exact(_, domain)) => {
                ends_with_ignore_case(domain, parent)
            }
            (Self::Subdomains(parent), Self::Subdomains(other)) => ends_with_ignore_case(other, parent),
            (Self::Local(local), Self::Exact(of, _)) => of.eq_ignore_ascii_case(local),
            (Self::Prefix { kind, prefix }, Self::Prefix { kind: of, prefix: longer }) => {
                kind == of && longer.starts_with(prefix.as_str())
            }
            (
                Self::Prefix { kind, prefix },
                Self::Domain(_) | Self::Subdomains(_) | Self::Local(_) | Self::Exact(..),
            ) => kind == SMTP && prefix.is_empty(),
            (Self::Domain(_) | Self::Subdomains(_) | Self::Local(_) | Self::Exact(..) | Self::Prefix { .. }, _) => {
                false
            }
        }
    }

    /// Whether the claim covers an address.
    #[must_use]
    pub fn matches(&self, address: &Address) -> bool {
        if let Self::Prefix { kind, prefix } = self {
            return address.kind() == kind && address.text().starts_with(prefix.as_str());
        }
        if matches!(self, Self::Any) {
            return true;
        }
        if address.kind() != SMTP {
            return false;
        }
        let (local, domain) = address.local_and_domain().unwrap_or((address.text(), ""));
        match self {
            Self::Domain(claimed) => domain.eq_ignore_ascii_case(claimed),
            Self::Subdomains(claimed) => ends_with_ignore_case(domain, claimed),
            Self::Local(claimed) => local.eq_ignore_ascii_case(claimed),
            Self::Exact(claimed_local, claimed_domain) => {
                local == claimed_local && domain.eq_ignore_ascii_case(claimed_domain)
            }
            Self::Any | Self::Prefix { .. } => true,
        }
    }
}

fn ends_with_ignore_case(text: &str, end: &str) -> bool {
    text.len() > end.len()
        && text.as_bytes().get(text.len() - end.len()..).is_some_and(|tail| tail.eq_ignore_ascii_case(end.as_bytes()))
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Domain(domain) | Self::Subdomains(domain) => write!(f, "@{domain}"),
            Self::Local(local) => write!(f, "{local}@"),
            Self::Exact(local, domain) => write!(f, "{local}@{domain}"),
            Self::Prefix { kind, prefix } => write!(f, "{kind}:{prefix}"),
        }
    }
}

/// Stands for every address type.
pub const ANY_TYPE: &str = "*";

/// Whether an address is of a type that a provider serves: `*` is any type, and an empty one is none.
#[must_use]
pub fn is_of_type(address: &Address, kind: &str) -> bool {
    kind == ANY_TYPE || (!kind.is_empty() && kind == address.kind())
}

/// Which addresses are local, so that the supervisor decides where their mail goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalAddresses {
    /// The domain of addresses without one; empty if there is none.
    pub origin: String,
    /// Domains of addresses that may be aliases; none if there are no aliases.
    pub domains: Vec<String>,
    /// The names of the aliases, in lower case and in order; `None` if they are too many to be told.
    pub aliases: Option<Vec<String>>,
}

/// Everything that is claimed by any provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Explicit claims.
    pub patterns: Vec<Pattern>,
    /// Address types.
    pub address_types: Vec<String>,
    /// Some provider has never logged on, so what it serves is not known yet: nothing can be refused for want of a provider.
    pub incomplete: bool,
    /// Which addresses are local.
    pub local: Box<LocalAddresses>,
}

impl Claims {
    /// Whether some provider may serve the address.
    #[must_use]
    pub fn may_serve(&self, address: &Address) -> bool {
        let qualified = self.qualified(address);
        let address = qualified.as_ref().unwrap_or(address);
        let may_be_alias = || {
            let (local, domain) = address.local_and_domain().unwrap_or_default();
            let is_local = self.local.domains.iter().any(|own| own.eq_ignore_ascii_case(domain));
            address.kind() == SMTP && is_local && self.local.aliases.as_ref().is_none_or(|names| is_among(names, local))
        };
        self.incomplete
            || may_be_alias()
            || self.address_types.iter().any(|kind| is_of_type(address, kind))
            || self.patterns.iter().any(|pattern| pattern.matches(address))
    }

    /// The address with the domain that it lacks.
    fn qualified(&self, address: &Address) -> Option<Address> {
        let lacks = address.kind() == SMTP && !self.local.origin.is_empty() && !has_domain(address.text());
        lacks.then(|| Address::smtp(&format!("{}@{}", address.text(), self.local.origin)).ok()).flatten()
    }
}

/// Whether a local part, or what stands before its extension, is one of the names.
fn is_among(names: &[String], local: &str) -> bool {
    let name = local.trim_matches('"').to_lowercase();
    let is_known = |name: &str| names.binary_search_by(|known| known.as_str().cmp(name)).is_ok();
    is_known(&name) || name.split_once('+').is_some_and(|(user, _)| is_known(user))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(pattern: &str, address: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(&address.parse().unwrap())
    }

    #[test]
    fn each_form_claims_what_its_row_says() {
        assert!(claims("@Example.org", "a@example.ORG"));
        assert!(claims("@example.org", "a@example.org."));
        assert!(!claims("@example.org", "a@sub.example.org"));
        assert!(claims("@.example.org", "a@sub.example.org"));
        assert!(!claims("@.example.org", "a@example.org"));
        assert!(!claims("@.example.org", "a@xexample.org"));
        assert!(claims("root@", "root") && claims("root@", "ROOT@anywhere"));
        assert!(claims("a@b", "a@B") && !claims("a@b", "A@b"));
        assert!(claims("FAX:+49", "FAX:+4930") && !claims("FAX:+49", "FAX:+1"));
        assert!(claims("*", "FAX:1") && claims("*", "a@b"));
    }

    #[test]
    fn addresses_without_domain_are_those_of_the_origin() {
        let claims = Claims {
            patterns: vec![Pattern::parse("@here.test").unwrap()],
            local: Box::new(LocalAddresses { origin: "here.test".to_owned(), ..LocalAddresses::default() }),
            ..Claims::default()
        };
        let serves = |claims: &Claims, address: &str| claims.may_serve(&Address::smtp(address).unwrap());
        assert!(
            serves(&claims, "postmaster") && !serves(&Claims { local: Box::default(), ..claims.clone() }, "postmaster")
        );
    }

    #[test]
    fn what_may_be_an_alias_is_not_refused() {
        let local = LocalAddresses { domains: vec!["here.test".to_owned()], ..LocalAddresses::default() };
        let claims = Claims { local: Box::new(local.clone()), ..Claims::default() };
        let serves = |address: &str| claims.may_serve(&address.parse().unwrap());
        assert!(serves("root@Here.test") && !serves("root@there.test") && !serves("FAX:1@here.test"));
        let aliases = Some(vec!["ann".to_owned(), "root".to_owned()]);
        let claims = Claims { local: Box::new(LocalAddresses { aliases, ..local }), ..claims.clone() };
        let serves = |address: &str| claims.may_serve(&address.parse().unwrap());
        assert!(serves("Root@here.test") && serves("ann+x@here.test") && !serves("bob@here.test"));
    }

    #[test]
    fn what_is_no_claim_says_what_is() {
        for text in ["", "@", "example.org", "a b@c", "a\r@b"] {
            assert!(Pattern::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_pattern_prints_as_it_is_written() {
        for text in ["@b.c", "@.b.c", "u@", "u@b", "FAX:+1", "*"] {
            assert_eq!(Pattern::parse(text).unwrap().to_string(), text);
        }
    }
}
