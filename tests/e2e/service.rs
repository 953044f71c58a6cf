//! The daemon and whoever started it: readiness and watchdog by a real socket, what of root's power is left, and the unit that is installed.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::world::{PATIENCE, World};

/// A maildir, and with it a worker.
const LOCAL: &str = "[provider.local]\nkind = \"maildir\"\npath = \"{dir}/mail\"\n";

/// A service manager that listens at `{dir}/notify`, and a spooler that is told of it.
fn notified(watchdog: Duration) -> (World, UnixDatagram) {
    let mut world = World::new(LOCAL);
    let socket = UnixDatagram::bind(world.path("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let notify = format!("NOTIFY_SOCKET={}", world.path("notify").display());
    let limit = format!("WATCHDOG_USEC={}", watchdog.as_micros());
    world.run_under(["env", &notify, &limit]);
    world.spawn();
    (world, socket)
}

fn next(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 4096];
    let length = socket.recv(&mut bytes).expect("the service manager hears nothing");
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

/// The next words that are not the watchdog's.
fn next_news(socket: &UnixDatagram) -> String {
    std::iter::repeat_with(|| next(socket)).find(|words| !words.starts_with("WATCHDOG=1")).unwrap()
}

#[test]
fn the_service_manager_hears_of_start_reload_and_stop() {
    let (mut world, socket) = notified(Duration::from_secs(3600));
    assert_eq!(next(&socket), "READY=1\nSTATUS=running; 1 of 1 providers enabled\n");
    world.signal(Signal::SIGHUP);
    let reloading = next(&socket);
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert!(next(&socket).starts_with("READY=1\nSTATUS=running; 1 of 1"));
    fs::write(world.path("spooler.toml"), "nonsense").unwrap();
    world.signal(Signal::SIGHUP);
    assert!(next(&socket).starts_with("RELOADING=1\n"));
    let refused = next(&socket);
    assert!(refused.starts_with("READY=1\n") && refused.contains("refused"), "{refused}");
    world.stop();
    assert!(next(&socket).starts_with("STOPPING=1\n"));
}

#[test]
fn the_watchdog_is_fed_by_the_loop_and_not_while_it_stands_still() {
    let (mut world, socket) = notified(Duration::from_secs(1));
    assert!(next(&socket).starts_with("READY=1\n"));
    for _ in 0..3 {
        assert_eq!(next(&socket), "WATCHDOG=1\n");
    }
    world.signal(Signal::SIGSTOP);
    world.wait_for("the loop to stand still", |world| {
        let status = fs::read_to_string(format!("/proc/{}/status", world.pid())).ok()?;
        status.contains("T (stopped)").then_some(())
    });
    // What was sent before is read; then there is silence for longer than the whole limit.
    socket.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
    let mut bytes = [0; 4096];
    while socket.recv(&mut bytes).is_ok() {}
    world.signal(Signal::SIGCONT);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(next(&socket), "WATCHDOG=1\n");
    world.stop();
    assert!(next_news(&socket).starts_with("STOPPING=1\n"));
}

/// What `systemctl reload` runs, one command after another until one fails; whether all went well, and what they said.
fn reload_as_the_unit_does(world: &World) -> (bool, String) {
    let unit = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/spooler.service")).unwrap();
    let commands: Vec<&str> = unit.lines().filter_map(|line| line.strip_prefix("ExecReload=")).collect();
    assert_eq!(commands.len(), 2, "{commands:?}");
    let mut said = String::new();
    for command in commands {
        let output = if let Some(arguments) = command.strip_prefix("/usr/local/bin/spooler ") {
            world.spooler(&arguments.split(' ').collect::<Vec<&str>>())
        } else {
            let command = command.replace("$MAINPID", &world.pid().to_string());
            Command::new("/bin/sh").args(["-c", &command]).output().unwrap()
        };
        said.push_str(&String::from_utf8_lossy(&output.stdout));
        if !output.status.success() {
            return (false, said);
        }
    }
    (true, said)
}

#[test]
fn refused_configuration_fails_the_reload() {
    let world = World::running(LOCAL);
    world.configure(&LOCAL.replace("path", "paht"));
    let (well, said) = reload_as_the_unit_does(&world);
    assert!(!well && said.contains("provider.local.paht is not known here; did you mean `path`?"), "{said}");
    assert!(
        !world.log().contains("configuration refused, the old one stays"),
        "it was not even signalled: {}",
        world.log()
    );
    assert_eq!(world.provider("local").unwrap()["state"], "ready", "the old configuration stays");

    // Who sends the signal by hand finds it in the log.
    world.signal(Signal::SIGHUP);
    world.wait_for("the log to say so", |world| {
        world.log().contains("configuration refused, the old one stays in effect").then_some(())
    });
    assert_eq!(world.provider("local").unwrap()["state"], "ready");

    world.configure(&LOCAL.replace("local", "home"));
    let (well, said) = reload_as_the_unit_does(&world);
    assert!(well, "{said}");
    world.wait_for("the new provider", |world| world.provider("home").map(|_| ()));
}

/// A password file that was missing is there when the configuration is read again.
#[test]
fn failed_provider_is_ready_after_a_reload() {
    let relay = "[provider.relay]\nkind = \"smtp\"\nhost = \"127.0.0.1:9\"\nusername = \"me\"\npassword_file = \"{dir}/password\"\n";
    let mut world = World::new(relay);
    world.start_unready();
    let text = world.wait_for("the provider to fail", |world| {
        let row = world.provider("relay")?;
        let text = row["text"].as_str()?.to_owned();
        text.contains("Cannot read the password").then_some(text)
    });
    assert!(text.contains(&format!("; correct it, then run `kill -HUP {}`", world.pid())), "{text}");
    fs::write(world.path("password"), "sesame\n").unwrap();
    let command = text.split('`').nth(1).unwrap();
    assert!(Command::new("/bin/sh").args(["-c", command]).status().unwrap().success());
    world.wait_for("the provider to be ready", |world| (world.provider("relay")?["state"] == "ready").then_some(()));
}

#[test]
fn without_a_service_manager_nothing_is_missed() {
    let mut world = World::running(LOCAL);
    world.stop();
    assert!(!world.log().contains("service manager"), "{}", world.log());
}

#[test]
fn every_thread_has_given_up_what_nobody_needs() {
    let world = World::running(LOCAL);
    let threads = fs::read_dir(format!("/proc/{}/task", world.pid())).unwrap();
    let statuses: Vec<String> =
        threads.filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).ok()).collect();
    let of = |status: &str, name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim_start_matches(':').trim().to_owned()
    };
    let all = |name: &str| statuses.iter().map(|status| of(status, name)).collect::<BTreeSet<String>>();
    let bits = |name: &str| all(name).iter().fold(0, |all, hex| all | u64::from_str_radix(hex, 16).unwrap());
    // CAP_NET_ADMIN, CAP_SYS_MODULE, CAP_SYS_PTRACE, CAP_SYS_ADMIN; in effect not even CAP_DAC_OVERRIDE and CAP_SETUID.
    assert_eq!(bits("CapPrm") & (1 << 12 | 1 << 16 | 1 << 19 | 1 << 21), 0, "{:?}", all("CapPrm"));
    assert_eq!(bits("CapEff") & (1 << 1 | 1 << 7), 0, "{:?}", all("CapEff"));
    assert_eq!(all("NoNewPrivs"), BTreeSet::from(["1".to_owned()]));
    let limits = fs::read_to_string(format!("/proc/{}/limits", world.pid())).unwrap();
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(cores.split_whitespace().nth(4), Some("0"), "{cores}");
    assert!(world.log().contains("capabilities retained: "), "{}", world.log());
}

