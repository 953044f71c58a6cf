//! Working queues off now, at a person's wish: retry times in that scope are ignored, and the providers in it need no slot.

use std::collections::HashSet;

use spooler_protocol::control::{ApiError, FlushCommand, FlushProgress};
use spooler_protocol::ids::MessageId;
use spooler_protocol::status::WorkerState;

use super::Supervisor;
use crate::policy::ProviderId;
use crate::policy::queue::{Part, Standing, Waiting};
use crate::policy::routing::Route;

/// A flush that runs.
#[derive(Debug)]
pub(super) struct Flush {
    provider: Option<ProviderId>,
    waiting: HashSet<(MessageId, ProviderId)>,
    total: u64,
    sent: u64,
    not_sent: u64,
}

impl Supervisor {
    pub(super) fn begin_flush(&mut self, command: &FlushCommand) -> Result<u64, ApiError> {
        let provider = match &command.provider {
            None => None,
            Some(name) => Some(self.provider_named(name)?),
        };
        let due: Vec<(MessageId, Route)> = self.queue.deferred(provider).collect();
        for (id, route) in due {
            self.queue.make_ready(id, Some(route));
        }
        let in_scope = |route: &Route| provider.is_none_or(|wanted| wanted == route.provider);
        let mut waiting = HashSet::new();
        for (id, entry) in self.queue.iter().filter(|(_, entry)| entry.standing == Standing::Active) {
            let now = |part: &&Part| matches!(part.waiting, Waiting::Ready | Waiting::InFlight(_));
            let parts = entry.parts.as_slice().iter().filter(now);
            waiting.extend(parts.filter_map(|part| part.route).filter(in_scope).map(|route| (id, route.provider)));
        }
        let number = self.next_number();
        let total = waiting.len() as u64;
        self.flushes.insert(number, Flush { provider, waiting, total, sent: 0, not_sent: 0 });
        self.touched.extend(self.order.iter().copied());
        self.apply_flushes();
        Ok(number)
    }

    pub(super) fn end_flush(&mut self, number: u64) {
        self.flushes.remove(&number);
        self.apply_flushes();
    }

    /// A delivery ended: flushes that waited for it go on.
    pub(super) fn note_flushed(&mut self, id: MessageId, provider: ProviderId, sent: usize, not_sent: usize) {
        let mut done = false;
        for flush in self.flushes.values_mut() {
            if flush.waiting.remove(&(id, provider)) {
                flush.sent += sent as u64;
                flush.not_sent += not_sent as u64;
                done |= flush.waiting.is_empty();
            }
        }
        if done {
            self.apply_flushes();
        }
    }

    pub(super) fn flush_progress(&mut self, number: u64) -> Option<FlushProgress> {
        // What was deleted or held meanwhile is not waited for.
        let queue = &self.queue;
        let flush = self.flushes.get_mut(&number)?;
        flush.waiting.retain(|(id, _)| queue.get(*id).is_some_and(|entry| entry.standing == Standing::Active));
        let flush = self.flushes.get(&number)?;
        let stuck: Vec<String> = self
            .providers
            .iter()
            .filter(|(id, _)| flush.waiting.iter().any(|(_, waiting)| waiting == *id))
            .filter(|(_, provider)| matches!(provider.life.state(), WorkerState::Barred | WorkerState::Paused))
            .map(|(_, provider)| {
                let why = provider.life.last_error.as_deref().unwrap_or("it is paused");
                format!("provider {} does not run: {why}", provider.config.name)
            })
            .collect();
        let only_stuck = !stuck.is_empty()
            && flush
                .waiting
                .iter()
                .all(|(_, id)| self.providers.get(id).is_none_or(|provider| !provider.life.is_alive()));
        Some(FlushProgress {
            total: flush.total,
            attempted: flush.total - flush.waiting.len() as u64,
            sent: flush.sent,
            not_sent: flush.not_sent,
            done: flush.waiting.is_empty() || only_stuck,
            why: stuck.join("; "),
        })
    }

    /// Whether a flush wants a provider's queue worked off.
    pub(super) fn is_flushing(&self, id: ProviderId) -> bool {
        let in_flush = |flush: &Flush| !flush.waiting.is_empty() && flush.provider.is_none_or(|wanted| wanted == id);
        self.flushes.values().any(in_flush)
    }

    /// Providers in the scope of a running flush need no slot.
    fn apply_flushes(&mut self) {
        for id in &self.order {
            let flushing = self.is_flushing(*id);
            self.scheduler.set_flush(*id, flushing);
        }
        self.tokens_touched = true;
    }
}
