//! Messages on their way in, whole and in pieces.

use spooler_protocol::message::{Envelope, Recipient};

use super::*;
use crate::policy::addressing::rewrite::{Map, Rewrite, Scope};

const STAMPED: &str = "Date: now\r\nFrom: s@origin.test\r\nMessage-ID: <1@box.origin.test>\r\n";
const COMPLETE: &str = "Date: d\r\nMessage-ID: <m@x>\r\n";

fn fixed(host: &str) -> Stamp {
    Stamp { date: "now".to_owned(), message_id: format!("<1@{host}>") }
}

fn addressing() -> Addressing {
    let (origin, hostname) = ("origin.test".to_owned(), "box.origin.test".to_owned());
    Addressing { origin, hostname, ..Addressing::default() }
}

fn worker(submission: bool, trace_bytes: u32) -> Admission {
    let arrival = Arrival { submission, trace_bytes, sender: "s".to_owned(), client: String::new() };
    Admission::of_worker(Arc::new(addressing()), arrival, fixed)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The message that comes of it, the same whole and cut at any one place.
fn admitted(make: impl Fn() -> Admission, message: &str) -> String {
    let bytes = Bytes::copy_from_slice(message.as_bytes());
    let whole = make().whole(bytes.clone()).unwrap();
    for cut in 0..=bytes.len() {
        let mut admission = make();
        let mut out = admission.feed(bytes.slice(..cut)).unwrap().to_vec();
        out.extend_from_slice(&admission.feed(bytes.slice(cut..)).unwrap());
        out.extend_from_slice(&admission.finish().unwrap());
        assert_eq!(text(&out), text(&whole), "cut at {cut}");
    }
    text(&whole)
}

fn submitted(message: &str) -> String {
    admitted(|| worker(true, 0), message)
}

#[test]
fn addresses_get_the_origin_in_their_places() {
    let message = format!(
        "{COMPLETE}From: root (Cron Daemon)\r\nTo: root,\r\n\tAnn <ann>, b@x (c), G: d;\r\nX-To: root\r\nCc : e\r\n\r\nTo: root\r\n"
    );
    let expected = format!(
        "{COMPLETE}From: root@origin.test (Cron Daemon)\r\nTo: root@origin.test,\r\n\tAnn <ann@origin.test>, b@x (c), \
         G: d@origin.test;\r\nX-To: root\r\nCc : e@origin.test\r\n\r\nTo: root\r\n"
    );
    assert_eq!(submitted(&message), expected);
}

#[test]
fn a_field_that_cannot_be_read_stays() {
    for field in
        ["From: root (never closed", "To: \"root", "Reply-To: John Doe", "Sender: <a", "To: <>", "From: =?utf-8?q?x?="]
    {
        let message = format!("{COMPLETE}From: a@b\r\n{field}\r\n\r\nx\r\n");
        assert_eq!(submitted(&message), message);
    }
}

#[test]
fn bcc_is_removed_with_its_folded_lines() {
    let message =
        format!("{COMPLETE}From: a@b\r\nBCC: b@x,\r\n c@x\r\nResent-Bcc: d\r\nReturn-Path: <e>\r\n\r\nBcc: body\r\n");
    assert_eq!(submitted(&message), format!("{COMPLETE}From: a@b\r\n\r\nBcc: body\r\n"));
    assert_eq!(submitted(&format!("{COMPLETE}From: a@b\r\nBcc: c")), format!("{COMPLETE}From: a@b\r\n"));
}

#[test]
fn missing_fields_are_added_behind_the_others() {
    assert_eq!(submitted("Subject: s\r\n\r\nx\r\n"), format!("Subject: s\r\n{STAMPED}\r\nx\r\n"));
    assert_eq!(submitted("Subject: s"), format!("Subject: s\r\n{STAMPED}"));
    assert_eq!(submitted(""), STAMPED);
    assert_eq!(submitted("\r\nx\r\n"), format!("{STAMPED}\r\nx\r\n"));
    let only_date = "date: d\r\nmessage-id: <m>\r\nFrom: a@b\r\n\r\n";
    assert_eq!(submitted(only_date), only_date);
}

#[test]
fn text_without_header_gets_an_empty_line() {
    for body in ["  total 12\r\nfile\r\n", "hello\r\n", "From now on\r\nall is well\r\n", "a b: c\r\n"] {
        assert_eq!(submitted(body), format!("{STAMPED}\r\n{body}"), "{body:?}");
    }
    let broken = format!("{COMPLETE}From: a@b\r\nno field\r\nTo: root\r\n");
    assert_eq!(submitted(&broken), format!("{COMPLETE}From: a@b\r\n\r\nno field\r\nTo: root\r\n"));
}

#[test]
fn text_never_joins_our_trace_header() {
    let trace = "Received: by x\r\n\tfolded\r\n";
    let bytes = u32::try_from(trace.len()).unwrap();
    for submission in [false, true] {
        let of = |body: &str| admitted(|| worker(submission, bytes), &format!("{trace}{body}"));
        let added = if submission { STAMPED } else { "" };
        for body in ["  total 12\r\n", "hello\r\n", "From x y\r\ntext\r\n"] {
            assert_eq!(of(body), format!("{trace}{added}\r\n{body}"), "{body:?}");
        }
        assert_eq!(of("\r\nx\r\n"), format!("{trace}{added}\r\nx\r\n"));
    }
}

#[test]
fn the_first_line_of_an_mbox_is_removed() {
    for first in ["From a@b Mon Jan 1\r\n", ">From a@b Mon Jan 1\r\n"] {
        let rest = format!("{COMPLETE}From: a@b\r\n\r\nFrom c\r\n");
        assert_eq!(submitted(&format!("{first}{rest}")), rest);
    }
}

#[test]
fn messages_that_are_passed_on_stay() {
    for message in
        ["To: root\r\nBcc: a\r\n\r\nx", "no header\r\n", "From x\r\nA: 1\r\n", "", "A: 1\r\nno field\r\n", "\0\n\r"]
    {
        assert_eq!(admitted(|| worker(false, 0), message), message);
    }
}

#[test]
fn a_message_that_needs_nothing_is_not_copied() {
    let message = Bytes::from(format!("{COMPLETE}From: a@b\r\nTo: c@d\r\n\r\nx\r\n"));
    assert_eq!(worker(true, 0).whole(message.clone()).unwrap().as_ptr(), message.as_ptr());
    let mut admission = worker(true, 0);
    assert_eq!(admission.feed(message.clone()).unwrap().as_ptr(), message.as_ptr());
    let body = Bytes::from_static(b"body");
    assert_eq!(admission.feed(body.clone()).unwrap().as_ptr(), body.as_ptr());
}

#[test]
fn local_messages_say_who_handed_them_in() {
    let local = |recipient: &str, message: &str| {
        let recipients = vec![Recipient::new(recipient.parse().unwrap())];
        let envelope = Envelope { sender: "s".to_owned(), recipients, ..Envelope::default() };
        let as_is = message.starts_with("As-Is:");
        let submit = Submit { envelope, as_is };
        admitted(|| Admission::local(Arc::new(addressing()), &submit, 1000, fixed), message)
    };
    let trace = "Received: by box.origin.test (spooler, from userid 1000);\r\n\tnow\r\n";
    assert_eq!(local("root", "hello\r\n"), format!("{trace}{STAMPED}\r\nhello\r\n"));
    assert_eq!(local("FAX:+1", "%PDF-1.4\r\n"), "%PDF-1.4\r\n", "what is no mail stays");
    assert_eq!(local("root", "As-Is: yes\r\nBcc: y\r\n\r\n"), "As-Is: yes\r\nBcc: y\r\n\r\n");
    assert_eq!(local("FAX:+1", "To: x\r\nBcc: y\r\n\r\n"), "To: x\r\n\r\n");
}

#[test]
fn loops_break_and_long_ways_hold() {
    let hops = |count: usize| "received: by x\r\n\tfolded\r\n".repeat(count) + "\r\nReceived: in the body\r\n";
    let whole = |count| worker(false, 0).whole(hops(count).into());
    assert!(whole(100).is_ok());
    assert_eq!(whole(101).unwrap_err().enhanced, "5.4.6");
    let mut admission = worker(false, 0);
    let pieces = hops(101).into_bytes();
    assert!(pieces.chunks(50).any(|piece| admission.feed(Bytes::copy_from_slice(piece)).is_err()), "in pieces as well");
}

#[test]
fn a_field_longer_than_memory_allows_goes_through() {
    let long = "a@b,\r\n ".repeat(FIELD_BYTES_MAX / 4) + "root\r\n";
    let message = format!("{COMPLETE}From: root\r\nTo: {long}Bcc: {long}Cc: root\r\n\r\nx\r\n");
    let mut admission = worker(true, 0);
    let (mut out, mut held_most) = (Vec::new(), 0);
    for piece in message.as_bytes().chunks(1000) {
        out.extend_from_slice(&admission.feed(Bytes::copy_from_slice(piece)).unwrap());
        held_most = held_most.max(admission.held.len());
    }
    out.extend_from_slice(&admission.finish().unwrap());
    let expected = format!("{COMPLETE}From: root@origin.test\r\nTo: {long}Cc: root@origin.test\r\n\r\nx\r\n");
    assert!(text(&out) == expected, "long fields go as they are, Bcc goes away");
    assert!(held_most <= FIELD_BYTES_MAX + 1000, "{held_most}");
}

#[test]
fn rewriting_changes_the_header_too() {
    let map = |from: &str, to: &str| Map::new(vec![(from.to_owned(), to.to_owned())], "origin.test", Scope::Both);
    let rewrite = Rewrite {
        sender: map("root", "alerts@example.org"),
        recipient: map("@old.test", "@new.test"),
        masquerade: vec!["example.net".to_owned()],
        ..Rewrite::default()
    };
    let addressing = Arc::new(Addressing { rewrite, ..addressing() });
    let make = || {
        let arrival = Arrival { submission: true, trace_bytes: 0, sender: "root".to_owned(), client: String::new() };
        Admission::of_worker(Arc::clone(&addressing), arrival, fixed)
    };
    let message = format!(
        "{COMPLETE}From: \"root\" <root> (x)\r\nReply-To: a@h.example.net, b\r\nTo: root, C <c@old.test>\r\n\r\n"
    );
    let expected = format!(
        "{COMPLETE}From: \"root\" <alerts@example.org> (x)\r\nReply-To: a@example.net, b@origin.test\r\nTo: root@origin.test, \
         C <c@new.test>\r\n\r\n"
    );
    assert_eq!(admitted(make, &message), expected);
    assert!(
        admitted(make, "A: 1\r\n\r\n").contains("From: alerts@example.org\r\n"),
        "the one that is added is rewritten"
    );
}

/// Real messages: the body is untouched, and so is every field but those with addresses.
#[test]
fn real_messages_keep_their_bytes() {
    let shared = std::env::var("SPOOLER_SHARED").unwrap_or_else(|_| "../shared".to_owned());
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(shared).join("corpus");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("skipped: there is no {}", folder.display());
        return;
    };
    let mut messages = 0;
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()) {
        let Ok(message) = crate::line_ends::with_crlf(&std::fs::read(&path).unwrap()) else { continue };
        let message = Bytes::from(message);
        let passed = worker(false, 0).whole(message.clone()).unwrap();
        assert_eq!(passed, message, "{}", path.display());
        let whole = worker(true, 0).whole(message.clone()).unwrap();
        let mut admission = worker(true, 0);
        let mut out = Vec::new();
        for piece in message.chunks(777) {
            out.extend_from_slice(&admission.feed(Bytes::copy_from_slice(piece)).unwrap());
        }
        out.extend_from_slice(&admission.finish().unwrap());
        assert!(out == whole, "{}", path.display());
        if let Some(end) = memchr::memmem::find(&message, b"\r\n\r\n") {
            assert!(whole.ends_with(&message[end + 2..]), "{}", path.display());
        }
        messages += 1;
    }
    assert!(messages > 0, "{} holds messages", folder.display());
}

