//! Sessions: made, kept, lost and replaced; hosts that cannot be reached.

use std::net::TcpListener;

use spooler_protocol::from_worker::{FromWorker, RowUpdate};
use spooler_protocol::outcome::{Cause, Outcome, Reply, SubmitResult};

use super::fake::{Act, Fake, Setup, say};
use super::start;
use crate::peer::Peer;

const MESSAGE: &[u8] = b"Subject: x\r\n\r\nhello\r\n";

/// An address where nobody listens.
fn closed_port() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn outcome(peer: &mut Peer) -> Outcome {
    let (result, mut outcomes) = peer.deliver("s@x", &["a@y"], MESSAGE);
    assert_eq!(result, SubmitResult::Done);
    outcomes.remove(&0).unwrap()
}

fn is_relayed(peer: &mut Peer) -> bool {
    matches!(outcome(peer), Outcome::Relayed { .. })
}

fn error(peer: &mut Peer) -> Reply {
    match peer.deliver("s@x", &["a@y"], MESSAGE) {
        (SubmitResult::Error(reply), outcomes) if outcomes.is_empty() => reply,
        other => panic!("no error: {other:?}"),
    }
}

fn row(peer: &mut Peer) -> RowUpdate {
    peer.wait_for(|said| match said {
        FromWorker::Row { update, .. } => Ok(*update),
        other => Err(other),
    })
}

#[test]
fn one_session_takes_many_messages() {
    let fake = Fake::obliging();
    let mut peer = start(&fake.settings("connection_idle = '1m'"));
    for _ in 0..20 {
        assert!(is_relayed(&mut peer));
    }
    let heard = fake.only();
    assert_eq!((heard.count("MAIL"), heard.count("EHLO"), heard.count("RSET")), (20, 1, 0));
}

#[test]
fn a_session_ends_after_its_share_of_messages() {
    let fake = Fake::obliging();
    let mut peer = start(&fake.settings("connection_idle = '1m'\nmessages_per_connection = 2"));
    for _ in 0..5 {
        assert!(is_relayed(&mut peer));
    }
    fake.wait(|heard| heard.iter().filter(|heard| heard.over).count() == 2);
    let counts: Vec<_> = fake.heard().iter().map(|heard| (heard.count("MAIL"), heard.count("QUIT"))).collect();
    assert_eq!(counts, [(2, 1), (2, 1), (1, 0)]);
}

#[test]
fn an_unused_session_is_ended_politely() {
    let fake = Fake::obliging();
    let mut peer = start(&fake.settings("connection_idle = '50ms'"));
    assert!(is_relayed(&mut peer));
    fake.wait(|heard| heard[0].count("QUIT") == 1 && heard[0].over);
    assert!(is_relayed(&mut peer));
    assert_eq!(fake.heard().len(), 2);
}

#[test]
fn as_many_sessions_as_deliveries_at_once_and_no_more() {
    let fake = Fake::obliging();
    let mut peer = start(&fake.settings("connection_idle = '1m'"));
    for round in 0..10 {
        for delivery in 0..4 {
            peer.submit(round * 4 + delivery, "s@x", &["a@y"], MESSAGE);
        }
        for _ in 0..4 {
            let outcomes = peer.wait_for(|said| match said {
                FromWorker::Finished { outcomes, .. } => Ok(outcomes),
                other => Err(other),
            });
            assert!(matches!(outcomes[..], [(0, Outcome::Relayed { .. })]), "{outcomes:?}");
        }
    }
    let heard = fake.heard();
    assert!(heard.len() <= 4, "{} connections", heard.len());
    assert_eq!(heard.iter().map(|heard| heard.count("MAIL")).sum::<usize>(), 40);
}

