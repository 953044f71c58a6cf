//! Scenarios of the `smtp-in` provider.

pub(crate) mod client;
mod programs;
mod smuggling;
mod tls;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use spooler_protocol::claims::Claims;
use spooler_protocol::from_worker::{FromWorker, LogonError};
use spooler_protocol::message::{BodyType, Notify, Ret};
use spooler_protocol::notification::Notification;
use spooler_protocol::to_worker::{Refusal, ToWorker};

use self::client::{Client, serving, while_serving, without_trace};
use crate::peer::Peer;

#[test]
fn a_message_arrives_as_it_was_sent_with_a_trace() {
    let (mut peer, address) = serving("");
    while_serving(&mut peer, 1, move || {
        let mut client = Client::connect(address);
        client.reply();
        client.expect(&[("HELO client.test", "250 spooler.test"), ("mail from: <a@b.test>", "250 2.1.0")]);
        client.expect(&[("rcpt to:<c@d.test>", "250 2.1.5"), ("data", "354 ")]);
        client.send("Subject: t\r\n\r\n..\r\n..dot\r\nend\r\n.\r\n");
        assert_eq!(client.reply(), "250 2.0.0 Queued as 1\r\n");
        client.expect(&[("QUIT", "221 2.0.0")]);
        assert!(client.is_closed());
    });
    let message = &peer.received[0];
    assert_eq!(message.envelope.sender, "a@b.test");
    assert_eq!(message.envelope.recipients[0].address.text(), "c@d.test");
    let (trace, content) = without_trace(&message.content);
    let start = "Received: from client.test ([127.0.0.1])\r\n\tby spooler.test with SMTP\r\n\tfor <c@d.test>;\r\n\t";
    let date = trace.strip_prefix(start).unwrap_or_else(|| panic!("{trace:?}"));
    assert!(jiff::fmt::rfc2822::parse(date).is_ok(), "{date:?}");
    assert_eq!(content, b"Subject: t\r\n\r\n.\r\n.dot\r\nend\r\n");
    peer.log_off();
}

#[test]
fn every_address_is_listened_on() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: every_address_is_listened_on needs IPv6");
        return;
    }
    let (mut peer, logged_on) = Peer::logged_on("smtp-in", "listen = ['[::1]:0', '127.0.0.1:0']");
    peer.grant(u32::MAX);
    let addresses: Vec<&str> = logged_on.identity.split(", ").collect();
    assert!(logged_on.address_types.is_empty() && logged_on.credit == 0 && addresses.len() == 2, "{logged_on:?}");
    for address in addresses {
        Client::greeted(address.parse().unwrap()).expect(&[("RCPT TO:<c@d.test>", "503 5.5.1"), ("QUIT", "221")]);
    }
}

#[test]
fn groups_are_answered_in_order_and_several_messages_go_over_one_connection() {
    let (mut peer, address) = serving("");
    while_serving(&mut peer, 3, move || {
        let mut client = Client::greeted(address);
        client.send("MAIL FROM:<>\r\nRCPT TO:<r1@d.test>\r\nRCPT TO:<root>\r\nDATA\r\n");
        for expected in ["250 2.1.0", "250 2.1.5", "250 2.1.5", "354"] {
            assert!(client.reply().starts_with(expected));
        }
        for number in [2, 3] {
            client.send(format!("one\r\n.\r\nMAIL FROM:<s{number}@b>\r\nRCPT TO:<r{number}@d>\r\nDATA\r\n"));
            for expected in ["250 2.0.0", "250 2.1.0", "250 2.1.5", "354"] {
                assert!(client.reply().starts_with(expected));
            }
        }
        client.send(".\r\nRSET\r\nNOOP\r\nHELP\r\nVRFY a\r\nQUIT\r\n");
        for expected in ["250 2.0.0 Queued", "250", "250", "214", "252", "221"] {
            assert!(client.reply().starts_with(expected));
        }
    });
    let senders: Vec<&str> = peer.received.iter().map(|message| message.envelope.sender.as_str()).collect();
    assert_eq!(senders, ["", "s2@b", "s3@b"]);
    for message in &peer.received {
        let behind_trace = message.content.len() - without_trace(&message.content).1.len();
        let arrival = &message.arrival;
        assert_eq!(usize::try_from(arrival.trace_bytes).unwrap(), behind_trace);
        assert!(arrival.submission && arrival.sender == message.envelope.sender, "{arrival:?}");
    }
    let (trace, _) = without_trace(&peer.received[0].content);
    assert!(!trace.contains("for <"), "two recipients are not told of each other: {trace}");
    assert!(without_trace(&peer.received[2].content).1.is_empty());
}

