//! A user without any right of root's runs the spooler, and its workers are in their sandboxes all the same. The user of the unit does so, too, with
//! the capabilities and limits that the unit gives. Skipped where nobody can become another user.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::unistd::getuid;

use crate::sink::Sink;
use crate::smtp;
use crate::world::{PATIENCE, World};
use crate::{IN, relay};

pub(crate) const SOMEBODY: u32 = 65_531;
const MAIL: &[u8] = b"From: a@b.test\r\nDate: d\r\nMessage-ID: <i@b.test>\r\nSubject: hello\r\n\r\n.dot\r\nbody\r\n";

/// Providers that write below the world's folder.
const LOCAL: &str = "[provider.local]\nkind = \"maildir\"\nclaims = [\"@local.test\"]\npath = \"{dir}/mail/{local}\"\n\
[provider.program]\nkind = \"pipe\"\nclaims = [\"@program.test\"]\ncommand = [\"/bin/sh\", \"-c\", \"{OUT} cat > {dir}/mail/$MESSAGE_ID\"]\n\
[provider.spare]\nkind = \"smtp\"\nenabled = false\nhost = \"127.0.0.1:1\"\nusername = \"me\"\npassword_file = \"{dir}/password\"\n";
/// What programs try that have the supervisor's user: to read what is another provider's secret, and to open the store to everybody.
const OUT: &str = "cat {dir}/password > {dir}/mail/found; chmod 666 {dir}/spool/spool.db;";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(crate) fn can_become_others(test: &str) -> bool {
    let can = getuid().is_root() && Command::new("setpriv").arg("--version").output().is_ok();
    if !can {
        eprintln!("{test}: skipped, it needs root and setpriv");
    }
    can
}

/// `setpriv` that leaves these capabilities, such as `net_bind_service`, and nothing else.
pub(crate) fn as_somebody(capabilities: &[String]) -> Vec<String> {
    let only: String = capabilities.iter().map(|capability| format!(",+{capability}")).collect();
    let mut words = vec!["setpriv".to_owned(), "--clear-groups".to_owned(), "--no-new-privs".to_owned()];
    words.extend(["reuid", "regid"].map(|id| format!("--{id}={SOMEBODY}")));
    words.extend(["inh-caps", "bounding-set"].map(|set| format!("--{set}=-all{only}")));
    if !capabilities.is_empty() {
        words.push(format!("--ambient-caps=-all{only}"));
    }
    words
}

/// Every worker is somebody's process, in a sandbox without capabilities but `kept`, which one of them needs.
fn check_workers(world: &World, kept: &str) {
    let status = world.status().unwrap();
    let rows: Vec<_> = status["providers"].as_array().unwrap().iter().filter(|row| row["name"] != "spare").collect();
    assert_eq!(rows.len(), 4, "{status}");
    for row in rows {
        let (name, sandbox) = (row["name"].as_str().unwrap(), row["sandbox"].as_str().unwrap());
        // The kernel gives root what nobody else is to look at.
        assert_eq!(fs::metadata(format!("/proc/{}/environ", row["pid"])).unwrap().uid(), 0, "{name}");
        let process = fs::read_to_string(format!("/proc/{}/status", row["pid"])).unwrap();
        assert!(process.contains(&format!("Uid:\t{SOMEBODY}\t{SOMEBODY}\t{SOMEBODY}")), "{name}: {process}");
        let expected = if name == "submission" { kept } else { "no capabilities" };
        assert!(sandbox.contains("seccomp") && sandbox.ends_with(expected), "{name}: {sandbox}");
        assert_eq!(sandbox.contains("Landlock ABI"), has_landlock(), "{name}: {sandbox}");
    }
}

/// Whether the kernel has it switched on.
fn has_landlock() -> bool {
    fs::read_to_string("/sys/kernel/security/lsm").map_or(true, |modules| modules.contains("landlock"))
}

/// A world of somebody's, with a password that one provider uses.
fn world_of(submission: &str, sink: &Sink) -> World {
    let mut world = World::new(&format!("{submission}{}{}", LOCAL.replace("{OUT}", OUT), relay(sink.port)));
    fs::write(world.path("password"), "sesame").unwrap();
    fs::set_permissions(world.path("password"), fs::Permissions::from_mode(0o600)).unwrap();
    world.give_to(SOMEBODY);
    world
}

