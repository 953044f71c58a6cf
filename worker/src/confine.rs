//! From what a provider needs and what the configuration says to a closed sandbox: after the welcome, before the provider's logon.
//!
//! Files that hold secrets are read here, with the rights that the supervisor has; after that nobody in this process can open them.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::unistd::{Gid, Uid, User, getgrouplist, getuid};
use spooler_protocol::confinement::{Confined, Confinement};
use spooler_protocol::settings::Settings;
use spooler_protocol::to_worker::Welcome;

use crate::contract::Provider;
use crate::filter::Filters;
use crate::sandbox::{self, Account, Become, Identity, Needs, Ports, Privilege, SandboxError};
use crate::scratch::Scratch;

/// Bytes of a file that is read beforehand.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Why a provider that keeps rights of root's has no filters.
pub(crate) const PROGRAMS_OF_ROOT: &str = "Its filters would be programs with root's rights over all files; set run_as, or give the filters to another provider";

/// What was read before the sandbox closed.
#[derive(Debug, Default)]
pub(crate) struct Files(HashMap<PathBuf, io::Result<Vec<u8>>>);

impl Files {
    /// A file's content.
    pub(crate) fn get(&self, path: &Path) -> io::Result<Vec<u8>> {
        match self.0.get(path) {
            Some(Ok(content)) => Ok(content.clone()),
            Some(Err(error)) => Err(io::Error::new(error.kind(), error.to_string())),
            None => std::fs::read(path),
        }
    }
}

/// Why a worker does not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfineError {
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error("There is no system user {0:?} to run as (run_as)")]
    NoUser(String),
    #[error("run_as is {0:?}, but the supervisor is not root, so its workers run as its own user")]
    NotRoot(String),
    #[error("run_as cannot stand beside user, which says the same; remove one of them")]
    Twice,
    #[error("{PROGRAMS_OF_ROOT}")]
    ProgramsOfRoot,
}

/// What a worker goes on with.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    /// Contents of the files that the provider needs.
    pub(crate) files: Files,
    /// Where its programs have their temporary files.
    pub(crate) scratch: Scratch,
    /// The sandbox, if it is not switched off.
    pub(crate) confined: Option<Confined>,
}

/// Closes the sandbox of a provider, unless it is switched off.
pub(crate) fn confine<P: Provider>(welcome: &Welcome) -> Result<Prepared, ConfineError> {
    let start = Instant::now();
    let mut needs = needs_of::<P>(welcome);
    let Some(wish) = &welcome.confinement else {
        let scratch = if needs.programs { Scratch::make(&welcome.provider) } else { Scratch::default() };
        return Ok(Prepared { scratch, ..Prepared::default() });
    };
    let identity = identity(wish, &needs)?;
    apply(wish, &mut needs);
    if needs.programs && getuid().is_root() && needs.privileges.contains(&Privilege::FilesOfAll) {
        return Err(ConfineError::ProgramsOfRoot);
    }
    let files = Files(needs.files.iter().map(|path| (path.clone(), read(path))).collect());
    if needs.accounts {
        // Loads what the name service needs while that is easy.
        let _ = User::from_uid(Uid::from_raw(0));
    }
    let closed = sandbox::close(&needs, &identity, &welcome.provider)?;
    let took_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    let confined = Confined { level: closed.to_string(), took_us, needs: needs.describe() };
    Ok(Prepared { files, scratch: closed.scratch, confined: Some(confined) })
}

/// What the provider needs with these settings. Their mistakes are found at the logon.
fn needs_of<P: Provider>(welcome: &Welcome) -> Needs {
    let mut reader = Settings::new(welcome.settings.parse().unwrap_or_default());
    let settings = P::settings(&mut reader);
    let filters = Filters::read(&mut reader);
    let mut needs = P::needs(&settings);
    needs.programs = needs.programs || filters.run_programs();
    needs
}

/// Puts over it what the configuration says.
fn apply(wish: &Confinement, needs: &mut Needs) {
    if wish.run_as.is_some() {
        // Who is named has what it has.
        needs.privileges.retain(|privilege| *privilege != Privilege::FilesOfAll);
    }
    if needs.programs {
        // Nobody knows whom they talk to.
        (needs.connect, needs.listen) = (Ports::Any, Ports::Any);
    }
    needs.read.extend(wish.may_read.iter().map(PathBuf::from));
    needs.write.extend(wish.may_write.iter().map(PathBuf::from));
    if needs.programs {
        needs.hidden.extend(wish.hidden.iter().map(PathBuf::from));
    }
    needs.memory_bytes_max = wish.memory_bytes_max.unwrap_or(needs.memory_bytes_max);
    needs.descriptors_max = wish.descriptors_max.unwrap_or(needs.descriptors_max);
    needs.processes_max = wish.processes_max.unwrap_or(needs.processes_max);
    needs.file_bytes_max = wish.file_bytes_max.or(needs.file_bytes_max);
    needs.cpu_s_max = wish.cpu_s_max.or(needs.cpu_s_max);
}

/// As whom it goes on.
fn identity(wish: &Confinement, needs: &Needs) -> Result<Become, ConfineError> {
    let groups = needs.groups.clone();
    let root = getuid().is_root();
    match (&wish.run_as, &needs.identity) {
        (Some(_), Identity::User { .. }) => Err(ConfineError::Twice),
        (Some(name), Identity::Own | Identity::Supervisor(_)) => {
            let account = account(name, groups).ok_or_else(|| ConfineError::NoUser(name.clone()))?;
            match (root, account.uid == getuid().as_raw()) {
                (true, _) => Ok(Become::User(account)),
                (false, true) => Ok(Become::Stay),
                (false, false) => Err(ConfineError::NotRoot(name.clone())),
            }
        }
        (None, _) if !root => Ok(Become::Stay),
        (None, Identity::User { uid, gid }) => Ok(Become::User(Account { uid: *uid, gid: *gid, groups })),
        (None, Identity::Own) => {
            let account = |uid: &u32| Account { uid: *uid, gid: *uid, groups: groups.clone() };
            let own: Vec<Account> = wish.own_uids.iter().map(account).collect();
            Ok(if own.is_empty() { Become::Stay } else { Become::Own(own) })
        }
        (None, Identity::Supervisor(_)) => Ok(Become::Stay),
    }
}

/// A system user with its groups, or one of whom nothing but the number is known.
fn account(name: &str, mut groups: Vec<u32>) -> Option<Account> {
    let number: Option<u32> = name.parse().ok();
    let by_number = || User::from_uid(Uid::from_raw(number?)).ok().flatten();
    let Some(user) = User::from_name(name).ok().flatten().or_else(by_number) else {
        let uid = number?;
        return Some(Account { uid, gid: uid, groups });
    };
    let own = CString::new(user.name).ok().and_then(|name| getgrouplist(&name, user.gid).ok());
    groups.extend(own.into_iter().flatten().map(Gid::as_raw));
    Some(Account { uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups })
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let file = std::fs::File::open(path)?;
    // A pipe or a terminal would hold the worker up before it can say why.
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut content)?;
    Ok(content)
}
