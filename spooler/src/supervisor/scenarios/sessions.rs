//! How a session begins, changes, fails and ends.

use spooler_protocol::calls::{EndMessage, LogonFlags, SpoolerNotify, Wishes};
use spooler_protocol::control::{ProviderAction, ProviderCommand, QueueAction};
use spooler_protocol::from_worker::{FromWorker, LoggedOn};
use spooler_protocol::notification::SystemMessage;
use spooler_protocol::outcome::SubmitResult;
use spooler_protocol::status::StatusCode;
use spooler_protocol::to_worker::ToWorker;

use super::bench::{Bench, Told, smtp};
use crate::supervisor::event::{Answer, Ask, Event};

const ONE: &str = "[provider.a]\nkind = 'smtp'\n";
const TWO: &str = "[provider.a]\nkind = 'smtp'\n[provider.b]\nkind = 'smtp'\n";

fn command(bench: &mut Bench, name: &str, action: ProviderAction) {
    let command = ProviderCommand { action, flags: spooler_protocol::calls::ValidateFlags::default() };
    let done = bench.ask(Ask::Provider(name.to_owned(), command));
    assert!(matches!(done, Some(Answer::Provider(Ok(())))), "{done:?}");
}

#[test]
fn nothing_goes_in_or_out_before_both_directions_begin() {
    let mut bench = Bench::new(ONE);
    let told = bench.told("a");
    let [Told::Word(ToWorker::Welcome(welcome))] = told.as_slice() else { panic!("{told:?}") };
    let flags = LogonFlags::NO_DIALOG | LogonFlags::NO_INBOUND | LogonFlags::NO_OUTBOUND;
    assert_eq!(welcome.flags, flags);
    bench.submit(&["x@y"]);
    assert!(bench.calls("a").is_empty(), "not before the logon");
    bench.say("a", FromWorker::LoggedOn(smtp(Wishes::POLL)));
    assert_eq!(bench.calls("a"), ["BeginOutbound", "BeginInbound", "Poll", "Submit 1"]);
}

#[test]
fn words_before_the_logon_are_gossip() {
    let mut bench = Bench::new(ONE);
    bench.calls("a");
    // NEWMAIL before BEGIN_INBOUND is ignored, and so is all the rest.
    bench.notify("a", SpoolerNotify::NewMail);
    bench.notify("a", SpoolerNotify::ReadyToSend);
    bench.notify("a", SpoolerNotify::ConfigChange);
    bench.say("a", FromWorker::Polled { waiting: true });
    bench.say("a", FromWorker::Announced(smtp(Wishes::default())));
    bench.say("a", FromWorker::Idled);
    assert!(bench.calls("a").is_empty());
    bench.submit(&["x@y"]);
    assert!(bench.calls("a").is_empty(), "what it announces before it logs on does not count");
}

#[test]
fn a_session_ends_in_order_and_deferred_messages_are_let_go() {
    let mut bench = Bench::ready(ONE, &[("a", smtp(Wishes::default()))]);
    let id = bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    bench.end("a", &order, SubmitResult::Done, EndMessage::Deferred, vec![]);
    command(&mut bench, "a", ProviderAction::Pause);
    let abort = format!("AbortDeferred {{ message: {id:?}, cancelled: false }}");
    assert_eq!(bench.calls("a"), ["EndInbound", "EndOutbound", abort.as_str(), "Logoff"]);
    bench.die("a", "exit code 0");
    command(&mut bench, "a", ProviderAction::Resume);
    bench.say("a", FromWorker::LoggedOn(smtp(Wishes::default())));
    let again = bench.delivery("a");
    assert!(again.id == id && !again.deferred_before, "the next worker has not deferred anything");
}

#[test]
fn end_outbound_lets_the_current_message_finish() {
    let mut bench = Bench::ready(ONE, &[("a", smtp(Wishes::default()))]);
    bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    bench.hear(Event::Stop);
    assert_eq!(bench.calls("a"), ["System(Shutdown)", "EndInbound", "EndOutbound", "Logoff"]);
    bench.deliver("a", &order);
    assert!(bench.disk.is_empty(), "what was finished meanwhile is finished");
    bench.die("a", "exit code 0");
    assert!(bench.exited);
}

