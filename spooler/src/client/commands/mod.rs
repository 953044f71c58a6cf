//! `spoolctl` does what it was told, one file per family of commands.

pub(super) mod alias;
mod flush;
mod log;
mod logon;
mod manual;
mod provider;
mod queue;
mod status;
mod submit;
mod watch;

use std::io::{self, Write};

use serde::Serialize;
use spooler_protocol::control::QueueAction;

use super::cli::{Cli, Command};
use super::connection::Control;
use super::failure::Failure;
use super::sendmail;

/// Does what the command line says.
pub(super) fn run(cli: Cli) -> Result<(), Failure> {
    let control = Control::new(cli.socket);
    match cli.command {
        Command::Submit(submit) => submit::run(&control, submit),
        Command::Queue(queue) => queue::run(&control, queue),
        Command::Log(log) => log::run(&control, log),
        Command::Status { watch: true, json } => watch::run(&control, json),
        Command::Status { watch: false, json } => status::once(&control, json),
        Command::Flush(flush) => flush::run(&control, flush),
        Command::Provider(provider) => provider::run(&control, provider),
        Command::Logon { name } => logon::run(&control, &name),
        Command::Validate { how } => provider::validate_all(&control, &how),
        Command::Cancel { id } => queue::act_on(&control, QueueAction::Cancel, id),
        Command::Alias { name, json } => alias::show_way(&control, &name, json),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { folder } => manual::pages(&folder),
        Command::Sendmail { arguments } => sendmail::run(&arguments, &control),
    }
}

/// Prints one JSON document on a line.
fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let mut line = serde_json::to_vec(value).map_err(io::Error::from)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    Ok(out.flush()?)
}
