//! Reports take their time, and what they quote stays until they are there.

use spooler_protocol::calls::{EndMessage, StatusReport, Wishes};
use spooler_protocol::control::{QueueAction, RecipientState};
use spooler_protocol::from_worker::FromWorker;
use spooler_protocol::message::{Envelope, Notify, Recipient};
use spooler_protocol::outcome::{Outcome, SubmitResult};
use spooler_protocol::to_worker::Refusal;

use super::bench::{Bench, reply, smtp};
use crate::supervisor::event::{Answer, Ask, AskId, Event, Incoming, ReportKind, SubmitOrder};

const ONE: &str = "[provider.a]\nkind = 'smtp'\n";

/// A supervisor for which reports are not built at once.
fn bench() -> Bench {
    let mut bench = Bench::ready(ONE, &[("a", smtp(Wishes::default()))]);
    bench.reports_take_time = true;
    bench
}

fn kinds(bench: &Bench) -> Vec<ReportKind> {
    bench.reports.iter().map(|order| order.kind).collect()
}

fn ask_for_report(bench: &mut Bench, order: &SubmitOrder, place: u32) {
    let reports = vec![(place, StatusReport::Delivered(reply(250, "it was read")))];
    bench.say("a", FromWorker::StatusRecips { delivery: order.delivery, reports });
}

fn delivered() -> Outcome {
    Outcome::Delivered(reply(250, "kept"))
}

fn failed() -> Outcome {
    Outcome::Failed(reply(550, "no"))
}

#[test]
fn a_message_stays_until_the_report_that_its_provider_wants_is_on_disk() {
    let mut bench = bench();
    let id = bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    ask_for_report(&mut bench, &order, 0);
    bench.deliver("a", &order);
    assert_eq!(bench.kept(), (vec![id], 0));
    assert!(bench.calls("a").is_empty(), "it is delivered for all that");
    bench.build_report();
    assert_eq!(bench.kept(), (vec![], 1));
    assert_eq!(kinds(&bench), [ReportKind::SentAsAsked]);
}

#[test]
fn a_store_that_cannot_be_read_just_then_loses_no_report() {
    let mut bench = bench();
    let id = bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    bench.reads_to_fail = 1;
    ask_for_report(&mut bench, &order, 0);
    bench.deliver("a", &order);
    assert_eq!((bench.reports.len(), bench.kept()), (0, (vec![id], 0)));
    bench.pass(10_000);
    bench.build_report();
    assert_eq!(bench.kept(), (vec![], 1));
}

#[test]
fn a_recipient_is_not_settled_on_disk_before_its_report_is_there() {
    let mut bench = bench();
    let id = bench.submit(&["x@y", "z@y"]);
    let order = bench.delivery("a");
    ask_for_report(&mut bench, &order, 0);
    bench.say("a", FromWorker::Settled { delivery: order.delivery, outcomes: vec![(0, delivered())] });
    assert_eq!(bench.disk[&id].recipients[0].state, RecipientState::Pending);
    // The order is lost; the next one delivers again, and is asked again.
    bench.crash();
    bench.reports_take_time = true;
    bench.say("a", FromWorker::LoggedOn(smtp(Wishes::default())));
    let order = bench.delivery("a");
    assert_eq!(order.recipients, [0, 1]);
    ask_for_report(&mut bench, &order, 0);
    bench.say("a", FromWorker::Settled { delivery: order.delivery, outcomes: vec![(0, delivered())] });
    bench.build_report();
    assert_eq!((bench.disk[&id].recipients[0].state, bench.kept().1), (RecipientState::Delivered, 1));
}

