//! LMTP, over TCP and Unix sockets.

use spooler_protocol::outcome::{Cause, Outcome, SubmitResult};
use tempfile::TempDir;

use super::fake::{Act, Fake, Setup, say};
use super::replies::brief;
use super::start;
use crate::peer::Peer;

const MESSAGE: &[u8] = b"Subject: x\r\n\r\nhello\r\n";

fn lmtp(script: impl Fn(usize, &str) -> Option<Act> + Send + Sync + 'static) -> Setup {
    Setup { script: Box::new(script), lmtp: true, ..Setup::default() }
}

#[test]
fn each_accepted_recipient_has_its_reply_at_the_end() {
    let fake = Fake::start(lmtp(|_, command| match command {
        "RCPT TO:<unknown@y>" => say("550 5.1.1 unknown"),
        "." => say("250 2.0.0 stored\r\n452 4.2.2 full\r\n554 5.6.0 eek"),
        _ => None,
    }));
    let mut peer = start(&fake.settings("protocol = 'lmtp'"));
    let (result, outcomes) = peer.deliver("s@x", &["one@y", "unknown@y", "full", "bad@y"], MESSAGE);
    assert_eq!(result, SubmitResult::Done);
    let briefs = [0, 1, 2, 3].map(|index| brief(&outcomes[&index]));
    assert_eq!(briefs, ["D250", "F550", "W452", "F554"]);
    assert_eq!(fake.only().commands[0], "LHLO spooler.test");
    let (_, outcomes) = peer.deliver("s@x", &["unknown@y"], MESSAGE);
    assert_eq!(brief(&outcomes[&0]), "F550");
}

#[test]
fn those_without_a_reply_are_tried_again_when_the_connection_is_lost() {
    let fake =
        Fake::start(lmtp(|_, command| (command == ".").then(|| Act::SayAndClose("250 2.0.0 stored\r\n".to_owned()))));
    let mut peer = start(&fake.settings("protocol = 'lmtp'"));
    let (_, outcomes) = peer.deliver("s@x", &["one@y", "two@y"], MESSAGE);
    assert_eq!(brief(&outcomes[&0]), "D250");
    assert!(matches!(&outcomes[&1], Outcome::Deferred(reply) if reply.cause == Cause::Lost));
}

#[test]
fn a_server_that_knows_no_lhlo_is_no_lmtp_server() {
    let fake = Fake::scripted(|_, command| if command.starts_with("LHLO") { say("502 what") } else { None });
    let mut peer = start(&fake.settings("protocol = 'lmtp'"));
    let (result, _) = peer.deliver("s@x", &["a@y"], MESSAGE);
    assert!(matches!(&result, SubmitResult::Error(reply) if reply.code == 502), "{result:?}");
}

#[test]
fn a_unix_socket_does_as_well() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("lmtp");
    let fake = Fake::on_socket(&path, lmtp(|_, _| None));
    let settings = format!("protocol = 'lmtp'\nsocket = '{}'\nconnection_idle = '1m'", path.display());
    let (mut peer, logged_on) = Peer::logged_on("smtp", &settings);
    assert_eq!(logged_on.identity, format!("lmtp to {}", path.display()));
    for _ in 0..3 {
        let (_, outcomes) = peer.deliver("s@x", &["one", "two@y"], MESSAGE);
        assert_eq!([0, 1].map(|index| brief(&outcomes[&index])), ["D250", "D250"]);
        assert_eq!(outcomes[&0].reply().remote, path.display().to_string());
    }
    assert_eq!(fake.only().contents.len(), 3);
}

#[test]
fn bdat_ends_with_a_reply_for_each_recipient_too() {
    let fake = Fake::start(Setup { offers: vec!["CHUNKING", "PIPELINING"], ..lmtp(|_, _| None) });
    let mut peer = start(&fake.settings("protocol = 'lmtp'\nchunking = true"));
    let (_, outcomes) = peer.deliver("s@x", &["one@y", "two@y"], &b"line\r\n".repeat(50_000));
    assert_eq!([0, 1].map(|index| brief(&outcomes[&index])), ["D250", "D250"]);
}
