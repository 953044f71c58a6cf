//! The mail log of the real programs: what was accepted, what became of it, and who did what.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;

use crate::sink::Sink;
use crate::smtp;
use crate::world::World;
use crate::{IN, relay};

const MAIL: &[u8] = b"Message-ID: <one@b.test>\r\nSubject: never in the log\r\n\r\nnor this\r\n";
/// Another line, another direction of writing, and a command for terminals.
const HOSTILE: &str = "550 5.1.1 no\u{202e} id=1 event=accepted\u{9b}2J \"x\"";

/// The lines of the mail log with this word in it.
fn lines(world: &World, word: &str) -> Vec<String> {
    let log = world.log();
    log.lines().filter(|line| line.contains(" event=") && line.contains(word)).map(str::to_owned).collect()
}

fn line(world: &World, word: &str) -> String {
    world.wait_for(word, |world| lines(world, word).pop())
}

fn has(line: &str, fields: &[&str]) {
    for field in fields {
        assert!(line.contains(&format!(" {field}")), "{field} is missing in {line}");
    }
}

#[test]
fn each_fate_has_its_line() {
    let sink = Sink::scripted(|line| match line {
        "." => Some("250 2.0.0 Ok: queued as 4XyZ".to_owned()),
        _ if line.contains("<later@") => Some("451 4.7.1 greylisted".to_owned()),
        _ if line.contains("<gone@") => Some(HOSTILE.to_owned()),
        _ => None,
    });
    let world = World::running(&format!("{IN}{}", relay(sink.port)));
    smtp::send(world.port("submission"), "a@b.test", &["x@c.test", "later@c.test", "gone@c.test"], MAIL);
    has(
        &line(&world, "event=accepted from=a@b.test"),
        &["id=1", "from=a@b.test", "to=x@c.test,later@c.test,gone@c.test", "nrcpt=3"],
    );
    has(&line(&world, "event=accepted from=a@b.test"), &["via=submission", "client=", "message_id=<one@b.test>"]);
    let relayed = line(&world, "status=relayed from=a@b.test");
    let remote = format!("remote=127.0.0.1:{}", sink.port);
    has(&relayed, &["id=1", "from=a@b.test", "to=x@c.test", "provider=relay", &remote, "dsn=2.0.0", "code=250"]);
    has(
        &relayed,
        &["reply=\"Ok: queued as 4XyZ\"", "remote_id=4XyZ", "delay=0.", "in_queue=", "connecting=", "transfer="],
    );
    has(
        &line(&world, "status=deferred"),
        &["to=later@c.test", "dsn=4.7.1", "code=451", "reply=greylisted", "next_try="],
    );
    let failed = line(&world, "status=failed");
    has(&failed, &["to=gone@c.test", "dsn=5.1.1", "reply=\"no\\u202e id=1 event=accepted"]);
    assert!(!world.log().contains(['\u{202e}', '\u{9b}']) && !world.log().contains("never in the log"));
    // The report about it is a message, too.
    has(&line(&world, "from=<>"), &["to=a@b.test"]);
}

#[test]
fn person_and_quiet_log_are_heard() {
    let mut world = World::new(&format!("{IN}{}", relay(1)));
    world.run_under(["/usr/bin/env", "SPOOLER_LOG=error"]);
    world.start();
    smtp::send(world.port("submission"), "a@b.test", &["x@c.test"], MAIL);
    line(&world, "status=deferred");
    for (command, event) in [("hold", "held"), ("release", "released"), ("delete", "deleted")] {
        let done = world.wait_for(command, |world| {
            Some(world.spoolctl(&["queue", command, "1"])).filter(|done| done.status.success())
        });
        assert!(done.status.success());
        has(&line(&world, &format!("event={event}")), &["id=1", &format!("uid={}", nix::unistd::getuid())]);
    }
    assert!(!world.log().contains("spooler starts"), "{}", world.log());
}

#[test]
fn lines_are_json_when_configured() {
    let sink = Sink::start();
    let world = World::running(&format!("[log]\nformat = \"json\"\n{IN}{}", relay(sink.port)));
    smtp::send(world.port("submission"), "a@b.test", &["x@c.test"], MAIL);
    let read = world.wait_for("the line", |world| {
        let log = world.log();
        let all: Vec<serde_json::Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        assert_eq!(all.len(), log.lines().count(), "every line is JSON: {log}");
        all.into_iter().find(|line| line["status"] == "relayed")
    });
    assert_eq!((&read["id"], &read["to"], &read["code"]), (&1.into(), &"x@c.test".into(), &250.into()));
}