#[test]
fn the_envelope_keeps_every_wish() {
    let (mut peer, address) = serving("");
    while_serving(&mut peer, 1, move || {
        let mut client = Client::greeted(address);
        client.expect(&[
            ("MAIL FROM:<ä@exämple.org> SIZE=100 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ+2B31", "250 2.1.0"),
            ("RCPT TO:<c@d.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Bob+2B@x.test", "250 2.1.5"),
            ("RCPT TO:<\"q > r\"@d.test> NOTIFY=NEVER", "250 2.1.5"),
            ("RCPT TO:<e@d.test> NOTIFY=ALWAYS", "501 5.5.4"),
            ("RCPT TO:<e@d.test> FOO=BAR", "555 5.5.4"),
            ("RCPT TO:<e@d.test", "501 5.1.3"),
            ("DATA", "354 "),
        ]);
        client.send("Subject: grüße\r\n\r\n.\r\n");
        assert!(client.reply().starts_with("250 2.0.0"));
    });
    let envelope = &peer.received[0].envelope;
    assert_eq!(
        (envelope.sender.as_str(), envelope.body, envelope.smtputf8),
        ("ä@exämple.org", BodyType::EightBit, true)
    );
    assert_eq!((envelope.ret, envelope.envid.as_deref()), (Some(Ret::Headers), Some("QQ+2B31")));
    let [first, second] = envelope.recipients.as_slice() else { panic!("{envelope:?}") };
    assert_eq!(first.notify, Some(Notify { success: true, failure: true, delay: false }));
    assert_eq!(first.orcpt.as_deref(), Some("rfc822;Bob+2B@x.test"));
    assert_eq!((second.address.text(), second.notify), ("\"q > r\"@d.test", Some(Notify::NEVER)));
    assert_eq!(envelope.check(), Ok(()));
    let (trace, content) = without_trace(&peer.received[0].content);
    assert!(trace.contains(" with UTF8SMTP;"), "{trace}");
    assert_eq!(content, "Subject: grüße\r\n\r\n".as_bytes());
}

#[test]
fn chunks_make_a_message() {
    let (mut peer, address) = serving("max_errors = 1000");
    while_serving(&mut peer, 2, move || {
        let mut client = Client::greeted(address);
        let open = "MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n";
        client.send(format!("{open}BDAT 6\r\none\r\n.BDAT 5 LAST\r\n\r\n.\r\nNOOP\r\n"));
        for expected in ["250 2.1.0", "250 2.1.5", "250 2.0.0 6 bytes", "250 2.0.0 Queued", "250 2.0.0 Ok"] {
            assert!(client.reply().starts_with(expected), "{expected}");
        }
        client.send(format!("{open}BDAT 5\r\ntwo\r\nBDAT 0 LAST\r\n"));
        for expected in ["250", "250", "250 2.0.0 5 bytes", "250 2.0.0 Queued"] {
            assert!(client.reply().starts_with(expected), "{expected}");
        }
        // A CR at the end of one chunk, no LF at the start of the next; then the rest is thrown away without a word out of turn.
        client.send(format!("{open}BDAT 4\r\none\rBDAT 4\r\nRSETBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n"));
        for expected in ["250", "250", "250 2.0.0 4 bytes", "550 5.5.2 bare CR", "503 5.5.1", "250 2.0.0 Ok"] {
            assert!(client.reply().starts_with(expected), "{expected}");
        }
        client.send(format!("{open}BDAT 4 LAST\r\none\rNOOP\r\n"));
        for expected in ["250", "250", "550 5.5.2 bare CR", "250"] {
            assert!(client.reply().starts_with(expected), "{expected}");
        }
        client.expect(&[("MAIL FROM:<a@b> BODY=BINARYMIME", "501 5.5.4")]);
        client.send("BDAT five\r\n");
        assert!(client.reply().starts_with("501 5.5.4"));
        assert!(client.is_closed(), "nobody knows where the next command begins");
    });
    assert_eq!(without_trace(&peer.received[0].content).1, b"one\r\n.\r\n.\r\n");
    assert_eq!(without_trace(&peer.received[1].content).1, b"two\r\n");
    assert_eq!(peer.received.len(), 2);
}

