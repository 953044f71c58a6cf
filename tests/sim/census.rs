//! What happens in runs, by kind: whatever the supervisor can hear has to be heard in some of them, or nothing is known of it. What
//! is not named here cannot reach it: bodies and uploads of workers end in the driver.

use std::collections::BTreeMap;

use spooler::supervisor::event::{Ask, Event, WorkerNews};
use spooler_protocol::calls::{EndMessage, SpoolerNotify};
use spooler_protocol::from_worker::FromWorker;
use spooler_protocol::notification::SystemMessage;
use spooler_protocol::outcome::SubmitResult;

/// How often each kind was heard.
pub(crate) type Census = BTreeMap<&'static str, u64>;

/// What has to be heard in some run.
pub(crate) const EVERYTHING: [&str; 75] = [
    "worker: started",
    "worker: not started",
    "worker: accept",
    "worker: garbled",
    "worker: died",
    "worker: priority",
    "worker: clock",
    "worker: reads",
    "worker: uploads",
    "said: logged on",
    "said: logon failed",
    "said: announced",
    "said: want",
    "said: yield",
    "said: settled",
    "said: status of recipients",
    "said: progress",
    "said: critical begin",
    "said: critical end",
    "said: row",
    "said: polled",
    "said: start ended",
    "said: idled",
    "said: flush answered",
    "said: validated",
    "said: logged off",
    "said: confined",
    "notify: new mail",
    "notify: ready to send",
    "notify: sent deferred",
    "notify: configuration changed",
    "notify: critical error",
    "end: done",
    "end: resend now",
    "end: resend later",
    "end: deferred",
    "result: busy",
    "result: not me",
    "result: wait",
    "result: cancelled",
    "result: error",
    "result: network error",
    "result: not wanted",
    "system: shutdown",
    "system: power failure",
    "system: suspend",
    "system: resume",
    "system: device added",
    "system: device removed",
    "system: link up",
    "system: link down",
    "disk: committed",
    "disk: refused",
    "disk: upload finished",
    "disk: scanned",
    "disk: scan ended",
    "disk: report built",
    "disk: unreadable",
    "disk: read failed",
    "disk: not read",
    "disk: stuck",
    "disk: works again",
    "ask: submit",
    "ask: status",
    "ask: queue",
    "ask: flush",
    "ask: flush progress",
    "ask: flush end",
    "ask: provider",
    "ask: validate all",
    "ask: detail",
    "ask: logon",
    "machine: observed",
    "machine: devices",
    "machine: idle hint",
];

/// Of which kind an event is.
pub(crate) fn kind(event: &Event) -> &'static str {
    match event {
        Event::Worker(_, news) => kind_of_news(news),
        Event::Committed(_, Ok(())) => "disk: committed",
        Event::Committed(_, Err(_)) => "disk: refused",
        Event::UploadFinished(..) => "disk: upload finished",
        Event::Scanned(_) => "disk: scanned",
        Event::ScanEnded(_) => "disk: scan ended",
        Event::ReportBuilt(..) => "disk: report built",
        Event::Unreadable(..) => "disk: unreadable",
        Event::ReadFailed(..) => "disk: read failed",
        Event::NotRead(..) => "disk: not read",
        Event::StoreStuck(Some(_)) => "disk: stuck",
        Event::StoreStuck(None) => "disk: works again",
        Event::Asked(_, ask) => kind_of_ask(ask),
        Event::Observed(_) => "machine: observed",
        Event::DevicesUncertain | Event::DevicePresent(..) => "machine: devices",
        Event::IdleHint(_) => "machine: idle hint",
        Event::System(message) => kind_of_message(message),
        Event::Reload(_) => "reload",
        Event::Stop => "stop",
        Event::Tick => "tick",
    }
}

fn kind_of_news(news: &WorkerNews) -> &'static str {
    match news {
        WorkerNews::Started { .. } => "worker: started",
        WorkerNews::StartFailed(_) => "worker: not started",
        WorkerNews::Said { said, .. } => kind_of_word(said),
        WorkerNews::Accept { .. } => "worker: accept",
        WorkerNews::Garbled(_) => "worker: garbled",
        WorkerNews::Died(_) => "worker: died",
        WorkerNews::Priority(..) => "worker: priority",
        WorkerNews::Cpu(_) => "worker: clock",
        WorkerNews::Reads(_) => "worker: reads",
        WorkerNews::Programs(_) => "worker: programs",
        WorkerNews::Uploads => "worker: uploads",
    }
}

