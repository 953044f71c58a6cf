//! What the mail log says of messages.

use spooler_protocol::calls::Wishes;
use spooler_protocol::control::QueueAction;
use spooler_protocol::from_worker::FromWorker;
use spooler_protocol::ids::MessageId;
use spooler_protocol::outcome::{Hop, Outcome, SubmitResult};

use super::bench::{Bench, reply, smtp};
use crate::supervisor::event::Ask;
use crate::supervisor::mail::{Attempt, Change, Delays, Fate, MailEvent};

const ONE: &str = "[provider.a]\nkind = 'smtp'\n[retry]\nfirst = '1m'\nmax_age = '1h'\n";

fn one() -> Bench {
    Bench::ready(ONE, &[("a", smtp(Wishes::default()))])
}

fn attempt_of(event: &MailEvent) -> Option<&Attempt> {
    match event {
        MailEvent::Attempt(attempt) => Some(attempt),
        MailEvent::Accepted(_) | MailEvent::Changed(_) => None,
    }
}

fn attempts(bench: &Bench) -> Vec<&Attempt> {
    bench.mail.iter().filter_map(attempt_of).collect()
}

fn changes(bench: &Bench) -> Vec<(MessageId, Change, Option<u32>)> {
    let of = |event: &MailEvent| match event {
        MailEvent::Changed(changed) => Some((changed.id, changed.change, changed.uid)),
        MailEvent::Accepted(_) | MailEvent::Attempt(_) => None,
    };
    bench.mail.iter().filter_map(of).collect()
}

#[test]
fn accepted_message_is_logged_once() {
    let mut bench = one();
    let id = bench.submit(&["x@y", "z@y"]);
    let MailEvent::Accepted(accepted) = &bench.mail[0] else { panic!("{:?}", bench.mail) };
    assert_eq!((accepted.id, accepted.client.as_str(), accepted.recipient_count), (id, "uid:1", 2));
    assert_eq!(accepted.recipients, ["x@y", "z@y"]);
    assert_eq!(bench.mail.len(), 1);
}

#[test]
fn each_recipient_is_logged_when_an_attempt_ends() {
    let mut bench = one();
    let id = bench.submit(&["x@y", "z@y", "u@y"]);
    let order = bench.delivery("a");
    bench.pass(700);
    let hop = Hop { connecting_ms: 200, transfer_ms: 99_999, ..Hop::default() };
    let outcomes = vec![
        (0, Outcome::Relayed { reply: reply(250, "ok").by(hop), reports: false }),
        (1, Outcome::Failed(reply(550, "no"))),
    ];
    let delivery = order.delivery;
    bench.say("a", FromWorker::Settled { delivery, outcomes });
    bench.finish("a", &order, SubmitResult::Error(reply(451, "later")));
    let logged: Vec<_> =
        attempts(&bench).iter().map(|attempt| (attempt.index, attempt.fate, attempt.reply.code)).collect();
    assert_eq!(logged, [(0, Fate::Relayed, 250), (1, Fate::Failed, 550), (2, Fate::Deferred, 451)]);
    let first = attempts(&bench)[0];
    // More than the whole attempt is not believed.
    assert_eq!(first.delays, Delays { total: 700, in_queue: 0, connecting: 200, transfer: 500 });
    assert_eq!((first.id, first.number, first.provider.as_str()), (id, 1, "a"));
    assert!(attempts(&bench)[2].next_try_ms.is_some());
}

#[test]
fn people_are_named_by_uid() {
    let mut bench = one();
    let (held, deleted) = (bench.submit(&["x@y"]), bench.submit(&["x@y"]));
    for _ in [held, deleted] {
        let order = bench.delivery("a");
        bench.finish("a", &order, SubmitResult::Error(reply(451, "later")));
    }
    bench.ask(Ask::Queue(QueueAction::Hold, vec![held], 7));
    bench.ask(Ask::Queue(QueueAction::Release, vec![held], 8));
    bench.ask(Ask::Queue(QueueAction::Delete, vec![deleted], 9));
    bench.ask(Ask::Queue(QueueAction::Delete, vec![deleted], 9));
    let expected =
        [(held, Change::Held, Some(7)), (held, Change::Released, Some(8)), (deleted, Change::Deleted, Some(9))];
    assert_eq!(changes(&bench), expected);
}

#[test]
fn expiry_is_logged_before_the_failures() {
    let mut bench = one();
    let id = bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    bench.pass(3_600_000);
    bench.finish("a", &order, SubmitResult::Error(reply(451, "later")));
    assert_eq!(changes(&bench), [(id, Change::Expired, None)]);
    let last = attempts(&bench)[0];
    assert_eq!((last.fate, last.next_try_ms), (Fate::Failed, None));
}

#[test]
fn cancelled_recipients_are_logged_as_such() {
    let mut bench = one();
    let id = bench.submit(&["x@y", "z@y"]);
    let order = bench.delivery("a");
    bench.ask(Ask::Queue(QueueAction::Cancel, vec![id], 3));
    bench.finish("a", &order, SubmitResult::Cancelled);
    let logged: Vec<_> = attempts(&bench).iter().map(|attempt| (attempt.index, attempt.fate)).collect();
    assert_eq!(logged, [(0, Fate::Cancelled), (1, Fate::Cancelled)]);
    assert_eq!(changes(&bench), [(id, Change::Cancelled, Some(3))]);
}
