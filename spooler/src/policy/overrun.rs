//! A worker that takes more than it is given, or gives no sign of life, climbs a ladder.
//!
//! ```text
//!        0.3 % of        3 %            17 %           100 %
//!        cpu_overrun_limit
//!   calm ────────▶ warned ────▶ charged ─────▶ demoted ─────▶ asked ──▶ SIGTERM, SIGKILL, restart: `lifecycle`
//!    ▲               │             │              │             ▲
//!    └───────────────┴─────────────┴──────────────┘             │
//!       gave its token back in time again and again             │
//!                                                               │
//!   from any rung: a recall unanswered for response_timeout, ─────┤
//!   without any use of CPU (warned after 5 s at most)           │
//!                  no news of any delivery for patience, ───────┤
//!                  or of a call that is not answered ───────────┘
//!                  (warned after half of it)
//! ```
//!
//! Hung is not the same as long. CPU past a slice or without a token is one trouble; a worker that neither computes nor answers is
//! another: every live runtime answers a recall at once when it has nothing to do, so a recall tells a worker that is stopped or hangs
//! from one whose deliveries wait for the network. Of the latter only the silence of its deliveries and of its open calls (Poll,
//! StartMessage, …) counts, and any progress ends it; time in which the worker waits for a token is not its silence. Who was asked
//! nothing may be silent for ever. A critical section has a limit of its own and none of these.
//!
//! The CPU clock is looked at only while something may be wrong, or what is in its hands is silent; a spooler at rest has no timer.

mod calls;
pub use calls::Call;
use calls::Calls;

/// Overdraft past which a worker is on a rung, as parts of [`Limits::cpu_us`].
const WARN_PART: u64 = 300;
const CHARGE_PART: u64 = 30;
const DEMOTE_PART: u64 = 6;
/// Between two looks at a worker that may be in trouble.
const LOOK_MS: i64 = 1000;
/// A recall that is unanswered for so long is worth a word in the row.
const UNEASY_MS: i64 = 5000;
/// CPU that shows that a worker which does not answer is at work.
const STIR_US: u64 = 2000;
/// A worker that gave its token back in time so many times behaves again.
const GOOD_TURNS: u32 = 5;
/// So does one that has not overrun for so long.
const CALM_MS: i64 = 60_000;

/// What a worker is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// CPU past its slices or without a token, microseconds, before it is asked to go.
    pub cpu_us: u64,
    /// Time for the answer to a recall, milliseconds, while it uses no CPU.
    pub answer_ms: i64,
    /// How long all its deliveries, or an open call, may be silent, milliseconds.
    pub silence_ms: i64,
}

/// How far up a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// Nothing is wrong.
    Calm,
    /// Its row says what is wrong.
    Warned,
    /// What it overran is charged against its share a second time.
    Charged,
    /// It runs when nobody else wants the processor.
    Demoted,
    /// It was asked to log off; what follows is its lifecycle's business.
    Asked,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It used so much CPU past its slices or without a token, microseconds.
    Cpu(u64),
    /// It has not answered a recall for so long and used no CPU, milliseconds.
    Unanswered(i64),
    /// Its deliveries have said nothing for so long, milliseconds.
    Silent(i64),
    /// A call was neither answered, nor did anything get on that may belong to it, for so long, milliseconds.
    Open(Call, i64),
}

/// What there is to be done with the worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Say in the log what is wrong.
    Warn(Trouble),
    /// Charge its overdraft a second time from now on, or no longer.
    Surcharge(bool),
    /// Lower its priority as far as that goes, or put it back.
    Demote(bool),
    /// Ask it to go.
    Ask(Trouble),
    /// Recall its token, which it has to be given first if it has none.
    Probe,
}

/// What was found out about a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    /// It overran past the mark of the next rung.
    Overran,
    /// It may hang.
    Uneasy,
    /// It hangs, or its deliveries do.
    Lost,
    /// It behaves again.
    Better,
}

/// Where its token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenAt {
    /// With the scheduler, and nobody asks for it.
    Home,
    /// With the scheduler, and the worker waits for it.
    Awaited { since_ms: i64 },
    /// With the scheduler, and only a probe waits for it: the worker itself has nothing that it could do.
    Sought,
    /// With the worker.
    Out,
    /// With the worker, which was asked for it.
    Recalled { since_ms: i64, stirred_us: u64 },
}

