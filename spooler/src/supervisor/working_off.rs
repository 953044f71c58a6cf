//! Flushes at each provider: what `policy::flush` wants done, and who may use which resource meanwhile.
//!
//! Providers are flushed side by side. Those that share a resource take turns, in the order of the configuration: a resource is leased
//! for one flush or one critical section at a time. A provider with a resource gets deliveries, and is asked for messages, only while it
//! has its lease; if something waits for it, the spooler begins a flush by itself, in the background. Whoever holds a resource for long
//! while others wait hands it over when what is under way is done.

use spooler_protocol::calls::CallError;
use spooler_protocol::ids::MessageId;
use spooler_protocol::notification::Notification;
use spooler_protocol::status::{StatusCode, TokenState, WorkerState};
use spooler_protocol::to_worker::ToWorker;

use super::event::{Action, Loudness, WorkerId};
use super::{Provider, Supervisor, log};
use crate::policy::flush::{Asker, Flush, Step, View, Ways};
use crate::policy::overrun::Call;
use crate::policy::routing::Route;
use crate::policy::{Now, ProviderId};

/// A resource is handed over after so long if others wait for it.
const SHARE_MS: i64 = 60_000;
/// A provider that did not want to be flushed is left alone for so long, if nobody but the spooler wants it.
const REST_MS: i64 = 60_000;
/// Between two flushes that a provider begins itself.
const OWN_PAUSE_MS: i64 = 1000;

impl Provider {
    /// Why it cannot be flushed before somebody does something about it.
    pub(super) fn why_down(&self) -> Option<String> {
        let name = &self.config.name;
        if let Some(why) = &self.session.critical_error {
            return Some(format!("provider {name} cannot go on: {why}; validate or restart it"));
        }
        match self.life.state() {
            WorkerState::Failed => {
                let why = self.life.last_error.as_deref().unwrap_or("too many failed starts");
                Some(format!("provider {name} does not run: {why}"))
            }
            WorkerState::Paused if !self.config.enabled => Some(format!("provider {name} is switched off")),
            WorkerState::Paused => Some(format!("provider {name} does not run: it is paused")),
            _ if self.removed => Some(format!("provider {name} is not configured any more")),
            _ if self.lacks_device => Some(format!("provider {name} is offline: {}", self.why_offline())),
            WorkerState::Starting
            | WorkerState::Ready
            | WorkerState::Draining
            | WorkerState::Stopping
            | WorkerState::Backoff => None,
        }
    }
}

impl Supervisor {
    /// Takes every flush as far as it can go now. True if something may have become possible by that.
    pub(super) fn advance_flushes(&mut self, now: Now, actions: &mut Vec<Action>) -> bool {
        if self.flushing.running.is_empty() && self.flushing.sections.is_empty() {
            return false;
        }
        self.note_flushes();
        let mut moved = self.begin_sections(now, actions);
        // In the order of the configuration: so they get in line for a resource.
        let mut ids: Vec<ProviderId> = self.order.clone();
        ids.extend(self.flushing.running.keys().filter(|id| !self.order.contains(id)));
        for id in ids {
            moved |= self.advance_flush(id, now, actions);
        }
        moved
    }

    fn advance_flush(&mut self, id: ProviderId, now: Now, actions: &mut Vec<Action>) -> bool {
        if !self.flushing.running.contains_key(&id) {
            return false;
        }
        let down = self.providers.get(&id).map_or(Some("the provider is gone".to_owned()), Provider::why_down);
        let drained = self.is_drained(id, now);
        let busy = self.is_busy(id);
        let more = self.queue.lane_of(id).is_some_and(|lane| lane.ready() > 0) && self.is_share_over(id, now);
        let can_start = self.can_start(id, now);
        let (can_be_asked, watched) = (self.can_be_asked(id), self.flushing.is_watched(id));
        let Some(view) = self.flush_view(id, now) else { return false };
        let Some(flush) = self.flushing.running.get_mut(&id) else { return false };
        let steps = match down {
            Some(why) if flush.is_waiting() || !busy => flush.fail(why),
            _ if flush.is_waiting() && can_start => flush.start(can_be_asked, watched, view),
            _ if flush.is_outbound() && drained && more => flush.hand_over(view),
            _ if flush.is_outbound() && drained => flush.on_drained(view),
            _ => return false,
        };
        self.take_flush_steps(id, steps, now, actions);
        true
    }

