//! Who hears that the machine is about to sleep or to go down can act on it, whatever else is going on.

use spooler_protocol::calls::Wishes;
use spooler_protocol::from_worker::FromWorker;
use spooler_protocol::ids::Token;
use spooler_protocol::notification::{Notification, SystemMessage};
use spooler_protocol::to_worker::ToWorker;

use super::bench::{Bench, Told, smtp};
use crate::policy::idle_gate::Observation;
use crate::supervisor::event::Event;

const PROVIDERS: &str = "[provider.a]\nkind = 'smtp'\n[provider.b]\nkind = 'smtp'\n";

fn bench(scheduler: &str) -> Bench {
    let config = format!("[scheduler]\n{scheduler}\n{PROVIDERS}");
    Bench::ready(&config, &[("a", smtp(Wishes::default())), ("b", smtp(Wishes::default()))])
}

/// The token that a worker was given since the last look, and whether it heard of this before.
fn heard_and_granted(bench: &mut Bench, name: &str, message: &SystemMessage) -> (bool, Option<Token>) {
    let (mut heard, mut granted) = (false, None);
    for told in bench.told(name) {
        match told {
            Told::Word(ToWorker::Notify(Notification::System(told))) => heard |= told == *message,
            Told::Word(ToWorker::Grant { token, .. }) => granted = Some(token),
            _ => {}
        }
    }
    (heard, granted)
}

fn granted(bench: &mut Bench, name: &str) -> Option<Token> {
    heard_and_granted(bench, name, &SystemMessage::Resume).1
}

fn give_back(bench: &mut Bench, name: &str, token: Token) {
    bench.say(name, FromWorker::Yield { token, more: false });
}

/// Others want the whole machine, and nobody of ours ran lately: the gate is closed.
fn close_the_gate(bench: &mut Bench) {
    for _ in 0..8 {
        bench.hear(Event::Observed(Observation { over_ms: 250, capacity: 2000, others: 2000, unused: 0 }));
        bench.pass(250);
    }
    // The trickle is one slot at a time.
    bench.say("a", FromWorker::Want);
    bench.pass(1000);
    bench.told("a");
}

#[test]
fn a_closed_gate_keeps_nobody_from_hearing_of_sleep() {
    for message in [SystemMessage::Suspend, SystemMessage::Shutdown] {
        let mut bench = bench("gate = 'auto'\nslots = 1");
        close_the_gate(&mut bench);
        bench.say("b", FromWorker::Want);
        assert_eq!(granted(&mut bench, "b"), None, "the gate is closed");
        bench.hear(Event::System(message.clone()));
        let (heard, token) = heard_and_granted(&mut bench, "b", &message);
        assert!(heard);
        give_back(&mut bench, "b", token.expect("a token, to act on it"));
        bench.say("b", FromWorker::Want);
        let another = granted(&mut bench, "b").expect("acting on it may take several");
        give_back(&mut bench, "b", another);
        bench.hear(Event::System(SystemMessage::Resume));
        bench.say("b", FromWorker::Want);
        assert_eq!(granted(&mut bench, "b"), None, "the gate is closed as before");
    }
}

#[test]
fn full_slots_keep_nobody_from_hearing_of_sleep() {
    let mut bench = bench("gate = 'off'\nslots = 1");
    bench.say("a", FromWorker::Want);
    let taken = granted(&mut bench, "a").expect("the slot");
    bench.say("b", FromWorker::Want);
    assert_eq!(granted(&mut bench, "b"), None, "there is one slot");
    bench.told("a");
    bench.hear(Event::System(SystemMessage::Suspend));
    let (heard, token) = heard_and_granted(&mut bench, "b", &SystemMessage::Suspend);
    assert!(heard && token.is_some());
    // Whoever holds a token keeps it: it is told as well.
    assert!(!bench.told("a").iter().any(|told| matches!(told, Told::Word(ToWorker::Recall { .. }))));
    give_back(&mut bench, "b", token.unwrap());
    bench.pass(1000);
    bench.say("b", FromWorker::Want);
    assert_eq!(granted(&mut bench, "b"), None, "the machine sleeps");
    bench.hear(Event::System(SystemMessage::Resume));
    assert_eq!(granted(&mut bench, "b"), None, "there is one slot");
    give_back(&mut bench, "a", taken);
    assert!(granted(&mut bench, "b").is_some());
}
