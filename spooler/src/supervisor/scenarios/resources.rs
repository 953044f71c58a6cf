//! Receiving, flushes and failures where providers share a resource, or a call is out already.

use spooler_protocol::calls::{SpoolerNotify, StartResult, Wishes};
use spooler_protocol::control::FlushCommand;
use spooler_protocol::from_worker::FromWorker;

use super::bench::{Bench, smtp};

const MODEM: &str = "[provider.fax1]\nkind = 'smtp'\nresource = 'modem0'\naddress_types = ['ONE']\n\
    [provider.fax2]\nkind = 'smtp'\nresource = 'modem0'\naddress_types = ['TWO']\npoll_interval = '30s'\n";
const ONE: &str = "[provider.a]\nkind = 'smtp'\n";

fn ended(bench: &mut Bench, name: &str, result: StartResult) {
    bench.say(name, FromWorker::StartEnded(result));
}

#[test]
fn whoever_needs_a_resource_is_asked_for_messages_only_while_it_has_it() {
    let mut bench = Bench::ready(MODEM, &[("fax1", smtp(Wishes::default()))]);
    bench.submit(&["ONE:1"]);
    let order = bench.delivery("fax1");
    bench.say("fax2", FromWorker::LoggedOn(smtp(Wishes::POLL)));
    bench.pass(1);
    assert!(bench.calls("fax2").iter().all(|call| call != "Poll" && call != "StartMessage"));
    assert_eq!(bench.row("fax2").text, "waits for modem0 (held by fax1)");
    bench.deliver("fax1", &order);
    assert_eq!(bench.calls("fax2"), ["BeginInboundFlush", "StartMessage"], "with the resource nobody has to ask first");
    ended(&mut bench, "fax2", StartResult::Saved);
    assert_eq!(bench.calls("fax2"), ["StartMessage"]);
    ended(&mut bench, "fax2", StartResult::NotSaved);
    assert_eq!(bench.calls("fax2"), ["EndInboundFlush"]);
    bench.pass(29_000);
    assert!(bench.calls("fax2").is_empty(), "its interval counts here, too");
    bench.pass(1000);
    assert_eq!(bench.calls("fax2"), ["BeginInboundFlush", "StartMessage"]);
}

#[test]
fn new_mail_at_a_provider_with_a_resource_begins_a_flush() {
    let mut bench = Bench::ready(MODEM, &[("fax1", smtp(Wishes::default())), ("fax2", smtp(Wishes::default()))]);
    bench.notify("fax1", SpoolerNotify::NewMail);
    assert_eq!(bench.calls("fax1"), ["BeginInboundFlush", "StartMessage"]);
    bench.submit(&["TWO:1"]);
    assert!(bench.calls("fax2").is_empty(), "the modem is taken");
    ended(&mut bench, "fax1", StartResult::NotSaved);
    bench.delivery("fax2");
}

#[test]
fn a_flush_waits_for_the_call_that_is_out() {
    let mut bench = Bench::ready(ONE, &[("a", smtp(Wishes::POLL))]);
    bench.pass(600_000);
    assert_eq!(bench.calls("a"), Vec::<String>::new(), "the first poll is not answered");
    let number = bench.flush(FlushCommand { inbound: true, ..FlushCommand::default() });
    assert_eq!(bench.calls("a"), ["BeginInboundFlush"], "one call at a time");
    bench.say("a", FromWorker::Polled { waiting: false });
    assert_eq!(bench.calls("a"), ["StartMessage"], "a flush tries it all the same");
    ended(&mut bench, "a", StartResult::NotSaved);
    assert_eq!(bench.calls("a"), ["EndInboundFlush"]);
    assert!(bench.flush_progress(number).done);
}

#[test]
fn a_flush_passes_over_a_provider_with_a_critical_error() {
    let mut bench = Bench::ready(ONE, &[("a", smtp(Wishes::default()))]);
    bench.notify("a", SpoolerNotify::CriticalError("the line is dead".to_owned()));
    let named = FlushCommand { provider: Some("a".to_owned()), ..FlushCommand::default() };
    let number = bench.flush(named);
    let end = bench.flush_progress(number);
    assert!(end.done && end.why.contains("provider a cannot go on: the line is dead"), "{end:?}");
    assert!(bench.calls("a").is_empty());
}

#[test]
fn a_critical_error_in_a_flush_ends_it_when_nothing_is_under_way() {
    let mut bench = Bench::ready(MODEM, &[("fax1", smtp(Wishes::default())), ("fax2", smtp(Wishes::default()))]);
    bench.submit(&["ONE:1"]);
    bench.submit(&["TWO:2"]);
    let order = bench.delivery("fax1");
    bench.notify("fax1", SpoolerNotify::CriticalError("the line is dead".to_owned()));
    assert!(bench.calls("fax2").is_empty(), "what it has in hand it may finish, with its modem");
    bench.deliver("fax1", &order);
    assert!(bench.calls("fax1").is_empty(), "nothing is called any more");
    bench.delivery("fax2");
}

#[test]
fn a_flush_that_is_stopped_keeps_the_resource_until_the_last_delivery_is_over() {
    let mut bench = Bench::ready(MODEM, &[("fax1", smtp(Wishes::default())), ("fax2", smtp(Wishes::default()))]);
    bench.submit(&["ONE:1"]);
    let order = bench.delivery("fax1");
    bench.flush(FlushCommand { stop: true, ..FlushCommand::default() });
    assert_eq!(bench.calls("fax1"), ["EndOutboundFlush"]);
    bench.submit(&["TWO:2"]);
    assert!(bench.calls("fax2").is_empty(), "the modem still sends");
    bench.deliver("fax1", &order);
    bench.delivery("fax2");
}