/// The ladder of one worker.
#[derive(Clone, Debug)]
pub struct Overrun {
    limits: Limits,
    rung: Rung,
    trouble: Option<Trouble>,
    token: TokenAt,
    /// Overdraft since it behaved last.
    bout_us: u64,
    /// When it overran last.
    overran_ms: i64,
    /// Whether it has overrun since it got its token.
    turn_is_bad: bool,
    good_turns: u32,
    /// When a delivery of its said something last; moved on by the time it waited for a token.
    heard_ms: i64,
    calls: Calls,
    /// When it showed last that it is alive.
    alive_ms: i64,
    probing: bool,
    look_ms: Option<i64>,
}

impl Overrun {
    /// A worker that was just started.
    #[must_use]
    pub fn new(limits: Limits, now_ms: i64) -> Self {
        Self {
            limits,
            rung: Rung::Calm,
            trouble: None,
            token: TokenAt::Home,
            bout_us: 0,
            overran_ms: now_ms,
            turn_is_bad: false,
            good_turns: 0,
            heard_ms: now_ms,
            calls: Calls::default(),
            alive_ms: now_ms,
            probing: false,
            look_ms: None,
        }
    }

    /// Changes what it is allowed.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// How far up it is.
    #[must_use]
    pub fn rung(&self) -> Rung {
        self.rung
    }

