//! What is run: seeds, the seeds that once failed, and the teeth.
//!
//! `scripts/sim` says by the environment what it wants: `SIM_SEED` (one seed, `SIM_VERBOSE` for its whole trace), or `SIM_SEEDS` and
//! `SIM_FROM` (how many, and the first).

use std::time::Instant;

use crate::census::EVERYTHING;
use crate::mutations::Mutation;
use crate::{mutations, run};

/// Seeds that are run unless more are asked for.
const SEEDS: u64 = 100;
/// Seeds within which every mutation is found.
const SEEDS_FOR_TEETH: u64 = 2000;
/// Seeds within which everything happens that can.
const SEEDS_FOR_CENSUS: u64 = 240;
/// Failed seeds after which no more are looked for.
const FAILURES_MAX: usize = 10;

fn asked(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}; it must be a number")))
}

/// A rule that panics is caught and told with its seed; it need not be told twice.
fn panic_quietly() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !run::is_running() {
            loud(panic);
        }
    }));
}

fn hold(seeds: &[u64]) {
    let start = Instant::now();
    let total = run::seeds(seeds, None, None, FAILURES_MAX);
    println!(
        "{} seeds in {:.1} s: {} steps, {} messages accepted, {} recipients served, {} supervisors, {} simulated hours; the \
         longest wait for a token was {} ms",
        total.seeds,
        start.elapsed().as_secs_f64(),
        total.counts.steps,
        total.counts.acknowledged,
        total.counts.served,
        total.counts.lives,
        total.counts.simulated_ms / 3_600_000,
        total.counts.longest_wait_ms,
    );
    let Some((first, _)) = total.failed.first() else { return };
    println!("{}", run::story(*first, None));
    let failed: Vec<String> = total
        .failed
        .iter()
        .map(|(seed, broken)| format!("seed {seed}: {}: {}", broken.rule, broken.shortened()))
        .collect();
    panic!("{} seeds failed:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn seeds_hold() {
    panic_quietly();
    if let Some(seed) = asked("SIM_SEED") {
        let outcome = run::seed(seed, None, 0, std::env::var_os("SIM_VERBOSE").is_some());
        if outcome.broken.is_some() {
            println!("{}", run::story(seed, None));
            panic!("seed {seed} failed");
        }
        println!(
            "seed {seed} holds: {} steps, {} s simulated",
            outcome.counts.steps,
            outcome.counts.simulated_ms / 1000
        );
        return;
    }
    let from = asked("SIM_FROM").unwrap_or(0);
    let seeds: Vec<u64> = (from..from + asked("SIM_SEEDS").unwrap_or(SEEDS)).collect();
    hold(&seeds);
}

#[test]
fn seeds_that_failed_once_hold() {
    panic_quietly();
    let lines = include_str!("seeds.txt").lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let seeds: Vec<u64> = lines.filter(|line| !line.is_empty()).map(|line| line.parse().expect("a number")).collect();
    assert!(!seeds.is_empty());
    hold(&seeds);
}

#[test]
fn whatever_the_supervisor_can_hear_is_heard_in_some_run() {
    panic_quietly();
    let seeds: Vec<u64> = (0..SEEDS_FOR_CENSUS).collect();
    let heard = run::seeds(&seeds, None, None, FAILURES_MAX).census;
    let missing: Vec<&&str> = EVERYTHING.iter().filter(|kind| !heard.contains_key(*kind)).collect();
    assert!(missing.is_empty(), "{missing:?} were not heard; {heard:?}");
}

#[test]
fn a_seed_lives_the_same_life_again() {
    panic_quietly();
    for seed in 0..12 {
        let [first, second] = [run::seed(seed, None, 1, false), run::seed(seed, None, 1, false)];
        assert!(first.counts.steps > 0 && first.hash != 0);
        assert_eq!((first.counts.steps, first.hash), (second.counts.steps, second.hash), "seed {seed}");
    }
}

#[test]
fn every_mutation_is_found_by_its_rule() {
    panic_quietly();
    let seeds: Vec<u64> = (0..SEEDS_FOR_TEETH).collect();
    for mutation in mutations::ALL {
        let total = run::seeds(&seeds, Some(mutation), Some(mutation.rule()), 1);
        let (seed, broken) = total.failed.first().unwrap_or_else(|| panic!("{mutation:?} is not found"));
        println!("{mutation:?}: seed {seed}: {}", broken.rule);
    }
}

#[test]
fn a_failure_is_told_so_that_it_can_be_followed() {
    panic_quietly();
    let story = run::story(0, Some(Mutation::AcceptedTooEarly));
    assert!(story.contains("Submitted(Ok(MessageId("), "the last steps are told: {story}");
    assert!(story.contains("seed 0, step ") && story.contains("\"accepted means on disk\""), "{story}");
}
