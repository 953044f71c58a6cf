//! A worker that is stopped in the middle of a large message holds up nobody but itself.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::sink::Sink;
use crate::world::World;
use crate::{IN, relay, smtp};

const MAIL: &[u8] = b"From: a@b.test\r\nDate: d\r\nMessage-ID: <i@b.test>\r\nSubject: small\r\n\r\nbody\r\n";
const LARGE_BYTES: usize = 12 << 20;
const LOCAL: &str = "[provider.local]\nkind = \"maildir\"\nclaims = [\"@local.test\"]\npath = \"{dir}/mail/maildir\"\n";
const SECOND_IN: &str = "[provider.second]\nkind = \"smtp-in\"\nlisten = [\"127.0.0.1:0\"]\n";

/// A process that is stopped as long as this lives.
struct Stopped(Pid);

impl Stopped {
    fn new(pid: Pid) -> Self {
        kill(pid, Signal::SIGSTOP).unwrap();
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// More than all buffers between two processes and a socket hold.
fn large() -> Vec<u8> {
    let mut content = b"From: a@b.test\r\nDate: d\r\nMessage-ID: <i@b.test>\r\nSubject: large\r\n\r\n".to_vec();
    let mut number = 0_u64;
    while content.len() < LARGE_BYTES {
        content.extend_from_slice(format!("line {number} of a large message, and nothing else in it\r\n").as_bytes());
        number += 1;
    }
    content
}

/// Messages come in by `provider` and go out by the maildir and by the relay, and the status table is there.
fn others_go_on(world: &World, provider: &str, sink: &Sink) {
    const COUNT: usize = 5;
    let port = world.port(provider);
    for _ in 0..COUNT {
        smtp::send(port, "a@b.test", &["x@remote.test", "x@local.test"], MAIL);
    }
    sink.wait(COUNT);
    world.wait_for("the maildir to have all", |world| {
        let row = world.provider("local")?;
        (row["in_flight"] == 0 && row["ready"] == 0).then_some(())
    });
    assert_eq!(fs::read_dir(world.path("mail/maildir/new")).unwrap().count(), COUNT);
}

#[test]
fn a_relay_that_is_stopped_while_it_sends() {
    let (slow, gate) = Sink::holding("+");
    let sink = Sink::start();
    let slow_relay = relay(slow.port)
        .replace("provider.relay", "provider.slow")
        .replace("address_types = [\"SMTP\"]", "claims = [\"@large.test\"]");
    let world = World::running(&format!("{IN}{LOCAL}{slow_relay}{}", relay(sink.port)));
    let content = large();
    smtp::send(world.port("submission"), "a@b.test", &["x@large.test"], &content);
    gate.wait();
    let stopped = Stopped::new(world.worker_pid("slow").unwrap());
    gate.open();
    others_go_on(&world, "submission", &sink);
    let row = world.provider("slow").unwrap();
    assert_eq!((&row["state"], &row["in_flight"]), (&"ready".into(), &1.into()), "{row}");
    drop(stopped);
    assert!(slow.wait(1)[0].content.ends_with(&content));
    world.wait_empty();
    assert_eq!((slow.arrived().len(), world.provider("slow").unwrap()["deaths"].as_u64()), (1, Some(0)));
}

#[test]
fn a_listener_that_is_stopped_while_it_receives() {
    let sink = Sink::start();
    let world = World::running(&format!("{IN}{SECOND_IN}{LOCAL}{}", relay(sink.port)));
    let content = large();
    let mut client = smtp::Client::connect(world.port("submission")).unwrap();
    for line in ["MAIL FROM:<a@b.test>", "RCPT TO:<x@local.test>"] {
        assert!(client.command(line).unwrap().starts_with("250"));
    }
    assert!(client.command("DATA").unwrap().starts_with("354"));
    let (beginning, rest) = content.split_at(LARGE_BYTES / 4);
    client.write(beginning).unwrap();
    world.wait_for("the upload to begin", |world| has_bytes(&world.path("spool")).then_some(()));
    let stopped = Stopped::new(world.worker_pid("submission").unwrap());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            client.write(rest).unwrap();
            client.write(b".\r\n").unwrap();
            assert!(client.reply().unwrap().starts_with("250"));
            done.store(true, Ordering::SeqCst);
        });
        others_go_on(&world, "second", &sink);
        assert!(!done.load(Ordering::SeqCst), "the stopped one has not finished");
        drop(stopped);
    });
    world.wait_empty();
    let new =
        fs::read_dir(world.path("mail/maildir/new")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
    let lines = content.iter().filter(|&&byte| byte == b'\n').count();
    assert!(new.max().unwrap() >= (content.len() - lines) as u64, "the large one is there whole");
}

/// Whether something is being uploaded into a spool.
fn has_bytes(spool: &Path) -> bool {
    let Ok(entries) = fs::read_dir(spool) else { return false };
    entries.flatten().map(|entry| entry.path()).any(|path| {
        let uploaded = spool.ends_with("incoming") && path.metadata().is_ok_and(|file| file.len() > 0);
        uploaded || (path.is_dir() && has_bytes(&path))
    })
}
