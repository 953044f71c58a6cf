//! The power is cut. A supervisor works under load while everything that it does to its spool is recorded; then, for many moments, the
//! disk is built as it may be after a cut at that moment, and the real supervisor starts on it. Whatever was acknowledged by then and
//! had not arrived must arrive now, whole.
//!
//! `SPOOLER_POWER_CUTS` says how many cuts (20), `SPOOLER_SEED` which.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, thread};

use nix::errno::Errno;

use crate::image::{Disk, Promise};
use crate::layer::{Fault, Layer, SYNC};
use crate::load::{self, Books, CLIENTS, Over};
use crate::sink::Sink;
use crate::trace::Steps;
use crate::world::{PATIENCE, World};

/// What a sync costs in the recorded run: group commit has something to gather.
const SYNC_US: u32 = 1000;
/// Acknowledged messages in one recorded run.
const MESSAGES: usize = 600;
/// Cuts of one recorded run; then comes the next run.
const CUTS_A_RUN: u64 = 50;

pub(crate) fn number_of(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// A run that was recorded.
struct Recorded {
    /// The folder that was recorded.
    top: PathBuf,
    trace: Vec<u8>,
    books: Arc<Books>,
}

/// Runs a supervisor under load: killed once, stopped once, killed once more after syncs of its log have failed, and killed at the end.
fn record(chance: &mut fastrand::Rng) -> Recorded {
    let mut world = World::new("");
    let top = world.path("spool").parent().unwrap().to_owned();
    let layer = Layer::new(&top);
    let books = Books::new(Some(&layer.trace()));
    let sink = books.sink();
    world.configure(&load::config(sink.port));
    world.run_under(layer.wrap(true, Some(SYNC_US)));
    world.start();
    let control = world.control();
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| books.send(&control));
        }
        let _over = Over(&books);
        let until = |world: &World, part: usize| {
            world.wait_for("messages to be acknowledged", |_| (books.count() >= MESSAGES * part / 4).then_some(()));
        };
        until(&world, 1);
        layer.kill_at(chance.u32(1..400));
        world.wait_end();
        world.spawn();
        until(&world, 2);
        world.stop();
        world.spawn();
        until(&world, 3);
        // The next one reads from memory what never came to disk.
        let (skip, deadly) = (chance.i32(0..20), chance.i32(2..12));
        layer.set(Fault { skip, deadly, ..Fault::all(SYNC, Errno::EIO, "spool.db-wal") });
        world.wait_end();
        layer.heal();
        world.spawn();
        until(&world, 4);
        layer.kill_at(chance.u32(1..400));
        world.wait_end();
    });
    Recorded { top, trace: fs::read(layer.trace()).unwrap(), books }
}

/// What came of a cut.
#[derive(Debug, Default)]
struct Outcome {
    owed: usize,
    lost: Vec<String>,
    /// What arrived and was not what had been sent, what the database says of itself, and what the log complains of.
    damage: Vec<String>,
}

impl Recorded {
    /// Cuts the power when the trace was so long, and starts a supervisor on what is left.
    fn cut(&self, at: u64, seed: u64, promise: Promise) -> Outcome {
        let mut disk = Disk::new(&self.top, promise);
        Steps::of(&self.trace[..usize::try_from(at).unwrap()]).for_each(|step| disk.take(&step));
        let sink = Sink::start();
        let mut world = World::new(&load::config(sink.port));
        disk.cut("spool", seed, &world.path("spool"));
        let owed = self.books.owed(at);
        let mut outcome = Outcome { owed: owed.len(), ..Outcome::default() };
        if let Err(why) = recover(&mut world) {
            outcome.lost = owed.into_iter().collect();
            outcome.damage.push(why);
            return outcome;
        }
        world.stop();
        let arrived = sink.take();
        let here: BTreeSet<&String> = arrived.iter().flat_map(|arrived| &arrived.to).collect();
        outcome.lost = owed.iter().filter(|recipient| !here.contains(recipient)).cloned().collect();
        let whole = |arrived: &crate::sink::Arrived| arrived.to.iter().all(|to| load::is_whole(to, &arrived.content));
        let broken = arrived.iter().filter(|arrived| !whole(arrived));
        outcome.damage.extend(broken.map(|arrived| format!("{:?} is not what was sent", arrived.to)));
        outcome.damage.extend(complaints(&world.log()));
        outcome.damage.extend(integrity(&world.path("spool/spool.db")));
        outcome
    }