    /// What is wrong, if anything is.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.trouble
    }

    /// When it is to be looked at next: its CPU clock is read, then [`Overrun::on_look`].
    #[must_use]
    pub fn look_ms(&self) -> Option<i64> {
        self.look_ms
    }

    /// Somebody goes to look: not again before this look is over, or has failed.
    pub fn on_looking(&mut self, now_ms: i64) {
        self.look_ms = Some(now_ms + LOOK_MS);
    }

    /// Whether it is to be asked for its token as soon as it has one.
    #[must_use]
    pub fn is_probing(&self) -> bool {
        self.probing
    }

    /// It waits for a token, by its own wish.
    pub fn on_awaited(&mut self, now_ms: i64) {
        if matches!(self.token, TokenAt::Home | TokenAt::Sought) {
            self.token = TokenAt::Awaited { since_ms: now_ms };
        }
    }

    /// A token is wanted for it, to be asked back. That it has none meanwhile excuses nothing.
    pub fn on_sought(&mut self) {
        if self.token == TokenAt::Home {
            self.token = TokenAt::Sought;
        }
    }

    /// It got a token. What it waited is not its silence.
    pub fn on_granted(&mut self, now_ms: i64) {
        if let TokenAt::Awaited { since_ms } = self.token {
            self.heard_ms = (self.heard_ms + now_ms - since_ms).min(now_ms);
            self.calls.forgive(now_ms - since_ms, now_ms);
        }
        self.token = TokenAt::Out;
        self.turn_is_bad = false;
        self.look_by(now_ms + LOOK_MS);
    }

    /// Its token was asked back.
    pub fn on_recalled(&mut self, now_ms: i64) {
        self.token = TokenAt::Recalled { since_ms: now_ms, stirred_us: 0 };
        self.look_by(now_ms + LOOK_MS.min(self.limits.answer_ms / 4));
    }

    /// It gave its token back. `more`: it could go on at once, so it computes and does not hang.
    pub fn on_returned(&mut self, more: bool, now_ms: i64) -> Option<Step> {
        self.token = if more { TokenAt::Awaited { since_ms: now_ms } } else { TokenAt::Home };
        self.probing = false;
        self.alive_ms = now_ms;
        if more {
            self.heard_ms = now_ms;
            self.calls.news(now_ms);
        }
        self.good_turns = if self.turn_is_bad { 0 } else { self.good_turns.saturating_add(1) };
        self.look_by(now_ms + LOOK_MS);
        match self.trouble {
            Some(Trouble::Unanswered(_)) => self.step(Finding::Better),
            Some(Trouble::Cpu(_)) if self.good_turns >= GOOD_TURNS => self.step(Finding::Better),
            Some(Trouble::Cpu(_) | Trouble::Silent(_) | Trouble::Open(..)) => None,
            None => {
                // Little by little is no bout.
                if self.good_turns >= GOOD_TURNS {
                    self.bout_us = 0;
                }
                None
            }
        }
    }

    /// It has got a delivery, and had none.
    pub fn on_given(&mut self, now_ms: i64) {
        // That it has a new one does not show that it lives, if it owed something before.
        self.alive_ms = if self.calls.is_empty() { now_ms } else { self.alive_ms };
        self.heard_ms = now_ms;
        self.look_by(now_ms + LOOK_MS);
    }

    /// A delivery got on: bytes, a recipient, a phase, or it is over.
    pub fn on_news(&mut self, now_ms: i64) -> Option<Step> {
        self.heard_ms = now_ms;
        self.alive_ms = now_ms;
        self.look_by(now_ms + LOOK_MS);
        match self.trouble {
            Some(Trouble::Silent(_)) => self.step(Finding::Better),
            Some(Trouble::Cpu(_) | Trouble::Unanswered(_) | Trouble::Open(..)) | None => None,
        }
    }

    /// It is called: from now on an answer is expected. `in_flight`: it has deliveries.
    pub fn on_called(&mut self, call: Call, in_flight: bool, now_ms: i64) {
        self.alive_ms = if in_flight || !self.calls.is_empty() { self.alive_ms } else { now_ms };
        self.calls.begin(call, now_ms);
        self.look_by(now_ms + LOOK_MS);
    }

    /// It has answered a call. What was not asked is no sign of anything.
    pub fn on_answered(&mut self, call: Call, now_ms: i64) -> Option<Step> {
        if !self.calls.end(call) {
            return None;
        }
        self.alive_ms = now_ms;
        match self.trouble {
            Some(Trouble::Open(of, _)) if of == call => self.step(Finding::Better),
            Some(_) | None => None,
        }
    }

    /// Something got on that may belong to an open call: a piece of a message that comes in, a progress in its row.
    pub fn on_call_news(&mut self, now_ms: i64) -> Option<Step> {
        if self.calls.is_empty() {
            return None;
        }
        self.calls.news(now_ms);
        self.alive_ms = now_ms;
        match self.trouble {
            Some(Trouble::Open(..)) => self.step(Finding::Better),
            Some(Trouble::Cpu(_) | Trouble::Unanswered(_) | Trouble::Silent(_)) | None => None,
        }
    }

    /// What it was called for and has not answered: that of which nothing was heard for longest.
    #[must_use]
    pub fn open_call(&self) -> Option<Call> {
        self.calls.quietest().map(|(call, _)| call)
    }

    /// Its CPU clock was read: so much was used since the last time, so much of it past its slice or without a token.
    pub fn on_cpu(&mut self, used_us: u64, over_us: u64, now_ms: i64) -> Vec<Step> {
        if let TokenAt::Recalled { since_ms, stirred_us } = &mut self.token {
            *stirred_us += used_us;
            if *stirred_us >= STIR_US {
                (*since_ms, *stirred_us) = (now_ms, 0);
            }
        }
        let mut steps = Vec::new();
        if over_us == 0 {
            return steps;
        }
        (self.turn_is_bad, self.overran_ms) = (true, now_ms);
        self.bout_us = self.bout_us.saturating_add(over_us);
        self.look_by(now_ms + LOOK_MS);
        while self.next_mark_us().is_some_and(|mark_us| self.bout_us >= mark_us) {
            self.trouble = Some(Trouble::Cpu(self.bout_us));
            steps.extend(self.step(Finding::Overran));
        }
        if matches!(self.trouble, Some(Trouble::Cpu(_))) {
            self.trouble = Some(Trouble::Cpu(self.bout_us));
        }
        steps
    }

    /// Overdraft past which it climbs.
    fn next_mark_us(&self) -> Option<u64> {
        let cpu_us = self.limits.cpu_us;
        match self.rung {
            Rung::Calm => Some(cpu_us / WARN_PART),
            Rung::Warned => Some(cpu_us / CHARGE_PART),
            Rung::Charged => Some(cpu_us / DEMOTE_PART),
            Rung::Demoted => Some(cpu_us),
            Rung::Asked => None,
        }
    }

    /// Its CPU clock has just been read, if it was time for that. `in_flight`: it has deliveries. `excused`: it is in a critical section.
    pub fn on_look(&mut self, in_flight: bool, excused: bool, now_ms: i64) -> Vec<Step> {
        let mut steps = Vec::new();
        self.look_ms = None;
        if self.rung == Rung::Asked {
            return steps;
        }
        if excused {
            self.excuse(now_ms);
        }
        if let Some((finding, trouble)) = self.find(in_flight, now_ms) {
            let climbed = self.trouble.is_none() || finding == Finding::Lost;
            if climbed || !matches!(self.trouble, Some(Trouble::Cpu(_))) {
                self.trouble = Some(trouble);
            }
            steps.extend(self.step(finding));
        } else if self.rung > Rung::Calm && now_ms - self.overran_ms >= CALM_MS {
            steps.extend(self.step(Finding::Better));
        }
        let owes = in_flight || !self.calls.is_empty();
        if owes && self.token_is_quiet() && !excused && now_ms - self.alive_ms >= self.limits.answer_ms / 2 {
            self.probing = true;
            // Asked once; what comes of it shows in where the token is.
            self.alive_ms = now_ms;
            steps.push(Step::Probe);
        }
        self.look_ms = self.next_look_ms(in_flight, now_ms).filter(|_| self.rung < Rung::Asked);
        steps
    }

    /// Whether it hangs, or its deliveries or a call do.
    fn find(&self, in_flight: bool, now_ms: i64) -> Option<(Finding, Trouble)> {
        let limits = &self.limits;
        if let TokenAt::Recalled { since_ms, .. } = self.token {
            let waited_ms = now_ms - since_ms;
            let trouble = Trouble::Unanswered(waited_ms);
            if waited_ms >= limits.answer_ms {
                return Some((Finding::Lost, trouble));
            } else if waited_ms >= UNEASY_MS.min(limits.answer_ms / 2) {
                return Some((Finding::Uneasy, trouble));
            }
        }
        if matches!(self.token, TokenAt::Awaited { .. }) {
            return None;
        }
        let deliveries = in_flight.then(|| (self.heard_ms, Trouble::Silent(now_ms - self.heard_ms)));
        let call = self.calls.quietest().map(|(call, heard_ms)| (heard_ms, Trouble::Open(call, now_ms - heard_ms)));
        let (heard_ms, trouble) = deliveries.into_iter().chain(call).min_by_key(|(heard_ms, _)| *heard_ms)?;
        match now_ms - heard_ms {
            silent_ms if silent_ms >= limits.silence_ms => Some((Finding::Lost, trouble)),
            silent_ms if silent_ms >= limits.silence_ms / 2 => Some((Finding::Uneasy, trouble)),
            _ => None,
        }
    }

    fn excuse(&mut self, now_ms: i64) {
        (self.heard_ms, self.alive_ms) = (now_ms, now_ms);
        self.calls.news(now_ms);
        if let TokenAt::Recalled { since_ms, .. } = &mut self.token {
            *since_ms = now_ms;
        }
    }

    /// Whether nothing is expected of it or for it.
    fn token_is_quiet(&self) -> bool {
        matches!(self.token, TokenAt::Home | TokenAt::Out) && !self.probing
    }

    fn next_look_ms(&self, in_flight: bool, now_ms: i64) -> Option<i64> {
        let often_ms = LOOK_MS.min(self.limits.answer_ms / 4);
        let restless = self.rung > Rung::Calm || now_ms - self.overran_ms < 2 * LOOK_MS;
        if restless || matches!(self.token, TokenAt::Recalled { .. }) {
            return Some(now_ms + often_ms);
        }
        let call_ms = self.calls.quietest().map(|(_, heard_ms)| heard_ms);
        let heard_ms = in_flight.then_some(self.heard_ms).into_iter().chain(call_ms).min()?;
        let probe_ms = self.alive_ms + self.limits.answer_ms / 2;
        Some(probe_ms.min(heard_ms + self.limits.silence_ms / 2).max(now_ms + often_ms))
    }

    fn look_by(&mut self, at_ms: i64) {
        self.look_ms = Some(self.look_ms.map_or(at_ms, |look_ms| look_ms.min(at_ms)));
    }

    fn step(&mut self, finding: Finding) -> Option<Step> {
        use Finding::{Better, Lost, Overran, Uneasy};
        use Rung::{Asked, Calm, Charged, Demoted, Warned};
        let trouble = self.trouble.unwrap_or(Trouble::Cpu(self.bout_us));
        let (rung, step) = match (self.rung, finding) {
            (Calm, Overran | Uneasy) => (Warned, Some(Step::Warn(trouble))),
            (Warned, Overran) => (Charged, Some(Step::Surcharge(true))),
            (Charged, Overran) => (Demoted, Some(Step::Demote(true))),
            (Calm | Warned | Charged, Lost) | (Demoted, Overran | Lost) => (Asked, Some(Step::Ask(trouble))),
            (Warned | Charged | Demoted, Uneasy) => (self.rung, None),
            (Calm | Warned, Better) => (Calm, None),
            (Charged, Better) => (Calm, Some(Step::Surcharge(false))),
            (Demoted, Better) => (Calm, Some(Step::Demote(false))),
            (Asked, Overran | Uneasy | Lost | Better) => (Asked, None),
        };
        self.rung = rung;
        if rung == Calm {
            self.trouble = None;
            self.bout_us = 0;
        }
        step
    }
}

#[cfg(test)]
mod tests;
