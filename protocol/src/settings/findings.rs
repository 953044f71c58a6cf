//! What comes of reading settings. A worker program writes it as JSON, when the supervisor has it check a configuration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::confinement::Privilege;

/// One thing that is wrong in the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mistake {
    /// Where, as dotted keys below the table: `tls` or `auth.password`.
    pub key: String,
    /// What, and what is allowed.
    pub message: String,
}

/// One effective setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effective {
    /// The key.
    pub key: String,
    /// The value as TOML, or what stands for a secret.
    pub value: String,
}

/// How long a delivery may be silent, and which key says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// The key.
    pub key: String,
    /// How long.
    pub duration: Duration,
}

/// Something outside of the configuration that settings refer to, for a check of whether it is there and fit for use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Referent {
    /// A file that is read at the start.
    File(PathBuf),
    /// A file with a password or a key in it, which is read at the start.
    Secret(PathBuf),
    /// A program that is run, by its absolute path.
    Program(PathBuf),
    /// An address that is listened on.
    Listener(SocketAddr),
    /// So large a network that may relay without a password that it is open to strangers.
    OpenRelay(String),
    /// A host name that is said to other servers.
    HostName(String),
}

/// A setting, and what it refers to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// The key.
    pub key: String,
    /// What it refers to.
    pub to: Referent,
}

/// What came of reading: the mistakes, and the effective values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Empty if all is well.
    pub mistakes: Vec<Mistake>,
    /// In the order in which they were asked for.
    pub effective: Vec<Effective>,
    /// The longest silence of a delivery that these settings allow, if any of them has to do with it.
    #[serde(default)]
    pub silence: Option<Silence>,
    /// The rights that the provider declares to need with these settings.
    #[serde(default)]
    pub privileges: Vec<Privilege>,
    /// Whether its worker runs programs with these settings.
    #[serde(default)]
    pub programs: bool,
    /// Files that it reads at its start and that not everybody can read.
    #[serde(default)]
    pub secret_files: Vec<PathBuf>,
    /// What the settings refer to outside of the configuration.
    #[serde(default)]
    pub references: Vec<Reference>,
    /// The address types that a provider of this kind serves unless the configuration says otherwise; `None` if only a running one knows.
    #[serde(default)]
    pub address_types: Option<Vec<String>>,
}

impl Findings {
    pub(super) fn add_silence(&mut self, other: Option<Silence>) {
        let longer = |other: &Silence| self.silence.as_ref().is_none_or(|mine| mine.duration < other.duration);
        if other.as_ref().is_some_and(longer) {
            self.silence = other;
        }
    }
}
