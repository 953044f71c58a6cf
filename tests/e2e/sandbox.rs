//! What a worker cannot do, tried from inside a real spooler; and what becomes of messages that make it want too much.

use std::fs;
use std::net::TcpListener;

use nix::unistd::{Pid, User, getuid};
use serde_json::{Value, json};

use crate::smtp;
use crate::unprivileged::{SOMEBODY, as_somebody, can_become_others};
use crate::world::World;

/// Ways out that are closed to every worker: the way, its target, and a word of what keeps it in.
const CLOSED_TO_ALL: &[(&str, &str)] = &[
    ("list", "{dir}/spool"),
    ("read", "{dir}/spooler.toml"),
    ("write", "{dir}/spool/was-here"),
    ("write", "{dir}/spooler.toml"),
    ("write", "{dir}/control.sock.was-here"),
    ("remove", "{dir}/control.sock"),
    ("raw-socket", ""),
    ("packet-socket", ""),
    ("others-environment", ""),
    ("others-memory", ""),
    ("others-descriptors", ""),
    ("trace", ""),
    ("read-memory", ""),
    ("kill", ""),
    ("become-root", ""),
    ("mount", "{dir}/mail"),
    ("name-space", ""),
    ("chroot", "/"),
    ("environment", ""),
    ("core-dump", ""),
    ("raise-limits", ""),
];
/// Ways out that are closed to workers that run no programs.
const CLOSED_TO_MOST: &[(&str, &str)] = &[
    ("read", "/etc/passwd"),
    ("list", "/"),
    ("write", "{dir}/mail/was-here"),
    ("write", "/tmp/spooler-was-here"),
    ("unix-connect", "{dir}/control.sock"),
    ("tcp-connect", "{listener}"),
    ("tcp-listen", "127.0.0.1:0"),
    ("chmod", "{dir}/spool/spool.db"),
    ("chown", "{dir}/spool/spool.db"),
    ("chmod", "{dir}/mail"),
    ("run", "/bin/true"),
];

/// What the kernel says of what is forbidden, and the probe of what is not to be had.
const REFUSALS: &[&str] = &[
    "Permission denied",
    "Operation not permitted",
    "Function not implemented",
    "no core dumps",
    "there is nothing in it",
];

