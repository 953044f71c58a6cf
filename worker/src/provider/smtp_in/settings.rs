//! The settings of an `smtp-in` provider, read and checked. Opens nothing: that is done at logon.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use spooler_protocol::limits::RECIPIENTS_MAX;
use spooler_protocol::settings::{Referent, Settings as Reader};

use super::auth::Users;
use super::networks::Network;
use super::path::is_domain;
use crate::sandbox::{Needs, Ports, Privilege};

/// What the table of the configuration says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `listen`: IP addresses with ports (default `127.0.0.1:2525`); port 0 takes any free one.
    pub(super) listen: Vec<SocketAddr>,
    /// `hostname`: what the server calls itself; `None`, the default, for this machine's name in mail.
    pub(super) hostname: Option<String>,
    /// `max_message_size`, bytes, without the trace header; `None`, the default, for what the spooler takes, which is also the most.
    pub(super) message_bytes_max: Option<u64>,
    /// `max_recipients` of one message (default 1000, which is also the most).
    pub(super) recipients_max: usize,
    /// `max_connections` at once (default 200); the next is told 421.
    pub(super) connections_max: u32,
    /// `max_connections_per_host` (default 100): from one IPv4 address, or one IPv6 network of 64 bits; the next is told 421.
    pub(super) per_host_max: u32,
    /// `max_errors` of one connection (default 20); the next is told 421 and the connection is closed.
    pub(super) errors_max: u32,
    /// `timeout`: how long a client may say nothing, and how long a command may take from its first byte to its last (default 5
    /// minutes).
    pub(super) timeout: Duration,
    /// `min_rate`: bytes a second (default 500). Content has `timeout`, and a second more for so many bytes; 0: no limit.
    pub(super) rate_min: u64,
    /// `relay_from`: networks that may submit without a password (default: this machine).
    pub(super) relay_from: Vec<Network>,
    /// `tls_certificate` and `tls_key`: PEM files (default none: STARTTLS is not offered).
    pub(super) tls: Option<(PathBuf, PathBuf)>,
    /// `users`: a table of names with passwords (default empty: AUTH is not offered).
    pub(super) users: Users,
    /// `require_auth`: nobody submits without a password (default false).
    pub(super) auth_required: bool,
    /// `submission`: its messages are completed (RFC 6409 8; default true). False for mail that other servers pass on: it stays as it is.
    pub(super) submission: bool,
}

impl Settings {
    /// Where it listens, its certificate, and a descriptor for each connection.
    pub(super) fn needs(&self) -> Needs {
        let ports: Vec<u16> = self.listen.iter().map(SocketAddr::port).collect();
        // Whatever port is free at first is listened on by its number later.
        let listen = if ports.contains(&0) { Ports::Any } else { Ports::Only(ports.clone()) };
        let low = ports.iter().any(|port| (1..1024).contains(port));
        let files = self.tls.iter().flat_map(|(certificate, key)| [certificate.clone(), key.clone()]);
        let default = Needs::default();
        Needs {
            files: files.collect(),
            listen,
            privileges: if low { vec![Privilege::LowPorts] } else { Vec::new() },
            descriptors_max: default.descriptors_max.max(u64::from(self.connections_max) + SPARE_DESCRIPTORS),
            ..default
        }
    }
}

/// Descriptors beside those of connections.
const SPARE_DESCRIPTORS: u64 = 256;
const TIMEOUT_MIN: Duration = Duration::from_secs(1);
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// Reads the table.
pub(super) fn read(reader: &mut Reader) -> Settings {
    let recipients_most = u32::try_from(RECIPIENTS_MAX).unwrap_or(u32::MAX);
    let recipients = reader.integer("max_recipients", recipients_most, 1..=recipients_most);
    let settings = Settings {
        listen: listen(reader),
        hostname: hostname(reader),
        message_bytes_max: message_bytes_max(reader),
        recipients_max: usize::try_from(recipients).unwrap_or(RECIPIENTS_MAX),
        connections_max: reader.integer("max_connections", 200, 1..=10_000),
        per_host_max: reader.integer("max_connections_per_host", 100, 1..=10_000),
        errors_max: reader.integer("max_errors", 20, 1..=1_000_000),
        timeout: reader.duration("timeout", "5m", TIMEOUT_MIN..=TIMEOUT_MAX),
        rate_min: reader.size("min_rate", "500"),
        relay_from: relay_from(reader),
        tls: tls(reader),
        users: Users::new(reader.secret_map("users")),
        auth_required: reader.boolean("require_auth", false),
        submission: reader.boolean("submission", true),
    };
    if !settings.users.is_empty() && settings.tls.is_none() {
        reader.mistake("users", "need TLS, as passwords do not travel in the clear; give tls_certificate and tls_key");
    }
    let reachable = settings.listen.iter().any(|address| !address.ip().is_loopback());
    if reachable && !settings.auth_required {
        let open = settings.relay_from.iter().filter(|network| network.is_open());
        open.for_each(|network| reader.refer("relay_from", Referent::OpenRelay(network.to_string())));
    }
    if settings.auth_required && settings.users.is_empty() {
        reader.mistake("require_auth", "lets nobody in without users; give users");
    }
    settings
}

