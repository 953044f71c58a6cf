//! Listening providers are told what is served, so that they can refuse a recipient that nobody serves.

use spooler_protocol::claims::Claims;
use spooler_protocol::to_worker::ToWorker;

use super::Supervisor;
use super::event::Action;
use crate::policy::addressing::rewrite::Role;

/// Bytes of the names of aliases that every listening provider is told.
const NAMES_BYTES_MAX: usize = 64 * 1024;

impl Supervisor {
    /// What is served, and which addresses only the supervisor can judge: those that may be aliases, and all if recipients are rewritten.
    pub(super) fn claims(&self) -> Claims {
        let mut claims = self.routing.claims();
        let addressing = &self.config.addressing;
        claims.local.origin.clone_from(&addressing.origin);
        claims.incomplete |= addressing.rewrite.concerns(Role::Recipient);
        if !addressing.aliases.is_empty() {
            claims.local.domains = addressing.local_domains().map(str::to_owned).collect();
            claims.local.aliases = addressing.aliases.names(NAMES_BYTES_MAX);
        }
        claims
    }

    /// Tells every provider that listens.
    pub(super) fn tell_claims(&mut self, actions: &mut Vec<Action>) {
        let claims = self.claims();
        let listens =
            |id| self.providers.get(id).is_some_and(|provider| provider.config.interactive && provider.life.is_ready());
        let listeners: Vec<_> = self.order.iter().filter(|id| listens(id)).copied().collect();
        for id in listeners {
            self.say(id, ToWorker::Claims(claims.clone()), actions);
        }
    }
}
