//! Critical sections: a worker that controls something outside in real time keeps its token and gets the highest priority that can be
//! given to it. Sections nest by count. A section ends when the worker says so, when it dies, or when its time is up.

use spooler_protocol::to_worker::ToWorker;

use super::event::{Action, Loudness, WorkerId};
use super::{Supervisor, log};
use crate::policy::priority_plan::{Level, Reached};
use crate::policy::retry::ms;
use crate::policy::{Now, ProviderId};

/// A section that runs.
#[derive(Debug)]
pub(super) struct Critical {
    /// The worker's reason, for the row and the log.
    pub(super) reason: String,
    since_ms: i64,
    /// When its time is up; never while it waits for its resource.
    pub(super) deadline_ms: i64,
    depth: u32,
    /// Answers owed to the worker until the priority is set.
    unanswered: u32,
    raised: Option<Result<(), String>>,
}

impl Supervisor {
    pub(super) fn on_critical_begin(&mut self, worker: WorkerId, reason: String, now: Now, actions: &mut Vec<Action>) {
        let Some(provider) = self.providers.get_mut(&worker.provider) else { return };
        if let Some(critical) = &mut provider.critical {
            critical.depth += 1;
            match critical.raised.clone() {
                Some(raised) => actions.push(Action::Send(worker, ToWorker::CriticalGranted { raised })),
                None => critical.unanswered += 1,
            }
            return;
        }
        let (since_ms, deadline_ms) = (now.mono_ms, i64::MAX);
        provider.critical = Some(Critical { reason, since_ms, deadline_ms, depth: 1, unanswered: 1, raised: None });
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
            let nice = provider.config.critical_nice;
            self.scheduler.set_critical(id, true);
            self.tokens_touched = true;
            actions.push(Action::SetPriority(worker, Level::Critical { nice }));
            begun = true;
        }
        begun
    }

    pub(super) fn on_critical_end(&mut self, worker: WorkerId, now: Now, actions: &mut Vec<Action>) {
        let Some(provider) = self.providers.get_mut(&worker.provider) else { return };
        let Some(critical) = &mut provider.critical else { return };
        critical.depth -= 1;
        if critical.depth == 0 {
            self.end_section(worker, "ends", now, actions);
        }
    }

    /// Ends a section whose time is up.
    pub(super) fn end_overlong_section(&mut self, worker: WorkerId, now: Now, actions: &mut Vec<Action>) {
        let provider = self.providers.get(&worker.provider);
        let overlong =
            provider.and_then(|provider| provider.critical.as_ref()).is_some_and(|c| c.deadline_ms <= now.mono_ms);
        if overlong {
            self.end_section(worker, "is ended: its time is up", now, actions);
        }
    }

    /// The worker is dead: there is nothing left whose priority could be put back.
    pub(super) fn forget_section(&mut self, id: ProviderId, now: Now, actions: &mut Vec<Action>) {
        let Some(provider) = self.providers.get_mut(&id) else { return };
        if let Some(critical) = provider.critical.take() {
            let lasted_ms = now.mono_ms - critical.since_ms;
            let name = &provider.config.name;
            log(
                actions,
                Loudness::Info,
                format!("provider {name}: critical section ended by death after {lasted_ms} ms"),
            );
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
        for _ in 0..critical.unanswered {
            let raised = Err("the section ended before the priority was set".to_owned());
            actions.push(Action::Send(worker, ToWorker::CriticalGranted { raised }));
        }
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
        for _ in 0..std::mem::take(&mut critical.unanswered) {
            actions.push(Action::Send(worker, ToWorker::CriticalGranted { raised: raised.clone() }));
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
