//! What a turn costs whom, and how far behind anybody may be.

use super::debt::DEBT_SLICES_MAX;
use super::tests::{grants, scheduler};
use super::*;

const ONE: ProviderId = ProviderId(1);
const TWO: ProviderId = ProviderId(2);
const SLICE_US: u64 = 200_000;

/// Gives the token of whoever has one back, wanting it again; its CPU clock says so much.
fn turn(scheduler: &mut Scheduler, cpu_us: u64, now_ms: i64) -> ProviderId {
    let (id, token) = grants(&scheduler.decide(now_ms)).remove(0);
    scheduler.on_yield(ProviderId(id), token, true, Some(cpu_us));
    ProviderId(id)
}

#[test]
fn who_burnt_for_long_is_behind_for_so_many_slices_only() {
    let mut scheduler = scheduler(1, 2);
    assert_eq!(turn(&mut scheduler, 3_600_000_000, 0), ONE, "an hour in one slice");
    let mut turns = 0;
    while turn(&mut scheduler, (turns + 1) * SLICE_US, 0) == TWO {
        turns += 1;
    }
    assert!((DEBT_SLICES_MAX..=DEBT_SLICES_MAX + 1).contains(&turns), "{turns}");
}

#[test]
fn a_debt_is_smaller_for_who_has_more_weight() {
    let mut scheduler = Scheduler::new(1, 200);
    for (id, weight) in [(ONE, 400), (TWO, 100)] {
        scheduler.add(id, weight, false);
        scheduler.on_want(id);
    }
    assert_eq!(turn(&mut scheduler, 3_600_000_000, 0), ONE);
    let mut turns = 0;
    while turn(&mut scheduler, (turns + 1) * SLICE_US, 0) == TWO {
        turns += 1;
    }
    assert!((DEBT_SLICES_MAX / 4..=DEBT_SLICES_MAX / 4 + 1).contains(&turns), "{turns}");
}

#[test]
fn who_sleeps_on_a_slot_that_others_want_pays_for_it() {
    let mut scheduler = scheduler(1, 2);
    let (id, token) = grants(&scheduler.decide(0)).remove(0);
    assert_eq!(ProviderId(id), ONE, "it was asked for its token at once, because the other waits");
    scheduler.on_yield(ONE, token, true, Some(0));
    // 101 ms without computing: half a slice, and the other one uses a quarter at a time.
    assert_eq!(turn(&mut scheduler, SLICE_US / 4, 101), TWO);
    assert_eq!(turn(&mut scheduler, SLICE_US / 2, 101), TWO);
    assert_eq!(turn(&mut scheduler, 0, 101), ONE);
}

#[test]
fn what_is_overrun_counts_twice_after_a_surcharge() {
    let overrun_us = SLICE_US + TOLERANCE_US + 1000;
    let virtual_us = |surcharge| {
        let mut scheduler = scheduler(1, 2);
        scheduler.set_surcharge(ONE, surcharge);
        turn(&mut scheduler, overrun_us, 0);
        scheduler.workers.get(&ONE).expect("it is there").virtual_us
    };
    assert_eq!((virtual_us(false), virtual_us(true)), (overrun_us, overrun_us + 1000));
}

#[test]
fn what_programs_use_is_charged_and_is_no_overdraft() {
    let mut scheduler = scheduler(1, 2);
    scheduler.charge_programs(ONE, 3 * SLICE_US);
    scheduler.charge_programs(ONE, 2 * SLICE_US);
    assert_eq!(scheduler.cpu_us(ONE), (3 * SLICE_US, 0), "far past a slice, without a token");
    let used = Used { sliced_us: 0, programs_us: 3 * SLICE_US };
    assert_eq!(scheduler.take_background(), used, "the gate knows");
    let turns: Vec<ProviderId> = (1..=3).map(|turns| turn(&mut scheduler, turns * SLICE_US, 0)).collect();
    assert_eq!(turns, [TWO; 3], "until the other one has had as much");
    scheduler.charge(TWO, Some(4 * SLICE_US));
    assert_eq!(turn(&mut scheduler, 0, 0), ONE);
}

#[test]
fn one_worker_is_asked_for_its_token_once() {
    let mut scheduler = scheduler(1, 1);
    assert_eq!(scheduler.recall_one(ONE, 0), None, "it has none");
    let (_, token) = grants(&scheduler.decide(0)).remove(0);
    assert_eq!(scheduler.recall_one(ONE, 5), Some(Decision::Recall(ONE, token)));
    assert_eq!(scheduler.recall_one(ONE, 6), None);
}

#[test]
fn the_present_never_goes_back() {
    let mut scheduler = scheduler(1, 2);
    turn(&mut scheduler, SLICE_US, 0);
    turn(&mut scheduler, SLICE_US, 0);
    let present_us = scheduler.advance();
    assert_eq!(present_us, SLICE_US);
    scheduler.add(ProviderId(3), 100, false);
    scheduler.on_want(ProviderId(3));
    assert_eq!(scheduler.advance(), present_us, "a newcomer starts now");
}
