//! Clients ask and command.

use spooler_protocol::control::{
    ApiError, MessageState, MessageSummary, ProviderAction, ProviderCommand, QueueAction, QueueDone,
};
use spooler_protocol::history::End;
use spooler_protocol::ids::MessageId;
use spooler_protocol::notification::Notification;
use spooler_protocol::status::WorkerState;
use spooler_protocol::to_worker::ToWorker;

use super::accepting::HandedIn;
use super::event::{Action, Answer, Ask, AskId, WorkerId};
use super::mail::{self, log_change};
use super::{Acceptor, Pending, Scan, Supervisor};
use crate::policy::queue::{Entry, Part, Standing, Waiting};
use crate::policy::retry::ms;
use crate::policy::routing::Route;
use crate::policy::{Now, ProviderId};
use crate::record::Change;

impl Supervisor {
    pub(super) fn on_asked(&mut self, ask_id: AskId, ask: Ask, now: Now, actions: &mut Vec<Action>) {
        let answer = match ask {
            Ask::Submit { envelope, submission, origin, owner_uid, content } => {
                let client = format!("uid:{owner_uid}");
                let owner_uid = Some(owner_uid);
                let handed_in = HandedIn { envelope, submission, client, content, origin, owner_uid };
                self.accept(Acceptor::Client(ask_id), handed_in, now, actions);
                return;
            }
            Ask::Queue(action, ids, uid) => {
                self.command(ask_id, (action, uid), &ids, actions);
                return;
            }
            Ask::Status => Answer::Status(Box::new(self.status_table(now))),
            Ask::Overlay(summaries, provider) => Answer::Overlay(self.overlay(summaries, provider.as_deref(), now)),
            Ask::FlushBegin(command) => Answer::Flush(self.begin_flush(&command, now, actions)),
            Ask::FlushProgress(number) => Answer::FlushProgress(self.flush_progress(number)),
            Ask::FlushEnd(number) => {
                self.end_flush(number, now, actions);
                return;
            }
            Ask::Provider(name, ProviderCommand { action: ProviderAction::Validate, flags }) => {
                self.validate(ask_id, Some(&name), flags, now, actions);
                return;
            }
            Ask::ValidateAll(flags) => {
                self.validate(ask_id, None, flags, now, actions);
                return;
            }
            Ask::ProviderDetail(name) => Answer::ProviderDetail(Box::new(self.provider_detail(&name))),
            Ask::Logon(name, command) => {
                self.log_on(ask_id, &name, command, now, actions);
                return;
            }
            Ask::Provider(name, command) => {
                Answer::Provider(self.command_provider(&name, command.action, now, actions))
            }
        };
        actions.push(Action::Answer(ask_id, answer));
    }

    /// Does something to messages; answered when it is on disk.
    fn command(
        &mut self,
        ask_id: AskId,
        (action, uid): (QueueAction, u32),
        ids: &[MessageId],
        actions: &mut Vec<Action>,
    ) {
        if let Err(refused) = self.check_disk() {
            actions.push(Action::Answer(ask_id, Answer::Queue(Err(refused))));
            return;
        }
        let mut done = QueueDone::default();
        let mut unit = Vec::new();
        for id in ids {
            match self.command_one((action, uid), *id, actions) {
                Ok(change) => {
                    done.done += 1;
                    done.ids.push(*id);
                    if let Some(logged) = logged(action) {
                        log_change(*id, logged, Some(uid), "", actions);
                    }
                    unit.extend(change);
                }
                Err(why) => done.refused.push(format!("{id}: {why}")),
            }
        }
        self.touched.extend(self.order.iter().copied());
        if unit.is_empty() {
            actions.push(Action::Answer(ask_id, Answer::Queue(Ok(done))));
        } else {
            self.commit(unit, Pending::Command(ask_id, done), actions);
        }
    }

