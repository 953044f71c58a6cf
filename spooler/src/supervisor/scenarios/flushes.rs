//! Flushes: who may start and end them, in which order, and who holds a resource meanwhile.

use spooler_protocol::calls::EndMessage;
use spooler_protocol::calls::{CallError, FlushFlags, Methods, StartResult, Wishes};
use spooler_protocol::control::FlushCommand;
use spooler_protocol::from_worker::{FromWorker, LoggedOn, RowUpdate};
use spooler_protocol::outcome::{Outcome, SubmitResult};
use spooler_protocol::status::StatusCode;
use spooler_protocol::to_worker::ToWorker;

use super::bench::{Bench, Told, reply, smtp};
use crate::supervisor::event::{Ask, Event};

const ONE: &str = "[provider.a]\nkind = 'smtp'\n";
const MODEM: &str = "[provider.fax1]\nkind = 'smtp'\nresource = 'modem0'\naddress_types = ['ONE']\n\
    [provider.fax2]\nkind = 'smtp'\nresource = 'modem0'\naddress_types = ['TWO']\n";

fn flushable() -> LoggedOn {
    LoggedOn { methods: Methods::FLUSH_QUEUES, ..smtp(Wishes::default()) }
}

fn faxes() -> Bench {
    Bench::ready(MODEM, &[("fax1", flushable()), ("fax2", flushable())])
}

/// The worker's words in this story, counted on.
fn row(bench: &mut Bench, name: &str, sequence: u64, update: RowUpdate) {
    bench.say(name, FromWorker::Row { sequence, row: String::new(), update: Box::new(update) });
}

fn bits(outbound: Option<bool>, inbound: Option<bool>) -> RowUpdate {
    RowUpdate { outbound_flush: outbound, inbound_flush: inbound, ..RowUpdate::default() }
}

fn agree(bench: &mut Bench, name: &str, sequence: u64) {
    row(bench, name, sequence, bits(Some(true), Some(true)));
    bench.say(name, FromWorker::FlushAnswered(Ok(())));
}

fn started(bench: &mut Bench, name: &str, result: StartResult) {
    bench.say(name, FromWorker::StartEnded(result));
}

/// A message that was tried once and waits for its retry time.
fn deferred(bench: &mut Bench, name: &str) {
    bench.submit(&["x@y"]);
    let order = bench.delivery(name);
    let later = vec![(0, Outcome::Deferred(reply(451, "later")))];
    bench.end(name, &order, SubmitResult::Done, EndMessage::Done, later);
    bench.calls(name);
}

#[test]
fn outbound_goes_first_and_inbound_follows() {
    let mut bench = Bench::ready(ONE, &[("a", flushable())]);
    deferred(&mut bench, "a");
    let number = bench.flush(FlushCommand::default());
    assert_eq!(bench.calls("a"), ["FlushQueues"], "nothing is sent before the provider is ready for it");
    assert_eq!(bench.row("a").phase.as_deref(), Some("flush: gets ready"));
    agree(&mut bench, "a", 1);
    let order = bench.delivery("a");
    let code = bench.row("a").code;
    assert!(code.contains(StatusCode::OUTBOUND_FLUSH | StatusCode::INBOUND_FLUSH | StatusCode::OUTBOUND_ACTIVE));
    started(&mut bench, "a", StartResult::Saved);
    assert!(bench.calls("a").is_empty(), "inbound waits until outbound is done, whatever is said");
    bench.deliver("a", &order);
    assert_eq!(bench.calls("a"), ["EndOutboundFlush", "BeginInboundFlush", "StartMessage"]);
    started(&mut bench, "a", StartResult::Saved);
    assert_eq!(bench.calls("a"), ["StartMessage"], "another one, as long as there are some");
    assert!(!bench.flush_progress(number).done);
    started(&mut bench, "a", StartResult::NotSaved);
    assert_eq!(bench.calls("a"), ["EndInboundFlush"]);
    let end = bench.flush_progress(number);
    assert_eq!((end.total, end.attempted, end.sent, end.received, end.done), (1, 1, 1, 1, true));
    assert_eq!(bench.row("a").phase, None);
    assert!(!bench.row("a").code.contains(StatusCode::OUTBOUND_FLUSH));
}

