//! A worker that misbehaves on purpose, for the end-to-end tests: a complete worker for all real kinds, and the kind `rogue`.
//!
//! | setting `mode` | what it does |
//! |---|---|
//! | `mute` | never logs on |
//! | `crash-at-logon` | dies of a signal while it logs on |
//! | `panic-in-delivery` | panics with a message in hand |
//! | `flood` | says things without end |
//! | `lie` | speaks of deliveries, recipients and tokens that are not its own, and wants absurd things |
//! | `silent` | takes a delivery and says nothing of it ever after |
//! | `burn` | computes without end with a message in hand |
//! | `hog` | computes for `work` without yielding, `rounds` times, with a yield in between |
//! | `critical` | takes a critical section and a second one inside, and leaves each when its `hold` file is gone |
//!
//! What goes wrong before the welcome, which brings the settings, is chosen by the content of a file `before-hello` beside the name
//! by which the program was called:
//!
//! | content | what it does |
//! |---|---|
//! | `silent` | never says hello |
//! | `wrong-version` | says hello in another version of the protocol |
//! | `wrong-nonce` | says hello without knowing the secret |
//! | `garbage` | says a good hello, then what nobody can understand |
//! | `deaf` | logs on, then neither reads nor says anything |
//! | `never-reads` | logs on, asks for a lot and reads none of the answers |

