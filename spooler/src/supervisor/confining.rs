//! The sandboxes of workers: what is wished of each, what came of it, and what is shown of that.

use spooler_protocol::confinement::{Confined, Confinement};
use spooler_protocol::control::{ApiError, ProviderDetail};
use spooler_protocol::status::WorkerState;

use super::event::{Action, Loudness, WorkerId};
use super::{Provider, Supervisor, log};
use crate::config::Provider as Configured;
use crate::policy::status_table::capped;

/// Needs that are taken from one worker.
const NEEDS_MAX: usize = 40;
/// What the row says of a sandbox that is switched off.
const SWITCHED_OFF: &str = "none: switched off in the configuration";

/// The sandbox of a provider's present worker, or of its last one.
#[derive(Debug, Default)]
pub(super) struct Sandbox {
    closed: Option<Confined>,
    /// The level that was logged last.
    logged: String,
}

impl Sandbox {
    /// A new worker has not closed it yet.
    pub(super) fn open(&mut self) {
        self.closed = None;
    }
}

impl Supervisor {
    /// What the worker of a provider is told of its sandbox.
    pub(super) fn confinement(&self, provider: &Configured) -> Option<Confinement> {
        let sandbox = provider.sandbox.clone()?;
        let spool = &self.config.spool;
        let own = [&spool.path, &spool.pickup, &self.config.control.socket, &self.config.source];
        let secrets = self.config.providers.iter().flat_map(|provider| &provider.secret_files);
        let hidden = own.into_iter().chain(secrets);
        Some(Confinement {
            run_as: sandbox.run_as,
            own_uids: sandbox.own_uids.to_vec(),
            may_read: sandbox.may_read,
            may_write: sandbox.may_write,
            hidden: hidden.map(|path| path.display().to_string()).collect(),
            memory_bytes_max: sandbox.memory_bytes_max,
            descriptors_max: sandbox.descriptors_max,
            processes_max: sandbox.processes_max,
            file_bytes_max: sandbox.file_bytes_max,
            cpu_s_max: sandbox.cpu_max.map(|cpu| cpu.as_secs()),
        })
    }

    /// A worker has closed its sandbox. Said once, before provider code runs: what is said later is gossip.
    pub(super) fn on_confined(&mut self, worker: WorkerId, said: Confined, actions: &mut Vec<Action>) {
        let Some(provider) = self.providers.get_mut(&worker.provider) else { return };
        let expected = provider.life.state() == WorkerState::Starting && provider.config.sandbox.is_some();
        if !expected || provider.sandbox.closed.is_some() {
            return;
        }
        let level = capped(said.level);
        let needs = said.needs.into_iter().take(NEEDS_MAX).map(|(what, much)| (capped(what), capped(much))).collect();
        if level != provider.sandbox.logged {
            log(actions, Loudness::Info, format!("provider {}: sandbox: {level}", provider.config.name));
            provider.sandbox.logged.clone_from(&level);
        }
        provider.sandbox.closed = Some(Confined { level, took_us: said.took_us, needs });
    }

    /// Everything about one provider.
    pub(super) fn provider_detail(&self, name: &str) -> Result<ProviderDetail, ApiError> {
        let found = self.order.iter().find_map(|id| {
            let provider = self.providers.get(id).filter(|provider| provider.config.name == name)?;
            let (row, _) = self.provider_rows(*id)?;
            let closed = provider.sandbox.closed.clone().unwrap_or_default();
            Some(ProviderDetail { row, needs: closed.needs, closing_us: closed.took_us })
        });
        found.ok_or_else(|| ApiError { error: format!("There is no provider {name:?}"), temporary: false })
    }
}

impl Provider {
    /// What the row says of the sandbox.
    pub(super) fn shown_sandbox(&self) -> String {
        match (&self.config.sandbox, &self.sandbox.closed) {
            (None, _) => SWITCHED_OFF.to_owned(),
            (Some(_), Some(confined)) => confined.level.clone(),
            (Some(_), None) => String::new(),
        }
    }
}
