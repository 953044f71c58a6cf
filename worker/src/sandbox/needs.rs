//! What a provider needs of the machine. Declared beside the provider's settings; everything else is taken away from its worker.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// Bytes of memory that a worker may have if its provider says nothing else.
const MEMORY_BYTES_MAX: u64 = 512 << 20;
/// Descriptors that a worker may have open if its provider says nothing else.
const DESCRIPTORS_MAX: u64 = 4096;

/// Which TCP ports may be connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Connect {
    /// None: the provider has nothing to do with the network.
    #[default]
    Nowhere,
    /// These, and those of the name service.
    Ports(Vec<u16>),
    /// Any.
    Anywhere,
}

/// What a provider needs of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Needs {
    /// Files and folders that are read, besides those that every program reads (certificates, time zones, the resolver's).
    pub read: Vec<PathBuf>,
    /// Files, folders and devices that are written, with everything below them.
    pub write: Vec<PathBuf>,
    /// Whether it runs programs. They live in the same sandbox.
    pub programs: bool,
    /// Which TCP ports it connects to.
    pub connect: Connect,
    /// On which TCP ports it listens.
    pub listen: Vec<u16>,
    /// Whether it connects to Unix sockets; where, is a matter of `write`.
    pub unix_sockets: bool,
    /// Bytes of memory that it may have for itself (RLIMIT_DATA: address space that is only reserved does not count).
    pub memory_bytes_max: u64,
    /// Descriptors that it may have open (RLIMIT_NOFILE).
    pub descriptors_max: u64,
    /// Bytes of the largest file that it may write (RLIMIT_FSIZE); `None` for no limit.
    pub file_bytes_max: Option<u64>,
}

impl Default for Needs {
    fn default() -> Self {
        Self {
            read: Vec::new(),
            write: Vec::new(),
            programs: false,
            connect: Connect::Nowhere,
            listen: Vec::new(),
            unix_sockets: false,
            memory_bytes_max: MEMORY_BYTES_MAX,
            descriptors_max: DESCRIPTORS_MAX,
            file_bytes_max: None,
        }
    }
}

impl Needs {
    /// Whether any socket but the channel is needed.
    #[must_use]
    pub fn network(&self) -> bool {
        self.connect != Connect::Nowhere || !self.listen.is_empty() || self.unix_sockets
    }
}

impl fmt::Display for Needs {
    /// One line for each need, for `spoolctl provider show`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths = |paths: &[PathBuf]| {
            let shown: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            if shown.is_empty() { "nothing".to_owned() } else { shown.join(", ") }
        };
        writeln!(f, "reads      {}", paths(&self.read))?;
        writeln!(f, "writes     {}", paths(&self.write))?;
        writeln!(f, "programs   {}", if self.programs { "yes" } else { "no" })?;
        let ports = |ports: &[u16]| ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        match &self.connect {
            Connect::Nowhere => writeln!(f, "connects   nowhere")?,
            Connect::Ports(list) => writeln!(f, "connects   TCP ports {}, and the name service", ports(list))?,
            Connect::Anywhere => writeln!(f, "connects   anywhere")?,
        }
        let listens =
            if self.listen.is_empty() { "nowhere".to_owned() } else { format!("TCP {}", ports(&self.listen)) };
        writeln!(f, "listens    {listens}")?;
        write!(f, "memory     {} MiB, {} descriptors", self.memory_bytes_max >> 20, self.descriptors_max)
    }
}
