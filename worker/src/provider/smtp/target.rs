//! Which hosts serve a destination, by configuration or by DNS (RFC 5321 5.1), in the order in which they are tried.
//!
//! ```text
//!   host = […] ───────────────────────────────▶ these, as configured
//!   user@[192.0.2.1] ─────────────────────────▶ that address
//!   user@domain ─ MX ─┬─ records ─────────────▶ by preference, equals shuffled
//!                     ├─ "." ─────────────────▶ takes no mail: 5.1.10, for good (RFC 7505)
//!                     ├─ none ────────────────▶ the domain itself
//!                     ├─ no such domain ──────▶ 5.1.2, for good
//!                     └─ no answer ───────────▶ later
//! ```
//!
//! A mail exchanger that is this machine is not recognised.

use std::cell::OnceCell;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use spooler_protocol::outcome::Reply;
use spooler_protocol::plain::plain;

/// Where a machine names its name servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// A name or address, and perhaps a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    /// As it was written; it is also what a certificate has to be for.
    pub(super) name: String,
    /// If it differs from the provider's.
    pub(super) port: Option<u16>,
}

impl Host {
    /// Name and port, as for a person.
    pub(super) fn with_port(&self, default: u16) -> String {
        let port = self.port.unwrap_or(default);
        if self.name.contains(':') { format!("[{}]:{port}", self.name) } else { format!("{}:{port}", self.name) }
    }
}

/// Why a text is not a [`Host`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("give a name or an address, with \":port\" behind it if need be, and an IPv6 address in square brackets")]
pub(super) struct HostError;

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self { name: address.to_string(), port: None });
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { name: address.ip().to_string(), port: Some(address.port()) });
        }
        if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let address: IpAddr = inner.parse().map_err(|_| HostError)?;
            return Ok(Self { name: address.to_string(), port: None });
        }
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (name, Some(port.parse().map_err(|_| HostError)?)),
            None => (text, None),
        };
        let fits = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_');
        if name.is_empty() || !name.chars().all(fits) {
            return Err(HostError);
        }
        Ok(Self { name: name.to_owned(), port })
    }
}

/// Why a destination has no hosts.
#[derive(Clone, Debug)]
pub(super) enum NoRoute {
    /// There never will be.
    Permanent(Reply),
    /// It could not be found out.
    Temporary(Reply),
}

/// Finds hosts by DNS. Reads the machine's configuration when it is first asked.
pub(super) struct Dns {
    server: Option<SocketAddr>,
    asked: OnceCell<Asked>,
}

/// The name servers that are asked.
struct Asked {
    resolver: TokioResolver,
    /// Who they are and where that is set, for a person.
    shown: String,
}

impl Dns {
    /// Asks this server, or those that the machine is set to.
    pub(super) fn new(server: Option<SocketAddr>) -> Self {
        Self { server, asked: OnceCell::new() }
    }

    fn asked(&self) -> Result<&Asked, String> {
        if let Some(asked) = self.asked.get() {
            return Ok(asked);
        }
        let (config, options, source) = match self.server {
            None => {
                let (config, options) =
                    read_system_conf().map_err(|error| format!("{RESOLV_CONF} cannot be read: {}", plain(error)))?;
                (config, options, RESOLV_CONF)
            }
            Some(server) => {
                let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
                for connection in &mut connections {
                    connection.port = server.port();
                }
                let server = NameServerConfig::new(server.ip(), true, connections);
                let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
                (config, ResolverOpts::default(), "dns_server")
            }
        };
        let mut servers: Vec<String> = config.name_servers().iter().map(|server| server.ip.to_string()).collect();
        servers.dedup();
        let shown = match servers.as_slice() {
            [] => return Err(format!("{source} names no name server")),
            [one] => format!("the name server {one} ({source})"),
            several => format!("the name servers {} ({source})", several.join(" and ")),
        };
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let resolver = builder.build().map_err(plain)?;
        Ok(self.asked.get_or_init(|| Asked { resolver, shown }))
    }

    /// The hosts for a recipient's domain.
    pub(super) async fn exchangers(&self, domain: &str) -> Result<Vec<Host>, NoRoute> {
        if domain.is_empty() {
            let reply = Reply::local(550, "5.1.3", "The address has no domain, and this provider delivers by domain");
            return Err(NoRoute::Permanent(reply));
        }
        if let Some(literal) = domain.strip_prefix('[') {
            return literal_address(literal).map(|address| vec![Host { name: address.to_string(), port: None }]);
        }
        let query = format!("{domain}.");
        let asked = self.asked().map_err(|why| unknown("mail exchangers", domain, &why))?;
        let mut ranked = match asked.resolver.mx_lookup(query.as_str()).await {
            Ok(lookup) => exchanges(lookup.answers()),
            Err(error) if error.is_nx_domain() => {
                let text = format!("There is no domain {domain}");
                return Err(NoRoute::Permanent(Reply::local(550, "5.1.2", text)));
            }
            Err(error) if error.is_no_records_found() => Vec::new(),
            Err(error) => return Err(unanswered("mail exchangers", domain, asked, &error)),
        };
        if let [(_, only)] = ranked.as_slice()
            && only.is_empty()
        {
            let text = format!("The domain {domain} takes no mail (null MX)");
            return Err(NoRoute::Permanent(Reply::local(556, "5.1.10", text)));
        }
        if ranked.is_empty() {
            ranked.push((0, domain.to_owned()));
        }
        fastrand::shuffle(&mut ranked);
        ranked.sort_by_key(|(preference, _)| *preference);
        let hosts = ranked.into_iter().filter(|(_, name)| !name.is_empty());
        Ok(hosts.map(|(_, name)| Host { name, port: None }).collect())
    }

