//! Critical sections on the real system, read back from /proc: every thread is raised and always put back, and what is refused is said.
//!
//! What needs more rights than the test has is skipped by name.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use nix::unistd::{Pid, getuid};
use serde_json::Value;

use crate::world::World;
use crate::{IN, smtp};

const MAIL: &[u8] = b"Subject: work\r\n\r\nbody\r\n";
/// SCHED_OTHER, SCHED_RR and SCHED_BATCH, as /proc shows them.
const ORDINARY: i32 = 0;
const REAL_TIME: i32 = 2;
const BATCH: i32 = 3;

/// What a thread runs at: fields 19 and 41 of its stat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Running {
    nice: i32,
    policy: i32,
}

fn threads(pid: Pid) -> Option<Vec<Running>> {
    let look = |task: fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).ok()?;
        let fields: Vec<i32> =
            stat.rsplit_once(')')?.1.split_ascii_whitespace().map(|f| f.parse().unwrap_or(-1)).collect();
        Some(Running { nice: *fields.get(16)?, policy: *fields.get(38)? })
    };
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    Some(tasks.filter_map(|task| look(task.ok()?)).collect())
}

fn autogroup(pid: Pid) -> Option<i32> {
    fs::read_to_string(format!("/proc/{pid}/autogroup")).ok()?.trim().rsplit_once(' ')?.1.parse().ok()
}

/// How many threads the modem's worker has, if all of them, and its autogroup, are as they should be.
fn all_at(world: &World, nice: i32, policy: i32) -> Option<usize> {
    let pid = world.worker_pid("modem")?;
    let threads = threads(pid)?;
    let all = !threads.is_empty() && threads.iter().all(|thread| *thread == Running { nice, policy });
    (all && autogroup(pid).is_none_or(|group| group == nice)).then_some(threads.len())
}

fn row(world: &World) -> Option<Value> {
    world.provider("modem")
}

/// A world whose modem gets a message, and holds two sections while the files `hold.1` and `hold.2` are there.
fn dialling(wrap: &[&str], settings: &str) -> World {
    let modem =
        "[provider.modem]\nkind = \"fault\"\nclaims = [\"@modem.test\"]\nmode = \"critical\"\nhold = \"{dir}/hold\"\n";
    let world = World::rogue_under(wrap, &format!("[worker]\nstop_timeout = \"2s\"\n{IN}{modem}{settings}\n"));
    world.wait_for("the base priority", |world| all_at(world, 10, BATCH));
    dial(&world);
    world
}

/// Sends a message, and waits until its section is in force.
fn dial(world: &World) {
    hold(world, true);
    smtp::send(world.port("submission"), "a@b.test", &["x@modem.test"], MAIL);
    world.wait_for("the section", |world| row(world).filter(|row| row["critical"] == "dialling"));
}

fn hold(world: &World, on: bool) {
    for name in ["hold.1", "hold.2"] {
        if on { fs::write(world.path(name), "").unwrap() } else { fs::remove_file(world.path(name)).unwrap() }
    }
}

fn is_root(test: &str) -> bool {
    if !getuid().is_root() {
        eprintln!("{test}: skipped, it needs root");
    }
    getuid().is_root()
}

/// What starts the supervisor without the capability to raise priorities, and with these resource limits.
fn without_capability(test: &str, limits: &'static [&'static str]) -> Option<Vec<&'static str>> {
    const DROP: [&str; 3] = ["setpriv", "--bounding-set=-sys_nice", "--inh-caps=-sys_nice"];
    let wrap = [["prlimit"].as_slice(), limits, &DROP].concat();
    let works = Command::new(wrap[0]).args(&wrap[1..]).arg("true").stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        eprintln!("{test}: skipped, it needs root, prlimit and setpriv");
        return None;
    }
    Some(wrap)
}

#[test]
fn threads_that_come_in_a_section_are_raised_and_put_back_like_the_others() {
    if !is_root("threads_that_come_in_a_section_are_raised_and_put_back_like_the_others") {
        return;
    }
    let world = dialling(&[], "");
    let before = 1; // The runtime, which reads its channel as well.
    let raised = world.wait_for("the new thread", |world| all_at(world, -10, ORDINARY).filter(|count| *count > before));
    hold(&world, false);
    world.wait_empty();
    let back = world.wait_for("the base priority", |world| all_at(world, 10, BATCH));
    assert!(back <= raised);
    assert!(row(&world).unwrap()["critical"].is_null());
}

