//! Providers look after their state.

use spooler_protocol::calls::{CallError, LogonFlags, SpoolerNotify, ValidateFlags, Wishes};
use spooler_protocol::control::{ProviderAction, ProviderCommand, Validated};
use spooler_protocol::from_worker::{FromWorker, LogonError, RowUpdate};
use spooler_protocol::ids::RequestId;
use spooler_protocol::to_worker::ToWorker;

use super::bench::{Bench, Told, smtp};
use crate::supervisor::event::{Answer, Ask, Event};

const TWO: &str = "[provider.a]\nkind = 'smtp'\n[provider.b]\nkind = 'smtp'\n";

fn both() -> Bench {
    Bench::ready(TWO, &[("a", smtp(Wishes::default())), ("b", smtp(Wishes::default()))])
}

fn validate(bench: &mut Bench, name: &str, flags: ValidateFlags) -> Option<Answer> {
    let command = ProviderCommand { action: ProviderAction::Validate, flags };
    bench.ask(Ask::Provider(name.to_owned(), command))
}

fn request(bench: &mut Bench, name: &str) -> (RequestId, ValidateFlags) {
    let found = bench.told(name).into_iter().find_map(|told| match told {
        Told::Word(ToWorker::ValidateState { request, flags }) => Some((request, flags)),
        _ => None,
    });
    found.expect("it was not asked")
}

fn answer(bench: &mut Bench) -> Option<Answer> {
    let ask_id = *bench.answers.keys().next()?;
    bench.answers.remove(&ask_id)
}

#[test]
fn the_provider_answers_for_itself() {
    let mut bench = both();
    assert_eq!(validate(&mut bench, "a", ValidateFlags::CONNECT), None);
    let (number, flags) = request(&mut bench, "a");
    assert_eq!(flags, ValidateFlags::CONNECT);
    bench.say("b", FromWorker::Validated { request: number, result: Ok(()) });
    bench.say("a", FromWorker::Validated { request: RequestId(number.0 + 1), result: Ok(()) });
    assert_eq!(answer(&mut bench), None, "nobody answers for somebody else");
    bench.say("a", FromWorker::Validated { request: number, result: Ok(()) });
    assert_eq!(answer(&mut bench), Some(Answer::Provider(Ok(()))));
}

#[test]
fn offline_lasts_until_somebody_has_it_connect_and_the_next_worker_knows() {
    let mut bench = Bench::new("[provider.a]\nkind = 'smtp'\nno_connect = true\n");
    let told_no_connect = |bench: &mut Bench| {
        let flags = bench.told("a").into_iter().find_map(|told| match told {
            Told::Word(ToWorker::Welcome(welcome)) => Some(welcome.flags),
            _ => None,
        });
        flags.expect("it was not welcomed").contains(LogonFlags::NO_CONNECT)
    };
    let replaced = |bench: &mut Bench| {
        bench.die("a", "killed");
        bench.pass(5000);
        let told = told_no_connect(bench);
        bench.say("a", FromWorker::LoggedOn(smtp(Wishes::default())));
        told
    };
    assert!(told_no_connect(&mut bench));
    bench.say("a", FromWorker::LoggedOn(smtp(Wishes::default())));
    for (flags, result, offline) in [
        (ValidateFlags::SUPPRESS_UI, Ok(()), true),
        (ValidateFlags::CONNECT, Err(CallError::NoSupport), true),
        (ValidateFlags::CONNECT, Ok(()), false),
        (ValidateFlags::DISCONNECT, Ok(()), true),
    ] {
        validate(&mut bench, "a", flags);
        let (number, _) = request(&mut bench, "a");
        bench.say("a", FromWorker::Validated { request: number, result });
        assert_eq!(replaced(&mut bench), offline, "{flags:?}");
    }
    let online = crate::config::parse("[provider.a]\nkind = 'smtp'\n", std::path::Path::new("x.toml")).unwrap();
    bench.hear(Event::Reload(Box::new(online)));
    assert!(bench.calls("a").contains(&"Logoff".to_owned()));
    assert!(!replaced(&mut bench), "and so does a change of the configuration");
}

