//! Polling, receiving, idling.

use spooler_protocol::calls::{Methods, SpoolerNotify, StartResult, Wishes};
use spooler_protocol::control::FlushCommand;
use spooler_protocol::from_worker::{FromWorker, LoggedOn, RowUpdate};
use spooler_protocol::status::{Overrun, WorkerState};

use super::bench::{Bench, smtp};
use crate::supervisor::event::{Event, WorkerNews};

const ONE: &str = "[provider.a]\nkind = 'smtp'\npoll_interval = '5m'\n";
const TWO: &str = "[provider.a]\nkind = 'smtp'\nclaims = ['@a']\n[provider.b]\nkind = 'smtp'\nclaims = ['@b']\n";
const INTERVAL_MS: i64 = 300_000;
/// What an open call has by default.
const PATIENCE_MS: i64 = 900_000;

fn polling() -> Bench {
    let mut bench = Bench::new(ONE);
    bench.say("a", FromWorker::LoggedOn(smtp(Wishes::POLL)));
    assert_eq!(bench.calls("a"), ["Welcome", "BeginOutbound", "BeginInbound", "Poll"]);
    bench
}

fn ended(bench: &mut Bench, result: StartResult) {
    bench.say("a", FromWorker::StartEnded(result));
}

#[test]
fn a_poll_is_repeated_at_its_interval_and_never_doubled() {
    let mut bench = polling();
    bench.pass(2 * INTERVAL_MS);
    assert!(bench.calls("a").is_empty(), "one that does not answer is not asked again");
    bench.say("a", FromWorker::Polled { waiting: false });
    bench.pass(INTERVAL_MS - 1);
    assert!(bench.calls("a").is_empty());
    bench.pass(1);
    assert_eq!(bench.calls("a"), ["Poll"]);
}

/// Something that a test does.
type Begin = fn(&mut Bench);

/// A provider that polls, in a worker whose runtime lives, with half of its patience gone.
fn half_gone() -> Bench {
    let mut bench = polling();
    bench.runtimes_live = true;
    bench.pass(PATIENCE_MS / 2 + 40_000);
    bench
}

#[test]
fn a_poll_that_never_returns_is_shown_and_its_worker_is_replaced() {
    let mut bench = polling();
    bench.runtimes_live = true;
    assert_eq!(bench.row("a").text, "looks whether a message waits");
    bench.pass(PATIENCE_MS / 2 - 1000);
    assert_eq!(bench.row("a").overrun, Overrun::None, "hung is not long");
    bench.pass(41_000);
    let row = bench.row("a");
    assert_eq!(row.overrun, Overrun::Warned);
    assert!(row.text.starts_with("has said nothing of whether a message waits (Poll) for "), "{}", row.text);
    bench.pass(PATIENCE_MS / 2 - 39_000);
    assert_eq!(bench.calls("a"), ["EndInbound", "EndOutbound", "Logoff"]);
    bench.pass(3000);
    assert_eq!(bench.calls("a"), ["TERM"]);
    bench.pass(2000);
    assert_eq!(bench.calls("a"), ["KILL"]);
    bench.die("a", "killed");
    bench.pass(200);
    assert_eq!(bench.calls("a"), ["Welcome"]);
    bench.say("a", FromWorker::LoggedOn(smtp(Wishes::POLL)));
    assert!(bench.calls("a").contains(&"Poll".to_owned()), "mail is fetched again");
    assert!(bench.row("a").last_error.unwrap().contains("(Poll)"));
}

#[test]
fn whoever_gets_on_or_has_nothing_to_answer_is_left_alone() {
    let renews: [Begin; 4] = [
        |bench| bench.hear(Event::Worker(bench.worker("a"), WorkerNews::Uploads)),
        |bench| {
            let update = RowUpdate { progress: Some(40), ..RowUpdate::default() };
            bench.say("a", FromWorker::Row { sequence: 1, row: String::new(), update: Box::new(update) });
        },
        |bench| bench.say("a", FromWorker::Polled { waiting: true }),
        |bench| bench.say("a", FromWorker::Polled { waiting: false }),
    ];
    for renew in renews {
        let mut bench = half_gone();
        assert_eq!(bench.row("a").overrun, Overrun::Warned);
        renew(&mut bench);
        assert_eq!(bench.row("a").overrun, Overrun::None);
        bench.calls("a");
        bench.pass(PATIENCE_MS / 2 + 40_000);
        assert!(!bench.calls("a").contains(&"Logoff".to_owned()));
    }
    // Words without news renew nothing.
    let mut bench = half_gone();
    bench.say("a", FromWorker::Row { sequence: 1, row: String::new(), update: Box::default() });
    ended(&mut bench, StartResult::NotSaved);
    assert_eq!(bench.row("a").overrun, Overrun::Warned);
    // One that listens has no open call.
    let mut bench = Bench::ready("[provider.a]\nkind = 'smtp-in'\n", &[("a", LoggedOn::default())]);
    bench.runtimes_live = true;
    bench.pass(10 * PATIENCE_MS);
    assert_eq!((bench.calls("a"), bench.row("a").text), (Vec::new(), "idle".to_owned()));
}