#[test]
fn a_large_message_is_streamed_and_whole() {
    let (mut peer, address) = serving("");
    let lines: Vec<String> =
        (0..30_000).map(|number| format!("line {number} {}\r\n", "x".repeat(number % 90))).collect();
    let text = format!("{}.\r\n", lines.concat()).into_bytes();
    let body = text[..text.len() - 3].to_vec();
    while_serving(&mut peer, 2, move || {
        let mut client = Client::greeted(address);
        client.begin_data();
        client.send(&text);
        assert!(client.reply().starts_with("250 2.0.0"));
        client.expect(&[("MAIL FROM:<a@b.test>", "250"), ("RCPT TO:<c@d.test>", "250")]);
        let mut chunks = text[..text.len() - 3].chunks(200_000).peekable();
        while let Some(chunk) = chunks.next() {
            let last = if chunks.peek().is_none() { " LAST" } else { "" };
            client.send(format!("BDAT {}{last}\r\n", chunk.len()));
            client.send(chunk);
            assert!(client.reply().starts_with("250 2.0.0"));
        }
    });
    for message in &peer.received {
        let (_, content) = without_trace(&message.content);
        assert!(content == body, "{} bytes of {}", content.len(), body.len());
    }
}

#[test]
fn what_is_too_large_is_refused_and_read_to_its_end() {
    let (mut peer, address) = serving("max_message_size = '200K'");
    while_serving(&mut peer, 1, move || {
        let mut client = Client::greeted(address);
        assert!(client.say("EHLO client.test").contains("250-SIZE 204800\r\n"));
        client.expect(&[("MAIL FROM:<a@b.test> SIZE=204801", "552 5.3.4")]);
        client.begin_data();
        client.send("0123456789\r\n".repeat(100_000));
        client.send(".\r\n");
        assert!(client.reply().starts_with("552 5.3.4"));
        client.expect(&[("MAIL FROM:<a@b.test>", "250"), ("RCPT TO:<c@d.test>", "250")]);
        client.send("BDAT 204801 LAST\r\n");
        client.send("x".repeat(204_801));
        assert!(client.reply().starts_with("552 5.3.4"));
        client.begin_data();
        client.send("x\r\n.\r\n");
        assert!(client.reply().starts_with("250 2.0.0"));
    });
    assert_eq!(peer.received.len(), 1);
}

#[test]
fn the_spoolers_refusal_reaches_the_client() {
    let (mut peer, address) = serving("");
    for (temporary, enhanced, expected) in
        [(true, "4.3.1", "452 4.3.1 The disk is full"), (false, "5.7.1", "554 5.7.1 The disk is full")]
    {
        peer.refusal = Some(Refusal { temporary, enhanced: enhanced.to_owned(), text: "The disk is full".to_owned() });
        let messages = peer.received.len() + 1;
        let reply = while_serving(&mut peer, messages, move || {
            let mut client = Client::greeted(address);
            client.begin_data();
            client.send("x\r\n.\r\n");
            let reply = client.reply();
            assert!(client.say("MAIL FROM:<a@b>").starts_with("250"), "the client may go on");
            reply
        });
        assert!(reply.starts_with(expected), "{reply:?}");
    }
}

#[test]
fn strangers_and_unknown_recipients_are_refused_at_rcpt() {
    let (_peer, address) = serving("relay_from = ['192.0.2.0/24']");
    let mut client = Client::greeted(address);
    client.expect(&[("MAIL FROM:<a@b.test>", "250"), ("RCPT TO:<c@d.test>", "550 5.7.1"), ("DATA", "554 5.5.1")]);

    let (mut peer, address) = serving("");
    peer.say(&ToWorker::Claims(Claims::default()));
    let mut client = Client::greeted(address);
    let deadline = Instant::now() + Duration::from_secs(60);
    client.expect(&[("MAIL FROM:<a@b.test>", "250")]);
    while !client.say("RCPT TO:<c@nowhere.test>").starts_with("550 5.1.2 No provider serves <c@nowhere.test>") {
        assert!(Instant::now() < deadline, "the new claims do not reach the server");
        client.expect(&[("RSET", "250"), ("MAIL FROM:<a@b.test>", "250")]);
    }
    client.expect(&[("DATA", "554 5.5.1")]);
}