#[test]
fn busy_in_a_critical_section_is_passed_on() {
    let mut bench = both();
    validate(&mut bench, "a", ValidateFlags::default());
    let (number, _) = request(&mut bench, "a");
    bench.say("a", FromWorker::Validated { request: number, result: Err(CallError::Busy) });
    let Some(Answer::Provider(Err(error))) = answer(&mut bench) else { panic!("it was validated") };
    assert!(error.temporary && error.error.contains("busy"), "{error:?}");
}

#[test]
fn one_that_must_not_be_asked_now_is_only_told_to_stop() {
    let mut bench = both();
    let row = |sequence, ok| {
        let update = RowUpdate { validate_ok: Some(ok), ..RowUpdate::default() };
        FromWorker::Row { row: String::new(), sequence, update: Box::new(update) }
    };
    bench.say("a", row(1, false));
    assert!(!bench.row("a").validate_ok);
    let Some(Answer::Provider(Err(error))) = validate(&mut bench, "a", ValidateFlags::CONNECT) else { panic!("asked") };
    assert!(error.temporary && error.error.contains("busy"), "{error:?}");
    assert_eq!(bench.calls("a"), [""; 0]);
    assert_eq!(validate(&mut bench, "a", ValidateFlags::ABORT_HEADERS), None);
    let (number, _) = request(&mut bench, "a");
    bench.say("a", FromWorker::Validated { request: number, result: Ok(()) });
    assert_eq!(answer(&mut bench), Some(Answer::Provider(Ok(()))));
    bench.say("a", row(2, true));
    assert_eq!(validate(&mut bench, "a", ValidateFlags::CONNECT), None, "it is asked again");
}

#[test]
fn critical_error_then_revalidate_is_a_new_session() {
    let mut bench = both();
    let before = bench.generation("a");
    bench.notify("a", SpoolerNotify::CriticalError("stuck".to_owned()));
    assert_eq!(validate(&mut bench, "a", ValidateFlags::default()), Some(Answer::Provider(Ok(()))));
    assert_eq!(bench.calls("a"), ["EndInbound", "EndOutbound", "Logoff"]);
    bench.die("a", "exit code 0");
    assert_eq!(bench.calls("a"), ["Welcome"]);
    assert!(bench.generation("a") > before);
    bench.say("a", FromWorker::LoggedOn(smtp(Wishes::default())));
    bench.submit(&["x@y"]);
    assert!(bench.calls("a").contains(&"Submit 1".to_owned()));
}

#[test]
fn the_whole_spooler_is_validated_and_the_failed_are_logged_on_again() {
    let mut bench = Bench::ready(TWO, &[("a", smtp(Wishes::default()))]);
    bench.say("b", FromWorker::LogonFailed(LogonError::Unconfigured("no host".to_owned())));
    bench.die("b", "exit code 78");
    assert_eq!(bench.ask(Ask::ValidateAll(ValidateFlags::SUPPRESS_UI)), None);
    assert_eq!(bench.calls("b"), ["Welcome"]);
    let (number, _) = request(&mut bench, "a");
    bench.say("a", FromWorker::Validated { request: number, result: Err(CallError::Failed("no line".to_owned())) });
    let validated =
        |provider: &str, ok, text: &str| Validated { provider: provider.to_owned(), ok, text: text.to_owned() };
    let expected = vec![validated("b", true, "had failed and is logged on again"), validated("a", false, "no line")];
    assert_eq!(answer(&mut bench), Some(Answer::Validated(expected)));
}

#[test]
fn config_changed_on_the_spooler_asks_everybody_what_it_serves() {
    let mut bench = both();
    let done = bench.ask(Ask::ValidateAll(ValidateFlags::CONFIG_CHANGED | ValidateFlags::SUPPRESS_UI));
    assert!(matches!(&done, Some(Answer::Validated(all)) if all.iter().all(|one| one.ok)), "{done:?}");
    assert_eq!((bench.calls("a"), bench.calls("b")), (vec!["Announce".to_owned()], vec!["Announce".to_owned()]));
}

#[test]
fn nobody_waits_for_ever() {
    let mut bench = both();
    validate(&mut bench, "a", ValidateFlags::default());
    bench.pass(30_000);
    assert!(matches!(answer(&mut bench), Some(Answer::Provider(Err(_)))));
    validate(&mut bench, "a", ValidateFlags::default());
    bench.die("a", "signal 9");
    assert!(matches!(answer(&mut bench), Some(Answer::Provider(Err(_)))));
}
