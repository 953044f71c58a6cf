//! Critical sections: a worker that controls something outside in real time keeps its token and gets the highest priority that can be
//! given to it. Sections nest: what the first one brought about lasts until the last one has ended. That is when the worker says so, when
//! it dies, when the time is up, or when the spooler stops in a hurry. Each section has the worker's number, so that the end of one that
//! was ended here is never taken for the end of a later one.
//!
//! ```text
//!            CriticalBegin: raise          the last CriticalEnd: put back
//!   none ───────────────────────▶ running ───────────────────────────────▶ none
//!     ▲                              │  time is up, or hurry: put back, and tell the worker (CriticalEnded)
//!     └──────────────────────────────┘  death: nothing is left to be put back
//! ```

use std::collections::BTreeMap;

use spooler_protocol::limits::SECTIONS_MAX;
use spooler_protocol::to_worker::ToWorker;

use super::event::{Action, Loudness, WorkerId};
use super::{Supervisor, log};
use crate::policy::priority_plan::{Level, Reached};
use crate::policy::retry::ms;
use crate::policy::{Now, ProviderId};

/// Sections that run, one inside the other.
#[derive(Debug)]
pub(super) struct Critical {
    /// The worker's reason for the first one, for the row and the log.
    pub(super) reason: String,
    since_ms: i64,
    /// When its time is up; never while it waits for its resource.
    pub(super) deadline_ms: i64,
    /// Their numbers, and whether the worker knows that they are in force.
    open: BTreeMap<u64, bool>,
    raised: Option<Result<(), String>>,
}

impl Critical {
    fn up_to(&self) -> u64 {
        self.open.last_key_value().map_or(0, |(section, _)| *section)
    }
}

impl Supervisor {
    pub(super) fn on_critical_begin(
        &mut self,
        worker: WorkerId,
        section: u64,
        reason: String,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(provider) = self.providers.get_mut(&worker.provider) else { return };
        if let Some(critical) = &mut provider.critical {
            if critical.open.len() >= SECTIONS_MAX {
                let raised = Err(format!("no more than {SECTIONS_MAX} sections may be open"));
                actions.push(Action::Send(worker, ToWorker::CriticalGranted { section, raised }));
                return;
            }
            critical.open.insert(section, critical.raised.is_some());
            let granted = critical.raised.clone().map(|raised| ToWorker::CriticalGranted { section, raised });
            actions.extend(granted.map(|granted| Action::Send(worker, granted)));
            return;
        }
        let (since_ms, deadline_ms) = (now.mono_ms, i64::MAX);
        let open = BTreeMap::from([(section, false)]);
        provider.critical = Some(Critical { reason, since_ms, deadline_ms, open, raised: None });
        self.flushing.sections.insert(worker.provider);
        self.begin_sections(now, actions);
    }

    /// Begins the sections that have waited for a resource and have it now; those of providers without a resource at once. True if there
    /// were some.
    pub(super) fn begin_sections(&mut self, now: Now, actions: &mut Vec<Action>) -> bool {
        let mut begun = false;
        for id in self.flushing.sections.clone() {
            let Some(provider) = self.providers.get_mut(&id) else { continue };
            let resource = provider.config.resource.as_ref();
            if resource.is_some_and(|resource| !self.flushing.leases.ask(resource, id, now.mono_ms)) {
                continue;
            }
            self.flushing.sections.remove(&id);
            let Some(critical) = &mut provider.critical else { continue };
            critical.since_ms = now.mono_ms;
            critical.deadline_ms = now.mono_ms + ms(provider.config.critical_max);
            let (name, reason) = (&provider.config.name, &critical.reason);
            log(actions, Loudness::Info, format!("provider {name}: critical section begins: {reason}"));
            let worker = WorkerId { provider: id, generation: provider.life.generation() };
            let (nice, realtime) = (provider.config.critical_nice, provider.config.critical_realtime);
            self.scheduler.set_critical(id, true);
            self.tokens_touched = true;
            actions.push(Action::SetPriority(worker, Level::Critical { nice, realtime }));
            begun = true;
        }
        begun
    }

    /// The worker ends a section. One that was ended here before is nothing.
    pub(super) fn on_critical_end(&mut self, worker: WorkerId, section: u64, now: Now, actions: &mut Vec<Action>) {
        let Some(provider) = self.providers.get_mut(&worker.provider) else { return };
        let Some(critical) = &mut provider.critical else { return };
        if critical.open.remove(&section).is_some() && critical.open.is_empty() {
            self.end_section(worker, "ends", now, actions);
        }
    }