#[test]
fn a_flush_is_announced_before_anything_is_sent_or_fetched_for_it() {
    let mut bench = Bench::ready(ONE, &[("a", flushable())]);
    deferred(&mut bench, "a");
    bench.flush(FlushCommand::default());
    assert_eq!(bench.calls("a"), ["FlushQueues"]);
    agree(&mut bench, "a", 1);
    assert_eq!(bench.calls("a"), ["BeginOutboundFlush", "Submit 1"]);
    // One that has no such method is told all the same.
    let mut bench = Bench::ready(ONE, &[("a", smtp(Wishes::default()))]);
    bench.flush(FlushCommand::default());
    assert_eq!(bench.calls("a"), ["BeginOutboundFlush", "EndOutboundFlush", "BeginInboundFlush", "StartMessage"]);
    // What it says of it in its row is no wish for more, and it may end it by that.
    row(&mut bench, "a", 1, bits(None, Some(true)));
    row(&mut bench, "a", 2, bits(None, Some(false)));
    assert_eq!(bench.calls("a"), ["EndInboundFlush"]);
    started(&mut bench, "a", StartResult::Saved);
    bench.pass(10_000);
    assert_eq!(bench.calls("a"), ["StartMessage"], "that is no flush any more");
}

#[test]
fn force_is_a_persons_and_who_does_not_wait_sees_nothing() {
    for (no_wait, expected) in [(false, 0x0e), (true, 0x1e)] {
        let mut bench = Bench::ready(ONE, &[("a", flushable())]);
        bench.flush(FlushCommand { no_wait, ..FlushCommand::default() });
        let flags = bench.told("a").into_iter().find_map(|told| match told {
            Told::Word(ToWorker::FlushQueues(flags)) => Some(flags),
            _ => None,
        });
        assert_eq!(flags, Some(FlushFlags(expected)));
    }
    let mut bench = faxes();
    bench.submit(&["ONE:1"]);
    let unasked = FlushFlags::OUTBOUND | FlushFlags::NO_UI;
    assert!(
        bench.told("fax1").iter().any(|told| matches!(told, Told::Word(ToWorker::FlushQueues(of)) if *of == unasked))
    );
}

#[test]
fn a_provider_may_take_its_wish_back() {
    let mut bench = Bench::ready(ONE, &[("a", flushable())]);
    row(&mut bench, "a", 1, bits(Some(true), None));
    row(&mut bench, "a", 2, bits(Some(false), None));
    assert_eq!(bench.calls("a"), ["BeginOutboundFlush", "EndOutboundFlush"]);
    row(&mut bench, "a", 3, bits(Some(true), None));
    row(&mut bench, "a", 4, bits(Some(false), None));
    bench.pass(5000);
    assert!(bench.calls("a").is_empty(), "it was not begun yet");
}

#[test]
fn a_message_that_fails_again_does_not_keep_a_flush_going() {
    let mut bench = Bench::ready(ONE, &[("a", flushable())]);
    deferred(&mut bench, "a");
    let number = bench.flush(FlushCommand { outbound: true, ..FlushCommand::default() });
    row(&mut bench, "a", 1, bits(Some(true), None));
    bench.say("a", FromWorker::FlushAnswered(Ok(())));
    let order = bench.delivery("a");
    bench.finish("a", &order, SubmitResult::Error(reply(451, "still later")));
    assert_eq!(bench.calls("a"), ["EndOutboundFlush"]);
    let end = bench.flush_progress(number);
    assert_eq!((end.attempted, end.sent, end.not_sent, end.done), (1, 0, 1, true));
}

#[test]
fn a_provider_that_cannot_be_flushed_is_passed_over_with_its_reason() {
    let mut bench = Bench::ready(ONE, &[("a", flushable())]);
    deferred(&mut bench, "a");
    let number = bench.flush(FlushCommand::default());
    bench.say("a", FromWorker::FlushAnswered(Err(CallError::Failed("no dial tone".to_owned()))));
    let end = bench.flush_progress(number);
    assert!(end.done && end.attempted == 0 && end.why.contains("provider a: no dial tone"), "{end:?}");
}

#[test]
fn a_provider_that_clears_its_bit_ends_the_flush() {
    let mut bench = Bench::ready(ONE, &[("a", LoggedOn { credit: 1, ..flushable() })]);
    deferred(&mut bench, "a");
    let number = bench.flush(FlushCommand::default());
    agree(&mut bench, "a", 1);
    let order = bench.delivery("a");
    row(&mut bench, "a", 2, bits(Some(false), Some(false)));
    assert_eq!(bench.calls("a"), ["EndOutboundFlush"], "what was begun with it is ended with it, and nothing else");
    let end = bench.flush_progress(number);
    assert!(end.done && end.why.contains("the provider has ended the flush"), "{end:?}");
    bench.deliver("a", &order);
}

