//! Logging on with a person present.

use spooler_protocol::calls::{LogonFlags, Prompt, Wishes};
use spooler_protocol::control::{LogonCommand, LogonState};
use spooler_protocol::from_worker::{FromWorker, LogonError};
use spooler_protocol::limits::{PROMPTS_MAX, ROW_TEXT_BYTES_MAX};
use spooler_protocol::status::WorkerState;
use spooler_protocol::to_worker::{ToWorker, Welcome};

use super::bench::{Bench, Told, smtp};
use crate::supervisor::event::{Answer, Ask};

const ONE: &str = "[provider.a]\nkind = 'smtp'\n";

fn password() -> Prompt {
    Prompt { key: "password".to_owned(), label: "Password".to_owned(), secret: true }
}

fn fail(bench: &mut Bench, error: LogonError) {
    bench.say("a", FromWorker::LogonFailed(error));
    bench.die("a", "exit code 78");
}

fn log_on(bench: &mut Bench, answers: &[(&str, &str)]) -> Option<Answer> {
    let answers = answers.iter().map(|(key, answer)| ((*key).to_owned(), (*answer).to_owned())).collect();
    bench.ask(Ask::Logon("a".to_owned(), LogonCommand { answers, cancel: false }))
}

fn welcome(bench: &mut Bench) -> Welcome {
    let told = bench.told("a");
    let welcome = told.into_iter().find_map(|told| match told {
        Told::Word(ToWorker::Welcome(welcome)) => Some(welcome),
        _ => None,
    });
    welcome.expect("it was not welcomed")
}

/// The answer to the question of a client that was asked last.
fn answer(bench: &mut Bench) -> Answer {
    assert_eq!(bench.answers.len(), 1);
    let ask_id = *bench.answers.keys().next().unwrap();
    bench.answers.remove(&ask_id).unwrap()
}

#[test]
fn no_dialog_with_missing_credentials_bars_and_says_what_to_do() {
    let mut bench = Bench::new(ONE);
    fail(&mut bench, LogonError::Unanswered(vec![password()]));
    let row = bench.row("a");
    assert_eq!(row.state, WorkerState::Failed);
    assert!(row.text.contains("needs: password; run `spoolctl logon a`"), "{}", row.text);
    bench.pass(86_400_000);
    assert_eq!(bench.calls("a"), ["Welcome"], "nobody tries in vain");
}

#[test]
fn a_person_answers_and_the_answers_serve_later_workers_too() {
    let mut bench = Bench::new(ONE);
    fail(&mut bench, LogonError::Unanswered(vec![password()]));
    bench.calls("a");
    assert_eq!(log_on(&mut bench, &[]), None, "answered when the logon has ended");
    let flags = LogonFlags::NO_INBOUND | LogonFlags::NO_OUTBOUND;
    assert_eq!(welcome(&mut bench).flags, flags, "there is somebody to ask");
    fail(&mut bench, LogonError::Unanswered(vec![password()]));
    assert_eq!(answer(&mut bench), Answer::Logon(Ok(LogonState::Asks { prompts: vec![password()] })));
    assert_eq!(log_on(&mut bench, &[("password", "s3cret")]), None);
    let given = welcome(&mut bench);
    assert_eq!(given.answers, [("password".to_owned(), "s3cret".to_owned())]);
    bench.say("a", FromWorker::LoggedOn(smtp(Wishes::default())));
    assert_eq!(answer(&mut bench), Answer::Logon(Ok(LogonState::Ready)));
    assert_eq!(log_on(&mut bench, &[]), Some(Answer::Logon(Ok(LogonState::Ready))));
    bench.die("a", "signal 9");
    bench.pass(200);
    let again = welcome(&mut bench);
    assert_eq!((&again.answers, again.flags), (&given.answers, flags | LogonFlags::NO_DIALOG));
    let command = LogonCommand { answers: given.answers.iter().cloned().collect(), cancel: false };
    let shown = format!("{:?} {given:?} {command:?}", bench.supervisor);
    assert!(!shown.contains("s3cret") && !bench.log.iter().any(|line| line.contains("s3cret")));
}

#[test]
fn a_wrong_answer_is_not_tried_again_and_again() {
    let mut bench = Bench::new(ONE);
    fail(&mut bench, LogonError::Unanswered(vec![password()]));
    log_on(&mut bench, &[("password", "wrong")]);
    fail(&mut bench, LogonError::Failed("535 no".to_owned()));
    let Answer::Logon(Err(error)) = answer(&mut bench) else { panic!("it is logged on") };
    assert!(error.error.contains("535 no") && error.temporary, "{error:?}");
    bench.calls("a");
    bench.pass(60_000);
    assert!(welcome(&mut bench).answers.is_empty());
}

