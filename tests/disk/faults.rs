//! Calls of the file system fail, once or for a while, under load. Clients are asked to come again, nothing is acknowledged that is not
//! on disk, and when the disk is well again everything goes on by itself.
//!
//! `SPOOLER_FAULTS` says how many faults (two of each kind), `SPOOLER_SEED` which.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno::{self, EDQUOT, EIO, EMFILE, ENOSPC};

use crate::layer::{ALLOCATE, Fault, Layer, OPEN, READ, RENAME, SYNC, TRUNCATE, UNLINK, WRITE};
use crate::load::{self, Books, CLIENTS, Over};
use crate::power::number_of;
use crate::sink::Sink;
use crate::world::World;

/// Which calls, what they say, and of which files. Where the last is true nothing can be accepted while they fail.
const KINDS: [(u32, Errno, &str, bool); 18] = [
    (WRITE, ENOSPC, "spool.db-wal", true),
    (WRITE, EDQUOT, "spool.db-wal", true),
    (WRITE, EIO, "spool.db-wal", true),
    (SYNC, EIO, "spool.db-wal", true),
    (WRITE | SYNC, EIO, "spool/", true),
    (WRITE | ALLOCATE, ENOSPC, "spool/", true),
    (WRITE | SYNC | OPEN | RENAME | UNLINK | READ | TRUNCATE | ALLOCATE, EIO, "spool/", true),
    (ALLOCATE, ENOSPC, "spool.db", false),
    (ALLOCATE, EIO, "spool.db", false),
    (READ, EIO, "spool/", false),
    (OPEN, EIO, "bodies/", false),
    (OPEN, EMFILE, "spool/", false),
    (WRITE, ENOSPC, "incoming/", false),
    (SYNC, EIO, "incoming/", false),
    (SYNC, EIO, "bodies", false),
    (RENAME, EIO, "bodies/", false),
    (UNLINK, EIO, "bodies/", false),
    (READ, EIO, "bodies/", false),
];

/// One more that something depends on is waited for, so often.
const MORE: usize = 5;

struct Scene {
    world: World,
    layer: Layer,
    books: Arc<Books>,
}

impl Scene {
    fn new() -> Self {
        let mut world = World::new("");
        let layer = Layer::new(world.path("spool").parent().unwrap());
        let books = Books::new(None);
        let sink = books.sink();
        world.configure(&load::config(sink.port));
        world.run_under(layer.wrap(false, Some(200)));
        world.start();
        Self { world, layer, books }
    }

    fn refusals(&self) -> usize {
        self.books.refused.lock().unwrap().len()
    }

    fn wait(&mut self, what: &str, fact: impl Fn(&Self) -> bool) {
        let start = std::time::Instant::now();
        while !fact(self) {
            assert!(
                self.world.ended().is_none(),
                "the supervisor ended while waiting for {what}; {}",
                self.world.log()
            );
            assert!(start.elapsed() < crate::world::PATIENCE, "waited in vain for {what}; log:\n{}", self.world.log());
            thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// One fault, from its beginning to the end of its consequences.
    fn suffer(&mut self, fault: Fault, nothing_goes: bool) -> bool {
        let (accepted, refused) = (self.books.count(), self.refusals());
        self.layer.set(fault);
        let lasting = fault.count < 0;
        if lasting && nothing_goes {
            self.wait("a refusal", |scene| scene.refusals() > refused);
            let (accepted, refused) = (self.books.count(), self.refusals());
            self.wait("refusals", |scene| scene.refusals() >= refused + CLIENTS + MORE);
            // Each client may have had its answer under way.
            assert!(self.books.count() <= accepted + CLIENTS, "{fault:?}: what is not on disk was acknowledged");
            assert!(self.world.status().is_some(), "{fault:?}: no status");
        } else {
            let enough = 20;
            self.wait("the fault, or many messages without it", |scene| {
                let answers = scene.books.count() + scene.refusals() - accepted - refused;
                (scene.layer.hits() > 0 && answers > MORE) || answers > enough * MORE
            });
        }
        let hit = self.layer.hits() > 0;
        self.layer.heal();
        let accepted = self.books.count();
        self.wait("new messages to be accepted again", |scene| scene.books.count() > accepted + MORE);
        hit
    }
}

#[test]
fn whatever_fails_in_the_store_nothing_acknowledged_is_lost_and_it_goes_on_by_itself() {
    let faults = number_of("SPOOLER_FAULTS", 2 * KINDS.len() as u64);
    let seed = number_of("SPOOLER_SEED", fastrand::u64(..));
    println!("SPOOLER_FAULTS={faults} SPOOLER_SEED={seed}");
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut scene = Scene::new();
    let (books, control) = (Arc::clone(&scene.books), scene.world.control());
    let mut hits = 0;
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| books.send(&control));
        }
        let _over = Over(&books);
        for number in 0..usize::try_from(faults).unwrap() {
            let (calls, error, of, nothing_goes) = KINDS[number % KINDS.len()];
            let lasting = (number / KINDS.len()).is_multiple_of(2);
            let (skip, count) = if lasting { (0, -1) } else { (chance.i32(0..20), chance.i32(1..4)) };
            let torn = chance.bool();
            let fault = Fault { skip, count, torn, ..Fault::all(calls, error, of) };
            hits += u64::from(scene.suffer(fault, nothing_goes));
        }
    });
    // There may be many, and the machine may be busy: as long as there are fewer and fewer, it goes on.
    let mut left = u64::MAX;
    while left > 0 {
        left = scene.world.wait_for("the next message to be delivered", |world| {
            let row = world.status()?["supervisor"].take();
            row["queued"].as_u64().filter(|queued| row["text"] == "running" && *queued < left)
        });
    }
    let lost = books.owed(u64::MAX - 1);
    println!(
        "faults {faults}, of which {hits} met a call; acknowledged {}, refused {}, lost {}",
        books.count(),
        scene.refusals(),
        lost.len()
    );
    assert!(lost.is_empty(), "lost: {lost:?}; log:\n{}", scene.world.log());
    let refused = books.refused.lock().unwrap();
    let final_refusals: Vec<&String> = refused.iter().filter(|reply| !reply.starts_with('4')).collect();
    assert!(final_refusals.is_empty(), "{final_refusals:?}");
    assert!(!scene.world.log().contains("panicked"), "{}", scene.world.log());
    assert!(hits * 3 > faults * 2, "only {hits} of {faults} faults met a call");
    scene.world.stop();
}