use std::error::Error;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ipc_channel::ipc::{self, IpcBytesSender, IpcSender};
use nix::sys::prctl;
use nix::sys::signal::{Signal, raise};
use spooler_protocol::calls::EndMessage;
use spooler_protocol::codec;
use spooler_protocol::from_worker::{Content, Destinations, FromWorker, LoggedOn, LogonError, RowUpdate};
use spooler_protocol::handshake::{Hello, NONCE_BYTES, PROTOCOL_VERSION};
use spooler_protocol::ids::{AcceptId, DeliveryId, RequestId, Token};
use spooler_protocol::message::Envelope;
use spooler_protocol::outcome::{Outcome, Reply, SubmitResult};
use spooler_protocol::settings::{Findings, Settings};
use spooler_protocol::to_worker::{ToWorker, Welcome};
use spooler_worker::link::{LinkError, LinkSender};
use spooler_worker::provider::{self, UnknownKind};
use spooler_worker::runtime::{self, Ended};
use spooler_worker::{Capacity, Delivery, Provider, Support, bootstrap};
use tokio::sync::mpsc::UnboundedReceiver;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        [program, "--connect", name] => connect(Path::new(program), name),
        [_, "--check", "rogue"] => answer(&Findings::default()),
        [_, "--check", kind] => check(kind),
        [_, "--kinds"] => write_out(&format!("{}\nrogue", provider::KINDS.join("\n"))),
        _ => Err("this worker is for tests".into()),
    };
    result.map_or_else(
        |error| {
            eprintln!("{error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

fn check(kind: &str) -> Result<(), Box<dyn Error>> {
    let mut text = String::new();
    std::io::stdin().lock().read_to_string(&mut text)?;
    answer(&provider::check(kind, Settings::new(text.parse()?))?)
}

fn answer(findings: &Findings) -> Result<(), Box<dyn Error>> {
    write_out(&serde_json::to_string(findings)?)
}

fn write_out(text: &str) -> Result<(), Box<dyn Error>> {
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}

fn connect(program: &Path, name: &str) -> Result<(), Box<dyn Error>> {
    match std::fs::read_to_string(program.with_file_name("before-hello")) {
        Ok(mode) => stranger(&mode, name),
        Err(_) => {
            bootstrap::run_with(name, session)?;
            Ok(())
        }
    }
}

/// A worker with a channel of its own making.
fn stranger(mode: &str, name: &str) -> Result<(), Box<dyn Error>> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if mode == "silent" {
        eprintln!("my lips are sealed");
        wait_for_the_end();
    }
    let mut nonce = [0; NONCE_BYTES];
    std::io::stdin().lock().read_exact(&mut nonce)?;
    let version = if mode == "wrong-version" { PROTOCOL_VERSION + 1 } else { PROTOCOL_VERSION };
    if mode == "wrong-nonce" {
        nonce = nonce.map(|byte| !byte);
    }
    let (to_worker, inbox) = ipc::channel()?;
    let (outbox, from_worker) = ipc::bytes_channel()?;
    IpcSender::connect(name.to_owned())?.send(Hello {
        version,
        pid: std::process::id(),
        nonce,
        to_worker,
        from_worker,
    })?;
    // Held, and never read. Who is not believed does not get it.
    let _unread = inbox.recv();
    match mode {
        "garbage" => outbox.send(&[0, 0xff, 0xfe, 0xfd])?,
        "deaf" => log_on(&outbox)?,
        "never-reads" => ask_without_end(&outbox)?,
        _ => {}
    }
    wait_for_the_end()
}

fn wait_for_the_end() -> ! {
    loop {
        std::thread::park();
    }
}

fn say(outbox: &IpcBytesSender, said: &FromWorker) -> Result<(), Box<dyn Error>> {
    codec::encode(said, |frame| Ok(outbox.send(frame)?))
}

fn log_on(outbox: &IpcBytesSender) -> Result<(), Box<dyn Error>> {
    say(outbox, &FromWorker::LoggedOn(LoggedOn { credit: 5, ..LoggedOn::default() }))
}

fn ask_without_end(outbox: &IpcBytesSender) -> Result<(), Box<dyn Error>> {
    log_on(outbox)?;
    loop {
        say(outbox, &FromWorker::ReadBody { request: RequestId(1), delivery: DeliveryId(1), offset: 0 })?;
    }
}

async fn session(link: LinkSender, inbox: UnboundedReceiver<ToWorker>, welcome: Welcome) -> Result<Ended, UnknownKind> {
    if welcome.kind != "rogue" {
        return provider::run(link, inbox, welcome).await;
    }
    let settings: toml::Table = welcome.settings.parse().unwrap_or_default();
    match settings.get("mode").and_then(toml::Value::as_str) {
        Some("flood") => flood(&link),
        Some("lie") => lie(&link, inbox).await,
        _ => return Ok(runtime::run::<Rogue>(link, inbox, welcome).await),
    }
    .map_or(Ok(Ended::SupervisorGone), Ok)
}

/// Says as much as the channel takes.
fn flood(link: &LinkSender) -> Result<Ended, LinkError> {
    link.send(&FromWorker::LoggedOn(LoggedOn::default()))?;
    for number in 0_u64.. {
        let text = Some(format!("flooding, {number}"));
        link.send(&FromWorker::Row {
            sequence: number,
            row: String::new(),
            update: Box::new(RowUpdate { text, ..RowUpdate::default() }),
        })?;
        link.send(&FromWorker::Want)?;
    }
    Ok(Ended::LoggedOff)
}

/// Says nothing that is true, as long as it is spoken to.
async fn lie(link: &LinkSender, mut inbox: UnboundedReceiver<ToWorker>) -> Result<Ended, LinkError> {
    let destinations = Destinations { by_domain: true, concurrency: u32::MAX, interval_ms: u64::MAX };
    let address_types = vec![String::new(), "X".repeat(10_000)];
    let boast = LoggedOn {
        address_types,
        credit: u32::MAX,
        destinations,
        identity: "\u{0}".repeat(10_000),
        ..LoggedOn::default()
    };
    link.send(&FromWorker::LoggedOn(boast.clone()))?;
    let delivered = |index| (index, Outcome::Delivered(Reply::local(250, "2.0.0", "never seen it")));
    for number in 0..500 {
        let (delivery, token) = (DeliveryId(number), Token(number));
        link.send(&FromWorker::Settled { delivery, outcomes: vec![delivered(0), delivered(u32::MAX)] })?;
        link.send(&FromWorker::Finished {
            delivery,
            result: SubmitResult::Done,
            end: EndMessage::Done,
            outcomes: vec![delivered(0)],
        })?;
        link.send(&FromWorker::Yield { token, more: true })?;
    }
    let accept = AcceptId(1);
    let content = Content::Uploaded { size: u64::MAX };
    link.send(&FromWorker::CriticalEnd { section: 7 })?;
    link.send(&FromWorker::UploadAbandoned { accept })?;
    link.send(&FromWorker::Accept { accept, envelope: Envelope::default(), content })?;
    link.send(&FromWorker::Want)?;
    while let Some(heard) = inbox.recv().await {
        match heard {
            ToWorker::Grant { token, .. } => {
                link.send(&FromWorker::LoggedOn(boast.clone()))?;
                link.send(&FromWorker::Yield { token: Token(token.0 + 1), more: true })?;
                link.send(&FromWorker::Yield { token, more: false })?;
                link.send(&FromWorker::Yield { token, more: true })?;
            }
            ToWorker::Submit(submission) => {
                let (delivery, result) = (submission.delivery, SubmitResult::Wait { after_ms: u64::MAX });
                link.send(&FromWorker::Settled { delivery, outcomes: vec![delivered(999)] })?;
                link.send(&FromWorker::Finished {
                    delivery,
                    result,
                    end: EndMessage::Done,
                    outcomes: vec![delivered(u32::MAX)],
                })?;
            }
            ToWorker::Logoff { .. } => return Ok(Ended::LoggedOff),
            _ => {}
        }
    }
    Ok(Ended::SupervisorGone)
}

struct RogueSettings {
    mode: String,
    work: Duration,
    rounds: u32,
    hold: PathBuf,
}

/// Misbehaviour within the contract.
struct Rogue {
    support: Support,
    settings: RogueSettings,
}

impl Provider for Rogue {
    type Settings = RogueSettings;

    fn settings(settings: &mut Settings) -> RogueSettings {
        RogueSettings {
            mode: settings.string("mode", "good"),
            work: settings.duration("work", "0s", Duration::ZERO..=Duration::from_secs(10)),
            rounds: settings.integer("rounds", 1, 1..=1000),
            hold: PathBuf::from(settings.string("hold", "")),
        }
    }

    async fn logon(support: Support, settings: RogueSettings) -> Result<Self, LogonError> {
        match settings.mode.as_str() {
            "mute" => std::future::pending().await,
            "crash-at-logon" => {
                eprintln!("the modem is on fire");
                raise(Signal::SIGILL).map_err(|error| LogonError::Failed(error.to_string()))?;
            }
            _ => {}
        }
        Ok(Self { support, settings })
    }

    fn address_types(&self) -> Vec<String> {
        Vec::new()
    }

    fn identity(&self) -> String {
        self.settings.mode.clone()
    }

    fn capacity(&self) -> Capacity {
        Capacity { credit: 4, ..Capacity::default() }
    }

    async fn submit_message(&self, delivery: &Delivery) -> SubmitResult {
        match self.settings.mode.as_str() {
            "panic-in-delivery" => panic!("the line went up in smoke"),
            "silent" => std::future::pending().await,
            "burn" => loop {
                std::hint::black_box(delivery);
            },
            "hog" => self.compute().await,
            "critical" => self.dial().await,
            _ => {}
        }
        delivery.settle_all(&Outcome::Delivered(Reply::local(250, "2.0.0", "done")));
        SubmitResult::Done
    }
}

impl Rogue {
    async fn compute(&self) {
        for _ in 0..self.settings.rounds {
            let start = Instant::now();
            while start.elapsed() < self.settings.work {
                std::hint::black_box(start);
            }
            self.support.spooler_yield().await;
        }
    }

    /// Holds two sections, one inside the other; the row's progress says how many have been left.
    async fn dial(&self) {
        let outer = self.support.critical_section("dialling").await;
        let inner = self.support.critical_section("shaking hands").await;
        // A thread that was not there when the section began.
        let _ = tokio::task::spawn_blocking(|| ()).await;
        for (section, progress) in [(inner, 1), (outer, 2)] {
            let hold = self.settings.hold.with_extension(progress.to_string());
            while hold.exists() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            drop(section);
            self.support.modify_status_row(RowUpdate { progress: Some(progress), ..RowUpdate::default() });
        }
    }
}
