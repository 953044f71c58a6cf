//! A worker that misbehaves costs the others nothing, and its row says what is wrong with it.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;
use spooler_protocol::handshake::PROTOCOL_VERSION;

use crate::sink::Sink;
use crate::world::World;
use crate::{IN, relay, smtp, tools};

const MAIL: &[u8] = b"Subject: hello\r\n\r\nbody\r\n";

/// A world in which everybody is ready but the rogue, which is still kept in.
fn world(sink: &Sink) -> World {
    World::rogue(&config(sink, "enabled = false"))
}

fn config(sink: &Sink, rogue: &str) -> String {
    format!(
        "{IN}[provider.rogue]\nkind = \"fault\"\nclaims = [\"@rogue.test\", \"FAULT:\"]\n{rogue}\n{}",
        relay(sink.port)
    )
}

fn let_loose(world: &World, sink: &Sink, rogue: &str) {
    let reloads = |world: &World| world.log().matches("reloaded").count();
    let before = reloads(world);
    world.configure(&config(sink, rogue));
    world.signal(Signal::SIGHUP);
    world.wait_for("the reload", |world| (reloads(world) > before).then_some(()));
}

/// A world whose rogue misbehaves before its first word.
fn world_before_hello(sink: &Sink, mode: &str) -> World {
    let world = world(sink);
    fs::write(world.path("before-hello"), mode).unwrap();
    let_loose(&world, sink, "start_timeout = \"100ms\"");
    world
}

/// A world whose rogue misbehaves in one of its modes.
fn world_with(sink: &Sink, mode: &str) -> World {
    let world = world(sink);
    let_loose(&world, sink, &format!("mode = \"{mode}\""));
    world
}

/// Waits until the rogue's row is as it should be.
fn wait_row(world: &World, what: &str, mut fact: impl FnMut(&Value) -> bool) -> Value {
    world.wait_for(what, |world| world.provider("rogue").filter(&mut fact))
}

fn wait_error(world: &World, words: &[&str]) -> Value {
    wait_row(world, &format!("a reason with {words:?}"), |row| {
        let error = row["last_error"].as_str().unwrap_or_default();
        words.iter().all(|word| error.contains(word))
    })
}

/// The others deliver as ever, by the very workers that were there before.
fn others_deliver(world: &World, sink: &Sink) {
    let before = sink.arrived().len();
    let pids = ["submission", "relay"].map(|name| world.worker_pid(name));
    for number in 1..=5 {
        smtp::send(world.port("submission"), "a@b.test", &["x@remote.test"], MAIL);
        sink.wait(before + number);
    }
    assert_eq!(["submission", "relay"].map(|name| world.worker_pid(name)), pids);
    world.wait_for("the others to have nothing left", |world| {
        (world.provider("relay")?["in_flight"] == 0).then_some(())
    });
}

#[test]
fn one_that_never_says_hello_is_barred_with_the_reason() {
    let sink = Sink::start();
    let world = world_before_hello(&sink, "silent");
    wait_error(&world, &["did not log on within 100ms", "SIGKILL", "my lips are sealed"]);
    others_deliver(&world, &sink);
    let row = wait_row(&world, "the rogue to fail", |row| row["state"] == "failed");
    assert_eq!((&row["deaths"], &row["pid"]), (&8.into(), &Value::Null), "{row}");
    assert!(row["text"].as_str().unwrap().starts_with("failed: The worker did not log on"), "{row}");
    others_deliver(&world, &sink);
    fs::remove_file(world.path("before-hello")).unwrap();
    let_loose(&world, &sink, "");
    world.restart("rogue");
    let row = wait_row(&world, "the rogue to be good", |row| row["state"] == "ready");
    assert!(row["last_error"].is_null(), "{row}");
}

#[test]
fn one_of_another_version_is_told_apart() {
    let sink = Sink::start();
    let world = world_before_hello(&sink, "wrong-version");
    let theirs = format!("protocol version {}", PROTOCOL_VERSION + 1);
    let ours = format!("this program speaks {PROTOCOL_VERSION}");
    let row = wait_error(&world, &[&theirs, &ours]);
    assert_ne!(row["state"], "ready");
    others_deliver(&world, &sink);
}

