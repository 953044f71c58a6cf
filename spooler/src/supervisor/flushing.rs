//! Working queues off now, as people want it: what they ask for, how far it is, and when it ends.
//!
//! What happens at each provider is in `working_off`; a request only knows which providers are not done with it, and which of the
//! messages that were there when it began were not attempted since. A request that somebody waits for ends when nobody does any more;
//! one that nobody waits for goes on until it is done or stopped.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use spooler_protocol::control::{ApiError, FlushCommand, FlushFailure, FlushProgress};
use spooler_protocol::ids::MessageId;

use super::Supervisor;
use super::event::Action;
use super::recording::Verdict;
use crate::policy::flush::{Asker, Flush, Ways};
use crate::policy::lease::Leases;
use crate::policy::queue::Standing;
use crate::policy::{Now, ProviderId};

/// Flushes that nobody waits for.
const UNWATCHED_MAX: usize = 16;
/// Failures that a request names.
const FAILURES_MAX: usize = 20;

/// Who asked for a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    /// Waits for the end: without it, the flush ends.
    Waits,
    /// Only wants to know that it has begun.
    Looks,
    /// Has left; the flush goes on.
    Left,
}

/// What a person asked for.
#[derive(Debug)]
pub(super) struct Request {
    client: Client,
    /// Providers that are not done with it.
    open: BTreeSet<ProviderId>,
    /// Messages that were there when it began and were not attempted since, by provider.
    left: BTreeMap<ProviderId, HashSet<MessageId>>,
    total: u64,
    sent: u64,
    not_sent: u64,
    received: u64,
    failures: Vec<FlushFailure>,
    /// Why providers were left out.
    remarks: Vec<String>,
}

/// How long a provider is left alone.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rest {
    /// By the spooler itself.
    pub(super) spooler_ms: i64,
    /// When it asks for a flush again.
    pub(super) provider_ms: i64,
}

/// Every flush, and who holds which resource.
#[derive(Debug, Default)]
pub(super) struct Flushing {
    pub(super) requests: BTreeMap<u64, Request>,
    pub(super) running: BTreeMap<ProviderId, Flush>,
    pub(super) leases: Leases,
    /// Providers whose critical section waits for their resource.
    pub(super) sections: BTreeSet<ProviderId>,
    pub(super) rests: BTreeMap<ProviderId, Rest>,
}

impl Flushing {
    /// Whether those for whom a provider's flush runs wait for none of its messages any more. False if somebody wants it to go on until
    /// nothing is left.
    pub(super) fn is_list_done(&self, id: ProviderId) -> bool {
        let Some(flush) = self.running.get(&id) else { return false };
        let mut askers = flush.askers();
        let done = |asker| match asker {
            Asker::Person(number) => {
                self.requests.get(&number).is_none_or(|request| request.left.get(&id).is_none_or(HashSet::is_empty))
            }
            Asker::Provider | Asker::Spooler => false,
        };
        askers.all(done)
    }

    /// Whether a client waits for the end of a provider's flush, and may show how far it is.
    pub(super) fn is_watched(&self, id: ProviderId) -> bool {
        let waits = |number| self.requests.get(&number).is_some_and(|request| request.client == Client::Waits);
        let mut askers = self.running.get(&id).into_iter().flat_map(Flush::askers);
        askers.any(|asker| matches!(asker, Asker::Person(number) if waits(number)))
    }

    /// A provider is done with a request.
    pub(super) fn close(&mut self, number: u64, id: ProviderId, remark: Option<String>) {
        let Some(request) = self.requests.get_mut(&number) else { return };
        request.open.remove(&id);
        request.remarks.extend(remark);
        if request.open.is_empty() && request.client == Client::Left {
            self.requests.remove(&number);
        }
    }

    /// A provider has received a message while its inbound queue is worked off.
    pub(super) fn note_received(&mut self, id: ProviderId) {
        let askers: Vec<Asker> = self.running.get(&id).map(|flush| flush.askers().collect()).unwrap_or_default();
        for asker in askers {
            if let Asker::Person(number) = asker
                && let Some(request) = self.requests.get_mut(&number)
            {
                request.received += 1;
            }
        }
    }

    /// A delivery of a provider and its name ended: requests that waited for it go on.
    pub(super) fn note_sent(&mut self, id: MessageId, (provider, name): (ProviderId, &str), verdict: &Verdict) {
        for request in self.requests.values_mut() {
            if request.left.get_mut(&provider).is_some_and(|left| left.remove(&id)) {
                request.sent += verdict.sent.len() as u64;
                request.not_sent += (verdict.failed.len() + verdict.deferred.len()) as u64;
                let failed = verdict.failed.iter().map(|failed| (failed, true));
                let deferred = verdict.deferred.iter().map(|deferred| (deferred, false));
                let room = FAILURES_MAX.saturating_sub(request.failures.len());
                request.failures.extend(failed.chain(deferred).take(room).map(|((recipient, reply), permanent)| {
                    let (provider, reason) = (name.to_owned(), reply.to_string());
                    FlushFailure { id, recipient: *recipient, provider, permanent, reason }
                }));
            }
        }
    }
}

