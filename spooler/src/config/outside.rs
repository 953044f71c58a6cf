//! Files, programs, addresses and host names that the settings of providers refer to. All of it may change
//! without the configuration, so what is wrong is warned of and refused nowhere.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use spooler_protocol::settings::{Reference, Referent};

use super::Config;
use super::notes::Notes;
use crate::system::reach;

/// Warns of what a provider refers to and cannot use. `place` is its table.
pub(super) fn check(place: &str, references: &[Reference], notes: &mut Notes) {
    for Reference { key, to } in references {
        let key = format!("{place}.{key}");
        let trouble = match to {
            Referent::File(path) => reach::why_not_readable(path),
            Referent::Secret(path) => reach::why_not_readable(path).or_else(|| open_secret(path)),
            Referent::Program(path) => reach::why_not_executable(path),
            Referent::HostName(name) => dotless(name),
            Referent::OpenRelay(network) => Some(format!(
                "{network} lets everybody in it send mail to anywhere, and this provider listens for other machines: an open relay \
                 is found within hours. Name your own networks, or set require_auth = true"
            )),
            Referent::Listener(_) => None,
        };
        if let Some(trouble) = trouble {
            notes.warn(&key, format!("{key}: {trouble}"));
        }
    }
}

fn open_secret(path: &Path) -> Option<String> {
    let found = fs::metadata(path).ok()?;
    Some(format!("{} {}", path.display(), reach::who_else_reads(path, &found)?))
}

/// Why other servers do not like a host name.
fn dotless(name: &str) -> Option<String> {
    let is_literal = name.starts_with('[');
    (!name.contains('.') && !is_literal).then(|| {
        format!(
            "{name:?} has no dot, so it is no full host name; many servers refuse mail from it. Give one such as \"{name}.example.org\""
        )
    })
}

/// Warns of a host name, given or found, that is not a full one.
pub(super) fn check_host_name(config: &Config, notes: &mut Notes) {
    for (key, name) in [("mail.hostname", &config.hostname), ("mail.origin", &config.addressing.origin)] {
        let trouble = dotless(name).filter(|_| key == "mail.hostname" || *name != config.hostname);
        if let Some(trouble) = trouble {
            notes.warn(key, format!("{key}: {trouble}"));
        }
    }
    let origin = &config.addressing.origin;
    if let Some(trouble) = dotless(origin).filter(|_| *origin != config.hostname) {
        notes.warn("mail.origin", format!("mail.origin: {trouble}"));
    }
}

/// Warns of addresses that two listeners want. `listeners`: the tables of enabled providers, with what they listen on.
pub(super) fn check_listeners(listeners: &[(String, SocketAddr)], notes: &mut Notes) {
    let mut taken: HashMap<u16, Vec<(&str, SocketAddr)>> = HashMap::new();
    for (place, address) in listeners.iter().filter(|(_, address)| address.port() != 0) {
        let others = taken.entry(address.port()).or_default();
        if let Some((other, first)) = others.iter().find(|(_, other)| overlap(*other, *address)) {
            let key = format!("{place}.listen");
            notes.warn(
                &key,
                format!("{key} has {address}, but {other} listens on {first} already; only one of them can start"),
            );
        }
        others.push((place, *address));
    }
}

/// True if two addresses with the same port cannot be listened on at once. `[::]` does not take IPv4 here.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.is_ipv4() == other.is_ipv4() && (any || one.ip() == other.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_overlap_by_family_and_address() {
        let overlaps = |one: &str, other: &str| overlap(one.parse().unwrap(), other.parse().unwrap());
        assert!(overlaps("127.0.0.1:25", "127.0.0.1:25") && overlaps("0.0.0.0:25", "192.0.2.1:25"));
        assert!(overlaps("[::]:25", "[::1]:25") && overlaps("[::]:25", "[::]:25"));
        assert!(!overlaps("[::]:25", "0.0.0.0:25") && !overlaps("127.0.0.1:25", "127.0.0.2:25"));
    }

    #[test]
    fn full_host_names_have_dots() {
        assert!(dotless("vm").unwrap().contains("\"vm.example.org\""));
        assert_eq!((dotless("vm.example.org"), dotless("[192.0.2.1]")), (None, None));
    }
}