#[test]
fn messages_keep_their_body_when_completed() {
    const WORDS: [&str; 20] = [
        "From: ",
        "To: ",
        "Bcc: ",
        "Date: d",
        "Message-ID: <m>",
        "From x",
        ">From y",
        "Subject : s",
        "root",
        "a@b",
        "\"",
        "(",
        ")",
        "<",
        ">",
        ",",
        "\r\n",
        "\r\n",
        "\r\n\t",
        "\r\n\r\n",
    ];
    let mut random = fastrand::Rng::with_seed(23);
    for _ in 0..5_000 {
        let message: String = (0..random.usize(0..16)).map(|_| *random.choice(&WORDS).unwrap()).collect();
        let bytes = Bytes::from(message.clone());
        let whole = worker(true, 0).whole(bytes.clone()).unwrap();
        let cut = random.usize(0..=bytes.len());
        let mut admission = worker(true, 0);
        let mut out = admission.feed(bytes.slice(..cut)).unwrap().to_vec();
        out.extend_from_slice(&admission.feed(bytes.slice(cut..)).unwrap());
        out.extend_from_slice(&admission.finish().unwrap());
        assert_eq!(text(&out), text(&whole), "{message:?} cut at {cut}");
        let body = message.find("\r\n\r\n").map_or("", |end| &message[end + 2..]);
        assert!(text(&whole).ends_with(body), "{message:?} became {:?}", text(&whole));
        assert_eq!(text(&worker(true, 0).whole(whole.clone()).unwrap()), text(&whole), "{message:?}");
        assert_eq!(worker(false, 0).whole(bytes.clone()).unwrap(), bytes);
    }
}

