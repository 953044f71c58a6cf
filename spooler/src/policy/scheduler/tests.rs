//! Who gets a token, in which order, and who is asked for it.

use super::*;

pub(super) fn grants(decisions: &[Decision]) -> Vec<(u32, Token)> {
    let pick = |decision: &Decision| match decision {
        Decision::Grant(id, token) => Some((id.0, *token)),
        Decision::Recall(..) => None,
    };
    decisions.iter().filter_map(pick).collect()
}

pub(super) fn scheduler(slots: u32, workers: u32) -> Scheduler {
    let mut scheduler = Scheduler::new(slots, 200);
    for id in 1..=workers {
        scheduler.add(ProviderId(id), 100, false);
        scheduler.on_want(ProviderId(id));
    }
    scheduler
}

#[test]
fn tokens_out_never_exceed_the_slots() {
    let mut scheduler = scheduler(2, 4);
    let decisions = scheduler.decide(0);
    assert_eq!(grants(&decisions).len(), 2);
    assert_eq!(decisions.len(), 4, "and both holders are asked to make room: {decisions:?}");
    assert_eq!(scheduler.decide(1), []);
}

#[test]
fn cpu_is_shared_by_weight() {
    let mut scheduler = Scheduler::new(1, 200);
    scheduler.add(ProviderId(1), 300, false);
    scheduler.add(ProviderId(2), 100, false);
    let mut cpu = [0_u64; 3];
    for id in [1, 2] {
        scheduler.on_want(ProviderId(id));
    }
    let mut now_ms = 0;
    for _ in 0..400 {
        for (id, token) in grants(&scheduler.decide(now_ms)) {
            let index = usize::try_from(id).unwrap();
            cpu[index] += 200_000;
            now_ms += 200;
            scheduler.on_yield(ProviderId(id), token, true, Some(cpu[index]));
        }
    }
    let share = cpu[1] as f64 / cpu[2] as f64;
    assert!((2.9..3.1).contains(&share), "{share}");
    assert_eq!(scheduler.cpu_us(ProviderId(1)).1, 0, "a whole slice is no overdraft");
}

#[test]
fn idleness_is_not_saved_up() {
    let mut scheduler = scheduler(1, 1);
    let token = grants(&scheduler.decide(0))[0].1;
    scheduler.on_yield(ProviderId(1), token, true, Some(10_000_000));
    scheduler.add(ProviderId(2), 100, false);
    scheduler.on_want(ProviderId(2));
    assert!(scheduler.workers[&ProviderId(2)].virtual_us >= 10_000_000);
}

#[test]
fn a_holder_that_hangs_loses_its_slot() {
    let mut scheduler = scheduler(1, 2);
    assert_eq!(grants(&scheduler.decide(0)).len(), 1);
    let due = scheduler.deadline_ms(0).unwrap();
    assert_eq!(grants(&scheduler.decide(due - 1)), []);
    assert_eq!(grants(&scheduler.decide(due)).len(), 1);
}

#[test]
fn cpu_without_a_token_and_past_the_slice_is_overdraft() {
    let mut scheduler = scheduler(1, 1);
    scheduler.charge(ProviderId(1), Some(50_000));
    assert_eq!(scheduler.cpu_us(ProviderId(1)), (50_000, 40_000));
    let token = grants(&scheduler.decide(0))[0].1;
    scheduler.on_yield(ProviderId(1), token, false, Some(50_000 + 300_000));
    assert_eq!(scheduler.cpu_us(ProviderId(1)), (350_000, 130_000));
}

#[test]
fn lies_about_tokens_change_nothing() {
    let mut scheduler = scheduler(1, 2);
    scheduler.decide(0);
    scheduler.on_yield(ProviderId(1), Token(77), false, None);
    scheduler.on_yield(ProviderId(2), Token(1), false, None);
    scheduler.on_yield(ProviderId(9), Token(1), false, None);
    assert_eq!(scheduler.tokens_out(), 1);
}

#[test]
fn an_exclusive_section_keeps_the_others_waiting() {
    let mut scheduler = scheduler(2, 3);
    let first = grants(&scheduler.decide(0));
    let id = ProviderId(first[0].0);
    scheduler.set_critical(id, true);
    scheduler.set_exclusive(id);
    let other = first[1];
    scheduler.on_yield(ProviderId(other.0), other.1, true, None);
    assert_eq!(grants(&scheduler.decide(1)), []);
    scheduler.set_critical(id, false);
    assert!(!grants(&scheduler.decide(2)).is_empty());
}
