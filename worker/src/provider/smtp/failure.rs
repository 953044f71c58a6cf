//! One address that is tried, and why it gives no session.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use spooler_protocol::outcome::{Cause, Hop, Reply};
use spooler_protocol::plain::plain;

use super::attempts::{Attempt, Reached};
use super::target::{Host, NoRoute};
use super::wire::Broken;

/// Why there is no session with one address.
pub(super) enum Failure {
    Here(Reached, Reply),
    Tls(Reply),
    Auth(Reply),
}

impl Failure {
    /// The same, with the way that was gone.
    pub(super) fn by(self, hop: Hop) -> Self {
        match self {
            Self::Here(reached, reply) => Self::Here(reached, reply.by(hop)),
            Self::Tls(reply) => Self::Tls(reply.by(hop)),
            Self::Auth(reply) => Self::Auth(reply.by(hop)),
        }
    }
}

/// One address of a host, and how it is called.
pub(super) struct Target {
    pub(super) address: SocketAddr,
    /// `host[address]`, or the address alone if the host has no name.
    pub(super) remote: Rc<str>,
    /// The same with the port.
    pub(super) place: String,
    /// The name that the certificate has to be for.
    pub(super) name: String,
}

impl Target {
    /// An address of a host; the certificate has to be for `name`.
    pub(super) fn new(host: &Host, address: IpAddr, port: u16, name: &str) -> Self {
        let address = SocketAddr::new(address, port);
        let (remote, place) = if host.name.parse() == Ok(address.ip()) {
            (address.ip().to_string(), address.to_string())
        } else {
            let remote = format!("{}[{}]", host.name, address.ip());
            let place = format!("{remote}:{port}");
            (remote, place)
        };
        Self { address, remote: remote.into(), place, name: name.to_owned() }
    }
}

pub(super) fn remote_reply(remote: &str, enhanced: &str, text: impl Into<String>) -> Reply {
    Reply { remote: remote.to_owned(), ..Reply::local(0, enhanced, text) }
}

pub(super) fn unconnected(target: &Target, error: &io::Error) -> Failure {
    let (reached, why) = match error.kind() {
        io::ErrorKind::TimedOut => (Reached::Silence, "no answer".to_owned()),
        io::ErrorKind::ConnectionRefused => (Reached::Machine, plain(error)),
        io::ErrorKind::ConnectionReset => (Reached::Connection, plain(error)),
        _ => (Reached::Nothing, plain(error)),
    };
    let text = format!("Cannot connect to {}: {why}", target.place);
    Failure::Here(reached, Reply { cause: Cause::Connect, ..remote_reply(&target.remote, "4.4.1", text) })
}

pub(super) fn no_tls(target: &Target, why: &str) -> Failure {
    let text = format!("No TLS with {}: {why}", target.place);
    Failure::Tls(Reply { cause: Cause::Connect, ..remote_reply(&target.remote, "4.7.5", text) })
}

pub(super) fn at<'a>(remote: &'a str, phase: &'a str) -> impl Fn(Broken) -> Failure + 'a {
    move |broken| {
        let reached = if matches!(broken, Broken::Closing(_)) { Reached::Server } else { Reached::Connection };
        Failure::Here(reached, broken.into_reply(remote, phase))
    }
}

/// A host whose addresses are not known. That a mail exchanger or relay has none says nothing about the message.
pub(super) fn unresolved(host: &Host, none: NoRoute) -> Attempt {
    let reply = match none {
        NoRoute::Permanent(reply) => Reply { code: 451, enhanced: "4.4.4".to_owned(), ..reply },
        NoRoute::Temporary(reply) => reply,
    };
    let reply = Reply { cause: Cause::Connect, ..reply };
    Attempt { place: host.name.clone(), reached: Reached::NoAddress, why: "no address".to_owned(), reply }
}

pub(super) fn attempt(target: Target, failure: Failure) -> Attempt {
    let (reached, reply) = match failure {
        Failure::Here(reached, reply) => (reached, reply),
        Failure::Tls(reply) | Failure::Auth(reply) => (Reached::Server, reply),
    };
    // The place is named beside it.
    let why = match reply.text.split_once(&format!("{}: ", target.place)) {
        Some((_, why)) => why.to_owned(),
        None => Reply { remote: String::new(), ..reply.clone() }.to_string(),
    };
    Attempt { place: target.place, reached, why, reply }
}