impl Supervisor {
    /// A person wants queues worked off, or no longer.
    pub(super) fn begin_flush(
        &mut self,
        command: &FlushCommand,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> Result<u64, ApiError> {
        let only = match &command.provider {
            None => None,
            Some(name) => Some(self.provider_named(name)?),
        };
        let asked = Ways { outbound: command.outbound, inbound: command.inbound };
        let ways = if asked.is_none() { Ways::BOTH } else { asked };
        let number = self.next_number();
        let request = if command.stop {
            self.stop_flushes(only, ways, now, actions);
            Request::new(Client::Waits, BTreeMap::new())
        } else {
            self.may_begin_flush(command)?;
            let client = if command.no_wait { Client::Looks } else { Client::Waits };
            Request::new(client, self.waiting_for(only, ways))
        };
        self.flushing.requests.insert(number, request);
        if !command.stop {
            self.ask_for_flush(number, only, ways);
        }
        self.touched.extend(self.order.iter().copied());
        Ok(number)
    }

    fn may_begin_flush(&self, command: &FlushCommand) -> Result<(), ApiError> {
        let refused = |error: &str| Err(ApiError { error: error.to_owned(), temporary: true });
        if self.stopping.is_some() {
            return refused("The spooler is shutting down");
        }
        let unwatched = self.flushing.requests.values().filter(|request| request.client != Client::Waits).count();
        if command.no_wait && unwatched >= UNWATCHED_MAX {
            return refused(
                "Too many flushes are running; wait for one to end, or stop them with `spoolctl flush --stop`",
            );
        }
        Ok(())
    }

    /// Puts a request to every provider in its scope.
    fn ask_for_flush(&mut self, number: u64, only: Option<ProviderId>, ways: Ways) {
        let in_scope: Vec<ProviderId> =
            self.order.iter().copied().filter(|id| only.is_none_or(|only| only == *id)).collect();
        for id in in_scope {
            let Some(request) = self.flushing.requests.get_mut(&number) else { return };
            // Of those that do not run only what waits for them matters, unless one is named.
            let down = self.providers.get(&id).is_none_or(|provider| provider.why_down().is_some());
            if down && only.is_none() && !request.left.contains_key(&id) {
                continue;
            }
            request.open.insert(id);
            let asker = Asker::Person(number);
            self.flushing
                .running
                .entry(id)
                .and_modify(|flush| flush.join(asker, ways))
                .or_insert_with(|| Flush::new(asker, ways));
        }
    }

    /// Everything that waits for providers in a scope now, retry times or not.
    fn waiting_for(&self, only: Option<ProviderId>, ways: Ways) -> BTreeMap<ProviderId, HashSet<MessageId>> {
        let mut waiting: BTreeMap<ProviderId, HashSet<MessageId>> = BTreeMap::new();
        if !ways.outbound {
            return waiting;
        }
        for (id, entry) in self.queue.iter().filter(|(_, entry)| entry.standing == Standing::Active) {
            let providers = entry.parts.as_slice().iter().filter_map(|part| Some(part.route?.provider));
            for provider in providers.filter(|provider| only.is_none_or(|only| only == *provider)) {
                waiting.entry(provider).or_default().insert(id);
            }
        }
        waiting
    }

    /// A client has left. If it was to wait for its flush, the flush ends.
    pub(super) fn end_flush(&mut self, number: u64, now: Now, actions: &mut Vec<Action>) {
        let Some(request) = self.flushing.requests.get_mut(&number) else { return };
        if request.client != Client::Waits && !request.open.is_empty() {
            request.client = Client::Left;
            return;
        }
        let open = std::mem::take(&mut request.open);
        self.flushing.requests.remove(&number);
        for id in open {
            let Some(view) = self.flush_view(id, now) else { continue };
            let Some(flush) = self.flushing.running.get_mut(&id) else { continue };
            let steps = flush.leave(Asker::Person(number), view);
            self.take_flush_steps(id, steps, now, actions);
        }
    }

    /// How far a request is.
    pub(super) fn flush_progress(&mut self, number: u64) -> Option<FlushProgress> {
        let queue = &self.queue;
        let request = self.flushing.requests.get_mut(&number)?;
        // What was deleted, held, or went another way meanwhile is not waited for.
        for (provider, left) in &mut request.left {
            left.retain(|id| {
                queue.get(*id).filter(|entry| entry.standing == Standing::Active).is_some_and(|entry| {
                    entry.parts.as_slice().iter().any(|part| part.route.is_some_and(|way| way.provider == *provider))
                })
            });
        }
        let request = self.flushing.requests.get(&number)?;
        let left: u64 = request.left.values().map(|left| left.len() as u64).sum();
        let mut why = request.remarks.clone();
        why.extend(request.open.iter().filter_map(|id| self.why_flush_waits(*id)));
        Some(FlushProgress {
            total: request.total,
            attempted: request.total - left,
            sent: request.sent,
            not_sent: request.not_sent,
            received: request.received,
            done: request.open.is_empty(),
            why: why.join("; "),
            failures: request.failures.clone(),
        })
    }
}

impl Request {
    fn new(client: Client, left: BTreeMap<ProviderId, HashSet<MessageId>>) -> Self {
        let total = left.values().map(|left| left.len() as u64).sum();
        Self {
            client,
            open: BTreeSet::new(),
            left,
            total,
            sent: 0,
            not_sent: 0,
            received: 0,
            failures: Vec::new(),
            remarks: Vec::new(),
        }
    }
}
