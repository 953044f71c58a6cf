//! The status table: one row for the supervisor, one for each provider and more if it adds some, one for each message in flight.

use spooler_protocol::calls::Methods;
use spooler_protocol::ids::DeliveryId;
use spooler_protocol::status::{
    AddedRow, MessageRow, ProviderRow, StatusCode, StatusTable, SupervisorRow, TokenState, WorkerState,
};

use super::{Acceptor, Flight, Pending, Provider, Supervisor};
use crate::policy::lane::Lane;
use crate::policy::lifecycle::Remedy;
use crate::policy::{Now, ProviderId};

/// Message rows in one table: the oldest.
pub(super) const MESSAGE_ROWS_MAX: usize = 200;
/// A clock that was set by more than so much moves the times in rows; less is only the clock being kept in step.
const CLOCK_STEP_MS: i64 = 2000;

impl Flight {
    /// Recipients that are not settled.
    pub(super) fn open_recipients(&self) -> u32 {
        u32::try_from(self.recipients.len() - self.settled.len()).unwrap_or(u32::MAX)
    }
}

impl Supervisor {
    pub(super) fn status_table(&mut self, now: Now) -> StatusTable {
        let supervisor = self.supervisor_row(now);
        let flights = self.flights.iter().take(MESSAGE_ROWS_MAX);
        let messages = flights.map(|(delivery, flight)| self.message_row(*delivery, flight)).collect();
        let rows: Vec<(ProviderRow, Vec<AddedRow>)> =
            self.order.iter().filter_map(|id| self.provider_rows(*id)).collect();
        let (providers, added): (Vec<ProviderRow>, Vec<Vec<AddedRow>>) = rows.into_iter().unzip();
        let mut added: Vec<AddedRow> = added.into_iter().flatten().collect();
        added.sort_by(|one, other| (&one.provider, &one.row).cmp(&(&other.provider, &other.row)));
        StatusTable { supervisor, providers, added, messages }
    }

