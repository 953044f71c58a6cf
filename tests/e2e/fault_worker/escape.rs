//! Ways out of the sandbox. Each is tried at the logon; one that succeeds lets the provider log on, which a test takes for an escape.
//!
//! What is tried at other processes is tried at the supervisor, and at every process that there may be.

use std::fs::{self, File};
use std::io::{Error, ErrorKind, IoSliceMut, Result};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::parent_id;
use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::ptrace;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::{Gid, Pid, Uid, chroot, getuid, setgid, setuid};
use rustix::net::{self, ipproto};

/// What the environment of a worker may hold.
const ENVIRONMENT: [&str; 6] = ["PATH", "RUST_BACKTRACE", "SPOOLER_LOG", "SPOOLER_TMPDIR", "TMPDIR", "TZ"];

/// Tries one; `target` is a file, a folder, a socket or an address, as the way needs it.
pub(crate) fn attempt(way: &str, target: &str) -> Result<()> {
    let path = Path::new(target);
    let supervisor = Pid::from_raw(i32::try_from(parent_id()).map_err(Error::other)?);
    match way {
        "read" => File::open(path).map(drop),
        "list" => fs::read_dir(path).map(drop),
        "write" => fs::write(path, "was here"),
        "remove" => fs::remove_file(path),
        "chmod" => fs::set_permissions(path, fs::Permissions::from_mode(0o777)),
        "chown" => std::os::unix::fs::lchown(path, Some(getuid().as_raw()), None),
        "unix-connect" => UnixStream::connect(path).map(drop),
        "tcp-connect" => TcpStream::connect(target).map(drop),
        "tcp-listen" => TcpListener::bind(target).map(drop),
        "raw-socket" => {
            let icmp = Some(ipproto::ICMP);
            Ok(net::socket(net::AddressFamily::INET, net::SocketType::RAW, icmp).map(drop)?)
        }
        "packet-socket" => Ok(socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None).map(drop)?),
        "run" => Command::new(path).status().map(drop),
        "others-environment" => of_others("environ"),
        "others-memory" => of_others("mem"),
        "others-descriptors" => of_others("fd/0"),
        "trace" => Ok(ptrace::attach(supervisor)?),
        "read-memory" => {
            let mut byte = [0];
            let there = RemoteIoVec { base: std::ptr::from_ref(&ENVIRONMENT).addr(), len: 1 };
            Ok(process_vm_readv(supervisor, &mut [IoSliceMut::new(&mut byte)], &[there]).map(drop)?)
        }
        "kill" => Ok(kill(supervisor, Signal::SIGTERM)?),
        "become-root" => Ok(setuid(Uid::from_raw(0)).and_then(|()| setgid(Gid::from_raw(0)))?).and_then(|()| root()),
        "mount" => Ok(mount(None::<&str>, path, Some("tmpfs"), MsFlags::empty(), None::<&str>)?),
        "name-space" => Ok(unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?),
        "chroot" => Ok(chroot(path)?),
        "environment" => environment(),
        "core-dump" => core_dump(),
        "raise-limits" => {
            let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
            Ok(setrlimit(Resource::RLIMIT_NOFILE, most + 1, most + 1)?)
        }
        other => Err(Error::new(ErrorKind::InvalidInput, format!("there is no way {other:?}"))),
    }
}

/// Opens a file of any other process.
fn of_others(file: &str) -> Result<()> {
    let ourselves = std::process::id();
    let mut refused = Error::new(ErrorKind::NotFound, "nobody is there");
    for pid in (1..ourselves + 100).filter(|pid| *pid != ourselves) {
        match File::open(format!("/proc/{pid}/{file}")) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => refused = error,
            Err(_) => {}
        }
    }
    Err(refused)
}

/// Being root by name is no escape; having a right of root is.
fn root() -> Result<()> {
    chroot("/").map_err(Error::from)
}

fn environment() -> Result<()> {
    match std::env::vars().find(|(name, _)| !ENVIRONMENT.contains(&name.as_str())) {
        Some(_) => Ok(()),
        None => Err(Error::new(ErrorKind::PermissionDenied, "there is nothing in it")),
    }
}

fn core_dump() -> Result<()> {
    let raised = setrlimit(Resource::RLIMIT_CORE, u64::MAX, u64::MAX).is_ok();
    if raised || getrlimit(Resource::RLIMIT_CORE)? != (0, 0) || prctl::get_dumpable().unwrap_or(false) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::PermissionDenied, "no core dumps"))
}