    /// Whether a flush that waits can begin; gets it in line for its resource.
    fn can_start(&mut self, id: ProviderId, now: Now) -> bool {
        let (Some(provider), Some(flush)) = (self.providers.get(&id), self.flushing.running.get(&id)) else {
            return false;
        };
        if !flush.is_waiting() || !provider.may_be_called() || self.stopping.is_some() || !self.machine.is_awake() {
            return false;
        }
        let rest = self.flushing.rests.get(&id).copied().unwrap_or_default();
        if flush.askers().all(|asker| asker == Asker::Provider) && now.mono_ms < rest.provider_ms {
            return false;
        }
        match &provider.config.resource {
            None => true,
            Some(resource) => self.flushing.leases.ask(resource, id, now.mono_ms),
        }
    }

    fn can_be_asked(&self, id: ProviderId) -> bool {
        let announced = self.providers.get(&id).and_then(|provider| provider.announced.as_ref());
        announced.is_some_and(|said| said.methods.contains(spooler_protocol::calls::Methods::FLUSH_QUEUES))
    }

    /// Whether it has something under way, out or in.
    fn is_busy(&self, id: ProviderId) -> bool {
        let receives = self.providers.get(&id).is_some_and(|provider| provider.session.receiving.is_starting());
        receives || self.has_flights(id)
    }

    /// Whether nothing is left of what the outbound flush of a provider is to send.
    fn is_drained(&self, id: ProviderId, now: Now) -> bool {
        let (Some(provider), Some(flush)) = (self.providers.get(&id), self.flushing.running.get(&id)) else {
            return false;
        };
        if !flush.is_outbound() {
            return false;
        }
        let (ready, in_flight) = self.queue.lane_of(id).map_or((0, 0), |lane| (lane.ready(), lane.in_flight()));
        let sends = provider.announced.as_ref().is_some_and(|said| said.credit > 0);
        let cannot_go_on = !sends || provider.is_offline() && !flush.is_urgent() || self.is_share_over(id, now);
        if in_flight == 0 && (ready == 0 || cannot_go_on) {
            return true;
        }
        // Where mail comes in all the time, the queue may never be empty; where others wait, all hands must be.
        provider.config.resource.is_none() && self.flushing.is_list_done(id)
    }

    /// Whether others have waited long enough for what a provider holds.
    fn is_share_over(&self, id: ProviderId, now: Now) -> bool {
        self.flushing.leases.wanted_since_ms(id).is_some_and(|since_ms| now.mono_ms - since_ms >= SHARE_MS)
    }

    /// Whether a provider may get deliveries: it needs no resource, or works off its queue with it. If something waits for one that has
    /// to get its resource first, the spooler begins a flush by itself.
    pub(super) fn holds_what_it_needs(&mut self, id: ProviderId, now: Now) -> bool {
        if self.providers.get(&id).is_none_or(|provider| provider.config.resource.is_none()) {
            return true;
        }
        if self.flushing.running.get(&id).is_some_and(Flush::is_outbound) {
            return !self.is_share_over(id, now);
        }
        if self.queue.lane_of(id).is_some_and(|lane| lane.ready() > 0) {
            self.attend(id, Ways::OUTBOUND, now);
        }
        false
    }

    /// Something waits for a provider that works only while it holds its resource: it is flushed in the background.
    pub(super) fn attend(&mut self, id: ProviderId, ways: Ways, now: Now) {
        let rest = self.flushing.rests.get(&id).copied().unwrap_or_default();
        match self.flushing.running.get_mut(&id) {
            Some(flush) if flush.covers(ways) => {}
            Some(flush) => flush.join(Asker::Spooler, ways),
            None if now.mono_ms < rest.spooler_ms => {}
            None => drop(self.flushing.running.insert(id, Flush::new(Asker::Spooler, ways))),
        }
    }

