//! Logon and logoff: flags, questions, hurry.

use spooler_protocol::calls::{CallError, LogonFlags, Prompt, StartResult, ValidateFlags};
use spooler_protocol::from_worker::{FromWorker, LogonError};
use spooler_protocol::notification::Notification;
use spooler_protocol::outcome::SubmitResult;
use spooler_protocol::to_worker::ToWorker;

use crate::peer::{Peer, welcome};
use crate::scripted::Scripted;

fn logon_failed(worker: &mut Peer) -> LogonError {
    worker.wait_for(|said| match said {
        FromWorker::LogonFailed(error) => Ok(error),
        other => Err(other),
    })
}

fn prompt(key: &str, secret: bool) -> Prompt {
    Prompt { key: key.to_owned(), label: format!("Your {key}"), secret }
}

#[test]
fn missing_credentials_are_asked_for_all_at_once_and_nobody_waits() {
    let mut worker = Scripted::start("prompts = ['user', 'password', 'user']", |_| {});
    let questions = vec![prompt("user", false), prompt("password", true)];
    assert_eq!(logon_failed(&mut worker), LogonError::Unanswered(questions));
    assert!(worker.child.wait().unwrap().success());
}

#[test]
fn answers_are_given_and_what_is_still_missing_is_asked() {
    let answer = |key: &str| (key.to_owned(), format!("my {key}"));
    let mut worker = Scripted::start("prompts = ['user', 'password']", |welcome| {
        welcome.flags = LogonFlags::default();
        welcome.answers = vec![answer("user")];
    });
    assert_eq!(logon_failed(&mut worker), LogonError::Unanswered(vec![prompt("password", true)]));
    let mut worker = Scripted::start("prompts = ['user', 'password']", |welcome| {
        welcome.answers = vec![answer("user"), answer("password")];
    });
    worker.wait_logged_on();
    assert_eq!(worker.calls()[1..], ["answer my user", "answer my password"]);
}

#[test]
fn an_smtp_provider_without_its_password_asks_for_it() {
    let settings = "host = '127.0.0.1:9'\nusername = 'me'";
    let error = logon_failed(&mut Peer::start("smtp", settings));
    let question = Prompt { key: "password".to_owned(), label: "Password of me".to_owned(), secret: true };
    assert_eq!(error, LogonError::Unanswered(vec![question]));
    let mut welcome = welcome("smtp", settings);
    welcome.answers = vec![("password".to_owned(), "sesame".to_owned())];
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_spooler-worker"));
    let mut peer = Peer::start_program(program, welcome);
    peer.wait_logged_on();
    peer.log_off();
}

#[test]
fn without_leave_to_connect_nothing_is_connected_until_it_is_given() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut welcome =
        welcome("smtp", &format!("host = '{}'\ntls = 'none'\nconnect_timeout = '1s'", listener.local_addr().unwrap()));
    welcome.flags |= LogonFlags::NO_CONNECT;
    let mut peer = Peer::start_program(std::path::Path::new(env!("CARGO_BIN_EXE_spooler-worker")), welcome);
    let offline = |peer: &mut Peer, expected| {
        peer.wait_for(|said| match said {
            FromWorker::Row { update, .. } if update.offline == Some(expected) => Ok(()),
            other => Err(other),
        });
    };
    offline(&mut peer, true);
    let (result, outcomes) = peer.deliver("a@d", &["b@d"], b"x\r\n");
    assert!(matches!(result, SubmitResult::NetworkError { .. }) && outcomes.is_empty(), "{result:?}");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "nobody has connected");
    listener.set_nonblocking(false).unwrap();
    let request = spooler_protocol::ids::RequestId(1);
    peer.say(&ToWorker::ValidateState { request, flags: ValidateFlags::CONNECT });
    offline(&mut peer, false);
    peer.submit(7, "a@d", &["b@d"], b"x\r\n");
    peer.grant(u32::MAX);
    listener.accept().unwrap();
}

#[test]
fn a_logoff_is_heard_while_the_provider_still_logs_on() {
    for hurry in [false, true] {
        let mut worker = Scripted::start("logon = ['say dialling; forever']", |_| {});
        worker.wait_said("dialling");
        worker.say(&ToWorker::Logoff { hurry });
        worker.wait_gone();
    }
}