    /// Providers whose CPU clock a table would show.
    pub fn live_workers(&self) -> impl Iterator<Item = super::event::WorkerId> + '_ {
        self.providers
            .iter()
            .filter(|(_, provider)| provider.life.is_alive())
            .map(|(id, provider)| super::event::WorkerId { provider: *id, generation: provider.life.generation() })
    }

    /// A moment as people know it. Rows must not change because one clock runs a little faster than the other.
    fn wall_ms(&self, mono_ms: i64) -> i64 {
        mono_ms + self.epoch_ms
    }

    /// If the clock that people know was set, all times in rows move with it.
    pub(super) fn follow_clock(&mut self, now: Now) {
        let epoch_ms = now.wall_ms - now.mono_ms;
        if epoch_ms.abs_diff(self.epoch_ms) > CLOCK_STEP_MS.unsigned_abs() {
            self.epoch_ms = epoch_ms;
            self.note_clock();
        }
    }

    pub(super) fn message_row(&self, delivery: DeliveryId, flight: &Flight) -> MessageRow {
        let size = self.queue.get(flight.id).map_or(0, |entry| entry.size);
        let progress = flight.bytes.min(size).saturating_mul(100).checked_div(size).unwrap_or(0);
        MessageRow {
            delivery,
            id: flight.id,
            provider: self.name(flight.route.provider).to_owned(),
            code: StatusCode::OUTBOUND_ACTIVE,
            phase: flight.phase.clone(),
            phase_since_ms: self.wall_ms(flight.phase_since_ms),
            progress: u8::try_from(progress).unwrap_or(100),
            bytes: flight.bytes,
            size,
            recipients: flight.open_recipients(),
            since_ms: self.wall_ms(flight.since_ms),
        }
    }

    pub(super) fn supervisor_row(&mut self, now: Now) -> SupervisorRow {
        self.follow_clock(now);
        let lanes = || self.order.iter().filter_map(|id| self.queue.lane_of(*id));
        let (code, text) = match &self.stopping {
            None if let Some(why) = &self.store_stuck => (StatusCode::FAILURE, why.as_str()),
            None if let Some((why, _)) = &self.scan_failure => (StatusCode::FAILURE, why.as_str()),
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
            started_ms: self.wall_ms(self.started_ms),
            slots: self.scheduler.slots(),
            gate: self.gate.describe(),
            tokens_out: self.scheduler.tokens_out(),
            queued: self.queue.len() + self.reports_under_way(),
            ready: lanes().map(Lane::ready).sum(),
            in_flight: lanes().map(Lane::in_flight).sum(),
            deferred: lanes().map(|lane| lane.deferred).sum(),
            held: self.queue.stopped(),
            quarantined: self.queue.quarantined(),
            quarantine: self.quarantine_text(),
            accepted: self.accepted,
            sent: self.sent,
            failed: self.failed,
        }
    }

    /// Reports that are on their way into the queue, often while the message that they are about has left it: nobody shall take a
    /// queue for empty that is not done yet.
    fn reports_under_way(&self) -> u64 {
        let is_report = |pending: &&Pending| {
            let joins = matches!(pending, Pending::Accept(Acceptor::Nobody | Acceptor::Report(_), ..));
            joins || matches!(pending, Pending::Report(..) | Pending::Notice)
        };
        self.pending.values().filter(is_report).count() as u64
    }

    /// A provider's row, and those that it has added.
    pub(super) fn provider_rows(&self, id: ProviderId) -> Option<(ProviderRow, Vec<AddedRow>)> {
        let provider = self.providers.get(&id)?;
        let name = &provider.config.name;
        let added = provider.rows.added().map(|(row, said)| AddedRow {
            provider: name.clone(),
            row: row.to_owned(),
            code: said.code | StatusCode::AVAILABLE.when(!said.code.contains(StatusCode::OFFLINE)),
            text: said.text.clone().unwrap_or_default(),
            progress: said.progress,
            progress_text: said.progress_text.clone(),
        });
        Some((self.provider_row(id, provider), added.collect()))
    }

    fn provider_row(&self, id: ProviderId, provider: &Provider) -> ProviderRow {
        let (life, said) = (&provider.life, provider.rows.own());
        let lane = self.queue.lane_of(id);
        let (cpu_us, overdraft_us) = self.scheduler.cpu_us(id);
        let token = self.scheduler.token_state(id);
        let in_flight = lane.map_or(0, Lane::in_flight);
        let announced = provider.announced.as_ref();
        let (name, kind) = (&provider.config.name, &provider.config.kind);
        ProviderRow {
            name: name.clone(),
            kind: kind.clone(),
            display: format!("{kind} ({name})"),
            code: code(provider, in_flight) | self.flush_bits(id),
            state: life.state(),
            text: self.text(id, provider, in_flight, token),
            progress: said.progress,
            progress_text: said.progress_text.clone(),
            phase: self.flush_phase(id),
            identity: announced.map(|announced| announced.identity.clone()).unwrap_or_default(),
            methods: announced.map_or_else(Methods::default, |announced| announced.methods),
            validate_ok: life.is_ready() && provider.critical.is_none() && !said.validate_refused,
            hasty_words: provider.rows.hasty_words(),
            resource: provider.config.resource.clone(),
            pid: provider.pid,
            generation: life.generation(),
            since_ms: self.wall_ms(life.since_ms()),
            next_start_ms: life.next_start_ms().map(|ms| self.wall_ms(ms)),
            token,
            in_flight,
            ready: lane.map_or(0, Lane::ready),
            deferred: lane.map_or(0, |lane| lane.deferred),
            cpu_ms: cpu_us / 1000,
            overdraft_ms: overdraft_us / 1000,
            overrun: provider.shown_overrun(),
            priority: provider.priority.clone(),
            sandbox: provider.shown_sandbox(),
            critical: provider.critical.as_ref().map(|critical| critical.reason.clone()),
            deaths: life.deaths,
            last_error: life.last_error.clone(),
        }
    }

    fn text(&self, id: ProviderId, provider: &Provider, in_flight: u64, token: TokenState) -> String {
        if let Some(critical) = &provider.critical {
            return match self.waits_for_resource(id) {
                Some(waits) => format!("{waits} for a critical section: {}", critical.reason),
                None => format!("critical section: {}", critical.reason),
            };
        }
        if let Some(why) = provider.why_not_ready(&self.reload) {
            return why;
        }
        if self.flushing.running.get(&id).is_some_and(crate::policy::flush::Flush::is_waiting)
            && let Some(waits) = self.waits_for_resource(id)
        {
            return waits;
        }
        match (&provider.rows.own().text, token) {
            (Some(text), _) => text.clone(),
            (None, TokenState::Runnable) => "waits for a token".to_owned(),
            (None, _) if in_flight > 0 => "delivering".to_owned(),
            (None, _) if let Some(call) = provider.overrun.open_call() => call.doing().to_owned(),
            (None, _) => "idle".to_owned(),
        }
    }
}

