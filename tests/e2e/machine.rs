//! What happens to the machine: power fails, links and devices come and go, it sleeps and wakes up.
//!
//! Links and devices need root: each test then has a network of its own, that of its thread. logind is played by a program on a
//! private bus. What is missing is named, and the test skipped.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

use crate::sink::Sink;
use crate::world::{PATIENCE, World};
use crate::{IN, relay, smtp};

const MAIL: &[u8] = b"Subject: hello\r\n\r\nbody\r\n";
/// Nothing is tried again by itself in the time of a test.
const NO_RETRY: &str = "[retry]\nfirst = \"1h\"\n";

/// A sink that takes nothing as long as it is told so.
fn reluctant() -> (Sink, Arc<AtomicBool>) {
    let later = Arc::new(AtomicBool::new(true));
    let is_later = Arc::clone(&later);
    let sink = Sink::scripted(move |line| {
        let refuse = line.starts_with("MAIL") && is_later.load(Ordering::SeqCst);
        refuse.then(|| "451 4.7.1 later".to_owned())
    });
    (sink, later)
}

fn wait_log(world: &World, text: &str) {
    world.wait_for(text, |world| world.log().contains(text).then_some(()));
}

/// Runs `ip` and tells whether it went well.
fn ip(arguments: &str) -> bool {
    Command::new("ip").args(arguments.split(' ')).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Gives this thread, and all that it starts, a network of its own with nothing but a loopback. Needs root.
fn own_network(test: &str) -> bool {
    let can = unshare(CloneFlags::CLONE_NEWNET).is_ok() && ip("link set lo up");
    if !can {
        eprintln!("skipped: {test} needs root, a kernel that lets it have a network of its own, and the program ip");
    }
    can
}

#[test]
fn when_power_fails_it_stops_and_keeps_what_it_has() {
    let (sink, later) = reluctant();
    let mut world = World::running(&format!("{IN}{}{NO_RETRY}", relay(sink.port)));
    smtp::send(world.port("submission"), "a@b.test", &["x@remote.test"], MAIL);
    world.wait_for("the deferral", |world| (world.status()?["supervisor"]["deferred"] == 1).then_some(()));
    world.signal(Signal::SIGPWR);
    let status = world.wait_end();
    assert!(status.success(), "{status}");
    assert!(world.log().contains("power fails"), "{}", world.log());
    later.store(false, Ordering::SeqCst);
    world.start();
    world.client("spoolctl", &["flush"], b"");
    sink.wait(1);
    world.wait_empty();
}

#[test]
fn a_link_that_comes_up_makes_waiting_messages_go() {
    if !own_network("a_link_that_comes_up_makes_waiting_messages_go") {
        return;
    }
    let (sink, later) = reluctant();
    let world = World::running(&format!("{IN}{}{NO_RETRY}", relay(sink.port)));
    smtp::send(world.port("submission"), "a@b.test", &["x@remote.test"], MAIL);
    world.wait_for("the deferral", |world| (world.status()?["supervisor"]["deferred"] == 1).then_some(()));
    later.store(false, Ordering::SeqCst);
    if !ip("link add link0 type veth peer name link1") {
        eprintln!("skipped: a_link_that_comes_up_makes_waiting_messages_go needs virtual links");
        return;
    }
    assert!(ip("link set link1 up") && ip("link set link0 up"));
    sink.wait(1);
    world.wait_empty();
    assert!(world.log().contains("network interface link0 can be used"), "{}", world.log());
    assert!(ip("link set link1 down"));
    wait_log(&world, "network interface link0 cannot be used any more");
}

#[test]
fn a_provider_is_offline_without_its_device() {
    if !own_network("a_provider_is_offline_without_its_device") {
        return;
    }
    let sink = Sink::start();
    let needs = relay(sink.port).replace("kind =", "needs_device = \"modem0\"\nkind =");
    let world = World::running(&format!("{IN}{needs}{NO_RETRY}"));
    let offline =
        |world: &World| world.provider("relay").is_some_and(|row| row["text"] == "offline: device modem0 is not there");
    assert!(offline(&world));
    smtp::send(world.port("submission"), "a@b.test", &["x@remote.test"], MAIL);
    if !ip("link add modem0 type veth peer name modem1") {
        eprintln!("skipped: a_provider_is_offline_without_its_device needs virtual links");
        return;
    }
    sink.wait(1);
    world.wait_empty();
    assert!(world.log().contains("device modem0 (net) has appeared"), "{}", world.log());
    assert!(ip("link del modem0"));
    world.wait_for("the provider to be offline", |world| offline(world).then_some(()));
    assert!(world.log().contains("device modem0 (net) has gone"), "{}", world.log());
}

#[test]
fn a_real_serial_line_is_seen() {
    // The kernel announces a device again when somebody writes so; it harms nobody.
    let announce = || std::fs::write("/sys/class/tty/tty0/uevent", "add").is_ok();
    if !announce() {
        eprintln!("skipped: a_real_serial_line_is_seen needs root and /sys/class/tty/tty0");
        return;
    }
    let world = World::running(IN);
    assert!(announce());
    wait_log(&world, "device tty0 (tty) has appeared");
}

/// A message bus and a logind on it. Both are gone when this is dropped.
struct Logind {
    bus: Child,
    program: Child,
    commands: ChildStdin,
    said: Receiver<String>,
}

impl Logind {
    /// `None` if the programs for it are missing.
    fn start(folder: &Path, test: &str) -> Option<Self> {
        let socket = folder.join("bus");
        let has_python =
            Command::new("/usr/bin/python3").args(["-c", "import dbus, gi"]).stderr(Stdio::null()).status();
        let bus = start_bus(folder, &socket);
        let (Some(bus), true) = (bus, has_python.is_ok_and(|status| status.success())) else {
            eprintln!("skipped: {test} needs the Debian packages dbus-daemon, python3-dbus and python3-gi");
            return None;
        };
        let mut program = Command::new("/usr/bin/python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/e2e/logind_mock.py"))
            .arg(format!("unix:path={}", socket.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, said) = channel();
        let output = BufReader::new(program.stdout.take().unwrap());
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let logind = Self { bus, commands: program.stdin.take().unwrap(), program, said };
        logind.expect("ready");
        Some(logind)
    }

    fn tell(&mut self, command: &str) {
        writeln!(self.commands, "{command}").unwrap();
        self.commands.flush().unwrap();
    }

    fn expect(&self, line: &str) {
        assert_eq!(self.said.recv_timeout(PATIENCE).as_deref(), Ok(line));
    }
}

impl Drop for Logind {
    fn drop(&mut self) {
        for child in [&mut self.program, &mut self.bus] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A bus on which everybody may do everything.
fn start_bus(folder: &Path, socket: &Path) -> Option<Child> {
    let configuration: PathBuf = folder.join("bus.conf");
    let text = format!(
        "<busconfig><type>system</type><listen>unix:path={}</listen><auth>EXTERNAL</auth><policy context=\"default\">\
         <allow user=\"*\"/><allow own=\"*\"/><allow send_destination=\"*\"/><allow receive_sender=\"*\"/>\
         <allow send_type=\"signal\"/></policy></busconfig>",
        socket.display()
    );
    std::fs::write(&configuration, text).unwrap();
    let mut command = Command::new("dbus-daemon");
    command.arg(format!("--config-file={}", configuration.display())).args([
        "--nofork",
        "--nopidfile",
        "--print-address",
    ]);
    let mut bus = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    // It says where it is when it is there.
    let mut address = String::new();
    BufReader::new(bus.stdout.take()?).read_line(&mut address).ok()?;
    Some(bus)
}

#[test]
fn it_goes_to_sleep_with_the_machine_and_wakes_up_with_it() {
    let sink = Sink::start();
    let mut world = World::new(&format!("{IN}{}{NO_RETRY}", relay(sink.port)));
    let Some(mut logind) = Logind::start(&world.path(""), "it_goes_to_sleep_with_the_machine_and_wakes_up_with_it")
    else {
        return;
    };
    world.start();
    logind.expect("inhibited sleep:shutdown spooler delay");
    logind.tell("forge");
    logind.tell("sleep yes");
    logind.expect("let go");
    assert!(world.log().contains("the machine is about to sleep"), "{}", world.log());
    assert!(!world.log().contains("shut down"), "a stranger's word is not believed: {}", world.log());
    let sent = world.client("sendmail", &["-f", "a@b.test", "x@remote.test"], MAIL);
    assert!(sent.status.success());
    let row = world.provider("relay").unwrap();
    assert_eq!((&row["ready"], &row["in_flight"]), (&1.into(), &0.into()), "it waits for the machine: {row}");
    logind.tell("sleep no");
    sink.wait(1);
    logind.expect("inhibited sleep:shutdown spooler delay");
    logind.tell("idle yes");
    wait_log(&world, "the machine's user is away");
    logind.tell("idle no");
    wait_log(&world, "the machine's user is back");
    logind.tell("shutdown yes");
    logind.expect("let go");
    assert!(world.log().contains("the machine is about to shut down"), "{}", world.log());
    world.stop();
}
