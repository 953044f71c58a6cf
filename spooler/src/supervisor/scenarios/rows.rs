//! Status rows, and those who watch them.

use spooler_protocol::calls::Wishes;
use spooler_protocol::from_worker::{FromWorker, Progress, RowUpdate};
use spooler_protocol::status::{StatusCode, StatusTable, WorkerState};
use spooler_protocol::watching::{RowChange, RowKey, StatusNews};

use super::bench::{Bench, smtp};
use crate::supervisor::event::{Answer, Ask, Event};

const TWO: &str = "[provider.a]\nkind = 'smtp'\n[provider.b]\nkind = 'smtp'\n";

fn bench() -> Bench {
    Bench::ready(TWO, &[("a", smtp(Wishes::default())), ("b", smtp(Wishes::default()))])
}

fn text(text: &str) -> Box<RowUpdate> {
    Box::new(RowUpdate { text: Some(text.to_owned()), ..RowUpdate::default() })
}

fn table(bench: &mut Bench) -> StatusTable {
    match bench.ask(Ask::Status) {
        Some(Answer::Status(table)) => *table,
        other => panic!("{other:?}"),
    }
}

fn begin_to_watch(bench: &mut Bench) -> (u64, StatusTable) {
    let update = bench.supervisor.snapshot(bench.now);
    match update.news {
        StatusNews::Snapshot(table) => (update.seq, *table),
        StatusNews::Changes(changes) => panic!("{changes:?}"),
    }
}

fn changes(bench: &mut Bench) -> Vec<RowChange> {
    match bench.supervisor.changes(bench.now).map(|update| update.news) {
        None => Vec::new(),
        Some(StatusNews::Changes(changes)) => changes,
        Some(StatusNews::Snapshot(table)) => panic!("{table:?}"),
    }
}

#[test]
fn nothing_is_kept_for_nobody() {
    let mut bench = bench();
    bench.submit(&["x@y"]);
    assert!(!bench.supervisor.has_changes() && bench.supervisor.changes(bench.now).is_none());
    begin_to_watch(&mut bench);
    bench.submit(&["x@y"]);
    assert!(bench.supervisor.has_changes());
    bench.supervisor.forget_watchers();
    assert!(!bench.supervisor.has_changes());
}

#[test]
fn whoever_applies_every_change_has_the_table() {
    let mut bench = bench();
    let (mut seq, mut mine) = begin_to_watch(&mut bench);
    let lines = |sequence, row: &str, said: &str| FromWorker::Row { sequence, row: row.to_owned(), update: text(said) };
    for round in 0..40_u64 {
        match round % 8 {
            0 => drop(bench.submit(&["x@y"])),
            1 => bench.say("b", lines(round, "", "thinking")),
            2 => bench.say("b", lines(round, "line1", "free")),
            3 => {
                let order = bench.delivery("a");
                let progress = Progress { phase: "data".to_owned(), bytes: 1 };
                bench.say("a", FromWorker::Progress { delivery: order.delivery, progress });
                if round == 11 {
                    bench.die("a", "killed");
                } else {
                    bench.deliver("a", &order);
                }
            }
            4 => bench.say("b", lines(round, "line1", "")),
            5 => bench.pass(700),
            _ => bench.say("b", lines(round, "line2", &round.to_string())),
        }
        if round == 13 {
            // The worker that died is back.
            bench.pass(200);
            bench.say("a", FromWorker::LoggedOn(smtp(Wishes::default())));
        }
        if let Some(update) = bench.supervisor.changes(bench.now) {
            assert_eq!(update.seq, seq + 1, "no number is left out");
            seq = update.seq;
            match update.news {
                StatusNews::Changes(changes) => changes.into_iter().for_each(|change| mine.apply(change)),
                StatusNews::Snapshot(table) => mine = *table,
            }
        }
        assert_eq!(mine, table(&mut bench), "after round {round}");
    }
}

#[test]
fn only_rows_that_changed_are_told_and_rows_that_went_are_told_as_gone() {
    let mut bench = bench();
    begin_to_watch(&mut bench);
    bench.pass(5000);
    assert_eq!(changes(&mut bench), [], "time alone changes nothing");
    bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    let told = changes(&mut bench);
    let names: Vec<&str> = told
        .iter()
        .map(|change| match change {
            RowChange::Supervisor(_) => "supervisor",
            RowChange::Provider(row) => &row.name,
            RowChange::Message(row) => {
                if row.delivery == order.delivery {
                    "message"
                } else {
                    "?"
                }
            }
            RowChange::Added(_) | RowChange::Gone(_) => "?",
        })
        .collect();
    assert_eq!(names, ["supervisor", "a", "message"]);
    bench.deliver("a", &order);
    let told = changes(&mut bench);
    assert!(told.contains(&RowChange::Gone(RowKey::Message(order.delivery))), "{told:?}");
}

#[test]
fn another_order_of_providers_is_a_new_snapshot() {
    let mut bench = bench();
    let (seq, _) = begin_to_watch(&mut bench);
    let config = "[provider.b]\nkind = 'smtp'\n[provider.a]\nkind = 'smtp'\n";
    let config = crate::config::parse(config, std::path::Path::new("x.toml")).unwrap();
    bench.hear(Event::Reload(Box::new(config)));
    let update = bench.supervisor.changes(bench.now).unwrap();
    assert_eq!(update.seq, seq + 1);
    let StatusNews::Snapshot(table) = update.news else { panic!("{update:?}") };
    let names: Vec<&str> = table.providers.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["b", "a"]);
    assert_eq!(changes(&mut bench), []);
}

#[test]
fn a_clock_that_was_set_is_a_new_snapshot() {
    let mut bench = bench();
    let (seq, _) = begin_to_watch(&mut bench);
    bench.now.wall_ms += 3_600_000;
    bench.submit(&["x@y"]);
    let update = bench.supervisor.changes(bench.now).unwrap();
    assert_eq!(update.seq, seq + 1);
    let StatusNews::Snapshot(mine) = update.news else { panic!("every time in the table has moved: {update:?}") };
    assert_eq!(*mine, table(&mut bench));
}

#[test]
fn a_dead_workers_row_says_so_and_why() {
    let mut bench = bench();
    let offline = RowUpdate { offline: Some(true), inbound_active: Some(true), ..RowUpdate::default() };
    bench.say("a", FromWorker::Row { sequence: 1, row: String::new(), update: Box::new(offline) });
    bench.say("a", FromWorker::Row { sequence: 2, row: "line1".to_owned(), update: text("free") });
    let code = bench.row("a").code;
    assert!(code.contains(StatusCode::OFFLINE | StatusCode::INBOUND_ACTIVE) && !code.contains(StatusCode::AVAILABLE));
    bench.die("a", "killed by signal 9");
    let row = bench.row("a");
    assert_eq!((row.state, row.code), (WorkerState::Backoff, StatusCode::FAILURE), "what it said of itself is void");
    assert!(row.text.contains("killed by signal 9"), "{}", row.text);
    assert!(table(&mut bench).added.is_empty());
}

#[test]
fn a_worker_that_says_too_much_gets_a_remark() {
    let mut bench = bench();
    for sequence in 0..300 {
        bench.say("a", FromWorker::Row { sequence, row: String::new(), update: text(&sequence.to_string()) });
    }
    assert_eq!((bench.row("a").hasty_words, bench.row("a").text.as_str()), (250, "49"));
    bench.pass(1000);
    assert_eq!(bench.row("a").text, "299", "the last word counts");
}