    /// A moment at which the power may be cut: often just after an acknowledgement.
    fn moment(&self, chance: &mut fastrand::Rng) -> u64 {
        let acknowledged = self.books.acknowledged.lock().unwrap();
        let (_, just_after) = acknowledged[chance.usize(..acknowledged.len())];
        if chance.bool() { just_after } else { chance.u64(..self.trace.len() as u64) }
    }
}

/// Starts a supervisor on what is there, and waits until nothing is left to be delivered.
fn recover(world: &mut World) -> Result<(), String> {
    world.spawn();
    let start = Instant::now();
    loop {
        if let Some(status) = world.ended() {
            return Err(format!("the supervisor ended: {status}; log:\n{}", world.log()));
        }
        if let Some(status) = world.status() {
            let row = &status["supervisor"];
            let left: u64 = ["ready", "in_flight", "deferred"].iter().filter_map(|part| row[part].as_u64()).sum();
            if row["text"] == "running" && left == 0 {
                return Ok(());
            }
            if row["text"].as_str().is_some_and(|text| text.contains("is damaged")) {
                return Err(format!("the supervisor cannot read the queue; log:\n{}", world.log()));
            }
        }
        assert!(start.elapsed() < PATIENCE, "the queue does not drain; log:\n{}", world.log());
        thread::park_timeout(Duration::from_millis(5));
    }
}

fn complaints(log: &str) -> impl Iterator<Item = String> + '_ {
    let words = ["damaged", "panicked", "set aside", "ERROR"];
    log.lines().filter(move |line| words.iter().any(|word| line.contains(word))).map(str::to_owned)
}

/// What is wrong with a database.
fn integrity(path: &Path) -> Option<String> {
    let connection = rusqlite::Connection::open(path).ok()?;
    let said = connection.query_row("PRAGMA integrity_check", (), |row| row.get::<_, String>(0));
    let said = said.unwrap_or_else(|error| error.to_string());
    (said != "ok").then_some(said)
}

/// The sum of many outcomes.
#[derive(Debug, Default)]
struct Sum {
    cuts: u64,
    owed: usize,
    lost: usize,
    cuts_with_loss: u64,
    bad: Vec<String>,
}

fn cut_often(cuts: u64, seed: u64, promises: &[Promise]) -> Vec<Sum> {
    let mut sums: Vec<Sum> = promises.iter().map(|_| Sum::default()).collect();
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut acknowledged = 0;
    for first in (0..cuts).step_by(usize::try_from(CUTS_A_RUN).unwrap()) {
        let run = record(&mut chance);
        acknowledged += run.books.count();
        for number in first..cuts.min(first + CUTS_A_RUN) {
            let (at, cut_seed) = (run.moment(&mut chance), chance.u64(..));
            for (promise, sum) in promises.iter().zip(&mut sums) {
                let outcome = run.cut(at, cut_seed, *promise);
                sum.cuts += 1;
                sum.owed += outcome.owed;
                sum.lost += outcome.lost.len();
                sum.cuts_with_loss += u64::from(!outcome.lost.is_empty());
                if *promise == Promise::Kept && !(outcome.lost.is_empty() && outcome.damage.is_empty()) {
                    sum.bad.push(format!("cut {number} at {at} with seed {cut_seed}: {outcome:?}"));
                }
            }
        }
    }
    for (promise, sum) in promises.iter().zip(&sums) {
        println!(
            "syncs {promise:?}: acknowledged {acknowledged}, cuts {}, owed at the cuts {}, lost {} in {} cuts",
            sum.cuts, sum.owed, sum.lost, sum.cuts_with_loss
        );
    }
    sums
}

fn seed() -> u64 {
    let seed = number_of("SPOOLER_SEED", fastrand::u64(..));
    println!("SPOOLER_SEED={seed}");
    seed
}

#[test]
fn what_was_acknowledged_survives_every_power_cut() {
    let cuts = number_of("SPOOLER_POWER_CUTS", 20);
    let sums = cut_often(cuts, seed(), &[Promise::Kept]);
    assert!(sums[0].bad.is_empty(), "{:#?}", sums[0].bad);
    assert!(sums[0].owed > 0, "nothing was at stake");
}

#[test]
fn without_syncs_of_files_or_of_folders_there_are_losses() {
    let cuts = number_of("SPOOLER_POWER_CUTS", 20).div_ceil(5).max(8);
    let sums = cut_often(cuts, seed(), &[Promise::FilesBroken, Promise::FoldersBroken]);
    assert!(sums.iter().all(|sum| sum.lost > 0), "the test has no teeth: {sums:?}");
}
