//! What operators and programs do with the client tools, against a real spooler.

use std::os::unix::process::ExitStatusExt;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::gate::gate;
use crate::sink::Sink;
use crate::world::World;

const MAIL: &[u8] = b"From: a@b.test\nDate: d\nMessage-ID: <i@b.test>\nSubject: hello\n\nbody\n";

pub(crate) fn relay(name: &str, port: u16, domain: &str) -> String {
    format!(
        "[provider.{name}]\nkind = \"smtp\"\nhost = \"127.0.0.1:{port}\"\ntls = \"none\"\nclaims = [\"@{domain}\"]\n"
    )
}

/// A tool's output on success.
pub(crate) fn good(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A tool's exit code and what it said about it.
pub(crate) fn bad(output: &Output) -> (i32, String) {
    let code = output.status.code().unwrap_or_else(|| output.status.into_raw());
    (code, String::from_utf8(output.stderr.clone()).unwrap())
}

pub(crate) fn send(world: &World, sender: &str, recipient: &str) {
    good(&world.client("sendmail", &["-i", "-f", sender, recipient], MAIL));
}

/// The messages of a listing.
fn listed(world: &World, arguments: &[&str]) -> Vec<u64> {
    let text = good(&world.spoolctl(&[&["queue", "list", "--json"], arguments].concat()));
    let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["id"].as_u64().unwrap();
    text.lines().map(id).collect()
}

#[test]
fn messages_are_chosen_by_number_and_by_what_they_are() {
    let sink = Sink::start();
    let world = World::running(&relay("relay", sink.port, "x.test"));
    good(&world.spoolctl(&["provider", "pause", "relay"]));
    for (sender, recipient) in [("a@b.test", "one@x.test"), ("a@b.test", "two@x.test"), ("c@d.test", "three@x.test")] {
        send(&world, sender, recipient);
    }
    assert_eq!(listed(&world, &[]), [1, 2, 3]);
    assert_eq!(listed(&world, &["--from", "a@b.test"]), [1, 2]);
    assert_eq!(listed(&world, &["--to", "three", "--state", "ready"]), [3]);
    assert_eq!(listed(&world, &["--provider", "relay", "--limit", "1"]), [1]);
    let table = good(&world.spoolctl(&["queue", "list"]));
    assert!(table.contains("c@d.test > three@x.test"), "{table}");
    let shown: Value = serde_json::from_str(&good(&world.spoolctl(&["queue", "show", "3", "--json"]))).unwrap();
    assert_eq!((&shown["sender"], &shown["recipient_details"][0]["state"]), (&"c@d.test".into(), &"pending".into()));
    assert!(good(&world.spoolctl(&["queue", "cat", "3"])).ends_with("Subject: hello\r\n\r\nbody\r\n"));

    let done = good(&world.spoolctl(&["queue", "hold", "1", "3", "--json"]));
    assert_eq!(
        serde_json::from_str::<Value>(&done).unwrap(),
        serde_json::json!({"done": 2, "ids": [1, 3], "refused": []})
    );
    assert_eq!(good(&world.spoolctl(&["queue", "hold", "--from", "nobody"])), "0 messages held\n");
    assert_eq!(listed(&world, &["--state", "held"]), [1, 3]);
    assert_eq!(good(&world.spoolctl(&["queue", "delete", "--to", "one"])), "1 message deleted: 1\n");
    let shown = good(&world.spoolctl(&["queue", "show", "1"]));
    assert!(shown.contains("discarded by user 0"), "how it ended is kept: {shown}");
    good(&world.spoolctl(&["provider", "resume", "relay"]));
    assert_eq!(sink.wait(1)[0].to, ["two@x.test"]);
    world.wait_for("only what is held to be left", |world| (world.queued()? == 1).then_some(()));
    assert_eq!(good(&world.spoolctl(&["queue", "release", "--all"])), "1 message released: 3\n");
    assert_eq!(sink.wait(2)[1].to, ["three@x.test"]);
    world.wait_empty();
    assert_eq!(good(&world.spoolctl(&["queue", "list"])), "No messages\n");
}

#[test]
fn a_message_in_flight_is_cancelled_and_not_deleted() {
    let (gate, passage) = gate();
    let first = AtomicBool::new(true);
    let sink = Sink::scripted(move |line| {
        let held = line == "DATA" && first.swap(false, Ordering::Relaxed);
        held.then(|| passage.pass()).map(|()| String::new())
    });
    let world = World::running(&relay("relay", sink.port, "x.test"));
    send(&world, "a@x.test", "one@x.test");
    gate.wait();
    assert_eq!(listed(&world, &["--state", "in-flight"]), [1]);
    for action in ["delete", "hold"] {
        let (code, text) = bad(&world.spoolctl(&["queue", action, "1"]));
        assert!(code == 65 && text.contains("in flight"), "{action}: {code} {text}");
    }
    assert_eq!(good(&world.spoolctl(&["cancel", "1"])), "1 message cancelled: 1\n");
    // The far side still has not said a word.
    world.wait_empty();
    gate.open();
    assert_eq!(bad(&world.spoolctl(&["cancel", "1"])).0, 65);
    send(&world, "a@x.test", "two@x.test");
    assert_eq!(sink.wait(1)[0].to, ["two@x.test"]);
    world.wait_empty();
    assert_eq!(sink.arrived().len(), 1);
}

#[test]
fn a_flush_works_the_queue_off_and_says_how_it_went() {
    let late = Arc::new(Mutex::new(true));
    let script = |late: &Arc<Mutex<bool>>| {
        let late = Arc::clone(late);
        move |line: &str| (line.starts_with("MAIL") && *late.lock().unwrap()).then(|| "451 4.3.2 later".to_owned())
    };
    let (x, y) = (Sink::scripted(script(&late)), Sink::scripted(script(&late)));
    let world = World::running(&(relay("x", x.port, "x.test") + &relay("y", y.port, "y.test")));
    assert_eq!(good(&world.spoolctl(&["flush"])), "No message was waiting\n");
    for recipient in ["one@x.test", "two@y.test", "three@y.test"] {
        send(&world, "a@b.test", recipient);
    }
    let deferred = |count: u64| {
        world.wait_for("messages to be deferred", |world| {
            (world.status()?["supervisor"]["deferred"] == count).then_some(())
        });
    };
    deferred(3);
    let output = world.spoolctl(&["flush"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("3 of 3 messages attempted; recipients: 0 delivered, 3 not delivered\n"), "{text}");
    for (recipient, provider) in [("one@x.test", "x"), ("two@y.test", "y"), ("three@y.test", "y")] {
        assert!(text.contains(&format!(" to {recipient}: deferred by {provider}: 451 4.3.2 later")), "{text}");
    }
    assert_eq!((output.status.code(), text.lines().count()), (Some(75), 4), "{text}");
    deferred(3);
    *late.lock().unwrap() = false;
    assert_eq!(
        good(&world.spoolctl(&["flush", "x"])),
        "1 of 1 message attempted; recipients: 1 delivered, 0 not delivered\n"
    );
    assert_eq!((x.arrived().len(), y.arrived().len(), world.queued()), (1, 0, Some(2)));
    good(&world.client("sendmail", &["-q"], b""));
    y.wait(2);
    world.wait_empty();
    let (code, text) = bad(&world.spoolctl(&["flush", "nosuch"]));
    assert!(code == 65 && text.contains("nosuch"), "{code} {text}");
}

#[test]
fn providers_are_paused_resumed_and_restarted() {
    let sink = Sink::start();
    let world = World::running(&relay("relay", sink.port, "x.test"));
    let status: Value = serde_json::from_str(&good(&world.spoolctl(&["status", "--json"]))).unwrap();
    assert_eq!((&status["supervisor"]["text"], &status["providers"][0]["name"]), (&"running".into(), &"relay".into()));
    let before = world.worker_pid("relay");
    good(&world.spoolctl(&["provider", "restart", "relay"]));
    world.wait_for("another worker", |world| {
        let row = world.provider("relay")?;
        (row["state"] == "ready" && world.worker_pid("relay") != before).then_some(())
    });
    good(&world.spoolctl(&["provider", "pause", "relay"]));
    world.wait_for("the pause", |world| (world.provider("relay")?["state"] == "paused").then_some(()));
    send(&world, "a@b.test", "one@x.test");
    assert!(good(&world.spoolctl(&["status"])).contains("paused"));
    let rows: Value = serde_json::from_str(&good(&world.spoolctl(&["provider", "list", "--json"]))).unwrap();
    assert_eq!((&rows[0]["state"], &rows[0]["ready"]), (&"paused".into(), &1.into()));
    good(&world.spoolctl(&["provider", "resume", "relay"]));
    assert_eq!(sink.wait(1).len(), 1);
    world.wait_empty();
    for action in ["pause", "resume", "restart"] {
        let (code, text) = bad(&world.spoolctl(&["provider", action, "nosuch"]));
        assert!(code == 65 && text.contains("nosuch"), "{action}: {code} {text}");
    }
}

#[test]
fn mistakes_have_the_exit_codes_of_sysexits() {
    let world = World::new("");
    for arguments in
        [&["status"][..], &["queue", "list"], &["flush"], &["provider", "pause", "relay"], &["cancel", "1"]]
    {
        let (code, text) = bad(&world.spoolctl(arguments));
        assert!(code == 69 && text.contains("No spooler is running"), "{arguments:?}: {code} {text}");
    }
    for arguments in
        [&["nonsense"][..], &[], &["queue", "delete"], &["queue", "hold", "1", "--all"], &["queue", "show", "x"]]
    {
        assert_eq!(bad(&world.spoolctl(arguments)).0, 64, "{arguments:?}");
    }
    // Neither a spooler nor a folder where messages could wait.
    assert_eq!(bad(&world.client("sendmail", &["x@x.test"], MAIL)).0, 75);
    assert_eq!(bad(&world.client("sendmail", &["-Z"], MAIL)).0, 64);
    assert_eq!(bad(&world.client("sendmail", &["-i", "a@b c"], MAIL)).0, 65);
}

#[test]
fn what_is_sent_while_the_spooler_is_away_waits_for_it() {
    let sink = Sink::start();
    let mut world = World::running(&relay("relay", sink.port, "x.test"));
    world.stop();
    let said = good(&world.client("sendmail", &["-v", "-f", "a@b.test", "one@x.test"], MAIL));
    assert!(said.contains("no spooler is running; left in"), "{said}");
    world.start();
    let arrived = sink.wait(1);
    assert_eq!(
        (arrived[0].from.as_str(), arrived[0].to.as_slice()),
        ("a@b.test", ["one@x.test".to_owned()].as_slice())
    );
    world.wait_empty();
    let left: Vec<_> = std::fs::read_dir(world.path("spool/pickup")).unwrap().flatten().collect();
    assert!(left.iter().all(|entry| entry.file_name() == "bad"), "{left:?}");
}

#[test]
fn sendmail_bs_takes_nothing_past_the_end_of_a_message() {
    const ENDS: [&str; 9] =
        ["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\r\n.\r\r\n", "\r\n\0.\r\n", "\r\n.\0\r\n"];
    let sink = Sink::start();
    let world = World::running(&relay("relay", sink.port, "x.test"));
    let begin = "MAIL FROM:<a@b.test>\r\nRCPT TO:<one@x.test>\r\nDATA\r\nSubject: t\r\n\r\nline one";
    let smuggled = "MAIL FROM:<smug@b.test>\r\nRCPT TO:<two@x.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n";
    let ends = ENDS.map(|end| format!("{begin}{end}{smuggled}")).concat();
    let dialogue = format!("EHLO test\r\n{ends}{begin}\r\n..\r\n.\r\nQUIT\r\n");
    let replies = good(&world.client("sendmail", &["-bs"], dialogue.as_bytes()));
    let count = |code: &str| replies.lines().filter(|line| line.starts_with(code)).count();
    assert_eq!((count("354"), count("55"), count("250 2.0.0 queued")), (ENDS.len() + 1, ENDS.len(), 1), "{replies}");
    let arrived = sink.wait(1);
    world.wait_empty();
    assert_eq!((sink.arrived().len(), arrived[0].from.as_str()), (1, "a@b.test"));
    assert!(arrived[0].content.ends_with(b"\r\n\r\nline one\r\n.\r\n"));
}
