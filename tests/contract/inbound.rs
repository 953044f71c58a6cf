//! Messages on their way in: polls, `start_message`, what is saved and what is not.

use spooler_protocol::calls::{SpoolerNotify, StartResult};
use spooler_protocol::from_worker::FromWorker;
use spooler_protocol::notification::Notification;
use spooler_protocol::to_worker::{Refusal, ToWorker};

use crate::scripted::{Scripted, row};

/// Has it receive a message; how that ended.
fn start(worker: &mut Scripted) -> StartResult {
    worker.say(&ToWorker::StartMessage);
    start_ended(worker)
}

fn start_ended(worker: &mut Scripted) -> StartResult {
    worker.wait_for(|said| match said {
        FromWorker::StartEnded(result) => Ok(result),
        other => Err(other),
    })
}

#[test]
fn what_was_accepted_is_saved_and_only_then() {
    let mut worker = Scripted::new(
        "start = ['write Subject: x; accept', 'write lost', '', 'write lost; return failed', 'accept; return failed']",
    );
    let results: Vec<StartResult> = (0..5).map(|_| start(&mut worker)).collect();
    let failed = StartResult::Failed("the line broke".to_owned());
    // The last one failed after its message was on disk: it is there, whatever was said then.
    let expected = [StartResult::Saved, StartResult::NotSaved, StartResult::NotSaved, failed, StartResult::Saved];
    assert_eq!(results, expected);
    assert_eq!(worker.received.len(), 2);
    assert_eq!(worker.received[0].content, b"Subject: x");
}

#[test]
fn a_message_that_the_spooler_refuses_is_not_saved() {
    let mut worker = Scripted::new("start = ['write x; accept']");
    let text = "The disk is full".to_owned();
    worker.refusal = Some(Refusal { temporary: true, enhanced: "4.3.1".to_owned(), text });
    assert_eq!(start(&mut worker), StartResult::NotSaved);
    assert_eq!(worker.calls(), ["start", "write Ok(())", "accept Err(\"The disk is full\")"]);
}

#[test]
fn a_cancelled_message_cannot_be_accepted_and_the_next_one_can() {
    let mut worker = Scripted::new("start = ['write half; say half; cancelled; accept', 'accept']");
    worker.say(&ToWorker::StartMessage);
    worker.wait_said("half");
    worker.tell(Notification::CancelInbound);
    assert_eq!(start_ended(&mut worker), StartResult::NotSaved);
    assert!(worker.received.is_empty());
    assert_eq!(start(&mut worker), StartResult::Saved);
    let calls = worker.calls();
    let refused = "accept Err(\"Receiving was cancelled; the source keeps the message\")".to_owned();
    assert!(calls.contains(&refused) && calls.contains(&"notify CancelInbound".to_owned()), "{calls:?}");
}

#[test]
fn a_message_that_a_hook_discards_is_done_with_and_the_next_one_is_asked_for() {
    let discards = r#"[[inbound_hook]]
        command = ["/bin/sh", "-c", 'grep -q spam && echo "{\"action\":\"discard\"}"; exit 0']"#;
    let mut worker = Scripted::new(&format!("start = ['write spam; accept', 'write eggs; accept', '']\n{discards}"));
    let results: Vec<StartResult> = (0..3).map(|_| start(&mut worker)).collect();
    assert_eq!(results, [StartResult::Saved, StartResult::Saved, StartResult::NotSaved]);
    let received: Vec<&[u8]> = worker.received.iter().map(|message| message.content.as_slice()).collect();
    assert_eq!(received, [b"eggs"]);
}

#[test]
fn receiving_shows_while_it_lasts() {
    let mut worker = Scripted::new("start = ['wait go']");
    worker.say(&ToWorker::StartMessage);
    let active = |said: &FromWorker| row(said).and_then(|update| update.inbound_active);
    worker.collect(|said| active(said) == Some(true));
    worker.go("go");
    worker.collect(|said| active(said) == Some(false));
}

#[test]
fn nothing_is_polled_or_started_before_inbound_begins_and_after_it_ends() {
    let mut worker = Scripted::start("wishes = ['poll']\npoll = ['return waiting']\nstart = ['accept']", |_| {});
    worker.wait_logged_on();
    let ask = |worker: &mut Scripted| {
        worker.say(&ToWorker::Poll);
        worker.say(&ToWorker::StartMessage);
        worker.calm()
    };
    let nothing = [FromWorker::Polled { waiting: false }, FromWorker::StartEnded(StartResult::NotSaved)];
    assert_eq!(ask(&mut worker)[..2], nothing);
    worker.tell(Notification::BeginInbound);
    worker.say(&ToWorker::Poll);
    assert_eq!(worker.next(), FromWorker::Polled { waiting: true });
    assert_eq!(start(&mut worker), StartResult::Saved);
    worker.tell(Notification::EndInbound);
    let said: Vec<FromWorker> = ask(&mut worker).into_iter().filter(|said| row(said).is_none()).collect();
    assert_eq!(said[..2], nothing);
    let calls = worker.calls();
    let made = |what| calls.iter().filter(|call| *call == what).count();
    assert_eq!((made("poll"), made("start")), (1, 1), "{calls:?}");
}

#[test]
fn the_end_of_inbound_lets_the_message_in_hand_finish_and_its_news_comes_meanwhile() {
    let mut worker = Scripted::new("start = ['write x; say half; wait go; accept']");
    worker.say(&ToWorker::StartMessage);
    worker.wait_said("half");
    worker.tell(Notification::EndInbound);
    worker.calm();
    worker.go("go");
    assert_eq!(start_ended(&mut worker), StartResult::Saved);
    assert_eq!(worker.calls()[1..3], ["write Ok(())", "notify EndInbound"]);
}

#[test]
fn one_message_is_received_at_a_time() {
    let mut worker = Scripted::new("start = ['say begun; wait go; accept']\npoll = ['wait go; return waiting']");
    worker.say(&ToWorker::StartMessage);
    worker.say(&ToWorker::Poll);
    worker.wait_said("begun");
    worker.say(&ToWorker::StartMessage);
    worker.say(&ToWorker::Poll);
    let out_of_turn = worker.calm();
    assert!(out_of_turn.contains(&FromWorker::StartEnded(StartResult::NotSaved)));
    assert!(out_of_turn.contains(&FromWorker::Polled { waiting: false }));
    worker.go("go");
    let mut rest = Vec::new();
    while rest.len() < 2 {
        let said = worker.next();
        if matches!(said, FromWorker::StartEnded(_) | FromWorker::Polled { .. }) {
            rest.push(said);
        }
    }
    assert!(rest.contains(&FromWorker::StartEnded(StartResult::Saved)));
    assert!(rest.contains(&FromWorker::Polled { waiting: true }));
}

#[test]
fn new_mail_is_told_at_any_time_and_one_call_receives_one_message() {
    let mut worker = Scripted::new("start = ['write one; accept; notify new-mail', 'write two; accept']");
    worker.say(&ToWorker::StartMessage);
    let said: Vec<FromWorker> = worker
        .collect(|said| matches!(said, FromWorker::StartEnded(_)))
        .into_iter()
        .filter(|s| row(s).is_none())
        .collect();
    assert_eq!(said, [FromWorker::Notify(SpoolerNotify::NewMail), FromWorker::StartEnded(StartResult::Saved)]);
    assert_eq!(start(&mut worker), StartResult::Saved);
    let received: Vec<&[u8]> = worker.received.iter().map(|message| message.content.as_slice()).collect();
    assert_eq!(received, [b"one", b"two"]);
}
