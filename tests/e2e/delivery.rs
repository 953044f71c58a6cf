//! Messages go through, by each provider, and the queue survives a restart.

use std::fs;

use crate::sink::Sink;
use crate::smtp;
use crate::world::World;
use crate::{IN, relay};

const MAIL: &[u8] = b"Subject: hello\r\n\r\n.dot\r\nbody\r\n";

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
    let mut content = b"Subject: large\r\n\r\n".to_vec();
    for number in 0..60_000 {
        content.extend_from_slice(
            format!(".line {number} of a message that does not fit into the database\r\n").as_bytes(),
        );
    }
    smtp::send(world.port("submission"), "a@b.test", &["x@remote.test"], &content);
    let arrived = sink.wait(1);
    assert!(arrived[0].content.ends_with(&content), "{} of {} bytes", arrived[0].content.len(), content.len());
    world.wait_empty();
    let left: Vec<_> = walk(&world.path("spool/bodies"));
    assert!(left.is_empty(), "{left:?}");
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn the_queue_survives_a_restart_and_what_nobody_serves_is_refused() {
    let sink = Sink::scripted(|line| line.starts_with("MAIL").then(|| "451 4.7.1 later".to_owned()));
    let config = format!(
        "{IN}{}",
        relay(sink.port).replace("address_types = [\"SMTP\"]", "claims = [\"@remote.test\"]\naddress_types = []")
    );
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