    /// The addresses of a host, IPv4 first.
    pub(super) async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, NoRoute> {
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        let asked = self.asked().map_err(|why| unknown("addresses", name, &why))?;
        let resolver = &asked.resolver;
        let (v4, v6) = tokio::join!(resolver.ipv4_lookup(name), resolver.ipv6_lookup(name));
        let mut addresses = Vec::new();
        let mut failed = None;
        for found in [v4, v6] {
            match found {
                Ok(lookup) => addresses.extend(lookup.answers().iter().filter_map(|record| record.data.ip_addr())),
                Err(error) if error.is_no_records_found() => {}
                Err(error) => failed = Some(error),
            }
        }
        match (addresses.is_empty(), failed) {
            (false, _) => Ok(addresses),
            (true, Some(error)) => Err(unanswered("addresses", name, asked, &error)),
            (true, None) => {
                let text = format!("The host {name} has no address");
                Err(NoRoute::Permanent(Reply::local(550, "5.4.4", text)))
            }
        }
    }
}

fn exchanges(answers: &[hickory_resolver::proto::rr::Record]) -> Vec<(u16, String)> {
    let mx = answers.iter().filter(|record| record.record_type() == RecordType::MX);
    mx.filter_map(|record| match &record.data {
        RData::MX(mx) => Some((mx.preference, mx.exchange.to_ascii().trim_end_matches('.').to_owned())),
        _ => None,
    })
    .collect()
}

fn unanswered(what: &str, name: &str, asked: &Asked, error: &NetError) -> NoRoute {
    let servers = &asked.shown;
    let why = match error {
        NetError::Timeout | NetError::NoConnections | NetError::Busy => format!("no answer from {servers}"),
        NetError::Io(error) => format!("no answer from {servers}: {}", plain(error)),
        NetError::Dns(DnsError::ResponseCode(code)) => format!("{servers} answered: {code}"),
        other => format!("{servers}: {}", plain(other)),
    };
    unknown(what, name, &why)
}

fn unknown(what: &str, name: &str, why: &str) -> NoRoute {
    NoRoute::Temporary(Reply::local(451, "4.4.3", format!("Cannot find the {what} of {name}: {why}")))
}

/// `192.0.2.1]` or `IPv6:2001:db8::1]` (RFC 5321 4.1.3).
fn literal_address(rest: &str) -> Result<IpAddr, NoRoute> {
    let inner = rest.strip_suffix(']').unwrap_or(rest);
    let v6 = inner.get(..5).filter(|tag| tag.eq_ignore_ascii_case("IPv6:")).and_then(|_| inner.get(5..));
    let address = match v6 {
        Some(v6) => v6.parse::<Ipv6Addr>().map(IpAddr::V6).ok(),
        None => inner.parse().ok().filter(IpAddr::is_ipv4),
    };
    address.filter(|_| rest.ends_with(']')).ok_or_else(|| {
        let text = format!("[{rest} is not an address literal");
        NoRoute::Permanent(Reply::local(550, "5.1.2", text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Option<(String, Option<u16>)> {
        text.parse().ok().map(|host: Host| (host.name, host.port))
    }

    #[test]
    fn hosts_are_read_with_and_without_ports() {
        let some = |name: &str, port| Some((name.to_owned(), port));
        assert_eq!(host("mx.example"), some("mx.example", None));
        assert_eq!(host("mx.example:2525"), some("mx.example", Some(2525)));
        assert_eq!(host("127.0.0.1:26"), some("127.0.0.1", Some(26)));
        assert_eq!(host("::1"), some("::1", None));
        assert_eq!(host("[::1]"), some("::1", None));
        assert_eq!(host("[::1]:26"), some("::1", Some(26)));
        for bad in ["", ":25", "a:b", "a:70000", "a b", "[::1", "[x]", "a/b"] {
            assert_eq!(host(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn address_literals_are_read() {
        assert_eq!(literal_address("192.0.2.1]").unwrap(), "192.0.2.1".parse::<IpAddr>().unwrap());
        assert_eq!(literal_address("IPv6:2001:db8::1]").unwrap(), "2001:db8::1".parse::<IpAddr>().unwrap());
        for bad in ["192.0.2.1", "2001:db8::1]", "IPv6:192.0.2.1]", "x]", "]"] {
            assert!(matches!(literal_address(bad), Err(NoRoute::Permanent(_))), "{bad:?}");
        }
    }
}
