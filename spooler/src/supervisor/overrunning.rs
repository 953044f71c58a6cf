//! Workers that overrun or give no sign of life: what is found out about them goes to their ladders (`policy/overrun.rs`), and what
//! the ladders want is done here.

use spooler_protocol::ids::{DeliveryId, Token};
use spooler_protocol::status::Overrun as Shown;

use super::event::{Action, Loudness, WorkerId};
use super::{Provider, Supervisor, log};
use crate::config::Provider as Configured;
use crate::policy::lifecycle;
use crate::policy::overrun::{Call, Limits, Overrun, Rung, Step, Trouble};
use crate::policy::priority_plan::Level;
use crate::policy::retry::ms;
use crate::policy::scheduler::{Decision, Scheduler};
use crate::policy::{Now, ProviderId};

/// The nice value of a demoted worker.
const DEMOTED_NICE: i32 = 19;

impl Provider {
    /// The priority that is right for it outside critical sections.
    pub(super) fn base_level(&self) -> Level {
        match self.overrun.rung() {
            Rung::Demoted => Level::Demoted { nice: DEMOTED_NICE },
            Rung::Calm | Rung::Warned | Rung::Charged | Rung::Asked => super::workers::configured_level(&self.config),
        }
    }

    /// How far up the ladder it is, for its row.
    pub(super) fn shown_overrun(&self) -> Shown {
        match (self.life.eviction(), self.overrun.rung()) {
            (Some(lifecycle::Rung::Ask), _) => Shown::Stopping,
            (Some(lifecycle::Rung::Term), _) => Shown::Terminated,
            (Some(lifecycle::Rung::Kill), _) => Shown::Killed,
            (None, Rung::Calm | Rung::Asked) => Shown::None,
            (None, Rung::Warned) => Shown::Warned,
            (None, Rung::Charged) => Shown::Penalized,
            (None, Rung::Demoted) => Shown::Demoted,
        }
    }

    /// Whether its worker is ended because of a call. That is no fault of the messages in its hands.
    pub(super) fn is_ended_for_a_call(&self) -> bool {
        self.overrun.rung() == Rung::Asked && matches!(self.overrun.trouble(), Some(Trouble::Open(..)))
    }

    /// What is wrong with it, for its row.
    pub(super) fn shown_trouble(&self) -> Option<String> {
        let trouble = self.overrun.trouble()?;
        Some(match self.overrun.rung() {
            Rung::Demoted => format!("{}; runs when nobody else does", describe(trouble)),
            Rung::Calm | Rung::Warned | Rung::Charged | Rung::Asked => describe(trouble),
        })
    }
}

impl Supervisor {
    /// Books CPU in the scheduler, in whatever way, and lets the worker's ladder know.
    pub(super) fn book_cpu(
        &mut self,
        worker: WorkerId,
        now: Now,
        actions: &mut Vec<Action>,
        book: impl FnOnce(&mut Scheduler),
    ) {
        let before = self.scheduler.cpu_us(worker.provider);
        book(&mut self.scheduler);
        let after = self.scheduler.cpu_us(worker.provider);
        let Some(provider) = self.providers.get_mut(&worker.provider) else { return };
        let (used_us, over_us) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
        let steps = provider.overrun.on_cpu(used_us, over_us, now.mono_ms);
        self.climb(worker, steps, now, actions);
    }

    /// A worker's CPU clock was read, because it was time for that or because somebody wants to see it.
    pub(super) fn on_cpu_read(&mut self, worker: WorkerId, cpu_us: Option<u64>, now: Now, actions: &mut Vec<Action>) {
        self.book_cpu(worker, now, actions, |scheduler| scheduler.charge(worker.provider, cpu_us));
        let (in_flight, waits_for_us) = (self.has_flights(worker.provider), self.owes_answer(worker));
        let Some(provider) = self.providers.get_mut(&worker.provider) else { return };
        if provider.life.is_ready() {
            if waits_for_us {
                let step = provider.overrun.on_call_news(now.mono_ms);
                self.climb(worker, step, now, actions);
            }
            let Some(provider) = self.providers.get_mut(&worker.provider) else { return };
            let excused = provider.critical.is_some();
            let steps = provider.overrun.on_look(in_flight, excused, now.mono_ms);
            self.climb(worker, steps, now, actions);
        }
    }

    /// Whether the worker of a provider may run programs, whose CPU is its own.
    #[must_use]
    pub fn runs_programs(&self, id: ProviderId) -> bool {
        self.providers.get(&id).is_some_and(|provider| provider.config.programs)
    }

