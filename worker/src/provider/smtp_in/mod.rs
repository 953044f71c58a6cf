//! The provider kind `smtp-in`: an SMTP submission server (RFC 5321, RFC 6409) that hands what it takes to the spooler.
//!
//! | room | what |
//! |---|---|
//! | `settings`, `networks` | what the configuration says |
//! | `connection`, `stream`, `input`, `service`, `tls` | bytes in and out: all of the I/O |
//! | `lines`, `command`, `path`, `parameters` | from bytes to a command; strict, pure |
//! | `session`, `transaction`, `auth`, `reply` | from a command to a reply; pure |
//! | `data`, `incoming`, `received` | content: strict reader, hand-over, trace header |
//!
//! What it does not do: it routes nothing, delivers nothing and repairs nothing. A message that is not made of CRLF lines is refused,
//! since any repair could make two readers see two messages. 250 is said when the spooler has the message on disk, synced.

mod auth;
mod command;
mod connection;
mod data;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod incoming;
mod input;
mod lines;
mod networks;
mod parameters;
mod path;
mod received;
mod reply;
mod service;
mod session;
mod settings;
mod stream;
mod tls;
mod transaction;

use std::cell::RefCell;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use spooler_protocol::from_worker::LogonError;
use spooler_protocol::plain::plain;
use spooler_protocol::settings::Settings as Reader;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;

use self::connection::Connection;
use self::reply::Reply;
use self::service::{Connections, NoPlace, Service};
use self::session::Rules;
pub use self::settings::Settings;
use self::stream::Stream;
use crate::contract::Provider;
use crate::probe::{Probe, Probed};
use crate::sandbox::Needs;
use crate::support::Support;

/// How long a logoff waits for clients in the middle of a message.
const LOGOFF_PATIENCE: Duration = Duration::from_secs(30);

/// Connections that the kernel keeps while none is accepted, for want of a token.
const BACKLOG: u32 = 1024;

/// How long a server that listens already has for its greeting, when it is probed, and how long that may be.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
const GREETING_BYTES_MAX: u64 = 512;

/// How long until a failed `accept` or `bind` is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// An SMTP submission server.
pub struct SmtpIn {
    service: Rc<Service>,
    addresses: Vec<SocketAddr>,
}

impl Provider for SmtpIn {
    type Settings = Settings;

    fn settings(settings: &mut Reader) -> Settings {
        settings::read(settings)
    }

    fn usual_types() -> Option<&'static [&'static str]> {
        Some(&[])
    }

    fn needs(settings: &Settings) -> Needs {
        settings.needs()
    }

    async fn probe(settings: Settings, probe: Rc<Probe>) -> Probed {
        for address in settings.listen {
            match listen(address) {
                Ok((address, _)) => probe.step("listen", format!("{address} is free")),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => match greeting(address).await {
                    Ok(greeting) => probe.step("connect", format!("{address} answers: {greeting}")),
                    Err(why) => {
                        let why = format!("{}; it says no greeting: {why}", cannot_listen(address, &error));
                        return Probed::Fails {
                            why,
                            remedy: format!("`ss -ltnp sport = :{}` shows which", address.port()),
                        };
                    }
                },
                Err(error) => {
                    let remedy = "choose an address and a port that the spooler's user may listen on".to_owned();
                    return Probed::Fails { why: cannot_listen(address, &error), remedy };
                }
            }
        }
        Probed::Works
    }

    async fn logon(support: Support, settings: Settings) -> Result<Self, LogonError> {
        let tls = match &settings.tls {
            Some((certificate, key)) => {
                Some(tls::load(&support, certificate, key).map_err(|error| LogonError::Failed(error.to_string()))?)
            }
            None => None,
        };
        let mut bound = Vec::new();
        for address in &settings.listen {
            match listen(*address) {
                Ok((address, listener)) => bound.push((address, Some(listener))),
                // The other server may stop at any moment: the row says what is wrong, and the address is tried on.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => bound.push((*address, None)),
                Err(error) => return Err(LogonError::Failed(cannot_listen(*address, &error))),
            }
        }
        let service = Rc::new(service(support, settings, tls));
        let addresses = bound.iter().map(|(address, _)| *address).collect();
        for (address, listener) in bound {
            service.support.spawn(serve(Rc::clone(&service), address, listener));
        }
        Ok(Self { service, addresses })
    }

    fn address_types(&self) -> Vec<String> {
        Vec::new()
    }

    fn identity(&self) -> String {
        let addresses: Vec<String> = self.addresses.iter().map(SocketAddr::to_string).collect();
        addresses.join(", ")
    }

    async fn logoff(&self, hurry: bool) {
        if !hurry && tokio::time::timeout(LOGOFF_PATIENCE, self.service.until_empty()).await.is_err() {
            tracing::warn!(
                connections = self.service.connections.borrow().count(),
                "logging off while clients still send"
            );
        }
    }
}

