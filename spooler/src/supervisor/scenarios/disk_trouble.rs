//! The disk fails, and what that means for deliveries.

use spooler_protocol::calls::Wishes;
use spooler_protocol::control::{MessageState, QueueAction};
use spooler_protocol::ids::MessageId;
use spooler_protocol::to_worker::Refusal;

use super::bench::{Bench, smtp};
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
    let refused = bench.ask(Ask::Queue(QueueAction::Hold, vec![id]));
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