    fn command_one(
        &mut self,
        (action, uid): (QueueAction, u32),
        id: MessageId,
        actions: &mut Vec<Action>,
    ) -> Result<Option<Change>, &'static str> {
        let entry = self.queue.get(id).ok_or(if self.scan == Scan::Done {
            "there is no such message"
        } else {
            "the queue is still being read; try again in a moment"
        })?;
        let (in_flight, standing) = (entry.is_in_flight(), entry.standing);
        let state = |state, why: &str| Some(Change::State { id, state, why: why.to_owned() });
        match (action, standing) {
            (QueueAction::Hold, Standing::Held) => Err("is held already"),
            (QueueAction::Hold, _) if in_flight => Err("is in flight; try again in a moment, or cancel it"),
            (QueueAction::Hold, Standing::Active | Standing::Quarantined) => {
                self.queue.change(id, |entry| entry.standing = Standing::Held);
                Ok(state(MessageState::Held, "held by an administrator"))
            }
            (QueueAction::Release, Standing::Active) => Err("is neither held nor quarantined"),
            (QueueAction::Release, Standing::Held | Standing::Quarantined) => {
                if entry.parts.as_slice().is_empty() {
                    return Err("is damaged and can only be deleted");
                }
                let delay_reported = entry.delay_reported;
                self.queue.change(id, |entry| {
                    entry.standing = Standing::Active;
                    entry.deaths = 0;
                    entry.free(None);
                });
                self.make_due(id);
                let marks = Change::Marks { id, deaths: 0, delay_reported, death: None };
                self.keep(vec![marks], actions);
                Ok(state(MessageState::Ready, ""))
            }
            (QueueAction::Retry, Standing::Active) => {
                self.make_due(id);
                self.try_offline(id);
                Ok(None)
            }
            (QueueAction::Retry, Standing::Held | Standing::Quarantined) => Err("is held or quarantined; release it"),
            (QueueAction::Delete, _) if in_flight => Err("is in flight; try again in a moment, or cancel it"),
            (QueueAction::Cancel, _) if in_flight => {
                self.abort_all_deferred(id, actions);
                self.cancel_flights(id, actions);
                Ok(None)
            }
            (QueueAction::Delete | QueueAction::Cancel, _) => {
                self.abort_all_deferred(id, actions);
                self.queue.remove(id);
                let end = if action == QueueAction::Delete { End::Deleted } else { End::Cancelled };
                Ok(Some(self.remove_by_hand(id, end, Some(uid))))
            }
        }
    }

    /// A message is offered once to providers that are offline, too. One whose device is missing stays as it is, and so does one that
    /// makes no connections: only a person has it connect.
    fn try_offline(&mut self, id: MessageId) {
        let Some(entry) = self.queue.get(id) else { return };
        for route in entry.parts.as_slice().iter().filter_map(|part| part.route) {
            if let Some(provider) = self.providers.get_mut(&route.provider)
                && provider.is_offline()
                && !provider.lacks_device
                && !provider.no_connect
            {
                provider.retried.insert(id);
            }
        }
    }

    /// Makes everything of a message ready that waits for a later time, or for its provider to ask for it: that one may say that it
    /// does not want it.
    fn make_due(&mut self, id: MessageId) {
        let providers = &self.providers;
        let generation = |route: Route| providers.get(&route.provider).map(|provider| provider.life.generation());
        self.queue.change(id, |entry| {
            for part in entry.parts.as_mut_slice() {
                match (part.waiting, part.route.and_then(generation)) {
                    (Waiting::Deferred { .. }, _) => part.waiting = Waiting::Ready,
                    (Waiting::Callback, asked_by) => {
                        part.waiting = Waiting::Ready;
                        part.again.asked_by = asked_by;
                    }
                    (Waiting::Ready | Waiting::InFlight(_), _) => {}
                }
            }
        });
    }

    fn cancel_flights(&mut self, id: MessageId, actions: &mut Vec<Action>) {
        for (delivery, flight) in self.flights.iter_mut().filter(|(_, flight)| flight.id == id) {
            flight.given_up = true;
            let notification = Notification::CancelMessage(*delivery);
            actions.push(Action::Send(flight.worker, ToWorker::Notify(notification)));
        }
        // What waits for later goes with it; what is in flight leaves when its delivery ends.
        self.queue.change(id, |entry| entry.parts.retain(|part| matches!(part.waiting, Waiting::InFlight(_))));
    }

    /// State and reason of messages as the schedule sees them; those that have gone meanwhile, or go through other providers than the
    /// one that is named, are left out.
    fn overlay(&self, summaries: Vec<MessageSummary>, provider: Option<&str>, now: Now) -> Vec<MessageSummary> {
        let reading = self.scan != Scan::Done;
        let goes_through = |entry: &Entry, name: &str| {
            let mut routes = entry.parts.as_slice().iter().filter_map(|part| part.route);
            routes.any(|route| self.name(route.provider) == name)
        };
        let known = |mut summary: MessageSummary| match self.queue.get(summary.id) {
            None => (reading && provider.is_none()).then_some(summary),
            Some(entry) if provider.is_some_and(|name| !goes_through(entry, name)) => None,
            Some(entry) => {
                let (state, why) = self.state_and_why(entry);
                summary.state = state;
                if let Some(why) = why {
                    summary.why = why;
                }
                summary.next_try_ms = next_try_ms(entry, now);
                Some(summary)
            }
        };
        summaries.into_iter().filter_map(known).collect()
    }

    /// `None`: what the store knows is the reason.
    fn state_and_why(&self, entry: &Entry) -> (MessageState, Option<String>) {
        match entry.standing {
            Standing::Held => return (MessageState::Held, None),
            Standing::Quarantined => return (MessageState::Quarantined, None),
            Standing::Active => {}
        }
        let parts = entry.parts.as_slice();
        if entry.is_in_flight() {
            return (MessageState::InFlight, Some(String::new()));
        }
        match parts.iter().find(|part| part.waiting == Waiting::Ready) {
            None => (MessageState::Deferred, self.why_kept(parts)),
            Some(part) if part.route.is_none() && self.routing.is_known() => {
                (MessageState::Deferred, Some(self.why_unserved()))
            }
            Some(part) => (MessageState::Ready, Some(self.why_ready(part.route.map(|route| route.provider)))),
        }
    }

    /// Why nothing happens to a message of which a provider keeps something and nothing else is due.
    fn why_kept(&self, parts: &[Part]) -> Option<String> {
        let kept = parts.iter().all(|part| part.waiting == Waiting::Callback);
        let route = parts.iter().find(|part| part.waiting == Waiting::Callback)?.route.filter(|_| kept)?;
        Some(self.why_kept_by(route.provider))
    }

    pub(super) fn why_kept_by(&self, provider: ProviderId) -> String {
        format!("waits for provider {} to ask for it", self.name(provider))
    }

    pub(super) fn why_ready(&self, provider: Option<ProviderId>) -> String {
        let Some((id, provider)) = provider.and_then(|id| Some((id, self.providers.get(&id)?))) else {
            return if self.routing.is_known() {
                self.why_unserved()
            } else {
                "waits for a provider to say whether it serves the recipient".to_owned()
            };
        };
        let name = &provider.config.name;
        match provider.life.state() {
            _ if self.stopping.is_some() => "the spooler is shutting down".to_owned(),
            WorkerState::Ready if let Some(why) = &self.store_stuck => why.clone(),
            WorkerState::Ready if let Some(why) = &provider.session.critical_error => {
                format!("provider {name} cannot go on: {why}; validate or restart it")
            }
            WorkerState::Ready if provider.is_offline() => {
                format!("provider {name} is offline: {}", provider.why_offline())
            }
            WorkerState::Ready => match self.waits_for_resource(id) {
                Some(waits) => format!("provider {name} {waits}"),
                None => format!("waits its turn at provider {name}"),
            },
            WorkerState::Paused => format!("provider {name} is paused"),
            WorkerState::Starting | WorkerState::Draining | WorkerState::Stopping => {
                format!("provider {name} is starting")
            }
            WorkerState::Backoff | WorkerState::Failed => {
                let why = provider.life.last_error.as_deref().unwrap_or("no reason known");
                format!("provider {name} does not run: {why}{}", provider.remedy(&self.reload))
            }
        }
    }

    /// Why a message waits whose recipient was served when it was accepted, and is not any more.
    fn why_unserved(&self) -> String {
        format!(
            "no provider serves this address any more; add it to the claims or address_types of one that is enabled, then run `{}`",
            self.reload
        )
    }

    pub(super) fn provider_named(&self, name: &str) -> Result<ProviderId, ApiError> {
        let found = self.order.iter().copied().find(|id| self.name(*id) == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = self.order.iter().map(|id| self.name(*id)).collect();
            refused(format!("There is no provider {name:?}; there are {}", names.join(", ")))
        })
    }

    /// The provider of this name, if there is any sense in doing something with it.
    pub(super) fn provider_that_may_run(&self, name: &str) -> Result<ProviderId, ApiError> {
        let id = self.provider_named(name)?;
        if self.stopping.is_some() {
            return Err(refused("The spooler is shutting down".to_owned()));
        }
        if self.providers.get(&id).is_none_or(|provider| !provider.config.enabled) {
            return Err(refused(format!("Provider {name} is switched off in the configuration (enabled = false)")));
        }
        Ok(id)
    }

    fn command_provider(
        &mut self,
        name: &str,
        action: ProviderAction,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> Result<(), ApiError> {
        let id = self.provider_that_may_run(name)?;
        let deadline_ms = now.mono_ms + ms(self.config.stop_timeout);
        let Some(provider) = self.providers.get_mut(&id) else { return Ok(()) };
        let step = match action {
            ProviderAction::Restart | ProviderAction::Validate => {
                provider.paused = false;
                provider.life.restart(&mut self.generation, now.mono_ms, deadline_ms)
            }
            ProviderAction::Pause => {
                provider.paused = true;
                provider.life.unwant(false, now.mono_ms, deadline_ms)
            }
            ProviderAction::Resume => {
                provider.paused = false;
                provider.life.want(&mut self.generation, now.mono_ms)
            }
        };
        let worker = WorkerId { provider: id, generation: provider.life.generation() };
        self.take_step(worker, step, actions);
        Ok(())
    }
}

/// What the mail log says of an action.
fn logged(action: QueueAction) -> Option<mail::Change> {
    match action {
        QueueAction::Hold => Some(mail::Change::Held),
        QueueAction::Release => Some(mail::Change::Released),
        QueueAction::Delete => Some(mail::Change::Deleted),
        QueueAction::Cancel => Some(mail::Change::Cancelled),
        QueueAction::Retry => None,
    }
}

fn next_try_ms(entry: &Entry, now: Now) -> Option<i64> {
    let due = entry.parts.as_slice().iter().filter_map(|part| match part.waiting {
        Waiting::Deferred { due_ms } => Some(due_ms),
        Waiting::Ready | Waiting::InFlight(_) | Waiting::Callback => None,
    });
    due.min().map(|due_ms| now.wall_ms + (due_ms - now.mono_ms))
}

fn refused(error: String) -> ApiError {
    ApiError { error, temporary: false }
}
