//! What a simulated provider does with each call: a list of acts, drawn when the call comes. A new behaviour is a new act.

use std::collections::VecDeque;

use spooler_protocol::from_worker::{FromWorker, LogonError, RowUpdate};
use spooler_protocol::ids::{DeliveryId, Token};
use spooler_protocol::outcome::{Cause, Outcome, Reply, SubmitResult};

use crate::plan::ProviderPlan;
use crate::stage::Stage;

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
    Finish(SubmitResult),
    /// The provider is ready, or not.
    LogOn(Result<(), LogonError>),
    /// The provider has ended.
    LogOff,
    /// A message is handed in.
    HandIn,
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

fn reply(stage: &mut Stage) -> Reply {
    let code = u16::try_from(stage.rng.between(400, 599)).unwrap_or(450);
    Reply { cause: Cause::Remote, code, enhanced: String::new(), text: "simulated".to_owned(), remote: String::new() }
}

/// What a provider does at its start.
pub(crate) fn logon(provider: &ProviderPlan, stage: &mut Stage) -> Script {
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
        Ok(())
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
        script.push_back(Act::Finish(result));
        return script;
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
        let outcome = outcome(refuses, stage);
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
    script.push_back(Act::Finish(result));
    script
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
    if stage.mishap(troubles.lie) {
        script.push_back(Act::Say(Box::new(lie(id, stage))));
    }
}

/// A word that is not true, or out of turn.
fn lie(id: DeliveryId, stage: &mut Stage) -> FromWorker {
    let other = DeliveryId(stage.rng.below(id.0 + 20));
    let place = stage.rng.count(0, 1000);
    let delivered = Outcome::Delivered(reply(stage));
    match stage.rng.below(13) {
        0 => FromWorker::Yield { token: Token(stage.rng.below(1 << 40)), more: false },
        1 => FromWorker::Finished {
            delivery: DeliveryId(other.0 + 100_000),
            result: SubmitResult::Done,
            end: spooler_protocol::calls::EndMessage::Done,
            outcomes: vec![(0, delivered)],
        },
        2 => FromWorker::Settled { delivery: other, outcomes: vec![(place + 1000, delivered)] },
        3 => FromWorker::Settled { delivery: id, outcomes: vec![(place + 1000, delivered)] },
        4 => FromWorker::Settled { delivery: id, outcomes: vec![(0, delivered.clone()), (0, delivered)] },
        5 => FromWorker::LogonFailed(LogonError::Failed("out of turn".to_owned())),
        6 => FromWorker::LoggedOn(spooler_protocol::from_worker::LoggedOn::default()),
        7 => FromWorker::CriticalEnd { section: 1 },
        8 => FromWorker::CriticalBegin { section: 1, reason: "x".repeat(2000) },
        9 => FromWorker::Want,
        10 => FromWorker::LoggedOff,
        11 => FromWorker::Row {
            sequence: stage.rng.below(100),
            row: String::new(),
            update: Box::new(RowUpdate { text: Some("y".repeat(3000)), progress: Some(200), ..RowUpdate::default() }),
        },
        _ => FromWorker::Progress {
            delivery: other,
            progress: spooler_protocol::from_worker::Progress { phase: "nowhere".to_owned(), bytes: u64::MAX },
        },
    }
}
