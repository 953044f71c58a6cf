//! The worker of the contract tests: its provider, kind `scripted`, writes down every call and does in it what the test wants.
//!
//! What it says of itself: `announces` (address types), `prefer_last`, `credit`, `wishes`. What it writes goes to the file `calls` in `folder`, one line for each call and each thing that it learns. What it does are steps,
//! separated by `;` or line ends. Those of `submit_message` are the content of the message; those of the other methods are settings of
//! their names, a list for the first call, the second and so on, of which the last one stays.
//!
//! | step | |
//! |---|---|
//! | `say TEXT` | shows a text in its row, at once |
//! | `wait NAME` | until there is a file of this name in `folder` |
//! | `forever` | waits for what never comes |
//! | `compute MS` | uses so much time without waiting |
//! | `yield` | yields, and writes down what that brings |
//! | `flushing` | writes down what is being flushed |
//! | `critical REASON`, `noncritical` | begins a critical section; ends the last one |
//! | `settle N WORD`, `report N WORD` | of recipient N, or all with `*`: `delivered`, `failed`, `deferred`; long with an `!` behind |
//! | `settle-again N WORD` | the same as `settle`, if the message was deferred before |
//! | `settle-if NAME WORD` | the same for all, if there is a file of this name in `folder` |
//! | `cancelled` | waits for the cancellation of the message |
//! | `write TEXT`, `accept [ADDRESS]` | fills the message on its way in, and hands it over, for nobody or somebody |
//! | `set BIT`, `clear BIT` | `inbound`, `outbound`: flush bits of its row |
//! | `progress N`, `row NAME N` | shows a progress in its own row, or in one that it adds |
//! | `notify WORD` | `new-mail`, `ready`, `deferred`, `config`, `error` |
//! | `return WORD` | ends the method, with the result of this name; the default is the first in its match below |

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use spooler_protocol::calls::{CallError, EndMessage, FlushFlags, SpoolerNotify, StatusReport, ValidateFlags, Wishes};
use spooler_protocol::from_worker::{LogonError, RowUpdate};
use spooler_protocol::ids::{DeliveryId, MessageId};
use spooler_protocol::limits::REPLY_BYTES_MAX;
use spooler_protocol::message::{Envelope, Recipient};
use spooler_protocol::notification::Notification;
use spooler_protocol::outcome::{Outcome, Reply, SubmitResult};
use spooler_protocol::settings::{Findings, Settings};
use spooler_worker::runtime::{self, Ended};
use spooler_worker::{Capacity, CriticalSection, Delivery, Identity, Inbound, Needs, Provider, Support, bootstrap};

