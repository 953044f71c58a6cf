//! The sandbox of a worker: closed before any provider code runs, and never opened again.
//!
//! ```text
//!   user ▸ capabilities ▸ no_new_privs ▸ limits ▸ files and ports (Landlock) ▸ system calls (seccomp)
//! ```
//!
//! What the kernel cannot do is left out and said; what it refuses although it could is an error, and the worker does not run. All
//! of it is per thread or inherited, so it happens while the process has one thread.

mod needs;
mod paths;
mod privileges;
mod syscalls;
mod trap;

use std::fmt;

pub use needs::{Connect, Needs};
use paths::Held;

/// Why the sandbox cannot be closed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The worker cannot become the user that it is to run as.
    #[error("Cannot become user {0}; the supervisor has to run as root for that")]
    User(u32, #[source] std::io::Error),
    /// Capabilities cannot be given up.
    #[error("Cannot give capabilities up")]
    Capabilities(#[source] std::io::Error),
    /// PR_SET_NO_NEW_PRIVS was refused.
    #[error("Cannot rule out new privileges")]
    NoNewPrivileges(#[source] std::io::Error),
    /// A limit was refused.
    #[error("Cannot set {0}")]
    Limit(String, #[source] std::io::Error),
    /// Landlock refused.
    #[error("Cannot close files and ports: {0}")]
    Paths(String),
    /// seccomp refused.
    #[error("Cannot close system calls: {0}")]
    Calls(String),
}

/// How tight the sandbox is, for the status row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    user: Option<u32>,
    paths: Held,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(uid) = self.user {
            write!(f, "user {uid}, ")?;
        }
        f.write_str("no capabilities, limits, system calls, ")?;
        f.write_str(match self.paths {
            Held::All => "files and ports",
            Held::Some => "files and ports as far as this kernel can (a newer one knows more of Landlock)",
            Held::Nothing => "but not files and ports: this kernel has no Landlock",
        })
    }
}

/// Takes everything away that is not needed. `user`: uid and gid to become.
///
/// # Errors
/// If something that the kernel has was refused; the worker must not go on.
pub fn close(needs: &Needs, user: Option<(u32, u32)>) -> Result<Closed, SandboxError> {
    if let Some((uid, gid)) = user {
        privileges::become_user(uid, gid)?;
    }
    privileges::drop_capabilities()?;
    privileges::no_new_privileges()?;
    privileges::limit(needs)?;
    let paths = paths::restrict(needs)?;
    syscalls::restrict(needs)?;
    Ok(Closed { user: user.map(|(uid, _)| uid), paths })
}
