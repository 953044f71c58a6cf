//! From a destination to a session that can take messages: hosts in their order, connection, greeting, EHLO, TLS, AUTH.
//!
//! ```text
//!   connect ─ [implicit TLS] ─ 220 ─ EHLO ─ STARTTLS ─ TLS ─ EHLO ─ AUTH ─▶ Connection
//!      │                        │      └ 5yz: HELO        │          └ 5yz: no other host is tried
//!      └──────── next address, next host ◀────────────────┘
//! ```
//!
//! Each step is said before it is taken, so that a status row shows which one lasts. Where TLS is opportunistic and its handshake fails, the same address is tried once more without it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::rc::Rc;

use spooler_protocol::outcome::{Cause, Hop, Reply};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::{Instant, timeout};

use super::attempts::{Attempts, Reached};
use super::auth::{AuthFailure, Login};
use super::connection::Connection;
use super::extensions::Extensions;
use super::failure::{Failure, Target, at, attempt, no_tls, remote_reply, unconnected, unresolved};
use super::settings::{Protocol, Route, Timeouts, Tls};
use super::target::{Dns, NoRoute};
use super::tls::{self, Trust};
use super::tls_trouble::{Handshake, reason};
use super::wire::{Stream, Wire};
use crate::probe::Probe;

/// Addresses of one destination that are tried before giving up for now.
const ADDRESSES_MAX: usize = 10;

/// Why there is no session.
#[derive(Clone, Debug)]
pub(super) enum NoSession {
    /// There never will be: the destination takes no mail.
    Permanent(Reply),
    /// Not now.
    Temporary(Reply),
    /// The server does not believe who we are.
    Auth(Reply),
}

impl From<NoRoute> for NoSession {
    fn from(none: NoRoute) -> Self {
        match none {
            NoRoute::Permanent(reply) => Self::Permanent(reply),
            NoRoute::Temporary(reply) => Self::Temporary(reply),
        }
    }
}

/// Hears of each step before it is taken, such as `connecting to 192.0.2.1:25`.
pub(super) type Say<'a> = &'a dyn Fn(String);

/// Makes sessions.
pub(super) struct Dialer {
    pub(super) route: Route,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
    pub(super) tls: Tls,
    pub(super) tls_server_name: Option<String>,
    pub(super) trust: Trust,
    pub(super) login: Option<Login>,
    pub(super) hostname: String,
    pub(super) timeouts: Timeouts,
    pub(super) source: Option<IpAddr>,
    pub(super) dns: Dns,
    /// Hears of each step.
    pub(super) witness: Option<Rc<Probe>>,
}

impl Dialer {
    /// The same dialer, with a witness.
    pub(super) fn witnessed_by(self, probe: Rc<Probe>) -> Self {
        Self { witness: Some(probe), ..self }
    }

    fn saw(&self, step: &str, what: impl FnOnce() -> String) {
        if let Some(probe) = &self.witness {
            probe.step(step, what());
        }
    }

    /// Makes a session with the first host of the destination that gives one, and says each step. `domain` matters for delivery by MX only.
    ///
    /// # Errors
    /// If there is none: the most telling reason of all.
    pub(super) async fn dial(&self, domain: &str, say: Say<'_>) -> Result<Connection, NoSession> {
        let found;
        let hosts = match &self.route {
            Route::Socket(path) => return self.dial_socket(path, say).await,
            Route::Hosts(hosts) => hosts,
            Route::Mx => {
                say(format!("looking up the mail exchangers of {domain}"));
                found = self.dns.exchangers(domain).await?;
                &found
            }
        };
        let mut failed = Attempts::default();
        let mut tried = 0;
        for host in hosts {
            if host.name.parse::<IpAddr>().is_err() {
                say(format!("resolving {}", host.name));
            }
            let addresses = match self.dns.addresses(&host.name).await {
                Ok(addresses) => addresses,
                Err(NoRoute::Permanent(reply)) if host.name == domain => return Err(NoSession::Permanent(reply)),
                Err(none) => {
                    failed.push(unresolved(host, none));
                    continue;
                }
            };
            self.saw("resolve", || {
                let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                format!("{}: {}", host.name, shown.join(", "))
            });
            for address in addresses.into_iter().filter(|address| self.may_go_to(*address)) {
                if tried == ADDRESSES_MAX {
                    break;
                }
                tried += 1;
                let (port, name) = (host.port.unwrap_or(self.port), self.tls_server_name.as_ref());
                let target = Target::new(host, address, port, name.unwrap_or(&host.name));
                match self.dial_address(&target, say).await {
                    Ok(connection) => return Ok(connection),
                    Err(Failure::Auth(reply)) if reply.code / 100 == 5 => return Err(NoSession::Auth(reply)),
                    Err(failure) => {
                        let failure = attempt(target, failure);
                        self.saw("failed", || failure.reply.to_string());
                        failed.push(failure);
                    }
                }
            }
        }
        Err(NoSession::Temporary(failed.into_reply().unwrap_or_else(|| {
            let text = "No host has an address that can be reached from source_address";
            Reply { cause: Cause::Connect, ..Reply::local(0, "4.4.4", text) }
        })))
    }