/// The methods that have scripts in the settings.
const METHODS: [&str; 9] = ["logon", "end", "poll", "start", "idle", "flush", "validate", "notify", "logoff"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--connect"] => {}
        ["--check", _] => return say(&serde_json::to_string(&Findings::default()).unwrap_or_default()),
        _ => return kinds(&arguments),
    }
    let session = async |link, inbox, welcome| Ok(runtime::run::<Scripted>(link, inbox, welcome).await);
    match bootstrap::run_with(session) {
        Ok(Ended::LoggedOff | Ended::LogonFailed) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// What the supervisor asks before it believes a configuration.
fn kinds(arguments: &[String]) -> ExitCode {
    if arguments == ["--kinds"] { say("scripted") } else { ExitCode::FAILURE }
}

fn say(text: &str) -> ExitCode {
    writeln!(std::io::stdout().lock(), "{text}").map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

struct ScriptedSettings {
    folder: PathBuf,
    scripts: HashMap<&'static str, VecDeque<String>>,
    wishes: Vec<String>,
    prompts: Vec<String>,
    announced: Announced,
}

/// What it says of itself at logon.
#[derive(Clone)]
struct Announced {
    types: Vec<String>,
    prefer_last: bool,
    credit: u32,
}

struct Scripted {
    support: Support,
    folder: PathBuf,
    scripts: RefCell<HashMap<&'static str, VecDeque<String>>>,
    wishes: Wishes,
    announced: Announced,
}

/// What the steps of one call act on.
#[derive(Default)]
struct Scene<'a> {
    delivery: Option<&'a Delivery>,
    inbound: Option<Inbound>,
    critical: Vec<CriticalSection>,
}

impl Provider for Scripted {
    type Settings = ScriptedSettings;

    fn settings(settings: &mut Settings) -> ScriptedSettings {
        let script = |settings: &mut Settings, method| settings.strings(method, &[]).into();
        ScriptedSettings {
            folder: PathBuf::from(settings.string("folder", "")),
            scripts: METHODS.into_iter().map(|method| (method, script(settings, method))).collect(),
            wishes: settings.strings("wishes", &[]),
            prompts: settings.strings("prompts", &[]),
            announced: Announced {
                types: settings.strings("announces", &["SMTP"]),
                prefer_last: settings.boolean("prefer_last", false),
                credit: settings.integer("credit", 100, 1..=100),
            },
        }
    }

    fn needs(settings: &ScriptedSettings) -> Needs {
        let identity = Identity::Supervisor("writes into a folder of the test");
        Needs { write: vec![settings.folder.clone()], identity, ..Needs::default() }
    }

    async fn logon(support: Support, settings: ScriptedSettings) -> Result<Self, LogonError> {
        let mut wishes = Wishes::default();
        for wish in &settings.wishes {
            wishes |= match wish.as_str() {
                "poll" => Wishes::POLL,
                "idle" => Wishes::IDLE,
                _ => Wishes::RESOLVE,
            };
        }
        let scripts = RefCell::new(settings.scripts);
        let scripted = Self { support, folder: settings.folder, scripts, wishes, announced: settings.announced };
        scripted.record(&format!("logon {:?}", scripted.support.logon_flags()));
        let asked = |key: &String| scripted.support.prompt(key, &format!("Your {key}"), key == "password");
        let answers: Vec<_> = settings.prompts.iter().map(asked).collect();
        if let Some(unanswered) = answers.iter().rev().find_map(|answer| answer.as_ref().err()) {
            return Err(unanswered.clone());
        }
        for answer in answers {
            scripted.record(&format!("answer {}", answer?));
        }
        match scripted.play("logon").await.as_str() {
            "failed" => Err(LogonError::Failed("the script says so".to_owned())),
            _ => Ok(scripted),
        }
    }

    fn address_types(&self) -> Vec<String> {
        self.announced.types.clone()
    }

    fn prefer_last(&self) -> bool {
        self.announced.prefer_last
    }

    fn identity(&self) -> String {
        self.folder.display().to_string()
    }

    fn capacity(&self) -> Capacity {
        Capacity { credit: self.announced.credit, ..Capacity::default() }
    }

    fn wishes(&self) -> Wishes {
        self.wishes
    }

    async fn submit_message(&self, delivery: &Delivery) -> SubmitResult {
        let shown = |recipients: &[Recipient]| {
            recipients.iter().take(3).map(|recipient| recipient.address.text().to_owned()).collect::<Vec<_>>().join(",")
        };
        let again = if delivery.deferred_before() { " deferred before" } else { "" };
        let (to, others) = (shown(delivery.recipients()), shown(delivery.others()));
        self.record(&format!("submit {} to {to} others {others}{again}", delivery.submission().delivery));
        let content = delivery.content(0).await.unwrap_or_default();
        let mut scene = Scene { delivery: Some(delivery), ..Scene::default() };
        match self.act(&String::from_utf8_lossy(&content), &mut scene).await.as_str() {
            "busy" => SubmitResult::Busy,
            "not-me" => SubmitResult::NotMe,
            "wait" => SubmitResult::Wait { after_ms: 7 },
            "cancelled" => SubmitResult::Cancelled,
            "not-wanted" => SubmitResult::NotWanted,
            "error" => SubmitResult::Error(reply("error")),
            "network-error" => SubmitResult::NetworkError { after_ms: 7, reply: Box::new(reply("network error")) },
            _ => SubmitResult::Done,
        }
    }

    async fn end_message(&self, delivery: DeliveryId) -> EndMessage {
        self.record(&format!("end {delivery}"));
        match self.play("end").await.as_str() {
            "resend-now" => EndMessage::ResendNow,
            "resend-later" => EndMessage::ResendLater,
            "deferred" => EndMessage::Deferred,
            _ => EndMessage::Done,
        }
    }

    async fn poll(&self) -> bool {
        self.record("poll");
        self.play("poll").await == "waiting"
    }

    async fn start_message(&self, message: Inbound) -> Result<(), String> {
        self.record("start");
        let mut scene = Scene { inbound: Some(message), ..Scene::default() };
        let script = self.next_script("start");
        match self.act(&script, &mut scene).await.as_str() {
            "failed" => Err("the line broke".to_owned()),
            _ => Ok(()),
        }
    }

    async fn idle(&self) {
        self.record("idle");
        self.play("idle").await;
    }

    async fn flush_queues(&self, support: &Support, flags: FlushFlags) -> Result<(), CallError> {
        self.record(&format!("flush {:#x}", flags.0));
        match self.play("flush").await.as_str() {
            "busy" => Err(CallError::Busy),
            _ => {
                support.set_flush_bits(flags);
                Ok(())
            }
        }
    }

    async fn validate_state(&self, _: &Support, flags: ValidateFlags) -> Result<(), CallError> {
        self.record(&format!("validate {:#x}", flags.0));
        match self.play("validate").await.as_str() {
            "no-support" => Err(CallError::NoSupport),
            _ => Ok(()),
        }
    }

    async fn notify(&self, notification: &Notification) {
        self.record(&format!("notify {notification:?}"));
        self.play("notify").await;
        self.record("notify returned");
    }

    async fn logoff(&self, hurry: bool) {
        self.record(&format!("logoff {}", if hurry { "in a hurry" } else { "softly" }));
        self.play("logoff").await;
    }
}

impl Scripted {
    /// Writes down what happened. The test reads it when it has seen what comes later.
    fn record(&self, what: &str) {
        let file = std::fs::File::options().create(true).append(true).open(self.folder.join("calls"));
        let written = file.and_then(|mut file| writeln!(file, "{what}"));
        if let Err(error) = written {
            tracing::error!(%error, what, "cannot be written down");
        }
    }

    fn record_debug(&self, what: &str, result: &impl Debug) {
        self.record(&format!("{what} {result:?}"));
    }

    fn next_script(&self, method: &str) -> String {
        let mut scripts = self.scripts.borrow_mut();
        let Some(script) = scripts.get_mut(method) else { return String::new() };
        if script.len() > 1 { script.pop_front() } else { script.front().cloned() }.unwrap_or_default()
    }

    async fn play(&self, method: &str) -> String {
        let script = self.next_script(method);
        self.act(&script, &mut Scene::default()).await
    }

    /// Does the steps of a script; gives the word that it returns, or nothing.
    async fn act(&self, script: &str, scene: &mut Scene<'_>) -> String {
        let steps = script.split([';', '\n', '\r']).map(str::trim).filter(|step| !step.is_empty());
        for step in steps {
            let (verb, rest) = step.split_once(' ').unwrap_or((step, ""));
            if verb == "return" {
                return rest.to_owned();
            }
            if !self.show(verb, rest) && !self.handle(verb, rest, scene).await {
                self.record(&format!("no such step: {step}"));
            }
        }
        String::new()
    }

    /// Steps that wait for nothing and need only the spooler.
    fn show(&self, verb: &str, rest: &str) -> bool {
        let update = RowUpdate::default();
        match verb {
            "say" => {
                let text = Some(rest.to_owned());
                self.support.modify_status_row(RowUpdate { text, offline: Some(false), ..update });
            }
            "set" | "clear" => {
                let bit = |name| (rest == name).then_some(verb == "set");
                let (inbound_flush, outbound_flush) = (bit("inbound"), bit("outbound"));
                self.support.modify_status_row(RowUpdate { inbound_flush, outbound_flush, ..update });
            }
            "flushing" => self.record(&format!("flushing {:#x}", self.support.flushing().0)),
            "progress" => self.support.modify_status_row(RowUpdate { progress: rest.parse().ok(), ..update }),
            "row" => {
                let (name, percent) = rest.split_once(' ').unwrap_or((rest, ""));
                let added = self.support.add_status_row(name);
                let progress = percent.parse().ok();
                self.record_debug(
                    "row",
                    &added.and_then(|()| self.support.modify_row(name, RowUpdate { progress, ..update })),
                );
            }
            "notify" => self.support.spooler_notify(match rest {
                "new-mail" => SpoolerNotify::NewMail,
                "ready" => SpoolerNotify::ReadyToSend,
                "deferred" => SpoolerNotify::SentDeferred(MessageId(1)),
                "config" => SpoolerNotify::ConfigChange,
                _ => SpoolerNotify::CriticalError(rest.to_owned()),
            }),
            _ => return false,
        }
        true
    }

    /// The other steps.
    async fn handle(&self, verb: &str, rest: &str, scene: &mut Scene<'_>) -> bool {
        match (verb, scene.delivery, &mut scene.inbound) {
            ("wait", ..) => {
                while !self.folder.join(rest).exists() {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
            ("forever", ..) => std::future::pending().await,
            ("compute", ..) => {
                let until = Instant::now() + Duration::from_millis(rest.parse().unwrap_or(0));
                while Instant::now() < until {
                    std::hint::black_box(until);
                }
            }
            ("yield", ..) => self.record_debug("yield", &self.support.spooler_yield().await),
            ("critical", ..) => scene.critical.push(self.support.critical_section(rest).await),
            ("noncritical", ..) => drop(scene.critical.pop()),
            ("settle", Some(delivery), _) => settle(delivery, rest),
            ("settle-again", Some(delivery), _) if delivery.deferred_before() => settle(delivery, rest),
            ("settle-if", Some(delivery), _) => {
                let (name, word) = rest.split_once(' ').unwrap_or((rest, ""));
                if self.folder.join(name).exists() {
                    settle(delivery, &format!("* {word}"));
                }
            }
            ("settle-again", Some(_), _) => {}
            ("report", Some(delivery), _) => report(delivery, rest),
            ("cancelled", Some(delivery), _) => delivery.cancelled().await,
            ("cancelled", None, Some(inbound)) => inbound.cancelled().await,
            ("write", None, Some(inbound)) => self.record_debug("write", &inbound.write(rest.as_bytes()).await),
            ("accept", None, inbound @ Some(_)) => {
                let recipients = rest.parse().map(Recipient::new).into_iter().collect();
                let envelope = Envelope { recipients, ..Envelope::default() };
                if let Some(inbound) = inbound.take() {
                    self.record_debug("accept", &inbound.accept(envelope).await.map_err(|refusal| refusal.text));
                }
            }
            _ => return false,
        }
        true
    }
}

fn reply(word: &str) -> Reply {
    Reply::local(250, "2.0.0", if word.ends_with('!') { word.repeat(REPLY_BYTES_MAX) } else { word.to_owned() })
}

/// The recipients that a step is about, all with `*`, and its word.
fn meant<'a>(delivery: &Delivery, rest: &'a str) -> (std::ops::Range<usize>, &'a str) {
    let (which, word) = rest.split_once(' ').unwrap_or((rest, ""));
    match which.parse() {
        Ok(index) => (index..index + 1, word),
        Err(_) => (0..delivery.recipients().len(), word),
    }
}

fn settle(delivery: &Delivery, rest: &str) {
    let (indexes, word) = meant(delivery, rest);
    for index in indexes {
        delivery.settle(
            index,
            match word.trim_end_matches('!') {
                "failed" => Outcome::Failed(reply(word)),
                "deferred" => Outcome::Deferred(reply(word)),
                _ => Outcome::Delivered(reply(word)),
            },
        );
    }
}

fn report(delivery: &Delivery, rest: &str) {
    let (indexes, word) = meant(delivery, rest);
    let reports: Vec<(usize, StatusReport)> = indexes
        .map(|index| {
            let failed = word.starts_with("failed");
            (index, if failed { StatusReport::Failed(reply(word)) } else { StatusReport::Delivered(reply(word)) })
        })
        .collect();
    delivery.status_recips(&reports);
}
