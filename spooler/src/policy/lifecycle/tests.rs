//! A worker's life: starts, failures, stops and evictions.

use super::*;

struct Bench {
    life: Lifecycle,
    next: Generation,
    jitter: Jitter,
}

fn ready() -> Bench {
    let mut bench = Bench { life: Lifecycle::new(1000, 0), next: Generation(0), jitter: Jitter::new(1) };
    assert_eq!(bench.life.want(&mut bench.next, 0), Some(Step::Spawn(Generation(1))));
    bench.life.on_logged_on(5);
    assert!(bench.life.is_ready());
    bench
}

impl Bench {
    /// It dies with nothing in its hands.
    fn die(&mut self, now_ms: i64) -> Option<Step> {
        self.life.on_died("signal 9", false, &mut self.next, now_ms, &mut self.jitter)
    }

    /// It dies as soon as it has logged on, again and again; gives the milliseconds from start to start.
    fn die_at_once(&mut self, times: usize, busy: bool, mut now_ms: i64) -> Vec<i64> {
        let mut spans = Vec::new();
        for _ in 0..times {
            assert_eq!(self.life.on_died("signal 9", busy, &mut self.next, now_ms, &mut self.jitter), None);
            let due_ms = self.life.deadline_ms().unwrap();
            spans.push(due_ms - now_ms);
            now_ms = due_ms;
            assert!(matches!(self.life.on_tick(&mut self.next, now_ms), Some(Step::Spawn(_))));
            self.life.on_logged_on(now_ms);
        }
        spans
    }
}

#[test]
fn a_dead_worker_is_started_again_soon_and_then_later_and_later() {
    let mut bench = ready();
    let spans = bench.die_at_once(12, false, 0);
    assert!(spans[0] <= 125 && spans[3] >= 600 && spans[11] >= 45_000, "{spans:?}");
    bench.life.on_success();
    let spans = bench.die_at_once(1, false, spans.iter().sum());
    assert!(spans[0] <= 125, "a success makes it healthy: {spans:?}");
}

#[test]
fn a_worker_that_has_lived_a_moment_is_followed_at_once() {
    let mut bench = ready();
    assert!(matches!(bench.die(1000), Some(Step::Spawn(_))));
}

#[test]
fn where_messages_are_suspect_the_others_wait_a_second_at_most_and_the_provider_is_not_barred() {
    let mut bench = ready();
    let spans = bench.die_at_once(30, true, 0);
    assert!(spans[0] <= 125 && spans.iter().all(|span| *span <= 1000), "{spans:?}");
    bench.life.on_tick(&mut bench.next, 100_000);
    bench.die(100_000);
    assert_ne!(bench.life.state(), WorkerState::Failed);
}

#[test]
fn a_worker_that_never_starts_is_barred_with_the_reason() {
    let mut bench = ready();
    bench.life.on_success();
    let mut now = 0;
    while bench.life.state() != WorkerState::Failed {
        now += 100_000;
        match bench.life.on_tick(&mut bench.next, now) {
            Some(Step::Kill | Step::Spawn(_)) => {}
            _ => {
                bench.die(now);
            }
        }
    }
    assert!(bench.life.last_error.is_some());
    assert!(matches!(bench.life.want(&mut bench.next, now), Some(Step::Spawn(_))), "a wish lifts the bar");
}

#[test]
fn wrong_settings_bar_at_once() {
    let mut bench = Bench { life: Lifecycle::new(1000, 0), next: Generation(0), jitter: Jitter::new(1) };
    bench.life.want(&mut bench.next, 0);
    assert!(bench.life.on_logon_failed(&LogonError::Unconfigured("path is missing".to_owned())));
    bench.die(10);
    assert_eq!(bench.life.state(), WorkerState::Failed);
    assert_eq!(bench.life.last_error.as_deref(), Some("path is missing"));
}

#[test]
fn each_failed_start_is_counted_with_its_own_reason() {
    let mut bench = ready();
    assert_eq!(bench.die(10), None);
    assert_eq!((bench.life.deaths, bench.life.last_error.as_deref()), (1, Some("signal 9")));
    bench.life.on_tick(&mut bench.next, 1000);
    bench.life.on_died("exit code 70", false, &mut bench.next, 1001, &mut bench.jitter);
    assert_eq!((bench.life.deaths, bench.life.last_error.as_deref()), (2, Some("exit code 70")));
    assert!(matches!(bench.life.on_tick(&mut bench.next, 3000), Some(Step::Spawn(_))));
    assert_eq!(bench.life.on_tick(&mut bench.next, 4000), Some(Step::Kill));
    bench.die(4001);
    let late = "The worker did not log on within 1s and was killed; signal 9";
    assert_eq!((bench.life.deaths, bench.life.last_error.as_deref()), (3, Some(late)));
}