/// A message for each provider, by SMTP.
fn send_everywhere(world: &World, sink: &Sink) {
    let recipients = ["ann@local.test", "x@program.test", "y@remote.test"];
    smtp::send(world.port("submission"), "a@b.test", &recipients, MAIL);
    assert!(sink.wait(1)[0].content.ends_with(MAIL));
    world.wait_empty();
    assert_eq!(fs::read_dir(world.path("mail/ann/new")).unwrap().count(), 1);
    let written = fs::read(world.path("mail/1")).unwrap();
    assert!(written.ends_with(b"Subject: hello\n\n.dot\nbody\n"), "{written:?}");
    assert_eq!(fs::read_to_string(world.path("mail/found")).unwrap(), "", "a program has read a password");
    assert_eq!(fs::metadata(world.path("spool/spool.db")).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn an_ordinary_user_runs_every_kind_in_its_sandbox() {
    if !can_become_others("an_ordinary_user_runs_every_kind_in_its_sandbox") {
        return;
    }
    let sink = Sink::start();
    let mut world = world_of(IN, &sink);
    world.run_under(as_somebody(&[]));
    world.start();
    check_workers(&world, "no capabilities");
    assert!(world.log().contains("capabilities retained: no capabilities"), "{}", world.log());
    send_everywhere(&world, &sink);
    let spool = fs::metadata(world.path("spool/spool.db")).unwrap();
    assert_eq!((spool.uid(), spool.mode() & 0o777), (SOMEBODY, 0o600));
    world.restart("program");
    world.stop();
}

/// The values of a key of the unit.
fn of_unit(key: &str) -> Vec<String> {
    let unit = fs::read_to_string(repository().join("scripts/spooler.service")).unwrap();
    let line = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("{key}= is missing in the unit")).split_whitespace().map(str::to_owned).collect()
}

/// What is put in front of the spooler to give it what the unit gives.
fn as_the_unit(world: &World) -> Vec<String> {
    let capabilities: Vec<String> =
        of_unit("AmbientCapabilities").iter().map(|name| name.trim_start_matches("CAP_").to_lowercase()).collect();
    assert_eq!(of_unit("AmbientCapabilities"), of_unit("CapabilityBoundingSet"));
    let nice: i32 = of_unit("LimitNICE")[0].parse().unwrap();
    let limits = [
        format!("--nofile={}", of_unit("LimitNOFILE")[0]),
        format!("--core={}", of_unit("LimitCORE")[0]),
        format!("--rtprio={}", of_unit("LimitRTPRIO")[0]),
        format!("--nice={}", 20 - nice),
    ];
    let environment = [
        format!("NOTIFY_SOCKET={}", world.path("notify").display()),
        "WATCHDOG_USEC=1000000".to_owned(),
        format!("RUNTIME_DIRECTORY={}", world.path("").display()),
    ];
    let mut words = vec!["prlimit".to_owned()];
    words.extend(limits);
    if !Command::new("prlimit").args(&words[1..]).arg("true").output().is_ok_and(|output| output.status.success()) {
        eprintln!("the limits of the unit are left out: they are higher than what is allowed here");
        words.clear();
    }
    words.extend(under_the_filter(&world.path("refused")));
    words.into_iter().chain(as_somebody(&capabilities)).chain(["env".to_owned()]).chain(environment).collect()
}

/// System calls of the unit's `SystemCallFilter=`; `None` if there is no systemd that knows its groups.
fn allowed_calls() -> Option<BTreeSet<String>> {
    let (mut groups, mut calls, mut known) = (of_unit("SystemCallFilter"), BTreeSet::new(), BTreeSet::new());
    while let Some(name) = groups.pop() {
        if !name.starts_with('@') {
            calls.insert(name);
        } else if known.insert(name.clone()) {
            let listed = Command::new("systemd-analyze").args(["syscall-filter", "--no-pager", &name]).output().ok()?;
            let listed = String::from_utf8(listed.stdout).unwrap();
            let lines = listed.lines().filter(|line| line.starts_with(' ')).map(str::trim);
            groups.extend(lines.filter(|line| !line.starts_with('#')).map(str::to_owned));
        }
    }
    Some(calls).filter(|calls| calls.len() > 100)
}

/// `strace` that refuses what the unit's filter refuses, and writes it down; nothing where there is none. With `-D` it is no parent in between.
fn under_the_filter(refused: &Path) -> Vec<String> {
    let Some(calls) = allowed_calls().filter(|_| Command::new("strace").arg("-V").output().is_ok()) else {
        eprintln!("the filter of the unit is left out: it needs systemd-analyze and strace");
        return Vec::new();
    };
    let others = calls.iter().fold("!".to_owned(), |list, call| format!("{list}?{call},"));
    let others = others.trim_end_matches(',');
    let (trace, inject) = (format!("trace={others}"), format!("inject={others}:error=EPERM"));
    let words = ["strace", "-D", "-f", "-qq", "--seccomp-bpf", "-e", "signal=none", "-e", &trace, "-e", &inject, "-o"];
    words.iter().map(|word| (*word).to_owned()).chain([refused.display().to_string()]).collect()
}

/// A port below 1024 that nobody has.
fn low_port() -> u16 {
    (600..1024).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// What the service manager hears next, but for the watchdog.
fn next(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 4096];
    loop {
        let length = socket.recv(&mut bytes).expect("the service manager hears nothing");
        let words = String::from_utf8_lossy(&bytes[..length]).into_owned();
        if words != "WATCHDOG=1\n" {
            return words;
        }
    }
}

#[test]
fn the_user_of_the_unit_has_low_ports_and_priorities_and_nothing_else() {
    if !can_become_others("the_user_of_the_unit_has_low_ports_and_priorities_and_nothing_else") {
        return;
    }
    let (sink, port) = (Sink::start(), low_port());
    let submission = IN.replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    let mut world = world_of(&submission, &sink);
    let socket = UnixDatagram::bind(world.path("notify")).unwrap();
    chown(world.path("notify"), Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let wrap = as_the_unit(&world);
    world.run_under(wrap);
    world.start();
    assert!(next(&socket).starts_with("READY=1\nSTATUS=running; 4 of 5 providers enabled"));
    check_workers(&world, "capabilities CAP_NET_BIND_SERVICE");
    let kept = "CAP_SYS_NICE for priorities of workers; CAP_NET_BIND_SERVICE for ports below 1024";
    assert!(world.log().contains(&format!("capabilities retained: {kept}")), "{}", world.log());
    assert_eq!(world.port("submission"), port);
    send_everywhere(&world, &sink);
    world.wait_for("its priority", |world| {
        world.provider("relay")?["priority"].as_str()?.starts_with("nice 10").then_some(())
    });
    world.signal(Signal::SIGHUP);
    assert!(next(&socket).starts_with("RELOADING=1\n"));
    assert!(next(&socket).starts_with("READY=1\n"));
    let mut bytes = [0; 64];
    let length = socket.recv(&mut bytes).unwrap();
    assert_eq!(&bytes[..length], b"WATCHDOG=1\n");
    world.stop();
    assert!(next(&socket).starts_with("STOPPING=1\n"));
    let refused = fs::read_to_string(world.path("refused")).unwrap_or_default();
    assert_eq!(refused, "", "the unit's filter refuses what is needed");
}

#[test]
fn what_stands_for_the_filter_of_the_unit_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let refused = folder.path().join("refused");
    let words = under_the_filter(&refused);
    if !words.is_empty() {
        let output = Command::new(&words[0]).args(&words[1..]).args(["chroot", "/", "true"]).output().unwrap();
        assert!(!output.status.success(), "{output:?}");
        let start = Instant::now();
        while !fs::read_to_string(&refused).unwrap_or_default().contains("chroot(\"/\")") {
            assert!(start.elapsed() < PATIENCE, "{output:?}");
            std::thread::yield_now();
        }
    }
}

/// The programs and the demonstration in a world of their own; what it said, as root or as another user.
fn demonstrate(user: Option<u32>) -> String {
    let mut world = World::new("");
    world.give_to(user.unwrap_or_else(|| getuid().as_raw()));
    fs::rename(world.path("worker"), world.path("spooler-worker")).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_spoolctl"), world.path("spoolctl")).unwrap();
    fs::create_dir(world.path("scripts")).unwrap();
    for (file, mode) in [("scripts/demo", 0o755), ("scripts/lib.sh", 0o644), ("Cargo.lock", 0o644)] {
        fs::copy(repository().join(file), world.path(file)).unwrap();
        fs::set_permissions(world.path(file), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(world.path("scripts"), fs::Permissions::from_mode(0o755)).unwrap();
    let own = world.path("own");
    fs::create_dir(&own).unwrap();
    chown(&own, user, user).unwrap();
    let words = if user.is_some() { as_somebody(&[]) } else { vec!["env".to_owned()] };
    let shown = Command::new(&words[0])
        .args(&words[1..])
        .arg(world.path("scripts/demo"))
        .arg("--programs")
        .arg(world.path(""))
        .env("TMPDIR", &own)
        .env_remove("SPOOLER_WORKER")
        .process_group(0)
        .output()
        .unwrap();
    let (said, log) = (String::from_utf8_lossy(&shown.stdout), String::from_utf8_lossy(&shown.stderr));
    assert!(shown.status.success(), "{said}\n{log}");
    assert_eq!(fs::read_dir(own).unwrap().count(), 0, "its folder is gone");
    said.into_owned()
}

/// The numbers in the line of the summary that has these words.
fn figures(said: &str, words: &str) -> Vec<u32> {
    let summary = said.split("== Summary").nth(1).unwrap_or_else(|| panic!("no summary: {said}"));
    let line = summary.lines().find(|line| line.starts_with("ok ") && line.contains(words));
    let line = line.unwrap_or_else(|| panic!("{words}: {said}")).replace("kill -9", "");
    line.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// Each provider has done its part, with these numbers; the messages are the demonstration's own three.
fn check_demonstration(said: &str) {
    assert_eq!(figures(said, "local delivered"), [3, 3]);
    assert_eq!(figures(said, "slow delivered"), [3, 3]);
    let [crashes, least] = figures(said, "of its workers")[..] else { panic!("{said}") };
    assert!(least == 3 && crashes >= least, "{said}");
    assert_eq!(figures(said, "set aside"), [2, 2]);
    let [had, arrived] = figures(said, "in its hands")[..] else { panic!("{said}") };
    assert!(had > 0 && had == arrived, "{said}");
    assert_eq!(figures(said, "are lost"), [0, 8]);
    assert!(said.contains("\nNothing is lost."), "{said}");
}

#[test]
fn demonstration_shows_what_it_promises() {
    check_demonstration(&demonstrate(None));
}

#[test]
fn ordinary_user_sees_the_demonstration() {
    if can_become_others("ordinary_user_sees_the_demonstration") {
        check_demonstration(&demonstrate(Some(SOMEBODY)));
    }
}
