//! Workers die with messages in their hands: nothing is lost, nobody else waits, and what keeps killing is set aside.

use std::fs;

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use crate::sink::{Arrived, Sink};
use crate::world::World;
use crate::{IN, relay, smtp};

fn mail(name: &str) -> Vec<u8> {
    format!("From: a@b.test\r\nDate: d\r\nMessage-ID: <i@b.test>\r\nSubject: {name}\r\n\r\nbody\r\n").into_bytes()
}

fn copies(arrived: &[Arrived], name: &str) -> usize {
    let end = mail(name);
    arrived.iter().filter(|message| message.content.ends_with(&end)).count()
}

/// Kills a worker with one delivery in this phase while it has done others before; gives the copies of the one.
fn copies_after_death_in(phase: &'static str) -> usize {
    let (sink, gate) = Sink::holding(phase);
    let world = World::running(&format!("{IN}{}", relay(sink.port)));
    let port = world.port("submission");
    smtp::send(port, "a@b.test", &["x@remote.test"], &mail("held"));
    gate.wait();
    for other in ["first", "second", "third"] {
        smtp::send(port, "a@b.test", &["x@remote.test"], &mail(other));
    }
    sink.wait(3);
    world.wait_for("one delivery", |world| (world.provider("relay")?["in_flight"] == 1).then_some(()));
    kill(world.worker_pid("relay").unwrap(), Signal::SIGKILL).unwrap();
    gate.open();
    world.wait_empty();
    let row = world.provider("relay").unwrap();
    assert_eq!((&row["deaths"], &row["in_flight"]), (&1.into(), &0.into()), "{row}");
    assert!(row["last_error"].as_str().unwrap().contains("signal 9 (SIGKILL)"), "{row}");
    let arrived = sink.arrived();
    for other in ["first", "second", "third"] {
        assert_eq!(copies(&arrived, other), 1, "{other}");
    }
    copies(&arrived, "held")
}

#[test]
fn a_worker_that_dies_before_the_end_of_data_delivers_once() {
    for phase in ["EHLO", "MAIL", "RCPT", "DATA"] {
        assert_eq!(copies_after_death_in(phase), 1, "{phase}");
    }
}

#[test]
fn a_worker_that_dies_before_the_answer_to_the_end_of_data_delivers_twice() {
    // The sink took the message, and nobody could hear it say so: the second copy is what at-least-once means.
    assert_eq!(copies_after_death_in("."), 2);
}

#[test]
fn a_death_is_noticed_at_once_and_the_message_is_back() {
    let (sink, gate) = Sink::holding("MAIL");
    let world = World::running(&format!("{IN}{}", relay(sink.port)));
    smtp::send(world.port("submission"), "a@b.test", &["x@remote.test"], &mail("held"));
    gate.wait();
    // Paused, so that no next worker takes it at once.
    world.post("/v1/providers/relay/do", &json!({ "action": "pause" }));
    world.wait_for("the worker to drain", |world| (world.provider("relay")?["state"] == "draining").then_some(()));
    kill(world.worker_pid("relay").unwrap(), Signal::SIGKILL).unwrap();
    let row =
        world.wait_for("the message to be back", |world| world.provider("relay").filter(|row| row["in_flight"] == 0));
    assert_eq!((&row["ready"], &row["state"], &row["pid"]), (&1.into(), &"paused".into(), &Value::Null), "{row}");
    gate.open();
    world.post("/v1/providers/relay/do", &json!({ "action": "resume" }));
    sink.wait(1);
    world.wait_empty();
    assert_eq!(sink.arrived().len(), 1);
}

/// A provider whose program kills the worker for one recipient, or for none.
fn pipe(poison: &str) -> String {
    let script = format!("case $LOCAL in {poison}) kill -9 $PPID;; *) cat >{{dir}}/mail/$LOCAL;; esac");
    format!("[provider.pipe]\nkind = \"pipe\"\nclaims = [\"@pipe.test\"]\ncommand = ['/bin/sh', '-c', '{script}']\n")
}

#[test]
fn a_message_that_kills_its_worker_is_set_aside_and_nobody_else_waits() {
    const OTHERS: usize = 10;
    let sink = Sink::start();
    let local = "[provider.local]\nkind = \"maildir\"\nclaims = [\"@local.test\"]\npath = \"{dir}/mail/maildir\"\n";
    let config = |poison| format!("{IN}{local}{}{}", pipe(poison), relay(sink.port));
    let world = World::running(&config("poison"));
    let port = world.port("submission");
    smtp::send(port, "a@b.test", &["poison@pipe.test"], &mail("poison"));
    for number in 0..OTHERS {
        let to = [format!("u{number}@pipe.test"), "x@remote.test".to_owned(), "x@local.test".to_owned()];
        smtp::send(port, "a@b.test", &to.each_ref().map(String::as_str), &mail("other"));
    }
    sink.wait(OTHERS);
    world.wait_for("the others to be gone and the poison to be set aside", |world| {
        let status = world.status()?;
        (status["supervisor"]["queued"] == 1 && status["supervisor"]["held"] == 1).then_some(())
    });
    assert_eq!(copies(&sink.arrived(), "other"), OTHERS);
    assert_eq!(fs::read_dir(world.path("mail/maildir/new")).unwrap().count(), OTHERS);
    for number in 0..OTHERS {
        assert!(fs::read(world.path(&format!("mail/u{number}"))).unwrap().ends_with(b"Subject: other\n\nbody\n"));
    }
    let row = world.provider("pipe").unwrap();
    assert_eq!(row["deaths"], 3, "{row}");
    let listed = world.wait_for("the reason to be on disk", |world| {
        let listed: Value = serde_json::from_str(world.control().get("/v1/messages")?.trim()).ok()?;
        listed["why"].as_str()?.contains("died 3 times").then_some(listed)
    });
    assert_eq!(listed["state"], "quarantined", "{listed}");
    assert_eq!(listed["recipients"], json!(["poison@pipe.test"]), "{listed}");
    world.configure(&config("nobody"));
    world.reload("pipe");
    world.post("/v1/messages/do", &json!({ "action": "release", "filter": { "ids": listed["id"].to_string() } }));
    world.wait_empty();
    assert!(fs::read(world.path("mail/poison")).unwrap().ends_with(b"Subject: poison\n\nbody\n"));
}