#[test]
fn a_section_is_put_back_when_its_time_is_up_and_the_next_one_is_its_own() {
    if !is_root("a_section_is_put_back_when_its_time_is_up_and_the_next_one_is_its_own") {
        return;
    }
    let world = dialling(&[], "critical_max = \"1s\"");
    world.wait_for("the base priority", |world| all_at(world, 10, BATCH));
    world.wait_for("the supervisor's log", |world| world.log().contains("is ended, its time is up").then_some(()));
    let known = "a critical section is over: its time is up (critical_max is 1s)";
    world.wait_for("the worker to know", |world| world.log().contains(known).then_some(()));
    assert_eq!(row(&world).unwrap()["critical"], Value::Null, "although the worker still holds both");
    let pid = world.worker_pid("modem");
    hold(&world, false);
    world.wait_empty();
    dial(&world);
    world.wait_for("the raised priority", |world| all_at(world, -10, ORDINARY));
    hold(&world, false);
    world.wait_empty();
    world.wait_for("the base priority", |world| all_at(world, 10, BATCH));
    assert_eq!(world.worker_pid("modem"), pid);
}

#[test]
fn a_real_time_section_is_one_for_every_thread_and_ends_for_every_thread() {
    if !is_root("a_real_time_section_is_one_for_every_thread_and_ends_for_every_thread") {
        return;
    }
    let world = dialling(&[], "critical_class = \"rr\"");
    let priority = row(&world).unwrap()["priority"].to_string();
    if priority.contains("real time refused") {
        eprintln!(
            "a_real_time_section_is_one_for_every_thread…: skipped, this system gives no real-time class: {priority}"
        );
        return;
    }
    world.wait_for("the class", |world| all_at(world, -10, REAL_TIME));
    world.wait_for("the row", |world| row(world)?["priority"].as_str()?.contains("real time").then_some(()));
    hold(&world, false);
    world.wait_empty();
    world.wait_for("the base priority", |world| all_at(world, 10, BATCH));
    assert!(!row(&world).unwrap()["priority"].as_str().unwrap().contains("real time"));
}

#[test]
fn a_spooler_that_stops_ends_sections_with_their_workers() {
    let mut world = dialling(&[], "");
    let pid = world.worker_pid("modem").unwrap();
    world.stop();
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert!(world.log().contains("critical section ended by death after"), "{}", world.log());
}

#[test]
fn a_hurry_ends_the_section_at_once() {
    if !is_root("a_hurry_ends_the_section_at_once") {
        return;
    }
    let mut world = dialling(&[], "");
    world.signal(Signal::SIGTERM);
    world.wait_for("the first signal to be heard", |world| world.log().contains("stopping: running").then_some(()));
    world.signal(Signal::SIGTERM);
    assert!(world.wait_end().success());
    assert!(world.log().contains("is ended, the spooler stops in a hurry, after"), "{}", world.log());
}

#[test]
fn no_raised_worker_outlives_a_supervisor_that_is_killed() {
    let mut world = dialling(&[], "");
    let pid = world.worker_pid("modem").unwrap();
    world.crash();
    world.wait_for("the worker's end", |_| (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
}

#[test]
fn what_is_refused_is_in_the_row_with_what_to_do_and_others_get_no_tokens() {
    let test = "what_is_refused_is_in_the_row_with_what_to_do_and_others_get_no_tokens";
    let Some(wrap) = without_capability(test, &["--nice=0", "--rtprio=0"]) else { return };
    let world = dialling(&wrap, "critical_class = \"rr\"");
    let shown = world.wait_for("the refusal", |world| {
        let priority = row(world)?["priority"].as_str()?.to_owned();
        priority.contains("refused").then_some(priority)
    });
    assert!(shown.contains("CAP_SYS_NICE, or LimitNICE=") && shown.contains("LimitRTPRIO=1"), "{shown}");
    assert!(shown.starts_with("nice 10"), "nothing was lost that cannot be got back: {shown}");
    assert!(world.log().contains("others get no tokens instead"));
    hold(&world, false);
    world.wait_empty();
}

#[test]
fn resource_limits_are_as_good_as_the_capability() {
    let test = "resource_limits_are_as_good_as_the_capability";
    // RLIMIT_NICE counts from 1 for nice 19 to 40 for nice -20.
    let Some(wrap) = without_capability(test, &["--nice=30", "--rtprio=1"]) else { return };
    // Of a user of its own the kernel would not hear.
    let world = dialling(&wrap, "critical_class = \"rr\"\nrun_as = \"root\"");
    if row(&world).unwrap()["priority"].to_string().contains("real time refused") {
        eprintln!("{test}: skipped, this system gives no real-time class");
        return;
    }
    world.wait_for("the class", |world| all_at(world, -10, REAL_TIME));
    hold(&world, false);
    world.wait_empty();
    world.wait_for("the base priority", |world| all_at(world, 10, BATCH));
}