#[test]
fn a_session_that_the_server_closed_meanwhile_is_replaced() {
    for goodbye in ["", "421 4.4.2 timeout\r\n"] {
        // The first connection ends at the second MAIL, or just after the first message.
        let script = move |number: usize, command: &str| match (number, command) {
            (0, ".") if goodbye.is_empty() => Some(Act::SayAndClose("250 ok\r\n".to_owned())),
            (0, "MAIL FROM:<second@x> SIZE=21") => Some(Act::SayAndClose(goodbye.to_owned())),
            _ => None,
        };
        let fake = Fake::scripted(script);
        let mut peer = start(&fake.settings("connection_idle = '1m'"));
        assert!(is_relayed(&mut peer));
        let (result, outcomes) = peer.deliver("second@x", &["a@y"], MESSAGE);
        assert_eq!(result, SubmitResult::Done);
        assert!(matches!(outcomes[&0], Outcome::Relayed { .. }), "{outcomes:?}");
        assert_eq!(fake.heard().len(), 2);
    }
}

#[test]
fn the_next_host_is_tried_when_one_cannot_be_had() {
    let busy = Fake::scripted(|_, command| if command == "CONNECT" { say("421 4.7.0 busy") } else { None });
    let sick = Fake::scripted(|_, command| if command.contains("LO") { say("451 4.3.0 sick") } else { None });
    let mute = Fake::scripted(|_, command| (command == "CONNECT").then_some(Act::Close));
    let good = Fake::obliging();
    let hosts = format!(
        "host = ['{}', '{}', '{}', '{}', '{}']",
        closed_port(),
        busy.address,
        sick.address,
        mute.address,
        good.address
    );
    let mut peer = start(&hosts);
    assert!(is_relayed(&mut peer));
    assert_eq!([&busy, &sick, &mute, &good].map(|fake| fake.heard().len()), [1, 1, 1, 1]);
    assert!(is_relayed(&mut peer));
    assert_eq!([&busy, &sick, &mute, &good].map(|fake| fake.heard().len()), [1, 1, 1, 1], "the session is kept");
}

#[test]
fn a_host_that_cannot_be_reached_shows_in_the_row_until_it_can() {
    let address = closed_port();
    let mut peer = start(&format!("host = '{address}'"));
    peer.submit(1, "s@x", &["a@y"], MESSAGE);
    let update = row(&mut peer);
    assert_eq!(update.offline, Some(true));
    assert!(update.text.unwrap().contains("Cannot connect to 127.0.0.1"));
    let (result, outcomes) = peer.finished(1);
    let SubmitResult::Error(reply) = result else { panic!("{result:?}") };
    assert_eq!((reply.cause, outcomes.len()), (Cause::Connect, 0));
    // Nobody submits anything, and yet the provider finds out by itself, and keeps the session it found out with.
    let fake = Fake::listen(TcpListener::bind(address).unwrap(), Setup::default());
    assert_eq!(row(&mut peer).offline, Some(false));
    assert!(is_relayed(&mut peer));
    assert_eq!(fake.heard().len(), 1);
}

#[test]
fn a_refusal_at_the_door_is_an_error_of_the_whole_delivery() {
    for (step, code) in [("CONNECT", 554), ("CONNECT", 450), ("EHLO", 421), ("EHLO", 450)] {
        let fake = Fake::scripted(
            move |_, command| {
                if command.starts_with(step) { say(&format!("{code} 5.7.1 go away")) } else { None }
            },
        );
        let mut peer = start(&fake.settings(""));
        peer.submit(1, "s@x", &["a@y"], MESSAGE);
        // The very next word: who is refused at the door knows that somebody is at home, so the row stays online.
        let said = peer.next();
        let FromWorker::Finished { result: SubmitResult::Error(reply), .. } = said else { panic!("{step}: {said:?}") };
        assert_eq!((reply.cause, reply.code, reply.text.as_str()), (Cause::Remote, code, "go away"), "{step}");
    }
}

#[test]
fn what_is_no_smtp_server_is_said_to_be_none() {
    let fake = Fake::scripted(|_, command| if command == "CONNECT" { say("SSH-2.0-x") } else { None });
    let mut peer = start(&fake.settings(""));
    assert!(error(&mut peer).text.contains("does not speak SMTP"));
}

