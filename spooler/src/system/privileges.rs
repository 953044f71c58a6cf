//! What of root's power is given up at the start, for good: everything that neither the supervisor nor the workers it starts will need.
//!
//! ```text
//!   bounding set, permitted   what the supervisor uses and what workers use before they close their sandboxes
//!   effective                 what the supervisor uses itself
//!   no_new_privs              no program that anybody here runs gets more, set-user-id or not
//! ```
//!
//! A program that root runs gets what is permitted here (no_new_privs forbids more), so what workers need stays permitted, though it is not in
//! effect in the supervisor. Capabilities belong to threads and are inherited: this happens while there is one thread. Who is not root has at
//! most what it was started with (`AmbientCapabilities=`), and the same is taken from that.

use std::fmt;
use std::io;

use nix::sys::resource::{Resource, setrlimit};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// Something that needs a power of root's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Workers run at other priorities than the supervisor, and are raised in critical sections.
    Priorities,
    /// Workers run as users of their own, and are ended all the same.
    OtherUsers,
    /// Workers listen on ports below 1024.
    LowPorts,
    /// Workers write files of other users, and give them away.
    FilesOfAll,
}

impl Use {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 4] = [Self::Priorities, Self::OtherUsers, Self::LowPorts, Self::FilesOfAll];

    /// What the supervisor uses itself.
    fn own(self) -> CapabilitySet {
        match self {
            Self::Priorities => CapabilitySet::SYS_NICE,
            Self::OtherUsers => CapabilitySet::KILL,
            Self::LowPorts | Self::FilesOfAll => CapabilitySet::empty(),
        }
    }

    /// What workers use, before their sandboxes are closed or, where their providers say so, after that.
    fn of_workers(self) -> CapabilitySet {
        match self {
            Self::Priorities => CapabilitySet::empty(),
            Self::OtherUsers => CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::SETPCAP,
            Self::LowPorts => CapabilitySet::NET_BIND_SERVICE,
            Self::FilesOfAll => CapabilitySet::CHOWN | CapabilitySet::DAC_OVERRIDE | CapabilitySet::FOWNER,
        }
    }

    fn all(self) -> CapabilitySet {
        self.own() | self.of_workers()
    }

    fn why(self) -> &'static str {
        match self {
            Self::Priorities => "priorities of workers",
            Self::OtherUsers => "workers as users of their own",
            Self::LowPorts => "ports below 1024",
            Self::FilesOfAll => "files of all users",
        }
    }
}

/// Why power cannot be given up.
#[derive(Debug, thiserror::Error)]
#[error("Cannot give up {0}: {1}")]
pub struct PrivilegeError(&'static str, #[source] io::Error);

/// What was kept and what was given up.
#[derive(Clone, Debug)]
pub struct Reduced {
    kept: Vec<(Use, CapabilitySet)>,
    given_up: CapabilitySet,
}

impl Reduced {
    /// Which of these uses miss something now that was there at the start.
    #[must_use]
    pub fn missed_by(&self, uses: &[Use]) -> Vec<String> {
        let missed = |of: &Use| {
            let missed = of.all() & self.given_up;
            (!missed.is_empty()).then(|| format!("{} for {}", names(missed), of.why()))
        };
        uses.iter().filter_map(missed).collect()
    }
}

impl fmt::Display for Reduced {
    /// `CAP_SYS_NICE for priorities of workers; CAP_KILL … for workers as users of their own`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kept.is_empty() {
            return f.write_str("no capabilities");
        }
        let kept: Vec<String> = self.kept.iter().map(|(of, set)| format!("{} for {}", names(*set), of.why())).collect();
        f.write_str(&kept.join("; "))
    }
}

/// Gives up everything but what these uses need. Also: no core dumps, no way in for debuggers, and no program gets more than we have.
///
/// # Errors
/// What the kernel refused: then nothing should run.
pub fn give_up_all_but(uses: &[Use]) -> Result<Reduced, PrivilegeError> {
    close_memory()?;
    let failed = |error: rustix::io::Errno| PrivilegeError("capabilities", error.into());
    rustix::thread::set_no_new_privs(true).map_err(|error| PrivilegeError("new privileges", error.into()))?;
    let had = rustix::thread::capabilities(None).map_err(failed)?;
    let needed = uses.iter().fold(CapabilitySet::empty(), |all, of| all | of.all());
    let own = uses.iter().fold(CapabilitySet::empty(), |all, of| all | of.own());
    if had.effective.contains(CapabilitySet::SETPCAP) {
        drop_bounding(needed)?;
    }
    let sets = CapabilitySets {
        effective: had.permitted & own,
        permitted: had.permitted & needed,
        inheritable: had.inheritable & needed,
    };
    rustix::thread::set_capabilities(None, sets).map_err(failed)?;
    let kept = uses.iter().map(|of| (*of, of.all() & had.permitted)).filter(|(_, set)| !set.is_empty());
    Ok(Reduced { kept: kept.collect(), given_up: had.permitted.difference(needed) })
}

/// Nobody reads our memory, be it in a core file or through a debugger of the same user: it holds passwords and messages.
fn close_memory() -> Result<(), PrivilegeError> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(|error| PrivilegeError("core dumps", error.into()))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| PrivilegeError("being looked into", error.into()))
}

/// What is not in the bounding set no program can get, however it is run.
fn drop_bounding(needed: CapabilitySet) -> Result<(), PrivilegeError> {
    for capability in CapabilitySet::all().difference(needed).iter() {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // A kernel that does not know it has none to be taken.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(PrivilegeError("capabilities", error.into())),
        }
    }
    Ok(())
}

fn names(set: CapabilitySet) -> String {
    let names: Vec<String> = set.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_said_with_its_reason() {
        let of = |of: Use| (of, of.all());
        let reduced =
            Reduced { kept: vec![of(Use::Priorities), of(Use::LowPorts)], given_up: CapabilitySet::SYS_ADMIN };
        assert_eq!(
            reduced.to_string(),
            "CAP_SYS_NICE for priorities of workers; CAP_NET_BIND_SERVICE for ports below 1024"
        );
        assert_eq!(Reduced { kept: Vec::new(), ..reduced }.to_string(), "no capabilities");
    }

    #[test]
    fn what_a_later_configuration_misses_is_known() {
        let reduced = Reduced { kept: Vec::new(), given_up: CapabilitySet::NET_BIND_SERVICE };
        assert_eq!(reduced.missed_by(&[Use::LowPorts]), ["CAP_NET_BIND_SERVICE for ports below 1024"]);
        assert!(reduced.missed_by(&[Use::Priorities]).is_empty());
    }

    #[test]
    fn the_supervisor_itself_never_acts_as_somebody_else() {
        let own = Use::ALL.iter().fold(CapabilitySet::empty(), |all, of| all | of.own());
        assert_eq!(own, CapabilitySet::SYS_NICE | CapabilitySet::KILL);
        let all = Use::ALL.iter().fold(CapabilitySet::empty(), |all, of| all | of.all());
        assert!(!all.intersects(CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE | CapabilitySet::NET_ADMIN));
    }
}
