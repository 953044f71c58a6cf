//! Workers come and go; the configuration changes.

use spooler_protocol::calls::LogonFlags;
use spooler_protocol::from_worker::{FromWorker, LoggedOn, RowUpdate};
use spooler_protocol::limits::CREDIT_MAX;
use spooler_protocol::to_worker::{ToWorker, Welcome};

use super::event::{Action, Loudness, WorkerId};
use super::{Provider, Scan, Stopping, Supervisor, log};
use crate::config::{self, Config};
use crate::policy::flush::Ways;
use crate::policy::lane::Limits;
use crate::policy::lifecycle::{Lifecycle, Step};
use crate::policy::priority_plan::Level;
use crate::policy::retry::{RetryPlan, ms};
use crate::policy::routing::{Routing, Served};
use crate::policy::status_table::{Rows, capped};
use crate::policy::{Now, ProviderId};

/// Two deliveries to one destination are never further apart, whatever a worker asks for: a week.
const INTERVAL_MS_MAX: i64 = 7 * 86_400_000;

impl Supervisor {
    /// Takes a new configuration; touches only what changed.
    pub(super) fn reload(&mut self, config: Config, now: Now, actions: &mut Vec<Action>) {
        if self.stopping.is_some() {
            log(actions, Loudness::Info, "the new configuration waits for the next start".to_owned());
            return;
        }
        let slots = config.scheduler.slots.unwrap_or(self.cores);
        self.scheduler.configure(slots, u32::try_from(ms(config.scheduler.slice)).unwrap_or(u32::MAX));
        let mut order = Vec::new();
        for new in &config.providers {
            let present = self.providers.iter().find(|(_, old)| old.config.name == new.name).map(|(id, _)| *id);
            let id = present.unwrap_or_else(|| self.add_provider(new, now));
            order.push(id);
            self.configure_provider(id, new, now, actions);
        }
        let gone: Vec<ProviderId> = self.providers.keys().copied().filter(|id| !order.contains(id)).collect();
        let deadline_ms = now.mono_ms + ms(config.stop_timeout);
        self.order = order;
        self.default_retry = retry_plan(&config.retry);
        self.config = config;
        for id in gone {
            if let Some(provider) = self.providers.get_mut(&id) {
                provider.removed = true;
                let step = provider.life.unwant(false, now.mono_ms, deadline_ms);
                let worker = WorkerId { provider: id, generation: provider.life.generation() };
                self.take_step(worker, step, actions);
            }
            self.forget_removed(id);
        }
        self.update_routing(actions);
    }

    fn add_provider(&mut self, config: &config::Provider, now: Now) -> ProviderId {
        let id = ProviderId(u32::try_from(self.next_number()).unwrap_or(u32::MAX));
        let provider = Provider {
            config: config::Provider { enabled: false, ..config.clone() },
            retry: retry_plan(&config.retry),
            life: Lifecycle::new(ms(config.start_timeout), now.mono_ms),
            pid: None,
            announced: None,
            paused: false,
            removed: false,
            rows: Rows::default(),
            priority: String::new(),
            critical: None,
        };
        self.providers.insert(id, provider);
        id
    }

    fn configure_provider(&mut self, id: ProviderId, new: &config::Provider, now: Now, actions: &mut Vec<Action>) {
        let deadline_ms = now.mono_ms + ms(self.config.stop_timeout);
        let Some(provider) = self.providers.get_mut(&id) else { return };
        let old = std::mem::replace(&mut provider.config, new.clone());
        provider.retry = retry_plan(&new.retry);
        provider.removed = false;
        let life = &mut provider.life;
        life.set_start_timeout(ms(new.start_timeout));
        let other_worker = old.kind != new.kind
            || old.settings != new.settings
            || old.interactive != new.interactive
            || old.resource != new.resource;
        let step = match (old.enabled && !provider.paused, new.enabled && !provider.paused) {
            (false, true) => life.want(&mut self.generation, now.mono_ms),
            (true, false) => life.unwant(false, now.mono_ms, deadline_ms),
            (true, true) if other_worker => life.restart(&mut self.generation, now.mono_ms, deadline_ms),
            (true, true) | (false, false) => None,
        };
        let worker = WorkerId { provider: id, generation: life.generation() };
        if old.nice != new.nice && step.is_none() && life.is_ready() && provider.critical.is_none() {
            actions.push(Action::SetPriority(worker, Level::Base { nice: new.nice }));
        }
        self.take_step(worker, step, actions);
    }

