//! Frames that a peer gone wrong might send: whatever they are, there is an answer, and what is understood can be said again.

use bytes::Bytes;

use super::fuzzing::{from_worker, to_worker};
use super::{CodecError, encode};
use crate::calls::{EndMessage, SpoolerNotify, StartResult};
use crate::from_worker::{Arrival, Content, FromWorker, LoggedOn, LogonError, RowUpdate};
use crate::ids::{AcceptId, DeliveryId, RequestId, Token};
use crate::message::Envelope;
use crate::outcome::{Outcome, Reply, SubmitResult};
use crate::to_worker::{Refusal, ToWorker};

fn words_of_a_worker() -> Vec<FromWorker> {
    let outcomes = vec![(u32::MAX, Outcome::Delivered(Reply::local(250, "2.0.0", "kept")))];
    let delivery = DeliveryId(u64::MAX);
    vec![
        FromWorker::LoggedOn(LoggedOn { address_types: vec!["SMTP".to_owned()], ..LoggedOn::default() }),
        FromWorker::LogonFailed(LogonError::Unconfigured("no host".to_owned())),
        FromWorker::Want,
        FromWorker::Yield { token: Token(u64::MAX), more: true },
        FromWorker::Settled { delivery, outcomes: outcomes.clone() },
        FromWorker::Finished {
            delivery,
            result: SubmitResult::Wait { after_ms: u64::MAX },
            end: EndMessage::Done,
            outcomes,
        },
        FromWorker::ReadBody { request: RequestId(1), delivery, offset: u64::MAX },
        FromWorker::Upload { accept: AcceptId(1), data: Bytes::from_static(b"data") },
        FromWorker::Accept {
            accept: AcceptId(1),
            envelope: Envelope::default(),
            arrival: Arrival {
                submission: true,
                trace_bytes: u32::MAX,
                sender: "a@b".to_owned(),
                client: String::new(),
            },
            content: Content::Uploaded { size: 1 << 63 },
        },
        FromWorker::CriticalBegin { section: u64::MAX, reason: "because".to_owned() },
        FromWorker::Row { sequence: u64::MAX, row: "row".to_owned(), update: Box::new(RowUpdate::default()) },
        FromWorker::Notify(SpoolerNotify::NewMail),
        FromWorker::StartEnded(StartResult::Saved),
        FromWorker::LoggedOff,
    ]
}

fn words_to_a_worker() -> Vec<ToWorker> {
    let refusal = Refusal { temporary: true, enhanced: "4.3.1".to_owned(), text: "full".to_owned() };
    vec![
        ToWorker::Grant { token: Token(u64::MAX), slice_ms: u32::MAX, recalled: true },
        ToWorker::Body { request: RequestId(1), data: Ok(Bytes::from_static(b"body")) },
        ToWorker::Accepted { accept: AcceptId(1), result: Err(refusal) },
        ToWorker::CriticalGranted { section: 1, raised: Err("no right".to_owned()) },
        ToWorker::Announce,
    ]
}

fn frame_of<M: serde::Serialize>(message: &M) -> Vec<u8> {
    let mut frames = Vec::new();
    encode::<_, CodecError>(message, |frame| {
        frames.push(frame.to_vec());
        Ok(())
    })
    .unwrap();
    assert_eq!(frames.len(), 1);
    frames.swap_remove(0)
}

fn records(frames: &[&[u8]]) -> Vec<u8> {
    let length = |frame: &[u8]| u16::try_from(frame.len()).unwrap().to_le_bytes();
    frames.iter().flat_map(|frame| [&length(frame)[..], frame].concat()).collect()
}

/// The frame cut short anywhere, with any bit turned, with any byte changed to the extremes, and followed by more.
fn torture(frame: &[u8], target: fn(&[u8])) {
    for length in 0..=frame.len() {
        target(&records(&[&frame[..length]]));
        // The rest as a second frame, behind a first one that promises more.
        let mut first = frame[..length].to_vec();
        if let Some(flag) = first.first_mut() {
            *flag = 1;
        }
        target(&records(&[&first, &[&[0], &frame[length..]].concat()]));
    }
    for at in 0..frame.len() {
        for bit in 0..8 {
            let mut turned = frame.to_vec();
            turned[at] ^= 1 << bit;
            target(&records(&[&turned]));
        }
        for byte in [0, 0x7f, 0x80, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff] {
            let mut changed = frame.to_vec();
            changed[at] = byte;
            changed.extend([0xff; 16]);
            target(&records(&[&changed]));
            changed.truncate(frame.len());
            target(&records(&[&changed]));
        }
    }
    target(&records(&[&[frame, b"more"].concat()]));
}

#[test]
fn every_cut_and_every_turned_bit_of_a_workers_words_is_answered() {
    words_of_a_worker().iter().for_each(|word| torture(&frame_of(word), from_worker));
}

#[test]
fn every_cut_and_every_turned_bit_of_the_supervisors_words_is_answered() {
    words_to_a_worker().iter().for_each(|word| torture(&frame_of(word), to_worker));
}

/// A length at the beginning of a word that promises much is not believed before there is as much.
#[test]
fn what_promises_much_takes_no_memory() {
    for tag in 0..30 {
        for promise in [&[0xfb, 0xff, 0xff][..], &[0xfc, 0xff, 0xff, 0xff, 0x7f], &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0x40]] {
            let frame = [&[0, tag], promise].concat();
            from_worker(&records(&[&frame]));
            to_worker(&records(&[&frame]));
        }
    }
}

#[test]
fn what_is_kept_holds() {
    for (name, target) in [("from_worker", from_worker as fn(&[u8])), ("to_worker", to_worker)] {
        let folder = format!("{}/../fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
        let inputs: Vec<_> = std::fs::read_dir(folder).unwrap().collect();
        assert!(inputs.len() > 1);
        inputs.into_iter().for_each(|input| target(&std::fs::read(input.unwrap().path()).unwrap()));
    }
}
