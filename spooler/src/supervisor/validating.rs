//! Providers look after their state at somebody's wish (IXPLogon::ValidateState): one, or all of them at once. One that has failed is
//! logged on again instead, which is what validating is for.

use std::collections::BTreeSet;

use spooler_protocol::calls::{CallError, ValidateFlags};
use spooler_protocol::control::{ApiError, Validated};
use spooler_protocol::ids::RequestId;
use spooler_protocol::status::WorkerState;
use spooler_protocol::to_worker::ToWorker;

use super::event::{Action, Answer, AskId, WorkerId};
use super::{Provider, Supervisor};
use crate::policy::retry::ms;
use crate::policy::{Now, ProviderId};

/// A provider that has not answered for so long is not waited for.
const PATIENCE_MS: i64 = 30_000;

/// A validation whose answers have not all come.
#[derive(Debug)]
pub(super) struct Validation {
    ask_id: AskId,
    /// Whether all providers were meant: then the answer names each.
    all: bool,
    flags: ValidateFlags,
    waiting: BTreeSet<ProviderId>,
    results: Vec<Validated>,
    pub(super) deadline_ms: i64,
}

impl Provider {
    /// It was told to connect, or not to: that holds for its next workers, too.
    fn note_connection(&mut self, flags: ValidateFlags) {
        if flags.contains(ValidateFlags::CONNECT) {
            self.no_connect = false;
        } else if flags.contains(ValidateFlags::DISCONNECT) {
            self.no_connect = true;
        }
    }
}

impl Supervisor {
    /// Validates one provider, or all of them without a name.
    pub(super) fn validate(
        &mut self,
        ask_id: AskId,
        name: Option<&str>,
        flags: ValidateFlags,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let chosen = match name.map(|name| self.provider_that_may_run(name)).transpose() {
            Ok(Some(id)) => vec![id],
            Ok(None) => self.order.clone(),
            Err(error) => {
                actions.push(Action::Answer(ask_id, Answer::Provider(Err(error))));
                return;
            }
        };
        let request = RequestId(self.next_number());
        let all = name.is_none();
        let mut validation = Validation {
            ask_id,
            all,
            flags,
            waiting: BTreeSet::new(),
            results: Vec::new(),
            deadline_ms: now.mono_ms + PATIENCE_MS,
        };
        for id in chosen {
            match self.validate_one(id, request, flags, all, now, actions) {
                None => drop(validation.waiting.insert(id)),
                Some(result) => validation.results.push(self.validated(id, result)),
            }
        }
        self.validations.insert(request, validation);
        self.settle_validations(actions);
    }

    /// Begins with one provider; what came of it if that is known at once.
    fn validate_one(
        &mut self,
        id: ProviderId,
        request: RequestId,
        flags: ValidateFlags,
        all: bool,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> Option<Result<String, String>> {
        let provider = self.providers.get_mut(&id)?;
        let deadline_ms = now.mono_ms + ms(self.config.stop_timeout);
        match provider.life.state() {
            WorkerState::Ready if provider.session.critical_error.is_none() => {}
            WorkerState::Ready | WorkerState::Backoff | WorkerState::Failed => {
                provider.note_connection(flags);
                let step = provider.life.restart(&mut self.generation, now.mono_ms, deadline_ms);
                let worker = WorkerId { provider: id, generation: provider.life.generation() };
                self.take_step(worker, step, actions);
                return Some(Ok("had failed and is logged on again".to_owned()));
            }
            WorkerState::Paused => return Some(Err("it is paused".to_owned())),
            WorkerState::Starting | WorkerState::Draining | WorkerState::Stopping => {
                return Some(Err("it is starting or stopping; try again in a moment".to_owned()));
            }
        }
        // A provider says that it must not be asked now (PR_REMOTE_VALIDATE_OK is FALSE); what it may be told is to stop that.
        if provider.rows.own().validate_refused && !flags.contains(ValidateFlags::ABORT_HEADERS) {
            return Some(Err("it is busy and does not want to be asked now; try again later".to_owned()));
        }
        let news = ValidateFlags::CONFIG_CHANGED | ValidateFlags::SUPPRESS_UI;
        if all && flags.contains(ValidateFlags::CONFIG_CHANGED) {
            self.ask_to_announce(id, now, actions);
            if news.contains(flags) {
                return Some(Ok("says again what it serves".to_owned()));
            }
        }
        self.say(id, ToWorker::ValidateState { request, flags }, actions);
        None
    }

    /// A provider has answered.
    pub(super) fn on_validated(
        &mut self,
        worker: WorkerId,
        request: RequestId,
        result: Result<(), CallError>,
        actions: &mut Vec<Action>,
    ) {
        let answered = self.validations.get(&request).filter(|asked| asked.waiting.contains(&worker.provider));
        if let (Ok(()), Some(flags)) = (&result, answered.map(|asked| asked.flags))
            && let Some(provider) = self.providers.get_mut(&worker.provider)
        {
            provider.note_connection(flags);
        }
        let result = match result {
            Ok(()) => Ok("is validated".to_owned()),
            Err(CallError::Failed(why)) => Err(crate::policy::status_table::capped(why)),
            Err(error) => Err(error.to_string()),
        };
        let validated = self.validated(worker.provider, result);
        if let Some(validation) = self.validations.get_mut(&request)
            && validation.waiting.remove(&worker.provider)
        {
            validation.results.push(validated);
            self.settle_validations(actions);
        }
    }

    /// A provider will not answer any more.
    pub(super) fn abandon_validations(&mut self, id: ProviderId, why: &str, actions: &mut Vec<Action>) {
        let lost = self.validated(id, Err(why.to_owned()));
        for validation in self.validations.values_mut() {
            if validation.waiting.remove(&id) {
                validation.results.push(lost.clone());
            }
        }
        self.settle_validations(actions);
    }

    /// Nobody waits for ever.
    pub(super) fn end_late_validations(&mut self, now: Now, actions: &mut Vec<Action>) {
        let late: Vec<(RequestId, BTreeSet<ProviderId>)> = self
            .validations
            .iter_mut()
            .filter(|(_, validation)| validation.deadline_ms <= now.mono_ms)
            .map(|(request, validation)| (*request, std::mem::take(&mut validation.waiting)))
            .collect();
        for (request, silent) in late {
            let results: Vec<Validated> =
                silent.iter().map(|id| self.validated(*id, Err("it has not answered".to_owned()))).collect();
            if let Some(validation) = self.validations.get_mut(&request) {
                validation.results.extend(results);
            }
        }
        self.settle_validations(actions);
    }

    /// Answers those whose last answer has come.
    fn settle_validations(&mut self, actions: &mut Vec<Action>) {
        let complete = self.validations.extract_if(.., |_, validation| validation.waiting.is_empty());
        for (_, mut validation) in complete {
            let answer = if validation.all {
                Answer::Validated(validation.results)
            } else {
                match validation.results.pop() {
                    Some(Validated { ok: false, text, provider }) => Answer::Provider(Err(ApiError {
                        error: format!("Provider {provider} was not validated: {text}"),
                        temporary: true,
                    })),
                    Some(_) | None => Answer::Provider(Ok(())),
                }
            };
            actions.push(Action::Answer(validation.ask_id, answer));
        }
    }

    fn validated(&self, id: ProviderId, result: Result<String, String>) -> Validated {
        let (ok, text) = match result {
            Ok(text) => (true, text),
            Err(text) => (false, text),
        };
        Validated { provider: self.name(id).to_owned(), ok, text }
    }
}