#[test]
fn a_reload_that_needs_what_was_given_up_says_so_until_the_restart() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("a_reload_that_needs_what_was_given_up_says_so_until_the_restart: skipped, it needs root");
        return;
    }
    let relay = "[provider.relay]\nkind = \"smtp\"\nhost = \"127.0.0.1:9\"\ntls = \"none\"\n";
    let listens = "[provider.low]\nkind = \"smtp-in\"\nlisten = [\"127.0.0.1:0\"]\n";
    let mut world = World::running(&format!("{relay}{listens}"));
    let log = world.log();
    assert!(!log.contains("CAP_CHOWN") && !log.contains("CAP_NET_BIND_SERVICE"), "nobody needs those: {log}");
    let port = (600..1024).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap();
    let config = format!("{relay}{}{LOCAL}", listens.replace(":0", &format!(":{port}")));
    world.configure(&config);
    world.signal(Signal::SIGHUP);
    let text = |world: &World, name: &str| Some(world.provider(name)?["text"].as_str()?.to_owned());
    let advice = "which the spooler gave up at its start: restart the spooler";
    for (name, capabilities) in [
        ("local", "CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER for files of all users"),
        ("low", "CAP_NET_BIND_SERVICE for ports below 1024"),
    ] {
        let expected = format!("needs {capabilities}, {advice}");
        world.wait_for("the row to say so", |world| text(world, name)?.starts_with(&expected).then_some(()));
        assert!(world.log().contains(&format!("provider {name} {expected}")), "{}", world.log());
    }
    assert!(!text(&world, "relay").unwrap().contains("gave up"));
    let status = String::from_utf8(world.spoolctl(&["status"]).stdout).unwrap();
    assert!(status.contains(advice), "{status}");
    world.stop();
    world.start();
    assert_eq!((text(&world, "local").as_deref(), world.port("low")), (Some("idle"), port));
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/spooler.service");
    let analyze = |arguments: &[&str], unit: &Path| Command::new("systemd-analyze").args(arguments).arg(unit).output();
    let folder = tempfile::tempdir().unwrap();
    // Its programs are not installed here.
    let text = fs::read_to_string(unit).unwrap();
    let there = text.replace("/usr/local/bin/spooler ", concat!(env!("CARGO_BIN_EXE_spooler"), " "));
    let there: String =
        there.lines().filter(|line| !line.starts_with("Documentation=")).map(|line| format!("{line}\n")).collect();
    let unit = folder.path().join("spooler.service");
    fs::write(&unit, there).unwrap();
    let Ok(verified) = analyze(&["verify", "--man=no"], &unit) else {
        eprintln!("skipped: there is no systemd-analyze");
        return;
    };
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    let about_us: Vec<&str> = said.lines().filter(|line| line.contains("spooler.service")).collect();
    assert!(about_us.is_empty(), "{said}");
    let security = analyze(&["security", "--offline=yes", "--threshold=40", "--no-pager"], &unit).unwrap();
    let figure = String::from_utf8_lossy(&security.stdout).lines().last().unwrap_or_default().to_owned();
    eprintln!("{figure}");
    assert!(security.status.success() || figure.is_empty(), "{figure}");
}