/// A provider for each way; their names, with the ways.
fn ways(programs: bool, ways: &[(&'static str, &str)]) -> (String, Vec<(String, &'static str)>) {
    let (mut config, mut names) = (String::new(), Vec::new());
    for (number, (way, target)) in ways.iter().enumerate() {
        let name = format!("{way}-{number}-{programs}");
        let keys = format!("mode = \"escape\"\nway = \"{way}\"\ntarget = \"{target}\"\nprograms = {programs}");
        config.push_str(&format!("[provider.{name}]\nkind = \"fault\"\n{keys}\n"));
        names.push((name, *way));
    }
    (config, names)
}

/// What each provider says of its way out; none may have logged on.
fn verdicts(world: &World, names: &[(String, &'static str)]) -> Vec<(&'static str, String)> {
    let verdict = |world: &World, name: &str| {
        let row = world.provider(name)?;
        assert_ne!(row["state"], "ready", "{name} has escaped: {row}");
        row["last_error"].as_str().map(str::to_owned)
    };
    let all = names.iter().map(|(name, way)| (*way, world.wait_for(name, |world| verdict(world, name))));
    all.collect()
}

#[test]
fn every_way_out_is_closed() {
    check_ways(|_| {});
}

#[test]
fn every_way_out_is_closed_without_root_too() {
    if can_become_others("every_way_out_is_closed_without_root_too") {
        check_ways(|world| {
            world.give_to(SOMEBODY);
            world.run_under(as_somebody(&[]));
        });
    }
}

/// Tries all ways in a world that is made ready by this.
fn check_ways(prepare: impl FnOnce(&mut World)) {
    let most: Vec<(&str, &str)> = CLOSED_TO_ALL.iter().chain(CLOSED_TO_MOST).copied().collect();
    let (without, mut names) = ways(false, &most);
    let (with, with_programs) = ways(true, CLOSED_TO_ALL);
    names.extend(with_programs);
    // Somebody is there, so that nobody else than the sandbox refuses.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ways = format!("{without}{with}").replace("{listener}", &listener.local_addr().unwrap().to_string());
    let mut world = World::with_rogues(&[], &ways);
    prepare(&mut world);
    world.start_unready();
    for (way, said) in verdicts(&world, &names) {
        let by_errno = REFUSALS.iter().any(|words| said.contains(words)) && said.starts_with("kept in: ");
        assert!(by_errno || said.contains("SIGSYS"), "{way}: {said}");
    }
    assert!(!world.path("spool/was-here").exists() && !world.path("mail/was-here").exists());
    assert!(world.path("control.sock").exists(), "and the spooler lives");
    world.stop();
}

#[test]
fn the_row_says_which_system_call_it_was() {
    let (config, names) = ways(false, &[("mount", "/"), ("trace", ""), ("run", "/bin/true")]);
    let world = World::rogue_unready(&config);
    let said: Vec<String> = verdicts(&world, &names).into_iter().map(|(_, said)| said).collect();
    for (said, call) in
        said.iter().zip(["system call mount (", "system call ptrace (", "a system call that the sandbox"])
    {
        assert!(said.contains("signal 31 (SIGSYS)") && said.contains(call), "{said}");
    }
    assert!(world.log().contains("the sandbox does not allow system call mount"), "{}", world.log());
}

#[test]
fn the_row_says_how_tight_the_sandbox_is_and_spoolctl_shows_what_is_needed() {
    let relay = "[provider.relay]\nkind = \"smtp\"\nhost = \"127.0.0.1:2526\"\ntls = \"none\"\nmemory_max = \"300M\"\n";
    let open = "[provider.open]\nkind = \"fault\"\nsandbox = false\n";
    let world = World::rogue(&format!("{relay}{open}"));
    let level = |name: &str| world.provider(name).unwrap()["sandbox"].as_str().unwrap().to_owned();
    assert!(level("relay").contains("seccomp") && level("relay").contains("no capabilities"), "{}", level("relay"));
    assert_eq!(level("open"), "none: switched off in the configuration");
    assert!(world.log().contains("provider.open.sandbox is false"), "{}", world.log());
    let shown = String::from_utf8(world.spoolctl(&["provider", "show", "relay"]).stdout).unwrap();
    for line in ["sandbox", "  connects to     TCP 2526", "  memory          300 MiB", "  programs        no"] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    assert!(shown.contains(&level("relay")), "{shown}");
    let status = String::from_utf8(world.spoolctl(&["status"]).stdout).unwrap();
    let shown: Vec<&str> = status.lines().filter(|line| line.contains("sandbox: ")).collect();
    assert_eq!(shown, ["    sandbox: none: switched off in the configuration"], "only what is weak is shown: {status}");
}

/// A line of what the kernel says of a process.
fn status_of(pid: Pid, field: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.split_whitespace().next().map(str::to_owned)
}

fn uid_of(pid: Pid) -> Option<u32> {
    status_of(pid, "Uid")?.parse().ok()
}

#[test]
fn workers_of_root_have_users_of_their_own() {
    if !getuid().is_root() {
        eprintln!("workers_of_root_have_users_of_their_own: skipped, it needs root");
        return;
    }
    let config = "[provider.a]\nkind = \"fault\"\n[provider.b]\nkind = \"fault\"\n[provider.c]\nkind = \"fault\"\nrun_as = \"daemon\"\n";
    let world = World::rogue(config);
    let worker = |name: &str| world.worker_pid(name).unwrap();
    let uid = |name: &str| uid_of(worker(name)).unwrap();
    assert!(spooler::config::OWN_UIDS.contains(&uid("a")) && spooler::config::OWN_UIDS.contains(&uid("b")));
    assert_ne!(uid("a"), uid("b"));
    assert_eq!(Some(uid("c")), User::from_name("daemon").unwrap().map(|user| user.uid.as_raw()));
    for (field, value) in [("CapPrm", 0), ("CapEff", 0), ("CapBnd", 0), ("NoNewPrivs", 1), ("Seccomp", 2)] {
        let said = status_of(worker("a"), field).unwrap();
        assert_eq!(u64::from_str_radix(&said, 16), Ok(value), "{field}");
    }
}

/// A message that makes its worker want too much is set aside; what else is there goes on meanwhile.
fn ends_in_quarantine(command: &str, keys: &str) -> (World, Value) {
    let config = format!(
        "{}[provider.greedy]\nkind = \"fault\"\nclaims = [\"FAULT:{command}\"]\n{keys}\n[provider.good]\nkind = \"fault\"\nclaims = [\"@good.test\"]\naddress_types = [\"FAULT\"]\n",
        crate::IN
    );
    let world = World::rogue(&config);
    let submit = |to: &str| {
        let letter = b"Subject: x\n\nx\n";
        let done = world.client("spoolctl", &["submit", "--from", "a@b.test", "--to", to, "-"], letter);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    submit(&format!("FAULT:{command}"));
    for _ in 0..20 {
        submit("FAULT:good");
    }
    world.wait_for("the others to be delivered and this one to be set aside", |world| {
        let status = world.status()?;
        (status["supervisor"]["queued"] == 1 && status["supervisor"]["held"] == 1).then_some(())
    });
    let row = world.provider("greedy").unwrap();
    assert_eq!(row["deaths"], 3, "{row}");
    assert_eq!(world.provider("good").unwrap()["deaths"], 0);
    // Whoever hands in mail is served as ever.
    let port = world.port("submission");
    smtp::send(port, "a@b.test", &["x@good.test"], b"Subject: x\r\n\r\nx\r\n");
    let listed = world.wait_for("the reason to be on disk", |world| {
        let listed: Value = serde_json::from_str(world.control().get("/v1/messages")?.trim()).ok()?;
        listed["why"].as_str()?.contains("died").then_some(listed)
    });
    assert_eq!(
        (&listed["state"], &listed["recipients"]),
        (&json!("quarantined"), &json!([format!("FAULT:{command}")]))
    );
    (world, row)
}

#[test]
fn a_message_that_eats_memory_is_set_aside() {
    let (_world, row) = ends_in_quarantine("hoard", "memory_max = \"200M\"");
    assert!(row["last_error"].as_str().unwrap().contains("SIGABRT"), "{row}");
}

#[test]
fn a_message_that_breeds_processes_is_set_aside_and_nothing_of_them_is_left() {
    if !getuid().is_root() {
        eprintln!("a_message_that_breeds_processes_is_set_aside_and_nothing_of_them_is_left: skipped, it needs root");
        return;
    }
    let (world, row) = ends_in_quarantine("breed", "programs = true\nprocesses_max = 60");
    assert!(row["last_error"].as_str().unwrap().contains("no more children"), "{row}");
    // The next worker ends what the last one has left behind.
    world.wait_for("the next worker", |world| (world.provider("greedy")?["state"] == "ready").then_some(()));
    let worker = world.worker_pid("greedy").unwrap();
    let own = uid_of(worker).unwrap();
    world.wait_for("its children to be gone", |_| {
        let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        let left = all.map(Pid::from_raw).filter(|pid| *pid != worker && uid_of(*pid) == Some(own)).count();
        (left == 0).then_some(())
    });
}
