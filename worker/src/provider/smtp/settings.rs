//! The settings of an `smtp` provider. The table in [`super`] is their documentation.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use spooler_protocol::settings::{Referent, Settings};

use super::auth::Mechanism;
use super::target::Host;
use crate::sandbox::{Needs, Ports};

const HOUR: Duration = Duration::from_secs(3600);

/// Where messages go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Always to these, in this order.
    Hosts(Vec<Host>),
    /// To the mail exchangers of the recipient's domain.
    Mx,
    /// To a Unix socket.
    Socket(PathBuf),
}

/// Which protocol is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// RFC 5321.
    Smtp,
    /// RFC 2033.
    Lmtp,
}

/// How the connection is secured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tls {
    /// Never.
    None,
    /// By STARTTLS where it is offered; without it where it is not, or fails.
    Opportunistic,
    /// By STARTTLS, or not at all.
    Required,
    /// From the first byte.
    Implicit,
}

/// Who to log in as.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) username: String,
    pub(super) password: Password,
}

/// Where the password is.
#[derive(Clone)]
pub(super) enum Password {
    Here(String),
    File(PathBuf),
    /// Nowhere: a person is asked at logon.
    Asked,
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    /// For a connection, TLS included.
    pub(super) connect: Duration,
    /// For the greeting.
    pub(super) greeting: Duration,
    /// For the reply to a command.
    pub(super) command: Duration,
    /// For a piece of the message to go out, and for the reply at its end.
    pub(super) data: Duration,
}

/// Everything that is set.
pub struct SmtpSettings {
    pub(super) route: Route,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
    pub(super) tls: Tls,
    pub(super) tls_ca_file: Option<PathBuf>,
    pub(super) tls_verify: bool,
    pub(super) tls_server_name: Option<String>,
    pub(super) credentials: Option<Credentials>,
    pub(super) auth_without_tls: bool,
    pub(super) auth: Vec<Mechanism>,
    pub(super) hostname: Option<String>,
    pub(super) connections: u32,
    pub(super) destination_concurrency: u32,
    pub(super) destination_rate: Duration,
    pub(super) timeouts: Timeouts,
    pub(super) connection_idle: Duration,
    pub(super) messages_per_connection: u32,
    pub(super) chunking: bool,
    pub(super) source_address: Option<IpAddr>,
    pub(super) dns_server: Option<SocketAddr>,
}

impl SmtpSettings {
    /// Reads the table.
    pub(super) fn read(settings: &mut Settings) -> Self {
        let protocols = [("smtp", Protocol::Smtp), ("lmtp", Protocol::Lmtp)];
        let protocol = settings.choice("protocol", "smtp", &protocols).unwrap_or(Protocol::Smtp);
        let route = route(settings, protocol);
        let credentials = credentials(settings);
        let auth_without_tls = settings.boolean("auth_without_tls", false);
        let tls = tls(settings, &route, credentials.is_some() && !auth_without_tls);
        let port = match (protocol, tls) {
            (Protocol::Lmtp, _) => 24,
            (Protocol::Smtp, Tls::Implicit) => 465,
            (Protocol::Smtp, Tls::None | Tls::Opportunistic | Tls::Required) => 25,
        };
        Self {
            port: port_number(settings.integer("port", port, 1..=65535)),
            protocol,
            tls,
            tls_ca_file: ca_file(settings),
            tls_verify: tls_verify(settings, tls),
            tls_server_name: settings.optional_string("tls_server_name"),
            credentials,
            auth_without_tls,
            auth: mechanisms(settings),
            hostname: hostname(settings),
            connections: settings.integer("connections", 20, 1..=1000),
            destination_concurrency: settings.integer("destination_concurrency", 20, 0..=1000),
            destination_rate: settings.duration("destination_rate", "0s", Duration::ZERO..=24 * HOUR),
            timeouts: timeouts(settings),
            connection_idle: settings.duration("connection_idle", "5s", Duration::ZERO..=HOUR),
            messages_per_connection: settings.integer("messages_per_connection", 100, 1..=1_000_000),
            chunking: settings.boolean("chunking", false),
            source_address: parsed(settings, "source_address", "an IP address"),
            dns_server: parsed(settings, "dns_server", "an IP address and a port, such as \"127.0.0.1:53\""),
            route,
        }
    }
}