    pub(super) fn flush_view(&self, id: ProviderId, now: Now) -> Option<View> {
        let provider = self.providers.get(&id)?;
        let bits = Ways::of(provider.rows.own().code);
        Some(View { bits, has_resource: provider.config.resource.is_some(), now_ms: now.mono_ms })
    }

    /// Does what a flush wants done.
    pub(super) fn take_flush_steps(&mut self, id: ProviderId, steps: Vec<Step>, now: Now, actions: &mut Vec<Action>) {
        for step in steps {
            match step {
                Step::Call(flags) => {
                    self.note_call(id, Call::Flush, now);
                    self.say(id, ToWorker::FlushQueues(flags), actions);
                }
                Step::BeginOutbound => {
                    self.say(id, ToWorker::Notify(Notification::BeginOutboundFlush), actions);
                    self.make_all_ready(id);
                }
                Step::EndOutbound => self.end_way(id, Ways::OUTBOUND, actions),
                // Whoever is touched is asked.
                Step::BeginInbound => self.say(id, ToWorker::Notify(Notification::BeginInboundFlush), actions),
                Step::EndInbound => self.end_way(id, Ways::INBOUND, actions),
                Step::Over(askers, why) => self.flush_is_over(id, &askers, why.as_deref(), now, actions),
                Step::HandOver => self.release_resource(id),
            }
        }
        let urgent = self.flushing.running.get(&id).is_some_and(|flush| !flush.is_waiting() && flush.is_urgent());
        self.scheduler.set_flush(id, urgent);
        self.tokens_touched = true;
        self.touched.insert(id);
    }

    /// What waits for a later attempt through a provider is tried now.
    fn make_all_ready(&mut self, id: ProviderId) {
        let due: Vec<(MessageId, Route)> = self.queue.deferred(Some(id)).collect();
        for (message, route) in due {
            self.queue.make_ready(message, Some(route));
        }
    }

    /// One way of a flush is over. A provider that holds nothing which others need has no more to do with it: its bit is cleared for it.
    fn end_way(&mut self, id: ProviderId, ways: Ways, actions: &mut Vec<Action>) {
        let over = if ways.outbound { Notification::EndOutboundFlush } else { Notification::EndInboundFlush };
        let may_be_told = self.providers.get(&id).is_some_and(|provider| provider.session.critical_error.is_none());
        if may_be_told {
            self.say(id, ToWorker::Notify(over), actions);
        }
        if let Some(provider) = self.providers.get_mut(&id).filter(|provider| provider.config.resource.is_none()) {
            provider.rows.clear(ways.bits());
        }
    }

    fn flush_is_over(
        &mut self,
        id: ProviderId,
        askers: &[Asker],
        why: Option<&str>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let name = self.name(id).to_owned();
        let named = format!("provider {name} ");
        let remark =
            why.map(|why| if why.starts_with(&named) { why.to_owned() } else { format!("provider {name}: {why}") });
        for asker in askers {
            match asker {
                Asker::Person(number) => self.flushing.close(*number, id, remark.clone()),
                Asker::Provider => self.flushing.rests.entry(id).or_default().provider_ms = now.mono_ms + OWN_PAUSE_MS,
                Asker::Spooler if why.is_some() => {
                    self.flushing.rests.entry(id).or_default().spooler_ms = now.mono_ms + REST_MS;
                }
                Asker::Spooler => {}
            }
        }
        if let Some(remark) = &remark {
            log(actions, Loudness::Info, format!("flush ended early: {remark}"));
        }
        if self.flushing.running.get(&id).is_none_or(Flush::is_over) {
            self.flushing.running.remove(&id);
            if let Some(provider) = self.providers.get_mut(&id) {
                provider.rows.clear(Ways::BOTH.bits());
            }
        }
        self.release_resource(id);
    }

