//! Slots come and go as the idle gate says, and whoever has waited too long is served without one.

use super::tests::{grants, scheduler};
use super::*;

#[test]
fn without_slots_only_the_urgent_run_until_somebody_waited_too_long() {
    let mut scheduler = scheduler(2, 2);
    scheduler.configure(200, 5000);
    scheduler.set_slots(0);
    scheduler.add(ProviderId(7), 100, true);
    scheduler.on_want(ProviderId(7));
    assert_eq!(grants(&scheduler.decide(1000)).iter().map(|(id, _)| *id).collect::<Vec<_>>(), [7]);
    assert_eq!(scheduler.deadline_ms(1000), Some(6000));
    assert_eq!(scheduler.decide(5999), []);
    let forced = grants(&scheduler.decide(6000));
    assert_eq!(forced.len(), 1, "one at a time");
    assert_eq!(scheduler.decide(6001), [], "and it is not asked back at once");
    assert_eq!(scheduler.deadline_ms(6001), Some(16_000));
    let (id, token) = forced[0];
    assert_eq!(scheduler.decide(16_000), [Decision::Recall(ProviderId(id), token)]);
    scheduler.on_yield(ProviderId(id), token, true, Some(200_000));
    let next = grants(&scheduler.decide(16_001));
    assert!(next.len() == 1 && next[0].0 != id, "then it is the other one's turn: {next:?}");
}

#[test]
fn when_slots_are_taken_away_tokens_are_asked_back() {
    let mut scheduler = scheduler(2, 2);
    assert_eq!(grants(&scheduler.decide(0)).len(), 2);
    scheduler.set_slots(0);
    let recalled = scheduler.decide(1);
    assert_eq!(recalled.len(), 2, "{recalled:?}");
    assert_eq!(scheduler.decide(2), [], "once");
}

#[test]
fn only_the_cpu_of_those_who_need_a_slot_is_background() {
    let mut scheduler = scheduler(1, 1);
    scheduler.add(ProviderId(7), 100, true);
    scheduler.charge(ProviderId(1), Some(3000));
    scheduler.charge(ProviderId(7), Some(9000));
    let used = Used { sliced_us: 3000, programs_us: 0 };
    assert_eq!((scheduler.take_background(), scheduler.take_background()), (used, Used::default()));
    scheduler.set_runs_programs(ProviderId(1), true);
    scheduler.charge(ProviderId(1), Some(5000));
    scheduler.charge_programs(ProviderId(1), 4000);
    assert_eq!(scheduler.take_background(), Used { sliced_us: 0, programs_us: 6000 });
    assert!(scheduler.wants_slot());
}

#[test]
fn somebody_waits_for_the_urgent() {
    let mut scheduler = scheduler(1, 1);
    scheduler.decide(0);
    scheduler.add(ProviderId(7), 100, true);
    scheduler.on_want(ProviderId(7));
    assert_eq!(grants(&scheduler.decide(0)).len(), 1);
}
