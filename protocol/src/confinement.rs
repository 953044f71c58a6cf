//! The sandbox of a worker: what the supervisor wishes of it, and what the worker reports when it is closed.
//!
//! What a provider needs is known to its worker only, and how far the kernel goes as well. So the wish says what the configuration
//! says, and the report says in words for a person what came of it.

use serde::{Deserialize, Serialize};

/// A right that a provider keeps where its worker has it. All others are given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Privilege {
    /// To listen on a port below 1024 (CAP_NET_BIND_SERVICE).
    LowPorts,
    /// To write files of any user, and to give them away (CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER).
    FilesOfAll,
}

/// What the configuration says of a worker's sandbox. Limits that are `None` are those that the provider declares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// The user to become, as a name or a number, if one is named.
    pub run_as: Option<String>,
    /// User ids to become if none is named and the supervisor is root: the first that the kernel permits. The first one belongs to this
    /// provider alone, on the whole machine.
    pub own_uids: Vec<u32>,
    /// Files and folders that may be read besides what the provider needs.
    pub may_read: Vec<String>,
    /// Files and folders that may be written besides what the provider needs.
    pub may_write: Vec<String>,
    /// What is out of reach even for a worker that runs programs: the store, the control socket, the configuration.
    pub hidden: Vec<String>,
    /// Bytes of memory of one process (RLIMIT_DATA).
    pub memory_bytes_max: Option<u64>,
    /// Open descriptors (RLIMIT_NOFILE).
    pub descriptors_max: Option<u64>,
    /// Processes and threads (RLIMIT_NPROC).
    pub processes_max: Option<u64>,
    /// Bytes of the largest file that is written (RLIMIT_FSIZE).
    pub file_bytes_max: Option<u64>,
    /// Seconds of CPU of one process (RLIMIT_CPU).
    pub cpu_s_max: Option<u64>,
}

/// What a closed sandbox is like, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confined {
    /// How tight it is, in one line: `Landlock ABI 6, seccomp, uid 60706, no capabilities`.
    pub level: String,
    /// Microseconds from reading the provider's settings until it was closed.
    pub took_us: u64,
    /// What the provider declares that it needs, and its limits: what, and how much of it.
    pub needs: Vec<(String, String)>,
}
