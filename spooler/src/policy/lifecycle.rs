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

use std::time::Duration;

use spooler_protocol::from_worker::LogonError;
use spooler_protocol::ids::Generation;
use spooler_protocol::status::WorkerState;
use spooler_protocol::units;

use crate::policy::jitter::Jitter;

/// Failed starts in a row before a provider is barred.
const FAILED_STARTS_MAX: u32 = 8;
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

/// Why a worker is about to end.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Doom {
    /// It said that it could not log on, and ends by itself: not a death.
    NotLoggedOn {
        /// Nothing helps but a change of settings.
        unconfigured: bool,
    },
    /// It is being killed for this reason, which says more than the signal will.
    Condemned(String),
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
    /// Why the present worker is about to end, where that is known before it does.
    doom: Option<Doom>,
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
            doom: None,
            wanted: false,
            deaths: 0,
            last_error: None,
        }
    }

    /// The next worker may take so long to log on, milliseconds.
    pub fn set_start_timeout(&mut self, start_timeout_ms: i64) {
        self.start_timeout_ms = start_timeout_ms;
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
        self.phase == Phase::Ready && self.doom.is_none()
    }

    /// Whether it is expected to log on in a moment: it is on its way, and nothing has gone wrong so far.
    #[must_use]
    pub fn may_log_on(&self) -> bool {
        self.is_alive() && self.last_error.is_none()
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
        self.doom = Some(Doom::Condemned(why.to_owned()));
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

    /// The provider has logged on. False if it had done so before, or is not to any more.
    pub fn on_logged_on(&mut self, now_ms: i64) -> bool {
        let expected = matches!(self.phase, Phase::Starting { .. }) && self.doom.is_none();
        if expected {
            self.enter(Phase::Ready, now_ms);
        }
        expected
    }

    /// The provider could not log on; its worker ends by itself, or is ended when the time for logging on is over. Said by one that has
    /// logged on, it is nothing: it would be given no more work and live for ever.
    pub fn on_logon_failed(&mut self, error: &LogonError) {
        if !matches!(self.phase, Phase::Starting { .. }) {
            return;
        }
        let (unconfigured, text) = match error {
            LogonError::Unconfigured(text) | LogonError::Other(text) => (true, text.clone()),
            LogonError::Failed(text) => (false, text.clone()),
            LogonError::Cancelled => (true, "the logon was cancelled".to_owned()),
            LogonError::Unanswered(prompts) => {
                let missing: Vec<&str> = prompts.iter().map(|prompt| prompt.key.as_str()).collect();
                (true, format!("missing: {}; set it in the configuration", missing.join(", ")))
            }
        };
        self.doom = Some(Doom::NotLoggedOn { unconfigured });
        self.last_error = Some(text);
    }

    /// A delivery ended well: the worker is healthy.
    pub fn on_success(&mut self) {
        self.failures = 0;
    }

    /// The worker is dead, or could not be started at all.
    pub fn on_died(&mut self, why: &str, next: &mut Generation, now_ms: i64, jitter: &mut Jitter) -> Option<Step> {
        let (before, doom) = (self.phase, self.doom.take());
        let healthy = before == Phase::Ready && now_ms - self.since_ms >= HEALTHY_MS;
        match before {
            Phase::Stopping { .. } if self.wanted => return Some(self.spawn(next, now_ms)),
            Phase::Off | Phase::Stopping { .. } => {
                self.enter(Phase::Off, now_ms);
                return None;
            }
            Phase::Waiting { .. } | Phase::Barred => return None,
            Phase::Starting { .. } | Phase::Ready => {}
        }
        let refused = matches!(doom, Some(Doom::NotLoggedOn { .. }));
        let unconfigured = matches!(doom, Some(Doom::NotLoggedOn { unconfigured: true }));
        match doom {
            Some(Doom::NotLoggedOn { .. }) => {}
            Some(Doom::Condemned(cause)) => self.count_death(format!("{cause}; {why}")),
            None => self.count_death(why.to_owned()),
        }
        self.failures = if healthy { 1 } else { self.failures.saturating_add(1) };
        // A provider that says that it cannot work now is tried again for as long as it takes.
        let never_starts = matches!(before, Phase::Starting { .. }) && !refused && self.failures >= FAILED_STARTS_MAX;
        if unconfigured || never_starts {
            self.enter(Phase::Barred, now_ms);
            return None;
        }
        let doubled = BACKOFF_FIRST_MS.saturating_mul(1 << self.failures.saturating_sub(1).min(20));
        let wait_ms = jitter.around_ms(doubled.min(BACKOFF_MAX_MS));
        self.enter(Phase::Waiting { until_ms: now_ms + wait_ms }, now_ms);
        None
    }

    fn count_death(&mut self, why: String) {
        self.deaths += 1;
        self.last_error = Some(why);
    }

    /// Time has passed.
    pub fn on_tick(&mut self, next: &mut Generation, now_ms: i64) -> Option<Step> {
        if self.deadline_ms().is_none_or(|deadline| deadline > now_ms) {
            return None;
        }
        match self.phase {
            Phase::Waiting { .. } => Some(self.spawn(next, now_ms)),
            Phase::Starting { .. } => {
                // Its death is a failed start like any other, so the phase stays; the next look is far away.
                self.phase = Phase::Starting { deadline_ms: i64::MAX };
                let patience = units::show_duration(Duration::from_millis(self.start_timeout_ms.unsigned_abs()));
                self.condemn(&format!("The worker did not log on within {patience} and was killed"))
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
        self.doom = None;
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
    fn each_failed_start_is_counted_with_its_own_reason() {
        let mut bench = ready();
        assert_eq!(bench.die(10), None);
        assert_eq!((bench.life.deaths, bench.life.last_error.as_deref()), (1, Some("signal 9")));
        bench.life.on_tick(&mut bench.next, 1000);
        bench.life.on_died("exit code 70", &mut bench.next, 1001, &mut bench.jitter);
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
            bench.life.on_logon_failed(&LogonError::Failed("no line".to_owned()));
            bench.die(now);
            assert_eq!((bench.life.state(), bench.life.deaths), (WorkerState::Waiting, 0));
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
    fn a_failed_logon_out_of_turn_is_nothing() {
        let mut bench = ready();
        bench.life.on_logon_failed(&LogonError::Failed("out of turn".to_owned()));
        assert!(bench.life.is_ready());
    }
}