#[test]
fn ready_to_send_after_end_outbound_is_ignored() {
    let mut bench = Bench::ready(ONE, &[("a", smtp(Wishes::default()))]);
    bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    command(&mut bench, "a", ProviderAction::Pause);
    bench.calls("a");
    bench.finish("a", &order, SubmitResult::Busy);
    bench.notify("a", SpoolerNotify::ReadyToSend);
    bench.notify("a", SpoolerNotify::NewMail);
    bench.pass(10_000);
    assert!(bench.calls("a").is_empty());
}

#[test]
fn config_change_reads_address_types_again() {
    let mut bench = Bench::ready(TWO, &[("a", smtp(Wishes::default())), ("b", LoggedOn::default())]);
    let first = bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    bench.finish("a", &order, SubmitResult::Busy);
    for _ in 0..100 {
        bench.notify("a", SpoolerNotify::ConfigChange);
        bench.notify("b", SpoolerNotify::ConfigChange);
    }
    assert_eq!(bench.calls("a"), ["Announce"], "a flood costs one question");
    bench.say("b", FromWorker::Announced(smtp(Wishes::default())));
    bench.say(
        "a",
        FromWorker::Announced(LoggedOn { address_types: vec![String::new()], credit: 1, ..smtp(Wishes::default()) }),
    );
    assert_eq!(bench.calls("a"), ["Announce"], "what came meanwhile is asked once more");
    bench.pass(2000);
    assert_eq!(bench.delivery("b").id, first, "what waited for one goes to the other");
    bench.say("a", FromWorker::Announced(smtp(Wishes::default())));
    bench.say("a", FromWorker::Announced(LoggedOn::default()));
    bench.submit(&["x@y"]);
    assert_eq!(bench.calls("a"), ["Submit 2"], "what was not asked is dropped");
}

#[test]
fn after_a_critical_error_nothing_is_called() {
    let mut bench = Bench::ready(ONE, &[("a", smtp(Wishes::POLL | Wishes::IDLE))]);
    bench.say("a", FromWorker::Polled { waiting: false });
    bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    bench.notify("a", SpoolerNotify::CriticalError("the line is cut".to_owned()));
    bench.submit(&["x@y"]);
    bench.notify("a", SpoolerNotify::NewMail);
    bench.notify("a", SpoolerNotify::ConfigChange);
    bench.pass(3_600_000);
    assert!(bench.calls("a").is_empty());
    let row = bench.row("a");
    assert!(row.code.contains(StatusCode::FAILURE) && row.text.contains("the line is cut"), "{row:?}");
    bench.deliver("a", &order);
    assert_eq!(bench.disk.len(), 1, "what it had in hand it may finish");
    bench.notify("a", SpoolerNotify::ReadyToSend);
    assert!(bench.calls("a").contains(&"Submit 2".to_owned()), "its own word clears it");
    assert!(!bench.row("a").code.contains(StatusCode::FAILURE));
}

#[test]
fn after_a_critical_error_nothing_is_told_either_until_the_logoff() {
    let mut bench = Bench::ready(ONE, &[("a", smtp(Wishes::default()))]);
    let id = bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    bench.end("a", &order, SubmitResult::Done, EndMessage::Deferred, vec![]);
    bench.notify("a", SpoolerNotify::CriticalError("the line is cut".to_owned()));
    bench.hear(Event::System(SystemMessage::LinkUp { interface: "eth0".to_owned() }));
    bench.ask(Ask::Queue(QueueAction::Delete, vec![id], 0));
    assert!(bench.disk.is_empty());
    assert!(bench.calls("a").is_empty(), "neither of the link nor of the message");
    bench.hear(Event::Stop);
    assert_eq!(bench.calls("a"), ["EndInbound", "EndOutbound", "Logoff"]);
}

#[test]
fn who_stops_a_delivery_because_it_has_to_go_is_not_counted() {
    let mut bench = Bench::ready(ONE, &[("a", smtp(Wishes::default()))]);
    bench.submit(&["x@y"]);
    for _ in 0..20 {
        let order = bench.delivery("a");
        command(&mut bench, "a", ProviderAction::Restart);
        bench.finish("a", &order, SubmitResult::Cancelled);
        bench.die("a", "exit code 0");
        bench.pass(1000);
        bench.say("a", FromWorker::LoggedOn(smtp(Wishes::default())));
    }
    bench.delivery("a");
}
