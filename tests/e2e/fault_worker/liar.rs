//! Workers that speak the language and say nothing true.

use bytes::Bytes;
use spooler_protocol::calls::EndMessage;
use spooler_protocol::from_worker::{Arrival, Content, Destinations, FromWorker, LoggedOn, RowUpdate};
use spooler_protocol::ids::{AcceptId, DeliveryId, Token};
use spooler_protocol::limits::BODY_CHUNK_BYTES_MAX;
use spooler_protocol::message::Envelope;
use spooler_protocol::outcome::{Outcome, Reply, SubmitResult};
use spooler_protocol::to_worker::ToWorker;
use spooler_worker::link::{LinkError, LinkSender};
use spooler_worker::runtime::Ended;
use tokio::sync::mpsc::UnboundedReceiver;

/// Says as much as the channel takes.
pub(crate) fn flood(link: &LinkSender) -> Result<Ended, LinkError> {
    link.send(&FromWorker::LoggedOn(LoggedOn::default()))?;
    for number in 0_u64.. {
        let text = Some(format!("flooding, {number}"));
        link.send(&FromWorker::Row {
            sequence: number,
            row: String::new(),
            update: Box::new(RowUpdate { text, ..RowUpdate::default() }),
        })?;
        link.send(&FromWorker::Want)?;
    }
    Ok(Ended::LoggedOff)
}

/// Hands in more and more large messages and finishes none, without a look at the answers.
pub(crate) fn hoard(link: &LinkSender) -> Result<Ended, LinkError> {
    link.send(&FromWorker::LoggedOn(LoggedOn::default()))?;
    let data = Bytes::from(vec![b'x'; BODY_CHUNK_BYTES_MAX]);
    for number in 0.. {
        link.send(&FromWorker::Upload { accept: AcceptId(number), data: data.clone() })?;
    }
    Ok(Ended::LoggedOff)
}

/// Says nothing that is true, as long as it is spoken to.
pub(crate) async fn lie(link: &LinkSender, mut inbox: UnboundedReceiver<ToWorker>) -> Result<Ended, LinkError> {
    let destinations = Destinations { by_domain: true, concurrency: u32::MAX, interval_ms: u64::MAX };
    let address_types = vec![String::new(), "X".repeat(10_000)];
    let boast = LoggedOn {
        address_types,
        credit: u32::MAX,
        destinations,
        identity: "\u{0}".repeat(10_000),
        ..LoggedOn::default()
    };
    link.send(&FromWorker::LoggedOn(boast.clone()))?;
    let delivered = |index| (index, Outcome::Delivered(Reply::local(250, "2.0.0", "never seen it")));
    for number in 0..500 {
        let (delivery, token) = (DeliveryId(number), Token(number));
        link.send(&FromWorker::Settled { delivery, outcomes: vec![delivered(0), delivered(u32::MAX)] })?;
        link.send(&FromWorker::Finished {
            delivery,
            result: SubmitResult::Done,
            end: EndMessage::Done,
            outcomes: vec![delivered(0)],
        })?;
        link.send(&FromWorker::Yield { token, more: true })?;
    }
    let accept = AcceptId(1);
    let content = Content::Uploaded { size: u64::MAX };
    link.send(&FromWorker::CriticalEnd { section: 7 })?;
    link.send(&FromWorker::UploadAbandoned { accept })?;
    link.send(&FromWorker::Accept { accept, envelope: Envelope::default(), arrival: Arrival::default(), content })?;
    let update = Box::new(RowUpdate { text: Some("has told its lies".to_owned()), ..RowUpdate::default() });
    link.send(&FromWorker::Row { sequence: 1, row: String::new(), update })?;
    link.send(&FromWorker::Want)?;
    while let Some(heard) = inbox.recv().await {
        match heard {
            ToWorker::Grant { token, .. } => {
                link.send(&FromWorker::LoggedOn(boast.clone()))?;
                link.send(&FromWorker::Yield { token: Token(token.0 + 1), more: true })?;
                link.send(&FromWorker::Yield { token, more: false })?;
                link.send(&FromWorker::Yield { token, more: true })?;
            }
            ToWorker::Submit(submission) => {
                let (delivery, result) = (submission.delivery, SubmitResult::Wait { after_ms: u64::MAX });
                link.send(&FromWorker::Settled { delivery, outcomes: vec![delivered(999)] })?;
                link.send(&FromWorker::Finished {
                    delivery,
                    result,
                    end: EndMessage::Done,
                    outcomes: vec![delivered(u32::MAX)],
                })?;
            }
            ToWorker::Logoff { .. } => return Ok(Ended::LoggedOff),
            _ => {}
        }
    }
    Ok(Ended::SupervisorGone)
}
