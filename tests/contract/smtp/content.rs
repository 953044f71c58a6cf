//! What becomes of the bytes of a message on their way out.

use spooler_protocol::outcome::{Outcome, SubmitResult};

use super::fake::{Fake, Setup, unstuffed};
use super::start;
use crate::data;
use crate::peer::Peer;

/// The wire form without dots, computed in another way than the provider does: byte by byte over the whole.
pub(super) fn normalised(content: &[u8]) -> Vec<u8> {
    let mut clean = Vec::new();
    for (at, &byte) in content.iter().enumerate() {
        let (before, after) = (at.checked_sub(1).map(|at| content[at]), content.get(at + 1));
        match byte {
            b'\n' if before == Some(b'\r') => clean.push(b'\n'),
            b'\n' => clean.extend_from_slice(b"\r\n"),
            b'\r' if after == Some(&b'\n') => clean.push(b'\r'),
            b'\r' | 0 => clean.push(b' '),
            other => clean.push(other),
        }
    }
    if !clean.is_empty() && !clean.ends_with(b"\n") {
        clean.extend_from_slice(b"\r\n");
    }
    clean
}

fn send(peer: &mut Peer, content: &[u8]) {
    let (result, outcomes) = peer.deliver("s@x", &["a@y"], content);
    assert_eq!(result, SubmitResult::Done);
    assert!(matches!(outcomes[&0], Outcome::Relayed { .. }), "{outcomes:?}");
}

fn check_wire(wire: &[u8], content: &[u8]) {
    let body = wire.strip_suffix(b".\r\n").unwrap();
    assert!(memchr::memchr(0, wire).is_none());
    for at in memchr::memchr2_iter(b'\r', b'\n', wire) {
        let (before, after) = (at.checked_sub(1).map(|at| wire[at]), wire.get(at + 1));
        assert!(
            if wire[at] == b'\r' { after == Some(&b'\n') } else { before == Some(b'\r') },
            "a bare line end at {at}"
        );
    }
    assert!(memchr::memmem::find(body, b"\r\n.\r\n").is_none() && !body.starts_with(b".\r\n"), "an early end");
    assert!(unstuffed(wire) == normalised(content), "not the same content");
}

