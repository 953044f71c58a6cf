//! Runs seeds: one, to be read, or many, to be counted.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::checker::Broken;
use crate::mutations::Mutation;
use crate::trace::Trace;
use crate::world::World;

/// Lines that are shown of a run that failed.
const LINES_SHOWN: usize = 60;

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Events that the supervisor heard.
    pub(crate) steps: u64,
    /// Messages that senders were told are accepted.
    pub(crate) acknowledged: u64,
    /// Recipients that were served.
    pub(crate) served: u64,
    /// Runs of the supervisor.
    pub(crate) lives: u64,
    /// Simulated milliseconds.
    pub(crate) simulated_ms: i64,
    /// The rule that did not hold.
    pub(crate) broken: Option<Broken>,
    /// The last lines of the trace, if one was kept.
    pub(crate) lines: Vec<String>,
    /// One number for all that happened, if a trace was kept.
    pub(crate) hash: u64,
}

/// Runs one seed. With `keep`, keeps so many lines of its trace; with `print`, prints them all.
pub(crate) fn seed(seed: u64, mutation: Option<Mutation>, keep: usize, print: bool) -> Outcome {
    let mut world = World::new(seed, mutation, Trace::new(keep, print));
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let broken = match result {
        Ok(verdict) => verdict.err(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
            Some(Broken { rule: "nothing panics", what: text.unwrap_or_default() })
        }
    };
    Outcome {
        steps: world.steps,
        acknowledged: world.checker.mail.acknowledged,
        served: world.checker.mail.served,
        lives: world.lives,
        simulated_ms: world.stage.mono_ms - 1_000_000,
        broken,
        lines: world.trace.lines().cloned().collect(),
        hash: world.trace.hash(),
    }
}

/// What many runs came to.
#[derive(Debug, Default)]
pub(crate) struct Total {
    /// Events that supervisors heard.
    pub(crate) steps: u64,
    /// Messages accepted.
    pub(crate) acknowledged: u64,
    /// Recipients served.
    pub(crate) served: u64,
    /// Runs of supervisors.
    pub(crate) lives: u64,
    /// Simulated milliseconds.
    pub(crate) simulated_ms: i64,
    /// Seeds that failed, and the rule that did not hold.
    pub(crate) failed: Vec<(u64, Broken)>,
}

/// Runs seeds on two threads, until `most` of them have failed.
pub(crate) fn seeds(seeds: &[u64], mutation: Option<Mutation>, most: usize) -> Total {
    let next = AtomicU64::new(0);
    let failures = AtomicU64::new(0);
    let work = || {
        let mut total = Total::default();
        while failures.load(Ordering::Relaxed) < most as u64 {
            let place = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap_or(usize::MAX);
            let Some(&number) = seeds.get(place) else { break };
            let outcome = seed(number, mutation, 0, false);
            total.add(number, outcome);
            if !total.failed.is_empty() {
                failures.store(total.failed.len() as u64, Ordering::Relaxed);
            }
        }
        total
    };
    let mut total = Total::default();
    std::thread::scope(|scope| {
        let threads = [scope.spawn(work), scope.spawn(work)];
        for thread in threads {
            if let Ok(part) = thread.join() {
                total.merge(part);
            }
        }
    });
    total.failed.sort_by_key(|(seed, _)| *seed);
    total
}

impl Total {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.steps += outcome.steps;
        self.acknowledged += outcome.acknowledged;
        self.served += outcome.served;
        self.lives += outcome.lives;
        self.simulated_ms += outcome.simulated_ms;
        self.failed.extend(outcome.broken.map(|broken| (seed, broken)));
    }

    fn merge(&mut self, other: Self) {
        self.steps += other.steps;
        self.acknowledged += other.acknowledged;
        self.served += other.served;
        self.lives += other.lives;
        self.simulated_ms += other.simulated_ms;
        self.failed.extend(other.failed);
    }
}

/// Runs a seed that failed once more, and tells how it went.
pub(crate) fn story(number: u64, mutation: Option<Mutation>) -> String {
    let outcome = seed(number, mutation, LINES_SHOWN, false);
    let mut story = outcome.lines.join("\n");
    match outcome.broken {
        Some(broken) => {
            story += &format!(
                "\nseed {number}, step {}: the rule \"{}\" is broken: {}\nagain, from the beginning: scripts/sim -v {number}\n",
                outcome.steps, broken.rule, broken.what
            );
        }
        None => story += &format!("\nseed {number} does not fail when it is run again: it does not replay\n"),
    }
    story
}
