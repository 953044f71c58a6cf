//! Whoever speaks to a worker that does not read never waits, and what is said arrives in order.

use std::sync::mpsc;
use std::thread;

use super::*;

/// A link without a reader thread, and the worker's end of its channel.
fn link() -> (Link, ipc::IpcBytesReceiver) {
    let (channel, theirs) = ipc::bytes_channel().unwrap();
    let (outbox, words) = bounded(OUTBOX_WORDS_MAX);
    let way = Arc::new(Way::new(channel));
    let writers_way = Arc::clone(&way);
    thread::spawn(move || write_all(&writers_way, &words));
    (Link { outbox, way, direct: true }, theirs)
}

fn grant(number: u64) -> ToWorker {
    ToWorker::Grant { token: Token(number), slice_ms: 200, recalled: false }
}

fn read(theirs: &ipc::IpcBytesReceiver) -> ToWorker {
    codec::Assembler::default().push(&theirs.recv().unwrap()).unwrap().unwrap()
}

#[test]
fn many_grants_to_a_worker_that_does_not_read_hold_nobody_up_and_arrive_in_order() {
    const COUNT: u64 = 2000;
    let (link, theirs) = link();
    // More than the socket takes: who sends them all has not waited for the worker.
    for number in 0..COUNT {
        assert_eq!(link.say(grant(number)), Ok(()));
    }
    assert!(link.way.waiting.load(Ordering::Acquire) > 1000, "most of them wait in the outbox");
    for number in 0..COUNT {
        assert_eq!(read(&theirs), grant(number));
    }
}

#[test]
fn no_more_is_sent_directly_than_surely_fits() {
    let (link, _theirs) = link();
    let directly = (0..COUNT_MAX).take_while(|number| link.way.send_directly(&grant(*number)) == Direct::Sent).count();
    assert!((20..40).contains(&directly), "{directly}");
    assert!(send_buffer_bytes() >= BUFFER_FACTOR * DIRECT_BYTES_MAX, "with less, nothing would be sent directly");
}

/// Far more than a socket takes.
const COUNT_MAX: u64 = 10_000;

#[test]
fn a_token_that_comes_back_makes_room_and_one_that_was_not_sent_does_not() {
    let (link, theirs) = link();
    for number in 0..COUNT_MAX {
        assert_eq!(link.way.send_directly(&grant(number)), Direct::Sent, "the worker reads: {number}");
        read(&theirs);
        link.on_returned(Token(number));
    }
    while link.way.send_directly(&grant(COUNT_MAX)) == Direct::Sent {}
    link.on_returned(Token(COUNT_MAX + 1));
    assert_eq!(link.way.send_directly(&grant(1)), Direct::Not);
}

#[test]
fn a_short_word_does_not_overtake_a_long_one_that_is_stuck() {
    let (link, theirs) = link();
    let long = ToWorker::Body { request: spooler_protocol::ids::RequestId(1), data: Ok(vec![7; 60_000].into()) };
    for _ in 0..10 {
        assert_eq!(link.say(long.clone()), Ok(()));
    }
    assert_eq!(link.say(grant(1)), Ok(()));
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || (0..11).for_each(|_| sender.send(read(&theirs)).unwrap()));
    let heard: Vec<ToWorker> = receiver.iter().collect();
    assert_eq!((heard.len(), heard.last()), (11, Some(&grant(1))));
}

#[test]
fn a_worker_that_is_gone_is_noticed() {
    let (link, theirs) = link();
    drop(theirs);
    assert_eq!(link.say(grant(1)), Err(LinkError::Closed));
}