    /// Has the clocks of those workers read that are to be looked at.
    pub(super) fn look_after_workers(&mut self, now: Now, actions: &mut Vec<Action>) {
        for (id, provider) in &mut self.providers {
            if provider.life.is_ready() && provider.overrun.look_ms().is_some_and(|at| at <= now.mono_ms) {
                provider.overrun.on_looking(now.mono_ms);
                actions.push(Action::ReadCpu(WorkerId { provider: *id, generation: provider.life.generation() }));
            }
        }
    }

    /// When a worker is to be looked at next.
    pub(super) fn next_check_ms(&self) -> Option<i64> {
        let ready = self.providers.values().filter(|provider| provider.life.is_ready());
        ready.filter_map(|provider| provider.overrun.look_ms()).min()
    }

    /// A worker could go on.
    pub(super) fn on_want(&mut self, worker: WorkerId, cpu_us: Option<u64>, now: Now, actions: &mut Vec<Action>) {
        self.book_cpu(worker, now, actions, |scheduler| scheduler.charge(worker.provider, cpu_us));
        self.scheduler.on_want(worker.provider);
        self.active_ms = now.mono_ms;
        if let Some(provider) = self.providers.get_mut(&worker.provider) {
            provider.overrun.on_awaited(now.mono_ms);
        }
        self.tokens_touched = true;
    }

    /// A worker gives a token back, or says so.
    pub(super) fn on_yield(
        &mut self,
        worker: WorkerId,
        (token, more): (Token, bool),
        cpu_us: Option<u64>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let id = worker.provider;
        let held = self.scheduler.holds(id, token);
        self.active_ms = now.mono_ms;
        self.book_cpu(worker, now, actions, |scheduler| scheduler.on_yield(id, token, more, cpu_us));
        self.tokens_touched = true;
        if let Some(provider) = self.providers.get_mut(&id).filter(|_| held) {
            let step = provider.overrun.on_returned(more, now.mono_ms);
            self.climb(worker, step, now, actions);
        }
    }

    /// What was decided about tokens, for the ladders. A worker that is being probed is asked for its token at once.
    pub(super) fn note_decision(&mut self, decision: Decision, now: Now) -> Option<Decision> {
        match decision {
            Decision::Grant(id, _) => {
                let provider = self.providers.get_mut(&id)?;
                provider.overrun.on_granted(now.mono_ms);
                let probed = provider.overrun.is_probing();
                probed.then(|| self.recall(id, now)).flatten()
            }
            Decision::Recall(id, _) => {
                self.providers.get_mut(&id)?.overrun.on_recalled(now.mono_ms);
                None
            }
        }
    }

    fn recall(&mut self, id: ProviderId, now: Now) -> Option<Decision> {
        let decision = self.scheduler.recall_one(id, now.mono_ms)?;
        self.note_decision(decision, now);
        Some(decision)
    }

    /// A delivery got on.
    pub(super) fn on_delivery_news(
        &mut self,
        worker: WorkerId,
        delivery: DeliveryId,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        if self.flights.get(&delivery).is_some_and(|flight| flight.worker == worker) {
            self.on_news(worker, now, actions);
        }
    }

    /// Something of what a worker has in its hands got on.
    pub(super) fn on_news(&mut self, worker: WorkerId, now: Now, actions: &mut Vec<Action>) {
        if let Some(provider) = self.providers.get_mut(&worker.provider) {
            let step = provider.overrun.on_news(now.mono_ms);
            self.climb(worker, step, now, actions);
        }
    }

    /// A provider is called: its ladder waits for the answer with us.
    pub(super) fn note_call(&mut self, id: ProviderId, call: Call, now: Now) {
        let in_flight = self.has_flights(id);
        if let Some(provider) = self.providers.get_mut(&id) {
            provider.overrun.on_called(call, in_flight, now.mono_ms);
        }
    }

    /// A call is answered.
    pub(super) fn note_answer(&mut self, worker: WorkerId, call: Call, now: Now, actions: &mut Vec<Action>) {
        let Some(provider) = self.providers.get_mut(&worker.provider) else { return };
        let step = provider.overrun.on_answered(call, now.mono_ms);
        self.climb(worker, step, now, actions);
    }