#[test]
fn a_start_on_a_failing_disk_ends_with_a_sentence_and_the_next_one_is_well() {
    let seed = number_of("SPOOLER_SEED", fastrand::u64(..));
    println!("SPOOLER_SEED={seed}");
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut scene = Scene::new();
    for id in 1..=10 {
        crate::smtp::send(scene.world.port("submission"), "a@b.test", &["x@remote.test"], &load::mail(id));
    }
    scene.world.crash();
    for number in 0..KINDS.len() * 2 {
        let (calls, error, of, _) = KINDS[number % KINDS.len()];
        let skip = chance.i32(0..30);
        scene.layer.set(Fault { skip, ..Fault::all(calls, error, of) });
        let before = scene.world.log().len();
        scene.world.spawn();
        let ended = loop {
            if let Some(status) = scene.world.ended() {
                break Some(status);
            }
            if scene.world.status().is_some() {
                break None;
            }
            thread::park_timeout(Duration::from_millis(2));
        };
        let said = scene.world.log().split_off(before);
        scene.layer.heal();
        match ended {
            None => scene.world.crash(),
            Some(status) => {
                let code = status.code().unwrap_or_else(|| panic!("{status}: {said}"));
                // EX_OSERR, EX_CANTCREAT, EX_IOERR, EX_TEMPFAIL.
                assert!([71, 73, 74, 75].contains(&code), "{error} of {of} at {skip}: {status}: {said}");
                assert!(said.contains("spooler: "), "{error} of {of} at {skip}: it said {said:?}");
            }
        }
        assert!(!said.contains("panicked"), "{said}");
    }
    scene.world.start();
    scene.world.wait_empty();
}

#[test]
fn a_report_waits_until_what_it_quotes_can_be_read() {
    let mut world = World::new("");
    let layer = Arc::new(Layer::new(world.path("spool").parent().unwrap()));
    let below = Arc::clone(&layer);
    // From the refusal on, contents cannot be read.
    let sink = Sink::scripted(move |line| {
        line.starts_with("RCPT TO:<nobody@").then(|| {
            below.set(Fault::all(OPEN | READ, EIO, "bodies/"));
            "550 5.1.1 nobody is here".to_owned()
        })
    });
    world.configure(&load::config(sink.port));
    world.run_under(layer.wrap(false, None));
    world.start();
    let large = load::mail(10);
    crate::smtp::send(world.port("submission"), "a@b.test", &["nobody@remote.test"], &large);
    world.wait_for("the report to wait", |world| world.log().contains("is deferred, because the store").then_some(()));
    assert_eq!(world.queued(), Some(1));
    layer.heal();
    let report = &sink.wait(1)[0];
    assert_eq!(report.to, ["a@b.test"]);
    assert!(String::from_utf8_lossy(&report.content).contains("550 5.1.1 nobody is here"));
    world.wait_empty();
    world.stop();
}
