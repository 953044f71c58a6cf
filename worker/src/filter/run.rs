//! Runs one program on a content, and says what its end means.
//!
//! | end | meaning |
//! |---|---|
//! | exit code 0 | well |
//! | 77 (no permission), 100 (as qmail has it), 65 (data) | no: for good |
//! | any other, killed, out of time, not started | not now |

use std::fs::File;
use std::time::Duration;

use bytes::Bytes;
use spooler_protocol::message::Recipient;
use spooler_protocol::units;

use super::artifacts::{Content, Folder};
use crate::delivery::Delivery;
use crate::provider::local::form::{Converter, LineEnds};
use crate::provider::pipe::run::{self, Program, not_kept};
use crate::provider::pipe::verdict::Ending;
use crate::scratch::Draft;
use crate::support::Support;

const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What a program reads.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    Delivery(&'a Delivery),
    Content(&'a Content),
    Nothing,
}

impl Source<'_> {
    async fn chunk(self, offset: u64) -> Result<Bytes, String> {
        match self {
            Self::Delivery(delivery) => delivery.content(offset).await,
            Self::Content(content) => content.chunk(offset),
            Self::Nothing => Ok(Bytes::new()),
        }
    }
}

/// What the end of a program means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It went well.
    Well,
    /// For good; why.
    No(String),
    /// Perhaps later; why.
    Later(String),
}

/// What a program is told of its message.
pub(super) struct About<'a> {
    pub(super) support: &'a Support,
    pub(super) folder: &'a Folder,
    pub(super) id: Option<String>,
    pub(super) sender: &'a str,
    pub(super) recipients: Vec<&'a Recipient>,
}

/// Runs a program; its standard output goes to `output`.
pub(super) async fn run(
    words: &[String],
    limit: Duration,
    about: &About<'_>,
    source: Source<'_>,
    output: &File,
) -> Answer {
    let Some((path, arguments)) = words.split_first() else { return Answer::Well };
    let folder = about.folder.path().to_string_lossy();
    let addresses: Vec<String> = about.recipients.iter().map(|recipient| recipient.address.to_string()).collect();
    let mut environment = vec![
        ("PATH", PATH.to_owned()),
        ("PROVIDER", about.support.provider_name().to_owned()),
        ("HOSTNAME", about.support.hostname().to_owned()),
        ("FOLDER", folder.clone().into_owned()),
        ("TMPDIR", folder.clone().into_owned()),
        ("SENDER", about.sender.to_owned()),
        ("RECIPIENT", addresses.join("\n")),
    ];
    environment.extend(about.id.clone().map(|id| ("MESSAGE_ID", id)));
    let program = Program {
        path,
        arguments: arguments.to_vec(),
        environment,
        directory: &folder,
        account: None,
        limit,
        output: Some(output),
        support: about.support,
    };
    let ran = run::run(&program, async |input| feed(source, input).await).await;
    answer(&ran.ending, &ran.said, path)
}

/// Writes the content that a program will read.
async fn feed(source: Source<'_>, input: &mut Draft) -> Result<(), String> {
    let mut converter = Converter::new(LineEnds::Lf);
    let (mut offset, mut out) = (0, Vec::new());
    loop {
        let piece = source.chunk(offset).await?;
        if piece.is_empty() {
            return input.write(converter.finish()).map_err(not_kept);
        }
        offset += piece.len() as u64;
        converter.convert(&piece, &mut out);
        input.write(&out).map_err(not_kept)?;
    }
}

fn answer(ending: &Ending, said: &str, program: &str) -> Answer {
    let last = said.lines().rev().map(str::trim).find(|line| !line.is_empty());
    let or = |otherwise: String| last.map_or(otherwise, str::to_owned);
    match ending {
        Ending::Exited(0) => Answer::Well,
        Ending::Exited(code @ (65 | 77 | 100)) => Answer::No(or(format!("{program} refuses it (exit code {code})"))),
        Ending::Exited(code) => Answer::Later(or(format!("{program} ended with exit code {code}"))),
        Ending::Killed(signal) => Answer::Later(or(format!("{program} was killed by signal {signal}"))),
        Ending::TimedOut(limit) => {
            Answer::Later(format!("{program} still ran after {} and was stopped", units::show_duration(*limit)))
        }
        Ending::Content(why) => Answer::Later(format!("the message cannot be read: {why}")),
        Ending::NotStarted { why, .. } => Answer::Later(format!("{program} cannot be started: {why}")),
    }
}