    /// A provider has no more use for its resource, unless a flush or a critical section goes on with it, or something is under way
    /// that a flush began.
    pub(super) fn release_resource(&mut self, id: ProviderId) {
        let in_section = self.providers.get(&id).is_some_and(|provider| provider.critical.is_some());
        let in_flush = self.flushing.running.get(&id).is_some_and(|flush| !flush.is_waiting());
        if !in_section && !in_flush && !self.is_busy(id) {
            self.touched.extend(self.flushing.leases.release(id));
        }
    }

    /// What was still under way when a flush ended is over. A worker that is about to go lets its resource go with it.
    pub(super) fn release_what_is_left(&mut self, id: ProviderId) {
        let ready = self.providers.get(&id).is_some_and(|provider| provider.life.is_ready());
        if ready && self.flushing.leases.is_held_by(id) {
            self.release_resource(id);
        }
    }

    /// The flush bits of a provider's row have changed: bits are commands.
    pub(super) fn on_flush_bits(&mut self, id: ProviderId, risen: Ways, now: Now, actions: &mut Vec<Action>) {
        let Some(view) = self.flush_view(id, now) else { return };
        let Some(flush) = self.flushing.running.get_mut(&id) else {
            if !risen.is_none() {
                self.flushing.running.insert(id, Flush::new(Asker::Provider, risen));
            }
            return;
        };
        let steps = flush.on_bits(risen, view);
        self.take_flush_steps(id, steps, now, actions);
    }

    /// A provider has said whether it can be flushed.
    pub(super) fn on_flush_answered(
        &mut self,
        worker: WorkerId,
        answer: Result<(), CallError>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let id = worker.provider;
        // The bits that it set before it answered count, however fast they came.
        self.settle_rows(id, now, actions);
        let Some(view) = self.flush_view(id, now) else { return };
        let Some(flush) = self.flushing.running.get_mut(&id) else { return };
        let steps = flush.on_answer(answer, view);
        self.take_flush_steps(id, steps, now, actions);
    }

    /// Everything that waited for a provider is received; or more may wait, but so do others.
    pub(super) fn on_all_received(&mut self, id: ProviderId, more: bool, now: Now, actions: &mut Vec<Action>) {
        let Some(view) = self.flush_view(id, now) else { return };
        let Some(flush) = self.flushing.running.get_mut(&id) else { return };
        let steps = if more { flush.hand_over(view) } else { flush.on_received(view) };
        self.take_flush_steps(id, steps, now, actions);
    }

    /// Whether one more message is to be received in the flush that runs.
    pub(super) fn may_receive_more(&self, id: ProviderId, now: Now) -> bool {
        self.flushing.running.get(&id).is_some_and(Flush::is_inbound) && !self.is_share_over(id, now)
    }

    /// Time has passed.
    pub(super) fn tick_flushes(&mut self, now: Now, actions: &mut Vec<Action>) {
        let ids: Vec<ProviderId> = self.flushing.running.keys().copied().collect();
        for id in ids {
            let Some(view) = self.flush_view(id, now) else { continue };
            let no_token = self.scheduler.token_state(id) == TokenState::Runnable;
            let Some(flush) = self.flushing.running.get_mut(&id) else { continue };
            if no_token {
                flush.be_patient(now.mono_ms);
            }
            let steps = flush.on_tick(view);
            if !steps.is_empty() {
                self.take_flush_steps(id, steps, now, actions);
            }
        }
        self.flushing.rests.retain(|_, rest| rest.spooler_ms.max(rest.provider_ms) > now.mono_ms);
    }

    /// When a flush has something to do by itself.
    pub(super) fn next_flush_ms(&self) -> Option<i64> {
        let flushing = &self.flushing;
        let phases = flushing.running.values().filter_map(Flush::deadline_ms);
        let rests = flushing.rests.values().flat_map(|rest| [rest.spooler_ms, rest.provider_ms]);
        let shares = flushing.running.keys().filter_map(|id| Some(flushing.leases.wanted_since_ms(*id)? + SHARE_MS));
        phases.chain(rests.chain(shares).filter(|at_ms| *at_ms > self.ticked_ms)).min()
    }

