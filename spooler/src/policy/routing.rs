//! Which provider serves a recipient: explicit claims first, then address types, both in transport order.

use std::hash::{DefaultHasher, Hash, Hasher};

use spooler_protocol::claims::{Claims, Pattern, is_of_type};
use spooler_protocol::message::Address;

use crate::policy::ProviderId;

/// One destination of a provider. Two that share a number by accident share their limits, nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination(pub u64);

/// Where a recipient goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Who serves it.
    pub provider: ProviderId,
    /// Which of the provider's destinations it is.
    pub destination: Destination,
}

/// What is known about a recipient's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routed {
    /// It goes there.
    To(Route),
    /// A provider that has not said yet what it serves may serve it: one whose turn it is, or one that does not get to say it while
    /// nobody else serves the recipient.
    Unknown,
    /// Nobody serves it.
    Nobody,
}

/// What one provider serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Which provider.
    pub provider: ProviderId,
    /// Its explicit claims.
    pub patterns: Vec<Pattern>,
    /// Its address types; `None` as long as neither the configuration nor the provider has said.
    pub address_types: Option<Vec<String>>,
    /// Whether it is expected to say so in a moment: then its turn is kept for it.
    pub awaited: bool,
    /// Whether each domain is a destination of its own.
    pub by_domain: bool,
}

impl Served {
    fn route(&self, address: &Address) -> Routed {
        let destination = match address.local_and_domain() {
            Some((_, domain)) if self.by_domain => {
                let mut hasher = DefaultHasher::new();
                domain.to_ascii_lowercase().hash(&mut hasher);
                Destination(hasher.finish())
            }
            _ => Destination::default(),
        };
        Routed::To(Route { provider: self.provider, destination })
    }
}

/// Everything that is served, in transport order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routing {
    /// In transport order.
    pub served: Vec<Served>,
}

impl Routing {
    /// Where an address goes, past the providers that have said that it is not for them.
    #[must_use]
    pub fn route(&self, address: &Address, not_me: &[ProviderId]) -> Routed {
        let willing = || self.served.iter().filter(|served| !not_me.contains(&served.provider));
        if let Some(served) = willing().find(|served| served.patterns.iter().any(|pattern| pattern.matches(address))) {
            return served.route(address);
        }
        let mut otherwise = Routed::Nobody;
        for served in willing() {
            match &served.address_types {
                None if served.awaited => return Routed::Unknown,
                None => otherwise = Routed::Unknown,
                Some(types) if types.iter().any(|kind| is_of_type(address, kind)) => return served.route(address),
                Some(_) => {}
            }
        }
        otherwise
    }

    /// True if all that is served is known: then no address is [`Routed::Unknown`].
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.served.iter().all(|served| served.address_types.is_some())
    }

    /// What a listening provider needs to refuse the rest.
    #[must_use]
    pub fn claims(&self) -> Claims {
        let mut claims = Claims::default();
        for served in &self.served {
            claims.patterns.extend(served.patterns.iter().cloned());
            match &served.address_types {
                None => claims.incomplete = true,
                Some(types) => claims.address_types.extend(types.iter().cloned()),
            }
        }
        claims.address_types.sort();
        claims.address_types.dedup();
        claims
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(provider: u32, patterns: &[&str], types: Option<&[&str]>) -> Served {
        Served {
            provider: ProviderId(provider),
            patterns: patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect(),
            address_types: types.map(|types| types.iter().map(|&kind| kind.to_owned()).collect()),
            awaited: types.is_none(),
            by_domain: false,
        }
    }

    fn to(routed: Routed) -> Option<u32> {
        match routed {
            Routed::To(route) => Some(route.provider.0),
            Routed::Unknown | Routed::Nobody => None,
        }
    }

    #[test]
    fn claims_beat_types_and_order_decides() {
        let routing = Routing {
            served: vec![
                served(1, &[], Some(&["SMTP"])),
                served(2, &["@x"], Some(&[])),
                served(3, &["@x"], Some(&["FAX"])),
            ],
        };
        let route = |address: &str, not_me: &[ProviderId]| to(routing.route(&address.parse().unwrap(), not_me));
        assert_eq!(route("a@x", &[]), Some(2));
        assert_eq!(route("a@x", &[ProviderId(2)]), Some(3));
        assert_eq!(route("a@y", &[]), Some(1));
        assert_eq!(route("FAX:1", &[]), Some(3));
        assert_eq!(routing.route(&"NEWS:x".parse().unwrap(), &[]), Routed::Nobody);
    }

    #[test]
    fn any_type_is_a_type_and_no_type_is_none() {
        let routing = Routing {
            served: vec![served(1, &[], Some(&[""])), served(2, &["@x"], Some(&[""])), served(3, &[], Some(&["*"]))],
        };
        let route = |address: &str| to(routing.route(&address.parse().unwrap(), &[]));
        assert_eq!([route("FAX:1"), route("a@y"), route("a@x")], [Some(3), Some(3), Some(2)]);
        assert!(routing.claims().may_serve(&"NEWS:x".parse().unwrap()), "listeners hear of it");
    }

    #[test]
    fn who_has_not_spoken_yet_is_waited_for() {
        let routing = Routing { served: vec![served(1, &["@x"], Some(&[])), served(2, &[], None)] };
        assert_eq!(routing.route(&"a@y".parse().unwrap(), &[]), Routed::Unknown);
        assert!(routing.claims().incomplete);
    }

    #[test]
    fn who_does_not_get_to_speak_does_not_stand_in_the_way() {
        let silent = Served { awaited: false, ..served(1, &["@x"], None) };
        let routing = Routing { served: vec![silent, served(2, &[], Some(&["SMTP"]))] };
        let route = |address: &str| routing.route(&address.parse().unwrap(), &[]);
        assert_eq!((to(route("a@x")), to(route("a@y"))), (Some(1), Some(2)));
        assert_eq!(route("FAX:1"), Routed::Unknown, "nobody knows better");
        assert!(routing.claims().incomplete);
    }

    #[test]
    fn domains_are_destinations_whatever_their_case() {
        let mut by_domain = served(1, &["*"], Some(&[]));
        by_domain.by_domain = true;
        let routing = Routing { served: vec![by_domain] };
        let route = |address: &str| routing.route(&address.parse().unwrap(), &[]);
        assert_eq!(route("a@X.org"), route("b@x.ORG"));
        assert_ne!(route("a@x.org"), route("a@y.org"));
    }
}