    /// Does with a worker what its life demands.
    pub(super) fn take_step(&mut self, worker: WorkerId, step: Option<Step>, actions: &mut Vec<Action>) {
        match step {
            None => {}
            Some(Step::Spawn(generation)) => {
                let worker = WorkerId { generation, ..worker };
                actions.push(Action::Spawn(worker));
            }
            Some(Step::Logoff { hurry }) => {
                self.say_farewell(worker.provider, actions);
                actions.push(Action::Send(worker, ToWorker::Logoff { hurry }));
            }
            Some(Step::Term) => actions.push(Action::Term(worker)),
            Some(Step::Kill) => actions.push(Action::Kill(worker)),
        }
    }

    fn welcome(&self, worker: WorkerId) -> Option<Welcome> {
        let provider = self.providers.get(&worker.provider)?;
        Some(Welcome {
            provider: provider.config.name.clone(),
            kind: provider.config.kind.clone(),
            generation: worker.generation,
            settings: provider.config.settings.clone(),
            hostname: self.config.hostname.clone(),
            message_bytes_max: self.config.spool.max_message_size,
            claims: self.routing.claims(),
            flags: LogonFlags::NO_DIALOG,
            answers: Vec::new(),
        })
    }

    pub(super) fn on_said(
        &mut self,
        worker: WorkerId,
        said: FromWorker,
        cpu_us: Option<u64>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let id = worker.provider;
        match said {
            FromWorker::LoggedOn(logged_on) => self.on_logged_on(worker, logged_on, now, actions),
            FromWorker::LogonFailed(error) => {
                let Some(provider) = self.providers.get_mut(&id) else { return };
                provider.life.on_logon_failed(&error);
                let text = provider.life.last_error.clone().unwrap_or_default();
                log(actions, Loudness::Warn, format!("provider {}: logon failed: {text}", self.name(id)));
            }
            FromWorker::Want => {
                self.scheduler.charge(id, cpu_us);
                self.scheduler.on_want(id);
                self.tokens_touched = true;
            }
            FromWorker::Yield { token, more } => {
                self.scheduler.on_yield(id, token, more, cpu_us);
                self.tokens_touched = true;
            }
            FromWorker::Settled { delivery, outcomes } => self.on_settled(worker, delivery, outcomes, now, actions),
            FromWorker::Finished { delivery, result, end: _, outcomes } => {
                self.on_finished(worker, delivery, result, outcomes, now, actions);
            }
            FromWorker::Progress { delivery, progress } => {
                if let Some(flight) = self.flights.get_mut(&delivery).filter(|flight| flight.worker == worker) {
                    flight.phase = capped(progress.phase);
                    flight.bytes = progress.bytes;
                }
            }
            FromWorker::CriticalBegin { reason } => self.on_critical_begin(worker, capped(reason), now, actions),
            FromWorker::CriticalEnd => self.on_critical_end(worker, now, actions),
            FromWorker::Row { sequence, row, update } => self.on_row(worker, sequence, &row, *update, now, actions),
            FromWorker::FlushAnswered(answer) => self.on_flush_answered(worker, answer, now, actions),
            FromWorker::StartEnded(result) => self.on_start_ended(worker, result, now, actions),
            // The worker exits by itself; its death says the rest. Bodies and uploads do not come this way.
            FromWorker::LoggedOff
            | FromWorker::ReadBody { .. }
            | FromWorker::Upload { .. }
            | FromWorker::UploadAbandoned { .. }
            | FromWorker::Accept { .. } => {}
            FromWorker::Announced(_)
            | FromWorker::StatusRecips { .. }
            | FromWorker::Notify(_)
            | FromWorker::Polled { .. }
            | FromWorker::Idled
            | FromWorker::Validated { .. } => {}
        }
    }