impl SmtpSettings {
    /// Where it connects to, and the files with secrets.
    pub(super) fn needs(&self) -> Needs {
        let connect = match &self.route {
            Route::Socket(_) => Ports::None,
            Route::Mx => Ports::Only(self.with_dns(vec![self.port])),
            Route::Hosts(hosts) => {
                Ports::Only(self.with_dns(hosts.iter().map(|host| host.port.unwrap_or(self.port)).collect()))
            }
        };
        let password_file = match self.credentials.as_ref().map(|credentials| &credentials.password) {
            Some(Password::File(path)) => Some(path.clone()),
            Some(Password::Here(_) | Password::Asked) | None => None,
        };
        Needs {
            files: self.tls_ca_file.iter().cloned().chain(password_file).collect(),
            connect,
            // An address to connect from is bound with a port that the kernel chooses.
            listen: if self.source_address.is_some() { Ports::Only(vec![0]) } else { Ports::None },
            unix_sockets: matches!(self.route, Route::Socket(_)),
            ..Needs::default()
        }
    }

    fn with_dns(&self, mut ports: Vec<u16>) -> Vec<u16> {
        ports.extend(self.dns_server.map(|server| server.port()));
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}

fn route(settings: &mut Settings, protocol: Protocol) -> Route {
    let named = settings.has("host");
    let hosts = if named {
        settings.strings("host", &[])
    } else {
        // Not in effect as an empty list, which nobody may write.
        settings.ignore("host");
        Vec::new()
    };
    if let Some(socket) = settings.optional_string("socket") {
        if named {
            settings.mistake("socket", "cannot stand beside host; remove one of them");
        }
        if protocol == Protocol::Smtp {
            settings.mistake("socket", "needs protocol = \"lmtp\"");
        }
        return Route::Socket(PathBuf::from(socket));
    }
    if !named {
        if protocol == Protocol::Lmtp {
            settings.mistake("host", "is missing; LMTP needs a host or a socket");
        }
        return Route::Mx;
    }
    if hosts.is_empty() {
        settings.mistake("host", "is empty; name a host, or leave it out to deliver by MX");
    }
    let mut parsed = Vec::new();
    for host in hosts {
        match host.parse() {
            Ok(host) => parsed.push(host),
            Err(error) => settings.mistake("host", format!("is {host:?}: {error}")),
        }
    }
    Route::Hosts(parsed)
}

fn credentials(settings: &mut Settings) -> Option<Credentials> {
    let username = settings.optional_string("username");
    let here = settings.secret("password").map(Password::Here);
    let file = settings.optional_string("password_file").map(PathBuf::from);
    if let Some(path) = &file {
        settings.refer("password_file", Referent::Secret(path.clone()));
    }
    let file = file.map(Password::File);
    if here.is_some() && file.is_some() {
        settings.mistake("password_file", "cannot stand beside password; remove one of them");
    }
    match (username, here.or(file)) {
        (Some(username), Some(password)) => Some(Credentials { username, password }),
        (Some(username), None) => Some(Credentials { username, password: Password::Asked }),
        (None, Some(_)) => {
            settings.mistake("username", "is missing; give it for the password");
            None
        }
        (None, None) => None,
    }
}

fn mechanisms(settings: &mut Settings) -> Vec<Mechanism> {
    let named = settings.has("auth");
    let mut mechanisms = Vec::new();
    let names = settings.strings("auth", &["plain", "login"]);
    if named && names.is_empty() {
        settings.mistake("auth", "is empty; use \"plain\", \"login\" or both");
    }
    for name in names {
        match name.as_str() {
            "plain" => mechanisms.push(Mechanism::Plain),
            "login" => mechanisms.push(Mechanism::Login),
            _ => settings.mistake("auth", format!("has {name:?}; use \"plain\", \"login\" or both")),
        }
    }
    mechanisms
}

fn tls(settings: &mut Settings, route: &Route, secret: bool) -> Tls {
    let choices = [
        ("none", Tls::None),
        ("opportunistic", Tls::Opportunistic),
        ("required", Tls::Required),
        ("implicit", Tls::Implicit),
    ];
    let socket = matches!(route, Route::Socket(_));
    let default = match (socket, secret) {
        (true, _) => "none",
        (false, true) => "required",
        (false, false) => "opportunistic",
    };
    let tls = settings.choice("tls", default, &choices).unwrap_or(Tls::Opportunistic);
    if socket && matches!(tls, Tls::Required | Tls::Implicit) {
        settings.mistake("tls", "has no use on a Unix socket");
    }
    if secret && tls == Tls::None {
        settings.mistake(
            "tls",
            "is \"none\", so that the password would go in the clear; set auth_without_tls = true if it may",
        );
    }
    if socket { Tls::None } else { tls }
}

fn tls_verify(settings: &mut Settings, tls: Tls) -> bool {
    let secured = matches!(tls, Tls::Required | Tls::Implicit);
    let verify = settings.boolean("tls_verify", secured);
    if verify && !secured {
        settings.mistake("tls_verify", "has no use where TLS may be left out; set tls = \"required\" or \"implicit\"");
    }
    verify && secured
}

fn ca_file(settings: &mut Settings) -> Option<PathBuf> {
    let path = PathBuf::from(settings.optional_string("tls_ca_file")?);
    settings.refer("tls_ca_file", Referent::File(path.clone()));
    Some(path)
}

fn hostname(settings: &mut Settings) -> Option<String> {
    let name = settings.optional_string("hostname")?;
    settings.refer("hostname", Referent::HostName(name.clone()));
    if name.is_empty() || name.bytes().any(|byte| !byte.is_ascii_graphic()) {
        settings.mistake("hostname", format!("is {name:?}; give a host name, or an address in square brackets"));
        return None;
    }
    Some(name)
}

fn timeouts(settings: &mut Settings) -> Timeouts {
    let range = Duration::from_millis(10)..=HOUR;
    Timeouts {
        connect: settings.silence("connect_timeout", "30s", range.clone()),
        greeting: settings.silence("greeting_timeout", "5m", range.clone()),
        command: settings.silence("command_timeout", "5m", range.clone()),
        data: settings.silence("data_timeout", "10m", *range.start()..=24 * HOUR),
    }
}

fn parsed<T: std::str::FromStr>(settings: &mut Settings, key: &str, what: &str) -> Option<T> {
    let text = settings.optional_string(key)?;
    let value = text.parse().ok();
    if value.is_none() {
        settings.mistake(key, format!("is {text:?}; give {what}"));
    }
    value
}

fn port_number(port: u32) -> u16 {
    u16::try_from(port).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (SmtpSettings, Vec<String>) {
        let mut settings = Settings::new(text.parse().unwrap());
        let read = SmtpSettings::read(&mut settings);
        let mistakes = settings.finish().mistakes.into_iter().map(|mistake| mistake.key).collect();
        (read, mistakes)
    }

    #[test]
    fn nothing_set_means_delivery_by_mx() {
        let (settings, mistakes) = read("");
        assert_eq!(mistakes, [""; 0]);
        assert_eq!((settings.route, settings.port, settings.tls), (Route::Mx, 25, Tls::Opportunistic));
        assert!(!settings.tls_verify && settings.credentials.is_none());
    }

    #[test]
    fn defaults_follow_what_is_set() {
        assert_eq!(read("host = 'h'\ntls = 'implicit'").0.port, 465);
        assert_eq!(read("host = 'h'\nprotocol = 'lmtp'").0.port, 24);
        let (settings, mistakes) = read("host = 'h'\nusername = 'u'\npassword = 'p'");
        assert_eq!((settings.tls, settings.tls_verify, mistakes.len()), (Tls::Required, true, 0));
        let (settings, mistakes) = read("host = 'h'\nusername = 'u'");
        assert!(matches!(settings.credentials.unwrap().password, Password::Asked) && mistakes.is_empty());
        let (settings, _) = read("protocol = 'lmtp'\nsocket = '/run/lmtp'");
        assert_eq!((settings.route, settings.tls), (Route::Socket("/run/lmtp".into()), Tls::None));
    }

    #[test]
    fn what_cannot_work_is_a_mistake() {
        let rows = [
            ("socket = '/run/lmtp'", "socket"),
            ("protocol = 'lmtp'", "host"),
            ("host = []", "host"),
            ("host = 'a:b:c:d:'", "host"),
            ("host = 'h'\npassword_file = 'p'", "username"),
            ("host = 'h'\nusername = 'u'\npassword = 'p'\ntls = 'none'", "tls"),
            ("host = 'h'\ntls_verify = true", "tls_verify"),
            ("hostname = 'a b'", "hostname"),
            ("dns_server = 'x'", "dns_server"),
            ("auth = 'cram-md5'", "auth"),
            ("prot = 1", "prot"),
        ];
        for (text, key) in rows {
            assert_eq!(read(text).1, [key], "{text}");
        }
    }
}
