//! Workers come and go; the configuration changes.

use std::collections::BTreeSet;

use spooler_protocol::calls::LogonFlags;
use spooler_protocol::from_worker::{FromWorker, RowUpdate};
use spooler_protocol::notification::SystemMessage;
use spooler_protocol::to_worker::{ToWorker, Welcome};

use super::event::{Action, Loudness, WorkerEnd, WorkerId};
use super::mishaps::Blame;
use super::{Pending, Provider, Scan, Stopping, Supervisor, log, overrunning};
use crate::config::{self, Config};
use crate::policy::flush::Ways;
use crate::policy::lifecycle::{Lifecycle, Step};
use crate::policy::overrun::Call;
use crate::policy::priority_plan::Level;
use crate::policy::retry::{RetryPlan, ms};
use crate::policy::routing::{Routing, Served};
use crate::policy::status_table::{Rows, capped};
use crate::policy::{Now, ProviderId};

impl Supervisor {
    /// Takes a new configuration; touches only what changed.
    pub(super) fn reload(&mut self, config: Config, now: Now, actions: &mut Vec<Action>) {
        if self.stopping.is_some() {
            log(actions, Loudness::Info, "the new configuration waits for the next start".to_owned());
            return;
        }
        let slots = config.scheduler.slots.unwrap_or(self.cores);
        let slice_ms = u32::try_from(ms(config.scheduler.slice)).unwrap_or(u32::MAX);
        self.scheduler.configure(slice_ms, config.scheduler.gate.force_after_ms);
        self.gate.configure(config.scheduler.gate, slots);
        self.tokens_touched = true;
        let mut order = Vec::new();
        for new in &config.providers {
            let present = self.providers.iter().find(|(_, old)| old.config.name == new.name).map(|(id, _)| *id);
            let id = present.unwrap_or_else(|| self.add_provider(new, now));
            order.push(id);
            self.configure_provider(id, new, now, actions);
        }
        let gone: Vec<ProviderId> = self.providers.keys().copied().filter(|id| !order.contains(id)).collect();
        let deadline_ms = now.mono_ms + ms(config.stop_timeout);
        self.look_for_devices(actions);
        self.order = order;
        self.default_retry = retry_plan(&config.retry);
        let addressed_anew = self.config.addressing != config.addressing;
        self.config = config;
        if addressed_anew {
            self.tell_claims(actions);
        }
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
            overrun: overrunning::ladder(config, now),
            lacks_device: false,
            retried: BTreeSet::new(),
            no_connect: config.no_connect,
            sandbox: super::confining::Sandbox::default(),
            session: super::sessions::Session::default(),
            logon: super::logon::Logon::default(),
        };
        self.providers.insert(id, provider);
        id
    }

    fn configure_provider(&mut self, id: ProviderId, new: &config::Provider, now: Now, actions: &mut Vec<Action>) {
        let deadline_ms = now.mono_ms + ms(self.config.stop_timeout);
        let Some(provider) = self.providers.get_mut(&id) else { return };
        let old = std::mem::replace(&mut provider.config, new.clone());
        provider.lacks_device &= new.needs_device == old.needs_device;
        if old.no_connect != new.no_connect {
            provider.no_connect = new.no_connect;
        }
        provider.retry = retry_plan(&new.retry);
        provider.overrun.set_limits(overrunning::limits(new));
        provider.removed = false;
        let life = &mut provider.life;
        life.set_start_timeout(ms(new.start_timeout));
        let other_worker = old.kind != new.kind
            || old.settings != new.settings
            || old.interactive != new.interactive
            || old.resource != new.resource
            || old.no_connect != new.no_connect
            || old.sandbox != new.sandbox
            // A reload says that something was mended.
            || provider.session.critical_error.is_some();
        let step = match (old.enabled && !provider.paused, new.enabled && !provider.paused) {
            (false, true) => life.want(&mut self.generation, now.mono_ms),
            (true, false) => life.unwant(false, now.mono_ms, deadline_ms),
            (true, true) if other_worker || !life.is_alive() => {
                life.restart(&mut self.generation, now.mono_ms, deadline_ms)
            }
            (true, true) | (false, false) => None,
        };
        let worker = WorkerId { provider: id, generation: life.generation() };
        if configured_level(&old) != configured_level(new)
            && step.is_none()
            && life.is_ready()
            && provider.critical.is_none()
        {
            actions.push(Action::SetPriority(worker, provider.base_level()));
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
                self.scheduler.set_passing(worker.provider, true);
                self.tokens_touched = true;
                self.end_session(worker, actions);
                actions.push(Action::Send(worker, ToWorker::Logoff { hurry }));
            }
            Some(Step::Term) => actions.push(Action::Term(worker)),
            Some(Step::Kill) => actions.push(Action::Kill(worker)),
        }
    }

    fn welcome(&self, worker: WorkerId) -> Option<Welcome> {
        let provider = self.providers.get(&worker.provider)?;
        let mut flags = LogonFlags::NO_INBOUND | LogonFlags::NO_OUTBOUND;
        if !provider.logon.has_person() {
            flags |= LogonFlags::NO_DIALOG;
        }
        if provider.no_connect {
            flags |= LogonFlags::NO_CONNECT;
        }
        Some(Welcome {
            provider: provider.config.name.clone(),
            kind: provider.config.kind.clone(),
            generation: worker.generation,
            settings: provider.config.settings.clone(),
            hostname: self.config.hostname.clone(),
            message_bytes_max: self.config.spool.max_message_size,
            claims: self.claims(),
            flags,
            answers: provider.logon.answers(),
            confinement: self.confinement(&provider.config).map(Box::new),
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
        if let Some(call) = answers(&said) {
            self.note_answer(worker, call, now, actions);
        }
        match said {
            FromWorker::LoggedOn(logged_on) => self.begin_session(worker, logged_on, now, actions),
            FromWorker::LogonFailed(error) => self.on_logon_failed(id, error, actions),
            FromWorker::Want => self.on_want(worker, cpu_us, now, actions),
            FromWorker::Yield { token, more } => self.on_yield(worker, (token, more), cpu_us, now, actions),
            FromWorker::Settled { delivery, outcomes } => self.on_settled(worker, delivery, outcomes, now, actions),
            FromWorker::Finished { delivery, result, end, outcomes } => {
                self.on_finished(worker, delivery, (result, end), outcomes, now, actions);
            }
            FromWorker::Progress { delivery, progress } => {
                let phase = capped(progress.phase);
                if let Some(flight) = self.flights.get_mut(&delivery).filter(|flight| flight.worker == worker)
                    && (flight.bytes != progress.bytes || flight.phase != phase)
                {
                    if flight.phase != phase && !phase.is_empty() {
                        (flight.phase, flight.phase_since_ms) = (phase, now.mono_ms);
                    }
                    flight.bytes = progress.bytes;
                    self.on_news(worker, now, actions);
                }
            }
            FromWorker::CriticalBegin { section, reason } => {
                self.on_critical_begin(worker, section, capped(reason), now, actions);
            }
            FromWorker::CriticalEnd { section } => self.on_critical_end(worker, section, now, actions),
            FromWorker::Row { sequence, row, update } => self.on_row(worker, sequence, &row, *update, now, actions),
            FromWorker::FlushAnswered(answer) => self.on_flush_answered(worker, answer, now, actions),
            // The worker exits by itself; its death says the rest. Bodies and uploads do not come this way.
            FromWorker::LoggedOff
            | FromWorker::ReadBody { .. }
            | FromWorker::Upload { .. }
            | FromWorker::UploadAbandoned { .. }
            | FromWorker::UploadBegins { .. }
            | FromWorker::Accept { .. } => {}
            FromWorker::Announced(said) => self.on_announced(worker, said, now, actions),
            FromWorker::StatusRecips { delivery, reports } => {
                self.on_status_recips(worker, delivery, reports, actions);
            }
            FromWorker::Notify(news) => self.on_notified(worker, news, now, actions),
            FromWorker::Polled { waiting } => self.on_polled(worker, waiting, now),
            FromWorker::StartEnded(result) => self.on_start_ended(worker, result, now, actions),
            FromWorker::Idled => self.on_idled(worker),
            FromWorker::Confined(confined) => self.on_confined(worker, confined, actions),
            FromWorker::Validated { request, result } => self.on_validated(worker, request, result, actions),
        }
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
        if self.providers.get(&worker.provider).is_some_and(|provider| provider.rows.is_progress(name, &update)) {
            self.on_call_news(worker, now, actions);
        }
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
    pub(super) fn on_died(&mut self, worker: WorkerId, end: &WorkerEnd, now: Now, actions: &mut Vec<Action>) {
        let busy = self.has_flights(worker.provider);
        let Some(provider) = self.providers.get_mut(&worker.provider) else { return };
        let deaths = provider.life.deaths;
        let blame = Blame::new(end, provider.life.condemned_for());
        let why = end.to_string();
        let step = provider.life.on_died(&why, busy, &mut self.generation, now.mono_ms, &mut self.jitter);
        let unasked = provider.life.deaths > deaths;
        let blame = blame.filter(|_| unasked && !provider.is_ended_for_a_call());
        provider.pid = None;
        // What it said of itself is void.
        provider.rows.begin(worker.generation);
        provider.priority.clear();
        let state = provider.life.state();
        let name = provider.config.name.clone();
        if unasked {
            let why = provider.life.last_error.as_deref().unwrap_or(&why);
            log(actions, Loudness::Warn, format!("provider {name}: worker died: {why}; now {state:?}"));
        } else {
            log(actions, Loudness::Info, format!("provider {name}: worker gone: {why}"));
        }
        self.forget_section(worker.provider, now, actions);
        self.forget_session(worker.provider, actions);
        self.forget_flush(worker.provider);
        self.scheduler.remove(worker.provider);
        self.tokens_touched = true;
        self.return_flights(worker, blame.as_ref(), now, actions);
        self.release_resource(worker.provider);
        self.take_step(worker, step, actions);
        self.answer_logon(worker.provider, actions);
        if self.forget_removed(worker.provider) {
            // Its last deliveries came back to it after the routes had changed.
            self.reroute_all(actions);
        }
        // What it serves may never be known now.
        self.update_routing(actions);
    }

    /// Forgets a provider that is no longer configured, once its worker has gone; true if it did.
    fn forget_removed(&mut self, id: ProviderId) -> bool {
        let forget = self.providers.get(&id).is_some_and(|provider| provider.removed && !provider.life.is_alive());
        if forget {
            self.providers.remove(&id);
        }
        forget
    }

    /// The order in which providers are tried: as configured, else as they stand in the file, with those last that wish to be.
    fn transport_order(&self) -> Vec<ProviderId> {
        if let Some(names) = &self.config.routing.order {
            let named = |name: &String| self.order.iter().copied().find(|id| self.name(*id) == name);
            return names.iter().filter_map(named).collect();
        }
        let prefers_last = |id: &ProviderId| {
            let announced = self.providers.get(id).and_then(|provider| provider.announced.as_ref());
            announced.is_some_and(|announced| announced.prefer_last)
        };
        let mut order = self.order.clone();
        order.sort_by_key(prefers_last);
        order
    }

    /// Everything that is served, anew. If it changed, listeners are told and queued messages find their way again.
    pub(super) fn update_routing(&mut self, actions: &mut Vec<Action>) {
        let served = self.transport_order().into_iter().filter_map(|id| {
            let provider = self.providers.get(&id).filter(|provider| provider.config.enabled)?;
            let announced = provider.announced.as_ref();
            let configured = provider.config.address_types();
            let types = configured.map(<[_]>::to_vec).or_else(|| Some(announced?.address_types.clone()));
            Some(Served {
                provider: id,
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
        self.astray.extend(self.pending.values().filter_map(Pending::accepts));
        self.tell_claims(actions);
        self.reroute_all(actions);
    }

    /// Finds a way for every queued message again, now or after the scan that is running.
    fn reroute_all(&mut self, actions: &mut Vec<Action>) {
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
        // A last chance for what could not be read.
        self.read_again(i64::MAX, actions);
        let how = if hurry { "stopping in a hurry" } else { "stopping: running deliveries may finish" };
        log(actions, Loudness::Info, how.to_owned());
        if !hurry {
            self.tell_all(&SystemMessage::Shutdown, actions);
        }
        for id in self.order_with_removed() {
            if let Some(provider) = self.providers.get_mut(&id) {
                let step = provider.life.unwant(hurry, now.mono_ms, deadline_ms);
                let worker = WorkerId { provider: id, generation: provider.life.generation() };
                if hurry {
                    self.break_section(worker, "the spooler stops in a hurry", now, actions);
                }
                self.take_step(worker, step, actions);
            }
        }
    }

    /// A worker has said hello: its priority is set, it is welcomed, and it may have tokens. In this order: once it is welcome it becomes a user of
    /// its own, and a supervisor without CAP_SYS_NICE has no say over others' processes.
    pub(super) fn on_started(&mut self, worker: WorkerId, pid: u32, now: Now, actions: &mut Vec<Action>) {
        let welcome = self.welcome(worker);
        let Some(provider) = self.providers.get_mut(&worker.provider) else { return };
        provider.pid = Some(pid);
        provider.rows.begin(worker.generation);
        provider.sandbox.open();
        actions.push(Action::SetPriority(worker, provider.base_level()));
        actions.extend(welcome.map(|welcome| Action::Send(worker, ToWorker::Welcome(welcome))));
        let (weight, interactive) = (provider.config.weight, provider.config.interactive);
        provider.overrun = overrunning::ladder(&provider.config, now);
        self.scheduler.add(worker.provider, weight, interactive);
        self.scheduler.set_runs_programs(worker.provider, provider.config.programs);
        self.scheduler.set_passing(worker.provider, true);
    }
}

/// The call to which this is the answer.
fn answers(said: &FromWorker) -> Option<Call> {
    match said {
        FromWorker::Polled { .. } => Some(Call::Poll),
        FromWorker::StartEnded(_) => Some(Call::Start),
        FromWorker::Idled => Some(Call::Idle),
        FromWorker::Announced(_) => Some(Call::Announce),
        FromWorker::FlushAnswered(_) => Some(Call::Flush),
        _ => None,
    }
}

/// The priority that the configuration gives.
pub(super) fn configured_level(config: &config::Provider) -> Level {
    Level::Base { nice: config.nice, sched: config.sched, io: config.io }
}

pub(super) fn retry_plan(retry: &config::Retry) -> RetryPlan {
    RetryPlan::new(retry.first, retry.factor, retry.max, retry.max_age, retry.delay_warning)
}
