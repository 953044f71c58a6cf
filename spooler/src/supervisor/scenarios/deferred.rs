//! Messages that their provider keeps until it asks for them (END_DONT_RESEND).

use spooler_protocol::calls::{EndMessage, SpoolerNotify, Wishes};
use spooler_protocol::control::{MessageState, QueueAction};
use spooler_protocol::from_worker::{FromWorker, LoggedOn};
use spooler_protocol::ids::MessageId;
use spooler_protocol::outcome::SubmitResult;

use super::bench::{Bench, smtp};
use crate::supervisor::event::{Ask, ReportKind};

const TWO: &str = "[retry]\nmax_age = '5h'\n[provider.a]\nkind = 'smtp'\n[provider.b]\nkind = 'smtp'\n[provider.b.retry]\nfirst = '1m'\n";

/// A message that the provider `a` has deferred.
fn deferred() -> (Bench, MessageId) {
    let mut bench = Bench::ready(TWO, &[("a", smtp(Wishes::default())), ("b", smtp(Wishes::default()))]);
    let id = bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    assert!(!order.deferred_before);
    bench.end("a", &order, SubmitResult::Done, EndMessage::Deferred, vec![]);
    (bench, id)
}

fn abort(id: MessageId, cancelled: bool) -> String {
    format!("AbortDeferred {{ message: {id:?}, cancelled: {cancelled} }}")
}

#[test]
fn defer_then_sent_deferred_then_begin_deferred() {
    let (mut bench, id) = deferred();
    bench.pass(3_600_000);
    assert!(bench.calls("a").is_empty(), "it is not offered before it is asked for");
    let (state, why) = bench.state(id).unwrap();
    assert_eq!((state, why.as_str()), (MessageState::Deferred, "waits for provider a to ask for it"));
    assert_eq!(bench.row("a").deferred, 1);
    bench.notify("b", SpoolerNotify::SentDeferred(id));
    bench.notify("a", SpoolerNotify::SentDeferred(MessageId(999)));
    assert!(bench.calls("a").is_empty() && bench.calls("b").is_empty(), "others have no say in it");
    bench.notify("a", SpoolerNotify::SentDeferred(id));
    let order = bench.delivery("a");
    assert!(order.deferred_before && order.id == id);
    bench.deliver("a", &order);
    assert!(bench.disk.is_empty());
}

#[test]
fn busy_and_not_wanted_leave_it_deferred() {
    let (mut bench, id) = deferred();
    bench.notify("a", SpoolerNotify::SentDeferred(id));
    let order = bench.delivery("a");
    bench.finish("a", &order, SubmitResult::Busy);
    bench.pass(2000);
    let order = bench.delivery("a");
    assert!(order.deferred_before, "nothing was done with it");
    bench.finish("a", &order, SubmitResult::NotWanted);
    bench.pass(3_600_000);
    assert!(bench.calls("a").is_empty());
    bench.notify("a", SpoolerNotify::SentDeferred(id));
    assert!(bench.delivery("a").deferred_before);
}

#[test]
fn not_wanted_without_a_deferral_is_like_later() {
    let mut bench = Bench::ready(TWO, &[("a", smtp(Wishes::default()))]);
    bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    bench.finish("a", &order, SubmitResult::NotWanted);
    bench.pass(60_000);
    assert!(!bench.delivery("a").deferred_before);
}

#[test]
fn abort_deferred_when_a_person_cancels() {
    for action in [QueueAction::Cancel, QueueAction::Delete] {
        let (mut bench, id) = deferred();
        bench.ask(Ask::Queue(action, vec![id], 0));
        assert_eq!(bench.calls("a"), [abort(id, true)]);
        assert!(bench.disk.is_empty());
        bench.notify("a", SpoolerNotify::SentDeferred(id));
        assert!(bench.calls("a").is_empty());
    }
}

#[test]
fn abort_deferred_when_it_was_cancelled_while_it_was_taken() {
    let mut bench = Bench::ready(TWO, &[("a", smtp(Wishes::default()))]);
    let id = bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    bench.ask(Ask::Queue(QueueAction::Cancel, vec![id], 0));
    bench.calls("a");
    bench.end("a", &order, SubmitResult::Done, EndMessage::Deferred, vec![]);
    assert_eq!(bench.calls("a"), [abort(id, true)]);
    assert!(bench.disk.is_empty());
}

#[test]
fn a_deferred_message_is_given_up_in_the_end() {
    let (mut bench, id) = deferred();
    bench.pass(5 * 3_600_000 + 60_000);
    assert_eq!(bench.calls("a"), [abort(id, true)]);
    assert_eq!(bench.reports.last().map(|report| report.kind), Some(ReportKind::Failed));
    assert!(bench.disk.is_empty());
}

#[test]
fn the_death_of_its_worker_frees_it() {
    let (mut bench, id) = deferred();
    bench.die("a", "signal 9");
    bench.pass(500);
    bench.say("a", FromWorker::LoggedOn(smtp(Wishes::default())));
    let order = bench.delivery("a");
    assert!(order.id == id && !order.deferred_before, "at least once: the new worker knows nothing of it");
}

#[test]
fn a_restart_of_the_supervisor_frees_it() {
    let (mut bench, id) = deferred();
    bench.crash();
    bench.say("a", FromWorker::LoggedOn(smtp(Wishes::default())));
    bench.say("b", FromWorker::LoggedOn(smtp(Wishes::default())));
    let order = bench.delivery("a");
    assert!(order.id == id && !order.deferred_before);
}

#[test]
fn a_message_that_goes_another_way_now_is_not_waited_for() {
    let (mut bench, id) = deferred();
    bench.notify("a", SpoolerNotify::ConfigChange);
    bench.calls("a");
    bench.say("a", FromWorker::Announced(LoggedOn::default()));
    assert_eq!(bench.calls("a"), [abort(id, true)]);
    let order = bench.delivery("b");
    assert!(order.id == id && !order.deferred_before);
}

#[test]
fn a_person_can_offer_it_before_it_is_asked_for() {
    let (mut bench, id) = deferred();
    bench.ask(Ask::Queue(QueueAction::Retry, vec![id], 0));
    let order = bench.delivery("a");
    assert!(order.deferred_before);
    bench.finish("a", &order, SubmitResult::NotWanted);
    assert_eq!(bench.state(id).unwrap().1, "waits for provider a to ask for it");
}

#[test]
fn what_is_held_meanwhile_goes_out_when_it_is_released() {
    let (mut bench, id) = deferred();
    bench.ask(Ask::Queue(QueueAction::Hold, vec![id], 0));
    bench.notify("a", SpoolerNotify::SentDeferred(id));
    assert!(bench.calls("a").is_empty());
    bench.ask(Ask::Queue(QueueAction::Release, vec![id], 0));
    assert_eq!(bench.calls("a"), [format!("Submit {id}")]);
}
