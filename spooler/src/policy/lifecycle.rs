//! When a worker is started, asked to go, made to go, and started again.
//!
//! ```text
//!                 start            logged on             stop
//!   off / waiting ─────▶ starting ──────────▶ ready ───────────▶ stopping ──▶ off
//!        ▲                  │                   │                 ask, TERM, KILL
//!        │ backoff          │ late: KILL        │
//!        └────────────── died ◀─────────────────┘
//!                           │ too many failed starts, or settings that only a person can mend
//!                           ▼
//!                        barred
//! ```

use spooler_protocol::from_worker::LogonError;
use spooler_protocol::ids::Generation;
use spooler_protocol::status::WorkerState;

use crate::policy::jitter::Jitter;

/// Failed starts in a row before a provider is barred.
const FAILED_STARTS_MAX: u32 = 10;
/// A worker that was ready for so long is healthy again.
const HEALTHY_MS: i64 = 10_000;
const BACKOFF_FIRST_MS: i64 = 100;
const BACKOFF_MAX_MS: i64 = 60_000;
/// Between TERM and KILL.
const TERM_GRACE_MS: i64 = 2000;

/// Where a worker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Off,
    Waiting { until_ms: i64 },
    Starting { deadline_ms: i64 },
    Ready,
    Stopping { rung: Rung, deadline_ms: i64 },
    Barred,
}

/// How hard a worker is being asked to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rung {
    Ask,
    Term,
    Kill,
}

/// What is to be done with the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Start one of this generation.
    Spawn(Generation),
    /// Ask it to log off.
    Logoff {
        /// Without waiting for deliveries in flight.
        hurry: bool,
    },
    /// SIGTERM.
    Term,
    /// SIGKILL.
    Kill,
}

/// The life of one provider's workers.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    phase: Phase,
    generation: Generation,
    since_ms: i64,
    start_timeout_ms: i64,
    failures: u32,
    unconfigured: bool,
    wanted: bool,
    /// Deaths that nobody asked for.
    pub deaths: u64,
    /// The last thing that went wrong, verbatim.
    pub last_error: Option<String>,
}

impl Lifecycle {
    /// A provider without a worker.
    #[must_use]
    pub fn new(start_timeout_ms: i64, now_ms: i64) -> Self {
        Self {
            phase: Phase::Off,
            generation: Generation(0),
            since_ms: now_ms,
            start_timeout_ms,
            failures: 0,
            unconfigured: false,
            wanted: false,
            deaths: 0,
            last_error: None,
        }
    }

    /// The incarnation that lives, or lived last.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Since when it is in this state.
    #[must_use]
    pub fn since_ms(&self) -> i64 {
        self.since_ms
    }

