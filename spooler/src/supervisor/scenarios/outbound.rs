//! Every answer to a delivery, and what comes after.

use spooler_protocol::calls::{EndMessage, SpoolerNotify, Wishes};
use spooler_protocol::control::{MessageState, QueueAction, RecipientState};
use spooler_protocol::from_worker::{FromWorker, LoggedOn, RowUpdate};
use spooler_protocol::ids::MessageId;
use spooler_protocol::outcome::{Outcome, SubmitResult};

use super::bench::{Bench, reply, smtp};
use crate::supervisor::event::{Ask, ReportKind};

const ONE: &str = "[provider.a]\nkind = 'smtp'\n";
const TWO: &str = "[provider.a]\nkind = 'smtp'\n[provider.b]\nkind = 'smtp'\n";

fn one() -> Bench {
    Bench::ready(ONE, &[("a", smtp(Wishes::default()))])
}

fn attempts(bench: &Bench, id: MessageId) -> u32 {
    bench.disk[&id].recipients[0].attempts
}

#[test]
fn what_comes_in_goes_out_and_is_gone() {
    let mut bench = one();
    bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    bench.deliver("a", &order);
    assert!(bench.disk.is_empty());
}

#[test]
fn busy_is_tried_again_soon_and_is_no_attempt() {
    let mut bench = one();
    let id = bench.submit(&["x@y"]);
    for _ in 0..3 {
        let order = bench.delivery("a");
        assert_eq!(order.attempt, 1);
        bench.finish("a", &order, SubmitResult::Busy);
        assert!(bench.calls("a").is_empty());
        bench.pass(2000);
    }
    assert_eq!((bench.delivery("a").id, attempts(&bench, id)), (id, 0));
}

#[test]
fn ready_to_send_ends_waiting_for_a_busy_provider_and_nothing_else() {
    let mut bench = one();
    let (busy, failed) = (bench.submit(&["x@y"]), bench.submit(&["x@z"]));
    let (first, second) = (bench.delivery("a"), bench.delivery("a"));
    bench.finish("a", &first, SubmitResult::Busy);
    bench.finish("a", &second, SubmitResult::Error(reply(451, "later")));
    bench.notify("a", SpoolerNotify::ReadyToSend);
    assert_eq!(bench.calls("a"), [format!("Submit {busy}")]);
    assert_eq!(bench.state(failed).unwrap().0, MessageState::Deferred);
}

#[test]
fn not_me_goes_from_one_to_the_next_until_nobody_is_left() {
    let mut bench = Bench::ready(TWO, &[("a", smtp(Wishes::default())), ("b", smtp(Wishes::default()))]);
    let id = bench.submit(&["x@y", "z@y"]);
    let order = bench.delivery("a");
    bench.finish("a", &order, SubmitResult::NotMe);
    let order = bench.delivery("b");
    assert_eq!(order.id, id);
    bench.finish("b", &order, SubmitResult::NotMe);
    assert!(bench.calls("a").is_empty() && bench.calls("b").is_empty());
    let report = bench.reports.last().expect("a non-delivery report");
    assert_eq!((report.kind, report.recipients.len()), (ReportKind::Failed, 2));
    assert!(bench.disk.is_empty());
}

#[test]
fn who_declines_is_noted_once_however_often_ways_change() {
    let mut bench = Bench::ready(TWO, &[("a", smtp(Wishes::default())), ("b", smtp(Wishes::default()))]);
    let id = bench.submit(&["x@y", "z@y", "u@y", "v@y"]);
    let order = bench.delivery("a");
    bench.finish("a", &order, SubmitResult::NotMe);
    let order = bench.delivery("b");
    bench.finish("b", &order, SubmitResult::Error(reply(450, "later")));
    for types in [["SMTP", "FAX"], ["SMTP", "X400"], ["SMTP", "FAX"]] {
        bench.notify("a", SpoolerNotify::ConfigChange);
        let address_types = types.map(str::to_owned).to_vec();
        bench.say("a", FromWorker::Announced(LoggedOn { address_types, ..smtp(Wishes::default()) }));
    }
    let parts = bench.supervisor.queue().get(id).unwrap().parts.as_slice();
    assert_eq!(parts.iter().map(|part| part.recipients.as_slice().len()).collect::<Vec<_>>(), [4]);
    assert_eq!(parts[0].not_me.as_ref().map(|not_me| not_me.len()), Some(1), "{parts:?}");
}

