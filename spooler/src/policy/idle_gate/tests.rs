//! The gate's rules, by the looks that it is given.

use super::*;

const PLAN: Plan =
    Plan { mode: Mode::Auto, idle_required_ms: 2000, poll_every_ms: 2000, force_after_ms: 300_000, trickle: 5 };

fn seen(others: i64) -> Observation {
    Observation { over_ms: 250, capacity: 2000, others, unused: 2000 - others }
}

fn sliced(sliced_us: u64) -> Used {
    Used { sliced_us, programs_us: 0 }
}

/// A gate that was closed at 0.
fn closed(plan: Plan) -> IdleGate {
    let mut gate = IdleGate::new(plan, 2, 0);
    gate.observe(seen(1950), -250);
    gate.observe(seen(1950), 0);
    gate
}

#[test]
fn slots_are_what_others_leave() {
    let cases = [(0, 2), (600, 2), (650, 1), (1000, 1), (1600, 1), (1650, 0), (2000, 0), (2100, 0)];
    for (others, slots) in cases {
        assert_eq!(possible(seen(others), 2), slots, "others use {others}");
    }
    assert_eq!(possible(Observation { over_ms: 1, capacity: 64_000, others: 10_000, unused: 0 }, 4), 4);
    assert_eq!(possible(Observation { over_ms: 1, capacity: 1000, others: 500, unused: 0 }, 1), 1);
}

#[test]
fn one_look_does_not_close_it_and_the_second_comes_soon() {
    let mut gate = IdleGate::new(PLAN, 2, 0);
    gate.on_demand();
    assert_eq!(gate.look_every_ms(), Some(2000));
    gate.on_demand();
    gate.observe(seen(700), 100);
    assert_eq!((gate.slots(100), gate.look_every_ms()), (2, Some(250)));
    gate.observe(seen(0), 350);
    gate.observe(seen(700), 600);
    assert_eq!(gate.slots(600), 2, "not in a row");
    gate.observe(seen(700), 850);
    assert_eq!(gate.slots(850), 1);
}

#[test]
fn it_opens_only_after_the_time_that_is_required() {
    let mut gate = closed(Plan { trickle: 0, ..PLAN });
    assert_eq!(gate.slots(0), 0);
    gate.observe(seen(100), 1000);
    gate.observe(seen(900), 2000);
    assert_eq!(gate.slots(2000), 0);
    gate.observe(seen(100), 2750);
    assert_eq!(gate.slots(2750), 1, "as much as was left all the time");
    gate.observe(Observation { over_ms: 2000, ..seen(100) }, 4750);
    assert_eq!(gate.slots(4750), 2);
}

#[test]
fn who_comes_back_while_it_opens_is_waited_for_anew() {
    let mut gate = closed(Plan { trickle: 0, ..PLAN });
    gate.observe(seen(100), 1000);
    gate.observe(seen(2000), 1900);
    gate.observe(seen(100), 3000);
    assert_eq!(gate.slots(3000), 0);
}

#[test]
fn nobody_at_the_session_need_not_be_waited_for() {
    let mut gate = closed(PLAN);
    gate.set_idle_hint(Some(true));
    gate.observe(seen(1900), 250);
    assert!(gate.is_trickling(), "what others compute still counts");
    gate.observe(seen(0), 500);
    assert_eq!(gate.slots(500), 2);
}

#[test]
fn the_trickle_stays_below_its_share() {
    let mut gate = closed(PLAN);
    let (mut now_ms, mut used_us) = (0, 0);
    while now_ms < 100_000 {
        if gate.slots(now_ms) == 1 {
            gate.charge(sliced(20_000), now_ms);
            used_us += 20_000;
        }
        now_ms = gate.deadline_ms().expect("a debt is paid some day");
    }
    // 5 thousandths of two cores in 100 s.
    assert!((980_000..=1_020_000).contains(&used_us), "{used_us}");
}

/// Programs that use so much CPU each, one as soon as the gate allows it, for 100 s: the longest wait for the next one, milliseconds, and all
/// that they used.
fn programs(used_us: u64) -> (i64, u64) {
    let mut gate = closed(Plan { trickle: 2, ..PLAN });
    let (mut now_ms, mut all_us, mut longest_ms) = (0, 0, 0);
    while now_ms < 100_000 {
        assert_eq!(gate.slots(now_ms), 1);
        gate.charge(Used { sliced_us: 0, programs_us: used_us }, now_ms);
        all_us += used_us;
        let next_ms = gate.deadline_ms().unwrap_or(now_ms);
        longest_ms = longest_ms.max(next_ms - now_ms);
        now_ms = next_ms;
    }
    (longest_ms, all_us)
}

#[test]
fn light_programs_wait_less_than_a_second() {
    // 14 thousandths of two cores in 100 s, and what was saved up.
    let most_us = 2_800_000 + 140_000;
    for (used_us, wait_ms) in [(5_000, 179), (20_000, 715), (100_000, 3572), (1_000_000, 10_000)] {
        let (longest_ms, all_us) = programs(used_us);
        assert!(longest_ms <= wait_ms, "{used_us} us: {longest_ms} ms");
        // What is beyond the greatest debt is forgiven.
        assert!(used_us > 280_000 || all_us <= most_us + used_us, "{used_us} us: {all_us} us");
    }
}