    /// These ways are not to be flushed any more, whoever asked. A message that is being received for it stays where it is.
    pub(super) fn stop_flushes(&mut self, only: Option<ProviderId>, ways: Ways, now: Now, actions: &mut Vec<Action>) {
        let ids: Vec<ProviderId> =
            self.flushing.running.keys().copied().filter(|id| only.is_none_or(|only| only == *id)).collect();
        for id in ids {
            let Some(view) = self.flush_view(id, now) else { continue };
            if ways.inbound && self.flushing.running.get(&id).is_some_and(Flush::is_inbound) {
                self.cancel_receipt(id, actions);
            }
            let Some(flush) = self.flushing.running.get_mut(&id) else { continue };
            let steps = flush.stop(ways, view);
            self.take_flush_steps(id, steps, now, actions);
        }
    }

    /// A worker is about to be asked to go: it is told first that its flush is over.
    pub(super) fn say_farewell(&mut self, id: ProviderId, actions: &mut Vec<Action>) {
        let steps = self.flushing.running.get(&id).map(Flush::farewell).unwrap_or_default();
        for step in steps {
            self.end_way(id, if step == Step::EndOutbound { Ways::OUTBOUND } else { Ways::INBOUND }, actions);
        }
        self.forget_flush(id);
    }

    /// A worker is gone, or as good as gone: its resource is free, and what people want waits for the next worker.
    pub(super) fn forget_flush(&mut self, id: ProviderId) {
        if let Some(flush) = self.flushing.running.get_mut(&id) {
            flush.on_gone();
            if flush.is_over() {
                self.flushing.running.remove(&id);
            }
        }
        self.scheduler.set_flush(id, false);
    }

    /// What a provider waits for before it can be flushed.
    pub(super) fn why_flush_waits(&self, id: ProviderId) -> Option<String> {
        self.flushing.running.get(&id).filter(|flush| flush.is_waiting())?;
        let (name, waits) = (self.name(id), self.waits_for_resource(id)?);
        Some(format!("provider {name} {waits}"))
    }

    /// `waits for modem0 (held by fax1)`
    pub(super) fn waits_for_resource(&self, id: ProviderId) -> Option<String> {
        let resource = self.providers.get(&id)?.config.resource.as_ref()?;
        let holder = self.flushing.leases.holder(resource).filter(|holder| *holder != id)?;
        Some(format!("waits for {resource} (held by {})", self.name(holder)))
    }

    /// The flush of a provider in its row.
    pub(super) fn flush_phase(&self, id: ProviderId) -> Option<String> {
        let flush = self.flushing.running.get(&id)?;
        let what = if flush.is_urgent() { "flush" } else { "background flush" };
        if flush.is_waiting()
            && let Some(waits) = self.waits_for_resource(id)
        {
            return Some(format!("{what}: {waits}"));
        }
        if flush.is_outbound() {
            let left = self.queue.lane_of(id).map_or(0, |lane| lane.ready() + lane.in_flight());
            return Some(format!("{what}: outbound, {left} to go"));
        }
        Some(format!("{what}: {}", flush.words()))
    }

    /// The flush bits that follow from what the supervisor does.
    pub(super) fn flush_bits(&self, id: ProviderId) -> StatusCode {
        let flush = self.flushing.running.get(&id);
        Ways { outbound: flush.is_some_and(Flush::is_outbound), inbound: flush.is_some_and(Flush::is_inbound) }.bits()
    }

    /// Whether a person, or the provider itself, wants a provider's outbound queue worked off.
    pub(super) fn is_flushing(&self, id: ProviderId) -> bool {
        self.flushing.running.get(&id).is_some_and(|flush| flush.is_outbound() && flush.is_urgent())
    }
}
