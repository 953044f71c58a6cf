//! The supervisor is killed without warning, again and again, while messages come in and go out: what was acknowledged arrives.
//!
//! `SPOOLER_KILLS` says how often (20), `SPOOLER_SEED` when.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::control::Control;
use crate::sink::{Arrived, Sink};
use crate::world::World;
use crate::{IN, relay, smtp};

const CLIENTS: usize = 4;
/// Deliveries that the relay has in flight at most.
const CREDIT: u64 = 8;
/// Acknowledged messages that may be on their way before the clients wait.
const BACKLOG_MAX: u64 = 300;
/// Every so many messages there is one that is too large for the database.
const LARGE_EVERY: u64 = 50;
const LARGE_BYTES: usize = 200 << 10;
/// The supervisor lives at most so long.
const LIFE_MS_MAX: u64 = 400;

fn number_of(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

fn mail(id: u64) -> Vec<u8> {
    let mut content =
        format!("From: a@b.test\r\nDate: d\r\nMessage-ID: <i@b.test>\r\nSubject: {id}\r\n\r\nthe body of {id}\r\n");
    while id.is_multiple_of(LARGE_EVERY) && content.len() < LARGE_BYTES {
        content.push_str("and a line more\r\n");
    }
    content.into_bytes()
}

/// The number of a message that arrived; it must be whole.
fn id_of(arrived: &Arrived) -> u64 {
    let text = String::from_utf8_lossy(&arrived.content);
    let subject = text.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap();
    let id = subject.parse().unwrap();
    assert!(arrived.content.ends_with(&mail(id)), "message {id} is damaged");
    id
}

/// What the clients have sent, and which of it was acknowledged.
#[derive(Default)]
struct Load {
    next: AtomicU64,
    acknowledged: Mutex<Vec<u64>>,
    arrived: AtomicU64,
    over: AtomicBool,
}

impl Load {
    /// Sends messages as long as the test runs, to whoever listens.
    fn send(&self, control: &Control) {
        while !self.over.load(Ordering::SeqCst) {
            match control.port("submission").and_then(smtp::Client::connect) {
                Some(mut client) => while self.send_one(&mut client).is_some() {},
                None => thread::park_timeout(Duration::from_millis(5)),
            }
        }
    }

    /// Sends one message; `None` if this connection is of no more use. Without an answer nobody knows, and nobody counts on it.
    fn send_one(&self, client: &mut smtp::Client) -> Option<()> {
        while self.acknowledged.lock().unwrap().len() as u64 > self.arrived.load(Ordering::SeqCst) + BACKLOG_MAX {
            thread::park_timeout(Duration::from_millis(5));
            if self.over.load(Ordering::SeqCst) {
                return None;
            }
        }
        let id = self.next.fetch_add(1, Ordering::SeqCst);
        let reply = client.send("a@b.test", &["x@remote.test"], &mail(id))?;
        if reply.starts_with("250") {
            self.acknowledged.lock().unwrap().push(id);
        }
        (!self.over.load(Ordering::SeqCst)).then_some(())
    }
}

/// How often each message arrived.
#[derive(Default)]
struct Tally(BTreeMap<u64, u64>);

impl Tally {
    fn take(&mut self, sink: &Sink, load: &Load) {
        for arrived in sink.take() {
            *self.0.entry(id_of(&arrived)).or_default() += 1;
        }
        load.arrived.store(self.0.len() as u64, Ordering::SeqCst);
    }
}

/// Processes that run this program.
fn processes_of(program: &Path) -> Vec<u32> {
    let runs_it = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).next() == Some(program.as_os_str().as_encoded_bytes())
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(runs_it).collect()
}

#[test]
fn what_was_acknowledged_arrives_however_often_the_supervisor_dies() {
    let kills = number_of("SPOOLER_KILLS", 20);
    let seed = number_of("SPOOLER_SEED", fastrand::u64(..));
    println!("SPOOLER_KILLS={kills} SPOOLER_SEED={seed}");
    let mut chance = fastrand::Rng::with_seed(seed);
    let sink = Sink::start();
    let mut world = World::running(&format!("{IN}{}connections = {CREDIT}\n", relay(sink.port)));
    let (load, control, mut tally) = (Load::default(), world.control(), Tally::default());
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| load.send(&control));
        }
        let _over = Over(&load);
        for _ in 0..kills {
            thread::sleep(Duration::from_millis(chance.u64(0..=LIFE_MS_MAX)));
            tally.take(&sink, &load);
            world.crash();
            let orphans = processes_of(&world.path("worker"));
            world.spawn();
            world.wait_for("the workers of the dead supervisor to be gone", |world| {
                let running = processes_of(&world.path("worker"));
                (!orphans.iter().any(|orphan| running.contains(orphan))).then_some(())
            });
        }
    });
    world.wait_for("everything to be delivered", |world| {
        tally.take(&sink, &load);
        let status = world.status()?;
        (status["supervisor"]["text"] == "running" && status["supervisor"]["queued"] == 0).then_some(())
    });
    tally.take(&sink, &load);
    let acknowledged = load.acknowledged.into_inner().unwrap();
    let lost: Vec<&u64> = acknowledged.iter().filter(|id| !tally.0.contains_key(id)).collect();
    let copies: u64 = tally.0.values().sum();
    let duplicated = copies - tally.0.len() as u64;
    println!(
        "kills {kills}, acknowledged {}, arrived {}, lost {}, duplicated {duplicated}",
        acknowledged.len(),
        tally.0.len(),
        lost.len()
    );
    assert!(lost.is_empty(), "lost: {lost:?}");
    assert!(acknowledged.len() as u64 >= kills, "there was no load to speak of");
    assert!(duplicated <= kills * CREDIT, "{duplicated} copies too many after {kills} kills with {CREDIT} in flight");
}

/// Ends the load, whatever happens.
struct Over<'a>(&'a Load);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
    }
}
