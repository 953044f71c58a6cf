//! Messages on their way out: what ends a submission, what is deferred, cancelled, reported.

use spooler_protocol::calls::{EndMessage, StatusReport};
use spooler_protocol::from_worker::FromWorker;
use spooler_protocol::ids::{DeliveryId, MessageId};
use spooler_protocol::limits::RECIPIENTS_MAX;
use spooler_protocol::message::Recipient;
use spooler_protocol::notification::Notification;
use spooler_protocol::outcome::{Outcome, SubmitResult};
use spooler_protocol::to_worker::ToWorker;

use crate::peer::submission;
use crate::scripted::Scripted;

/// Waits until a delivery is over: how, what is wanted of the message, and how many outcomes came with it.
fn end_of(worker: &mut Scripted, delivery: u64) -> (SubmitResult, EndMessage, usize) {
    worker.wait_for(|said| match said {
        FromWorker::Finished { delivery: of, result, end, outcomes } if of.0 == delivery => {
            Ok((result, end, outcomes.len()))
        }
        other => Err(other),
    })
}

#[test]
fn end_message_follows_done_at_once_and_nothing_else() {
    let mut worker = Scripted::new("");
    let others = ["busy", "not-me", "wait", "cancelled", "not-wanted", "error", "network-error"];
    for (delivery, word) in (1..).zip(others) {
        worker.deliver_script(delivery, &["a@d"], &format!("return {word}"));
        let (result, end, _) = end_of(&mut worker, delivery);
        assert_eq!(end, EndMessage::Done);
        assert_ne!(result, SubmitResult::Done);
    }
    worker.deliver_script(100, &["a@d"], "settle 0 delivered");
    assert_eq!(end_of(&mut worker, 100), (SubmitResult::Done, EndMessage::Done, 1));
    let calls = worker.calls();
    let ends: Vec<&String> = calls.iter().filter(|call| call.starts_with("end")).collect();
    assert_eq!(ends, ["end 100"]);
    assert_eq!(calls[calls.len() - 2], "submit 100 to a@d others ");
    worker.log_off_well();
}

#[test]
fn busy_is_retried_without_end_message_and_nothing_was_done() {
    let mut worker = Scripted::new("");
    for (delivery, word, expected) in [(1, "busy", SubmitResult::Busy), (2, "not-me", SubmitResult::NotMe)] {
        worker.deliver_script(delivery, &["a@d"], &format!("settle 0 delivered; report 0 failed; return {word}"));
        let last = worker.next();
        let FromWorker::Finished { result, outcomes, .. } = last else { panic!("{last:?}") };
        assert_eq!((result, outcomes), (expected, vec![]), "what was said against the promise is not heard");
    }
    worker.deliver_script(3, &["a@d"], "settle 0 delivered");
    assert_eq!(end_of(&mut worker, 3), (SubmitResult::Done, EndMessage::Done, 1), "the same message once more");
}

#[test]
fn wait_and_network_error_say_when() {
    let mut worker = Scripted::new("");
    worker.deliver_script(1, &["a@d", "b@d"], "settle 0 delivered; return wait");
    assert_eq!(end_of(&mut worker, 1), (SubmitResult::Wait { after_ms: 7 }, EndMessage::Done, 1));
    worker.deliver_script(2, &["b@d"], "return network-error");
    let (result, ..) = end_of(&mut worker, 2);
    assert!(matches!(result, SubmitResult::NetworkError { after_ms: 7, .. }), "{result:?}");
}

#[test]
fn what_end_message_wants_is_said_with_the_result() {
    let mut worker = Scripted::new("end = ['return resend-now', 'return resend-later', 'return deferred', '']");
    let wanted = [EndMessage::ResendNow, EndMessage::ResendLater, EndMessage::Deferred, EndMessage::Done];
    for (delivery, wanted) in (1..).zip(wanted) {
        worker.deliver_script(delivery, &["a@d"], "");
        assert_eq!(end_of(&mut worker, delivery), (SubmitResult::Done, wanted, 0));
    }
}

#[test]
fn a_deferred_message_is_asked_for_and_comes_again_as_deferred() {
    let mut worker = Scripted::new("end = ['return deferred', '']\nidle = ['notify deferred']");
    worker.deliver_script(1, &["a@d"], "");
    assert_eq!(end_of(&mut worker, 1).1, EndMessage::Deferred);
    worker.say(&ToWorker::Idle);
    let notice = FromWorker::Notify(spooler_protocol::calls::SpoolerNotify::SentDeferred(MessageId(1)));
    assert_eq!((worker.next(), worker.next()), (notice, FromWorker::Idled));
    let mut again = submission(2, "s@d", &["a@d"], b"return not-wanted");
    again.deferred_before = true;
    worker.say(&ToWorker::Submit(Box::new(again)));
    assert_eq!(end_of(&mut worker, 2).0, SubmitResult::NotWanted);
    let calls = worker.calls();
    assert_eq!(calls, ["submit 1 to a@d others ", "end 1", "idle", "submit 2 to a@d others  deferred before"]);
}

#[test]
fn an_aborted_deferral_is_news() {
    let mut worker = Scripted::new("");
    for cancelled in [true, false] {
        worker.tell(Notification::AbortDeferred { message: MessageId(7), cancelled });
    }
    worker.calm();
    let calls = worker.calls();
    let told = |cancelled| format!("notify AbortDeferred {{ message: MessageId(7), cancelled: {cancelled} }}");
    assert_eq!(calls[..4], [told(true), "notify returned".to_owned(), told(false), "notify returned".to_owned()]);
}