#[test]
fn a_provider_sets_its_bits_and_gets_its_flush() {
    let mut bench = Bench::ready(ONE, &[("a", flushable())]);
    deferred(&mut bench, "a");
    row(&mut bench, "a", 1, bits(Some(true), None));
    let order = bench.delivery("a");
    bench.deliver("a", &order);
    assert_eq!(bench.calls("a"), ["EndOutboundFlush"]);
    // Stale words, and bits that stay as they are, begin nothing.
    row(&mut bench, "a", 1, bits(Some(true), Some(true)));
    assert!(bench.calls("a").is_empty());
    row(&mut bench, "a", 2, bits(None, Some(true)));
    assert!(bench.calls("a").is_empty(), "not so soon after the last one");
    bench.pass(1000);
    assert_eq!(bench.calls("a"), ["BeginInboundFlush", "StartMessage"]);
}

#[test]
fn a_shutdown_ends_a_flush_first() {
    let mut bench = Bench::ready(ONE, &[("a", flushable())]);
    deferred(&mut bench, "a");
    bench.flush(FlushCommand::default());
    agree(&mut bench, "a", 1);
    bench.delivery("a");
    bench.hear(Event::Stop);
    let ends = ["EndOutboundFlush", "EndInboundFlush", "EndInbound", "EndOutbound", "Logoff"];
    assert_eq!(bench.calls("a").split_off(1), ends, "it has heard of the shutdown before");
    bench.die("a", "logged off");
    assert!(bench.exited);
}

#[test]
fn a_flush_that_is_waited_for_ends_with_its_client_and_another_does_not() {
    for no_wait in [false, true] {
        let mut bench = Bench::ready(ONE, &[("a", flushable())]);
        deferred(&mut bench, "a");
        let number = bench.flush(FlushCommand { no_wait, ..FlushCommand::default() });
        agree(&mut bench, "a", 1);
        let order = bench.delivery("a");
        bench.ask(Ask::FlushEnd(number));
        let expected: &[&str] = if no_wait { &[] } else { &["EndOutboundFlush", "EndInboundFlush"] };
        assert_eq!(bench.calls("a"), expected);
        bench.deliver("a", &order);
        let expected: &[&str] = if no_wait { &["EndOutboundFlush", "BeginInboundFlush", "StartMessage"] } else { &[] };
        assert_eq!(bench.calls("a"), expected);
    }
}

#[test]
fn anybody_may_stop_it() {
    let mut bench = Bench::ready(ONE, &[("a", flushable())]);
    deferred(&mut bench, "a");
    let number = bench.flush(FlushCommand { no_wait: true, ..FlushCommand::default() });
    agree(&mut bench, "a", 1);
    bench.delivery("a");
    let stop = bench.flush(FlushCommand { stop: true, ..FlushCommand::default() });
    assert_eq!(bench.calls("a"), ["EndOutboundFlush", "EndInboundFlush"]);
    assert!(bench.flush_progress(stop).done && bench.flush_progress(number).done);
}

#[test]
fn stopping_a_flush_cancels_the_message_that_comes_in_and_it_is_fetched_at_another_time() {
    let mut bench = Bench::ready(ONE, &[("a", smtp(Wishes::default()))]);
    let inbound = || FlushCommand { inbound: true, ..FlushCommand::default() };
    let number = bench.flush(FlushCommand { no_wait: true, ..inbound() });
    assert_eq!(bench.calls("a"), ["BeginInboundFlush", "StartMessage"]);
    bench.flush(FlushCommand { outbound: true, stop: true, ..FlushCommand::default() });
    assert!(bench.calls("a").is_empty(), "that is the other way");
    for expected in [&["CancelInbound", "EndInboundFlush"] as &[&str], &[]] {
        bench.flush(FlushCommand { stop: true, ..inbound() });
        assert_eq!(bench.calls("a"), expected);
    }
    assert!(bench.flush_progress(number).done);
    started(&mut bench, "a", StartResult::Failed("cancelled".to_owned()));
    assert_eq!(bench.row("a").last_error, None, "it was asked to");
    bench.pass(599_000);
    assert!(bench.calls("a").is_empty(), "not at once");
    bench.pass(1000);
    assert_eq!(bench.calls("a"), ["StartMessage"], "but it is not forgotten");
    // What comes in without a flush is not stopped by one, nor by who only looks no longer.
    bench.flush(FlushCommand { stop: true, ..inbound() });
    let number = bench.flush(inbound());
    bench.calls("a");
    bench.ask(Ask::FlushEnd(number));
    assert_eq!(bench.calls("a"), ["EndInboundFlush"]);
}

