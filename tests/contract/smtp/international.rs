//! Addresses and headers that are not ASCII, with servers that offer SMTPUTF8 and servers that do not.

use spooler_protocol::message::BodyType;

use super::fake::{Fake, Setup};
use super::replies::{briefs, submit};
use super::start;
use crate::peer::submission;

const MESSAGE: &[u8] = b"Subject: x\r\n\r\nhello\r\n";

fn plain_server() -> Fake {
    Fake::start(Setup { offers: vec!["8BITMIME", "PIPELINING"], ..Setup::default() })
}

fn utf8_server() -> Fake {
    Fake::start(Setup { offers: vec!["8BITMIME", "SMTPUTF8"], ..Setup::default() })
}

/// What became of a message whose client said SMTPUTF8, and its MAIL command.
fn outcome(fake: &Fake, sender: &str, content: &str) -> (String, Vec<String>) {
    let mut message = submission(1, sender, &["a@y"], content.as_bytes());
    (message.smtputf8, message.body) = (true, BodyType::EightBit);
    let (_, outcomes) = submit(&mut start(&fake.settings("")), message);
    let mail = fake.only().commands.into_iter().filter(|command| command.starts_with("MAIL")).collect();
    (briefs(&outcomes).concat(), mail)
}

#[test]
fn client_word_alone_needs_no_smtputf8() {
    let parts = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nX: y\r\n\r\n";
    let ascii = format!("{parts}\u{fc}\r\n--b--\r\n");
    let large = format!("{parts}{}--b\r\nContent-Description: \u{fc}\r\n\r\nx\r\n--b--\r\n", "line\r\n".repeat(40_000));
    for (sender, content, needed) in [
        ("s@x", "Subject: plain ascii\r\n\r\nh\u{fc}\r\n", false),
        ("s@x", &ascii, false),
        ("s@ex\u{e4}mple.example", "Subject: x\r\n\r\n", false),
        ("s@x", "Subject: gr\u{fc}n\r\n\r\nhi\r\n", true),
        ("s@x", &large, true),
        ("s\u{fc}@x", "Subject: x\r\n\r\n", true),
    ] {
        let (seen, mail) = outcome(&plain_server(), sender, content);
        assert_eq!(seen, if needed { "0F553" } else { "0R250" }, "{sender} {:.60}", content);
        assert_eq!(mail.len(), usize::from(!needed));
        let (seen, mail) = outcome(&utf8_server(), sender, content);
        assert_eq!((seen.as_str(), mail[0].contains(" SMTPUTF8")), ("0R250", needed), "{mail:?}");
    }
}

#[test]
fn ascii_recipients_are_served_beside_others() {
    let fake = plain_server();
    let mut peer = start(&fake.settings(""));
    let (_, outcomes) = peer.deliver("s@x", &["j\u{f6}rg@y", "ok@y", "\u{f6}@y"], MESSAGE);
    assert_eq!(briefs(&outcomes), ["0F553", "1R250", "2F553"]);
    assert_eq!((outcomes[&0].reply().enhanced.as_str(), fake.only().contents.len()), ("5.6.7", 1));
    assert_eq!(fake.only().commands[1..3], ["MAIL FROM:<s@x>", "RCPT TO:<ok@y>"]);
    // Without any that it can take, the server hears nothing of the message, and the session goes on.
    let (_, outcomes) = peer.deliver("s@x", &["\u{f6}@y"], MESSAGE);
    assert_eq!((briefs(&outcomes).concat().as_str(), fake.only().count("MAIL")), ("0F553", 1));
    let (_, outcomes) = peer.deliver("s@x", &["b@y"], MESSAGE);
    assert_eq!((briefs(&outcomes).concat().as_str(), fake.only().count("MAIL")), ("0R250", 2));
}

#[test]
fn domain_goes_out_in_a_labels() {
    let fake = plain_server();
    let (_, outcomes) = start(&fake.settings("")).deliver("s@x", &["a@ex\u{e4}mple.example"], MESSAGE);
    assert_eq!(briefs(&outcomes), ["0R250"]);
    assert_eq!(fake.only().commands[1..3], ["MAIL FROM:<s@x>", "RCPT TO:<a@xn--exmple-cua.example>"]);
}

#[test]
fn smtputf8_is_asked_for_where_needed() {
    let fake = utf8_server();
    let (_, outcomes) = start(&fake.settings("")).deliver("s@x", &["\u{e4}@y"], MESSAGE);
    assert_eq!(briefs(&outcomes), ["0R250"]);
    assert_eq!(fake.only().commands[1..3], ["MAIL FROM:<s@x> SMTPUTF8", "RCPT TO:<\u{e4}@y>"]);
}