    fn may_go_to(&self, address: IpAddr) -> bool {
        self.source.is_none_or(|source| source.is_ipv4() == address.is_ipv4())
    }

    async fn dial_socket(&self, path: &Path, say: Say<'_>) -> Result<Connection, NoSession> {
        let begun = Instant::now();
        let place = path.display().to_string();
        // No TLS on a Unix socket, and so no use for an address.
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let target = Target { address, remote: place.clone().into(), place, name: "localhost".to_owned() };
        say(format!("connecting to {}", target.place));
        let connected = timeout(self.timeouts.connect, UnixStream::connect(path)).await;
        let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let session = match stream {
            Ok(stream) => self.begin(Wire::new(Stream::Unix(stream)), &target, false, say).await,
            Err(error) => Err(unconnected(&target, &error)),
        };
        with_hop(session, target.place, begun).map_err(|failure| match failure {
            Failure::Here(_, reply) | Failure::Tls(reply) => NoSession::Temporary(reply),
            Failure::Auth(reply) => NoSession::Auth(reply),
        })
    }

    async fn dial_address(&self, target: &Target, say: Say<'_>) -> Result<Connection, Failure> {
        let begun = Instant::now();
        with_hop(self.session_at(target, say).await, target.address.to_string(), begun)
    }

    async fn session_at(&self, target: &Target, say: Say<'_>) -> Result<Connection, Failure> {
        let wire = self.connect(target, say).await?;
        match self.begin(wire, target, self.tls != Tls::None, say).await {
            Err(Failure::Tls(reply)) if self.tls == Tls::Opportunistic => {
                tracing::info!(remote = %target.remote, reason = %reply.text, "no TLS; sending without it");
                let wire = self.connect(target, say).await?;
                self.begin(wire, target, false, say).await
            }
            result => result,
        }
    }

