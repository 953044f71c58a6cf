//! What each reply means for whom, and what is said to which server.

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, mpsc};

use spooler_protocol::ids::DeliveryId;
use spooler_protocol::message::{BodyType, Notify, Ret};
use spooler_protocol::notification::Notification;
use spooler_protocol::outcome::{Cause, Outcome, Reply, SubmitResult};
use spooler_protocol::to_worker::{Submission, ToWorker};

use super::fake::{Act, Fake, Setup, say};
use super::start;
use crate::peer::{Peer, submission};

const MESSAGE: &[u8] = b"Subject: x\r\n\r\nhello\r\n";

fn relayed(outcome: &Outcome) -> &Reply {
    match outcome {
        Outcome::Relayed { reply, .. } => reply,
        other => panic!("not relayed: {other:?}"),
    }
}

/// `D550`, `F421`, … : the kind of an outcome and its code.
pub(super) fn brief(outcome: &Outcome) -> String {
    let letter = match outcome {
        Outcome::Delivered(_) => 'D',
        Outcome::Relayed { .. } => 'R',
        Outcome::Failed(_) => 'F',
        Outcome::Deferred(_) => 'W',
    };
    format!("{letter}{}", outcome.reply().code)
}

pub(super) fn briefs(outcomes: &HashMap<u32, Outcome>) -> Vec<String> {
    let mut sorted: Vec<_> = outcomes.iter().collect();
    sorted.sort_by_key(|(index, _)| **index);
    sorted.into_iter().map(|(index, outcome)| format!("{index}{}", brief(outcome))).collect()
}

pub(super) fn submit(peer: &mut Peer, submission: Submission) -> (SubmitResult, HashMap<u32, Outcome>) {
    let delivery = submission.delivery.0;
    peer.say(&ToWorker::Submit(Box::new(submission)));
    peer.finished(delivery)
}

#[test]
fn commands_travel_together_where_the_server_allows_it() {
    let fake = Fake::obliging();
    let (mut peer, logged_on) = Peer::logged_on("smtp", &fake.settings(""));
    assert_eq!(logged_on.identity, format!("smtp to {}", fake.address));
    assert_eq!((logged_on.address_types, logged_on.credit), (vec!["SMTP".to_owned()], 20));
    let (result, outcomes) = peer.deliver("s@x", &["a@y", "b@y"], MESSAGE);
    assert_eq!((result, briefs(&outcomes)), (SubmitResult::Done, vec!["0R250".to_owned(), "1R250".to_owned()]));
    let reply = relayed(&outcomes[&0]);
    assert_eq!((reply.cause, reply.enhanced.as_str(), reply.text.as_str()), (Cause::Remote, "2.0.0", "message ok"));
    assert_eq!(reply.remote, "127.0.0.1");
    let heard = fake.only();
    let pieces: Vec<&str> = heard.pieces.iter().map(|piece| std::str::from_utf8(piece).unwrap()).collect();
    let envelope = "MAIL FROM:<s@x> SIZE=21\r\nRCPT TO:<a@y>\r\nRCPT TO:<b@y>\r\nDATA\r\n";
    assert_eq!(pieces, ["EHLO spooler.test\r\n", envelope, "Subject: x\r\n\r\nhello\r\n.\r\n"]);
    peer.log_off();
    fake.wait(|heard| heard[0].count("QUIT") == 1);
}

#[test]
fn commands_travel_alone_where_it_does_not() {
    let fake = Fake::start(Setup { offers: Vec::new(), ..Setup::default() });
    let mut peer = start(&fake.settings("hostname = 'me.test'"));
    let (_, outcomes) = peer.deliver("", &["a@y", "b@y"], MESSAGE);
    assert_eq!(briefs(&outcomes), ["0R250", "1R250"]);
    let pieces: Vec<_> = fake.only().pieces.iter().map(|piece| String::from_utf8(piece.clone()).unwrap()).collect();
    let one_by_one = ["EHLO me.test\r\n", "MAIL FROM:<>\r\n", "RCPT TO:<a@y>\r\n", "RCPT TO:<b@y>\r\n", "DATA\r\n"];
    assert_eq!(pieces[..5], one_by_one);
}

