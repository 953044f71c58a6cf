//! What a closed sandbox keeps in. Each attempt is made by a process of its own, from inside.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::sys::signal::Signal;

struct Probe {
    folder: tempfile::TempDir,
    port: u16,
    network: bool,
    programs: bool,
    hidden: PathBuf,
    /// Before it is started, if root starts it: then it closes the sandbox of a spooler that is not root.
    before: &'static [&'static str],
}

impl Probe {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        if nix::unistd::getuid().is_root() {
            // The probe becomes nobody.
            std::os::unix::fs::chown(folder.path(), Some(65534), Some(65534)).unwrap();
        }
        Self { folder, port: 1, network: false, programs: false, hidden: PathBuf::from("/nowhere"), before: &[] }
    }

    fn output(&self, act: &str, argument: &str) -> Output {
        let yes = |on| if on { "yes" } else { "no" };
        let mut words =
            self.before.iter().map(OsStr::new).chain([probe().as_os_str()]).map(OsStr::to_owned).collect::<Vec<_>>();
        Command::new(words.remove(0))
            .args(words)
            .arg(self.folder.path())
            .args([&self.port.to_string(), yes(self.network), yes(self.programs)])
            .arg(&self.hidden)
            .args([act, argument])
            .output()
            .unwrap()
    }

    /// What the probe says: `done`, or why not; or its last words if the sandbox ended it.
    fn attempt(&self, act: &str, argument: &str) -> String {
        let output = self.output(act, argument);
        let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        let ended = output.status.signal() == Some(Signal::SIGSYS as i32);
        if said.is_empty() && ended { "SIGSYS".to_owned() } else { said.trim().to_owned() }
    }
}

fn probe() -> std::path::PathBuf {
    Path::new(env!("CARGO_BIN_EXE_spooler-worker")).with_file_name("examples").join("sandbox-probe")
}

#[track_caller]
fn refused(said: &str) {
    // Nothing is said where whoever makes a process has put off all signals.
    let ended = said.contains("the sandbox does not allow system call") || said == "SIGSYS";
    let denied = said.contains("Permission denied") || said.contains("not permitted") || said.contains("no rights");
    assert!(ended || denied, "{said}");
}

#[test]
fn it_says_how_tight_it_is() {
    let said = Probe::new().attempt("say", "");
    assert!(said.contains("seccomp, ") && said.ends_with(", no capabilities"), "{said}");
    assert_eq!(said.contains(", uid 65534, "), nix::unistd::getuid().is_root(), "{said}");
    let programs = Probe { programs: true, ..Probe::new() }.attempt("say", "");
    assert!(programs.contains("seccomp (dangerous calls only, as it runs programs)"), "{programs}");
}

#[test]
fn nothing_else_connects() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for port in [1, address.port()] {
        let probe = Probe { network: true, port, ..Probe::new() };
        refused(&probe.attempt("send-and-connect", &address.to_string()));
        refused(&probe.attempt("multipath-tcp", ""));
    }
}

#[test]
fn rights_are_changed_by_descriptor_only() {
    let probe = Probe::new();
    let file = probe.folder.path().join("file");
    assert_eq!(probe.attempt("chmod-what-is-open", &file.to_string_lossy()), "done");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    refused(&probe.attempt("chmod", &file.to_string_lossy()));
    // The same for programs that have the supervisor's user.
    if nix::unistd::getuid().is_root() {
        let before = &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
        let programs = Probe { programs: true, before, ..Probe::new() };
        let said = programs.attempt("say", "");
        if said.contains("the supervisor's uid 65534") {
            refused(&programs.attempt("chmod", &file.to_string_lossy()));
        } else {
            eprintln!("rights_are_changed_by_descriptor_only: skipped for programs: {said}");
        }
    }
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn what_is_needed_works() {
    let mut probe = Probe::new();
    let file = probe.folder.path().join("file");
    assert_eq!(probe.attempt("write", &file.to_string_lossy()), "done");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    (probe.network, probe.port) = (true, listener.local_addr().unwrap().port());
    assert_eq!(probe.attempt("connect", &listener.local_addr().unwrap().to_string()), "done");
    probe.programs = true;
    assert_eq!(probe.attempt("run", "/bin/true"), "done");
}

#[test]
fn files_that_are_not_named_cannot_be_read_or_written() {
    let elsewhere = tempfile::tempdir().unwrap();
    let secret = elsewhere.path().join("secret");
    std::fs::write(&secret, b"x").unwrap();
    let probe = Probe::new();
    refused(&probe.attempt("read", &secret.to_string_lossy()));
    refused(&probe.attempt("write", &secret.to_string_lossy()));
    refused(&probe.attempt("write", "/etc/spooler-was-here"));
}

#[test]
fn what_is_hidden_is_out_of_reach_of_programs_too() {
    let mut probe = Probe { programs: true, ..Probe::new() };
    let (store, other) = (probe.folder.path().join("store"), probe.folder.path().join("other"));
    for folder in [&store, &other] {
        std::fs::create_dir(folder).unwrap();
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    std::fs::write(store.join("message"), "secret").unwrap();
    probe.hidden = store.clone();
    assert_eq!(probe.attempt("write", &other.join("x").to_string_lossy()), "done");
    for (act, path) in
        [("read", store.join("message")), ("write", store.join("x")), ("write", store.with_file_name("y"))]
    {
        refused(&probe.attempt(act, &path.to_string_lossy()));
    }
    // Nor does a program that it runs get there.
    let out = probe.attempt("shell", &format!("cat {}/message && echo escaped", store.display()));
    assert!(out.contains("Permission denied") && !out.contains("escaped"), "{out}");
}

#[test]
fn other_ports_and_no_network_at_all() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    refused(&Probe { network: true, ..Probe::new() }.attempt("connect", &address));
    refused(&Probe { network: true, ..Probe::new() }.attempt("listen", "127.0.0.1:0"));
    refused(&Probe::new().attempt("connect", &address));
}

#[test]
fn no_program_is_run_and_no_process_is_touched() {
    let probe = Probe::new();
    refused(&probe.attempt("run", "/bin/true"));
    for act in ["trace-parent", "environment-of-parent", "mount", "host-name", "become-root"] {
        refused(&probe.attempt(act, ""));
        refused(&Probe { programs: true, ..Probe::new() }.attempt(act, ""));
    }
    refused(&probe.attempt("kill-parent", ""));
}

#[test]
fn memory_and_core_dumps_are_limited() {
    let probe = Probe::new();
    assert_eq!(probe.attempt("core-limit", ""), "no core dumps");
    assert_ne!(probe.attempt("memory", ""), "done");
}