#[test]
fn a_connection_lost_at_any_step_is_lost_and_not_a_refusal() {
    for step in ["CONNECT", "EHLO"] {
        let fake = Fake::scripted(move |_, command| command.starts_with(step).then_some(Act::Close));
        assert_eq!(error(&mut start(&fake.settings(""))).cause, Cause::Lost, "{step}");
    }
    for offers in [vec!["PIPELINING"], vec![]] {
        for step in ["MAIL", "RCPT", "DATA", "."] {
            let script = move |_, command: &str| command.starts_with(step).then_some(Act::Close);
            let fake = Fake::start(Setup { offers: offers.clone(), script: Box::new(script), ..Setup::default() });
            let outcome = outcome(&mut start(&fake.settings("")));
            let Outcome::Deferred(reply) = outcome else { panic!("{step}: {outcome:?}") };
            assert_eq!((reply.cause, reply.code, reply.enhanced.as_str()), (Cause::Lost, 0, "4.4.2"), "{step}");
            assert_eq!(reply.text.contains("may arrive twice"), step == ".", "{}", reply.text);
        }
    }
}

#[test]
fn those_who_were_refused_before_the_connection_was_lost_stay_refused() {
    let fake = Fake::scripted(|_, command| match command {
        "RCPT TO:<no@y>" => say("550 5.1.1 unknown"),
        "DATA" => Some(Act::Close),
        _ => None,
    });
    let (_, outcomes) = start(&fake.settings("")).deliver("s@x", &["no@y", "yes@y"], MESSAGE);
    assert!(matches!(&outcomes[&0], Outcome::Failed(reply) if reply.enhanced == "5.1.1"));
    assert!(matches!(&outcomes[&1], Outcome::Deferred(reply) if reply.cause == Cause::Lost));
}

#[test]
fn a_server_that_falls_silent_is_given_up() {
    let short = "greeting_timeout = '200ms'\ncommand_timeout = '200ms'\ndata_timeout = '200ms'";
    for step in ["CONNECT", "EHLO"] {
        let fake = Fake::scripted(move |_, command| command.starts_with(step).then_some(Act::Stall));
        assert_eq!(error(&mut start(&fake.settings(short))).cause, Cause::Stalled, "{step}");
    }
    for step in ["MAIL", "RCPT", "DATA", "."] {
        let fake = Fake::scripted(move |_, command| command.starts_with(step).then_some(Act::Stall));
        let outcome = outcome(&mut start(&fake.settings(short)));
        assert!(matches!(&outcome, Outcome::Deferred(reply) if reply.cause == Cause::Stalled), "{step}: {outcome:?}");
        fake.wait(|heard| heard[0].over);
    }
}

#[test]
fn one_slow_message_does_not_hold_up_the_others() {
    let fake = Fake::scripted(|connection, command| (command == "DATA" && connection == 0).then_some(Act::Stall));
    let mut peer = start(&fake.settings(""));
    peer.submit(1, "s@x", &["slow@y"], MESSAGE);
    fake.wait(|heard| heard.first().is_some_and(|heard| heard.count("DATA") == 1));
    for _ in 0..10 {
        assert!(is_relayed(&mut peer));
    }
}

#[test]
fn a_refusal_in_the_middle_of_the_message_is_heard() {
    // The server has seen enough after the first line, says so and closes; the rest of the message meets a closed door.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        use std::io::{BufRead, BufReader, Write};
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut stream = stream;
        let mut line = String::new();
        stream.write_all(b"220 x\r\n").unwrap();
        while reader.read_line(&mut line).unwrap() > 0 && !line.starts_with("DATA") {
            stream.write_all(b"250 ok\r\n").unwrap();
            line.clear();
        }
        stream.write_all(b"354 go\r\n").unwrap();
        reader.read_line(&mut line).unwrap();
        stream.write_all(b"552 5.3.4 too much\r\n").unwrap();
    });
    let content = b"0123456789\r\n".repeat(2 << 20);
    let (result, outcomes) = start(&format!("host = '{address}'")).deliver("s@x", &["a@y"], &content);
    assert_eq!(result, SubmitResult::Done);
    // Whether the words survive the reset that follows them is up to the kernel; a refusal is never made up.
    match &outcomes[&0] {
        Outcome::Failed(reply) => assert_eq!((reply.code, reply.text.as_str()), (552, "too much")),
        Outcome::Deferred(reply) => assert_eq!(reply.cause, Cause::Lost),
        other => panic!("{other:?}"),
    }
}