#[test]
fn those_that_others_serve_are_seen() {
    let mut worker = Scripted::new("wishes = ['resolve']");
    let mut message = submission(1, "s@d", &["a@d"], b"");
    message.others = vec![Recipient::new("FAX:+49".parse().unwrap())];
    worker.say(&ToWorker::Submit(Box::new(message)));
    end_of(&mut worker, 1);
    assert_eq!(worker.calls()[0], "submit 1 to a@d others +49");
}

#[test]
fn a_recipient_is_reported_once() {
    let mut worker = Scripted::new("");
    let script = "report 0 failed; report 1 delivered; say some; report 0 failed; report 0 delivered; report 9 failed";
    worker.deliver_script(1, &["a@d", "b@d"], script);
    let mut told = Vec::new();
    let finished = worker.collect(|said| {
        if let FromWorker::StatusRecips { delivery: DeliveryId(1), reports } = said {
            told.extend(reports.clone());
        }
        matches!(said, FromWorker::Finished { .. })
    });
    let kinds: Vec<(u32, bool)> =
        told.iter().map(|(index, report)| (*index, matches!(report, StatusReport::Failed(_)))).collect();
    assert_eq!(kinds, [(0, true), (1, false), (0, false)], "{finished:?}");
}

#[test]
fn the_longest_replies_of_the_most_recipients_arrive() {
    let mut worker = Scripted::new("");
    let addresses: Vec<String> = (0..RECIPIENTS_MAX).map(|number| format!("r{number}@d")).collect();
    let recipients: Vec<&str> = addresses.iter().map(String::as_str).collect();
    worker.deliver_script(1, &recipients, "settle * failed!; report * failed!");
    let mut reports = 0;
    let mut settled = Vec::new();
    worker.collect(|said| match said {
        FromWorker::StatusRecips { reports: more, .. } => {
            reports += more.len();
            false
        }
        FromWorker::Settled { outcomes, .. } => {
            settled.extend(outcomes.clone());
            false
        }
        FromWorker::Finished { outcomes, .. } => {
            settled.extend(outcomes.clone());
            true
        }
        _ => false,
    });
    settled.sort_by_key(|(index, _)| *index);
    assert_eq!((settled.len(), reports), (RECIPIENTS_MAX, RECIPIENTS_MAX));
    for (place, (index, outcome)) in settled.iter().enumerate() {
        assert!(usize::try_from(*index).unwrap() == place && matches!(outcome, Outcome::Failed(_)));
    }
}

#[test]
fn a_cancellation_comes_back_from_the_next_yield() {
    let mut worker = Scripted::new("");
    let script = "settle 0 delivered; say first; wait go; yield; yield; return cancelled";
    worker.deliver_script(1, &["a@d", "b@d"], script);
    worker.wait_said("first");
    worker.tell(Notification::CancelMessage(DeliveryId(1)));
    worker.calm();
    worker.go("go");
    let (result, _, _) = end_of(&mut worker, 1);
    assert_eq!(result, SubmitResult::Cancelled);
    let yields: Vec<String> = worker.calls().into_iter().filter(|call| call.starts_with("yield")).collect();
    assert_eq!(yields, ["yield Cancel([DeliveryId(1)])", "yield Continue"]);
}

#[test]
fn a_cancellation_wakes_a_delivery_that_waits_and_is_news() {
    let mut worker = Scripted::new("");
    worker.deliver_script(1, &["a@d", "b@d"], "settle 0 delivered; say first; cancelled; return cancelled");
    let (mut outcomes, first) = (0, worker.wait_said("first"));
    worker.tell(Notification::CancelMessage(DeliveryId(1)));
    let rest = worker.collect(|said| matches!(said, FromWorker::Finished { .. }));
    for said in first.iter().chain(&rest) {
        if let FromWorker::Settled { outcomes: some, .. } | FromWorker::Finished { outcomes: some, .. } = said {
            outcomes += some.len();
        }
    }
    assert_eq!(outcomes, 1, "the first recipient was served, the second was not: {rest:?}");
    worker.calm();
    assert!(worker.calls().contains(&"notify CancelMessage(DeliveryId(1))".to_owned()));
}

#[test]
fn what_is_cancelled_before_it_begins_is_cancelled() {
    let mut worker = Scripted::new("");
    worker.grants = false;
    // The token is held, and what is said is taken in one go while the provider computes.
    worker.deliver_script(1, &["a@d"], "say busy; compute 300");
    worker.wait_said("busy");
    worker.deliver_script(2, &["a@d"], "cancelled; return cancelled");
    worker.tell(Notification::CancelMessage(DeliveryId(2)));
    worker.grants = true;
    end_of(&mut worker, 1);
    assert_eq!(end_of(&mut worker, 2).0, SubmitResult::Cancelled);
}

#[test]
fn the_end_of_outbound_lets_the_message_in_hand_finish() {
    let mut worker = Scripted::new("");
    worker.deliver_script(1, &["a@d"], "say begun; wait go; settle 0 delivered");
    worker.wait_said("begun");
    worker.tell(Notification::EndOutbound);
    worker.calm();
    worker.go("go");
    assert_eq!(end_of(&mut worker, 1), (SubmitResult::Done, EndMessage::Done, 1));
    let calls = worker.calls();
    assert_eq!(calls[1], "notify EndOutbound", "it was told while the delivery ran: {calls:?}");
}