#[test]
fn no_kind_of_call_may_hang_for_ever_and_others_do_not_excuse_it() {
    let cases: [(Wishes, Begin, &str); 4] = [
        (Wishes::default(), |bench| bench.notify("a", SpoolerNotify::NewMail), "(StartMessage)"),
        (Wishes::default(), |bench| bench.notify("a", SpoolerNotify::ConfigChange), "(AddressTypes)"),
        (Wishes::IDLE, |_| {}, "(Idle)"),
        (Wishes::default(), |bench| assert!(bench.flush(FlushCommand::default()) > 0), "(FlushQueues)"),
    ];
    for (wishes, begin, expected) in cases {
        let logged_on = LoggedOn { methods: Methods::FLUSH_QUEUES, ..smtp(wishes) };
        let mut bench = Bench::ready(ONE, &[("a", logged_on)]);
        bench.runtimes_live = true;
        begin(&mut bench);
        // Deliveries that go well.
        let id = bench.submit(&["x@y"]);
        for _ in 0..100 {
            bench.pass(PATIENCE_MS / 90);
            if bench.generation("a").0 == 1 && bench.row("a").state == WorkerState::Ready {
                let order = bench.delivery("a");
                bench.deliver("a", &order);
                bench.submit(&["x@y"]);
            }
        }
        assert!(bench.calls("a").contains(&"Logoff".to_owned()), "{expected}");
        assert!(bench.row("a").last_error.unwrap().contains(expected), "{expected}");
        // What it had in its hands is not to blame.
        bench.die("a", "killed");
        assert!(bench.disk.values().all(|message| message.id > id && message.deaths == 0), "{expected}");
    }
}

#[test]
fn a_flush_goes_on_with_the_worker_that_follows_a_hung_one() {
    let mut bench = Bench::ready(ONE, &[("a", smtp(Wishes::default()))]);
    bench.runtimes_live = true;
    let number = bench.flush(FlushCommand { inbound: true, ..FlushCommand::default() });
    assert_eq!(bench.calls("a"), ["BeginInboundFlush", "StartMessage"]);
    bench.pass(PATIENCE_MS + 40_000);
    assert_eq!(bench.calls("a")[..1], ["EndInboundFlush"]);
    bench.die("a", "logged off");
    bench.pass(200);
    bench.say("a", FromWorker::LoggedOn(smtp(Wishes::default())));
    assert_eq!(bench.calls("a").last().map(String::as_str), Some("StartMessage"));
    ended(&mut bench, StartResult::NotSaved);
    assert!(bench.flush_progress(number).done);
}

#[test]
fn messages_are_started_one_by_one_until_nothing_comes() {
    let mut bench = polling();
    bench.say("a", FromWorker::Polled { waiting: true });
    assert_eq!(bench.calls("a"), ["StartMessage"]);
    ended(&mut bench, StartResult::Saved);
    assert_eq!(bench.calls("a"), ["Poll"], "asked again at once");
    bench.say("a", FromWorker::Polled { waiting: true });
    assert_eq!(bench.calls("a"), ["StartMessage"]);
    // StartMessage without a save: nothing was there.
    ended(&mut bench, StartResult::NotSaved);
    bench.pass(INTERVAL_MS - 1);
    assert!(bench.calls("a").is_empty());
    bench.pass(1);
    assert_eq!(bench.calls("a"), ["Poll"]);
}

#[test]
fn start_message_error_is_shown_and_tried_at_the_next_interval() {
    let mut bench = polling();
    bench.say("a", FromWorker::Polled { waiting: true });
    bench.calls("a");
    ended(&mut bench, StartResult::Failed("the disk is full".to_owned()));
    assert_eq!(bench.row("a").last_error.as_deref(), Some("receiving failed: the disk is full"));
    bench.notify("a", SpoolerNotify::NewMail);
    bench.pass(INTERVAL_MS - 1);
    assert!(bench.calls("a").is_empty(), "news does not make it a loop");
    bench.pass(1);
    assert_eq!(bench.calls("a"), ["StartMessage"]);
}