    /// Whether a process of this generation may exist.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        matches!(self.phase, Phase::Starting { .. } | Phase::Ready | Phase::Stopping { .. })
    }

    /// Whether it takes deliveries.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// What the status row says.
    #[must_use]
    pub fn state(&self) -> WorkerState {
        match self.phase {
            Phase::Off => WorkerState::Paused,
            Phase::Waiting { .. } => WorkerState::Waiting,
            Phase::Starting { .. } => WorkerState::Starting,
            Phase::Ready => WorkerState::Ready,
            Phase::Stopping { rung: Rung::Ask, .. } => WorkerState::Draining,
            Phase::Stopping { .. } => WorkerState::Stopping,
            Phase::Barred => WorkerState::Barred,
        }
    }

    /// A worker is wanted: starts one, or another as soon as the present one has gone. Lifts a bar.
    pub fn want(&mut self, next: &mut Generation, now_ms: i64) -> Option<Step> {
        self.wanted = true;
        match self.phase {
            Phase::Off | Phase::Waiting { .. } | Phase::Barred => {
                self.failures = 0;
                Some(self.spawn(next, now_ms))
            }
            Phase::Starting { .. } | Phase::Ready | Phase::Stopping { .. } => None,
        }
    }

    /// No worker is wanted any more: asks the present one to go by `deadline_ms`, then makes it.
    pub fn unwant(&mut self, hurry: bool, now_ms: i64, deadline_ms: i64) -> Option<Step> {
        self.wanted = false;
        self.stop(hurry, now_ms, deadline_ms)
    }

    /// Replaces the present worker, or starts one.
    pub fn restart(&mut self, next: &mut Generation, now_ms: i64, deadline_ms: i64) -> Option<Step> {
        if self.is_alive() {
            self.wanted = true;
            self.failures = 0;
            self.stop(false, now_ms, deadline_ms)
        } else {
            self.want(next, now_ms)
        }
    }

    /// Ends a worker that cannot be believed any more. Its death counts as one that nobody asked for.
    pub fn condemn(&mut self, why: &str) -> Option<Step> {
        if !self.is_alive() {
            return None;
        }
        self.last_error = Some(why.to_owned());
        Some(Step::Kill)
    }

    fn stop(&mut self, hurry: bool, now_ms: i64, deadline_ms: i64) -> Option<Step> {
        match self.phase {
            Phase::Off | Phase::Waiting { .. } | Phase::Barred => {
                self.enter(Phase::Off, now_ms);
                None
            }
            Phase::Starting { .. } => {
                self.enter(Phase::Stopping { rung: Rung::Term, deadline_ms: now_ms + TERM_GRACE_MS }, now_ms);
                Some(Step::Term)
            }
            Phase::Ready => {
                self.enter(Phase::Stopping { rung: Rung::Ask, deadline_ms }, now_ms);
                Some(Step::Logoff { hurry })
            }
            Phase::Stopping { rung: Rung::Ask, .. } if hurry => {
                self.phase = Phase::Stopping { rung: Rung::Ask, deadline_ms };
                Some(Step::Logoff { hurry })
            }
            Phase::Stopping { .. } => None,
        }
    }

    /// The provider has logged on.
    pub fn on_logged_on(&mut self, now_ms: i64) {
        if matches!(self.phase, Phase::Starting { .. }) {
            self.last_error = None;
            self.enter(Phase::Ready, now_ms);
        }
    }

    /// The provider could not log on; its worker ends by itself.
    pub fn on_logon_failed(&mut self, error: &LogonError) {
        let (unconfigured, text) = match error {
            LogonError::Unconfigured(text) => (true, text),
            LogonError::Failed(text) => (false, text),
        };
        self.unconfigured = unconfigured;
        self.last_error = Some(text.clone());
    }

    /// A delivery ended well: the worker is healthy.
    pub fn on_success(&mut self) {
        self.failures = 0;
    }

    /// The worker is dead, or could not be started at all.
    pub fn on_died(&mut self, why: &str, next: &mut Generation, now_ms: i64, jitter: &mut Jitter) -> Option<Step> {
        let before = self.phase;
        let healthy = before == Phase::Ready && now_ms - self.since_ms >= HEALTHY_MS;
        match before {
            Phase::Stopping { .. } if self.wanted => return Some(self.spawn(next, now_ms)),
            Phase::Off | Phase::Stopping { .. } => {
                self.enter(Phase::Off, now_ms);
                return None;
            }
            Phase::Waiting { .. } | Phase::Barred => return None,
            Phase::Starting { .. } if self.last_error.is_some() => {}
            Phase::Starting { .. } | Phase::Ready => {
                self.deaths += 1;
                self.last_error = Some(why.to_owned());
            }
        }
        self.failures = if healthy { 1 } else { self.failures.saturating_add(1) };
        let failed_start = matches!(before, Phase::Starting { .. });
        if self.unconfigured || (failed_start && self.failures >= FAILED_STARTS_MAX) {
            self.enter(Phase::Barred, now_ms);
            return None;
        }
        let doubled = BACKOFF_FIRST_MS.saturating_mul(1 << self.failures.saturating_sub(1).min(20));
        let wait_ms = jitter.around_ms(doubled.min(BACKOFF_MAX_MS));
        self.enter(Phase::Waiting { until_ms: now_ms + wait_ms }, now_ms);
        None
    }

    /// Time has passed.
    pub fn on_tick(&mut self, next: &mut Generation, now_ms: i64) -> Option<Step> {
        if self.deadline_ms().is_none_or(|deadline| deadline > now_ms) {
            return None;
        }
        match self.phase {
            Phase::Waiting { .. } => Some(self.spawn(next, now_ms)),
            Phase::Starting { .. } => {
                self.last_error =
                    Some(format!("The worker did not log on within {} s and was killed", self.start_timeout_ms / 1000));
                // Its death is a failed start like any other, so the phase stays; the next look is far away.
                self.phase = Phase::Starting { deadline_ms: i64::MAX };
                self.deaths += 1;
                Some(Step::Kill)
            }
            Phase::Stopping { rung: Rung::Ask, .. } => {
                self.phase = Phase::Stopping { rung: Rung::Term, deadline_ms: now_ms + TERM_GRACE_MS };
                Some(Step::Term)
            }
            Phase::Stopping { .. } => {
                self.phase = Phase::Stopping { rung: Rung::Kill, deadline_ms: i64::MAX };
                Some(Step::Kill)
            }
            Phase::Off | Phase::Ready | Phase::Barred => None,
        }
    }

    /// When [`Lifecycle::on_tick`] has something to do.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<i64> {
        match self.phase {
            Phase::Waiting { until_ms } => Some(until_ms),
            Phase::Starting { deadline_ms } | Phase::Stopping { deadline_ms, .. } => {
                Some(deadline_ms).filter(|at| *at < i64::MAX)
            }
            Phase::Off | Phase::Ready | Phase::Barred => None,
        }
    }

    fn spawn(&mut self, next: &mut Generation, now_ms: i64) -> Step {
        *next = Generation(next.0 + 1);
        self.generation = *next;
        self.unconfigured = false;
        self.last_error = self.last_error.take().filter(|_| self.failures > 0);
        self.enter(Phase::Starting { deadline_ms: now_ms + self.start_timeout_ms }, now_ms);
        Step::Spawn(self.generation)
    }

    fn enter(&mut self, phase: Phase, now_ms: i64) {
        self.phase = phase;
        self.since_ms = now_ms;
    }
}

