//! What the idle gate has done for it, and when.

use spooler_protocol::calls::Wishes;
use spooler_protocol::from_worker::FromWorker;
use spooler_protocol::to_worker::ToWorker;

use super::bench::{Bench, Told, smtp};
use crate::policy::idle_gate::Observation;
use crate::supervisor::event::{Event, WorkerNews};

const AUTO: &str = "[scheduler]\ngate = 'auto'\nslots = 1\n[provider.a]\nkind = 'smtp'\n[provider.b]\nkind = 'smtp'\n";
/// A pause of the gate is over after so long.
const PAUSE_MS_MAX: i64 = 1000;

fn is_granted(bench: &mut Bench, name: &str) -> bool {
    bench.told(name).iter().any(|told| matches!(told, Told::Word(ToWorker::Grant { .. })))
}

#[test]
fn a_pause_in_which_nobody_looked_is_over_and_no_reason_to_spin() {
    let mut bench = Bench::ready(AUTO, &[("a", smtp(Wishes::default())), ("b", smtp(Wishes::default()))]);
    bench.submit(&["x@y"]);
    // Others use half of the machine, and nothing is left: background work pauses, to see what they really want.
    bench.hear(Event::Observed(Observation { over_ms: 250, capacity: 2000, others: 1000, unused: 0 }));
    bench.say("a", FromWorker::Want);
    assert!(!is_granted(&mut bench, "a"));
    let due_ms = bench.supervisor.deadline_ms().expect("the pause ends by itself");
    assert!(due_ms <= bench.now.mono_ms + PAUSE_MS_MAX, "{due_ms}");
    bench.pass(PAUSE_MS_MAX);
    assert!(is_granted(&mut bench, "a"));
    bench.say("b", FromWorker::Want);
    assert!(!is_granted(&mut bench, "b"), "there is one slot");
    bench.hear(Event::Tick);
    let due_ms = bench.supervisor.deadline_ms().unwrap_or(i64::MAX);
    assert!(due_ms > bench.now.mono_ms, "nothing is due, and the loop would spin: {due_ms}");
}

#[test]
fn closed_gate_waits_for_what_programs_used() {
    let mut bench = Bench::ready(AUTO, &[("a", smtp(Wishes::default())), ("b", smtp(Wishes::default()))]);
    bench.submit(&["x@y"]);
    bench.say("a", FromWorker::Want);
    // Others use all that there is, whether we pause or not: only a trickle goes on.
    let busy = || Event::Observed(Observation { over_ms: 250, capacity: 2000, others: 2000, unused: 0 });
    bench.hear_in_a_row([busy(), busy(), busy()]);
    let grant = |told: Told| if let Told::Word(ToWorker::Grant { token, .. }) = told { Some(token) } else { None };
    let token = bench.told("a").into_iter().find_map(grant).expect("a token from before");
    bench.say("a", FromWorker::Yield { token, more: true });
    assert!(is_granted(&mut bench, "a"), "the trickle");
    let used = |bench: &mut Bench, ms: u64| {
        let worker = bench.worker("a");
        bench.hear(Event::Worker(worker, WorkerNews::Programs(ms * 1000)));
    };
    // Two cores, 14 thousandths of each: 140 ms are saved up in 5 s, and 84 ms are 3 s.
    used(&mut bench, 140);
    let recalled = |told: &Told| matches!(told, Told::Word(ToWorker::Recall { .. }));
    assert!(!bench.told("a").iter().any(recalled), "what was saved is enough");
    used(&mut bench, 224);
    assert!(bench.told("a").iter().any(recalled), "no further program under this token");
    bench.say("b", FromWorker::Want);
    bench.pass(2900);
    assert!(!is_granted(&mut bench, "b"), "although its own clock has not moved");
    bench.pass(200);
    assert!(is_granted(&mut bench, "b"));
    assert_eq!((bench.row("a").cpu_ms, bench.row("a").overdraft_ms), (224, 0));
}
