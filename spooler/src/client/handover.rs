//! Handing a message over: to the supervisor if one answers, else into the pick-up folder. Either way it is on disk afterwards.

use std::path::PathBuf;

use spooler_protocol::control::Submit;
use spooler_protocol::ids::MessageId;

use super::connection::{Control, block_on};
use super::failure::Failure;
use crate::line_ends::NulByte;
use crate::system::pickup;

/// Where messages wait for a supervisor if nobody says otherwise.
const PICKUP: &str = "/var/spool/spooler/pickup";

/// Where a message went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Handed {
    /// Into the queue.
    Queued(MessageId),
    /// Into the pick-up folder, because no supervisor runs.
    LeftBehind(PathBuf),
}

impl std::fmt::Display for Handed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Queued(id) => write!(f, "queued as {id}"),
            Self::LeftBehind(path) => write!(f, "no spooler is running; left in {} for when it starts", path.display()),
        }
    }
}

/// Hands a message over.
pub(crate) fn hand_over(control: &Control, submit: &Submit, content: &[u8]) -> Result<Handed, Failure> {
    submit.envelope.check().map_err(|error| Failure::Data(error.to_string()))?;
    match block_on(control.submit(submit, content)) {
        Ok(submitted) => Ok(Handed::Queued(submitted.id)),
        Err(absent @ Failure::Absent(_)) => leave_behind(&absent, submit, content),
        Err(failure) => Err(failure),
    }
}

fn leave_behind(absent: &Failure, submit: &Submit, content: &[u8]) -> Result<Handed, Failure> {
    if memchr::memchr(0, content).is_some() {
        return Err(Failure::Data(NulByte.to_string()));
    }
    let folder = std::env::var_os("SPOOLER_PICKUP").filter(|path| !path.is_empty()).unwrap_or_else(|| PICKUP.into());
    let folder = PathBuf::from(folder);
    pickup::deposit(&folder, submit, content).map(Handed::LeftBehind).map_err(|error| {
        let folder = folder.display();
        Failure::Temporary(format!(
            "{absent}. The message cannot be left in {folder} either ({error}); try again later"
        ))
    })
}
