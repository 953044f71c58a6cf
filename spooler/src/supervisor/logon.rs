//! Logging a provider on with a person present: what it asks is passed on, and the answers go to its next worker.
//!
//! Answers live in this process's memory and nowhere else. They are used again when the worker is started again, and forgotten when
//! a logon with them fails: a wrong password must not be tried again and again.

use std::collections::BTreeMap;
use std::fmt;

use spooler_protocol::calls::Prompt;
use spooler_protocol::control::{ApiError, LogonCommand, LogonState};
use spooler_protocol::from_worker::LogonError;
use spooler_protocol::limits::{ANSWER_BYTES_MAX, PROMPTS_MAX};
use spooler_protocol::status::WorkerState;

use super::event::{Action, Answer, AskId, Loudness, WorkerId};
use super::{Supervisor, log};
use crate::policy::status_table::capped;
use crate::policy::{Now, ProviderId};

/// Answers of a person, by the key of the question.
#[derive(Clone, Default)]
struct Answers(BTreeMap<String, String>);

impl fmt::Debug for Answers {
    /// Says whether there are any, and nothing of what they are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answers", self.0.len())
    }
}

/// Where the logon of a provider stands.
#[derive(Debug, Default)]
pub(super) struct Logon {
    answers: Answers,
    /// A logon with just these answers went well.
    proven: bool,
    /// Who waits for the end of this logon.
    person: Option<AskId>,
    /// What the last logon asked.
    prompts: Vec<Prompt>,
}

impl Logon {
    /// What a worker is told that is about to log on.
    pub(super) fn answers(&self) -> Vec<(String, String)> {
        self.answers.0.iter().map(|(key, answer)| (key.clone(), answer.clone())).collect()
    }

    /// The provider has logged on with the answers that there are.
    pub(super) fn prove(&mut self) {
        self.proven = true;
    }

    /// Whether somebody is there to ask.
    pub(super) fn has_person(&self) -> bool {
        self.person.is_some()
    }
}

impl Supervisor {
    /// A person is there to log a provider on. Answered when the logon has ended, well or not.
    pub(super) fn log_on(
        &mut self,
        ask_id: AskId,
        name: &str,
        command: LogonCommand,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let answer = match self.begin_logon(ask_id, name, command, now, actions) {
            Ok(None) => return,
            Ok(Some(state)) => Ok(state),
            Err(error) => Err(error),
        };
        actions.push(Action::Answer(ask_id, Answer::Logon(answer)));
    }

    fn begin_logon(
        &mut self,
        ask_id: AskId,
        name: &str,
        command: LogonCommand,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> Result<Option<LogonState>, ApiError> {
        let refused = |error: String| ApiError { error, temporary: false };
        let id = self.provider_that_may_run(name)?;
        let Some(provider) = self.providers.get_mut(&id) else { return Ok(None) };
        if command.cancel {
            provider.logon.answers = Answers::default();
            if provider.life.state() == WorkerState::Failed {
                provider.life.last_error = Some("the logon was cancelled".to_owned());
            }
            return Ok(Some(LogonState::Cancelled));
        }
        if provider.life.is_ready() && !provider.paused {
            return Ok(Some(LogonState::Ready));
        }
        if provider.logon.has_person() {
            return Err(ApiError { error: format!("Somebody else is logging {name} on"), temporary: true });
        }
        let too_long = command.answers.iter().any(|(key, answer)| key.len() + answer.len() > ANSWER_BYTES_MAX);
        if command.answers.len() > PROMPTS_MAX || too_long {
            let text = format!("Up to {PROMPTS_MAX} answers of {ANSWER_BYTES_MAX} bytes are taken");
            return Err(refused(text));
        }
        provider.logon.proven &= command.answers.is_empty();
        provider.logon.answers.0.extend(command.answers);
        while provider.logon.answers.0.len() > PROMPTS_MAX {
            provider.logon.answers.0.pop_first();
        }
        provider.logon.person = Some(ask_id);
        provider.paused = false;
        let step = provider.life.want(&mut self.generation, now.mono_ms);
        if step.is_some() {
            provider.logon.prompts.clear();
        }
        let worker = WorkerId { provider: id, generation: provider.life.generation() };
        self.take_step(worker, step, actions);
        Ok(None)
    }

    /// A provider could not log on; its worker ends by itself.
    pub(super) fn on_logon_failed(&mut self, id: ProviderId, error: LogonError, actions: &mut Vec<Action>) {
        let Some(provider) = self.providers.get_mut(&id) else { return };
        let error = capped_error(error);
        if !provider.life.on_logon_failed(&error) {
            return;
        }
        match error {
            LogonError::Unanswered(prompts) => {
                // What is asked again was not answered well.
                provider.logon.answers.0.retain(|key, _| prompts.iter().all(|prompt| prompt.key != *key));
                provider.logon.prompts = prompts;
            }
            LogonError::Unconfigured(_) | LogonError::Failed(_) | LogonError::Cancelled | LogonError::Other(_) => {
                // What was never right is not tried again, whether or not the person still waits.
                if provider.logon.has_person() || !provider.logon.proven {
                    provider.logon.answers = Answers::default();
                }
            }
        }
        let text = provider.life.last_error.as_deref().unwrap_or_default();
        let text = format!("provider {}: logon failed: {text}{}", provider.config.name, provider.remedy(&self.reload));
        log(actions, Loudness::Warn, text);
    }

    /// The logon has ended, well or with the worker: whoever waits for it hears how.
    pub(super) fn answer_logon(&mut self, id: ProviderId, actions: &mut Vec<Action>) {
        let Some(provider) = self.providers.get_mut(&id) else { return };
        let answer = match provider.life.state() {
            // Another worker is on its way.
            WorkerState::Starting | WorkerState::Draining | WorkerState::Stopping => return,
            WorkerState::Ready => Ok(LogonState::Ready),
            WorkerState::Failed if !provider.logon.prompts.is_empty() => {
                Ok(LogonState::Asks { prompts: provider.logon.prompts.clone() })
            }
            WorkerState::Backoff | WorkerState::Failed | WorkerState::Paused => {
                let why = provider.life.last_error.as_deref().unwrap_or("its worker ended");
                let temporary = provider.life.state() == WorkerState::Backoff;
                Err(ApiError { error: format!("Provider {} did not log on: {why}", provider.config.name), temporary })
            }
        };
        let person = provider.logon.person.take();
        actions.extend(person.map(|ask_id| Action::Answer(ask_id, Answer::Logon(answer))));
    }
}

/// The same error with its texts cut to what is shown, and no more questions than a person can bear.
fn capped_error(error: LogonError) -> LogonError {
    let question =
        |prompt: Prompt| Prompt { key: capped(prompt.key), label: capped(prompt.label), secret: prompt.secret };
    match error {
        LogonError::Unconfigured(text) => LogonError::Unconfigured(capped(text)),
        LogonError::Failed(text) => LogonError::Failed(capped(text)),
        LogonError::Other(text) => LogonError::Other(capped(text)),
        LogonError::Cancelled => LogonError::Cancelled,
        LogonError::Unanswered(prompts) => {
            LogonError::Unanswered(prompts.into_iter().take(PROMPTS_MAX).map(question).collect())
        }
    }
}