fn kind_of_word(said: &FromWorker) -> &'static str {
    match said {
        FromWorker::LoggedOn(_) => "said: logged on",
        FromWorker::LogonFailed(_) => "said: logon failed",
        FromWorker::Announced(_) => "said: announced",
        FromWorker::Want => "said: want",
        FromWorker::Yield { .. } => "said: yield",
        FromWorker::Settled { .. } => "said: settled",
        FromWorker::Finished { result, end, .. } => kind_of_end(result, *end),
        FromWorker::StatusRecips { .. } => "said: status of recipients",
        FromWorker::Progress { .. } => "said: progress",
        FromWorker::CriticalBegin { .. } => "said: critical begin",
        FromWorker::CriticalEnd { .. } => "said: critical end",
        FromWorker::Row { .. } => "said: row",
        FromWorker::Notify(news) => match news {
            SpoolerNotify::NewMail => "notify: new mail",
            SpoolerNotify::ReadyToSend => "notify: ready to send",
            SpoolerNotify::SentDeferred(_) => "notify: sent deferred",
            SpoolerNotify::ConfigChange => "notify: configuration changed",
            SpoolerNotify::CriticalError(_) => "notify: critical error",
        },
        FromWorker::Polled { .. } => "said: polled",
        FromWorker::StartEnded(_) => "said: start ended",
        FromWorker::Idled => "said: idled",
        FromWorker::FlushAnswered(_) => "said: flush answered",
        FromWorker::Validated { .. } => "said: validated",
        FromWorker::LoggedOff => "said: logged off",
        FromWorker::Confined(_) => "said: confined",
        FromWorker::ReadBody { .. }
        | FromWorker::Upload { .. }
        | FromWorker::UploadAbandoned { .. }
        | FromWorker::UploadBegins { .. }
        | FromWorker::Accept { .. } => "said: what ends in the driver",
    }
}

fn kind_of_end(result: &SubmitResult, end: EndMessage) -> &'static str {
    match (result, end) {
        (SubmitResult::Done, EndMessage::Done) => "end: done",
        (SubmitResult::Done, EndMessage::ResendNow) => "end: resend now",
        (SubmitResult::Done, EndMessage::ResendLater) => "end: resend later",
        (SubmitResult::Done, EndMessage::Deferred) => "end: deferred",
        (SubmitResult::Busy, _) => "result: busy",
        (SubmitResult::NotMe, _) => "result: not me",
        (SubmitResult::Wait { .. }, _) => "result: wait",
        (SubmitResult::Cancelled, _) => "result: cancelled",
        (SubmitResult::Error(_), _) => "result: error",
        (SubmitResult::NetworkError { .. }, _) => "result: network error",
        (SubmitResult::NotWanted, _) => "result: not wanted",
    }
}

fn kind_of_message(message: &SystemMessage) -> &'static str {
    match message {
        SystemMessage::Shutdown => "system: shutdown",
        SystemMessage::PowerFailure => "system: power failure",
        SystemMessage::Suspend => "system: suspend",
        SystemMessage::Resume => "system: resume",
        SystemMessage::DeviceAdded(_) => "system: device added",
        SystemMessage::DeviceRemoved(_) => "system: device removed",
        SystemMessage::LinkUp { .. } => "system: link up",
        SystemMessage::LinkDown { .. } => "system: link down",
    }
}

fn kind_of_ask(ask: &Ask) -> &'static str {
    match ask {
        Ask::Submit { .. } => "ask: submit",
        Ask::Status => "ask: status",
        Ask::Overlay(..) => "ask: overlay",
        Ask::Queue(..) => "ask: queue",
        Ask::FlushBegin(_) => "ask: flush",
        Ask::FlushProgress(_) => "ask: flush progress",
        Ask::FlushEnd(_) => "ask: flush end",
        Ask::Provider(..) => "ask: provider",
        Ask::ValidateAll(_) => "ask: validate all",
        Ask::ProviderDetail(_) => "ask: detail",
        Ask::Logon(..) => "ask: logon",
    }
}