#[test]
fn giving_up_leaves_it_barred() {
    let mut bench = Bench::new(ONE);
    fail(&mut bench, LogonError::Unanswered(vec![password()]));
    let cancel = LogonCommand { cancel: true, ..LogonCommand::default() };
    let cancelled = bench.ask(Ask::Logon("a".to_owned(), cancel));
    assert_eq!(cancelled, Some(Answer::Logon(Ok(LogonState::Cancelled))));
    let row = bench.row("a");
    assert!(row.state == WorkerState::Failed && row.text.contains("cancelled"), "{row:?}");
}

#[test]
fn every_failed_logon_has_its_outcome() {
    let outcomes = [
        (
            LogonError::Unconfigured("no host".to_owned()),
            WorkerState::Failed,
            "no host; correct it, then run `reload it`",
        ),
        (LogonError::Other("odd".to_owned()), WorkerState::Failed, "odd; correct it, then run `reload it`"),
        (LogonError::Cancelled, WorkerState::Failed, "cancelled; run `spoolctl logon a`"),
        (LogonError::Unanswered(vec![password()]), WorkerState::Failed, "needs: password; run `spoolctl logon a`"),
        (LogonError::Failed("no line".to_owned()), WorkerState::Backoff, "no line"),
    ];
    for (error, state, text) in outcomes {
        let mut bench = Bench::new(ONE);
        fail(&mut bench, error);
        let row = bench.row("a");
        assert!(row.state == state && row.text.contains(text), "{row:?}");
    }
}

/// The file that was missing may be there now.
#[test]
fn failed_provider_is_tried_again_on_reload() {
    let mut bench = Bench::new(ONE);
    fail(&mut bench, LogonError::Unconfigured("no such file".to_owned()));
    bench.calls("a");
    bench.pass(3_600_000);
    assert!(bench.calls("a").is_empty(), "only a person can help");
    bench.reload(ONE);
    bench.say("a", FromWorker::LoggedOn(super::bench::smtp(spooler_protocol::calls::Wishes::default())));
    assert_eq!(bench.row("a").state, WorkerState::Ready);
}

/// Too many starts that came to nothing.
#[test]
fn failed_starts_name_the_restart_command() {
    let mut bench = Bench::new(ONE);
    while bench.row("a").state != WorkerState::Failed {
        bench.die("a", "exit status: 101");
        bench.pass(120_000);
    }
    let text = bench.row("a").text;
    assert!(text.contains("101; to try again, run `spoolctl provider restart a`"), "{text}");
}

#[test]
fn a_flood_of_questions_is_cut() {
    let mut bench = Bench::new(ONE);
    let long = Prompt { label: "x".repeat(10_000), ..password() };
    let many: Vec<Prompt> = (0..1000).map(|n| Prompt { key: format!("k{n}"), ..long.clone() }).collect();
    log_on(&mut bench, &[]);
    fail(&mut bench, LogonError::Unanswered(many));
    let Answer::Logon(Ok(LogonState::Asks { prompts })) = answer(&mut bench) else { panic!("it asks nothing") };
    assert!(prompts.len() == PROMPTS_MAX && prompts.iter().all(|prompt| prompt.label.len() <= ROW_TEXT_BYTES_MAX));
}

#[test]
fn an_answer_that_was_never_right_is_forgotten_when_the_person_has_gone_too() {
    let mut bench = Bench::new(ONE);
    fail(&mut bench, LogonError::Unanswered(vec![password()]));
    bench.calls("a");
    assert_eq!(log_on(&mut bench, &[("password", "wrong")]), None);
    assert_eq!(welcome(&mut bench).answers.len(), 1);
    // The worker dies before it can say whether the answer is right, and so the person is told.
    bench.die("a", "signal 9");
    assert!(matches!(answer(&mut bench), Answer::Logon(Err(_))));
    bench.pass(200);
    assert_eq!(welcome(&mut bench).answers.len(), 1, "it may be right");
    fail(&mut bench, LogonError::Failed("the password is wrong".to_owned()));
    bench.pass(60_000);
    assert!(welcome(&mut bench).answers.is_empty(), "it was wrong, and is not tried again");
}
