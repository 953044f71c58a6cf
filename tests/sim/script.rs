//! What a simulated provider does with each call: a list of acts, drawn when the call comes. A new behaviour is a new act.

use std::collections::VecDeque;

use spooler_protocol::calls::{EndMessage, StatusReport};
use spooler_protocol::from_worker::{FromWorker, LogonError};
use spooler_protocol::ids::DeliveryId;
use spooler_protocol::outcome::{Cause, Outcome, Reply, SubmitResult};

use crate::lies;
use crate::plan::{ProviderPlan, STUBBORN};
use crate::stage::Stage;

/// No run lasts so long, milliseconds.
pub(crate) const ENDLESS_MS: i64 = 3_600_000;

/// One act of provider code. Only [`Act::Compute`] takes time on the CPU.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Runs for so many milliseconds.
    Compute(i64),
    /// Waits for the world outside for so many milliseconds.
    Sleep(i64),
    /// Gives the token back and goes on when it has the next one.
    Yield,
    /// Begins a critical section and waits until it is in force.
    Begin,
    /// Ends it.
    End,
    /// A recipient of the delivery is served, or not.
    Serve(u32, Outcome),
    /// What was settled so far is said.
    Tell,
    /// The delivery is over.
    Finish(SubmitResult, EndMessage),
    /// The sender is to be told of a recipient, whatever becomes of the delivery.
    Report(u32, StatusReport),
    /// The provider is ready, or not.
    LogOn(Result<(), LogonError>),
    /// The provider has ended.
    LogOff,
    /// A piece of a message is handed in.
    Upload,
    /// A message is handed in.
    HandIn,
    /// A piece of the body of the delivery is asked for.
    ReadBody,
    /// The provider says that it is offline, or that it is not.
    Offline(bool),
    /// Answers a call of the supervisor.
    Answer(Box<FromWorker>),
    /// Says something, true or not.
    Say(Box<FromWorker>),
    /// The process dies.
    Die,
    /// The process is stopped, and goes on after so many milliseconds, or when all is well again.
    Hang(Option<i64>),
}

/// Acts in their order.
pub(crate) type Script = VecDeque<Act>;

/// What a remote may have said.
pub(crate) fn reply(stage: &mut Stage) -> Reply {
    let code = u16::try_from(stage.rng.between(400, 599)).unwrap_or(450);
    Reply { cause: Cause::Remote, ..Reply::local(code, "", "simulated") }
}

/// What a provider does at its start.
pub(crate) fn logon(provider: &ProviderPlan, person: Result<(), LogonError>, stage: &mut Stage) -> Script {
    let mut script = Script::from([Act::Compute(stage.rng.between(0, provider.compute_ms_max))]);
    if stage.rng.chance(300) {
        script.push_back(Act::Sleep(stage.rng.between(0, provider.wait_ms_max)));
    }
    let result = if stage.mishap(stage.plan.troubles.logon) {
        match stage.rng.below(5) {
            0 => Err(LogonError::Unconfigured("no host".to_owned())),
            1 | 2 => Err(LogonError::Failed("cannot be reached".to_owned())),
            3 => {
                script.push_back(Act::Sleep(60_000));
                Ok(())
            }
            _ => {
                script.push_back(Act::Die);
                Ok(())
            }
        }
    } else {
        person
    };
    script.push_back(Act::LogOn(result));
    script
}

