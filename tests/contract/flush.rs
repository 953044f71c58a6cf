//! Flushes: bits, yields, ends.

use spooler_protocol::calls::{CallError, FlushFlags};
use spooler_protocol::from_worker::FromWorker;
use spooler_protocol::notification::Notification;
use spooler_protocol::to_worker::ToWorker;

use crate::scripted::{Scripted, row};

/// The flush bits in the words about the row, in the order in which they were said: which, and on or off.
fn bits(said: &[FromWorker]) -> Vec<(&'static str, bool)> {
    let mut bits = Vec::new();
    for update in said.iter().filter_map(row) {
        bits.extend(update.outbound_flush.map(|on| ("outbound", on)));
        bits.extend(update.inbound_flush.map(|on| ("inbound", on)));
    }
    bits
}

fn flush_answered(said: &FromWorker) -> bool {
    matches!(said, FromWorker::FlushAnswered(_))
}

#[test]
fn flush_bits_are_set_before_the_answer_and_cleared_after_the_end() {
    let mut worker = Scripted::new("");
    worker.say(&ToWorker::FlushQueues(FlushFlags::OUTBOUND | FlushFlags::INBOUND | FlushFlags::FORCE));
    let said = worker.collect(flush_answered);
    assert_eq!(bits(&said), [("outbound", true), ("inbound", true)]);
    assert_eq!(said.last(), Some(&FromWorker::FlushAnswered(Ok(()))));
    for news in [Notification::BeginOutboundFlush, Notification::EndOutboundFlush] {
        worker.tell(news);
    }
    assert_eq!(bits(&worker.calm()), [("outbound", false)]);
    for news in [Notification::BeginInboundFlush, Notification::EndInboundFlush] {
        worker.tell(news);
    }
    assert_eq!(bits(&worker.calm()), [("inbound", false)]);
    assert_eq!(worker.calls()[0], "flush 0xe");
}

#[test]
fn a_provider_ends_a_flush_by_clearing_its_bits_and_nobody_clears_them_again() {
    let mut worker = Scripted::new("notify = ['', '', '', 'clear outbound']");
    worker.say(&ToWorker::FlushQueues(FlushFlags::OUTBOUND));
    worker.collect(flush_answered);
    worker.tell(Notification::BeginOutboundFlush);
    worker.tell(Notification::EndOutboundFlush);
    assert_eq!(bits(&worker.calm()), [("outbound", false)]);
}

#[test]
fn a_provider_begins_a_flush_by_setting_its_bits() {
    let mut worker = Scripted::new("idle = ['set inbound; progress 3']");
    worker.say(&ToWorker::Idle);
    assert_eq!(bits(&worker.collect(|said| *said == FromWorker::Idled)), [("inbound", true)]);
}

#[test]
fn a_provider_may_refuse_and_there_is_one_flush_call_at_a_time() {
    let mut worker = Scripted::new("flush = ['return busy', 'wait go']");
    worker.say(&ToWorker::FlushQueues(FlushFlags::INBOUND));
    assert_eq!(worker.next(), FromWorker::FlushAnswered(Err(CallError::Busy)));
    worker.say(&ToWorker::FlushQueues(FlushFlags::INBOUND));
    worker.say(&ToWorker::FlushQueues(FlushFlags::OUTBOUND));
    assert_eq!(worker.next(), FromWorker::FlushAnswered(Err(CallError::Busy)), "the second one while the first runs");
    worker.go("go");
    let said = worker.collect(flush_answered);
    assert_eq!((bits(&said), said.last()), (vec![("inbound", true)], Some(&FromWorker::FlushAnswered(Ok(())))));
}

#[test]
fn in_a_flush_a_yield_keeps_the_token_and_afterwards_it_does_not() {
    let mut worker = Scripted::new("");
    worker.tell(Notification::BeginOutboundFlush);
    worker.calm();
    worker.grants = false;
    worker.grant(u32::MAX);
    worker.deliver_script(1, &["a@d"], "yield; yield; yield; say through");
    let yielded = |said: &FromWorker| matches!(said, FromWorker::Yield { .. });
    let said = worker.collect(|said| matches!(said, FromWorker::Finished { .. }));
    assert!(!said.iter().any(yielded), "{said:?}");
    worker.tell(Notification::EndOutboundFlush);
    worker.calm();
    worker.deliver_script(2, &["a@d"], "yield");
    worker.collect(yielded);
    worker.grants = true;
    worker.grant(200);
    worker.finished(2);
}

#[test]
fn a_critical_error_ends_the_flush_that_nobody_ends_any_more() {
    let mut worker = Scripted::new("");
    worker.tell(Notification::BeginInboundFlush);
    worker.deliver_script(1, &["a@d"], "flushing; notify error; flushing");
    worker.finished(1);
    let calls = worker.calls();
    let flushing: Vec<&String> = calls.iter().filter(|call| call.starts_with("flushing")).collect();
    assert_eq!(flushing, ["flushing 0x4", "flushing 0x0"]);
}

#[test]
fn what_is_told_during_a_flush_is_heard_between_yields() {
    let mut worker = Scripted::new("notify = ['', '', '', 'say heard']");
    worker.tell(Notification::BeginOutboundFlush);
    worker.calm();
    let script = "say begun; compute 20; yield; ".to_owned() + &"compute 5; yield; ".repeat(40);
    worker.deliver_script(1, &["a@d"], &script);
    worker.wait_said("begun");
    worker.tell(Notification::EndInbound);
    let before = worker.wait_said("heard");
    assert!(!before.iter().any(|said| matches!(said, FromWorker::Finished { .. })), "it was heard while it ran");
    worker.finished(1);
}

#[test]
fn a_logoff_during_a_flush_ends_it_first() {
    let mut worker = Scripted::new("");
    worker.say(&ToWorker::FlushQueues(FlushFlags::OUTBOUND | FlushFlags::INBOUND));
    worker.collect(flush_answered);
    let ends = [
        Notification::BeginOutboundFlush,
        Notification::EndOutboundFlush,
        Notification::EndInboundFlush,
        Notification::EndOutbound,
        Notification::EndInbound,
    ];
    ends.into_iter().for_each(|news| worker.tell(news));
    worker.say(&ToWorker::Logoff { hurry: false });
    let said = worker.collect(|said| *said == FromWorker::LoggedOff);
    assert_eq!(bits(&said), [("outbound", false), ("inbound", false)]);
    let calls = worker.calls();
    assert_eq!(calls.last().map(String::as_str), Some("logoff softly"));
    assert_eq!(calls[calls.len() - 3], "notify EndInbound", "all news came before: {calls:?}");
}
