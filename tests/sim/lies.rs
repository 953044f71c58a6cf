//! What a simulated worker says that is not true, or out of turn.

use spooler_protocol::calls::{CallError, EndMessage, SpoolerNotify, StartResult, StatusReport};
use spooler_protocol::confinement::Confined;
use spooler_protocol::from_worker::{FromWorker, LoggedOn, LogonError, Progress, RowUpdate};
use spooler_protocol::ids::{DeliveryId, MessageId, RequestId, Token};
use spooler_protocol::outcome::{Outcome, SubmitResult};

use crate::script::reply;
use crate::stage::Stage;

/// A word that is not true, or out of turn, from a worker that has this delivery.
pub(crate) fn lie(id: DeliveryId, stage: &mut Stage) -> FromWorker {
    let other = DeliveryId(stage.rng.below(id.0 + 20));
    let place = stage.rng.count(0, 1000);
    let delivered = Outcome::Delivered(reply(stage));
    match stage.rng.below(20) {
        0 => FromWorker::Yield { token: Token(stage.rng.below(1 << 40)), more: false },
        1 => FromWorker::Finished {
            delivery: DeliveryId(other.0 + 100_000),
            result: SubmitResult::Done,
            end: EndMessage::Done,
            outcomes: vec![(0, delivered)],
        },
        2 => FromWorker::Settled { delivery: other, outcomes: vec![(place + 1000, delivered)] },
        3 => FromWorker::Settled { delivery: id, outcomes: vec![(place + 1000, delivered)] },
        4 => FromWorker::Settled { delivery: id, outcomes: vec![(0, delivered.clone()), (0, delivered)] },
        5 => FromWorker::LogonFailed(LogonError::Failed("out of turn".to_owned())),
        6 => FromWorker::LoggedOn(LoggedOn::default()),
        7 => FromWorker::CriticalEnd { section: 1 },
        8 => FromWorker::CriticalBegin { section: 1, reason: "x".repeat(2000) },
        9 => FromWorker::Want,
        10 => FromWorker::LoggedOff,
        11 => FromWorker::Row {
            sequence: stage.rng.below(100),
            row: String::new(),
            update: Box::new(RowUpdate { text: Some("y".repeat(3000)), progress: Some(200), ..RowUpdate::default() }),
        },
        12 => {
            let delivery = if stage.rng.chance(500) { id } else { other };
            let told = StatusReport::Failed(reply(stage));
            FromWorker::StatusRecips { delivery, reports: vec![(place, told.clone()), (0, told)] }
        }
        13 if stage.rng.chance(500) => FromWorker::Confined(Confined {
            level: "z".repeat(3000),
            took_us: u64::MAX,
            needs: vec![("memory".to_owned(), "all".to_owned()); 300],
        }),
        13 => FromWorker::Notify(news(stage)),
        14 => answer(stage),
        _ => FromWorker::Progress {
            delivery: other,
            progress: Progress { phase: "nowhere".to_owned(), bytes: u64::MAX },
        },
    }
}

/// News that may be true or not.
fn news(stage: &mut Stage) -> SpoolerNotify {
    match stage.rng.below(6) {
        0 => SpoolerNotify::NewMail,
        1 => SpoolerNotify::ReadyToSend,
        2 => SpoolerNotify::SentDeferred(MessageId(stage.rng.below(100))),
        3 => SpoolerNotify::ConfigChange,
        _ => SpoolerNotify::CriticalError("nothing works any more".to_owned()),
    }
}

/// An answer to whatever was asked, or to nothing.
pub(crate) fn answer(stage: &mut Stage) -> FromWorker {
    match stage.rng.below(6) {
        0 => FromWorker::Polled { waiting: true },
        1 => FromWorker::StartEnded(StartResult::Saved),
        2 => FromWorker::StartEnded(StartResult::Failed("it is gone".to_owned())),
        3 => FromWorker::Idled,
        4 => FromWorker::FlushAnswered(Err(CallError::Busy)),
        _ => FromWorker::Validated { request: RequestId(stage.rng.below(200)), result: Ok(()) },
    }
}
