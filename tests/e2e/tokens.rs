//! Tokens and critical sections as they are from outside: fair, bounded, visible, and put back.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getuid};
use serde_json::Value;

use crate::world::World;
use crate::{IN, smtp};

const MAIL: &[u8] = b"Subject: work\r\n\r\nbody\r\n";

fn rogue(name: &str, settings: &str) -> String {
    format!("[provider.{name}]\nkind = \"fault\"\nclaims = [\"@{name}.test\"]\n{settings}\n")
}

fn number(row: &Value, column: &str) -> u64 {
    row[column].as_u64().unwrap_or_else(|| panic!("{column} of {row}"))
}

#[test]
fn with_one_slot_all_make_progress_and_one_runs() {
    const NAMES: [&str; 3] = ["a", "b", "c"];
    let scheduler = "[scheduler]\ngate = \"off\"\nslots = 1\nslice = \"30ms\"\n";
    let hogs = NAMES.map(|name| rogue(name, "mode = \"hog\"\nwork = \"10ms\"\nrounds = 15"));
    let world = World::rogue(&format!("{scheduler}{IN}{}", hogs.concat()));
    let port = world.port("submission");
    for name in NAMES.repeat(4) {
        smtp::send(port, "a@b.test", &[&format!("x@{name}.test")], MAIL);
    }
    let (mut samples, mut side_by_side) = (0, false);
    world.wait_for("all work to be done", |world| {
        let status = world.status()?;
        let rows = status["providers"].as_array()?;
        let (listening, background): (Vec<&Value>, Vec<&Value>) = rows.iter().partition(|row| row["kind"] == "smtp-in");
        let with = |token: &str| background.iter().filter(|row| row["token"] == token).count();
        let (running, recalled) = (with("running"), with("preempting"));
        // Who gets no CPU from a busy machine for a second after its recall has no slot any more, but still its token.
        assert!(running <= 1, "with one slot, {running} may compute: {status}");
        let out = number(&status["supervisor"], "tokens_out");
        assert!(out <= (running + recalled).max(1) as u64 + listening.len() as u64, "{status}");
        samples += 1;
        assert_eq!(background.len(), NAMES.len(), "{status}");
        side_by_side |= background.iter().all(|row| number(row, "in_flight") > 0 && number(row, "cpu_ms") > 15);
        (status["supervisor"]["queued"] == 0).then_some(())
    });
    assert!(side_by_side, "in none of {samples} samples had all three done some of their work and none all of it");
}

#[test]
fn computing_past_the_slice_is_shown_as_overdraft() {
    let scheduler = "[scheduler]\ngate = \"off\"\nslots = 1\nslice = \"30ms\"\n";
    let hog = rogue("hog", "mode = \"hog\"\nwork = \"300ms\"");
    let good = rogue("good", "mode = \"hog\"\nwork = \"5ms\"\nrounds = 30");
    let world = World::rogue(&format!("{scheduler}{IN}{hog}{good}"));
    let port = world.port("submission");
    smtp::send(port, "a@b.test", &["x@hog.test", "x@good.test"], MAIL);
    // Looked at all the while, which must not make it look better.
    world.wait_empty();
    let [hog, good] = ["hog", "good"].map(|name| world.provider(name).unwrap());
    let past = number(&hog, "overdraft_ms");
    assert!(past > 0 && past < number(&hog, "cpu_ms"), "{hog}");
    assert!(number(&good, "overdraft_ms") < past, "{good}");
}

/// Nice values of all threads, and of the autogroup where there is one.
fn urgency(pid: Pid) -> Option<(Vec<i32>, Option<i32>)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let nice = |task: std::io::Result<fs::DirEntry>| {
        let stat = fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
        stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(16)?.parse().ok()
    };
    let group = fs::read_to_string(format!("/proc/{pid}/autogroup")).ok();
    Some((tasks.filter_map(nice).collect(), group.and_then(|line| line.trim().rsplit_once(' ')?.1.parse().ok())))
}

/// Whether every thread of a provider's worker, and its autogroup, is at this nice value.
fn is_at(world: &World, provider: &str, nice: i32) -> Option<Pid> {
    let pid = world.worker_pid(provider)?;
    let (threads, group) = urgency(pid)?;
    let all = !threads.is_empty() && threads.iter().all(|thread| *thread == nice);
    (all && group.is_none_or(|group| group == nice)).then_some(pid)
}

/// A world with a worker in a critical section; `None` if priorities cannot be raised here.
fn world_in_section(test: &str) -> Option<World> {
    if !getuid().is_root() {
        eprintln!("{test}: skipped, only root can raise priorities");
        return None;
    }
    let world = World::rogue(&format!("{IN}{}", rogue("modem", "mode = \"critical\"\nhold = \"{dir}/hold\"")));
    fs::write(world.path("hold.1"), "").unwrap();
    fs::write(world.path("hold.2"), "").unwrap();
    world.wait_for("the base priority", |world| is_at(world, "modem", 10));
    smtp::send(world.port("submission"), "a@b.test", &["x@modem.test"], MAIL);
    let row = world.wait_for("the section", |world| world.provider("modem").filter(|row| !row["critical"].is_null()));
    assert_eq!((&row["critical"], &row["text"]), (&"dialling".into(), &"critical section: dialling".into()), "{row}");
    let refused = row["priority"].as_str().is_some_and(|text| text.contains("refused"));
    if refused {
        eprintln!("{test}: skipped, priorities cannot be raised here: {}", row["priority"]);
    }
    (!refused).then_some(world)
}

#[test]
fn a_critical_section_raises_the_whole_worker_until_its_end() {
    let Some(world) = world_in_section("a_critical_section_raises_the_whole_worker_until_its_end") else { return };
    let pid = world.wait_for("the raised priority", |world| is_at(world, "modem", -10));
    fs::remove_file(world.path("hold.1")).unwrap();
    world.wait_for("the inner section's end", |world| (world.provider("modem")?["progress"] == 1).then_some(()));
    assert_eq!(is_at(&world, "modem", -10), Some(pid), "the outer one still runs");
    assert_eq!(world.provider("modem").unwrap()["critical"], "dialling");
    fs::remove_file(world.path("hold.2")).unwrap();
    world.wait_empty();
    let back = world.wait_for("the base priority", |world| is_at(world, "modem", 10));
    assert_eq!(back, pid);
    let row = world.provider("modem").unwrap();
    assert!(row["critical"].is_null() && row["priority"].as_str().unwrap().starts_with("nice 10"), "{row}");
    let log = world.log();
    assert!(log.contains("critical section begins: dialling") && log.contains("critical section ends after"), "{log}");
}

#[test]
fn nothing_stays_raised_when_a_worker_dies_in_its_section() {
    let Some(world) = world_in_section("nothing_stays_raised_when_a_worker_dies_in_its_section") else { return };
    let own = || urgency(world.pid()).map(|(threads, group)| (threads.into_iter().min(), group)).unwrap();
    let before = own();
    let pid = world.wait_for("the raised priority", |world| is_at(world, "modem", -10));
    kill(pid, Signal::SIGKILL).unwrap();
    world.wait_for("its death", |world| world.log().contains("critical section ended by death").then_some(()));
    for hold in ["hold.1", "hold.2"] {
        fs::remove_file(world.path(hold)).unwrap();
    }
    let next = world.wait_for("the next worker at the base priority", |world| {
        is_at(world, "modem", 10).filter(|next| *next != pid)
    });
    world.wait_empty();
    assert!(world.provider("modem").unwrap()["critical"].is_null());
    assert!(next != pid);
    assert_eq!(own(), before, "the supervisor itself is never raised");
}
