//! Delivery by MX, with a name server of a few lines.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use spooler_protocol::outcome::{Outcome, Reply, SubmitResult};

use super::fake::{Fake, Setup, say};
use super::start;
use crate::peer::Peer;

const MESSAGE: &[u8] = b"Subject: x\r\n\r\nhello\r\n";
const A: u16 = 1;
const MX: u16 = 15;
const NO_ERROR: u8 = 0;
const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;

/// One line of the zone: name, type, and response code or data.
type Zone = &'static [(&'static str, u16, Result<&'static [u8], u8>)];

/// What everybody here is asked about. Mail exchangers are preference and name in wire form.
const ZONE: Zone = &[
    ("two.test", MX, Ok(b"\x00\x14\x05other\x04test\x00")),
    ("two.test", MX, Ok(b"\x00\x0a\x05first\x04test\x00")),
    ("first.test", A, Ok(&[127, 0, 0, 2])),
    ("other.test", A, Ok(&[127, 0, 0, 1])),
    ("null.test", MX, Ok(b"\x00\x00\x00")),
    ("bare.test", A, Ok(&[127, 0, 0, 1])),
    ("empty.test", MX, Err(NO_ERROR)),
    ("broken.test", MX, Err(SERVER_FAILURE)),
    ("lame.test", MX, Ok(b"\x00\x0a\x06absent\x04test\x00")),
];

/// Answers by [`ZONE`]: data if there is some, else the code that stands there; names that do not occur do not exist.
fn name_server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut query = [0; 1500];
        while let Ok((count, from)) = socket.recv_from(&mut query) {
            socket.send_to(&answer(&query[..count]), from).unwrap();
        }
    });
    address
}

fn answer(query: &[u8]) -> Vec<u8> {
    let mut name = Vec::new();
    let mut at = 12;
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        name.push(String::from_utf8(query[at + 1..end].to_ascii_lowercase()).unwrap());
        at = end;
    }
    let name = name.join(".");
    let question = &query[12..at + 5];
    let wanted = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    let lines: Vec<_> = ZONE.iter().filter(|(owner, kind, _)| *owner == name && *kind == wanted).collect();
    let data: Vec<&[u8]> = lines.iter().filter_map(|(_, _, data)| data.ok()).collect();
    let code = match lines.first() {
        Some((_, _, data)) => data.err().unwrap_or(NO_ERROR),
        None if ZONE.iter().any(|(owner, _, _)| *owner == name) => NO_ERROR,
        None => NO_SUCH_NAME,
    };
    let answers = u8::try_from(data.len()).unwrap();
    let mut reply = query[..2].to_vec();
    reply.extend([0x81, 0x80 | code, 0, 1, 0, answers, 0, 0, 0, 0]);
    reply.extend(question);
    for data in data {
        reply.extend([0xc0, 12]);
        reply.extend(wanted.to_be_bytes());
        reply.extend([0, 1, 0, 0, 0, 60, 0, u8::try_from(data.len()).unwrap()]);
        reply.extend(data);
    }
    reply
}

fn settings(port: u16) -> String {
    format!("dns_server = '{}'\nport = {port}", name_server())
}

fn one(peer: &mut Peer, recipient: &str) -> Outcome {
    let (result, mut outcomes) = peer.deliver("s@x", &[recipient], MESSAGE);
    assert_eq!(result, SubmitResult::Done, "{recipient}");
    outcomes.remove(&0).unwrap()
}

fn error(peer: &mut Peer, recipient: &str) -> Reply {
    match peer.deliver("s@x", &[recipient], MESSAGE) {
        (SubmitResult::Error(reply), outcomes) if outcomes.is_empty() => reply,
        other => panic!("{recipient}: {other:?}"),
    }
}

/// Servers for both exchangers of `two.test`, on one port.
fn exchangers(first: Setup) -> (Fake, Fake) {
    for _ in 0..100 {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = SocketAddr::from(([127, 0, 0, 2], other.local_addr().unwrap().port()));
        if let Ok(listener) = TcpListener::bind(address) {
            return (Fake::listen(listener, first), Fake::listen(other, Setup::default()));
        }
    }
    panic!("no port is free on both addresses");
}

#[test]
fn the_exchanger_of_least_preference_value_comes_first() {
    let (first, other) = exchangers(Setup::default());
    let (mut peer, logged_on) = Peer::logged_on("smtp", &settings(first.address.port()));
    assert!(logged_on.destinations.by_domain);
    assert_eq!(logged_on.identity, "smtp by MX");
    let Outcome::Relayed { reply, .. } = one(&mut peer, "a@Two.test") else { panic!("not relayed") };
    assert_eq!(reply.remote, "first.test[127.0.0.2]");
    assert_eq!((first.heard().len(), other.heard().len()), (1, 0));
}

#[test]
fn the_next_exchanger_is_tried_when_the_first_is_busy() {
    let script = |_, command: &str| if command == "CONNECT" { say("421 busy") } else { None };
    let (first, other) = exchangers(Setup { script: Box::new(script), ..Setup::default() });
    let mut peer = start(&settings(first.address.port()));
    let Outcome::Relayed { reply, .. } = one(&mut peer, "a@two.test") else { panic!("not relayed") };
    assert_eq!(reply.remote, "other.test[127.0.0.1]");
    assert_eq!((first.heard().len(), other.heard().len()), (1, 1));
}

#[test]
fn a_domain_without_exchangers_is_its_own() {
    let fake = Fake::obliging();
    let mut peer = start(&settings(fake.address.port()));
    assert!(matches!(one(&mut peer, "a@bare.test"), Outcome::Relayed { .. }));
    assert!(matches!(one(&mut peer, "a@[127.0.0.1]"), Outcome::Relayed { .. }));
    assert_eq!(fake.heard().len(), 2);
}

#[test]
fn what_can_never_arrive_fails_at_once() {
    let mut peer = start(&settings(9));
    for (recipient, enhanced) in [
        ("a@null.test", "5.1.10"),
        ("a@nowhere.test", "5.1.2"),
        ("a@empty.test", "5.4.4"),
        ("a@[1.2.3]", "5.1.2"),
        ("local", "5.1.3"),
    ] {
        let outcome = one(&mut peer, recipient);
        assert!(matches!(&outcome, Outcome::Failed(reply) if reply.enhanced == enhanced), "{recipient}: {outcome:?}");
    }
}

#[test]
fn what_could_not_be_found_out_is_tried_later() {
    let mut peer = start(&settings(9));
    assert_eq!(error(&mut peer, "a@broken.test").enhanced, "4.4.3");
    assert_eq!(
        error(&mut peer, "a@lame.test").enhanced,
        "4.4.4",
        "an exchanger without address says nothing about the domain"
    );
}

#[test]
fn domains_in_one_delivery_fare_each_by_itself() {
    let fake = Fake::obliging();
    let mut peer = start(&settings(fake.address.port()));
    let recipients = ["a@bare.test", "b@null.test", "c@broken.test", "d@BARE.test"];
    let (result, outcomes) = peer.deliver("s@x", &recipients, MESSAGE);
    assert_eq!((result, outcomes.len()), (SubmitResult::Done, 4));
    assert!(matches!(outcomes[&0], Outcome::Relayed { .. }) && matches!(outcomes[&3], Outcome::Relayed { .. }));
    assert!(matches!(outcomes[&1], Outcome::Failed(_)) && matches!(outcomes[&2], Outcome::Deferred(_)));
    assert_eq!((fake.only().count("MAIL"), fake.only().count("RCPT")), (1, 2));
}
