//! Why a message could not be put into a maildir, and what that means for the recipient.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use spooler_protocol::outcome::{Outcome, Reply};

use crate::provider::local::account::AccountError;

/// Why a message could not be put into a maildir.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The local part is no system user, and must be one.
    #[error("There is no user {0:?} on this machine")]
    NoUser(String),
    /// A user whose home folder is none of a person's, so that the sandbox does not let anything be written there.
    #[error("The user {0:?} of this machine has no mailbox, because {1} is no home folder of a person")]
    NoHome(String, PathBuf),
    /// The user database failed.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// A link where a folder must be, or a file.
    #[error("{0} is a symbolic link or no folder; nothing is written through it")]
    NoFolder(PathBuf),
    /// The system refused.
    #[error("Cannot {doing} {path}: {}", errno.desc())]
    Os {
        /// As in "Cannot write".
        doing: &'static str,
        /// What.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// The supervisor could not read the message.
    #[error("Cannot read the message: {0}")]
    Content(String),
    /// The delivery was dropped before the message was complete.
    #[error("The delivery was broken off")]
    BrokenOff,
}

impl Failure {
    pub(super) fn os(doing: &'static str, path: &Path, errno: Errno) -> Self {
        Self::Os { doing, path: path.to_owned(), errno }
    }

    pub(super) fn io(doing: &'static str, path: &Path, error: &std::io::Error) -> Self {
        Self::os(doing, path, error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
    }

    /// Whether it was not permitted, by file modes or by the sandbox.
    pub(super) fn is_denied(&self) -> bool {
        matches!(self, Self::Os { errno: Errno::EACCES | Errno::EPERM, .. })
    }

    /// What it means for the recipient.
    pub(super) fn outcome(&self) -> Outcome {
        let (lasting, code, enhanced) = match self {
            Self::NoUser(_) => (true, 550, "5.1.1"),
            Self::NoHome(..) => (true, 550, "5.2.1"),
            Self::Os { errno: Errno::ENAMETOOLONG, .. } => (true, 553, "5.1.3"),
            Self::Os { errno: Errno::EDQUOT, .. } => (false, 452, "4.2.2"),
            Self::Os { errno: Errno::ENOSPC | Errno::EFBIG, .. } => (false, 452, "4.3.1"),
            Self::NoFolder(_) => (false, 451, "4.3.5"),
            Self::Account(_) | Self::Os { .. } | Self::Content(_) | Self::BrokenOff => (false, 451, "4.3.0"),
        };
        let reply = Reply::local(code, enhanced, self.to_string());
        if lasting { Outcome::Failed(reply) } else { Outcome::Deferred(reply) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_full_mailbox_wait_and_a_name_too_long_does_not() {
        let of = |errno| Failure::os("write", Path::new("/m/tmp/x"), errno).outcome();
        assert!(matches!(of(Errno::EDQUOT), Outcome::Deferred(reply) if reply.enhanced == "4.2.2"));
        assert!(matches!(of(Errno::ENOSPC), Outcome::Deferred(reply) if reply.enhanced == "4.3.1"));
        assert!(matches!(of(Errno::ENAMETOOLONG), Outcome::Failed(reply) if reply.enhanced == "5.1.3"));
        let Outcome::Deferred(reply) = of(Errno::EACCES) else { panic!("EACCES lasts") };
        assert_eq!(
            (reply.enhanced.as_str(), reply.text.as_str()),
            ("4.3.0", "Cannot write /m/tmp/x: Permission denied")
        );
    }
}