#[test]
fn failure_and_success_of_one_message_are_both_told() {
    let mut bench = bench();
    let told = |bench: &Bench| bench.kept().1;
    let recipient = |text: &str| {
        let notify = Some(Notify { success: true, failure: true, delay: false });
        Recipient { notify, ..Recipient::new(text.parse().unwrap()) }
    };
    let envelope = Envelope {
        sender: "me@here".to_owned(),
        recipients: vec![recipient("x@y"), recipient("z@y")],
        ..Envelope::default()
    };
    let content = Incoming::Inline(bytes::Bytes::from_static(b"x"));
    let answer =
        bench.ask(Ask::Submit { envelope, submission: true, origin: "uid 1".to_owned(), owner_uid: 1, content });
    let Some(Answer::Submitted(Ok(id))) = answer else { panic!("{answer:?}") };
    let order = bench.delivery("a");
    bench.end("a", &order, SubmitResult::Done, EndMessage::Done, vec![(0, failed()), (1, delivered())]);
    assert_eq!((kinds(&bench), bench.kept()), (vec![ReportKind::Failed], (vec![id], 0)));
    bench.build_report();
    let states = bench.disk[&id].recipients.iter().map(|update| update.state).collect::<Vec<_>>();
    assert_eq!(states, [RecipientState::Failed, RecipientState::Pending], "each goes to disk with its report");
    assert_eq!((kinds(&bench), told(&bench)), (vec![ReportKind::Failed, ReportKind::Sent], 1));
    bench.build_report();
    assert_eq!((bench.kept(), told(&bench)), ((vec![], 2), 2));
}

#[test]
fn what_comes_later_waits_for_the_report_of_what_came_first() {
    let mut bench = bench();
    let id = bench.submit(&["x@y", "z@y"]);
    let order = bench.delivery("a");
    bench.say("a", FromWorker::Settled { delivery: order.delivery, outcomes: vec![(0, failed())] });
    bench.end("a", &order, SubmitResult::Done, EndMessage::Done, vec![(1, delivered())]);
    assert_eq!(bench.kept(), (vec![id], 0));
    bench.build_report();
    assert_eq!(bench.kept(), (vec![], 1));
}

#[test]
fn who_deletes_a_message_is_answered_when_what_is_to_be_told_of_it_is_on_disk() {
    let mut bench = bench();
    let [first, second] = ["x@y", "z@y"].map(|address| {
        let id = bench.submit(&[address, "late@y"]);
        let order = bench.delivery("a");
        let outcomes = vec![(0, failed()), (1, Outcome::Deferred(reply(450, "later")))];
        bench.end("a", &order, SubmitResult::Done, EndMessage::Done, outcomes);
        id
    });
    let ask = Event::Asked(AskId(77), Ask::Queue(QueueAction::Delete, vec![first, second], 0));
    bench.hear(ask);
    assert!(bench.answers.is_empty());
    bench.build_report();
    assert!(bench.answers.is_empty(), "there is another one");
    bench.reports.pop();
    bench.build_report();
    assert!(matches!(bench.answers.remove(&AskId(77)), Some(Answer::Queue(Ok(done))) if done.done == 2));
    assert_eq!(bench.kept(), (vec![], 2));
}

#[test]
fn a_report_that_can_never_be_kept_sets_its_message_aside() {
    let mut bench = bench();
    let id = bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    ask_for_report(&mut bench, &order, 0);
    bench.deliver("a", &order);
    bench.refuse_commits =
        Some(Refusal { temporary: true, enhanced: "4.3.0".to_owned(), text: "The database is damaged".to_owned() });
    bench.build_report();
    bench.refuse_commits = None;
    assert_eq!(bench.kept(), (vec![id], 0), "who was to be told can be told by the next one");
    bench.pass(3_600_000);
    assert!(bench.calls("a").is_empty(), "it is not delivered again and again");
    assert!(matches!(bench.ask(Ask::Queue(QueueAction::Delete, vec![id], 0)), Some(Answer::Queue(Ok(_)))));
    assert_eq!(bench.kept(), (vec![], 0));
}

#[test]
fn a_report_that_cannot_be_made_before_the_end_keeps_its_message() {
    let mut bench = bench();
    let id = bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    bench.reads_to_fail = u32::MAX;
    ask_for_report(&mut bench, &order, 0);
    bench.hear(Event::Stop);
    bench.deliver("a", &order);
    bench.die("a", "signal 15");
    assert_eq!((bench.exited, bench.kept()), (true, (vec![id], 0)));
}