fn service(support: Support, settings: Settings, tls: Option<tokio_rustls::TlsAcceptor>) -> Service {
    let spooler_max = support.message_bytes_max();
    let rules = Rules {
        hostname: settings.hostname.unwrap_or_else(|| support.hostname().to_owned()),
        message_bytes_max: settings.message_bytes_max.map_or(spooler_max, |bytes| bytes.min(spooler_max)),
        recipients_max: settings.recipients_max,
        errors_max: settings.errors_max,
        offers_tls: tls.is_some(),
        users: settings.users,
        auth_required: settings.auth_required,
        submission: settings.submission,
    };
    Service {
        support,
        rules: Rc::new(rules),
        timeout: settings.timeout,
        rate_min: settings.rate_min,
        relay_from: settings.relay_from,
        tls,
        spare: RefCell::default(),
        dates: RefCell::default(),
        connections: RefCell::new(Connections::new(settings.connections_max, settings.per_host_max)),
        emptied: Notify::new(),
        troubles: RefCell::default(),
    }
}

/// Binds. Accepted sockets send replies at once: they inherit `TCP_NODELAY` from the listener. `[::]` does not take IPv4 as well, so
/// that `0.0.0.0` can stand beside it.
fn listen(address: SocketAddr) -> io::Result<(SocketAddr, TcpListener)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_nodelay(true)?;
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    Ok((listener.local_addr()?, listener))
}

/// What the server says that listens there: the spooler itself, if it runs.
async fn greeting(address: SocketAddr) -> io::Result<String> {
    let read = async {
        let mut line = String::new();
        BufReader::new(TcpStream::connect(address).await?).take(GREETING_BYTES_MAX).read_line(&mut line).await?;
        Ok::<String, io::Error>(line.trim_end().to_owned())
    };
    let line =
        tokio::time::timeout(GREETING_TIMEOUT, read).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    if line.starts_with("220") { Ok(line) } else { Err(io::Error::other(format!("{line:?}"))) }
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => "another server listens there".to_owned(),
        io::ErrorKind::PermissionDenied if address.port() < 1024 => {
            "ports below 1024 need CAP_NET_BIND_SERVICE; or use 2525 or 587 behind a redirect".to_owned()
        }
        _ => plain(error),
    };
    format!("Cannot listen on {address}: {why}")
}

fn in_trouble(address: SocketAddr, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => format!("; as root, `ss -ltnp 'sport = :{}'` names it", address.port()),
        _ => String::new(),
    };
    format!("{}{hint}; tried again every second", cannot_listen(address, error))
}

/// Serves one address from logon to logoff. It is bound from the beginning if it can be; connections are accepted while inbound has
/// begun, and in between the port is closed.
async fn serve(service: Rc<Service>, address: SocketAddr, listener: Option<TcpListener>) {
    let mut listener = listener;
    loop {
        service.support.inbound_begun().await;
        let bound = match listener.take() {
            Some(bound) => Some(bound),
            None => reopen(&service, address).await,
        };
        if let Some(bound) = bound {
            accept_all(&service, bound).await;
        }
    }
}

/// Accepts connections until inbound ends.
async fn accept_all(service: &Rc<Service>, listener: TcpListener) {
    let support = service.support.clone();
    let mut ended = std::pin::pin!(support.inbound_ended());
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut ended => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => welcome(service, socket, peer),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }
}

fn welcome(service: &Rc<Service>, socket: TcpStream, peer: SocketAddr) {
    let peer = peer.ip().to_canonical();
    match service.slot(peer) {
        Ok(slot) => drop(service.support.spawn(Connection::new(slot, Stream::Plain(socket), peer).serve())),
        Err(why) => turn_away(socket, why),
    }
}

/// One connection too many: a word fits into the empty socket buffer, so this does not wait.
fn turn_away(socket: TcpStream, why: NoPlace) {
    let text = match why {
        NoPlace::ShareIsUsedUp => "Too many connections from your address; try again later",
        NoPlace::Full => "Too many connections; try again later",
    };
    let mut line = Vec::new();
    Reply::new(421, "4.7.0", text).write(&mut line);
    if let Ok(mut socket) = socket.into_std() {
        let _ = socket.write(&line);
    }
}

/// Listens as soon as the address can be had; `None` if inbound ends before.
async fn reopen(service: &Rc<Service>, address: SocketAddr) -> Option<TcpListener> {
    loop {
        match listen(address) {
            Ok((_, listener)) => {
                service.show_trouble(address, None);
                return Some(listener);
            }
            Err(error) => service.show_trouble(address, Some(in_trouble(address, &error))),
        }
        tokio::select! {
            () = service.support.inbound_ended() => return None,
            () = tokio::time::sleep(RETRY_AFTER) => {}
        }
    }
}