#[test]
fn each_recipient_has_its_own_reply_verbatim() {
    for offers in [vec!["PIPELINING"], vec![]] {
        let script = |_, command: &str| match command {
            "RCPT TO:<no@y>" => say("550-5.7.509 not\r\n550 5.7.509 you"),
            "RCPT TO:<later@y>" => say("450 4.2.0 greylisted"),
            _ => None,
        };
        let fake = Fake::start(Setup { offers, script: Box::new(script), ..Setup::default() });
        let mut peer = start(&fake.settings(""));
        let (result, outcomes) = peer.deliver("s@x", &["no@y", "yes@y", "later@y"], MESSAGE);
        assert_eq!(result, SubmitResult::Done);
        assert_eq!(briefs(&outcomes), ["0F550", "1R250", "2W450"]);
        let refusal = outcomes[&0].reply();
        assert_eq!((refusal.enhanced.as_str(), refusal.text.as_str()), ("5.7.509", "not\nyou"));
        assert_eq!(fake.only().contents.len(), 1);
    }
}

#[test]
fn a_refusal_at_any_step_is_for_those_whom_it_concerns() {
    for pipelining in [true, false] {
        for (step, code) in [
            ("MAIL", 450),
            ("MAIL", 550),
            ("RCPT", 450),
            ("RCPT", 550),
            ("DATA", 450),
            ("DATA", 554),
            (".", 451),
            (".", 554),
        ] {
            let script = move |_, command: &str| match command {
                _ if command.starts_with(step) => say(&format!("{code} 0.0 no")),
                _ if step == "MAIL" && command.starts_with("RCPT") => say("503 MAIL first"),
                _ => None,
            };
            let offers = if pipelining { vec!["PIPELINING"] } else { vec![] };
            let fake = Fake::start(Setup { offers, script: Box::new(script), ..Setup::default() });
            let mut peer = start(&fake.settings(""));
            for round in 1..=2 {
                let (result, outcomes) = peer.deliver("s@x", &["a@y", "b@y"], MESSAGE);
                let letter = if code < 500 { 'W' } else { 'F' };
                let expected = vec![format!("0{letter}{code}"), format!("1{letter}{code}")];
                assert_eq!((result, briefs(&outcomes)), (SubmitResult::Done, expected), "{step} {code}");
                let heard = fake.only();
                assert_eq!(heard.count("RSET"), if step == "." { 0 } else { round - 1 }, "{step}: {heard:?}");
            }
            let heard = fake.only();
            // Who said 354 although nobody was accepted got an empty message, and never the real one.
            let empty = pipelining && matches!(step, "MAIL" | "RCPT");
            let contents = if empty { vec![b".\r\n".to_vec(); 2] } else { Vec::new() };
            assert!(step == "." || heard.contents == contents, "{step} {code}: {heard:?}");
        }
    }
}

#[test]
fn a_server_that_contradicts_itself_gets_no_empty_message() {
    // MAIL is refused, RCPT is accepted, DATA is welcome: a dot now would be an empty message to a@y.
    let fake = Fake::scripted(|_, command| if command.starts_with("MAIL") { say("550 no") } else { None });
    let mut peer = start(&fake.settings(""));
    let (_, outcomes) = peer.deliver("s@x", &["a@y"], MESSAGE);
    assert_eq!(briefs(&outcomes), ["0F550"]);
    fake.wait(|heard| heard[0].over);
    assert!(fake.only().contents.is_empty());
}

#[test]
fn those_who_are_too_many_come_next_in_the_same_session() {
    let count = AtomicUsize::new(0);
    let fake = Fake::scripted(move |_, command| {
        if command.starts_with("MAIL") {
            count.store(0, SeqCst);
        }
        if command.starts_with("RCPT") && count.fetch_add(1, SeqCst) >= 2 { say("452 4.5.3 too many") } else { None }
    });
    let mut peer = start(&fake.settings(""));
    let (result, outcomes) = peer.deliver("s@x", &["a@y", "b@y", "c@y", "d@y", "e@y"], MESSAGE);
    assert_eq!(result, SubmitResult::Done);
    assert_eq!(briefs(&outcomes), ["0R250", "1R250", "2R250", "3R250", "4R250"]);
    assert_eq!((fake.only().count("MAIL"), fake.only().contents.len()), (3, 3));
}

