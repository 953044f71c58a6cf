//! Messages go through, by each provider, and the queue survives a restart.

use std::fs;

use crate::sink::Sink;
use crate::smtp;
use crate::world::World;
use crate::{IN, relay};

const MAIL: &[u8] = b"From: a@b.test\r\nDate: d\r\nMessage-ID: <i@b.test>\r\nSubject: hello\r\n\r\n.dot\r\nbody\r\n";

#[test]
fn one_message_is_shared_out_over_two_providers() {
    let sink = Sink::start();
    let local = "[provider.local]\nkind = \"maildir\"\nclaims = [\"@local.test\"]\npath = \"{dir}/mail/{local}\"\n";
    let world = World::running(&format!("{IN}{local}{}", relay(sink.port)));
    smtp::send(world.port("submission"), "a@b.test", &["ann@local.test", "x@remote.test", "bob@local.test"], MAIL);
    let arrived = sink.wait(1);
    assert_eq!(
        (arrived[0].from.as_str(), arrived[0].to.as_slice()),
        ("a@b.test", ["x@remote.test".to_owned()].as_slice())
    );
    assert!(arrived[0].content.ends_with(MAIL));
    world.wait_empty();
    for user in ["ann", "bob"] {
        let files: Vec<_> = fs::read_dir(world.path("mail").join(user).join("new")).unwrap().collect();
        assert_eq!(files.len(), 1, "{user}");
        let text = fs::read_to_string(files[0].as_ref().unwrap().path()).unwrap();
        assert!(text.starts_with("Return-Path: <a@b.test>\n"), "{text}");
        assert!(text.ends_with("Subject: hello\n\n.dot\nbody\n"), "{text}");
    }
}

#[test]
fn a_large_message_goes_through_as_it_is() {
    let sink = Sink::start();
    let world = World::running(&format!("{IN}{}", relay(sink.port)));
    let mut content = b"From: a@b.test\r\nDate: d\r\nMessage-ID: <i@b.test>\r\nSubject: large\r\n\r\n".to_vec();
    for number in 0..60_000 {
        content.extend_from_slice(
            format!(".line {number} of a message that does not fit into the database\r\n").as_bytes(),
        );
    }
    smtp::send(world.port("submission"), "a@b.test", &["x@remote.test"], &content);
    let arrived = sink.wait(1);
    assert!(arrived[0].content.ends_with(&content), "{} of {} bytes", arrived[0].content.len(), content.len());
    world.wait_empty();
    world.wait_for("its file to be removed", |world| walk(&world.path("spool/bodies")).is_empty().then_some(()));
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn the_queue_survives_a_restart_and_what_nobody_serves_is_refused() {
    let sink = Sink::scripted(|line| line.starts_with("MAIL").then(|| "451 4.7.1 later".to_owned()));
    let config =
        format!("{IN}{}", relay(sink.port).replace("address_types = [\"SMTP\"]", "claims = [\"@remote.test\"]"));
    let mut world = World::running(&config);
    let port = world.port("submission");
    smtp::send(port, "a@b.test", &["x@remote.test"], MAIL);
    let mut client = smtp::Client::connect(port).unwrap();
    let refused = client.send("a@b.test", &["x@nowhere.test"], MAIL).unwrap();
    assert!(refused.starts_with("550"), "{refused}");
    world
        .wait_for("the message to be deferred", |world| (world.status()?["supervisor"]["deferred"] == 1).then_some(()));
    world.stop();
    let second = Sink::start();
    world.configure(&config.replace(&sink.port.to_string(), &second.port.to_string()));
    world.start();
    assert_eq!(world.queued(), Some(1));
    let retried = world.spoolctl(&["queue", "retry", "--to", "remote.test"]);
    assert!(retried.status.success(), "{retried:?}");
    assert_eq!(second.wait(1)[0].to, ["x@remote.test"]);
    world.wait_empty();
}

#[test]
fn an_offline_provider_burns_nobodys_time_and_goes_on_by_itself() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let world = World::running(&format!("{IN}{}", relay(port)));
    let submission = world.port("submission");
    smtp::send(submission, "a@b.test", &["x@remote.test"], MAIL);
    world.wait_for("the relay to be offline", |world| {
        let code = world.provider("relay")?["code"].as_u64()?;
        (code & 2 != 0).then_some(())
    });
    world.wait_for("nothing to be in flight", |world| (world.status()?["supervisor"]["in_flight"] == 0).then_some(()));
    for number in 0..20 {
        smtp::send(submission, "a@b.test", &[&format!("x{number}@remote.test")], MAIL);
    }
    let row = world.provider("relay").unwrap();
    assert_eq!((row["ready"].as_u64(), row["in_flight"].as_u64()), (Some(20), Some(0)), "{row}");
    let list = world.spoolctl(&["queue", "list"]);
    let text = String::from_utf8(list.stdout).unwrap();
    assert!(text.contains("provider relay is offline: "), "{text}");
    let sink = Sink::on_port(port);
    sink.wait(21);
    world.wait_empty();
}

#[test]
fn one_that_is_to_stay_offline_connects_when_it_is_told_to_and_so_does_the_next_worker() {
    let sink = Sink::start();
    let world = World::running(&format!("{IN}{}no_connect = true\n", relay(sink.port)));
    smtp::send(world.port("submission"), "a@b.test", &["x@remote.test"], MAIL);
    let row = world.provider("relay").unwrap();
    assert!(row["text"].as_str().unwrap().contains("told to stay offline"), "{row}");
    assert_eq!((row["ready"].as_u64(), row["in_flight"].as_u64()), (Some(1), Some(0)), "{row}");
    let connected = world.spoolctl(&["provider", "validate", "relay", "--connect"]);
    assert!(connected.status.success(), "{connected:?}");
    sink.wait(1);
    world.wait_empty();
    world.restart("relay");
    smtp::send(world.port("submission"), "a@b.test", &["x@remote.test"], MAIL);
    sink.wait(2);
    world.wait_empty();
}

#[test]
fn retry_connects_through_an_offline_provider() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let world = World::running(&format!("{IN}{}", relay(port)));
    let submission = world.port("submission");
    for number in 0..5 {
        smtp::send(submission, "a@b.test", &[&format!("x{number}@remote.test")], MAIL);
        world.wait_for("the relay to be offline", |world| {
            let row = world.provider("relay")?;
            (row["code"].as_u64()? & 2 != 0 && row["in_flight"] == 0).then_some(())
        });
    }
    let attempts = |id: u64| {
        let shown = world.spoolctl(&["queue", "show", "--json", &id.to_string()]);
        let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
        shown["attempts"].as_u64().unwrap()
    };
    let (last, before) = (5, attempts(5));
    assert_eq!(before, 0, "it waits without being tried");
    let output = world.spoolctl(&["queue", "retry", &last.to_string()]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "1 message to be tried now: 5\n");
    world.wait_for("the attempt", |_| (attempts(last) == 1).then_some(()));
    assert_eq!((attempts(3), attempts(4)), (0, 0), "only that one is tried");
}
