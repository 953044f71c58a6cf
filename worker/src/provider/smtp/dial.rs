//! From a destination to a session that can take messages: hosts in their order, connection, greeting, EHLO, TLS, AUTH.
//!
//! ```text
//!   connect ─ [implicit TLS] ─ 220 ─ EHLO ─ STARTTLS ─ TLS ─ EHLO ─ AUTH ─▶ Connection
//!      │                        │      └ 5yz: HELO        │          └ 5yz: no other host is tried
//!      └──────── next address, next host ◀────────────────┘
//! ```
//!
//! Where TLS is opportunistic and its handshake fails, the same address is tried once more without it.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::rc::Rc;

use spooler_protocol::outcome::{Cause, Hop, Reply};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::{Instant, timeout};

use super::auth::{AuthFailure, Login};
use super::connection::Connection;
use super::extensions::Extensions;
use super::settings::{Protocol, Route, Timeouts, Tls};
use super::target::{Dns, Host, NoRoute};
use super::tls::{self, Trust};
use super::wire::{Broken, Stream, Wire};
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

/// Why there is no session with one address.
enum Failure {
    Here(Reply),
    Tls(Reply),
    Auth(Reply),
}

impl Failure {
    fn by(self, hop: Hop) -> Self {
        match self {
            Self::Here(reply) => Self::Here(reply.by(hop)),
            Self::Tls(reply) => Self::Tls(reply.by(hop)),
            Self::Auth(reply) => Self::Auth(reply.by(hop)),
        }
    }
}

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

    /// Makes a session with the first host of the destination that gives one. `domain` matters for delivery by MX only.
    ///
    /// # Errors
    /// If there is none: the last reason of all.
    pub(super) async fn dial(&self, domain: &str) -> Result<Connection, NoSession> {
        let found;
        let hosts = match &self.route {
            Route::Socket(path) => return self.dial_socket(path).await,
            Route::Hosts(hosts) => hosts,
            Route::Mx => {
                found = self.dns.exchangers(domain).await?;
                &found
            }
        };
        let mut last = None;
        let mut tried = 0;
        for host in hosts {
            let addresses = match self.dns.addresses(&host.name).await {
                Ok(addresses) => addresses,
                Err(NoRoute::Permanent(reply)) if host.name == domain => return Err(NoSession::Permanent(reply)),
                // That a mail exchanger or relay has no address says nothing about the message.
                Err(NoRoute::Permanent(reply)) => {
                    let enhanced = "4.4.4".to_owned();
                    last = Some(Reply { cause: Cause::Connect, code: 451, enhanced, ..reply });
                    continue;
                }
                Err(NoRoute::Temporary(reply)) => {
                    last = Some(Reply { cause: Cause::Connect, ..reply });
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
                match self.dial_address(host, address).await {
                    Ok(connection) => return Ok(connection),
                    Err(Failure::Auth(reply)) if reply.code / 100 == 5 => return Err(NoSession::Auth(reply)),
                    Err(Failure::Here(reply) | Failure::Tls(reply) | Failure::Auth(reply)) => {
                        self.saw("failed", || reply.to_string());
                        last = Some(reply);
                    }
                }
            }
        }
        Err(NoSession::Temporary(last.unwrap_or_else(|| {
            let text = "No host has an address that can be reached from source_address";
            Reply { cause: Cause::Connect, ..Reply::local(0, "4.4.4", text) }
        })))
    }

    fn may_go_to(&self, address: IpAddr) -> bool {
        self.source.is_none_or(|source| source.is_ipv4() == address.is_ipv4())
    }

    async fn dial_socket(&self, path: &Path) -> Result<Connection, NoSession> {
        let (remote, begun): (Rc<str>, Instant) = (path.display().to_string().into(), Instant::now());
        let stream = match timeout(self.timeouts.connect, UnixStream::connect(path)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(NoSession::Temporary(unconnected(&remote, &error.to_string()))),
            Err(_) => return Err(NoSession::Temporary(unconnected(&remote, "no answer"))),
        };
        let session = self.begin(Wire::new(Stream::Unix(stream)), &remote, "localhost", false).await;
        with_hop(session, remote.to_string(), begun).map_err(|failure| match failure {
            Failure::Here(reply) | Failure::Tls(reply) => NoSession::Temporary(reply),
            Failure::Auth(reply) => NoSession::Auth(reply),
        })
    }

    async fn dial_address(&self, host: &Host, address: IpAddr) -> Result<Connection, Failure> {
        let begun = Instant::now();
        let address = SocketAddr::new(address, host.port.unwrap_or(self.port));
        with_hop(self.session_at(host, address).await, address.to_string(), begun)
    }

    async fn session_at(&self, host: &Host, address: SocketAddr) -> Result<Connection, Failure> {
        let remote: Rc<str> = format!("{}[{}]", host.name, address.ip()).into();
        let name = self.tls_server_name.as_deref().unwrap_or(&host.name);
        let wire = self.connect(address, &remote).await?;
        match self.begin(wire, &remote, name, self.tls != Tls::None).await {
            Err(Failure::Tls(reply)) if self.tls == Tls::Opportunistic => {
                tracing::info!(%remote, reason = %reply.text, "no TLS; sending without it");
                let wire = self.connect(address, &remote).await?;
                self.begin(wire, &remote, name, false).await
            }
            result => result,
        }
    }

    async fn connect(&self, address: SocketAddr, remote: &str) -> Result<Wire, Failure> {
        let failed = |why: &str| Failure::Here(unconnected(&format!("{remote}:{}", address.port()), why));
        match timeout(self.timeouts.connect, self.connect_tcp(address)).await {
            Ok(Ok(stream)) => {
                self.saw("connect", || format!("{remote}:{}", address.port()));
                Ok(Wire::new(Stream::Tcp(stream)))
            }
            Ok(Err(error)) => Err(failed(&error.to_string())),
            Err(_) => Err(failed("no answer")),
        }
    }

    async fn connect_tcp(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(source) = self.source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// From the first byte to a session in which MAIL may follow.
    async fn begin(&self, wire: Wire, remote: &Rc<str>, name: &str, secure: bool) -> Result<Connection, Failure> {
        let mut wire = wire;
        if secure && self.tls == Tls::Implicit {
            wire = self.secure(wire, remote, name).await?;
        }
        let greeting =
            wire.reply(self.timeouts.greeting).await.map_err(at(remote, "while waiting for the greeting"))?;
        if !greeting.is_positive() {
            return Err(Failure::Here(greeting.from(remote)));
        }
        self.saw("greeting", || first_line(&greeting.text));
        let mut offered = self.hello(&mut wire, remote).await?;
        if secure && matches!(self.tls, Tls::Opportunistic | Tls::Required) {
            (wire, offered) = self.start_tls(wire, offered, remote, name).await?;
        }
        if let Some(login) = &self.login {
            let done = login.run(&mut wire, &offered, remote, self.timeouts.command).await;
            done.map_err(|failure| match failure {
                AuthFailure::Refused(reply) => Failure::Auth(reply),
                AuthFailure::Broken(broken) => at(remote, "at AUTH")(broken),
            })?;
            self.saw("AUTH", || format!("accepted as {}", login.username));
        }
        Ok(Connection::new(wire, offered, Rc::clone(remote)))
    }

    /// EHLO or LHLO; HELO where EHLO is not known (RFC 5321 3.2).
    async fn hello(&self, wire: &mut Wire, remote: &str) -> Result<Extensions, Failure> {
        let patience = self.timeouts.command;
        let (verb, fallback) = match self.protocol {
            Protocol::Smtp => ("EHLO", Some("HELO")),
            Protocol::Lmtp => ("LHLO", None),
        };
        let line = format!("{verb} {}", self.hostname);
        let mut reply = wire.command(line.as_bytes(), patience).await.map_err(at(remote, "at EHLO"))?;
        if reply.is_positive() {
            self.saw(verb, || offers(&reply.text));
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
        Err(Failure::Here(reply.from(remote)))
    }

    /// STARTTLS and a new EHLO; without TLS as before, if that is allowed.
    async fn start_tls(
        &self,
        mut wire: Wire,
        offered: Extensions,
        remote: &Rc<str>,
        name: &str,
    ) -> Result<(Wire, Extensions), Failure> {
        let required = self.tls == Tls::Required;
        if !offered.starttls {
            return if required {
                Err(no_tls(remote, "the server does not offer STARTTLS"))
            } else {
                Ok((wire, offered))
            };
        }
        let patience = self.timeouts.command;
        let reply = wire.command(b"STARTTLS", patience).await.map_err(at(remote, "at STARTTLS"))?;
        if !reply.is_positive() {
            return if required { Err(Failure::Here(reply.from(remote))) } else { Ok((wire, offered)) };
        }
        if wire.has_input() {
            // Somebody put words behind the reply, to be taken for the server's once TLS is up (CVE-2021-38371).
            let text = "Something was sent behind the reply to STARTTLS, where only TLS may follow; the connection is not to be trusted";
            return Err(Failure::Here(Reply { cause: Cause::Connect, ..remote_reply(remote, "4.7.0", text) }));
        }
        let mut wire = self.secure(wire, remote, name).await?;
        let offered = self.hello(&mut wire, remote).await?;
        Ok((wire, offered))
    }

    async fn secure(&self, wire: Wire, remote: &str, name: &str) -> Result<Wire, Failure> {
        let shown = name;
        let name = tls::server_name(name).map_err(|why| no_tls(remote, &why))?;
        let connector = self.trust.connector().await.map_err(|why| no_tls(remote, &why))?;
        match timeout(self.timeouts.connect, wire.secure(connector, name)).await {
            Ok(Ok(wire)) => {
                let checked =
                    if self.trust.verifies() { "certificate checked for" } else { "certificate not checked for" };
                self.saw("TLS", || {
                    let (version, cipher) = wire.tls();
                    format!("{version} with {cipher}; {checked} {shown}")
                });
                Ok(wire)
            }
            Ok(Err(why)) => Err(no_tls(remote, &why)),
            Err(_) => Err(no_tls(remote, "no answer")),
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

fn remote_reply(remote: &str, enhanced: &str, text: impl Into<String>) -> Reply {
    Reply { remote: remote.to_owned(), ..Reply::local(0, enhanced, text) }
}

fn unconnected(remote: &str, why: &str) -> Reply {
    Reply { cause: Cause::Connect, ..remote_reply(remote, "4.4.1", format!("Cannot connect to {remote}: {why}")) }
}

fn no_tls(remote: &str, why: &str) -> Failure {
    Failure::Tls(Reply {
        cause: Cause::Connect,
        ..remote_reply(remote, "4.7.5", format!("No TLS with {remote}: {why}"))
    })
}

fn at<'a>(remote: &'a str, phase: &'a str) -> impl Fn(Broken) -> Failure + 'a {
    move |broken| Failure::Here(broken.into_reply(remote, phase))
}
