use spooler_protocol::ids::{DeliveryId, MessageId};
use spooler_protocol::outcome::Cause;

use super::*;
use crate::supervisor::mail::Delays;

fn attempt(fate: Fate, text: &str) -> Attempt {
    let hop = Hop { peer: "192.0.2.1:25".to_owned(), tls: "TLSv1.3".to_owned(), ..Hop::default() };
    let reply =
        Reply { cause: Cause::Remote, remote: "mx.example[192.0.2.1]".to_owned(), ..Reply::local(250, "", text) };
    Attempt {
        id: MessageId(42),
        delivery: DeliveryId(1),
        index: 0,
        number: 2,
        fate,
        provider: "relay".to_owned(),
        reply: reply.by(hop),
        delays: Delays { total: 61_310, in_queue: 61_000, connecting: 110, transfer: 200 },
        next_try_ms: None,
    }
}

fn envelope() -> Envelope {
    let mut recipient = Recipient::new("admin@example.org".parse().unwrap());
    recipient.orcpt = Some("rfc822;root+2Bcron@vm".to_owned());
    Envelope { recipients: vec![recipient], ..Envelope::default() }
}

fn logfmt(event: &MailEvent, envelope: Option<&Envelope>) -> String {
    let mut out = String::new();
    Line::new(event, envelope).logfmt(&mut out);
    out
}

#[test]
fn attempt_names_everything_about_the_recipient() {
    let event = MailEvent::Attempt(Box::new(attempt(Fate::Relayed, "Ok: queued as 4XyZ")));
    assert_eq!(
        logfmt(&event, Some(&envelope())),
        "id=42 event=attempt status=relayed from=<> to=admin@example.org orig_to=root+cron@vm provider=relay \
         remote=mx.example[192.0.2.1]:25 dsn=2.0.0 code=250 reply=\"Ok: queued as 4XyZ\" remote_id=4XyZ delay=61.310 \
         in_queue=61.000 connecting=0.110 transfer=0.200 tls=TLSv1.3 attempt=2"
    );
}

#[test]
fn remote_has_the_port_of_its_connection() {
    for (named, peer, shown) in [
        ("mx.example[192.0.2.1]", "192.0.2.1:25", "mx.example[192.0.2.1]:25"),
        ("192.0.2.1", "192.0.2.1:587", "192.0.2.1:587"),
        ("2001:db8::1", "[2001:db8::1]:25", "[2001:db8::1]:25"),
        ("/run/lmtp", "/run/lmtp", "/run/lmtp"),
        ("/home/me/mail", "", "/home/me/mail"),
        ("", "192.0.2.1:25", "192.0.2.1:25"),
    ] {
        let reply = Reply { remote: named.to_owned(), ..Reply::local(250, "", "") };
        assert_eq!(remote(&reply.by(Hop { peer: peer.to_owned(), ..Hop::default() })), shown);
    }
}

#[test]
fn hostile_reply_stays_one_field_everywhere() {
    let hostile = "no\nid=1 event=accepted\u{202e}\u{9b}2J\" status=relayed";
    let event = MailEvent::Attempt(Box::new(attempt(Fate::Failed, hostile)));
    let line = Line::new(&event, None);
    let mut json = String::new();
    line.json(Some("now"), &mut json);
    let shown = logfmt(&event, None);
    assert!(!shown.contains(text::is_unsafe) && !json.contains(text::is_unsafe), "{shown} {json}");
    let read: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(read["reply"], hostile.replace('\n', " / "));
    assert_eq!((&read["id"], &read["status"], &read["delay"]), (&42.into(), &"failed".into(), &61.31.into()));
    assert!(shown.contains(r#"\" status=relayed""#), "{shown}");
    assert!(line.journal_fields().all(|(_, value)| !value.contains(text::is_unsafe)));
}

#[test]
fn many_recipients_are_counted_not_listed() {
    let accepted = Accepted {
        id: MessageId(7),
        sender: "a@b".to_owned(),
        recipients: vec!["x@y".to_owned(), "z@y".to_owned()],
        recipient_count: 900,
        size: 10,
        client: "uid:1000".to_owned(),
        origin: "uid 1000".to_owned(),
        message_id: Some("<1@b>".to_owned()),
    };
    assert_eq!(
        logfmt(&MailEvent::Accepted(Box::new(accepted)), None),
        "id=7 event=accepted from=a@b to=\"x@y,z@y,+898 more\" nrcpt=900 size=10 client=uid:1000 via=local message_id=<1@b>"
    );
}

#[test]
fn kinds_of_lines_are_told_apart() {
    let fates = [Fate::Delivered, Fate::Relayed, Fate::Deferred, Fate::Failed, Fate::Cancelled];
    let attempts = fates.map(|fate| MailEvent::Attempt(Box::new(attempt(fate, ""))));
    let changes = [
        Change::Expired,
        Change::Declined,
        Change::Quarantined,
        Change::Held,
        Change::Released,
        Change::Deleted,
        Change::Cancelled,
    ];
    let changes = changes.map(|change| {
        MailEvent::Changed(Box::new(Changed { id: MessageId(1), change, uid: Some(0), why: String::new() }))
    });
    let kinds: std::collections::BTreeSet<&str> =
        attempts.iter().chain(&changes).map(|event| Line::new(event, None).kind).collect();
    assert_eq!(kinds.len(), attempts.len() + changes.len());
    assert!(kinds.iter().all(|kind| kind.len() == 32 && kind.bytes().all(|byte| byte.is_ascii_hexdigit())));
    assert_eq!(logfmt(&changes[3], None), "id=1 event=held uid=0");
}
