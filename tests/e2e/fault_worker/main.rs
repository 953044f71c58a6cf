//! The provider kind `fault`, for tests only: it crashes, hangs, computes without end, floods, lies and leaks, on command. The program is a
//! complete worker for all real kinds besides.
//!
//! Commands come from the setting `mode`, or from the address that a message is for: `FAULT:panic` does to this message what
//! `mode = "panic"` does to each.
//!
//! | command | what it does |
//! |---|---|
//! | `crash` | dies of a signal with a message in hand |
//! | `panic` | panics with a message in hand |
//! | `silent` | takes a delivery and says nothing of it ever after |
//! | `burn` | computes without end with a message in hand |
//! | `hog` | computes for `work` of CPU time without yielding, `rounds` times, with a yield in between |
//! | `rows` | changes its row as fast as it can, then delivers |
//! | `leak` | keeps 16 MiB more with each message, and says in its row how much that is |
//! | `hoard` | keeps 16 MiB more, without end |
//! | `breed` | starts programs without end; needs `programs = true` |
//! | `critical` | takes a critical section and a second one inside, and leaves each when its `hold` file is gone |
//!
//! | only as `mode` | what it does |
//! |---|---|
//! | `mute` | never logs on |
//! | `crash-at-logon` | dies of a signal while it logs on |
//! | `escape` | tries a `way` out of the sandbox at a `target`, see `escape`; logs on if it succeeds |
//! | `flood` | says things without end |
//! | `hoard` | hands in large messages and finishes none |
//! | `lie` | speaks of deliveries, recipients and tokens that are not its own, and wants absurd things |
//!
//! What goes wrong before the welcome, which brings the settings, is in `stranger`.

mod escape;
mod liar;
mod packets;
mod provider;
mod stranger;

use std::error::Error;
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use spooler_protocol::settings::{Findings, Settings};
use spooler_protocol::to_worker::{ToWorker, Welcome};
use spooler_worker::bootstrap;
use spooler_worker::link::LinkSender;
use spooler_worker::provider::{self as real, UnknownKind};
use spooler_worker::runtime::{self, Ended};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::provider::Fault;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        [program, "--connect"] => connect(Path::new(program)),
        [_, "--check", "fault"] => answer(&Findings::default()),
        [_, "--check", kind] => check(kind),
        [_, "--kinds"] => write_out(&format!("{}\nfault", real::KINDS.join("\n"))),
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
    answer(&real::check(kind, Settings::new(text.parse()?))?)
}

fn answer(findings: &Findings) -> Result<(), Box<dyn Error>> {
    write_out(&serde_json::to_string(findings)?)
}

fn write_out(text: &str) -> Result<(), Box<dyn Error>> {
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}

fn connect(program: &Path) -> Result<(), Box<dyn Error>> {
    match std::fs::read_to_string(program.with_file_name("before-hello")) {
        Ok(mode) => stranger::run(&mode),
        Err(_) => {
            bootstrap::run_with(session)?;
            Ok(())
        }
    }
}

async fn session(link: LinkSender, inbox: UnboundedReceiver<ToWorker>, welcome: Welcome) -> Result<Ended, UnknownKind> {
    if welcome.kind != "fault" {
        return real::run(link, inbox, welcome).await;
    }
    let settings: toml::Table = welcome.settings.parse().unwrap_or_default();
    match settings.get("mode").and_then(toml::Value::as_str) {
        Some("flood") => liar::flood(&link),
        Some("hoard") => liar::hoard(&link),
        Some("lie") => liar::lie(&link, inbox).await,
        _ => return Ok(runtime::run::<Fault>(link, inbox, welcome).await),
    }
    .map_or(Ok(Ended::SupervisorGone), Ok)
}
