//! What a worker's death means for the messages in its hands, and who is told.

use spooler_protocol::calls::Wishes;
use spooler_protocol::control::{MessageState, ProviderAction, ProviderCommand, QueueAction};
use spooler_protocol::from_worker::FromWorker;
use spooler_protocol::ids::MessageId;
use spooler_protocol::outcome::SubmitResult;
use spooler_protocol::status::SupervisorRow;

use super::bench::{Bench, smtp};
use crate::supervisor::event::{Answer, Ask, Event, WorkerEnd, WorkerNews};

const ONE: &str = "[mail]\npostmaster = 'post@y'\n[provider.a]\nkind = 'smtp'\n";
/// Between two notices.
const PAUSE_MS: i64 = 600_000;

fn one() -> Bench {
    Bench::ready(ONE, &[("a", smtp(Wishes::default()))])
}

/// The present worker dies, and the next one logs on.
fn die_and_come_back(bench: &mut Bench, end: WorkerEnd) {
    let worker = bench.worker("a");
    bench.hear(Event::Worker(worker, WorkerNews::Died(end)));
    bench.pass(2000);
    assert_ne!(bench.worker("a"), worker, "there is another one");
    bench.say("a", FromWorker::LoggedOn(smtp(Wishes::default())));
}

/// A message is there alone and kills its worker until it is set aside.
fn poison(bench: &mut Bench) -> MessageId {
    let id = bench.submit(&["x@y"]);
    for death in 1..=3 {
        assert_eq!(bench.delivery("a").id, id);
        assert_eq!(bench.disk[&id].state, MessageState::Ready, "death {death}");
        die_and_come_back(bench, "signal 11 (SIGSEGV)".into());
    }
    assert_eq!((bench.disk[&id].state, bench.disk[&id].deaths), (MessageState::Quarantined, 3));
    id
}

fn supervisor_row(bench: &mut Bench) -> SupervisorRow {
    match bench.ask(Ask::Status) {
        Some(Answer::Status(table)) => table.supervisor,
        other => panic!("{other:?}"),
    }
}

#[test]
fn after_three_deaths_a_message_is_set_aside_and_the_row_says_so() {
    let mut bench = one();
    let id = poison(&mut bench);
    assert!(bench.calls("a").iter().all(|call| !call.starts_with("Submit")), "it is offered no more");
    let row = supervisor_row(&mut bench);
    assert_eq!((row.held, row.quarantined), (1, 1));
    let text = row.quarantine.unwrap();
    assert!(text.starts_with(&format!("message {id}: its worker died 3 times")) && text.contains("SIGSEGV"), "{text}");
    bench.ask(Ask::Queue(QueueAction::Release, vec![id], 0));
    assert_eq!((bench.disk[&id].state, bench.disk[&id].deaths), (MessageState::Ready, 0), "it starts anew");
    let row = supervisor_row(&mut bench);
    assert_eq!((row.quarantined, row.quarantine), (0, None));
    assert_eq!(bench.delivery("a").id, id);
}

#[test]
fn a_quarantine_survives_a_restart() {
    let mut bench = one();
    let id = poison(&mut bench);
    bench.crash();
    bench.say("a", FromWorker::LoggedOn(smtp(Wishes::default())));
    let row = supervisor_row(&mut bench);
    assert_eq!((row.queued, row.quarantined), (1, 1));
    assert!(row.quarantine.unwrap().starts_with(&format!("message {id}")));
}

#[test]
fn in_company_a_death_counts_once() {
    let mut bench = one();
    let ids = [bench.submit(&["x@y"]), bench.submit(&["z@y"])];
    for expected in [1, 1] {
        let first = bench.delivery("a");
        die_and_come_back(&mut bench, "signal 9 (SIGKILL)".into());
        let deaths = ids.map(|id| bench.disk[&id].deaths);
        // The second time the first suspect is alone.
        assert_eq!(deaths.iter().min(), Some(&expected), "{deaths:?} {first:?}");
    }
    assert_eq!(ids.map(|id| bench.disk[&id].deaths), [2, 1]);
}

