//! Files and ports: what is not named cannot be opened, bound or connected to (Landlock).

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};

use super::SandboxError;
use super::needs::{Connect, Needs};

/// The newest rules that this program knows. An older kernel holds what it can.
const RULES: ABI = ABI::V6;

/// What every program reads: certificates, time zones, the resolver's files, its own kernel files.
const READ_BY_ALL: &[&str] = &[
    "/etc/ca-certificates",
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/pki",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl",
    "/run/systemd/resolve",
    "/usr/lib/ssl",
    "/usr/local/share/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/share/zoneinfo",
    "/proc/self",
    "/dev/null",
    "/dev/urandom",
];
/// What programs of a provider need to start at all.
const READ_BY_PROGRAMS: &[&str] = &["/bin", "/etc", "/lib", "/lib64", "/opt", "/proc", "/sbin", "/usr"];
/// Devices that programs write to without thinking.
const WRITTEN_BY_PROGRAMS: &[&str] = &["/dev/null", "/dev/tty", "/dev/zero", "/dev/full"];
/// Ports of the name service.
const NAME_SERVICE: &[u16] = &[53];

/// How much of the rules the kernel holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    All,
    Some,
    Nothing,
}

/// Takes away every file and port that is not needed, for this thread and those that it will start.
pub(super) fn restrict(needs: &Needs) -> Result<Held, SandboxError> {
    let failed = |error: &dyn std::fmt::Display| SandboxError::Paths(error.to_string());
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(RULES))
        .and_then(|rules| rules.handle_access(AccessNet::BindTcp))
        .map_err(|error| failed(&error))?;
    if needs.connect != Connect::Anywhere {
        rules = rules.handle_access(AccessNet::ConnectTcp).map_err(|error| failed(&error))?;
    }
    let rules = rules.scope(Scope::from_all(RULES)).map_err(|error| failed(&error))?;
    let mut created = rules.create().map_err(|error| failed(&error))?;
    let read = AccessFs::from_read(RULES) & !BitFlags::from(AccessFs::Execute);
    let write = AccessFs::from_all(RULES) & !BitFlags::from(AccessFs::Execute);
    created = allow(created, &paths(READ_BY_ALL), read)?;
    created = allow(created, &needs.read, read)?;
    created = allow(created, &needs.write, write)?;
    if needs.programs {
        created = allow(created, &paths(READ_BY_PROGRAMS), AccessFs::from_read(RULES))?;
        created = allow(created, &needs.read, AccessFs::from_read(RULES))?;
        created = allow(created, &paths(WRITTEN_BY_PROGRAMS), read | AccessFs::WriteFile | AccessFs::IoctlDev)?;
    }
    for port in &needs.listen {
        created = created.add_rule(NetPort::new(*port, AccessNet::BindTcp)).map_err(|error| failed(&error))?;
    }
    if let Connect::Ports(ports) = &needs.connect {
        for port in ports.iter().chain(NAME_SERVICE) {
            created = created.add_rule(NetPort::new(*port, AccessNet::ConnectTcp)).map_err(|error| failed(&error))?;
        }
    }
    let status = created.restrict_self().map_err(|error| failed(&error))?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Held::All,
        RulesetStatus::PartiallyEnforced => Held::Some,
        RulesetStatus::NotEnforced => Held::Nothing,
    })
}

fn paths(texts: &[&str]) -> Vec<PathBuf> {
    texts.iter().map(PathBuf::from).collect()
}

/// Allows what is asked below each path. One that is not there yet is allowed by the nearest folder above it that is, so that it can be
/// made; but never by the root.
fn allow(
    mut rules: RulesetCreated,
    paths: &[PathBuf],
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, SandboxError> {
    for path in paths {
        let makes = access.contains(AccessFs::MakeReg);
        let there = if makes { nearest(path) } else { path.exists().then_some(path.as_path()) };
        let Some(there) = there else { continue };
        let Ok(opened) = PathFd::new(there) else { continue };
        let access = if there.is_dir() { access } else { access & AccessFs::from_file(RULES) };
        rules = rules
            .add_rule(PathBeneath::new(opened, access))
            .map_err(|error| SandboxError::Paths(format!("{}: {error}", there.display())))?;
    }
    Ok(rules)
}

fn nearest(path: &Path) -> Option<&Path> {
    path.ancestors().filter(|above| *above != Path::new("/")).find(|above| above.exists())
}
