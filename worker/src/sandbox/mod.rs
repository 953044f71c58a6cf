//! The sandbox of a worker: closed before any provider code runs, and never opened again.
//!
//! ```text
//!   user ▸ capabilities ▸ no_new_privs ▸ limits ▸ files and ports (Landlock) ▸ system calls (seccomp)
//! ```
//!
//! What the kernel cannot do is left out and said; what it refuses although it could is an error, and the worker does not run. All
//! of it is per thread or inherited, so it happens while the process has one thread.
//!
//! | room | what |
//! |---|---|
//! | `needs` | what a provider declares |
//! | `privileges`, `limits` | who the worker is, and how much it may have |
//! | `paths`, `surroundings` | which files and ports |
//! | `syscalls`, `calls`, `call_names`, `trap` | which system calls, and the last words of who makes another |
//!
//! `descriptors` is no part of it, but not to be had without `unsafe` either.

mod call_names;
mod calls;
pub(crate) mod descriptors;
mod limits;
mod needs;
mod paths;
mod privileges;
mod surroundings;
mod syscalls;
mod trap;

use std::fmt;

pub use needs::{Identity, Needs, Ports, Privilege};
pub use privileges::Account;
use rustix::thread::CapabilitySet;

use crate::scratch::Scratch;

/// Why the sandbox cannot be closed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Something runs already that the sandbox would not hold.
    #[error("Cannot close the sandbox: the worker has threads already")]
    Threads,
    /// The worker cannot become the user that it is to run as.
    #[error(
        "Cannot become user {0} ({1}); the supervisor has to run as root, with CAP_SETUID and CAP_SETGID, for that"
    )]
    User(u32, std::io::Error),
    /// Capabilities cannot be given up.
    #[error("Cannot give capabilities up: {0}")]
    Capabilities(std::io::Error),
    /// PR_SET_NO_NEW_PRIVS was refused.
    #[error("Cannot rule out new privileges: {0}")]
    NoNewPrivileges(std::io::Error),
    /// A limit was refused.
    #[error("Cannot set {0}: {1}")]
    Limit(String, std::io::Error),
    /// Landlock refused.
    #[error("Cannot close files and ports: {0}")]
    Paths(String),
    /// seccomp refused.
    #[error("Cannot close system calls: {0}")]
    Calls(String),
}

/// As whom the worker goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Become {
    /// As whoever it is.
    Stay,
    /// As this user, or not at all.
    User(Account),
    /// As the first of these that the kernel permits; the first one is nobody else's.
    Own(Vec<Account>),
}

/// How tight the sandbox is, for the status row.
#[derive(Clone, Debug)]
pub struct Closed {
    paths: paths::Held,
    calls: syscalls::Held,
    user: String,
    capabilities: String,
    /// Where programs have their temporary files.
    pub(crate) scratch: Scratch,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, {}, {}", self.paths, self.calls, self.user, self.capabilities)
    }
}

/// Takes everything away that is not needed. `provider`: its name, for the folder of its programs.
///
/// # Errors
/// If something that the kernel has was refused; the worker must not go on.
pub fn close(needs: &Needs, identity: &Become, provider: &str) -> Result<Closed, SandboxError> {
    if limits::threads() > 1 {
        return Err(SandboxError::Threads);
    }
    // What the worker will not be able to list any more may still be named.
    let around = if needs.programs { surroundings::of(&needs.hidden) } else { Vec::new() };
    let kept = privileges::kept(needs);
    privileges::drop_bounding(kept);
    let supervisor = nix::unistd::getuid();
    let (user, alone) = settle(identity, kept)?;
    let capabilities = privileges::drop_capabilities(kept)?;
    privileges::no_new_privileges()?;
    if alone {
        privileges::end_predecessors();
    }
    let scratch = if needs.programs { Scratch::make(provider) } else { Scratch::default() };
    limits::set(needs, alone)?;
    let paths = paths::restrict(needs, &around, scratch.path())?;
    let calls = syscalls::restrict(needs, nix::unistd::getuid() == supervisor)?;
    Ok(Closed { paths, calls, user, capabilities, scratch })
}

/// Becomes whoever it is to be. What the row says of that, and whether nobody else is the same.
fn settle(identity: &Become, kept: CapabilitySet) -> Result<(String, bool), SandboxError> {
    let uid = |account: &Account| format!("uid {}", account.uid);
    match identity {
        Become::Stay => Ok((format!("the supervisor's uid {}", nix::unistd::getuid()), false)),
        Become::User(account) => {
            privileges::become_user(account, kept).map_err(|error| SandboxError::User(account.uid, error))?;
            Ok((uid(account), false))
        }
        Become::Own(accounts) => {
            let mut refused = None;
            for (place, account) in accounts.iter().enumerate() {
                match privileges::become_user(account, kept) {
                    Ok(()) => return Ok((uid(account), place == 0)),
                    Err(error) => refused = Some(error),
                }
            }
            let why = refused.map_or_else(String::new, |error| format!(" ({error})"));
            Ok((format!("no uid of its own{why}"), false))
        }
    }
}
