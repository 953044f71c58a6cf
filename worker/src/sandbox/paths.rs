//! Files and ports: what is not named cannot be opened, bound or connected to (Landlock).

use std::fmt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, NetPort, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};

use super::SandboxError;
use super::needs::{Needs, Ports};

/// The newest rules that this program knows. An older kernel holds what it can.
const RULES: ABI = ABI::V6;

/// What every program reads: libraries, certificates, time zones, the files of resolver and name service.
const READ_BY_ALL: &[&str] = &[
    "/dev/null",
    "/dev/urandom",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/pki",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl",
    "/lib",
    "/lib64",
    "/run/systemd/resolve",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/local/share/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/share/zoneinfo",
];
/// What whoever looks up users reads.
const ACCOUNTS: &[&str] =
    &["/etc/group", "/etc/passwd", "/etc/userdb", "/run/userdb", "/var/lib/extrausers", "/var/lib/sss"];
/// Ports of the name service.
const NAME_SERVICE: &[u16] = &[53];

/// How much of the rules the kernel holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    abi: Option<i32>,
    whole: bool,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.abi {
            None => f.write_str("no Landlock (this kernel has none, so files and ports are open)"),
            Some(abi) if self.whole => write!(f, "Landlock ABI {abi}"),
            Some(abi) if abi < 4 => write!(f, "Landlock ABI {abi} (files only: TCP ports need Linux 6.7)"),
            Some(abi) => write!(f, "Landlock ABI {abi} (signals and abstract sockets need Linux 6.12)"),
        }
    }
}

/// Takes away every file and port that is not needed, for this thread and those that it will start. `around`: what programs reach;
/// `scratch`: the folder of their temporary files, which may lie in what is hidden.
pub(super) fn restrict(needs: &Needs, around: &[PathBuf], scratch: Option<&Path>) -> Result<Held, SandboxError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(RULES))
        .map_err(failed)?;
    if needs.listen != Ports::Any {
        rules = rules.handle_access(AccessNet::BindTcp).map_err(failed)?;
    }
    if needs.connect != Ports::Any {
        rules = rules.handle_access(AccessNet::ConnectTcp).map_err(failed)?;
    }
    let created = rules.scope(Scope::from_all(RULES)).and_then(Ruleset::create).map_err(failed)?;
    let created = allow(created, scratch.into_iter(), AccessFs::from_all(RULES))?;
    let created = allow_ports(allow_files(created, needs, around)?, needs)?;
    let status = created.restrict_self().map_err(failed)?;
    let abi = match status.landlock {
        LandlockStatus::Available { effective_abi, kernel_abi } => Some(kernel_abi.unwrap_or(effective_abi as i32)),
        _ => None,
    };
    let abi = abi.filter(|_| status.ruleset != RulesetStatus::NotEnforced);
    Ok(Held { abi, whole: status.ruleset == RulesetStatus::FullyEnforced })
}

fn failed(error: impl fmt::Display) -> SandboxError {
    SandboxError::Paths(error.to_string())
}

fn allow_files(mut created: RulesetCreated, needs: &Needs, around: &[PathBuf]) -> Result<RulesetCreated, SandboxError> {
    let read = AccessFs::from_read(RULES) & !BitFlags::from(AccessFs::Execute);
    let write = AccessFs::from_all(RULES) & !BitFlags::from(AccessFs::Execute);
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    if needs.programs {
        created = allow(created, around.iter().map(PathBuf::as_path), AccessFs::from_all(RULES))?;
    } else {
        created = allow(created, READ_BY_ALL.iter().map(Path::new), read)?;
    }
    if needs.accounts {
        created = allow(created, ACCOUNTS.iter().map(Path::new), read)?;
    }
    created = allow(created, needs.read.iter().map(PathBuf::as_path), read)?;
    created = allow(created, needs.write.iter().map(PathBuf::as_path), write)?;
    let folders: Vec<PathBuf> = needs.devices.iter().flat_map(|path| folders_of(path)).collect();
    allow(created, folders.iter().map(PathBuf::as_path), device)
}

/// The folder of a device, and that of what its name leads to: the device may not be there yet, and is another one when it comes back.
fn folders_of(device: &Path) -> Vec<PathBuf> {
    let real = device.canonicalize().ok();
    let folders = [Some(device), real.as_deref()].into_iter().flatten().filter_map(Path::parent);
    let mut folders: Vec<PathBuf> = folders.map(Path::to_owned).collect();
    if device.starts_with("/dev") {
        folders.push(PathBuf::from("/dev"));
    }
    folders
}

fn allow_ports(mut created: RulesetCreated, needs: &Needs) -> Result<RulesetCreated, SandboxError> {
    if let Ports::Only(ports) = &needs.listen {
        for port in ports {
            created = created.add_rule(NetPort::new(*port, AccessNet::BindTcp)).map_err(failed)?;
        }
    }
    if let Ports::Only(ports) = &needs.connect {
        for port in ports.iter().chain(NAME_SERVICE) {
            created = created.add_rule(NetPort::new(*port, AccessNet::ConnectTcp)).map_err(failed)?;
        }
    }
    Ok(created)
}

/// Allows what is asked below each path that is there.
fn allow<'a>(
    mut rules: RulesetCreated,
    paths: impl Iterator<Item = &'a Path>,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, SandboxError> {
    for path in paths {
        // What cannot be found now could not be opened later either.
        let Ok(opened) = PathFd::new(path) else { continue };
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(RULES) };
        rules = rules
            .add_rule(PathBeneath::new(opened, access))
            .map_err(|error| SandboxError::Paths(format!("{}: {error}", path.display())))?;
    }
    Ok(rules)
}