#[test]
fn programs_one_by_one_find_what_was_saved() {
    let mut gate = closed(Plan { trickle: 2, ..PLAN });
    for at_ms in (0..100_000).step_by(4000) {
        assert_eq!(gate.slots(at_ms), 1, "at {at_ms} ms");
        gate.charge(Used { sliced_us: 0, programs_us: 100_000 }, at_ms);
        assert_eq!(gate.slots(at_ms), 1, "the end of the program is heard at once");
    }
    let mut gate = closed(Plan { trickle: 0, ..PLAN });
    assert_eq!((gate.slots(0), gate.deadline_ms()), (0, None), "without a trickle nothing goes on");
}

#[test]
fn a_great_debt_is_forgiven() {
    let mut gate = closed(PLAN);
    gate.charge(Used { sliced_us: u64::MAX, programs_us: u64::MAX }, 0);
    assert_eq!(gate.slots(0), 0);
    assert_eq!(gate.deadline_ms(), Some(DEBT_MS_MAX));
    assert_eq!(gate.slots(DEBT_MS_MAX), 1);
}

#[test]
fn it_looks_only_while_something_wants_to_run() {
    let mut gate = IdleGate::new(PLAN, 2, 0);
    assert_eq!(gate.look_every_ms(), None);
    gate.on_demand();
    assert_eq!(gate.look_every_ms(), Some(2000));
    gate.observe(seen(0), 100);
    assert_eq!(gate.look_every_ms(), Some(2000), "something wanted to run meanwhile");
    gate.observe(seen(0), 2100);
    assert_eq!(gate.look_every_ms(), None);
}

#[test]
fn off_and_fixed_do_not_look() {
    for (mode, slots, words) in
        [(Mode::Off, 2, "off"), (Mode::Fixed(0), 0, "fixed at 0"), (Mode::Fixed(9), 2, "fixed at 9")]
    {
        let mut gate = closed(Plan { mode, ..PLAN });
        gate.on_demand();
        assert_eq!((gate.slots(0), gate.look_every_ms(), gate.describe().as_str()), (slots, None, words));
    }
}

#[test]
fn its_state_is_said_with_the_reason() {
    let mut gate = IdleGate::new(PLAN, 2, 0);
    assert_eq!(gate.describe(), "open");
    for (others, words) in [
        (120, "open: others use 0.1 of 2 cores"),
        (2000, "open: others use 2.0 of 2 cores"),
        (1950, "closed, a trickle goes on: others use 2.0 of 2 cores"),
    ] {
        gate.on_demand();
        gate.observe(seen(others), 0);
        assert_eq!(gate.describe(), words);
    }
    gate.observe(seen(1950), 2000);
    assert_eq!(gate.describe(), "closed, a trickle goes on when it was last asked");
}

/// Others use so much and we use the rest.
fn full(others: i64) -> Observation {
    Observation { unused: 0, ..seen(others) }
}

#[test]
fn who_was_kept_from_the_cpu_by_us_is_found_out() {
    let mut gate = IdleGate::new(PLAN, 2, 0);
    gate.on_demand();
    gate.observe(full(1500), 1000);
    assert_eq!((gate.slots(1000), gate.look_every_ms()), (0, Some(SECOND_LOOK_MS)), "a pause, to see what they want");
    gate.observe(full(2000), 1250);
    assert!(gate.is_trickling(), "one look is enough without us");
}

#[test]
fn who_wants_no_more_is_believed_for_a_while() {
    let mut gate = IdleGate::new(Plan { idle_required_ms: 0, ..PLAN }, 2, 0);
    gate.observe(full(900), 1000);
    assert_eq!(gate.slots(1000), 0);
    gate.observe(seen(1000), 1250);
    assert_eq!(gate.slots(1250), 1);
    gate.observe(full(1200), 2000);
    assert_eq!(gate.slots(2000), 1, "believed");
    gate.observe(full(1300), 3000);
    assert_eq!(gate.slots(3000), 0, "they use noticeably more");
    gate.observe(seen(1300), 3250);
    gate.observe(full(1300), 3250 + PROVEN_MS);
    assert_eq!(gate.slots(3250 + PROVEN_MS), 0, "it was long ago");
}

#[test]
fn nobody_is_in_doubt_where_there_is_room_or_nobody_else() {
    let mut gate = IdleGate::new(PLAN, 2, 0);
    gate.observe(full(100), 1000);
    gate.observe(Observation { unused: 500, ..seen(600) }, 3000);
    assert_eq!(gate.slots(3000), 2);
}

#[test]
fn a_pause_ends_even_if_nobody_looks() {
    let mut gate = IdleGate::new(PLAN, 2, 0);
    gate.observe(full(900), 1000);
    let ends_ms = gate.deadline_ms().expect("it ends");
    assert_eq!((gate.slots(ends_ms - 1), gate.slots(ends_ms)), (0, 2));
}