fn listen(reader: &mut Reader) -> Vec<SocketAddr> {
    let texts = reader.strings("listen", &["127.0.0.1:2525"]);
    if texts.is_empty() {
        reader.mistake("listen", "is empty; give at least one address with a port, such as \"127.0.0.1:2525\"");
    }
    let mut addresses = Vec::new();
    for text in texts {
        match text.parse() {
            Ok(address) => {
                reader.refer("listen", Referent::Listener(address));
                addresses.push(address);
            }
            Err(_) => reader.mistake(
                "listen",
                format!("holds {text:?}; write an IP address and a port, such as \"127.0.0.1:2525\" or \"[::1]:2525\""),
            ),
        }
    }
    addresses
}

fn hostname(reader: &mut Reader) -> Option<String> {
    let name = reader.optional_string("hostname")?;
    if !name.is_ascii() || !is_domain(&name) {
        reader.mistake("hostname", format!("is {name:?}; write a domain name, such as \"mail.example.org\""));
    }
    Some(name)
}

fn message_bytes_max(reader: &mut Reader) -> Option<u64> {
    if !reader.has("max_message_size") {
        reader.ignore("max_message_size");
        return None;
    }
    let bytes = reader.size("max_message_size", "25M");
    if bytes == 0 {
        reader.mistake("max_message_size", "is 0; leave it out for what the spooler takes");
    }
    Some(bytes)
}

fn relay_from(reader: &mut Reader) -> Vec<Network> {
    let mut networks = Vec::new();
    for text in reader.strings("relay_from", &["127.0.0.0/8", "::1/128"]) {
        match Network::parse(&text) {
            Some(network) => networks.push(network),
            None => reader.mistake(
                "relay_from",
                format!("holds {text:?}; write a network such as \"192.0.2.0/24\", with zeros behind the prefix"),
            ),
        }
    }
    networks
}

fn tls(reader: &mut Reader) -> Option<(PathBuf, PathBuf)> {
    match (reader.optional_string("tls_certificate"), reader.optional_string("tls_key")) {
        (Some(certificate), Some(key)) => {
            let (certificate, key) = (PathBuf::from(certificate), PathBuf::from(key));
            reader.refer("tls_certificate", Referent::File(certificate.clone()));
            reader.refer("tls_key", Referent::Secret(key.clone()));
            Some((certificate, key))
        }
        (None, None) => None,
        (Some(_), None) => {
            reader.mistake("tls_key", "is missing; tls_certificate needs its key");
            None
        }
        (None, Some(_)) => {
            reader.mistake("tls_certificate", "is missing; tls_key is of no use alone");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> (Settings, Vec<String>, String) {
        let mut reader = Reader::new(text.parse().unwrap());
        let settings = read(&mut reader);
        let findings = reader.finish();
        let mistakes = findings.mistakes.into_iter().map(|mistake| mistake.key).collect();
        (settings, mistakes, format!("{:?}", findings.effective))
    }

    #[test]
    fn the_defaults_serve_this_machine_only() {
        let (settings, mistakes, _) = read_text("");
        assert!(mistakes.is_empty());
        assert_eq!(settings.listen, ["127.0.0.1:2525".parse().unwrap()]);
        assert_eq!((settings.recipients_max, settings.connections_max, settings.errors_max), (1000, 200, 20));
        assert_eq!(settings.timeout, Duration::from_secs(300));
        assert!(settings.relay_from.iter().all(|network| !network.contains("192.0.2.1".parse().unwrap())));
        assert!(settings.tls.is_none() && settings.users.is_empty() && !settings.auth_required);
    }

    #[test]
    fn every_mistake_is_named() {
        let text = "listen = ['localhost:25']\nhostname = 'a b'\nrelay_from = '10.0.0.1/8'\ntls_key = 'k'\n\
                    users = { a = 'b' }\nmax_recipients = 5000\nmax_message_size = 0\nlisten_on = 1";
        let (_, mut mistakes, _) = read_text(text);
        mistakes.sort();
        let expected = [
            "hostname",
            "listen",
            "listen_on",
            "max_message_size",
            "max_recipients",
            "relay_from",
            "tls_certificate",
            "users",
        ];
        assert_eq!(mistakes, expected);
        assert_eq!(read_text("require_auth = true").1, ["require_auth"]);
    }

    #[test]
    fn passwords_do_not_show() {
        let (settings, mistakes, effective) =
            read_text("tls_certificate = 'c'\ntls_key = 'k'\nusers = { ann = 'sesame' }");
        assert!(mistakes.is_empty());
        assert!(!effective.contains("sesame") && effective.contains("users.ann"));
        assert!(!format!("{settings:?}").contains("sesame"));
    }
}
