//! Why a client tool could not do what it was asked, with the exit codes of `sysexits.h` that mail programs understand.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use spooler_protocol::control::ApiError;

/// A failure, as a sentence for a person and an exit code for a program.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line cannot be understood.
    #[error("{0}")]
    Usage(String),
    /// An address or a message is not right.
    #[error("{0}")]
    Data(String),
    /// No spooler answers on the socket.
    #[error(
        "No spooler is running at {}; start it with `{}`, or name another socket with --socket or $SPOOLER_SOCKET",
        .0.display(), start_command()
    )]
    Absent(PathBuf),
    /// The socket may not be opened.
    #[error(
        "User {} may not talk to the spooler at {}; ask its administrator for membership in the submit group, or use sudo",
        nix::unistd::getuid(), .0.display()
    )]
    Denied(PathBuf),
    /// The spooler refused.
    #[error("{}", .error.error)]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it said.
        error: ApiError,
    },
    /// The connection or the answer broke.
    #[error(
        "The connection to the spooler broke: {0}. It may have accepted the request; check with `spoolctl queue list`"
    )]
    Broken(String),
    /// An action was done to some messages and refused for others.
    #[error("{0}")]
    InPart(String),
    /// Trying again later can help.
    #[error("{0}")]
    Temporary(String),
    /// A file cannot be read.
    #[error("{0} cannot be read: {1}")]
    Input(String, io::Error),
    /// A file or the terminal cannot be written.
    #[error("The output cannot be written: {0}")]
    Output(#[from] io::Error),
    /// A person pressed Ctrl-C.
    #[error("{0}")]
    Interrupted(String),
}

/// The command that starts the spooler here: systemd's where it is in charge and knows the unit.
fn start_command() -> &'static str {
    const UNITS: [&str; 3] = [
        "/etc/systemd/system/spooler.service",
        "/lib/systemd/system/spooler.service",
        "/usr/lib/systemd/system/spooler.service",
    ];
    let is_booted = Path::new("/run/systemd/system").is_dir();
    let has_unit = UNITS.iter().any(|unit| Path::new(unit).exists());
    if is_booted && has_unit { "systemctl start spooler" } else { "spooler run" }
}

impl Failure {
    /// The code of `sysexits.h`.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 64,
            Self::Data(_) | Self::InPart(_) => 65,
            Self::Input(..) => 66,
            Self::Absent(_) => 69,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Output(_) => 74,
            Self::Broken(_) | Self::Temporary(_) => 75,
            Self::Denied(_) | Self::Refused { status: 403, .. } => 77,
            Self::Refused { error: ApiError { temporary: true, .. }, .. } | Self::Refused { status: 408, .. } => 75,
            Self::Refused { .. } => 65,
            Self::Interrupted(_) => 130,
        }
    }

    /// Whether trying again later can help.
    pub(crate) fn is_temporary(&self) -> bool {
        matches!(self.code(), 69 | 75)
    }

    /// Says it on standard error and gives the exit code. A reader who has seen enough is no failure.
    pub(crate) fn report(&self, program: &str) -> ExitCode {
        if self.code() != 0 {
            eprintln!("{program}: {}", spooler_protocol::plain::plain(self));
        }
        ExitCode::from(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, temporary: bool) -> Failure {
        Failure::Refused { status, error: ApiError { error: "x".to_owned(), temporary } }
    }

    #[test]
    fn codes_are_those_of_sysexits() {
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        let full = io::Error::from(io::ErrorKind::StorageFull);
        for (failure, code) in [
            (Failure::Usage(String::new()), 64),
            (refused(400, false), 65),
            (refused(413, false), 65),
            (Failure::Absent(PathBuf::new()), 69),
            (Failure::Output(full), 74),
            (Failure::Output(closed), 0),
            (refused(503, true), 75),
            (refused(408, false), 75),
            (refused(403, false), 77),
        ] {
            assert_eq!(failure.code(), code, "{failure:?}");
        }
    }
}