#[test]
fn what_a_worker_was_condemned_for_is_the_reason_of_its_death() {
    let mut bench = ready();
    assert_eq!(bench.life.condemn("it talks garbage"), Some(Step::Kill));
    bench.die(10);
    assert_eq!((bench.life.deaths, bench.life.last_error.as_deref()), (1, Some("it talks garbage; signal 9")));
    bench.life.on_tick(&mut bench.next, 1000);
    assert!(bench.life.on_logged_on(1001) && !bench.life.on_logged_on(1002), "only the first logon is one");
    assert_eq!(bench.life.last_error.as_deref(), Some("it talks garbage; signal 9"), "a person can still read it");
}

#[test]
fn a_provider_that_cannot_work_now_is_tried_again_and_again() {
    let mut bench = Bench { life: Lifecycle::new(1000, 0), next: Generation(0), jitter: Jitter::new(1) };
    bench.life.want(&mut bench.next, 0);
    let mut now = 0;
    for _ in 0..30 {
        assert!(bench.life.on_logon_failed(&LogonError::Failed("no line".to_owned())));
        bench.die(now);
        assert_eq!((bench.life.state(), bench.life.deaths), (WorkerState::Backoff, 0));
        now = bench.life.deadline_ms().unwrap();
        assert!(matches!(bench.life.on_tick(&mut bench.next, now), Some(Step::Spawn(_))));
    }
}

#[test]
fn the_ladder_is_ask_term_kill() {
    let mut bench = ready();
    assert_eq!(bench.life.unwant(false, 10, 500), Some(Step::Logoff { hurry: false }));
    assert_eq!(bench.life.on_tick(&mut bench.next, 499), None);
    assert_eq!(bench.life.on_tick(&mut bench.next, 500), Some(Step::Term));
    assert_eq!(bench.life.on_tick(&mut bench.next, 2500), Some(Step::Kill));
    assert_eq!(bench.die(2600), None);
    assert_eq!(bench.life.state(), WorkerState::Paused);
}

#[test]
fn a_restart_starts_the_next_generation_when_the_last_has_gone() {
    let mut bench = ready();
    assert_eq!(bench.life.restart(&mut bench.next, 10, 500), Some(Step::Logoff { hurry: false }));
    assert_eq!(bench.die(20), Some(Step::Spawn(Generation(2))));
}

#[test]
fn an_evicted_worker_goes_the_same_way_and_its_end_is_a_death() {
    let mut bench = ready();
    assert_eq!(bench.life.evict("it hangs", true, 10), Some(Step::Logoff { hurry: true }));
    assert_eq!(bench.life.evict("it hangs", true, 11), None, "once is enough");
    assert_eq!((bench.life.is_ready(), bench.life.eviction()), (false, Some(Rung::Ask)));
    let due = bench.life.deadline_ms().unwrap();
    assert_eq!(bench.life.on_tick(&mut bench.next, due), Some(Step::Term));
    let due = bench.life.deadline_ms().unwrap();
    assert_eq!(bench.life.on_tick(&mut bench.next, due), Some(Step::Kill));
    assert!(matches!(bench.die(due), Some(Step::Spawn(_))), "it lived long enough to be followed at once");
    assert_eq!((bench.life.deaths, bench.life.last_error.as_deref()), (1, Some("it hangs; signal 9")));
    assert_eq!(bench.life.eviction(), None);
}

#[test]
fn a_hurry_leaves_a_moment_to_log_off() {
    let mut bench = ready();
    bench.life.unwant(false, 10, 500);
    assert_eq!(bench.life.unwant(true, 20, 20), Some(Step::Logoff { hurry: true }));
    assert_eq!(bench.life.on_tick(&mut bench.next, 21), None);
    assert_eq!(bench.life.on_tick(&mut bench.next, 20 + HURRY_GRACE_MS), Some(Step::Term));
    assert_eq!(bench.life.unwant(true, 2000, 2000), None, "it has been told");
}

#[test]
fn a_failed_logon_out_of_turn_is_nothing() {
    let mut bench = ready();
    assert!(!bench.life.on_logon_failed(&LogonError::Failed("out of turn".to_owned())));
    assert!(bench.life.is_ready());
}