#[test]
fn one_that_is_not_who_it_says_is_not_believed() {
    for (mode, words) in [
        ("wrong-pid", "somebody else said hello"),
        ("wrong-folder", "names no folder that can be its own"),
        ("lost-server", "nowhere/socket: No such file or directory"),
    ] {
        let sink = Sink::start();
        let world = world_before_hello(&sink, mode);
        wait_error(&world, &[words]);
        others_deliver(&world, &sink);
    }
}

#[test]
fn one_that_talks_garbage_is_ended() {
    let sink = Sink::start();
    let world = world_before_hello(&sink, "garbage");
    let row = wait_error(&world, &["talks garbage", "SIGKILL"]);
    assert!(row["deaths"].as_u64().unwrap() >= 1, "{row}");
    others_deliver(&world, &sink);
}

#[test]
fn one_whose_packets_are_none_is_ended_with_the_reason() {
    for (mode, words) in [
        ("packets-short", "talks garbage"),
        ("packets-empty", "an empty packet"),
        ("packets-long", "a packet of 200000 bytes"),
        ("packets-random", "talks garbage"),
        ("packets-endless", "larger than"),
        ("packets-ipc", "talks garbage"),
        ("packets-half", "closed its channel and did not end"),
    ] {
        let sink = Sink::start();
        let world = world_before_hello(&sink, mode);
        wait_error(&world, &[words, "SIGKILL"]);
        others_deliver(&world, &sink);
    }
}

#[test]
fn one_that_sends_descriptors_without_end_leaves_none_behind() {
    let sink = Sink::start();
    let world = world(&sink);
    fs::write(world.path("before-hello"), "packets-descriptors").unwrap();
    // As one that runs only when nobody else does it would say nothing on a busy machine.
    let_loose(&world, &sink, "cpu_overrun_limit = \"1h\"");
    wait_row(&world, "the rogue", |row| row["state"] == "ready");
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", world.pid())).unwrap().count();
    let before = descriptors();
    others_deliver(&world, &sink);
    let row = wait_row(&world, "its words", |row| row["text"].as_str().unwrap().starts_with("sent"));
    wait_row(&world, "more of its words", |later| later["text"] != row["text"]);
    assert!(descriptors() < before + 64, "{before} descriptors have become {}", descriptors());
    others_deliver(&world, &sink);
}

#[test]
fn one_that_does_not_read_is_ended() {
    let sink = Sink::start();
    let world = world_before_hello(&sink, "never-reads");
    wait_error(&world, &["does not read what it is told"]);
    others_deliver(&world, &sink);
}

#[test]
fn one_that_never_logs_on_is_killed() {
    let sink = Sink::start();
    let world = world(&sink);
    let_loose(&world, &sink, "mode = \"mute\"\nstart_timeout = \"100ms\"");
    wait_error(&world, &["did not log on within 100ms", "SIGKILL"]);
    others_deliver(&world, &sink);
}

#[test]
fn one_that_crashes_at_logon_is_started_again_with_the_reason_in_its_row() {
    let sink = Sink::start();
    let world = world_with(&sink, "crash-at-logon");
    wait_error(&world, &["SIGILL", "the modem is on fire"]);
    let row = wait_row(&world, "a second attempt", |row| row["deaths"].as_u64().unwrap() >= 2);
    assert!(matches!(row["state"].as_str(), Some("backoff" | "starting")), "{row}");
    others_deliver(&world, &sink);
}

#[test]
fn a_panic_is_in_the_log_and_in_the_row_and_its_message_is_set_aside() {
    let sink = Sink::start();
    let world = world_with(&sink, "panic");
    wait_row(&world, "the rogue", |row| row["state"] == "ready");
    smtp::send(world.port("submission"), "a@b.test", &["x@rogue.test"], MAIL);
    wait_error(&world, &["SIGABRT", "the line went up in smoke"]);
    assert!(world.log().contains("the line went up in smoke"));
    world.wait_for("the message to be quarantined", |world| (world.status()?["supervisor"]["held"] == 1).then_some(()));
    let row = wait_row(&world, "the rogue to be back", |row| row["state"] == "ready");
    assert_eq!(row["deaths"], 3, "{row}");
    others_deliver(&world, &sink);
}