#[test]
fn sysusers_and_tmpfiles_make_what_the_unit_needs() {
    let test = "sysusers_and_tmpfiles_make_what_the_unit_needs";
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts");
    let root = tempfile::tempdir().unwrap();
    let path = |below: &str| root.path().join(below);
    for kind in ["sysusers", "tmpfiles"] {
        let folder = path(&format!("usr/lib/{kind}.d"));
        fs::create_dir_all(&folder).unwrap();
        fs::copy(scripts.join(format!("spooler.{kind}.conf")), folder.join("spooler.conf")).unwrap();
    }
    fs::create_dir_all(path("etc/spooler")).unwrap();
    fs::write(path("etc/spooler/spooler.toml"), "").unwrap();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("{test}: skipped, it needs root");
        return;
    }
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).arg(format!("--root={}", root.path().display())).args(arguments).output();
        output.inspect(|output| assert!(output.status.success(), "{program}: {output:?}")).is_ok()
    };
    if !run("systemd-sysusers", &[]) || !run("systemd-tmpfiles", &["--create", "spooler.conf"]) {
        eprintln!("{test}: skipped, there is no systemd");
        return;
    }
    let users = fs::read_to_string(path("etc/passwd")).unwrap();
    let fields: Vec<&str> = users.lines().find(|line| line.starts_with("spooler:")).unwrap().split(':').collect();
    let (uid, gid): (u32, u32) = (fields[2].parse().unwrap(), fields[3].parse().unwrap());
    assert!(uid > 0 && fields[6].ends_with("nologin"), "{users}");
    for (made, mode, owner) in
        [("var/spool/spooler", 0o711, uid), ("etc/spooler", 0o750, 0), ("etc/spooler/spooler.toml", 0o640, 0)]
    {
        let found = fs::metadata(path(made)).unwrap();
        assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (mode, owner, gid), "{made}");
    }
}
