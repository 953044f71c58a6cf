//! Background work waits for the idle gate; whoever somebody waits for does not.

use crate::world::World;
use crate::{IN, smtp};

const MAIL: &[u8] = b"Subject: patience\r\n\r\nbody\r\n";

const LOCAL: &str = "[provider.local]\nkind = \"maildir\"\nclaims = [\"@local.test\"]\npath = \"{dir}/mail/local\"\n";

fn config(scheduler: &str, local: &str) -> String {
    format!("[scheduler]\n{scheduler}\n{IN}{LOCAL}{local}")
}

fn delivered(world: &World) -> usize {
    std::fs::read_dir(world.path("mail/local/new")).map_or(0, Iterator::count)
}

/// Sends a message, and waits until its worker has it and waits for a token.
fn send_and_wait(world: &World) {
    smtp::send(world.port("submission"), "a@b.test", &["x@local.test"], MAIL);
    world.wait_for("the worker to wait for a token", |world| {
        let row = world.provider("local")?;
        (row["token"] == "runnable" && row["in_flight"] == 1).then_some(())
    });
}

#[test]
fn a_closed_gate_holds_the_background_and_a_flush_passes_it() {
    let world = World::running(&config("gate = 0", ""));
    // That it is accepted at once shows that whoever listens passes the gate.
    send_and_wait(&world);
    let supervisor = world.status().unwrap()["supervisor"].clone();
    assert_eq!((&supervisor["gate"], &supervisor["slots"]), (&"fixed at 0".into(), &0.into()), "{supervisor}");
    assert_eq!(delivered(&world), 0);
    let status = world.spoolctl(&["status"]);
    let text = String::from_utf8(status.stdout).unwrap();
    assert!(text.contains("background work: gate fixed at 0"), "{text}");
    assert!(text.contains("waits for a token"), "{text}");
    let flush = world.spoolctl(&["flush"]);
    assert!(flush.status.success(), "{flush:?}");
    assert_eq!(delivered(&world), 1);
    // With the flush its right to run ends.
    send_and_wait(&world);
    assert_eq!(delivered(&world), 1);
}

#[test]
fn nobody_waits_for_ever() {
    let world = World::running(&config("gate = 0\nforce_after = \"1s\"", ""));
    smtp::send(world.port("submission"), "a@b.test", &["x@local.test"], MAIL);
    world.wait_empty();
    assert_eq!(delivered(&world), 1);
}

#[test]
fn a_new_configuration_opens_the_gate() {
    let world = World::running(&config("gate = 0", ""));
    send_and_wait(&world);
    world.configure(&config("gate = \"off\"", ""));
    world.signal(nix::sys::signal::Signal::SIGHUP);
    world.wait_empty();
    assert_eq!(delivered(&world), 1);
    assert_eq!(world.status().unwrap()["supervisor"]["gate"], "off");
}

#[test]
fn the_gate_looks_at_the_machine_while_work_waits() {
    let world = World::running(&config("gate = \"auto\"\nforce_after = \"2s\"", ""));
    smtp::send(world.port("submission"), "a@b.test", &["x@local.test"], MAIL);
    // Whatever else runs on this machine, something was seen, and the message is not stuck.
    let gate = world.wait_for("a look", |world| {
        let gate = world.status()?["supervisor"]["gate"].as_str()?.to_owned();
        gate.contains("others use").then_some(gate)
    });
    assert!(gate.ends_with(" cores") && (gate.contains("open") || gate.contains("closed")), "{gate}");
    world.wait_empty();
}

#[test]
fn class_and_io_of_a_worker_are_as_configured() {
    let world = World::running(&config("gate = \"off\"", "nice = 12\nsched = \"idle\"\nio = \"idle\"\n"));
    let shown = |world: &World, name: &str| world.provider(name)?["priority"].as_str().map(str::to_owned);
    world.wait_for("the priority of local", |world| {
        let text = shown(world, "local")?;
        (text.starts_with("nice 12") && text.ends_with("idle, io idle")).then_some(())
    });
    world.wait_for("the priority of the listener", |world| {
        let text = shown(world, "submission")?;
        (text.starts_with("nice 0") && text.ends_with("other, io best-effort:4")).then_some(())
    });
}