    fn on_logged_on(&mut self, worker: WorkerId, mut logged_on: LoggedOn, now: Now, actions: &mut Vec<Action>) {
        let Some(provider) = self.providers.get_mut(&worker.provider) else { return };
        if !provider.life.on_logged_on(now.mono_ms) {
            return;
        }
        logged_on.credit = logged_on.credit.min(CREDIT_MAX);
        logged_on.identity = capped(logged_on.identity);
        logged_on.address_types.truncate(100);
        let limits = Limits {
            concurrency: logged_on.destinations.concurrency,
            interval_ms: i64::try_from(logged_on.destinations.interval_ms).unwrap_or(i64::MAX).min(INTERVAL_MS_MAX),
        };
        let text = format!("provider {}: ready ({})", provider.config.name, logged_on.identity);
        provider.announced = Some(logged_on);
        self.queue.lane(worker.provider).set_limits(limits);
        self.touched.insert(worker.provider);
        log(actions, Loudness::Info, text);
        self.update_routing(actions);
    }

    /// A word about a row. Bits are commands, so what has changed is acted upon.
    fn on_row(
        &mut self,
        worker: WorkerId,
        sequence: u64,
        name: &str,
        update: RowUpdate,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        self.change_rows(worker.provider, now, actions, |rows| {
            rows.on_word(worker.generation, sequence, name, update, now.mono_ms)
        });
    }

    /// Takes what a worker said about its rows too fast.
    pub(super) fn settle_rows(&mut self, id: ProviderId, now: Now, actions: &mut Vec<Action>) {
        self.change_rows(id, now, actions, Rows::settle);
    }

    /// The same where its time has come.
    pub(super) fn tick_rows(&mut self, id: ProviderId, now: Now, actions: &mut Vec<Action>) {
        self.change_rows(id, now, actions, |rows| rows.on_tick(now.mono_ms));
    }

    fn change_rows(
        &mut self,
        id: ProviderId,
        now: Now,
        actions: &mut Vec<Action>,
        change: impl FnOnce(&mut Rows) -> bool,
    ) {
        let Some(provider) = self.providers.get_mut(&id) else { return };
        let (was_offline, before) = (provider.is_offline(), Ways::of(provider.rows.own().code));
        if !change(&mut provider.rows) {
            return;
        }
        let after = Ways::of(provider.rows.own().code);
        if was_offline && !provider.is_offline() {
            self.on_online(id);
        }
        if before != after {
            self.on_flush_bits(id, after.without(before), now, actions);
        }
    }

    /// The process is dead, or never came to be.
    pub(super) fn on_died(&mut self, worker: WorkerId, why: &str, now: Now, actions: &mut Vec<Action>) {
        let Some(provider) = self.providers.get_mut(&worker.provider) else { return };
        let deaths = provider.life.deaths;
        let step = provider.life.on_died(why, &mut self.generation, now.mono_ms, &mut self.jitter);
        let unasked = provider.life.deaths > deaths;
        provider.pid = None;
        // What it said of itself is void.
        provider.rows.begin(worker.generation);
        provider.priority.clear();
        let state = provider.life.state();
        let name = provider.config.name.clone();
        if unasked {
            let why = provider.life.last_error.as_deref().unwrap_or(why);
            log(actions, Loudness::Warn, format!("provider {name}: worker died: {why}; now {state:?}"));
        } else {
            log(actions, Loudness::Info, format!("provider {name}: worker gone: {why}"));
        }
        self.forget_section(worker.provider, now, actions);
        self.forget_flush(worker.provider);
        self.release_resource(worker.provider);
        self.scheduler.remove(worker.provider);
        self.tokens_touched = true;
        self.return_flights(worker, unasked, actions);
        self.take_step(worker, step, actions);
        self.forget_removed(worker.provider);
        // What it serves may never be known now.
        self.update_routing(actions);
    }