#[test]
fn a_flood_of_new_mail_is_one_message_at_a_time_and_starves_nobody() {
    let mut bench = Bench::ready(TWO, &[("a", smtp(Wishes::default())), ("b", smtp(Wishes::default()))]);
    for _ in 0..1000 {
        bench.notify("a", SpoolerNotify::NewMail);
    }
    assert_eq!(bench.calls("a"), ["StartMessage"]);
    let id = bench.submit(&["x@b"]);
    let order = bench.delivery("b");
    bench.deliver("b", &order);
    assert!(!bench.disk.contains_key(&id));
    // It has no poll to be asked by: it is tried until nothing comes.
    ended(&mut bench, StartResult::Saved);
    assert_eq!(bench.calls("a"), ["StartMessage"]);
    ended(&mut bench, StartResult::NotSaved);
    for _ in 0..1000 {
        bench.notify("a", SpoolerNotify::NewMail);
    }
    assert!(bench.calls("a").is_empty(), "and it rests before it is believed again");
    bench.pass(1000);
    assert_eq!(bench.calls("a"), ["StartMessage"]);
}

#[test]
fn answers_to_what_was_not_asked_are_dropped() {
    let mut bench = Bench::ready(ONE, &[("a", smtp(Wishes::default()))]);
    bench.say("a", FromWorker::Polled { waiting: true });
    ended(&mut bench, StartResult::Saved);
    ended(&mut bench, StartResult::Failed("so they say".to_owned()));
    bench.pass(2 * INTERVAL_MS);
    assert!(bench.calls("a").is_empty(), "nor is one polled that does not wish it");
    assert_eq!(bench.row("a").last_error, None);
}

#[test]
fn critical_section_suppresses_poll_start_and_idle() {
    let mut bench = Bench::new(ONE);
    bench.say("a", FromWorker::LoggedOn(smtp(Wishes::POLL | Wishes::IDLE)));
    bench.say("a", FromWorker::Polled { waiting: false });
    bench.say("a", FromWorker::CriticalBegin { section: 1, reason: "a fax comes in".to_owned() });
    bench.calls("a");
    bench.notify("a", SpoolerNotify::NewMail);
    bench.pass(100_000);
    assert_eq!(bench.calls("a"), [""; 0]);
    bench.say("a", FromWorker::CriticalEnd { section: 1 });
    assert_eq!(bench.calls("a"), ["StartMessage"]);
    bench.pass(5000);
    assert_eq!(bench.calls("a"), ["Idle"]);
}

#[test]
fn idle_comes_only_when_nothing_is_wanted_and_not_often() {
    let mut bench = Bench::ready(ONE, &[("a", smtp(Wishes::IDLE))]);
    bench.pass(1999);
    bench.say("a", FromWorker::Want);
    bench.pass(1999);
    assert!(bench.calls("a").is_empty());
    bench.pass(1);
    assert_eq!(bench.calls("a"), ["Idle"]);
    bench.say("a", FromWorker::Idled);
    bench.pass(59_999);
    assert!(bench.calls("a").is_empty(), "not more than once a minute");
    bench.pass(1);
    assert_eq!(bench.calls("a"), ["Idle"]);
    bench.pass(600_000);
    assert!(bench.calls("a").is_empty(), "not again before it has answered");
}

#[test]
fn idle_waits_until_nothing_is_ready() {
    let mut bench = Bench::ready(ONE, &[("a", LoggedOn { credit: 1, ..smtp(Wishes::IDLE) })]);
    bench.submit(&["x@y"]);
    bench.submit(&["x@y"]);
    let first = bench.delivery("a");
    bench.pass(30_000);
    assert!(bench.calls("a").is_empty(), "the second message is ready");
    bench.deliver("a", &first);
    bench.pass(2000);
    assert_eq!(bench.calls("a"), ["Submit 2", "Idle"]);
}

#[test]
fn idle_is_not_for_those_who_do_not_wish_it() {
    let mut bench = Bench::ready(ONE, &[("a", smtp(Wishes::default()))]);
    bench.pass(600_000);
    assert!(bench.calls("a").is_empty());
}

#[test]
fn end_inbound_ends_asking() {
    let mut bench = polling();
    bench.say("a", FromWorker::Polled { waiting: true });
    bench.hear(Event::Stop);
    bench.calls("a");
    ended(&mut bench, StartResult::Saved);
    bench.pass(1000);
    assert!(!bench.calls("a").iter().any(|call| call == "Poll" || call == "StartMessage"));
}