#[test]
fn one_that_floods_holds_only_itself_back() {
    let sink = Sink::start();
    let world = world_with(&sink, "flood");
    wait_row(&world, "the flood", |row| row["text"].as_str().unwrap().starts_with("flooding"));
    others_deliver(&world, &sink);
    wait_row(&world, "its overdraft", |row| row["overdraft_ms"].as_u64().unwrap() > 0);
    let seen = world.provider("rogue").unwrap()["text"].clone();
    wait_row(&world, "the flood to go on", |row| row["text"] != seen);
}

#[test]
fn one_that_begins_messages_without_end_fills_neither_memory_nor_disk() {
    const MEMORY_KIB_MAX: u64 = 200 * 1024;
    let sink = Sink::start();
    let world = world_with(&sink, "hoard");
    wait_error(&world, &["does not read what it is told"]);
    others_deliver(&world, &sink);
    let status = fs::read_to_string(format!("/proc/{}/status", world.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kib < MEMORY_KIB_MAX, "{peak_kib} KiB");
}

#[test]
fn what_a_liar_says_of_others_is_not_heard() {
    let (open, opened) = crate::gate::gate();
    let sink = Sink::scripted(move |line| {
        if line.starts_with("MAIL") {
            opened.pass();
        }
        None
    });
    let world = world(&sink);
    let port = world.port("submission");
    for _ in 0..10 {
        smtp::send(port, "a@b.test", &["x@remote.test"], MAIL);
    }
    world.wait_for("ten deliveries", |world| (world.provider("relay")?["in_flight"] == 10).then_some(()));
    let_loose(&world, &sink, "mode = \"lie\"");
    // A lie about a delivery that becomes its own meanwhile would be none.
    wait_row(&world, "the liar", |row| row["text"] == "has told its lies");
    smtp::send(port, "a@b.test", &["x@rogue.test"], MAIL);
    wait_row(&world, "the liar's absurd wish", |row| row["deferred"] == 1);
    // The sender of the message that is to wait for so long is told so, with a report; nothing else comes of the lies.
    let status =
        world.wait_for("the report", |world| world.status().filter(|status| status["supervisor"]["queued"] == 12));
    assert_eq!(status["supervisor"]["sent"], 0, "{status}");
    open.open();
    sink.wait(11);
    others_deliver(&world, &sink);
    assert_eq!(sink.arrived().len(), 16, "nothing is lost and nothing comes twice");
    let summary = world.control().get("/v1/messages").unwrap();
    let summary: Value = serde_json::from_str(summary.trim()).unwrap();
    let wait_ms = summary["next_try_ms"].as_i64().unwrap() - summary["submitted_ms"].as_i64().unwrap();
    assert!(wait_ms <= 6 * 86_400_000, "{summary}");
    assert_eq!(world.provider("rogue").unwrap()["deaths"], 0);
}

/// Hands a message in for what the `fault` provider is told by its address.
fn command(world: &World, what: &str) {
    tools::good(&world.client("spoolctl", &["submit", "--from", "a@b.test", "--to", &format!("FAULT:{what}")], MAIL));
}

#[test]
fn a_message_that_tells_its_worker_to_die_is_set_aside_and_the_next_ones_are_delivered() {
    let sink = Sink::start();
    let world = world_with(&sink, "good");
    wait_row(&world, "the rogue", |row| row["state"] == "ready");
    command(&world, "crash");
    world.wait_for("the message to be quarantined", |world| (world.status()?["supervisor"]["held"] == 1).then_some(()));
    let row = wait_row(&world, "the rogue to be back", |row| row["state"] == "ready");
    assert_eq!(row["deaths"], 3, "{row}");
    command(&world, "rows");
    for kept in ["keeps 16 MiB", "keeps 32 MiB"] {
        command(&world, "leak");
        wait_row(&world, kept, |row| row["text"] == kept);
    }
    world.wait_for("all but that one", |world| (world.queued()? == 1).then_some(()));
    assert_eq!(world.provider("rogue").unwrap()["deaths"], 3);
    others_deliver(&world, &sink);
}