#[test]
fn not_me_after_a_part_was_delivered_passes_only_the_rest_on() {
    let mut bench = Bench::ready(TWO, &[("a", smtp(Wishes::default())), ("b", smtp(Wishes::default()))]);
    let id = bench.submit(&["x@y", "z@y"]);
    let order = bench.delivery("a");
    let done = vec![(0, Outcome::Delivered(reply(250, "kept")))];
    bench.end("a", &order, SubmitResult::NotMe, EndMessage::Done, done);
    assert_eq!(bench.delivery("b").recipients, [1]);
    assert_eq!(bench.disk[&id].recipients[0].state, RecipientState::Delivered);
}

#[test]
fn partial_recipients_are_split_over_two_providers() {
    let config = "[provider.a]\nkind = 'smtp'\nclaims = ['@a']\n[provider.b]\nkind = 'smtp'\nclaims = ['@b']\n";
    let resolving = smtp(Wishes::RESOLVE);
    let mut bench = Bench::ready(config, &[("a", smtp(Wishes::default())), ("b", resolving)]);
    bench.submit(&["x@a", "x@b", "y@a"]);
    let (a, b) = (bench.delivery("a"), bench.delivery("b"));
    assert_eq!((a.recipients.as_slice(), a.sees_others), ([0, 2].as_slice(), false));
    assert_eq!((b.recipients.as_slice(), b.sees_others), ([1].as_slice(), true));
    bench.deliver("a", &a);
    assert_eq!(bench.disk.len(), 1);
    bench.deliver("b", &b);
    assert!(bench.disk.is_empty());
}

#[test]
fn wait_is_kept_to_the_millisecond_and_is_no_attempt() {
    let mut bench = one();
    let id = bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    bench.finish("a", &order, SubmitResult::Wait { after_ms: 90_000 });
    bench.pass(89_999);
    assert!(bench.calls("a").is_empty());
    bench.pass(1);
    assert_eq!((bench.delivery("a").attempt, attempts(&bench, id)), (1, 0));
}

#[test]
fn a_network_error_is_an_attempt_with_its_reply() {
    let mut bench = one();
    let id = bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    let error = SubmitResult::NetworkError { after_ms: 30_000, reply: Box::new(reply(0, "no carrier")) };
    bench.finish("a", &order, error);
    let (state, why) = bench.state(id).unwrap();
    assert!(state == MessageState::Deferred && why.contains("no carrier"), "{why}");
    assert_eq!(attempts(&bench, id), 1);
    bench.pass(30_000);
    assert_eq!(bench.delivery("a").attempt, 2);
}

#[test]
fn resend_now_is_at_once_but_not_for_ever() {
    let mut bench = one();
    let id = bench.submit(&["x@y"]);
    for _ in 0..10 {
        let order = bench.delivery("a");
        bench.end("a", &order, SubmitResult::Done, EndMessage::ResendNow, vec![]);
    }
    let order = bench.delivery("a");
    bench.end("a", &order, SubmitResult::Done, EndMessage::ResendNow, vec![]);
    bench.pass(59_999);
    assert!(bench.calls("a").is_empty(), "the eleventh time is like wanting it later");
    bench.pass(1);
    let order = bench.delivery("a");
    assert_eq!((order.attempt, attempts(&bench, id)), (1, 0));
    bench.end("a", &order, SubmitResult::Done, EndMessage::ResendNow, vec![]);
    assert_eq!(bench.calls("a"), [format!("Submit {id}")], "counted anew");
}