#[test]
fn limits_hold() {
    let (_peer, address) = serving("max_connections = 2\nmax_errors = 2\nmax_recipients = 1");
    let mut one = Client::greeted(address);
    let two = Client::greeted(address);
    let mut three = Client::connect(address);
    assert!(three.reply().starts_with("421 4.7.0 Too many connections"));
    assert!(three.is_closed());
    one.expect(&[("MAIL FROM:<a@b>", "250"), ("RCPT TO:<c@d>", "250"), ("RCPT TO:<e@d>", "452 4.5.3")]);
    one.expect(&[("FOO", "500 5.5.2"), ("FOO", "500 5.5.2"), ("FOO", "421 4.7.0")]);
    assert!(one.is_closed());
    drop((one, two));
    until(|| Client::connect(address).reply().starts_with("220 "), "there is room again");
}

#[test]
fn silence_ends_a_connection() {
    let (_peer, address) = serving("timeout = '1s'");
    let mut waiting = Client::connect(address);
    assert!(waiting.reply().starts_with("220 "));
    assert!(waiting.reply().starts_with("421 4.4.2"));
    assert!(waiting.is_closed());
}

#[test]
fn the_end_of_inbound_lets_running_messages_finish() {
    let (mut peer, address) = serving("");
    let mut idle = Client::greeted(address);
    let mut busy = Client::greeted(address);
    busy.begin_data();
    busy.send("Subject: half\r\n");
    peer.say(&ToWorker::Notify(Notification::EndInbound));
    assert!(idle.reply().starts_with("421 4.3.2"));
    assert!(idle.is_closed());
    until(|| TcpStream::connect(address).is_err(), "the port is closed");
    while_serving(&mut peer, 1, move || {
        busy.send("\r\nwhole\r\n.\r\n");
        assert!(busy.reply().starts_with("250 2.0.0"));
        assert!(busy.reply().starts_with("421 4.3.2"));
        assert!(busy.is_closed());
    });
    assert_eq!(without_trace(&peer.received[0].content).1, b"Subject: half\r\n\r\nwhole\r\n");
    peer.say(&ToWorker::Notify(Notification::BeginInbound));
    until(|| TcpStream::connect(address).is_ok(), "the port is open again");
    Client::greeted(address).expect(&[("QUIT", "221")]);
    peer.log_off();
}

fn until(fact: impl Fn() -> bool, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !fact() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_client_that_leaves_in_the_middle_leaves_nothing() {
    let (mut peer, address) = serving("");
    while_serving(&mut peer, 1, move || {
        let mut client = Client::greeted(address);
        client.begin_data();
        client.send("0123456789\r\n".repeat(30_000));
        drop(client);
        let mut client = Client::greeted(address);
        client.begin_data();
        client.send("x\r\n.\r\n");
        assert!(client.reply().starts_with("250 2.0.0"));
    });
    assert_eq!(without_trace(&peer.received[0].content).1, b"x\r\n");
}

#[test]
fn taken_address_is_tried_until_free() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let (mut peer, _) = Peer::logged_on("smtp-in", &format!("listen = ['{address}']"));
    peer.grant(u32::MAX);
    let row = |offline: bool| {
        move |said| match said {
            FromWorker::Row { update, .. } if update.offline == Some(offline) => Ok(update.text.unwrap_or_default()),
            other => Err(other),
        }
    };
    let text = peer.wait_for(row(true));
    let start = format!("Cannot listen on {address}: another server listens there; as root, `ss -ltnp 'sport = :");
    assert!(text.starts_with(&start) && text.ends_with("tried again every second"), "{text}");
    drop(other);
    assert_eq!(peer.wait_for(row(false)), "");
    Client::greeted(address).expect(&[("QUIT", "221")]);
}

#[test]
fn foreign_address_is_named_at_logon() {
    // Reserved for documentation, so no machine has it.
    let mut peer = Peer::start("smtp-in", "listen = ['192.0.2.1:2525']");
    let error = peer.wait_for(|said| match said {
        FromWorker::LogonFailed(error) => Ok(error),
        other => Err(other),
    });
    let expected = "Cannot listen on 192.0.2.1:2525: Cannot assign requested address";
    assert_eq!(error, LogonError::Failed(expected.to_owned()));
}
