//! What is run: seeds, the seeds that once failed, and the teeth.

use std::time::Instant;

use crate::mutations;
use crate::run;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn quiet() {
    std::panic::set_hook(Box::new(|_| {}));
}

#[test]
fn every_seed_holds() {
    quiet();
    if let Some(seed) = number("SIM_SEED") {
        let verbose = std::env::var_os("SIM_VERBOSE").is_some();
        let outcome = run::seed(seed, None, 60, verbose);
        if outcome.broken.is_some() {
            println!("{}", run::story(seed, None));
            panic!("seed {seed} failed");
        }
        return;
    }
    let from = number("SIM_FROM").unwrap_or(0);
    let count = number("SIM_SEEDS").unwrap_or(200);
    let seeds: Vec<u64> = (from..from + count).collect();
    let start = Instant::now();
    let total = run::seeds(&seeds, None, 5);
    println!(
        "{} steps, {} acknowledged, {} served, {} lives, {} s simulated in {:?}",
        total.steps,
        total.acknowledged,
        total.served,
        total.lives,
        total.simulated_ms / 1000,
        start.elapsed()
    );
    for (seed, broken) in &total.failed {
        println!("seed {seed}: {}: {}", broken.rule, broken.what.chars().take(300).collect::<String>());
    }
    if let Some((seed, _)) = total.failed.first() {
        println!("{}", run::story(*seed, None));
        panic!("{} seeds failed", total.failed.len());
    }
}

#[test]
fn every_mutation_is_found() {
    quiet();
    let seeds: Vec<u64> = (0..2000).collect();
    for mutation in mutations::ALL {
        let total = run::seeds(&seeds, Some(mutation), 1);
        let found = total.failed.first();
        println!("{mutation:?}: {found:?}");
        assert!(found.is_some(), "{mutation:?} is not found");
    }
}
