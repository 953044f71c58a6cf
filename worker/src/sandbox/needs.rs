//! What a provider needs of the machine. Declared beside the provider's settings; everything else is taken away from its worker.

use std::path::PathBuf;

pub use spooler_protocol::confinement::Privilege;

/// Bytes of memory that a process of a worker may have if its provider says nothing else.
const MEMORY_BYTES_MAX: u64 = 1 << 30;
/// Descriptors that a worker may have open if its provider says nothing else.
const DESCRIPTORS_MAX: u64 = 4096;
/// Processes and threads of a worker if its provider says nothing else: tokio has up to 512 threads for what blocks.
const PROCESSES_MAX: u64 = 768;

/// Some TCP ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ports {
    /// None.
    #[default]
    None,
    /// These. To listen on port 0 is to take any that is free.
    Only(Vec<u16>),
    /// Any.
    Any,
}

/// As whom a worker runs if the supervisor is root and the configuration names nobody (`run_as`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Identity {
    /// A user of its own, which nobody else has.
    #[default]
    Own,
    /// This user, because its settings say so.
    User {
        /// The user's id.
        uid: u32,
        /// Its group's.
        gid: u32,
    },
    /// The supervisor's user; why.
    Supervisor(&'static str),
}

/// What a provider needs of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Single files, such as passwords and keys, that are read once before the sandbox closes, with the rights that the supervisor
    /// has. [`crate::Support::file`] gives their content.
    pub files: Vec<PathBuf>,
    /// Files and folders that are read, besides those that every program reads (certificates, time zones, the resolver's).
    pub read: Vec<PathBuf>,
    /// Files and folders that are written, with everything below them.
    pub write: Vec<PathBuf>,
    /// Devices that are read and written. They may come and go.
    pub devices: Vec<PathBuf>,
    /// Whether it runs programs. They live in the same sandbox, reach every file but [`Needs::hidden`], and call what they like as long
    /// as it neither changes the machine nor looks into other processes.
    pub programs: bool,
    /// Which TCP ports it connects to. The name service comes with them.
    pub connect: Ports,
    /// On which TCP ports it listens.
    pub listen: Ports,
    /// Whether it connects to Unix sockets.
    pub unix_sockets: bool,
    /// Whether it looks up users of this machine.
    pub accounts: bool,
    /// As whom it runs.
    pub identity: Identity,
    /// Groups that it needs to be in, if it gets a user of its own.
    pub groups: Vec<u32>,
    /// Rights that it keeps.
    pub privileges: Vec<Privilege>,
    /// Out of reach even for programs. Providers leave this empty.
    pub hidden: Vec<PathBuf>,
    /// Bytes of memory that one process may have for itself (RLIMIT_DATA: address space that is only reserved does not count).
    pub memory_bytes_max: u64,
    /// Descriptors that one process may have open (RLIMIT_NOFILE).
    pub descriptors_max: u64,
    /// Processes and threads (RLIMIT_NPROC).
    pub processes_max: u64,
    /// Bytes of the largest file that it may write (RLIMIT_FSIZE); `None` for no limit.
    pub file_bytes_max: Option<u64>,
    /// Seconds of CPU that one process may use (RLIMIT_CPU); `None` for no limit. The spooler's own accounting is finer.
    pub cpu_s_max: Option<u64>,
}

impl Default for Needs {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            read: Vec::new(),
            write: Vec::new(),
            devices: Vec::new(),
            programs: false,
            connect: Ports::None,
            listen: Ports::None,
            unix_sockets: false,
            accounts: false,
            identity: Identity::Own,
            groups: Vec::new(),
            privileges: Vec::new(),
            hidden: Vec::new(),
            memory_bytes_max: MEMORY_BYTES_MAX,
            descriptors_max: DESCRIPTORS_MAX,
            processes_max: PROCESSES_MAX,
            file_bytes_max: None,
            cpu_s_max: None,
        }
    }
}

impl Needs {
    /// Whether it uses the network.
    #[must_use]
    pub fn network(&self) -> bool {
        self.connect != Ports::None || self.listen != Ports::None
    }

    /// What and how much, for people.
    #[must_use]
    pub fn describe(&self) -> Vec<(String, String)> {
        let mut rows: Vec<(&str, String)> = Vec::new();
        for (what, paths) in [
            ("reads at start", &self.files),
            ("reads", &self.read),
            ("writes", &self.write),
            ("devices", &self.devices),
            ("hidden", &self.hidden),
        ] {
            if !paths.is_empty() {
                rows.push((what, paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")));
            }
        }
        rows.push(("connects to", ports(&self.connect, "nowhere", "any TCP port")));
        rows.push(("listens on", ports(&self.listen, "nothing", "any TCP port")));
        rows.push(("unix sockets", yes(self.unix_sockets || self.programs)));
        rows.push(("programs", yes(self.programs)));
        if let Identity::Supervisor(why) = self.identity {
            rows.push(("keeps the user", why.to_owned()));
        }
        rows.push(("memory", size(self.memory_bytes_max)));
        rows.push(("descriptors", self.descriptors_max.to_string()));
        rows.push(("processes", self.processes_max.to_string()));
        rows.push(("file size", self.file_bytes_max.map_or_else(|| "no limit".to_owned(), size)));
        rows.push(("cpu", self.cpu_s_max.map_or_else(|| "no limit".to_owned(), |seconds| format!("{seconds} s"))));
        rows.into_iter().map(|(what, much)| (what.to_owned(), much)).collect()
    }
}

fn ports(ports: &Ports, none: &str, any: &str) -> String {
    match ports {
        Ports::None => none.to_owned(),
        Ports::Only(list) => {
            let list: Vec<String> = list.iter().map(u16::to_string).collect();
            format!("TCP {}", list.join(", "))
        }
        Ports::Any => any.to_owned(),
    }
}

fn yes(on: bool) -> String {
    if on { "yes" } else { "no" }.to_owned()
}

fn size(bytes: u64) -> String {
    if bytes.is_multiple_of(1 << 20) { format!("{} MiB", bytes >> 20) } else { format!("{bytes} bytes") }
}