#[test]
fn one_too_many_is_sent_again_after_552() {
    for (reply, again) in [
        ("552 Too many recipients", true),
        ("552 4.5.3 Too many recipients", true),
        ("550 5.5.3 Too many recipients", true),
        ("552 5.2.2 Mailbox full", false),
        ("550 Too many recipients", false),
    ] {
        let count = AtomicUsize::new(0);
        let fake = Fake::scripted(move |_, command| {
            if command.starts_with("MAIL") {
                count.store(0, SeqCst);
            }
            if command.starts_with("RCPT") && count.fetch_add(1, SeqCst) >= 1 { say(reply) } else { None }
        });
        let (result, outcomes) = start(&fake.settings("")).deliver("s@x", &["a@y", "b@y", "c@y"], MESSAGE);
        let refused = format!("F{}", reply.get(..3).unwrap());
        let expected = if again { ["R250"; 3] } else { ["R250", &refused, &refused] };
        assert_eq!(
            (result, [0, 1, 2].map(|index| brief(&outcomes[&index]))),
            (SubmitResult::Done, expected.map(str::to_owned)),
            "{reply}"
        );
        assert_eq!(fake.only().contents.len(), if again { 3 } else { 1 }, "{reply}");
    }
}

#[test]
fn first_recipient_refused_with_552_has_failed() {
    let fake =
        Fake::scripted(|_, command| if command.starts_with("RCPT") { say("552 Too many recipients") } else { None });
    let (_, outcomes) = start(&fake.settings("")).deliver("s@x", &["a@y", "b@y"], MESSAGE);
    assert_eq!(briefs(&outcomes), ["0F552", "1F552"]);
}