#[cfg(test)]
mod tests {
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
        fn die(&mut self, now_ms: i64) -> Option<Step> {
            self.life.on_died("signal 9", &mut self.next, now_ms, &mut self.jitter)
        }
    }

    #[test]
    fn a_dead_worker_is_started_again_soon_and_then_later_and_later() {
        let mut bench = ready();
        let mut now = 100;
        let mut waits = Vec::new();
        for _ in 0..4 {
            assert_eq!(bench.die(now), None);
            let due = bench.life.deadline_ms().unwrap();
            waits.push(due - now);
            now = due;
            assert!(matches!(bench.life.on_tick(&mut bench.next, now), Some(Step::Spawn(_))));
            bench.life.on_logged_on(now);
        }
        assert!(waits[0] <= 125 && waits[3] >= 600, "{waits:?}");
        bench.life.on_success();
        bench.die(now + 1);
        assert!(bench.life.deadline_ms().unwrap() - now <= 126, "a success makes it healthy");
    }

    #[test]
    fn a_worker_that_never_starts_is_barred_with_the_reason() {
        let mut bench = ready();
        bench.life.on_success();
        let mut now = 0;
        while bench.life.state() != WorkerState::Barred {
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
        bench.life.on_logon_failed(&LogonError::Unconfigured("path is missing".to_owned()));
        bench.die(10);
        assert_eq!(bench.life.state(), WorkerState::Barred);
        assert_eq!(bench.life.last_error.as_deref(), Some("path is missing"));
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
}
