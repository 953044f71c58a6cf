//! Critical sections, validation, announcements, critical errors.

use spooler_protocol::calls::{CallError, SpoolerNotify, ValidateFlags};
use spooler_protocol::from_worker::FromWorker;
use spooler_protocol::notification::{Device, Notification, SystemMessage};
use spooler_protocol::to_worker::ToWorker;

use crate::scripted::Scripted;

fn ends_a_section(said: &FromWorker) -> bool {
    matches!(said, FromWorker::CriticalEnd { .. })
}

fn validated(worker: &mut Scripted, flags: ValidateFlags) -> Result<(), CallError> {
    let request = worker.validate(flags);
    worker.wait_for(|said| match said {
        FromWorker::Validated { request: of, result } if of == request => Ok(result),
        other => Err(other),
    })
}

#[test]
fn validate_state_reaches_the_provider_with_its_flags_and_unknown_ones_do_not() {
    let mut worker = Scripted::new("validate = ['', 'return no-support']");
    let flags = ValidateFlags::CONNECT | ValidateFlags::SUPPRESS_UI;
    // The script's first turn was used up when the worker was started.
    assert_eq!(validated(&mut worker, flags), Err(CallError::NoSupport));
    assert_eq!(validated(&mut worker, ValidateFlags(0x10)), Err(CallError::UnknownFlags));
    assert_eq!(validated(&mut worker, ValidateFlags(0x8000_0000) | flags), Err(CallError::UnknownFlags));
    assert_eq!(worker.calls(), ["validate 0x40001"]);
}

#[test]
fn in_a_critical_section_nothing_is_polled_or_idled_and_validation_is_busy() {
    let mut worker = Scripted::new("poll = ['return waiting']");
    worker.deliver_script(1, &["a@d"], "critical dialling; say in; wait go; noncritical; say out; wait end");
    worker.wait_said("in");
    worker.say(&ToWorker::Poll);
    worker.say(&ToWorker::Idle);
    assert_eq!((worker.next(), worker.next()), (FromWorker::Polled { waiting: false }, FromWorker::Idled));
    assert_eq!(validated(&mut worker, ValidateFlags::CONNECT), Err(CallError::Busy));
    worker.go("go");
    assert!(worker.wait_said("out").iter().any(ends_a_section));
    worker.say(&ToWorker::Poll);
    assert_eq!(worker.next(), FromWorker::Polled { waiting: true });
    worker.say(&ToWorker::Idle);
    assert_eq!(worker.next(), FromWorker::Idled);
    assert_eq!(validated(&mut worker, ValidateFlags::CONNECT), Ok(()));
    assert_eq!(worker.calls()[1..], ["poll", "idle", "validate 0x40000"]);
    worker.go("end");
    worker.finished(1);
}

#[test]
fn in_a_critical_section_only_an_explicit_yield_gives_the_token_back() {
    let mut worker = Scripted::new("");
    worker.grants = false;
    // The slice is nothing, but the section begins in the first piece of work, before it is over.
    let token = worker.grant(0);
    worker.deliver_script(1, &["a@d"], "critical dialling; say in; wait go; compute 5; yield; noncritical; say out");
    let before = worker.wait_said("in");
    assert!(before.iter().any(|said| matches!(said, FromWorker::CriticalBegin { .. })), "{before:?}");
    assert!(!before.iter().any(|said| matches!(said, FromWorker::Yield { .. })), "{before:?}");
    worker.say(&ToWorker::Recall { token });
    assert_eq!(validated(&mut worker, ValidateFlags::CONNECT), Err(CallError::Busy), "the recall was heard before");
    worker.go("go");
    assert_eq!(worker.next(), FromWorker::Yield { token, more: true });
    worker.grants = true;
    worker.grant(200);
    assert!(worker.wait_said("out").iter().any(ends_a_section));
    worker.finished(1);
}

#[test]
fn sections_of_a_call_that_is_dropped_are_ended() {
    let mut worker = Scripted::new("");
    worker.deliver_script(1, &["a@d"], "critical dialling; critical shaking hands; say in; forever");
    worker.wait_said("in");
    worker.say(&ToWorker::Logoff { hurry: true });
    let said = worker.collect(|said| *said == FromWorker::LoggedOff);
    assert_eq!(said.iter().filter(|said| ends_a_section(said)).count(), 2, "{said:?}");
}

#[test]
fn a_change_of_configuration_is_told_and_then_announced() {
    let mut worker = Scripted::new("idle = ['notify config']");
    worker.say(&ToWorker::Idle);
    assert_eq!(worker.next(), FromWorker::Notify(SpoolerNotify::ConfigChange));
    worker.say(&ToWorker::Announce);
    let announced = worker.wait_for(|said| match said {
        FromWorker::Announced(announced) => Ok(announced),
        other => Err(other),
    });
    assert_eq!((announced.address_types, announced.credit), (vec!["SMTP".to_owned()], 100));
}

#[test]
fn after_a_critical_error_the_provider_can_be_validated() {
    let mut worker = Scripted::new("idle = ['notify the modem is gone']");
    worker.say(&ToWorker::Idle);
    assert_eq!(worker.next(), FromWorker::Notify(SpoolerNotify::CriticalError("the modem is gone".to_owned())));
    assert_eq!(validated(&mut worker, ValidateFlags::CONFIG_CHANGED), Ok(()));
    worker.log_off_well();
}

#[test]
fn news_comes_in_its_order_one_after_another_while_deliveries_run() {
    let mut worker = Scripted::new("notify = ['', '', 'wait go', '']");
    worker.deliver_script(1, &["a@d"], "say begun; wait end");
    worker.wait_said("begun");
    let device = Device { subsystem: "tty".to_owned(), name: "ttyUSB0".to_owned() };
    let news = [
        Notification::System(SystemMessage::Suspend),
        Notification::System(SystemMessage::DeviceRemoved(device)),
        Notification::EndInbound,
    ];
    news.clone().into_iter().for_each(|news| worker.tell(news));
    worker.calm();
    let began: Vec<String> = news.iter().map(|news| format!("notify {news:?}")).collect();
    let told = |worker: &Scripted| {
        worker.calls().into_iter().filter(|call| call.starts_with("notify ")).collect::<Vec<String>>()
    };
    assert_eq!(told(&worker), [began[0].as_str()], "the next word waits until this one was dealt with");
    worker.go("go");
    worker.go("end");
    worker.finished(1);
    worker.say(&ToWorker::Logoff { hurry: false });
    worker.wait_gone();
    let returned = "notify returned".to_owned();
    let expected: Vec<String> = began.into_iter().flat_map(|began| [began, returned.clone()]).collect();
    assert_eq!(told(&worker), expected);
}
