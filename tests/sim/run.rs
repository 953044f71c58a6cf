//! Runs seeds: one, to be read, or many, to be counted.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::census::Census;
use crate::checker::Broken;
use crate::mutations::Mutation;
use crate::trace::Trace;
use crate::world::World;

/// Lines that are shown of a run that failed.
const LINES_SHOWN: usize = 60;

thread_local! {
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread runs a seed: then what it panics with is a broken rule.
pub(crate) fn is_running() -> bool {
    RUNNING.get()
}

/// What happened in a run, or in many.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
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
    /// The longest wait for a token, milliseconds.
    pub(crate) longest_wait_ms: i64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.steps += other.steps;
        self.acknowledged += other.acknowledged;
        self.served += other.served;
        self.lives += other.lives;
        self.simulated_ms += other.simulated_ms;
        self.longest_wait_ms = self.longest_wait_ms.max(other.longest_wait_ms);
    }
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What happened.
    pub(crate) counts: Counts,
    /// What the supervisor heard.
    pub(crate) census: Census,
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
    RUNNING.set(true);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    RUNNING.set(false);
    let broken = match result {
        Ok(verdict) => verdict.err(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
            Some(Broken { rule: "nothing panics", what: text.unwrap_or_default() })
        }
    };
    let counts = Counts {
        steps: world.steps,
        acknowledged: world.checker.mail.acknowledged,
        served: world.checker.mail.served,
        lives: world.lives,
        simulated_ms: world.stage.mono_ms - 1_000_000,
        longest_wait_ms: world.checker.tokens.longest_wait_ms,
    };
    let census = std::mem::take(&mut world.census);
    Outcome { counts, census, broken, lines: world.trace.lines().cloned().collect(), hash: world.trace.hash() }
}

/// What many runs came to.
#[derive(Debug, Default)]
pub(crate) struct Total {
    /// Seeds that were run.
    pub(crate) seeds: u64,
    /// What happened in all of them.
    pub(crate) counts: Counts,
    /// What the supervisor heard in all of them.
    pub(crate) census: Census,
    /// Seeds that failed, and the rule that did not hold.
    pub(crate) failed: Vec<(u64, Broken)>,
}

/// Runs seeds, on as many threads as there are cores, until `most` of them have failed. With `rule`, only this one counts.
pub(crate) fn seeds(seeds: &[u64], mutation: Option<Mutation>, rule: Option<&str>, most: usize) -> Total {
    let next = AtomicUsize::new(0);
    let failures = AtomicUsize::new(0);
    let work = || {
        let mut total = Total::default();
        while failures.load(Ordering::Relaxed) < most {
            let Some(&number) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            let mut outcome = seed(number, mutation, 0, false);
            outcome.broken = outcome.broken.filter(|broken| rule.is_none_or(|rule| broken.rule == rule));
            failures.fetch_add(usize::from(outcome.broken.is_some()), Ordering::Relaxed);
            total.add(number, outcome);
        }
        total
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut total = Total::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            total.merge(thread.join().expect("what a run panics with is caught"));
        }
    });
    total.failed.sort_by_key(|(seed, _)| *seed);
    total
}

impl Total {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.seeds += 1;
        self.counts.add(outcome.counts);
        self.count(outcome.census);
        self.failed.extend(outcome.broken.map(|broken| (seed, broken)));
    }

    fn count(&mut self, census: Census) {
        for (kind, times) in census {
            *self.census.entry(kind).or_default() += times;
        }
    }

    fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.counts.add(other.counts);
        self.count(other.census);
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
                outcome.counts.steps, broken.rule, broken.what
            );
        }
        None => story += &format!("\nseed {number} does not fail when it is run again: it does not replay\n"),
    }
    story
}