    fn forget_removed(&mut self, id: ProviderId) {
        if self.providers.get(&id).is_some_and(|provider| provider.removed && !provider.life.is_alive()) {
            self.providers.remove(&id);
        }
    }

    /// Everything that is served, anew. If it changed, listeners are told and queued messages find their way again.
    pub(super) fn update_routing(&mut self, actions: &mut Vec<Action>) {
        let served = self.order.iter().filter_map(|id| {
            let provider = self.providers.get(id).filter(|provider| provider.config.enabled)?;
            let announced = provider.announced.as_ref();
            let types = provider.config.address_types.clone().or_else(|| Some(announced?.address_types.clone()));
            Some(Served {
                provider: *id,
                patterns: provider.config.claims.clone(),
                address_types: types,
                awaited: announced.is_none() && provider.life.may_log_on(),
                by_domain: announced.is_some_and(|announced| announced.destinations.by_domain),
            })
        });
        let routing = Routing { served: served.collect() };
        if routing == self.routing {
            self.scan_if_all_have_spoken(actions);
            return;
        }
        self.routing = routing;
        let claims = self.routing.claims();
        for id in &self.order {
            let listens =
                self.providers.get(id).is_some_and(|provider| provider.config.interactive && provider.life.is_ready());
            if listens {
                self.say(*id, ToWorker::Claims(claims.clone()), actions);
            }
        }
        match self.scan {
            Scan::Due { .. } => self.scan_if_all_have_spoken(actions),
            Scan::Running { restoring, .. } => self.scan = Scan::Running { restoring, again: true },
            Scan::Done if self.queue.is_empty() => {}
            Scan::Done => self.reroute(actions),
        }
    }

    /// Stops everything: softly at first, in a hurry when asked again.
    pub(super) fn stop(&mut self, now: Now, actions: &mut Vec<Action>) {
        let hurry = self.stopping.is_some();
        // The last part of the time is for those that have to be made to go.
        let patience_ms = ms(self.config.stop_timeout);
        let deadline_ms = now.mono_ms + if hurry { 0 } else { patience_ms - (patience_ms / 4).min(3000) };
        self.stopping = Some(Stopping { hurry, exited: false });
        let how = if hurry { "stopping in a hurry" } else { "stopping: running deliveries may finish" };
        log(actions, Loudness::Info, how.to_owned());
        for id in self.order_with_removed() {
            if let Some(provider) = self.providers.get_mut(&id) {
                let step = provider.life.unwant(hurry, now.mono_ms, deadline_ms);
                let worker = WorkerId { provider: id, generation: provider.life.generation() };
                self.take_step(worker, step, actions);
            }
        }
    }

    /// A worker has said hello: it is welcomed, may have tokens, and its priority is set.
    pub(super) fn on_started(&mut self, worker: WorkerId, pid: u32, actions: &mut Vec<Action>) {
        let welcome = self.welcome(worker);
        actions.extend(welcome.map(|welcome| Action::Send(worker, ToWorker::Welcome(welcome))));
        let Some(provider) = self.providers.get_mut(&worker.provider) else { return };
        provider.pid = Some(pid);
        provider.rows.begin(worker.generation);
        let (weight, interactive, nice) = (provider.config.weight, provider.config.interactive, provider.config.nice);
        self.scheduler.add(worker.provider, weight, interactive);
        actions.push(Action::SetPriority(worker, Level::Base { nice }));
    }
}

pub(super) fn retry_plan(retry: &config::Retry) -> RetryPlan {
    RetryPlan::new(retry.first, retry.factor, retry.max, retry.give_up, retry.delay_warning)
}
