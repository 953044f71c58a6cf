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
//!
//! A worker that is evicted for what it does is stopped the same way; its end is a death, and it is started again after a while.

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
/// From one start to the next after a first failure; twice as long after each further one in a row. A worker that lived longer than that is
/// followed at once.
const BACKOFF_FIRST_MS: i64 = 100;
const BACKOFF_MAX_MS: i64 = 60_000;
/// The same where workers die with messages in their hands: the messages are suspect, and others must not wait for them. With its jitter
/// it is at most a second.
const BACKOFF_BUSY_MAX_MS: i64 = 800;
/// Between TERM and KILL.
const TERM_GRACE_MS: i64 = 2000;
/// A worker that is asked to go in a hurry may take so long to log off.
const HURRY_GRACE_MS: i64 = 1500;
/// A worker that is evicted may take so long.
const EVICTION_MS: i64 = 3000;

/// How a program ends that has nothing to complain of. A worker that cannot log on says why before it ends.
const SUCCESS: &str = "exit code 0";
const NOT_OURS: &str =
    "The worker program is not a spooler worker of this version; install spooler and spooler-worker together";

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
pub enum Rung {
    /// It was asked to log off.
    Ask,
    /// SIGTERM was sent.
    Term,
    /// SIGKILL was sent.
    Kill,
}

/// Why a worker is about to end.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Doom {
    /// It said that it could not log on, and ends by itself: not a death. With a remedy, only that helps.
    NotLoggedOn(Option<Remedy>),
    /// It is being killed for this reason, which says more than the signal will.
    Condemned(String),
}