    /// Something got on that may belong to an open call.
    pub(super) fn on_call_news(&mut self, worker: WorkerId, now: Now, actions: &mut Vec<Action>) {
        let Some(provider) = self.providers.get_mut(&worker.provider) else { return };
        let step = provider.overrun.on_call_news(now.mono_ms);
        self.climb(worker, step, now, actions);
    }

    pub(super) fn has_flights(&self, id: ProviderId) -> bool {
        self.queue.lane_of(id).is_some_and(|lane| lane.in_flight() > 0)
    }

    fn climb(&mut self, worker: WorkerId, steps: impl IntoIterator<Item = Step>, now: Now, actions: &mut Vec<Action>) {
        for step in steps {
            match step {
                Step::Warn(trouble) => self.say_of(worker, Loudness::Info, &describe(trouble), actions),
                Step::Surcharge(on) => self.scheduler.set_surcharge(worker.provider, on),
                Step::Demote(on) => self.demote(worker, on, actions),
                Step::Ask(trouble) => self.evict(worker, trouble, now, actions),
                Step::Probe => self.probe(worker, now, actions),
            }
        }
    }

    fn demote(&mut self, worker: WorkerId, on: bool, actions: &mut Vec<Action>) {
        self.scheduler.set_surcharge(worker.provider, on);
        let Some(provider) = self.providers.get(&worker.provider) else { return };
        // A critical section has its own priority; what is right behind it is set at its end.
        if provider.critical.is_none() {
            actions.push(Action::SetPriority(worker, provider.base_level()));
        }
        let text = if on { "runs only when nobody else does, because it overran" } else { "behaves again" };
        self.say_of(worker, if on { Loudness::Warn } else { Loudness::Info }, text, actions);
    }

    fn evict(&mut self, worker: WorkerId, trouble: Trouble, now: Now, actions: &mut Vec<Action>) {
        let why = format!("The worker {} and was asked to go", describe(trouble));
        let in_flight = self.has_flights(worker.provider);
        let Some(provider) = self.providers.get_mut(&worker.provider) else { return };
        // What is silent would keep a worker that waits for it; deliveries that get on may end.
        let hurry = match trouble {
            Trouble::Cpu(_) => false,
            Trouble::Open(..) => !in_flight,
            Trouble::Silent(_) | Trouble::Unanswered(_) => true,
        };
        let step = provider.life.evict(&why, hurry, now.mono_ms);
        if step.is_some() {
            // Demoted, it might not even get to end.
            actions.push(Action::SetPriority(worker, provider.base_level()));
            self.say_of(worker, Loudness::Warn, &describe(trouble), actions);
        }
        self.take_step(worker, step, actions);
    }

    /// Finds out whether a worker is alive: gives it a token, if it has none, and asks for it.
    fn probe(&mut self, worker: WorkerId, now: Now, actions: &mut Vec<Action>) {
        let id = worker.provider;
        match self.recall(id, now) {
            Some(decision) => self.send_decision(decision, actions),
            None => {
                self.scheduler.on_want(id);
                if let Some(provider) = self.providers.get_mut(&id) {
                    provider.overrun.on_sought();
                }
                self.tokens_touched = true;
            }
        }
    }

    fn say_of(&self, worker: WorkerId, loudness: Loudness, text: &str, actions: &mut Vec<Action>) {
        log(actions, loudness, format!("provider {}: the worker {text}", self.name(worker.provider)));
    }
}

/// A ladder for a worker that was just started.
pub(super) fn ladder(config: &Configured, now: Now) -> Overrun {
    Overrun::new(limits(config), now.mono_ms)
}

/// What a provider's worker is allowed.
pub(super) fn limits(config: &Configured) -> Limits {
    Limits {
        cpu_us: u64::try_from(config.cpu_overrun_limit.as_micros()).unwrap_or(u64::MAX),
        answer_ms: ms(config.response_timeout),
        silence_ms: ms(config.stall_timeout),
    }
}

fn describe(trouble: Trouble) -> String {
    let span = |ms: u64| if ms < 1000 { format!("{ms} ms") } else { format!("{} s", ms / 1000) };
    match trouble {
        Trouble::Cpu(us) => format!("computed for {} past its slices or without a token", span(us / 1000)),
        Trouble::Unanswered(ms) => format!("has given no sign of life for {}", span(ms.unsigned_abs())),
        Trouble::Open(call, ms) => format!("has said nothing of {} for {}", call.words(), span(ms.unsigned_abs())),
        Trouble::Silent(ms) => format!("has said nothing of its deliveries for {}", span(ms.unsigned_abs())),
    }
}