#[test]
fn bcc_behind_a_long_field_goes_away() {
    let long = "x".repeat(FIELD_BYTES_MAX + 10_000);
    for start in ["", "From a@x Mon Jan  1 00:00:00 2024\r\n", ">From a@x Mon Jan  1 00:00:00 2024\r\n"] {
        let message = format!("{start}X-Long: {long}\r\nBcc: hidden@x\r\nFrom: a@x\r\n\r\nFrom here on text\r\n");
        let bytes = Bytes::from(message);
        let mut admission = worker(true, 0);
        let mut out = admission.feed(bytes.slice(..FIELD_BYTES_MAX + 5_000)).unwrap().to_vec();
        out.extend_from_slice(&admission.feed(bytes.slice(FIELD_BYTES_MAX + 5_000..)).unwrap());
        out.extend_from_slice(&admission.finish().unwrap());
        let out = text(&out);
        assert!(!out.contains("hidden@x") && !out.contains("From a@x Mon"), "{start:?}");
        assert!(out.contains("X-Long: x") && out.ends_with("\r\n\r\nFrom here on text\r\n"), "{start:?}");
    }
}

#[test]
fn message_id_never_comes_from_another_field() {
    let mut admission = worker(true, 0);
    let message = "Message-ID:\r\nSubject: secret\r\nFrom: a@x\r\nDate: d\r\n\r\nhi\r\n";
    let _ = admission.feed(Bytes::from_static(message.as_bytes())).unwrap();
    assert_eq!(admission.message_id(), None);
}