#[test]
fn a_thousand_recipients_never_block_both_sides() {
    let fake = Fake::obliging();
    let mut peer = start(&fake.settings(""));
    let names: Vec<String> = (0..1000).map(|n| format!("recipient-{n}@{}.example", "x".repeat(60))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (result, outcomes) = peer.deliver("s@x", &names, MESSAGE);
    assert_eq!((result, outcomes.len()), (SubmitResult::Done, 1000));
    assert!(outcomes.values().all(|outcome| brief(outcome) == "R250"));
    assert_eq!(fake.only().count("RCPT"), 1000);
    assert!(fake.only().pieces.iter().all(|piece| piece.len() < 16 * 1024));
}

#[test]
fn a_server_that_does_not_know_ehlo_gets_helo() {
    let fake = Fake::scripted(|_, command| if command.starts_with("EHLO") { say("502 what") } else { None });
    let mut peer = start(&fake.settings(""));
    let (_, outcomes) = peer.deliver("s@x", &["a@y"], MESSAGE);
    assert_eq!(briefs(&outcomes), ["0R250"]);
    assert_eq!(fake.only().commands[..3], ["EHLO spooler.test", "HELO spooler.test", "MAIL FROM:<s@x>"]);
}

#[test]
fn goodbye_in_the_middle_is_not_the_recipients_fault() {
    for step in ["MAIL", "RCPT", "DATA", "."] {
        let fake = Fake::scripted(move |number, command| {
            (number == 0 && command.starts_with(step)).then(|| Act::SayAndClose("421 4.3.2 going down\r\n".to_owned()))
        });
        let mut peer = start(&fake.settings(""));
        let (_, outcomes) = peer.deliver("s@x", &["a@y", "b@y"], MESSAGE);
        assert_eq!(briefs(&outcomes), ["0W421", "1W421"], "{step}");
        let (_, outcomes) = peer.deliver("s@x", &["a@y"], MESSAGE);
        assert_eq!((briefs(&outcomes), fake.heard().len()), (vec!["0R250".to_owned()], 2), "{step}");
    }
}

#[test]
fn report_wishes_travel_where_dsn_is_offered() {
    for dsn in [true, false] {
        let offers = if dsn { vec!["PIPELINING", "DSN", "8BITMIME"] } else { vec!["PIPELINING"] };
        let fake = Fake::start(Setup { offers, ..Setup::default() });
        let mut peer = start(&fake.settings(""));
        let mut wish = submission(7, "s@x", &["a@y", "b@y"], MESSAGE);
        wish.ret = Some(Ret::Headers);
        wish.envid = Some("id+2B1".to_owned());
        wish.body = BodyType::EightBit;
        wish.recipients[0].notify = Some(Notify { success: true, failure: true, delay: false });
        wish.recipients[0].orcpt = Some("rfc822;o@z".to_owned());
        wish.recipients[1].notify = Some(Notify::NEVER);
        let (_, outcomes) = submit(&mut peer, wish);
        assert!(matches!(outcomes[&0], Outcome::Relayed { reports, .. } if reports == dsn));
        let with = [
            "MAIL FROM:<s@x> BODY=8BITMIME RET=HDRS ENVID=id+2B1",
            "RCPT TO:<a@y> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;o@z",
            "RCPT TO:<b@y> NOTIFY=NEVER",
        ];
        let without = ["MAIL FROM:<s@x>", "RCPT TO:<a@y>", "RCPT TO:<b@y>"];
        assert_eq!(fake.only().commands[1..4], if dsn { with } else { without });
    }
}

#[test]
fn what_the_server_says_it_cannot_take_is_not_sent() {
    let fake = Fake::start(Setup { offers: vec!["SIZE 100", "PIPELINING"], ..Setup::default() });
    let mut peer = start(&fake.settings(""));
    let (_, outcomes) = peer.deliver("s@x", &["a@y"], &[b'x'; 101]);
    assert_eq!((briefs(&outcomes), outcomes[&0].reply().enhanced.as_str()), (vec!["0F552".to_owned()], "5.3.4"));
    let (_, outcomes) = peer.deliver("s@x", &["ä@y"], MESSAGE);
    assert_eq!((briefs(&outcomes), outcomes[&0].reply().enhanced.as_str()), (vec!["0F553".to_owned()], "5.6.7"));
    let (_, outcomes) = peer.deliver("s@x", &["a@y"], &[b'x'; 100]);
    assert_eq!(briefs(&outcomes), ["0R250"]);
    assert_eq!(fake.only().count("MAIL"), 1);
}

#[test]
fn an_address_cannot_add_parameters() {
    let fake = Fake::obliging();
    let mut peer = start(&fake.settings(""));
    let (_, outcomes) = peer.deliver("s@x", &["a> NOTIFY=NEVER <b@y", "a@y> NOTIFY=NEVER"], MESSAGE);
    assert_eq!(briefs(&outcomes), ["0R250", "1F553"]);
    assert_eq!(fake.only().commands[2], "RCPT TO:<\"a> NOTIFY=NEVER <b\"@y>");
}

#[test]
fn a_cancelled_message_does_not_go_out() {
    let (gate, opened) = mpsc::channel::<()>();
    let opened = Mutex::new(opened);
    let fake = Fake::scripted(move |number, command| {
        if number == 0 && command.starts_with("MAIL") {
            opened.lock().unwrap().recv().unwrap();
        }
        None
    });
    let mut peer = start(&fake.settings(""));
    peer.submit(1, "s@x", &["a@y"], MESSAGE);
    fake.wait(|heard| heard.first().is_some_and(|heard| heard.count("MAIL") == 1));
    peer.say(&ToWorker::Notify(Notification::CancelMessage(DeliveryId(1))));
    // The worker reads in order: once the next delivery is under way, it knows of the cancellation.
    peer.submit(2, "s@x", &["b@y"], MESSAGE);
    fake.wait(|heard| heard.len() == 2);
    gate.send(()).unwrap();
    assert_eq!(peer.finished(1), (SubmitResult::Cancelled, HashMap::new()));
    fake.wait(|heard| heard[0].over);
    assert!(fake.heard()[0].contents.is_empty());
}