#[test]
fn a_worker_that_dies_is_flushed_again() {
    let mut bench = Bench::ready(ONE, &[("a", flushable())]);
    deferred(&mut bench, "a");
    let number = bench.flush(FlushCommand::default());
    agree(&mut bench, "a", 1);
    bench.die("a", "killed");
    assert!(!bench.flush_progress(number).done);
    bench.pass(200);
    bench.calls("a");
    bench.say("a", FromWorker::LoggedOn(flushable()));
    let order = bench.delivery("a");
    assert_eq!(bench.calls("a"), ["FlushQueues"]);
    agree(&mut bench, "a", 1);
    bench.deliver("a", &order);
    started(&mut bench, "a", StartResult::NotSaved);
    assert!(bench.flush_progress(number).done);
}

#[test]
fn a_resource_has_one_holder_and_goes_on_in_order() {
    let mut bench = faxes();
    bench.submit(&["TWO:2"]);
    assert_eq!(bench.calls("fax2"), ["FlushQueues"], "its resource is free: the spooler begins by itself");
    bench.submit(&["ONE:1"]);
    assert!(bench.calls("fax1").is_empty());
    let row_one = bench.row("fax1");
    assert_eq!(row_one.text, "waits for modem0 (held by fax2)");
    assert_eq!(row_one.phase.as_deref(), Some("background flush: waits for modem0 (held by fax2)"));
    row(&mut bench, "fax2", 1, bits(Some(true), None));
    bench.say("fax2", FromWorker::FlushAnswered(Ok(())));
    let order = bench.delivery("fax2");
    bench.deliver("fax2", &order);
    assert_eq!(bench.calls("fax2"), ["EndOutboundFlush"]);
    assert!(bench.calls("fax1").is_empty(), "not before the line is hung up");
    row(&mut bench, "fax2", 2, bits(Some(false), None));
    assert_eq!(bench.calls("fax1"), ["FlushQueues"]);
    assert_eq!(bench.row("fax2").phase, None);
}

#[test]
fn the_death_of_a_holder_frees_its_resource() {
    let mut bench = faxes();
    bench.submit(&["ONE:1"]);
    bench.submit(&["TWO:2"]);
    assert_eq!((bench.calls("fax1").len(), bench.calls("fax2").len()), (1, 0));
    bench.die("fax1", "killed");
    assert_eq!(bench.calls("fax2"), ["FlushQueues"]);
}

#[test]
fn a_holder_that_takes_long_hands_over_when_others_wait() {
    let mut bench = Bench::ready(MODEM, &[("fax1", LoggedOn { credit: 1, ..flushable() }), ("fax2", flushable())]);
    for number in 0..3 {
        bench.submit(&[&format!("ONE:{number}")]);
    }
    row(&mut bench, "fax1", 1, bits(Some(true), None));
    bench.say("fax1", FromWorker::FlushAnswered(Ok(())));
    let first = bench.delivery("fax1");
    bench.submit(&["TWO:2"]);
    bench.pass(61_000);
    assert!(bench.calls("fax2").is_empty(), "what is under way is finished");
    bench.deliver("fax1", &first);
    assert_eq!(bench.calls("fax1"), ["EndOutboundFlush"]);
    row(&mut bench, "fax1", 2, bits(Some(false), None));
    assert_eq!(bench.calls("fax2"), ["FlushQueues"]);
    bench.die("fax2", "killed");
    assert_eq!(bench.calls("fax1"), ["FlushQueues"], "and the rest has its turn again");
}

#[test]
fn a_critical_section_waits_for_its_resource() {
    let mut bench = faxes();
    bench.submit(&["ONE:1"]);
    bench.calls("fax2");
    bench.say("fax2", FromWorker::CriticalBegin { section: 1, reason: "incoming fax".to_owned() });
    assert!(bench.calls("fax2").is_empty());
    assert_eq!(bench.row("fax2").text, "waits for modem0 (held by fax1) for a critical section: incoming fax");
    bench.pass(100_000);
    bench.die("fax1", "killed");
    assert_eq!(bench.calls("fax2"), ["CriticalGranted"]);
    bench.pass(100_000);
    assert_eq!(bench.row("fax2").critical.as_deref(), Some("incoming fax"), "its time did not run while it waited");
    assert!(!bench.row("fax2").validate_ok);
    bench.say("fax2", FromWorker::CriticalEnd { section: 1 });
    assert_eq!(bench.row("fax2").critical, None);
}

#[test]
fn a_background_flush_that_is_refused_is_not_asked_for_all_the_time() {
    let mut bench = faxes();
    bench.submit(&["ONE:1"]);
    bench.calls("fax1");
    bench.say("fax1", FromWorker::FlushAnswered(Err(CallError::Busy)));
    bench.pass(59_000);
    assert!(bench.calls("fax1").is_empty());
    bench.pass(2000);
    assert_eq!(bench.calls("fax1"), ["FlushQueues"]);
}
