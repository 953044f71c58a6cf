//! `spoolctl logon`: a person is there and answers what a provider asks.

use std::collections::BTreeMap;
use std::io::{self, Write};

use spooler_protocol::calls::Prompt;
use spooler_protocol::control::{LogonCommand, LogonState};

use super::provider::path_of;
use crate::client::connection::{Control, block_on};
use crate::client::failure::Failure;
use crate::client::show::plain;
use crate::client::terminal;

pub(super) fn run(control: &Control, name: &str) -> Result<(), Failure> {
    let path = path_of(name, "logon")?;
    let mut command = LogonCommand::default();
    loop {
        match block_on(control.post(&path, &command))? {
            LogonState::Ready => return Ok(writeln!(io::stdout().lock(), "{name} is logged on")?),
            LogonState::Cancelled => {
                return Err(Failure::Interrupted(format!("The logon of {name} was cancelled")));
            }
            LogonState::Asks { prompts } => command = answers(&prompts)?,
        }
    }
}

/// Asks the person, one question after the other; giving one up gives all up.
fn answers(prompts: &[Prompt]) -> Result<LogonCommand, Failure> {
    let mut answers = BTreeMap::new();
    for prompt in prompts {
        let label = if prompt.label.is_empty() { &prompt.key } else { &prompt.label };
        match terminal::ask(&plain(label), prompt.secret)? {
            Some(answer) => drop(answers.insert(prompt.key.clone(), answer)),
            None => return Ok(LogonCommand { answers: BTreeMap::new(), cancel: true }),
        }
    }
    Ok(LogonCommand { answers, cancel: false })
}