#[test]
fn dots_and_line_ends_byte_for_byte() {
    let fake = Fake::obliging();
    let mut peer = start(&fake.settings("connection_idle = '1m'"));
    let rows: [(&[u8], &[u8]); 7] = [
        (b"a\r\n", b"a\r\n.\r\n"),
        (b"a\n.b\n.\n", b"a\r\n..b\r\n..\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b"a\r.\r\nb", b"a .\r\nb\r\n.\r\n"),
        (b"a\r\n.\r\r\nMAIL FROM:<x@y>\r\n", b"a\r\n.. \r\nMAIL FROM:<x@y>\r\n.\r\n"),
        (b"a\r\n\0.\r\n.\0\r\n", b"a\r\n .\r\n.. \r\n.\r\n"),
        (b"", b".\r\n"),
    ];
    for (content, _) in rows {
        send(&mut peer, content);
    }
    let wire: Vec<_> = fake.only().contents.iter().map(|content| content.escape_ascii().to_string()).collect();
    assert_eq!(wire, rows.map(|(_, wire)| wire.escape_ascii().to_string()));
}

#[test]
fn no_smuggling_vector_leaves_this_machine() {
    let fake = Fake::obliging();
    let mut peer = start(&fake.settings("connection_idle = '1m'"));
    let vectors: [&[u8]; 14] = [
        b"\n.\n",
        b"\n.\r\n",
        b"\r\n.\n",
        b"\r.\r",
        b"\r.\n",
        b"\n.\r",
        b"\r.\r\n",
        b"\r\n.\r",
        b"\r\n.\r\r\n",
        b"\r\r\n.\r\r\n",
        b"\r\n\0.\r\n",
        b"\r\n.\0\r\n",
        b"\r\n. \r\n",
        b"\r\n.\r\n",
    ];
    let tail = b"MAIL FROM:<smug@x>\r\nRCPT TO:<b@y>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n";
    for vector in vectors {
        send(&mut peer, &[b"Subject: t\r\n\r\nline one".as_slice(), vector, tail].concat());
    }
    let heard = fake.only();
    assert_eq!((heard.contents.len(), heard.count("MAIL FROM:<smug")), (vectors.len(), 0));
    for (wire, vector) in heard.contents.iter().zip(vectors) {
        check_wire(wire, &[b"Subject: t\r\n\r\nline one".as_slice(), vector, tail].concat());
    }
}

#[test]
fn large_messages_come_in_chunks_and_leave_whole() {
    let fake = Fake::obliging();
    let mut peer = start(&fake.settings("connection_idle = '1m'"));
    // Every size class, and oddities on both sides of each border: the inline limit, 60 KiB chunks, 32 KiB writes.
    let mut contents = Vec::new();
    for border in [32 << 10, 60 << 10, 128 << 10, 180 << 10] {
        for oddity in [b"\r\n.\r\n".as_slice(), b"\n.\n", b"\r.\r\n", b"\r\n..x"] {
            for shift in 0..oddity.len() {
                let mut content = b"0123456789abcdefghijklmnopqrstuvwxyz\r\n".repeat(1 + (border + 4096) / 38);
                content.truncate(border + 4096);
                let at = border - shift;
                content[at..at + oddity.len()].copy_from_slice(oddity);
                contents.push(content);
            }
        }
    }
    contents.push(vec![b'.'; 200_000]);
    contents.push(b".\n".repeat(100_000));
    for content in &contents {
        send(&mut peer, content);
    }
    let heard = fake.only();
    assert_eq!(heard.contents.len(), contents.len());
    for (wire, content) in heard.contents.iter().zip(&contents) {
        check_wire(wire, content);
    }
}

#[test]
fn long_lines_are_sent_unchanged() {
    let fake = Fake::obliging();
    let mut peer = start(&fake.settings("connection_idle = '1m'"));
    for length in [998, 999, 1000, 1001, 100_000] {
        let line = [vec![b'x'; length], b"\r\n".to_vec()].concat();
        send(&mut peer, &line);
        assert!(unstuffed(fake.only().contents.last().unwrap()) == line);
    }
}

#[test]
fn bdat_is_used_where_it_is_wanted_and_offered() {
    let offers = vec!["CHUNKING", "PIPELINING"];
    let fake = Fake::start(Setup { offers, ..Setup::default() });
    let mut peer = start(&fake.settings("chunking = true\nconnection_idle = '1m'"));
    let contents = [b"a\n.\n".to_vec(), Vec::new(), b".line\r\n".repeat(40_000)];
    for content in &contents {
        send(&mut peer, content);
    }
    let heard = fake.only();
    assert_eq!(heard.count("DATA"), 0);
    assert_eq!(heard.commands[1..4], ["MAIL FROM:<s@x>", "RCPT TO:<a@y>", "BDAT 6 LAST"]);
    assert!(heard.count("BDAT") > 4, "the large one goes in several chunks");
    assert_eq!(heard.contents.len(), contents.len());
    for (wire, content) in heard.contents.iter().zip(&contents) {
        assert!(*wire == normalised(content));
    }

    let fake = Fake::obliging();
    let mut peer = start(&fake.settings("chunking = true"));
    send(&mut peer, b"x");
    assert_eq!((fake.only().count("BDAT"), fake.only().count("DATA")), (0, 1));
}

#[test]
fn real_messages_arrive_as_they_were() {
    let files: Vec<_> = data::own_messages().into_iter().chain(data::corpus()).collect();
    let fake = Fake::obliging();
    let mut peer = start(&fake.settings("connection_idle = '1m'\nmessages_per_connection = 1000000"));
    let contents: Vec<_> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    for content in &contents {
        send(&mut peer, content);
    }
    let heard = fake.only();
    assert_eq!(heard.contents.len(), contents.len());
    for (wire, content) in heard.contents.iter().zip(&contents) {
        check_wire(wire, content);
    }
}
