//! Trying a provider without a message, step by step, for a person who wants to know whether it works: `spooler probe`.

use std::cell::Cell;
use std::fmt::Display;
use std::io::Write;
use std::time::Instant;

use nix::unistd::{AccessFlags, access};

use crate::sandbox::Needs;

/// Columns of a step's name.
const NAME_COLUMNS: usize = 9;

/// What came of trying a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probed {
    /// It works, as far as that shows without a message.
    Works,
    /// There is nothing to try; why.
    Nothing(&'static str),
    /// It does not work.
    Fails {
        /// Why.
        why: String,
        /// What to do.
        remedy: String,
    },
}

/// What a probe knows of its surroundings, and where it says what it does.
#[derive(Debug)]
pub struct Probe {
    /// The name that the spooler goes by towards other hosts.
    pub hostname: String,
    since: Cell<Instant>,
}

impl Probe {
    /// A probe that begins now.
    #[must_use]
    pub fn new(hostname: &str) -> Self {
        Self { hostname: hostname.to_owned(), since: Cell::new(Instant::now()) }
    }

    /// A step is done: its name, what came of it, and how long it took since the one before.
    pub fn step(&self, name: &str, what: impl Display) {
        let took_ms = self.since.replace(Instant::now()).elapsed().as_millis();
        // A reader that has gone away has heard enough.
        let _ = writeln!(std::io::stdout().lock(), "  {name:<NAME_COLUMNS$} {what} ({took_ms} ms)");
    }
}

impl Probe {
    /// Looks at the files, folders and devices that a provider needs.
    pub(crate) fn needs(&self, needs: &Needs) -> Probed {
        let files = needs.files.iter().chain(&needs.read).map(|path| ("file", path, AccessFlags::R_OK));
        let folders = needs.write.iter().map(|path| ("folder", path, AccessFlags::W_OK | AccessFlags::X_OK));
        let devices = needs.devices.iter().map(|path| ("device", path, AccessFlags::R_OK | AccessFlags::W_OK));
        let mut looked = false;
        for (name, path, wanted) in files.chain(folders).chain(devices) {
            looked = true;
            // A folder is made when the first message comes.
            let there =
                if name == "folder" { path.ancestors().find(|path| path.exists()).unwrap_or(path) } else { path };
            if let Err(error) = access(there, wanted) {
                let why = format!("{name} {}: {}", there.display(), error.desc());
                return Probed::Fails {
                    why,
                    remedy: "give the spooler's user access to it, or name another one".to_owned(),
                };
            }
            self.step(name, format!("{} can be used", there.display()));
        }
        if looked { Probed::Works } else { Probed::Nothing("it shows only with a message whether this provider works") }
    }

    /// Looks at a program that a provider runs.
    pub(crate) fn program(&self, program: &str) -> Probed {
        match access(program, AccessFlags::X_OK) {
            Ok(()) => {
                self.step("program", format!("{program} can be run"));
                Probed::Works
            }
            Err(error) => Probed::Fails {
                why: format!("program {program}: {}", error.desc()),
                remedy: "install it, or correct command".to_owned(),
            },
        }
    }
}

impl Probed {
    /// Says the result, the reason and the remedy; true if it works or there was nothing to try.
    pub(crate) fn tell(&self) -> bool {
        let mut out = std::io::stdout().lock();
        let _ = match self {
            Self::Works => writeln!(out, "It works; no mail was sent."),
            Self::Nothing(why) => writeln!(out, "Nothing to probe: {why}"),
            Self::Fails { why, remedy } => writeln!(out, "It fails: {why}\nTo do: {remedy}"),
        };
        !matches!(self, Self::Fails { .. })
    }
}
