//! Nobody gets a second message, or a command, past the end of the first.

use std::time::Duration;

use super::client::{Client, serving, while_serving, without_trace};

/// End-of-data look-alikes; whether the message is acceptable all the same.
const ROWS: &[(&str, &[u8], bool)] = &[
    ("lf.lf", b"\n.\n", false),
    ("lf.crlf", b"\n.\r\n", false),
    ("crlf.lf", b"\r\n.\n", false),
    ("cr.cr", b"\r.\r", false),
    ("cr.lf", b"\r.\n", false),
    ("lf.cr", b"\n.\r", false),
    ("cr.crlf", b"\r.\r\n", false),
    ("crlf.cr", b"\r\n.\r", false),
    ("crlf.crcrlf", b"\r\n.\r\r\n", false),
    ("crcrlf.crcrlf", b"\r\r\n.\r\r\n", false),
    ("nul-before", b"\r\n\0.\r\n", false),
    ("nul-after", b"\r\n.\0\r\n", false),
    ("sp-after", b"\r\n. \r\n", true),
];

const HEAD: &[u8] = b"Subject: t\r\n\r\nline one";
const SMUGGLED: &[u8] =
    b"MAIL FROM:<smug@example.net>\r\nRCPT TO:<b@d.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n";

/// Sends content in parts with a pause in between; there must be one reply, and the connection must be in step after it.
fn attempt(client: &mut Client, name: &str, accepted: bool, parts: &[&[u8]]) {
    client.begin_data();
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            // Not to wait for anything: only so that the kernel does not join the parts.
            std::thread::sleep(Duration::from_millis(3));
        }
        client.send(part);
    }
    let reply = client.reply();
    let expected = if accepted { "250 2.0.0 Queued" } else { "550 5.5.2 " };
    assert!(reply.starts_with(expected), "{name}: {reply:?}");
    let next = client.say("VRFY x");
    assert!(next.starts_with("252 "), "{name}: the connection is out of step: {next:?}");
}

/// Runs a script, then delivers one good message: nothing may have come in before it but `accepted` messages.
fn nothing_else_arrives(accepted: usize, script: impl FnOnce(&mut Client) + Send + 'static) {
    let (mut peer, address) = serving("max_errors = 1000000");
    while_serving(&mut peer, accepted + 1, move || {
        let mut client = Client::greeted(address);
        script(&mut client);
        client.begin_data();
        client.send("Subject: the good one\r\n\r\n.\r\n");
        assert!(client.reply().starts_with("250 2.0.0"));
    });
    assert_eq!(peer.received.len(), accepted + 1);
    assert!(peer.received.iter().all(|message| message.envelope.sender == "a@b.test"));
    let (_, content) = without_trace(&peer.received[accepted].content);
    assert_eq!(content, b"Subject: the good one\r\n\r\n");
}

fn acceptable() -> usize {
    ROWS.iter().filter(|row| row.2).count()
}

#[test]
fn a_false_end_with_a_message_behind_it_is_one_message() {
    nothing_else_arrives(2 * acceptable(), |client| {
        for (name, bytes, accepted) in ROWS {
            attempt(client, name, *accepted, &[&[HEAD, bytes, SMUGGLED].concat()]);
            attempt(client, name, *accepted, &[&[*bytes, SMUGGLED].concat()]);
        }
    });
}

#[test]
fn a_false_end_alone_gets_no_reply() {
    nothing_else_arrives(acceptable(), |client| {
        for (name, bytes, accepted) in ROWS {
            attempt(client, name, *accepted, &[&[HEAD, bytes].concat(), b"more\r\n.\r\n"]);
        }
    });
}

#[test]
fn cutting_a_false_end_in_two_changes_nothing() {
    let cuts: usize = ROWS.iter().filter(|row| row.2).map(|row| row.1.len() + 1).sum();
    nothing_else_arrives(cuts, |client| {
        for (name, bytes, accepted) in ROWS {
            for cut in 0..=bytes.len() {
                let (one, two) = bytes.split_at(cut);
                attempt(client, name, *accepted, &[&[HEAD, one].concat(), &[two, SMUGGLED].concat()]);
            }
        }
    });
}

#[test]
fn a_false_end_at_the_edge_of_a_buffer_changes_nothing() {
    let edges = [4096_usize, 8192, 16_384, 65_536];
    nothing_else_arrives(acceptable() * edges.len() * 4, move |client| {
        for edge in edges {
            for (name, bytes, accepted) in ROWS {
                for before in 1..=4 {
                    let padding = vec![b'x'; edge - before];
                    attempt(client, name, *accepted, &[&[&padding, *bytes, SMUGGLED].concat()]);
                }
            }
        }
    });
}

