//! A small file system that is really full: a tmpfs in a mount namespace of its own, which a process of ours keeps while supervisors come
//! and go. Needs root; skipped by name without.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::load::{self, Books, CLIENTS, Over};
use crate::world::World;

const SIZE: &str = "24m";
/// Refusals in a row before the disk counts as full.
const REFUSALS: usize = 200;

/// Keeps the mount.
struct Mount(Child);

impl Mount {
    /// A tmpfs at a path that nobody sees but those who enter its namespace; `None` without the right to make one.
    fn new(at: &std::path::Path) -> Option<Self> {
        std::fs::create_dir(at).unwrap();
        let script = format!(
            "mount -t tmpfs -o size={SIZE},mode=0700 small '{}' && echo mounted && exec sleep infinity",
            at.display()
        );
        let mut keeper = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut line = String::new();
        let mut said = std::io::BufReader::new(keeper.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut said, &mut line).unwrap();
        let mount = Self(keeper);
        (line == "mounted\n").then_some(mount)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_file_system_that_is_full_refuses_and_delivers_and_loses_nothing() {
    let mut world = World::new("");
    let Some(mount) = Mount::new(&world.path("spool")) else {
        eprintln!(
            "skipped a_file_system_that_is_full_refuses_and_delivers_and_loses_nothing: it needs the right to mount"
        );
        return;
    };
    let books = Books::new(None);
    let sink = books.sink();
    world.configure(&load::config(sink.port));
    world.run_under(["nsenter", "--mount", "--target", &mount.0.id().to_string(), "--"]);
    world.start();
    world.post("/v1/providers/relay/do", &json!({ "action": "pause" }));
    let control = world.control();
    let refusals = |books: &Arc<Books>| books.refused.lock().unwrap().len();
    let full_with = thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| books.send(&control));
        }
        let _over = Over(&books);
        world.wait_for("the disk to be full", |_| (refusals(&books) >= REFUSALS).then_some(()));
        let full_with = books.count();
        assert!(world.status().is_some(), "it answers");
        world.post("/v1/providers/relay/do", &json!({ "action": "resume" }));
        world.wait_for("room for new messages", |_| (books.count() >= full_with + 20).then_some(()));
        // In the middle of it, and on a disk that may be full.
        world.crash();
        world.spawn();
        let refused = refusals(&books);
        world.wait_for("messages to be accepted by the next one", |_| {
            (books.count() >= full_with + 60 || refusals(&books) > refused + REFUSALS).then_some(())
        });
        full_with
    });
    world.wait_for("everything to be delivered", |world| {
        thread::park_timeout(Duration::from_millis(5));
        let status = world.status()?;
        (status["supervisor"]["text"] == "running" && status["supervisor"]["queued"] == 0).then_some(())
    });
    let lost = books.owed(u64::MAX - 1);
    println!(
        "full with {full_with}, acknowledged {}, refused {}, lost {}",
        books.count(),
        refusals(&books),
        lost.len()
    );
    assert!(lost.is_empty(), "lost: {lost:?}");
    let refused = books.refused.lock().unwrap();
    assert!(refused.iter().all(|reply| reply.starts_with("452 4.3.1") || reply.starts_with("421")), "{refused:?}");
    assert!(!world.log().contains("panicked"), "{}", world.log());
    world.stop();
}
