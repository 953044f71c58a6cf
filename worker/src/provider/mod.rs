//! The built-in providers, by kind.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;

use spooler_protocol::settings::{Findings, PROVIDER_KEYS, Settings};
use spooler_protocol::to_worker::{ToWorker, Welcome};
use tokio::sync::mpsc;

use crate::contract::Provider;
use crate::filter::Filters;
use crate::link::LinkSender;
use crate::probe::{Probe, Probed};
use crate::runtime::{self, Ended};

pub(crate) mod local;
// Writes messages into maildirs.
pub mod maildir;
// Runs a program per message.
pub mod pipe;
// Receives frames from a serial line and sends messages to it.
pub mod serial;
// Sends messages by SMTP or LMTP.
pub mod smtp;
// Receives messages by SMTP.
pub mod smtp_in;
// A fuzz target for all of their settings.
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;

/// A kind that this program does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("There is no provider kind {0:?}; allowed are {kinds}", kinds = KINDS.join(", "))]
pub struct UnknownKind(pub String);

/// The kinds that [`run`] and [`check`] know.
pub const KINDS: &[&str] = &["maildir", "pipe", "serial", "smtp", "smtp-in"];

macro_rules! with_kind {
    ($kind:expr, $call:ident $args:tt) => {
        match $kind {
            "maildir" => Ok($call!(maildir::Maildir, $args)),
            "pipe" => Ok($call!(pipe::Pipe, $args)),
            "serial" => Ok($call!(serial::Serial, $args)),
            "smtp" => Ok($call!(smtp::Smtp, $args)),
            "smtp-in" => Ok($call!(smtp_in::SmtpIn, $args)),
            other => Err(UnknownKind(other.to_owned())),
        }
    };
}

/// Runs the session of the provider that the welcome names.
///
/// # Errors
/// If there is no such kind.
pub async fn run(
    link: LinkSender,
    inbox: mpsc::UnboundedReceiver<ToWorker>,
    welcome: Welcome,
) -> Result<Ended, UnknownKind> {
    macro_rules! run_kind {
        ($provider:ty, ()) => {
            runtime::run::<$provider>(link, inbox, welcome).await
        };
    }
    let kind = welcome.kind.clone();
    with_kind!(kind.as_str(), run_kind())
}

/// Reads the settings of a kind and does nothing else.
///
/// # Errors
/// If there is no such kind.
pub fn check(kind: &str, settings: Settings) -> Result<Findings, UnknownKind> {
    macro_rules! check_kind {
        ($provider:ty, ()) => {
            check_settings::<$provider>(settings)
        };
    }
    with_kind!(kind, check_kind())
}

/// Tries a provider of a kind, saying each step.
///
/// # Errors
/// If there is no such kind.
pub async fn probe(kind: &str, settings: Settings, probe: Rc<Probe>) -> Result<Probed, UnknownKind> {
    macro_rules! probe_kind {
        ($provider:ty, ()) => {
            probe_settings::<$provider>(settings, probe).await
        };
    }
    with_kind!(kind, probe_kind())
}

/// Reads the settings of a provider, and tries it.
pub async fn probe_settings<P: Provider>(mut settings: Settings, probe: Rc<Probe>) -> Probed {
    let own = P::settings(&mut settings);
    P::probe(own, probe).await
}

/// Reads the settings of a provider, says what it needs with them, and does nothing else. The keys that all kinds have are allowed, so that
/// they are among those that a mistake names.
#[must_use]
pub fn check_settings<P: Provider>(mut settings: Settings) -> Findings {
    let own = P::settings(&mut settings);
    let filters = Filters::read(&mut settings);
    PROVIDER_KEYS.iter().for_each(|key| settings.ignore(key));
    let needs = P::needs(&own);
    Findings {
        programs: needs.programs || filters.run_programs(),
        privileges: needs.privileges,
        address_types: P::usual_types().map(|types| types.iter().map(|&kind| kind.to_owned()).collect()),
        secret_files: needs.files.into_iter().filter(|path| is_secret(path)).collect(),
        ..settings.finish()
    }
}

/// Whether a file is there that not everybody can read.
fn is_secret(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.mode() & 0o004 == 0)
}