/// What a provider does with a message.
pub(crate) fn delivery(provider: &ProviderPlan, id: DeliveryId, recipients: u32, stage: &mut Stage) -> Script {
    // When all is well everybody is quick: what is asked then is whether anything is stuck.
    let (compute_ms_max, wait_ms_max) =
        if stage.healed { (2, 20) } else { (provider.compute_ms_max, provider.wait_ms_max) };
    let mut script = Script::from([Act::Compute(stage.rng.between(0, compute_ms_max))]);
    let refuses = stage.mishap(stage.plan.troubles.refusal);
    if refuses && stage.rng.chance(300) {
        let result = refusal(stage);
        misbehave(id, &mut script, stage);
        script.push_back(Act::Finish(result, EndMessage::Done));
        return script;
    }
    if stage.rng.chance(200) {
        script.push_back(Act::ReadBody);
    }
    let section = stage.rng.chance(provider.critical);
    if section {
        script.push_back(Act::Begin);
    }
    for place in 0..recipients {
        if stage.rng.chance(500) {
            script.push_back(Act::Sleep(stage.rng.between(0, wait_ms_max)));
        }
        if stage.rng.chance(500) {
            script.push_back(Act::Compute(stage.rng.between(0, compute_ms_max)));
        }
        if stage.rng.chance(50) {
            script.push_back(Act::Yield);
        }
        misbehave(id, &mut script, stage);
        if stage.mishap(stage.plan.troubles.report) {
            let report = report(stage);
            script.push_back(Act::Report(place, report));
        }
        let outcome = if stage.mishap(stage.plan.troubles.end) { None } else { outcome(refuses, stage) };
        if let Some(outcome) = outcome {
            script.push_back(Act::Serve(place, outcome));
        }
        if stage.rng.chance(200) {
            script.push_back(Act::Tell);
        }
    }
    misbehave(id, &mut script, stage);
    if section && !stage.mishap(200) {
        script.push_back(Act::End);
    }
    let result = if refuses && stage.rng.chance(300) { refusal(stage) } else { SubmitResult::Done };
    script.push_back(Act::Finish(result, end(stage)));
    script
}

/// What the provider wants done with the message.
fn end(stage: &mut Stage) -> EndMessage {
    if !stage.mishap(stage.plan.troubles.end) {
        return EndMessage::Done;
    }
    match stage.rng.below(6) {
        _ if stage.plan.troubles.end >= STUBBORN => EndMessage::ResendNow,
        0..=2 => EndMessage::ResendNow,
        3 => EndMessage::ResendLater,
        _ => EndMessage::Deferred,
    }
}

/// What the provider wants the sender to be told of a recipient.
fn report(stage: &mut Stage) -> StatusReport {
    let reply = reply(stage);
    if stage.rng.chance(500) { StatusReport::Delivered(reply) } else { StatusReport::Failed(reply) }
}

/// What becomes of one recipient; `None` if the provider forgets to say.
fn outcome(refuses: bool, stage: &mut Stage) -> Option<Outcome> {
    if !refuses {
        let relayed = stage.rng.chance(300);
        let reply = reply(stage);
        return Some(if relayed { Outcome::Relayed { reply, reports: false } } else { Outcome::Delivered(reply) });
    }
    match stage.rng.below(5) {
        0 => Some(Outcome::Failed(reply(stage))),
        1 | 2 => Some(Outcome::Deferred(reply(stage))),
        3 => Some(Outcome::Delivered(reply(stage))),
        _ => None,
    }
}

fn refusal(stage: &mut Stage) -> SubmitResult {
    let after_ms = stage.rng.below(20_000);
    match stage.rng.below(7) {
        0 => SubmitResult::Busy,
        1 => SubmitResult::NotMe,
        2 => SubmitResult::Wait { after_ms },
        3 => SubmitResult::NetworkError { after_ms, reply: Box::new(reply(stage)) },
        4 => SubmitResult::Cancelled,
        5 => SubmitResult::NotWanted,
        _ => SubmitResult::Error(reply(stage)),
    }
}

/// Sometimes a worker dies, is stopped, or lies, in the middle of its work.
fn misbehave(id: DeliveryId, script: &mut Script, stage: &mut Stage) {
    let troubles = stage.plan.troubles;
    if stage.mishap(troubles.death) {
        script.push_back(Act::Die);
    }
    if stage.mishap(troubles.hang) {
        let while_ms = stage.rng.chance(700).then(|| stage.rng.between(1, 8_000));
        script.push_back(Act::Hang(while_ms));
    }
    if stage.mishap(troubles.endless) {
        script.push_back(if stage.rng.chance(500) { Act::Sleep(ENDLESS_MS) } else { Act::Compute(ENDLESS_MS) });
    }
    if stage.mishap(troubles.lie) {
        script.push_back(Act::Say(Box::new(lies::lie(id, stage))));
    }
}