#[test]
fn what_people_do_to_processes_counts_against_no_message() {
    let mut bench = one();
    let id = bench.submit(&["x@y"]);
    for _ in 0..4 {
        assert_eq!(bench.delivery("a").id, id);
        die_and_come_back(&mut bench, WorkerEnd { by_hand: true, ..WorkerEnd::from("signal 15 (SIGTERM)") });
        assert_eq!(bench.delivery("a").id, id);
        let restart = ProviderCommand { action: ProviderAction::Restart, flags: Default::default() };
        bench.ask(Ask::Provider("a".to_owned(), restart));
        die_and_come_back(&mut bench, "signal 9 (SIGKILL)".into());
    }
    assert_eq!((bench.disk[&id].deaths, bench.row("a").deaths), (0, 4), "but against the provider");
}

#[test]
fn a_worker_that_is_ended_for_what_it_does_counts_against_its_message() {
    let mut bench = one();
    let id = bench.submit(&["x@y"]);
    bench.delivery("a");
    let worker = bench.worker("a");
    bench.hear(Event::Worker(worker, WorkerNews::Garbled("it talks garbage".to_owned())));
    // The signal that ended it came from here.
    die_and_come_back(&mut bench, WorkerEnd { by_hand: true, ..WorkerEnd::from("signal 15 (SIGTERM)") });
    assert_eq!(bench.disk[&id].deaths, 1);
}

#[test]
fn a_death_at_start_counts_against_no_message() {
    let mut bench = Bench::new(ONE);
    let id = bench.submit(&["x@y"]);
    for _ in 0..3 {
        bench.die("a", "exit code 1");
        bench.pass(2000);
    }
    assert_eq!(bench.disk[&id].deaths, 0);
    bench.say("a", FromWorker::LoggedOn(smtp(Wishes::default())));
    assert_eq!(bench.delivery("a").id, id);
}

#[test]
fn the_postmaster_is_told_at_once_and_then_of_many_together() {
    let mut bench = one();
    let first = poison(&mut bench);
    assert_eq!(bench.notices.iter().map(|notice| notice.ids.clone()).collect::<Vec<_>>(), [vec![first]]);
    let others = [poison(&mut bench), poison(&mut bench)];
    assert_eq!(bench.notices.len(), 1);
    bench.pass(PAUSE_MS);
    assert_eq!(bench.notices.len(), 2);
    assert_eq!((bench.notices[1].ids.as_slice(), bench.notices[1].more), (others.as_slice(), 0));
    bench.pass(10 * PAUSE_MS);
    assert_eq!(bench.notices.len(), 2, "each is told of once");
}

#[test]
fn a_notice_names_a_bounded_number() {
    let mut bench = one();
    poison(&mut bench);
    for _ in 0..60 {
        bench.submit(&["x@y"]);
    }
    for _ in 0..60 {
        let order = bench.delivery("a");
        let id = order.id;
        bench.hear(Event::Unreadable(order.delivery, "damaged".to_owned()));
        assert_eq!(bench.disk[&id].state, MessageState::Quarantined);
    }
    bench.pass(PAUSE_MS);
    assert_eq!((bench.notices[1].ids.len(), bench.notices[1].more), (50, 10));
}

#[test]
fn without_a_postmaster_nothing_piles_up() {
    let mut bench = Bench::ready("[provider.a]\nkind = 'smtp'\n", &[("a", smtp(Wishes::default()))]);
    poison(&mut bench);
    bench.pass(PAUSE_MS);
    assert!(bench.notices.is_empty());
}

#[test]
fn the_next_worker_gets_what_the_dead_one_had_at_once() {
    let mut bench = one();
    bench.pass(1000);
    let id = bench.submit(&["x@y"]);
    bench.delivery("a");
    let worker = bench.worker("a");
    bench.die("a", "signal 9 (SIGKILL)");
    assert_ne!(bench.worker("a"), worker, "no time has passed");
    bench.say("a", FromWorker::LoggedOn(smtp(Wishes::default())));
    let order = bench.delivery("a");
    assert_eq!(order.id, id);
    bench.finish("a", &order, SubmitResult::Busy);
}