#[test]
fn a_false_end_behind_the_size_limit_changes_nothing() {
    let (mut peer, address) = serving("max_message_size = 1000\nmax_errors = 1000000");
    while_serving(&mut peer, 1, move || {
        let mut client = Client::greeted(address);
        for (name, bytes, _) in ROWS {
            client.begin_data();
            client.send([&[b'x'; 2000], *bytes, SMUGGLED].concat());
            let reply = client.reply();
            assert!(reply.starts_with("552 5.3.4") || reply.starts_with("550 5.5.2"), "{name}: {reply:?}");
            assert!(client.say("VRFY x").starts_with("252 "), "{name}");
        }
        client.begin_data();
        client.send("good\r\n.\r\n");
        assert!(client.reply().starts_with("250 2.0.0"));
    });
    assert_eq!(peer.received.len(), 1);
}

#[test]
fn a_refusal_says_what_to_do() {
    let (_peer, address) = serving("");
    let mut client = Client::greeted(address);
    client.begin_data();
    client.send("Subject: from curl\n\nhello\n\r\n.\r\n");
    let reply = client.reply();
    assert!(reply.contains("bare LF") && reply.contains("curl: --crlf") && reply.contains("python"), "{reply:?}");
}

#[test]
fn a_second_message_in_the_same_write_is_not_taken() {
    let (mut peer, address) = serving("");
    while_serving(&mut peer, 1, move || {
        let mut client = Client::greeted(address);
        client.begin_data();
        client.send([HEAD, b"\r\n.\r\n", SMUGGLED].concat());
        let replies: Vec<String> = (0..4).map(|_| client.reply()).collect();
        let codes: Vec<&str> = replies.iter().map(|reply| &reply[..9]).collect();
        assert_eq!(codes, ["250 2.0.0", "250 2.1.0", "250 2.1.5", "554 5.5.0"]);
        assert!(client.is_closed());
    });
    assert_eq!(peer.received.len(), 1);
}

#[test]
fn who_does_not_wait_for_the_greeting_or_the_354_is_cut_off() {
    let (peer, address) = serving("");
    let mut client = Client::greeted(address);
    client.send("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: t\r\n\r\nx\r\n.\r\n");
    assert!(client.reply().starts_with("250") && client.reply().starts_with("250"));
    assert!(client.reply().starts_with("554 5.5.0"));
    assert!(client.is_closed());
    let mut client = Client::connect(address);
    assert!(client.reply().starts_with("220 "));
    client.send("EHLO me\r\nMAIL FROM:<a@b>\r\n");
    assert!(client.reply().starts_with("554 5.5.0"));
    assert!(client.is_closed());
    assert!(peer.received.is_empty());
}

#[test]
fn a_web_page_cannot_make_a_browser_submit() {
    let (peer, address) = serving("");
    let mut client = Client::connect(address);
    client.send("POST / HTTP/1.1\r\nHost: localhost\r\n\r\nEHLO me\r\nMAIL FROM:<a@b>\r\n");
    // Cut off before the greeting if the bytes were there by then, else at the request line.
    let reply = client.reply();
    assert!(reply.starts_with("554 ") || client.reply().starts_with("554 "));
    assert!(client.is_closed());
    assert!(peer.received.is_empty());
}

#[test]
fn spoilt_command_lines_are_one_refusal_each() {
    let (_peer, address) = serving("max_errors = 1000");
    let mut client = Client::greeted(address);
    let long = |bytes: usize| format!("NOOP {}MAIL FROM:<x@y>\r\n", "x".repeat(bytes - 22));
    let spoilt = [
        ("NOOP\nMAIL FROM:<x@y>\r\n".to_owned(), "500 5.5.2 bare LF"),
        ("NOOP\rMAIL FROM:<x@y>\r\n".to_owned(), "500 5.5.2 bare CR"),
        ("NOOP\0MAIL FROM:<x@y>\r\n".to_owned(), "500 5.5.2 NUL"),
        ("RCPT TO:<a\n@b>\r\n".to_owned(), "500 5.5.2 bare LF"),
        (long(512), "250 2.0.0"),
        (long(2048), "250 2.0.0"),
        (long(2100), "500 5.5.2 Line too long"),
        (long(200_000), "500 5.5.2 Line too long"),
    ];
    for (line, expected) in spoilt {
        client.send(line);
        let reply = client.reply();
        assert!(reply.starts_with(expected), "{reply:?}");
        assert!(client.say("VRFY x").starts_with("252 "), "after {expected}");
    }
    assert!(client.say("DATA").starts_with("503 "), "no MAIL was taken");
}
