//! Bytes of the store change while nobody looks: in the database, in its log, in the files of contents. The next supervisor names what is
//! damaged, sets it aside and delivers the rest; or it says that it cannot, and what to do. It delivers nothing that is not what was
//! sent, and it neither panics nor hangs.
//!
//! `SPOOLER_ROT` says how often (16), `SPOOLER_SEED` where.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::load::{self, Books, CLIENTS, Over};
use crate::power::number_of;
use crate::sink::Sink;
use crate::world::{PATIENCE, World};

/// Messages in the store that rots.
const MESSAGES: usize = 60;
/// What the log says when something is damaged.
const WORDS: [&str; 5] = ["damaged", "checksum", "cannot be read", "set aside", "ends early"];

/// A spool with messages that nobody has delivered; with a log beside the database, if the supervisor did not end as it should.
fn filled(killed: bool) -> (World, Arc<Books>) {
    let mut world = World::new("");
    let books = Books::new(None);
    let sink = Sink::start();
    world.configure(&load::config(sink.port));
    world.start();
    world.post("/v1/providers/relay/do", &json!({ "action": "pause" }));
    let control = world.control();
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| books.send(&control));
        }
        let _over = Over(&books);
        world.wait_for("messages to be acknowledged", |_| (books.count() >= MESSAGES).then_some(()));
    });
    if killed {
        world.crash();
    } else {
        world.stop();
    }
    (world, books)
}

fn copy(from: &Path, to: &Path) {
    DirBuilder::new().recursive(true).mode(0o700).create(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => copy(&entry.path(), &target),
            _ => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Damages one file; says how.
fn damage(spool: &Path, chance: &mut fastrand::Rng) -> (PathBuf, String) {
    let bodies = fs::read_dir(spool.join("bodies")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = bodies.filter(|path| path.is_file()).collect();
    files.sort();
    let log = spool.join("spool.db-wal");
    let path = match chance.u8(0..6) {
        0 if !files.is_empty() => files.swap_remove(chance.usize(..files.len())),
        1 | 2 if log.exists() => log,
        _ => spool.join("spool.db"),
    };
    let mut bytes = fs::read(&path).unwrap();
    let at = chance.usize(..bytes.len());
    let end = bytes.len().min(at + chance.usize(1..5000));
    let how = match chance.u8(0..5) {
        0 | 1 => {
            bytes[at] ^= 1 << chance.u8(0..8);
            format!("a bit flipped at {at}")
        }
        2 => {
            bytes[at..end].fill(0);
            format!("zeros from {at} to {end}")
        }
        3 => {
            bytes[at..end].fill_with(|| chance.u8(..));
            format!("noise from {at} to {end}")
        }
        _ => {
            bytes.truncate(at);
            format!("cut off at {at}")
        }
    };
    fs::write(&path, bytes).unwrap();
    let name = path.strip_prefix(spool).unwrap().to_owned();
    (name, how)
}

/// What came of a damage.
struct Outcome {
    refused_to_start: bool,
    missing: usize,
    log: String,
}

/// Starts a supervisor on a damaged spool, and looks at what it does until it does nothing more.
fn live_with(world: &mut World, sink: &Sink, owed: &[String], what: &str) -> Outcome {
    world.spawn();
    let start = Instant::now();
    loop {
        if let Some(status) = world.ended() {
            let log = world.log();
            assert_eq!(status.code(), Some(74), "{what}: {status}: {log}");
            assert!(WORDS.iter().any(|word| log.contains(word)), "{what}: it does not say what is wrong: {log}");
            return Outcome { refused_to_start: true, missing: owed.len(), log };
        }
        if let Some(status) = world.status() {
            let row = &status["supervisor"];
            let left: u64 = ["ready", "in_flight", "deferred"].iter().filter_map(|part| row[part].as_u64()).sum();
            let says_that_it_cannot = row["text"].as_str().is_some_and(|text| text.contains("is damaged"));
            if says_that_it_cannot || (row["text"] == "running" && left == 0) {
                break;
            }
        }
        assert!(start.elapsed() < PATIENCE, "{what}: it does not come to an end; log:\n{}", world.log());
        thread::park_timeout(Duration::from_millis(5));
    }
    let arrived = sink.take();
    for message in &arrived {
        let whole = message.to.iter().all(|to| load::is_whole(to, &message.content));
        assert!(whole, "{what}: {:?} got what was not sent to them", message.to);
    }
    let missing = owed.iter().filter(|recipient| !arrived.iter().any(|message| message.to.contains(recipient))).count();
    Outcome { refused_to_start: false, missing, log: world.log() }
}

#[test]
fn what_has_rotted_is_named_and_set_aside_and_never_delivered_as_good() {
    let rounds = number_of("SPOOLER_ROT", 16);
    let seed = number_of("SPOOLER_SEED", fastrand::u64(..));
    println!("SPOOLER_ROT={rounds} SPOOLER_SEED={seed}");
    let mut chance = fastrand::Rng::with_seed(seed);
    let stores = [filled(false), filled(true)];
    let (mut refused, mut whole, mut partial, mut missing) = (0, 0, 0, 0);
    for round in 0..rounds {
        let (store, books) = &stores[usize::from(round % 2 == 1)];
        let sink = Sink::start();
        let mut world = World::new(&load::config(sink.port));
        copy(&store.path("spool"), &world.path("spool"));
        let (file, how) = damage(&world.path("spool"), &mut chance);
        let what = format!("round {round}, {}: {how}", file.display());
        let owed: Vec<String> = books.owed(u64::MAX - 1).into_iter().collect();
        assert!(!owed.is_empty(), "{what}: nothing was at stake");
        let outcome = live_with(&mut world, &sink, &owed, &what);
        assert!(!outcome.log.contains("panicked"), "{what}: {}", outcome.log);
        let named = WORDS.iter().any(|word| outcome.log.contains(word));
        // A log that was cut off, or ends with zeros, is one that ends there.
        let named =
            named || (file == Path::new("spool.db-wal") && (how.starts_with("cut") || how.starts_with("zeros")));
        assert!(outcome.missing == 0 || named, "{what}: {} missing and nothing said; {}", outcome.missing, outcome.log);
        match outcome {
            Outcome { refused_to_start: true, .. } => refused += 1,
            Outcome { missing: 0, .. } => whole += 1,
            Outcome { missing: some, .. } => {
                partial += 1;
                missing += some;
            }
        }
    }
    println!(
        "damaged {rounds} times: {whole} times everything was delivered, {partial} times the rest was ({missing} recipients missing), {refused} times it said that it cannot start; delivered damaged 0"
    );
}
