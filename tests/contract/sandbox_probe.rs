//! A process that closes its sandbox and then tries what its argument says. Prints `done`, or why not.

use std::io::{Error, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use nix::sys::ptrace;
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{Pid, getuid, setuid};
use rustix::net;
use spooler_worker::sandbox::{Account, Become, Needs, Ports, close};

/// Who it becomes if root starts it: nobody.
const NOBODY: u32 = 65534;

/// `sandbox-probe FOLDER PORT NETWORK PROGRAMS HIDDEN ACT [ARGUMENT]`: the folder may be written (with programs: all but
/// what is hidden), the port connected to.
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, port, network, programs, hidden, act, rest @ ..] = arguments.as_slice() else {
        return ExitCode::from(64);
    };
    let connect = match port.parse() {
        Ok(port) if network == "yes" => Ports::Only(vec![port]),
        _ => Ports::None,
    };
    let programs = programs == "yes";
    let (write, hidden) =
        if programs { (Vec::new(), vec![PathBuf::from(hidden)]) } else { (vec![PathBuf::from(folder)], Vec::new()) };
    let needs = Needs { write, programs, connect, hidden, ..Needs::default() };
    let nobody = Become::User(Account { uid: NOBODY, gid: NOBODY, groups: Vec::new() });
    let parent = std::os::unix::process::parent_id();
    let said = match close(&needs, if getuid().is_root() { &nobody } else { &Become::Stay }, "probe") {
        Err(error) => format!("not closed: {error}"),
        Ok(closed) if act == "say" => closed.to_string(),
        Ok(_) => attempt(act, rest.first().map_or("", String::as_str), parent)
            .map_or_else(|error| error.to_string(), |()| "done".to_owned()),
    };
    let _ = writeln!(std::io::stdout().lock(), "{said}");
    ExitCode::SUCCESS
}

fn attempt(act: &str, argument: &str, parent: u32) -> Result<(), Error> {
    let parent_pid = Pid::from_raw(i32::try_from(parent).unwrap_or(1));
    match act {
        "read" => std::fs::read(argument).map(drop),
        "write" => std::fs::write(argument, b"x"),
        "connect" => TcpStream::connect(argument).map(drop),
        "send-and-connect" => {
            let socket = net::socket(net::AddressFamily::INET, net::SocketType::STREAM, None)?;
            let address: SocketAddr = argument.parse().map_err(Error::other)?;
            let connecting = net::SendFlags::from_bits_retain(nix::libc::MSG_FASTOPEN.cast_unsigned());
            Ok(net::sendto(&socket, b"x", connecting, &address).map(drop)?)
        }
        "multipath-tcp" => {
            let multipath = Some(net::ipproto::MPTCP);
            Ok(net::socket(net::AddressFamily::INET, net::SocketType::STREAM, multipath).map(drop)?)
        }
        "chmod" => std::fs::set_permissions(argument, std::fs::Permissions::from_mode(0o666)),
        "chmod-what-is-open" => {
            std::fs::File::create(argument)?.set_permissions(std::fs::Permissions::from_mode(0o640))
        }
        "listen" => TcpListener::bind(argument).map(drop),
        "unix" => UnixStream::connect(argument).map(drop),
        "run" => Command::new(argument).status().map(drop),
        "shell" => {
            let said = Command::new("/bin/sh").args(["-c", argument]).output()?;
            let said = [said.stdout, said.stderr].concat();
            Err(Error::other(String::from_utf8_lossy(&said).into_owned()))
        }
        "become-root" => Ok(setuid(nix::unistd::Uid::from_raw(0))?).and_then(|()| {
            if getuid().is_root() && std::fs::read("/etc/shadow").is_ok() {
                Ok(())
            } else {
                Err(Error::other("no rights"))
            }
        }),
        "trace-parent" => Ok(ptrace::attach(parent_pid)?),
        "environment-of-parent" => std::fs::read(format!("/proc/{parent}/environ")).map(drop),
        "kill-parent" => Ok(nix::sys::signal::kill(parent_pid, None)?),
        "mount" => Ok(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?),
        "host-name" => Ok(nix::unistd::sethostname("taken-over")?),
        "memory" => {
            let mut all: Vec<u8> = Vec::new();
            all.try_reserve_exact(2 << 30).map_err(Error::other)
        }
        "core-limit" => match getrlimit(Resource::RLIMIT_CORE)? {
            (0, 0) => Err(Error::other("no core dumps")),
            _ => Ok(()),
        },
        other => Err(Error::other(format!("the probe does not know {other}"))),
    }
}