/// One datagram as `NAME=value` pairs.
fn fields(datagram: &[u8]) -> Vec<(String, String)> {
    let text = std::str::from_utf8(datagram).unwrap();
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap();
    text.lines().map(pair).collect()
}

/// A world that believes its stderr to be read by a journal.
fn under_a_journal(socket: &str) -> World {
    let sink = Sink::start();
    let mut world = World::new(&format!("{IN}{}", relay(sink.port)));
    fs::write(world.path("log"), "").unwrap();
    let log = fs::metadata(world.path("log")).unwrap();
    let stream = format!("JOURNAL_STREAM={}:{}", log.dev(), log.ino());
    let socket = format!("SPOOLER_JOURNAL_SOCKET={}", world.path(socket).display());
    world.run_under(["/usr/bin/env".to_owned(), stream, socket]);
    world
}

#[test]
fn journal_gets_fields_of_each_mail() {
    let mut world = under_a_journal("journal");
    let journal = UnixDatagram::bind(world.path("journal")).unwrap();
    world.start();
    smtp::send(world.port("submission"), "a@b.test", &["x@c.test"], MAIL);
    let (mut buffer, mut of_mail, mut priorities) = (vec![0; 65536], Vec::new(), Vec::new());
    while !of_mail
        .iter()
        .any(|fields: &Vec<(String, String)>| fields.contains(&("SPOOLER_STATUS".into(), "relayed".into())))
    {
        let length = journal.recv(&mut buffer).unwrap();
        let fields = fields(&buffer[..length]);
        priorities.extend(fields.iter().find(|(name, _)| name == "PRIORITY").map(|(_, value)| value.clone()));
        assert!(fields.contains(&("SYSLOG_IDENTIFIER".into(), "spooler".into())), "{fields:?}");
        if fields.contains(&("SPOOLER_QUEUE_ID".into(), "1".into())) {
            of_mail.push(fields);
        }
    }
    assert_eq!(of_mail.len(), 2, "the whole life of the message: {of_mail:?}");
    let names: Vec<&str> = of_mail[1].iter().map(|(name, _)| name.as_str()).collect();
    for name in ["MESSAGE", "MESSAGE_ID", "SPOOLER_FROM", "SPOOLER_TO", "SPOOLER_PROVIDER", "SPOOLER_REMOTE"] {
        assert!(names.contains(&name), "{name} is missing in {names:?}");
    }
    assert!(priorities.iter().all(|priority| priority == "6"), "{priorities:?}");
    assert_eq!(world.log(), "", "nothing is written twice");
}

#[test]
fn stderr_carries_priorities_without_the_socket() {
    let mut world = under_a_journal("no-such-socket");
    world.start();
    smtp::send(world.port("submission"), "a@b.test", &["x@c.test"], MAIL);
    let line = line(&world, "status=relayed");
    assert!(line.starts_with("<6>id=1 event=attempt"), "{line}");
    fs::write(world.path("spooler.toml"), "nonsense").unwrap();
    world.signal(nix::sys::signal::Signal::SIGHUP);
    world.wait_for("the refusal", |world| world.log().lines().any(|line| line.starts_with("<3>")).then_some(()));
}

