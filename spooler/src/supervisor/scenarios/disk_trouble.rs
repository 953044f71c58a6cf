//! The disk fails, and what that means for deliveries.

use spooler_protocol::calls::{EndMessage, Wishes};
use spooler_protocol::control::{MessageState, QueueAction};
use spooler_protocol::ids::MessageId;
use spooler_protocol::outcome::{Outcome, SubmitResult};
use spooler_protocol::to_worker::Refusal;

use super::bench::{Bench, reply, smtp};
use crate::supervisor::event::{Answer, Ask, Event};

const ONE: &str = "[provider.a]\nkind = 'smtp'\n";

fn bench() -> Bench {
    Bench::ready(ONE, &[("a", smtp(Wishes::default()))])
}

fn supervisor_text(bench: &mut Bench) -> String {
    match bench.ask(Ask::Status) {
        Some(Answer::Status(table)) => table.supervisor.text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_is_delivered_as_long_as_results_do_not_come_to_disk() {
    let mut bench = bench();
    bench.hear(Event::StoreStuck(Some("The disk fails".to_owned())));
    let id = bench.submit(&["x@y"]);
    assert!(bench.calls("a").is_empty());
    assert_eq!(bench.state(id).unwrap(), (MessageState::Ready, "The disk fails".to_owned()));
    assert_eq!(supervisor_text(&mut bench), "The disk fails");
    let refused = bench.ask(Ask::Queue(QueueAction::Hold, vec![id], 0));
    assert!(matches!(&refused, Some(Answer::Queue(Err(error))) if error.temporary), "{refused:?}");
    bench.hear(Event::StoreStuck(None));
    assert_eq!(supervisor_text(&mut bench), "running");
    let order = bench.delivery("a");
    bench.deliver("a", &order);
    assert!(bench.disk.is_empty());
}

#[test]
fn a_message_that_cannot_be_read_now_is_tried_later_and_no_attempt_is_counted() {
    let mut bench = bench();
    let id = bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    bench.hear(Event::ReadFailed(order.delivery, "the disk fails".to_owned()));
    assert_eq!(bench.state(id).unwrap().0, MessageState::Deferred);
    bench.pass(60_000);
    let again = bench.delivery("a");
    assert_eq!((again.id, again.attempt), (id, order.attempt));
    bench.deliver("a", &again);
    assert!(bench.disk.is_empty());
}

#[test]
fn what_can_never_be_kept_sets_its_message_aside() {
    let mut bench = bench();
    let id = bench.submit(&["x@y"]);
    let on_disk = bench.disk.clone();
    let order = bench.delivery("a");
    // The disk refuses the removal of what was delivered.
    bench.refuse_commits =
        Some(Refusal { temporary: true, enhanced: "4.3.0".to_owned(), text: "The database is damaged".to_owned() });
    bench.deliver("a", &order);
    assert_eq!(bench.disk, on_disk);
    bench.pass(3_600_000);
    assert!(bench.calls("a").is_empty(), "it is not delivered again and again");
    assert_eq!(bench.state(id).unwrap().0, MessageState::Quarantined);
    assert!(bench.log.iter().any(|line| line.contains("cannot be kept")), "{:?}", bench.log);
}

#[test]
fn a_queue_that_cannot_be_read_is_read_again() {
    let mut bench = bench();
    let ids: Vec<MessageId> = (0..3).map(|_| bench.submit(&["x@y"])).collect();
    bench.crash_onto_a_disk_that_refuses(2);
    bench.say("a", spooler_protocol::from_worker::FromWorker::LoggedOn(smtp(Wishes::default())));
    assert_eq!(supervisor_text(&mut bench), "the disk fails");
    bench.pass(60_000);
    assert_eq!(supervisor_text(&mut bench), "running");
    let delivered: Vec<MessageId> = ids.iter().map(|_| bench.delivery("a").id).collect();
    assert_eq!(delivered, ids);
}

/// A message fails while the store cannot be read.
fn a_failure_that_cannot_be_reported(reads_to_fail: u32) -> Bench {
    let mut bench = bench();
    bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    bench.reads_to_fail = reads_to_fail;
    bench.end("a", &order, SubmitResult::Done, EndMessage::Done, vec![(0, Outcome::Failed(reply(550, "no")))]);
    assert!(bench.reports.is_empty());
    assert_eq!(bench.disk.len(), 1, "the failure goes to disk with its report and not before");
    bench
}

#[test]
fn a_report_waits_until_the_store_can_be_read_and_so_does_what_it_reports() {
    let mut bench = a_failure_that_cannot_be_reported(3);
    bench.pass(60_000);
    assert_eq!(bench.reports.len(), 1);
    assert!(bench.disk.is_empty());
    assert!(bench.log.iter().any(|line| line.contains("is deferred, because the store")), "{:?}", bench.log);
}

#[test]
fn what_could_not_be_reported_before_the_end_is_tried_again_by_the_next_one() {
    let mut bench = a_failure_that_cannot_be_reported(u32::MAX);
    bench.hear(Event::Stop);
    bench.die("a", "signal 15");
    assert!(bench.exited, "it does not wait for ever for a disk that fails");
    assert_eq!(bench.disk.len(), 1);
    assert!(bench.log.iter().any(|line| line.contains("tried again")), "{:?}", bench.log);
    bench.crash();
    bench.say("a", spooler_protocol::from_worker::FromWorker::LoggedOn(smtp(Wishes::default())));
    let order = bench.delivery("a");
    bench.end("a", &order, SubmitResult::Done, EndMessage::Done, vec![(0, Outcome::Failed(reply(550, "no")))]);
    assert_eq!(bench.reports.len(), 1);
    assert!(bench.disk.is_empty());
}

#[test]
fn a_message_whose_way_cannot_be_read_now_finds_it_later() {
    let mut bench = Bench::ready(
        "[provider.a]\nkind = 'smtp'\n[provider.b]\nkind = 'smtp'\n",
        &[("a", smtp(Wishes::default())), ("b", smtp(Wishes::default()))],
    );
    let id = bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    bench.reads_to_fail = 2;
    bench.finish("a", &order, SubmitResult::NotMe);
    assert!(bench.calls("b").is_empty());
    bench.pass(60_000);
    let order = bench.delivery("b");
    assert_eq!(order.id, id);
    bench.deliver("b", &order);
    assert!(bench.disk.is_empty());
}