    async fn connect(&self, target: &Target, say: Say<'_>) -> Result<Wire, Failure> {
        say(format!("connecting to {}", target.place));
        let connected = timeout(self.timeouts.connect, self.connect_tcp(target.address)).await;
        match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => {
                self.saw("connect", || target.place.clone());
                Ok(Wire::new(Stream::Tcp(stream)))
            }
            Err(error) => Err(unconnected(target, &error)),
        }
    }

    async fn connect_tcp(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(source) = self.source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// From the first byte to a session in which MAIL may follow.
    async fn begin(&self, wire: Wire, target: &Target, secure: bool, say: Say<'_>) -> Result<Connection, Failure> {
        let remote = &target.remote;
        let mut wire = wire;
        if secure && self.tls == Tls::Implicit {
            wire = self.secure(wire, target, say).await?;
        }
        say(format!("waiting for the greeting of {}", target.place));
        let greeting =
            wire.reply(self.timeouts.greeting).await.map_err(at(remote, "while waiting for the greeting"))?;
        if !greeting.is_positive() {
            return Err(Failure::Here(Reached::Server, greeting.from(remote)));
        }
        self.saw("greeting", || first_line(&greeting.text));
        say(format!("waiting for the reply of {} to {}", target.place, self.hello_verb()));
        let mut offered = self.hello(&mut wire, remote).await?;
        if secure && matches!(self.tls, Tls::Opportunistic | Tls::Required) {
            (wire, offered) = self.start_tls(wire, offered, target, say).await?;
        }
        if let Some(login) = &self.login {
            say(format!("authenticating with {}", target.place));
            let done = login.run(&mut wire, &offered, remote, self.timeouts.command).await;
            done.map_err(|failure| match failure {
                AuthFailure::Refused(reply) => Failure::Auth(reply),
                AuthFailure::Broken(broken) => at(remote, "at AUTH")(broken),
            })?;
            self.saw("AUTH", || format!("accepted as {}", login.username));
        }
        Ok(Connection::new(wire, offered, Rc::clone(remote)))
    }

    fn hello_verb(&self) -> &'static str {
        match self.protocol {
            Protocol::Smtp => "EHLO",
            Protocol::Lmtp => "LHLO",
        }
    }

    /// EHLO or LHLO; HELO where EHLO is not known (RFC 5321 3.2).
    async fn hello(&self, wire: &mut Wire, remote: &str) -> Result<Extensions, Failure> {
        let patience = self.timeouts.command;
        let fallback = (self.protocol == Protocol::Smtp).then_some("HELO");
        let line = format!("{} {}", self.hello_verb(), self.hostname);
        let mut reply = wire.command(line.as_bytes(), patience).await.map_err(at(remote, "at EHLO"))?;
        if reply.is_positive() {
            self.saw(self.hello_verb(), || offers(&reply.text));
            return Ok(Extensions::read(&reply));
        }
        if let Some(verb) = fallback.filter(|_| reply.is_permanent()) {
            let line = format!("{verb} {}", self.hostname);
            reply = wire.command(line.as_bytes(), patience).await.map_err(at(remote, "at HELO"))?;
            if reply.is_positive() {
                self.saw(verb, || first_line(&reply.text));
                return Ok(Extensions::default());
            }
        }
        Err(Failure::Here(Reached::Server, reply.from(remote)))
    }

    /// STARTTLS and a new EHLO; without TLS as before, if that is allowed.
    async fn start_tls(
        &self,
        mut wire: Wire,
        offered: Extensions,
        target: &Target,
        say: Say<'_>,
    ) -> Result<(Wire, Extensions), Failure> {
        let remote = &target.remote;
        let required = self.tls == Tls::Required;
        if !offered.starttls {
            return if required {
                Err(no_tls(target, "the server does not offer STARTTLS"))
            } else {
                Ok((wire, offered))
            };
        }
        let patience = self.timeouts.command;
        let reply = wire.command(b"STARTTLS", patience).await.map_err(at(remote, "at STARTTLS"))?;
        if !reply.is_positive() {
            return if required {
                Err(Failure::Here(Reached::Server, reply.from(remote)))
            } else {
                Ok((wire, offered))
            };
        }
        if wire.has_input() {
            // A man in the middle adds replies there, to be taken for the server's once TLS is up (CVE-2021-38371).
            let text = "The server sent more behind its reply to STARTTLS, where only TLS may follow; the connection is not to be trusted";
            let reply = Reply { cause: Cause::Connect, ..remote_reply(remote, "4.7.0", text) };
            return Err(Failure::Here(Reached::Server, reply));
        }
        let mut wire = self.secure(wire, target, say).await?;
        say(format!("waiting for the reply of {} to {}", target.place, self.hello_verb()));
        let offered = self.hello(&mut wire, remote).await?;
        Ok((wire, offered))
    }

    async fn secure(&self, wire: Wire, target: &Target, say: Say<'_>) -> Result<Wire, Failure> {
        say(format!("TLS handshake with {}", target.place));
        let name = tls::server_name(&target.name).map_err(|why| no_tls(target, &why))?;
        let connector = self.trust.connector().await.map_err(|why| no_tls(target, &why))?;
        match timeout(self.timeouts.connect, wire.secure(connector, name)).await {
            Ok(Ok(wire)) => {
                let checked =
                    if self.trust.verifies() { "certificate checked for" } else { "certificate not checked for" };
                self.saw("TLS", || {
                    let (version, cipher) = wire.tls();
                    format!("{version} with {cipher}; {checked} {}", target.name)
                });
                Ok(wire)
            }
            Ok(Err(why)) => {
                let handshake = Handshake { address: target.address, implicit: self.tls == Tls::Implicit };
                Err(no_tls(target, &reason(&why, handshake)))
            }
            Err(_) => Err(no_tls(target, "the server did not answer in the TLS handshake")),
        }
    }
}

/// Notes how a session, or its failure, came about.
fn with_hop(session: Result<Connection, Failure>, peer: String, begun: Instant) -> Result<Connection, Failure> {
    let connecting_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let hop = Hop { peer, connecting_ms, ..Hop::default() };
    match session {
        Ok(connection) => {
            let (tls, cipher) = connection.wire.tls();
            Ok(Connection { hop: Hop { tls, cipher, ..hop }, ..connection })
        }
        Err(failure) => Err(failure.by(hop)),
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// The keywords in a reply to EHLO.
fn offers(text: &str) -> String {
    let offered: Vec<&str> = text.lines().skip(1).collect();
    if offered.is_empty() { "offers nothing".to_owned() } else { format!("offers {}", offered.join(", ")) }
}
