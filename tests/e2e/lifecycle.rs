//! The supervisor's own comings and goings: stop, hurry, reload, restart, and a second one on the same spool.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::sink::Sink;
use crate::world::World;
use crate::{IN, relay, smtp};

const MAIL: &[u8] = b"Subject: hello\r\n\r\nbody\r\n";

fn maildir(name: &str) -> String {
    format!("[provider.{name}]\nkind = \"maildir\"\nclaims = [\"@{name}.test\"]\npath = \"{{dir}}/mail/{name}\"\n")
}

fn delivered(world: &World, name: &str) -> usize {
    std::fs::read_dir(world.path(&format!("mail/{name}/new"))).map_or(0, Iterator::count)
}

fn wait_text(world: &World, text: &str) {
    world.wait_for(text, |world| (world.status()?["supervisor"]["text"] == text).then_some(()));
}

#[test]
fn a_stop_lets_running_deliveries_finish() {
    let (sink, gate) = Sink::holding(".");
    let mut world = World::running(&format!("{IN}{}", relay(sink.port)));
    smtp::send(world.port("submission"), "a@b.test", &["x@remote.test"], MAIL);
    gate.wait();
    let workers = ["submission", "relay"].map(|name| world.worker_pid(name).unwrap());
    world.signal(Signal::SIGTERM);
    wait_text(&world, "stopping");
    gate.open();
    let status = world.wait_end();
    assert!(status.success(), "{status}");
    assert!(workers.iter().all(|worker| is_gone(*worker)));
    assert_eq!(sink.arrived().len(), 1);
    world.start();
    assert_eq!(world.queued(), Some(0), "what was delivered while stopping is on record");
}

#[test]
fn a_second_stop_does_not_wait() {
    let (sink, gate) = Sink::holding("MAIL");
    // Nothing but the second signal can end it in the time of a test.
    let mut world = World::running(&format!("{IN}{}[worker]\nstop_timeout = \"1h\"\n", relay(sink.port)));
    smtp::send(world.port("submission"), "a@b.test", &["x@remote.test"], MAIL);
    gate.wait();
    world.signal(Signal::SIGTERM);
    wait_text(&world, "stopping");
    world.signal(Signal::SIGTERM);
    let status = world.wait_end();
    assert!(status.success(), "{status}");
    gate.open();
    assert_eq!(sink.arrived().len(), 0);
    world.start();
    sink.wait(1);
    world.wait_empty();
    assert_eq!(sink.arrived().len(), 1);
}

fn is_gone(pid: Pid) -> bool {
    kill(pid, None) == Err(Errno::ESRCH)
}

#[test]
fn a_reload_touches_only_what_changed() {
    let (first, second) = (Sink::start(), Sink::start());
    let world = World::running(&format!("{IN}{}{}{}", maildir("old"), maildir("local"), relay(first.port)));
    let port = world.port("submission");
    let pid = |name: &str| world.worker_pid(name).unwrap();
    let (stays, relays, goes) = (["submission", "local"].map(pid), pid("relay"), pid("old"));
    world.configure(&format!("{IN}{}{}{}", maildir("local"), maildir("new"), relay(second.port)));
    world.signal(Signal::SIGHUP);
    world.wait_for("the new provider", |world| (world.provider("new")?["state"] == "ready").then_some(()));
    world.wait_for("the changed relay", |world| {
        let row = world.provider("relay")?;
        (row["state"] == "ready" && row["pid"] != relays.as_raw()).then_some(())
    });
    world.wait_for("the old provider to go", |_| is_gone(goes).then_some(()));
    assert!(world.provider("old").is_none() && is_gone(relays));
    assert_eq!(["submission", "local"].map(pid), stays);
    smtp::send(port, "a@b.test", &["x@remote.test", "x@new.test", "x@local.test"], MAIL);
    second.wait(1);
    world.wait_empty();
    assert_eq!((first.arrived().len(), delivered(&world, "new"), delivered(&world, "local")), (0, 1, 1));
}

#[test]
fn a_bad_configuration_is_refused_with_the_reason() {
    let sink = Sink::start();
    let world = World::running(&format!("{IN}{}", relay(sink.port)));
    let pids = || ["submission", "relay"].map(|name| world.worker_pid(name).unwrap());
    let before = pids();
    world.configure(&format!("{IN}{}", relay(sink.port).replace("kind = \"smtp\"", "kind = \"smtq\"")));
    world.signal(Signal::SIGHUP);
    world.wait_for("the refusal", |world| world.log().contains("the old one stays").then_some(()));
    let log = world.log();
    assert!(log.contains("smtq") && log.contains("provider.relay.kind"), "{log}");
    smtp::send(world.port("submission"), "a@b.test", &["x@remote.test"], MAIL);
    sink.wait(1);
    assert_eq!(pids(), before);
}

#[test]
fn a_second_one_on_the_same_spool_is_refused() {
    let sink = Sink::start();
    let world = World::running(&format!("{IN}{}", relay(sink.port)));
    let second = world.spooler(&["run"]);
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(75), "{said}");
    let pid = world.pid().to_string();
    assert!(said.contains("in use") && said.contains(&pid), "it names the one that runs: {said}");
    smtp::send(world.port("submission"), "a@b.test", &["x@remote.test"], MAIL);
    sink.wait(1);
}

#[test]
fn ready_deferred_and_held_messages_survive_a_restart() {
    let later = Arc::new(AtomicBool::new(true));
    let is_later = Arc::clone(&later);
    let sink = Sink::scripted(move |line| {
        let refuse = line.starts_with("MAIL") && is_later.load(Ordering::SeqCst);
        refuse.then(|| "451 4.7.1 later".to_owned())
    });
    let mut world = World::running(&format!("{IN}{}{}", maildir("local"), relay(sink.port)));
    let port = world.port("submission");
    world.post("/v1/providers/local/do", &json!({ "action": "pause" }));
    smtp::send(port, "a@b.test", &["ready@local.test"], MAIL);
    smtp::send(port, "a@b.test", &["held@local.test"], MAIL);
    smtp::send(port, "a@b.test", &["deferred@remote.test"], MAIL);
    world.post("/v1/messages/do", &json!({ "action": "hold", "filter": { "to": "held@" } }));
    world.wait_for("the deferral", |world| (world.status()?["supervisor"]["deferred"] == 1).then_some(()));
    assert_eq!(delivered(&world, "local"), 0);
    world.stop();
    world.start();
    world.wait_for("the ready one to be delivered", |world| (world.queued()? == 2).then_some(()));
    assert_eq!(delivered(&world, "local"), 1);
    let status = world.status().unwrap();
    assert_eq!((&status["supervisor"]["deferred"], &status["supervisor"]["held"]), (&1.into(), &1.into()));
    let deferred = world.control().get("/v1/messages?to=deferred@").unwrap();
    assert!(deferred.contains("\"attempts\":1") && deferred.contains("451 4.7.1 later"), "{deferred}");
    later.store(false, Ordering::SeqCst);
    world.post("/v1/messages/do", &json!({ "action": "release", "filter": { "to": "held@" } }));
    world.post("/v1/messages/do", &json!({ "action": "retry", "filter": { "to": "deferred@" } }));
    world.wait_empty();
    assert_eq!((delivered(&world, "local"), sink.arrived().len()), (2, 1));
}