/// The history as JSON.
fn history(world: &World, arguments: &[&str]) -> Vec<serde_json::Value> {
    let done = world.spoolctl(&[&["log", "--json"], arguments].concat());
    assert!(done.status.success(), "{done:?}");
    let text = String::from_utf8(done.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(world: &World, arguments: &[&str]) -> Vec<u64> {
    history(world, arguments).iter().map(|finished| finished["id"].as_u64().unwrap()).collect()
}

/// A world in which message 1 was relayed, 2 failed, 3 is the report about that, and 4 was deleted.
fn with_a_past() -> World {
    let sink = Sink::scripted(|line| match line {
        _ if line.contains("<later@") => Some("451 4.7.1 greylisted".to_owned()),
        _ if line.contains("<gone@") => Some("550 5.1.1 nobody here".to_owned()),
        _ => None,
    });
    let world = World::running(&format!("{IN}{}", relay(sink.port)));
    for to in ["x@c.test", "gone@c.test", "later@c.test"] {
        let before = lines(&world, "event=attempt").len();
        smtp::send(world.port("submission"), "a@b.test", &[to], MAIL);
        world.wait_for("its attempt", |world| (lines(world, "event=attempt").len() > before).then_some(()));
        if to.starts_with("gone") {
            world.wait_for("the report", |world| lines(world, "id=3 event=attempt").pop());
        }
    }
    let deleted = world.wait_for("the deletion", |world| {
        Some(world.spoolctl(&["queue", "delete", "4"])).filter(|done| done.status.success())
    });
    assert!(deleted.status.success());
    world.wait_empty();
    world.wait_for("the history", |world| (history(world, &[]).len() == 4).then_some(()));
    world
}

#[test]
fn finished_messages_are_found_after_a_crash() {
    let mut world = with_a_past();
    world.crash();
    world.start();
    assert_eq!(ids(&world, &[]), [4, 3, 2, 1]);
    assert_eq!(ids(&world, &["--to", "X@C"]), [1]);
    assert_eq!(ids(&world, &["--from", "<>"]), [3]);
    assert_eq!(ids(&world, &["--state", "failed"]), [2]);
    assert_eq!(ids(&world, &["--state", "discarded", "--since", "1h"]), [4]);
    assert_eq!(ids(&world, &["--provider", "relay", "--limit", "2"]), [4, 3]);
    assert_eq!(ids(&world, &["--id", "2"]), [2]);
    let kept = &history(&world, &["--id", "1"])[0]["recipients"][0];
    assert_eq!((&kept["fate"], &kept["reply"]["code"]), (&"relayed".into(), &250.into()), "{kept}");
    assert!(kept["reply"]["hop"]["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{kept}");
}

#[test]
fn queue_show_tells_how_it_ended() {
    let world = with_a_past();
    for (id, words) in [
        (
            "1",
            &["relayed; no longer in the queue", "x@c.test", "relayed through relay, 1 attempt", "250 2.0.0 kept"][..],
        ),
        ("2", &["failed; no longer in the queue", "gone@c.test", "550 5.1.1 nobody here"]),
        ("4", &["discarded by user", "later@c.test", "451 4.7.1 greylisted"]),
    ] {
        let shown = world.spoolctl(&["queue", "show", id]);
        let text = String::from_utf8(shown.stdout).unwrap();
        assert!(shown.status.success() && words.iter().all(|word| text.contains(word)), "{words:?} in {text}");
    }
    let unknown = world.spoolctl(&["queue", "show", "99"]);
    assert!(!unknown.status.success() && String::from_utf8_lossy(&unknown.stderr).contains("no such message"));
    let table = String::from_utf8(world.spoolctl(&["log"]).stdout).unwrap();
    assert!(table.lines().any(|line| line.contains(" 1 relayed   a@b.test > x@c.test")), "{table}");
}

#[test]
fn history_can_be_off() {
    let sink = Sink::start();
    let world = World::running(&format!("[history]\nkeep = \"0\"\n{IN}{}", relay(sink.port)));
    smtp::send(world.port("submission"), "a@b.test", &["x@c.test"], MAIL);
    line(&world, "status=relayed");
    world.wait_empty();
    let log = world.spoolctl(&["log"]);
    assert_eq!(String::from_utf8(log.stdout).unwrap(), "No messages\n");
}

#[test]
fn followed_history_shows_what_ends() {
    use std::io::{BufRead, BufReader};
    let sink = Sink::start();
    let world = World::running(&format!("{IN}{}", relay(sink.port)));
    let mut command = world.command(world.tool("spoolctl"));
    let mut child = command.args(["log", "--follow"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut shown = BufReader::new(child.stdout.take().unwrap()).lines();
    for number in 1..=3 {
        smtp::send(world.port("submission"), "a@b.test", &[&format!("x{number}@c.test")], MAIL);
        let line = shown.next().unwrap().unwrap();
        assert!(line.ends_with(&format!("a@b.test > x{number}@c.test")), "{line}");
        assert!(shown.next().unwrap().unwrap().contains("250 2.0.0 kept"));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
