//! The status table: one row for the supervisor, one for each provider, one for each message in flight.

use spooler_protocol::status::{
    MessageRow, ProviderRow, StatusCode, StatusTable, SupervisorRow, TokenState, WorkerState,
};

use super::{Acceptor, Pending, Provider, Supervisor};
use crate::policy::lane::Lane;
use crate::policy::{Now, ProviderId};

/// Message rows in one table.
const MESSAGE_ROWS_MAX: usize = 200;

impl Supervisor {
    pub(super) fn status_table(&self, now: Now) -> StatusTable {
        let mut messages: Vec<MessageRow> = Vec::new();
        for flight in self.flights.values().take(MESSAGE_ROWS_MAX) {
            let recipients = flight.recipients.len() - flight.settled.len();
            messages.push(MessageRow {
                id: flight.id,
                provider: self.name(flight.route.provider).to_owned(),
                phase: flight.phase.clone(),
                bytes: flight.bytes,
                size: self.queue.get(flight.id).map_or(0, |entry| entry.size),
                recipients: u32::try_from(recipients).unwrap_or(u32::MAX),
                since_ms: u64::try_from(now.mono_ms - flight.since_ms).unwrap_or_default(),
            });
        }
        let providers = self.order.iter().filter_map(|id| Some(self.provider_row(*id, self.providers.get(id)?, now)));
        StatusTable { supervisor: self.supervisor_row(now), providers: providers.collect(), messages }
    }

    /// Providers whose CPU clock a table would show.
    pub fn live_workers(&self) -> impl Iterator<Item = super::event::WorkerId> + '_ {
        self.providers
            .iter()
            .filter(|(_, provider)| provider.life.is_alive())
            .map(|(id, provider)| super::event::WorkerId { provider: *id, generation: provider.life.generation() })
    }

    fn supervisor_row(&self, now: Now) -> SupervisorRow {
        let lanes = || self.order.iter().filter_map(|id| self.queue.lane_of(*id));
        let (code, text) = match &self.stopping {
            None if self.scan != super::Scan::Done => (StatusCode::AVAILABLE, "reading the queue"),
            None => (StatusCode::AVAILABLE, "running"),
            Some(stopping) if stopping.hurry => (StatusCode::FAILURE, "stopping in a hurry"),
            Some(_) => (StatusCode::FAILURE, "stopping"),
        };
        SupervisorRow {
            pid: self.pid,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            code,
            text: text.to_owned(),
            up_s: u64::try_from((now.mono_ms - self.started_ms) / 1000).unwrap_or_default(),
            slots: self.scheduler.slots(),
            gate: self.gate.describe(),
            tokens_out: self.scheduler.tokens_out(),
            queued: self.queue.len() + self.reports_under_way(),
            ready: lanes().map(Lane::ready).sum(),
            in_flight: lanes().map(Lane::in_flight).sum(),
            deferred: lanes().map(|lane| lane.deferred).sum(),
            held: self.queue.stopped(),
            accepted: self.accepted,
            sent: self.sent,
            failed: self.failed,
        }
    }

    /// Reports that are on their way into the queue, often while the message that they are about has left it: nobody shall take a
    /// queue for empty that is not done yet.
    fn reports_under_way(&self) -> u64 {
        let is_report =
            |pending: &&Pending| matches!(pending, Pending::Report(_) | Pending::Accept(Acceptor::Nobody, ..));
        self.pending.values().filter(is_report).count() as u64
    }

    fn provider_row(&self, id: ProviderId, provider: &Provider, now: Now) -> ProviderRow {
        let life = &provider.life;
        let lane = self.queue.lane_of(id);
        let (cpu_us, overdraft_us) = self.scheduler.cpu_us(id);
        let token = self.scheduler.token_state(id);
        let in_flight = lane.map_or(0, Lane::in_flight);
        ProviderRow {
            name: provider.config.name.clone(),
            kind: provider.config.kind.clone(),
            code: code(provider, in_flight),
            state: life.state(),
            text: text(provider, in_flight, token),
            progress: provider.row.progress,
            identity: provider.announced.as_ref().map(|said| said.identity.clone()).unwrap_or_default(),
            pid: provider.pid,
            generation: life.generation(),
            since_s: u64::try_from((now.mono_ms - life.since_ms()) / 1000).unwrap_or_default(),
            token,
            in_flight,
            ready: lane.map_or(0, Lane::ready),
            deferred: lane.map_or(0, |lane| lane.deferred),
            cpu_ms: cpu_us / 1000,
            overdraft_ms: overdraft_us / 1000,
            overrun: provider.shown_overrun(),
            priority: provider.priority.clone(),
            critical: provider.critical.as_ref().map(|critical| critical.reason.clone()),
            deaths: life.deaths,
            last_error: life.last_error.clone(),
        }
    }
}

fn code(provider: &Provider, in_flight: u64) -> StatusCode {
    let mut code = StatusCode::default();
    match provider.life.state() {
        WorkerState::Ready if provider.session.critical_error.is_some() => code |= StatusCode::FAILURE,
        WorkerState::Ready => code |= StatusCode::AVAILABLE,
        WorkerState::Starting | WorkerState::Draining | WorkerState::Stopping | WorkerState::Paused => {
            code |= StatusCode::OFFLINE;
        }
        WorkerState::Waiting | WorkerState::Barred => code |= StatusCode::FAILURE,
    }
    if provider.is_offline() {
        code |= StatusCode::OFFLINE;
    }
    let sends = provider.announced.as_ref().is_some_and(|announced| announced.credit > 0);
    if provider.life.is_ready() {
        code |= if sends { StatusCode::OUTBOUND_ENABLED } else { StatusCode::INBOUND_ENABLED };
    }
    if in_flight > 0 {
        code |= StatusCode::OUTBOUND_ACTIVE;
    }
    code
}

fn text(provider: &Provider, in_flight: u64, token: TokenState) -> String {
    if let Some(critical) = &provider.critical {
        return format!("critical section: {}", critical.reason);
    }
    if let Some(why) = &provider.session.critical_error {
        return format!("cannot go on: {why}");
    }
    let why = provider.life.last_error.as_deref();
    match provider.life.state() {
        WorkerState::Ready if provider.lacks_device => return format!("offline: {}", provider.why_offline()),
        WorkerState::Ready => {
            if let Some(trouble) = provider.shown_trouble() {
                return trouble;
            }
        }
        WorkerState::Starting => return "starting".to_owned(),
        WorkerState::Draining | WorkerState::Stopping if provider.life.eviction().is_some() => {
            return format!("being stopped: {}", why.unwrap_or("it overran"));
        }
        WorkerState::Draining => return "finishing what it has".to_owned(),
        WorkerState::Stopping => return "being stopped".to_owned(),
        WorkerState::Paused if !provider.config.enabled => return "switched off in the configuration".to_owned(),
        WorkerState::Paused => return "paused".to_owned(),
        WorkerState::Waiting => return format!("starts again soon; {}", why.unwrap_or("its worker died")),
        WorkerState::Barred => return format!("barred: {}", why.unwrap_or("too many failed starts")),
    }
    match (&provider.row.text, token) {
        (Some(text), _) => text.clone(),
        (None, TokenState::Wanting) => "waits for a token".to_owned(),
        (None, _) if in_flight > 0 => "delivering".to_owned(),
        (None, _) => "idle".to_owned(),
    }
}