    /// Ends a section whose time is up.
    pub(super) fn end_overlong_section(&mut self, worker: WorkerId, now: Now, actions: &mut Vec<Action>) {
        let Some(provider) = self.providers.get(&worker.provider) else { return };
        if provider.critical.as_ref().is_some_and(|critical| critical.deadline_ms <= now.mono_ms) {
            let limit = provider.config.critical_max;
            self.break_section(worker, &format!("its time is up (critical_max is {limit:?})"), now, actions);
        }
    }

    /// Ends a section that its worker would go on with, and tells the worker.
    pub(super) fn break_section(&mut self, worker: WorkerId, why: &str, now: Now, actions: &mut Vec<Action>) {
        let critical = self.providers.get(&worker.provider).and_then(|provider| provider.critical.as_ref());
        let Some(up_to) = critical.map(Critical::up_to) else { return };
        self.end_section(worker, &format!("is ended, {why},"), now, actions);
        actions.push(Action::Send(worker, ToWorker::CriticalEnded { up_to, why: why.to_owned() }));
    }

    /// The worker is dead: there is nothing left whose priority could be put back.
    pub(super) fn forget_section(&mut self, id: ProviderId, now: Now, actions: &mut Vec<Action>) {
        let Some(provider) = self.providers.get_mut(&id) else { return };
        if let Some(critical) = provider.critical.take() {
            let lasted_ms = now.mono_ms - critical.since_ms;
            let (name, reason) = (&provider.config.name, critical.reason);
            let text = format!("provider {name}: critical section ended by death after {lasted_ms} ms: {reason}");
            log(actions, Loudness::Info, text);
            self.scheduler.set_critical(id, false);
            self.tokens_touched = true;
            self.flushing.sections.remove(&id);
        }
    }

    fn end_section(&mut self, worker: WorkerId, how: &str, now: Now, actions: &mut Vec<Action>) {
        let Some(provider) = self.providers.get_mut(&worker.provider) else { return };
        let Some(critical) = provider.critical.take() else { return };
        let lasted_ms = now.mono_ms - critical.since_ms;
        let (name, reason) = (&provider.config.name, critical.reason);
        log(actions, Loudness::Info, format!("provider {name}: critical section {how} after {lasted_ms} ms: {reason}"));
        actions.push(Action::SetPriority(worker, provider.base_level()));
        self.scheduler.set_critical(worker.provider, false);
        self.tokens_touched = true;
        self.flushing.sections.remove(&worker.provider);
        self.release_resource(worker.provider);
        // What was not asked meanwhile can be asked now.
        self.touched.insert(worker.provider);
    }

    /// A priority was set, as far as it could be.
    pub(super) fn on_priority(&mut self, worker: WorkerId, level: Level, reached: &Reached, actions: &mut Vec<Action>) {
        let Some(provider) = self.providers.get_mut(&worker.provider) else { return };
        provider.priority = reached.to_string();
        let Some(critical) = provider.critical.as_mut().filter(|_| matches!(level, Level::Critical { .. })) else {
            return;
        };
        let raised = reached.refused.clone().map_or(Ok(()), Err);
        for (section, told) in &mut critical.open {
            if !std::mem::replace(told, true) {
                let granted = ToWorker::CriticalGranted { section: *section, raised: raised.clone() };
                actions.push(Action::Send(worker, granted));
            }
        }
        if let Err(why) = &raised {
            let name = &provider.config.name;
            log(
                actions,
                Loudness::Warn,
                format!("provider {name}: priority not raised, others get no tokens instead: {why}"),
            );
            self.scheduler.set_exclusive(worker.provider);
            self.tokens_touched = true;
        }
        critical.raised = Some(raised);
    }
}

#[cfg(test)]
mod tests {
    use spooler_protocol::from_worker::{FromWorker, LoggedOn};
    use spooler_protocol::ids::MessageId;

    use super::*;
    use crate::policy::priority_plan::{Io, Sched};
    use crate::supervisor::Surroundings;
    use crate::supervisor::event::{Event, WorkerNews};

    /// A supervisor with one worker that has logged on.
    fn with_modem() -> (Supervisor, WorkerId, i64) {
        let text = "[provider.modem]\nkind = \"modem\"\naddress_types = [\"X\"]\ncritical_class = \"rr\"\ncritical_max = \"10s\"\n";
        let config = crate::config::parse(text, std::path::Path::new("x.toml")).unwrap();
        let surroundings = Surroundings { cores: 1, pid: 1, reload: String::new(), seed: 1, last_id: MessageId(0) };
        let (mut supervisor, actions) = Supervisor::new(config, surroundings, Now { mono_ms: 0, wall_ms: 0 });
        let spawned = |action: &Action| if let Action::Spawn(worker) = action { Some(*worker) } else { None };
        let worker = actions.iter().find_map(spawned).unwrap();
        let started = step(&mut supervisor, 1, worker, WorkerNews::Started { pid: 7 });
        let [Action::SetPriority(..), Action::Send(_, ToWorker::Welcome(_)), ..] = started.as_slice() else {
            panic!("who is welcome becomes another user, whose priority is not ours to set: {started:?}")
        };
        said(&mut supervisor, 2, worker, FromWorker::LoggedOn(LoggedOn::default()));
        (supervisor, worker, 2)
    }

