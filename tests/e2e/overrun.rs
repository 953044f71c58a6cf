//! A worker that hangs or computes without end is found, demoted, ended and replaced; the others are served all the while.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::sink::Sink;
use crate::world::World;
use crate::{IN, relay, smtp};

const MAIL: &[u8] = b"Subject: hello\r\n\r\nbody\r\n";
/// SCHED_IDLE in /proc/PID/stat.
const IDLE_CLASS: &str = "5";

/// A world with a relay and a rogue, which has a message in its hands.
fn world(sink: &Sink, rogue: &str) -> World {
    let rogue = format!("[provider.rogue]\nkind = \"fault\"\nclaims = [\"@rogue.test\"]\n{rogue}\n");
    let world = World::rogue(&format!("[scheduler]\ngate = \"off\"\nslots = 1\n{IN}{rogue}{}", relay(sink.port)));
    hand_over(&world);
    world
}

fn hand_over(world: &World) {
    smtp::send(world.port("submission"), "a@b.test", &["x@rogue.test"], MAIL);
    world.wait_for("the rogue to have the message", |world| (world.provider("rogue")?["in_flight"] == 1).then_some(()));
}

fn wait_row(world: &World, what: &str, mut fact: impl FnMut(&Value) -> bool) -> Value {
    world.wait_for(what, |world| world.provider("rogue").filter(&mut fact))
}

fn others_deliver(world: &World, sink: &Sink) {
    let before = sink.arrived().len();
    for number in 1..=5 {
        smtp::send(world.port("submission"), "a@b.test", &["x@remote.test"], MAIL);
        sink.wait(before + number);
    }
}

/// Waits until the rogue's worker has died of this, and until the next one has the message.
fn wait_replaced(world: &World, first: Pid, words: &[&str]) {
    let row = wait_row(world, "its death", |row| row["deaths"].as_u64() >= Some(1));
    let error = row["last_error"].as_str().unwrap();
    assert!(words.iter().all(|word| error.contains(word)), "{words:?} in {row}");
    let next = world.wait_for("the next worker", |world| world.worker_pid("rogue").filter(|next| *next != first));
    assert_ne!(next, first);
    let relay = world.provider("relay").unwrap();
    assert_eq!(relay["deaths"], 0, "{relay}");
    world.wait_for("what it had, and no more", |world| (world.queued()? == 1).then_some(()));
}

#[test]
fn one_that_says_nothing_of_its_delivery_is_replaced() {
    let sink = Sink::start();
    let world = world(&sink, "mode = \"silent\"\nstall_timeout = \"1s\"");
    let first = world.worker_pid("rogue").unwrap();
    let row = wait_row(&world, "the warning", |row| row["overrun"] == "warned");
    assert!(row["text"].as_str().unwrap().contains("said nothing of its deliveries"), "{row}");
    others_deliver(&world, &sink);
    // It can be talked to, so it goes when it is asked, without its delivery.
    wait_replaced(&world, first, &["said nothing of its deliveries for 1 s", "asked to go"]);
    wait_row(&world, "the message to be set aside at the third time", |row| row["deaths"] == 3);
    world.wait_for("the quarantine", |world| (world.status()?["supervisor"]["held"] == 1).then_some(()));
    others_deliver(&world, &sink);
}

#[test]
fn one_that_computes_without_end_is_demoted_and_then_ended() {
    let sink = Sink::start();
    let world = world(&sink, "mode = \"burn\"\ncpu_overrun_limit = \"3s\"\nstall_timeout = \"40s\"");
    let first = world.worker_pid("rogue").unwrap();
    let row = wait_row(&world, "the demotion", |row| row["overrun"] == "demoted");
    assert!(row["text"].as_str().unwrap().contains("runs when nobody else does"), "{row}");
    world.wait_for("the class of all its threads", |_| {
        classes(first)?.iter().all(|class| class == IDLE_CLASS).then_some(())
    });
    others_deliver(&world, &sink);
    // On a busy machine it gets no CPU any more, and is found by its silence instead.
    wait_replaced(&world, first, &["was asked to go", "SIGTERM"]);
    others_deliver(&world, &sink);
}

#[test]
fn one_that_is_stopped_with_a_delivery_is_found_and_killed() {
    let sink = Sink::start();
    let world = world(&sink, "mode = \"silent\"\nresponse_timeout = \"2s\"");
    let first = world.worker_pid("rogue").unwrap();
    kill(first, Signal::SIGSTOP).unwrap();
    others_deliver(&world, &sink);
    let row = wait_row(&world, "the warning", |row| row["overrun"] == "warned");
    assert!(row["text"].as_str().unwrap().contains("no sign of life"), "{row}");
    others_deliver(&world, &sink);
    wait_replaced(&world, first, &["no sign of life for", "SIGKILL"]);
}

#[test]
fn one_that_does_not_read_is_found_by_its_silence() {
    let sink = Sink::start();
    // The others have said their hello before the rogue is let in.
    let config = |rogue: &str| {
        let rogue = format!("[provider.rogue]\nkind = \"fault\"\nclaims = [\"@rogue.test\"]\n{rogue}\n");
        format!("{IN}{rogue}{}", relay(sink.port))
    };
    let world = World::rogue(&config("enabled = false"));
    fs::write(world.path("before-hello"), "deaf").unwrap();
    world.configure(&config("response_timeout = \"1s\""));
    world.signal(Signal::SIGHUP);
    wait_row(&world, "the rogue's logon", |row| row["state"] == "ready");
    let first = world.worker_pid("rogue").unwrap();
    hand_over(&world);
    others_deliver(&world, &sink);
    wait_replaced(&world, first, &["no sign of life for"]);
}

/// The scheduling classes of all threads.
fn classes(pid: Pid) -> Option<Vec<String>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let class = |task: std::io::Result<fs::DirEntry>| {
        let stat = fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
        Some(stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(38)?.to_owned())
    };
    Some(tasks.filter_map(class).collect()).filter(|classes: &Vec<String>| !classes.is_empty())
}