impl Provider {
    /// The command that helps, as the end of a sentence; nothing if it is tried again by itself. `reload` is the command that reloads
    /// the configuration.
    pub(super) fn remedy(&self, reload: &str) -> String {
        let name = &self.config.name;
        match self.life.remedy() {
            None => String::new(),
            Some(Remedy::Reload) => format!("; correct it, then run `{reload}`"),
            Some(Remedy::Logon) => format!("; run `spoolctl logon {name}`"),
            Some(Remedy::Restart) => format!("; to try again, run `spoolctl provider restart {name}`"),
        }
    }

    /// What stands in the way of its work, if anything does.
    fn why_not_ready(&self, reload: &str) -> Option<String> {
        if let Some(why) = &self.session.critical_error {
            let name = &self.config.name;
            return Some(format!("cannot go on: {why}; to try again, run `spoolctl provider restart {name}`"));
        }
        let why = self.life.last_error.as_deref();
        let text = match self.life.state() {
            WorkerState::Ready if self.lacks_device => format!("offline: {}", self.why_offline()),
            WorkerState::Ready => return self.shown_trouble().or_else(|| self.shown_lack()),
            WorkerState::Starting => "starting".to_owned(),
            WorkerState::Draining | WorkerState::Stopping if self.life.eviction().is_some() => {
                format!("being stopped: {}", why.unwrap_or("it overran"))
            }
            WorkerState::Draining => "finishing what it has".to_owned(),
            WorkerState::Stopping => "being stopped".to_owned(),
            WorkerState::Paused if !self.config.enabled => "switched off in the configuration".to_owned(),
            WorkerState::Paused => "paused".to_owned(),
            WorkerState::Backoff => why.unwrap_or("its worker died").to_owned(),
            WorkerState::Failed => {
                format!("failed: {}{}", why.unwrap_or("too many failed starts"), self.remedy(reload))
            }
        };
        let lack =
            self.shown_lack().filter(|_| matches!(self.life.state(), WorkerState::Backoff | WorkerState::Failed));
        Some(lack.map_or_else(|| text.clone(), |lack| format!("{lack}; {text}")))
    }

    /// That a reload has brought a provider that needs what is gone for good.
    fn shown_lack(&self) -> Option<String> {
        let lacks = self.config.lacks.as_ref()?;
        Some(format!("needs {lacks}, which the spooler gave up at its start: restart the spooler"))
    }
}

/// The worker's bits, and those that the supervisor knows better.
fn code(provider: &Provider, in_flight: u64) -> StatusCode {
    let own = match provider.life.state() {
        WorkerState::Ready if provider.session.critical_error.is_some() => StatusCode::FAILURE,
        WorkerState::Ready if provider.is_offline() => StatusCode::OFFLINE,
        WorkerState::Ready => StatusCode::AVAILABLE,
        WorkerState::Starting | WorkerState::Draining | WorkerState::Stopping | WorkerState::Paused => {
            StatusCode::OFFLINE
        }
        WorkerState::Backoff | WorkerState::Failed => StatusCode::FAILURE,
    };
    provider.rows.own().code
        | own
        | StatusCode::OFFLINE.when(provider.is_offline())
        | StatusCode::OUTBOUND_ENABLED.when(provider.session.outbound)
        | StatusCode::INBOUND_ENABLED.when(provider.session.inbound)
        | StatusCode::OUTBOUND_ACTIVE.when(in_flight > 0)
}