/// The step that a person has to take before a provider is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Correct its settings or a file that they name, and reload the configuration.
    Reload,
    /// Answer its questions.
    Logon,
    /// Look for the reason, and restart it.
    Restart,
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
    /// Failed starts, and deaths with nothing in hand, in a row.
    failures: u32,
    /// Deaths with messages in hand, in a row.
    mishaps: u32,
    spawned_ms: i64,
    /// Why the present worker is about to end, where that is known before it does.
    doom: Option<Doom>,
    /// The step that helps while it is not tried again.
    remedy: Option<Remedy>,
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
            mishaps: 0,
            spawned_ms: now_ms,
            doom: None,
            remedy: None,
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

    /// The step that a person has to take, if it is not tried again by itself.
    #[must_use]
    pub fn remedy(&self) -> Option<Remedy> {
        match self.doom {
            Some(Doom::NotLoggedOn(remedy)) => remedy,
            Some(Doom::Condemned(_)) | None => self.remedy.filter(|_| self.phase == Phase::Barred),
        }
    }

    /// When it is started again after its death, on the clock that never jumps.
    #[must_use]
    pub fn next_start_ms(&self) -> Option<i64> {
        match self.phase {
            Phase::Waiting { until_ms } => Some(until_ms),
            Phase::Off | Phase::Starting { .. } | Phase::Ready | Phase::Stopping { .. } | Phase::Barred => None,
        }
    }

    /// What the status row says.
    #[must_use]
    pub fn state(&self) -> WorkerState {
        match self.phase {
            Phase::Off => WorkerState::Paused,
            Phase::Waiting { .. } => WorkerState::Backoff,
            Phase::Starting { .. } => WorkerState::Starting,
            Phase::Ready => WorkerState::Ready,
            Phase::Stopping { rung: Rung::Ask, .. } => WorkerState::Draining,
            Phase::Stopping { .. } => WorkerState::Stopping,
            Phase::Barred => WorkerState::Failed,
        }
    }

    /// A worker is wanted: starts one, or another as soon as the present one has gone. Lifts a bar.
    pub fn want(&mut self, next: &mut Generation, now_ms: i64) -> Option<Step> {
        self.wanted = true;
        match self.phase {
            Phase::Off | Phase::Waiting { .. } | Phase::Barred => {
                self.on_success();
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
            self.on_success();
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

    /// Asks a worker to go for what it does, then makes it. Its end counts as a death that nobody asked for.
    pub fn evict(&mut self, why: &str, hurry: bool, now_ms: i64) -> Option<Step> {
        if !self.is_ready() {
            return None;
        }
        self.doom = Some(Doom::Condemned(why.to_owned()));
        self.last_error = Some(why.to_owned());
        self.stop(hurry, now_ms, now_ms + EVICTION_MS)
    }

    /// Why the present worker is being ended, if that is for what it does.
    #[must_use]
    pub fn condemned_for(&self) -> Option<&str> {
        match &self.doom {
            Some(Doom::Condemned(why)) => Some(why),
            Some(Doom::NotLoggedOn(_)) | None => None,
        }
    }

    /// How hard an evicted worker is being made to go.
    #[must_use]
    pub fn eviction(&self) -> Option<Rung> {
        match (&self.doom, self.phase) {
            (Some(Doom::Condemned(_)), Phase::Stopping { rung, .. }) => Some(rung),
            (Some(Doom::Condemned(_) | Doom::NotLoggedOn(_)) | None, _) => None,
        }
    }

    fn stop(&mut self, hurry: bool, now_ms: i64, deadline_ms: i64) -> Option<Step> {
        let deadline_ms = if hurry { deadline_ms.max(now_ms + HURRY_GRACE_MS) } else { deadline_ms };
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

    /// The provider could not log on; its worker ends by itself, or is ended when the time for logging on is over. False if
    /// it has logged on before, or is not to any more: then it is nothing, for it would be given no more work and live for ever.
    pub fn on_logon_failed(&mut self, error: &LogonError) -> bool {
        if !matches!(self.phase, Phase::Starting { .. }) || self.doom.is_some() {
            return false;
        }
        let (remedy, text) = match error {
            LogonError::Unconfigured(text) | LogonError::Other(text) => (Some(Remedy::Reload), text.clone()),
            LogonError::Failed(text) => (None, text.clone()),
            LogonError::Cancelled => (Some(Remedy::Logon), "the logon was cancelled".to_owned()),
            LogonError::Unanswered(prompts) => {
                let missing: Vec<&str> = prompts.iter().map(|prompt| prompt.key.as_str()).collect();
                (Some(Remedy::Logon), format!("needs: {}", missing.join(", ")))
            }
        };
        self.doom = Some(Doom::NotLoggedOn(remedy));
        self.last_error = Some(text);
        true
    }

    /// A delivery ended well: the worker is healthy.
    pub fn on_success(&mut self) {
        (self.failures, self.mishaps) = (0, 0);
    }

    /// The worker is dead, or could not be started at all. `busy`: it had messages in its hands.
    pub fn on_died(
        &mut self,
        why: &str,
        busy: bool,
        next: &mut Generation,
        now_ms: i64,
        jitter: &mut Jitter,
    ) -> Option<Step> {
        let (before, doom) = (self.phase, self.doom.take());
        let evicted = matches!(doom, Some(Doom::Condemned(_)));
        let healthy = before == Phase::Ready && now_ms - self.since_ms >= HEALTHY_MS;
        match before {
            Phase::Stopping { .. } if self.wanted && evicted => {}
            Phase::Stopping { .. } if self.wanted => return Some(self.spawn(next, now_ms)),
            Phase::Off | Phase::Stopping { .. } => {
                self.enter(Phase::Off, now_ms);
                return None;
            }
            Phase::Waiting { .. } | Phase::Barred => return None,
            Phase::Starting { .. } | Phase::Ready => {}
        }
        let (refused, remedy) = match doom {
            Some(Doom::NotLoggedOn(remedy)) => (true, remedy),
            Some(Doom::Condemned(_)) | None => (false, None),
        };
        match doom {
            Some(Doom::NotLoggedOn(_)) => {}
            Some(Doom::Condemned(cause)) => self.count_death(format!("{cause}; {why}")),
            None if matches!(before, Phase::Starting { .. }) && why.starts_with(SUCCESS) => {
                self.count_death(format!("{NOT_OURS} ({why} before the first word)"));
            }
            None => self.count_death(why.to_owned()),
        }
        if healthy {
            self.on_success();
        }
        let (in_a_row, most_ms) =
            if busy { (&mut self.mishaps, BACKOFF_BUSY_MAX_MS) } else { (&mut self.failures, BACKOFF_MAX_MS) };
        *in_a_row = in_a_row.saturating_add(1);
        let doubled_ms = BACKOFF_FIRST_MS.saturating_mul(1 << in_a_row.saturating_sub(1).min(20));
        let until_ms = self.spawned_ms + jitter.around_ms(doubled_ms.min(most_ms));
        // A provider that says that it cannot work now is tried again for as long as it takes.
        let never_starts = matches!(before, Phase::Starting { .. }) && !refused && self.failures >= FAILED_STARTS_MAX;
        self.remedy = remedy.or(never_starts.then_some(Remedy::Restart));
        if self.remedy.is_some() {
            self.enter(Phase::Barred, now_ms);
            return None;
        }
        if until_ms <= now_ms {
            return Some(self.spawn(next, now_ms));
        }
        self.enter(Phase::Waiting { until_ms }, now_ms);
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
        self.spawned_ms = now_ms;
        self.last_error = self.last_error.take().filter(|_| self.failures + self.mishaps > 0);
        self.enter(Phase::Starting { deadline_ms: now_ms + self.start_timeout_ms }, now_ms);
        Step::Spawn(self.generation)
    }

    fn enter(&mut self, phase: Phase, now_ms: i64) {
        self.phase = phase;
        self.since_ms = now_ms;
    }
}

#[cfg(test)]
mod tests;