    fn step(supervisor: &mut Supervisor, at_ms: i64, worker: WorkerId, news: WorkerNews) -> Vec<Action> {
        let mut actions = Vec::new();
        supervisor.step(Now { mono_ms: at_ms, wall_ms: at_ms }, Event::Worker(worker, news), &mut actions);
        actions
    }

    fn said(supervisor: &mut Supervisor, at_ms: i64, worker: WorkerId, said: FromWorker) -> Vec<Action> {
        step(supervisor, at_ms, worker, WorkerNews::Said { said, cpu_us: None })
    }

    fn begin(section: u64) -> FromWorker {
        FromWorker::CriticalBegin { section, reason: "dialling".to_owned() }
    }

    fn levels(actions: &[Action]) -> Vec<Level> {
        let level = |action: &Action| if let Action::SetPriority(_, level) = action { Some(*level) } else { None };
        actions.iter().filter_map(level).collect()
    }

    const RAISED: Level = Level::Critical { nice: -10, realtime: true };
    const BASE: Level = Level::Base { nice: 10, sched: Sched::Batch, io: Io::BestEffort(7) };

    #[test]
    fn the_end_of_a_section_whose_time_was_up_does_not_end_the_next_one() {
        let (mut supervisor, worker, now_ms) = with_modem();
        assert_eq!(levels(&said(&mut supervisor, now_ms, worker, begin(1))), [RAISED]);
        let late = now_ms + 10_000;
        assert_eq!(supervisor.deadline_ms().map(|at| at <= late), Some(true));
        let mut actions = Vec::new();
        supervisor.step(Now { mono_ms: late, wall_ms: late }, Event::Tick, &mut actions);
        assert_eq!(levels(&actions), [BASE]);
        let told = |action: &Action| matches!(action, Action::Send(_, ToWorker::CriticalEnded { up_to: 1, .. }));
        assert!(actions.iter().any(told), "{actions:?}");
        // The worker does not know it yet.
        assert_eq!(levels(&said(&mut supervisor, late, worker, begin(2))), [RAISED]);
        assert_eq!(levels(&said(&mut supervisor, late, worker, FromWorker::CriticalEnd { section: 1 })), []);
        assert_eq!(levels(&said(&mut supervisor, late, worker, FromWorker::CriticalEnd { section: 2 })), [BASE]);
        assert_eq!(levels(&said(&mut supervisor, late, worker, FromWorker::CriticalEnd { section: 2 })), []);
    }

    #[test]
    fn nested_sections_are_raised_once_and_each_is_answered() {
        let (mut supervisor, worker, now_ms) = with_modem();
        said(&mut supervisor, now_ms, worker, begin(1));
        assert_eq!(levels(&said(&mut supervisor, now_ms, worker, begin(2))), []);
        let reached = Reached { nice: Some(-10), autogroup: Some(-10), realtime: true, ..Reached::default() };
        let actions = step(&mut supervisor, now_ms, worker, WorkerNews::Priority(RAISED, reached));
        let granted = |section| Action::Send(worker, ToWorker::CriticalGranted { section, raised: Ok(()) });
        assert!(actions.contains(&granted(1)) && actions.contains(&granted(2)), "{actions:?}");
        assert!(said(&mut supervisor, now_ms, worker, begin(3)).contains(&granted(3)));
        for section in [1, 3] {
            assert_eq!(levels(&said(&mut supervisor, now_ms, worker, FromWorker::CriticalEnd { section })), []);
        }
        assert_eq!(levels(&said(&mut supervisor, now_ms, worker, FromWorker::CriticalEnd { section: 2 })), [BASE]);
    }

    #[test]
    fn a_worker_cannot_have_sections_without_end() {
        let (mut supervisor, worker, now_ms) = with_modem();
        for section in 0..200 {
            said(&mut supervisor, now_ms, worker, begin(section));
        }
        let open = supervisor.providers.values().find_map(|provider| provider.critical.as_ref()).unwrap().open.len();
        assert_eq!(open, SECTIONS_MAX);
    }
}