#[test]
fn resend_later_is_a_minute_and_no_attempt() {
    let mut bench = one();
    let id = bench.submit(&["x@y", "z@y"]);
    let order = bench.delivery("a");
    let done = vec![(1, Outcome::Delivered(reply(250, "kept")))];
    bench.end("a", &order, SubmitResult::Done, EndMessage::ResendLater, done);
    bench.pass(59_999);
    assert!(bench.calls("a").is_empty());
    bench.pass(1);
    let order = bench.delivery("a");
    assert_eq!((order.recipients.as_slice(), attempts(&bench, id)), ([0].as_slice(), 0), "who is served is served");
}

#[test]
fn end_message_counts_only_after_done() {
    let mut bench = one();
    bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    bench.end("a", &order, SubmitResult::Error(reply(451, "no")), EndMessage::ResendNow, vec![]);
    bench.pass(1000);
    assert!(bench.calls("a").is_empty());
}

#[test]
fn cancel_mid_recipient_keeps_who_was_served() {
    let mut bench = one();
    let id = bench.submit(&["x@y", "z@y"]);
    let order = bench.delivery("a");
    bench.ask(Ask::Queue(QueueAction::Cancel, vec![id], 0));
    assert_eq!(bench.calls("a"), [format!("CancelMessage({:?})", order.delivery)]);
    let done = vec![(0, Outcome::Delivered(reply(250, "kept")))];
    bench.end("a", &order, SubmitResult::Cancelled, EndMessage::Done, done);
    assert!(bench.disk.is_empty() && bench.calls("a").is_empty() && bench.reports.is_empty());
}

#[test]
fn a_provider_that_is_always_busy_does_not_keep_a_message_for_ever() {
    let config = "[retry]\nmax_age = '2h'\n[provider.a]\nkind = 'smtp'\n";
    let mut bench = Bench::ready(config, &[("a", smtp(Wishes::default()))]);
    bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    bench.finish("a", &order, SubmitResult::Wait { after_ms: u64::MAX });
    bench.pass(7_200_000);
    let order = bench.delivery("a");
    bench.finish("a", &order, SubmitResult::Busy);
    assert_eq!(bench.reports.last().map(|report| report.kind), Some(ReportKind::Failed));
    assert!(bench.disk.is_empty());
}

#[test]
fn what_is_not_this_workers_is_not_believed() {
    let mut bench = Bench::ready(TWO, &[("a", smtp(Wishes::default())), ("b", LoggedOn::default())]);
    bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    bench.deliver("b", &order);
    bench.finish("b", &order, SubmitResult::NotMe);
    assert_eq!(bench.disk.len(), 1);
    bench.deliver("a", &order);
    assert!(bench.disk.is_empty());
}

#[test]
fn who_stops_a_delivery_by_itself_gets_it_ten_times_again_and_then_later() {
    let mut bench = one();
    bench.submit(&["x@y"]);
    for _ in 0..11 {
        let order = bench.delivery("a");
        assert_eq!(order.attempt, 1, "no attempt is counted");
        bench.finish("a", &order, SubmitResult::Cancelled);
    }
    assert!(bench.calls("a").is_empty());
    bench.pass(59_000);
    assert!(bench.calls("a").is_empty());
    bench.pass(1000);
    bench.delivery("a");
}

#[test]
fn retry_goes_out_through_offline_provider() {
    let mut bench = one();
    let row = RowUpdate { offline: Some(true), ..RowUpdate::default() };
    bench.say("a", FromWorker::Row { sequence: 1, row: String::new(), update: Box::new(row) });
    let (_, chosen) = (bench.submit(&["x@y"]), bench.submit(&["x@z"]));
    assert!(bench.calls("a").is_empty());
    bench.ask(Ask::Queue(QueueAction::Retry, vec![chosen], 0));
    assert_eq!(bench.calls("a"), [format!("Submit {chosen}")], "only that one, and once");
}