#[test]
fn a_hurry_is_heard_while_a_soft_logoff_waits_for_deliveries() {
    let mut worker = Scripted::new("");
    worker.deliver_script(1, &["a@d", "b@d"], "settle 0 delivered; say begun; forever");
    worker.wait_said("begun");
    worker.say(&ToWorker::Logoff { hurry: false });
    // When this is answered, the first logoff has been heard.
    worker.say(&ToWorker::Idle);
    worker.collect(|said| *said == FromWorker::Idled);
    worker.say(&ToWorker::Logoff { hurry: true });
    worker.wait_gone();
    assert_eq!(worker.calls()[1..], ["logoff in a hurry"]);
}

#[test]
fn a_hurry_is_heard_while_logoff_itself_waits() {
    let mut worker = Scripted::new("logoff = ['say hanging up; forever', '']");
    worker.say(&ToWorker::Logoff { hurry: false });
    worker.wait_said("hanging up");
    worker.say(&ToWorker::Logoff { hurry: true });
    worker.wait_gone();
    assert_eq!(worker.calls(), ["logoff softly", "logoff in a hurry"]);
}

#[test]
fn calls_that_never_end_do_not_keep_a_worker_from_leaving_in_a_hurry() {
    let forever =
        ["poll", "start", "idle", "flush", "notify", "logoff"].map(|method| format!("{method} = ['forever']"));
    let mut worker = Scripted::start(&forever.join("\n"), |welcome| welcome.flags = LogonFlags::default());
    worker.wait_logged_on();
    let orders = [
        ToWorker::Poll,
        ToWorker::StartMessage,
        ToWorker::Idle,
        ToWorker::FlushQueues(spooler_protocol::calls::FlushFlags::INBOUND),
        ToWorker::Notify(Notification::BeginInbound),
    ];
    for order in &orders {
        worker.say(order);
    }
    worker.deliver_script(1, &["a@d"], "say all begun; forever");
    worker.wait_said("all begun");
    worker.say(&ToWorker::Logoff { hurry: true });
    worker.wait_gone();
    assert_eq!(worker.calls().len(), 8, "{:?}", worker.calls());
}

#[test]
fn a_soft_logoff_finishes_what_is_received_and_drops_housekeeping() {
    let mut worker = Scripted::new("start = ['write x; say half; wait go; accept']\nidle = ['forever']");
    worker.say(&ToWorker::Idle);
    worker.say(&ToWorker::StartMessage);
    worker.wait_said("half");
    worker.say(&ToWorker::Logoff { hurry: false });
    worker.go("go");
    let said = worker.collect(|said| *said == FromWorker::LoggedOff);
    assert!(said.contains(&FromWorker::StartEnded(StartResult::Saved)), "{said:?}");
    assert_eq!(worker.received.len(), 1);
}

#[test]
fn who_is_leaving_begins_nothing_and_answers_everything() {
    let mut worker = Scripted::new("");
    worker.deliver_script(1, &["a@d"], "say begun; wait go");
    worker.wait_said("begun");
    worker.say(&ToWorker::Logoff { hurry: false });
    worker.say(&ToWorker::Poll);
    worker.say(&ToWorker::StartMessage);
    worker.say(&ToWorker::Idle);
    worker.say(&ToWorker::FlushQueues(spooler_protocol::calls::FlushFlags::INBOUND));
    worker.deliver_script(2, &["a@d"], "settle 0 delivered");
    let request = worker.validate(ValidateFlags::CONNECT);
    let said = worker.collect(|said| matches!(said, FromWorker::Validated { .. }));
    assert_eq!(
        said[..4],
        [
            FromWorker::Polled { waiting: false },
            FromWorker::StartEnded(StartResult::NotSaved),
            FromWorker::Idled,
            FromWorker::FlushAnswered(Err(CallError::Busy)),
        ]
    );
    assert!(matches!(said[4], FromWorker::Finished { result: SubmitResult::Busy, .. }), "{said:?}");
    assert_eq!(said[5], FromWorker::Validated { request, result: Err(CallError::Busy) });
    worker.go("go");
    worker.wait_gone();
    assert_eq!(worker.calls()[1..], ["end 1", "logoff softly"]);
}
