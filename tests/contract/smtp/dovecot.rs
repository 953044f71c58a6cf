//! Dovecot's LMTP server. Some versions of it take `LF.LF` for the end of a message and what follows for commands, which makes it the
//! best witness that nothing of the kind leaves this machine.

use spooler_protocol::outcome::SubmitResult;

use super::content::normalised;
use super::replies::brief;
use super::start;
use crate::data;
use crate::dovecot::Dovecot;

fn settings(dovecot: &Dovecot) -> String {
    format!("protocol = 'lmtp'\nsocket = '{}'\nconnection_idle = '1m'", dovecot.socket().display())
}

#[test]
fn dovecot_finds_one_message_in_each_smuggling_attempt() {
    let test = "dovecot_finds_one_message_in_each_smuggling_attempt";
    let Some(dovecot) = Dovecot::start(test) else { return };
    let mut peer = start(&settings(&dovecot));
    let vectors: [&[u8]; 6] = [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r\r\n", b"\r\n.\0\r\n", b"\r.\r"];
    let tail = b"MAIL FROM:<smug@x>\r\nRCPT TO:<victim@y>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n";
    for vector in vectors {
        let content = [b"Subject: t\r\n\r\nline one".as_slice(), vector, tail].concat();
        let (result, outcomes) = peer.deliver("s@x", &["one@y", "two@y"], &content);
        assert_eq!(result, SubmitResult::Done);
        assert_eq!([0, 1].map(|index| brief(&outcomes[&index])), ["D250", "D250"]);
    }
    assert_eq!((dovecot.messages("one@y").len(), dovecot.messages("two@y").len()), (vectors.len(), vectors.len()));
    assert!(!dovecot.knows("victim@y"));
}

#[test]
fn dovecot_stores_real_messages_as_they_were() {
    let test = "dovecot_stores_real_messages_as_they_were";
    let files: Vec<_> = data::corpus().into_iter().step_by(10).collect();
    if files.is_empty() {
        eprintln!("skipped: {test}");
        return;
    }
    let Some(dovecot) = Dovecot::start(test) else { return };
    let mut peer = start(&settings(&dovecot));
    for (number, file) in files.iter().enumerate() {
        let content = std::fs::read(file).unwrap();
        let user = format!("user{number}@y");
        let (_, outcomes) = peer.deliver("s@x", &[&user], &content);
        assert_eq!(brief(&outcomes[&0]), "D250", "{}: {outcomes:?}", file.display());
        let messages = dovecot.messages(&user);
        let [stored] = messages.as_slice() else { panic!("{} messages", messages.len()) };
        let mut expected = normalised(&content);
        expected.retain(|&byte| byte != b'\r');
        assert!(stored.ends_with(&expected), "{}", file.display());
    }
}
