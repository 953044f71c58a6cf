//! Words about status rows: few enough for the supervisor, and the last state always.

use spooler_protocol::from_worker::FromWorker;
use spooler_protocol::limits::{ROW_UPDATES_A_SECOND_MAX, ROWS_MAX};
use spooler_protocol::to_worker::ToWorker;

use crate::scripted::{Scripted, row};

#[test]
fn a_thousand_changes_are_a_few_words_and_the_last_one_arrives() {
    let mut worker = Scripted::new("");
    let script: String = (0..1000).map(|number| format!("progress {};", number % 100)).collect();
    worker.deliver_script(1, &["a@d"], &format!("{script} progress 101"));
    let said = worker.collect(|said| row(said).is_some_and(|update| update.progress == Some(101)));
    let words = said.iter().filter(|said| row(said).is_some()).count();
    assert!(words <= usize::try_from(ROW_UPDATES_A_SECOND_MAX).unwrap(), "{words} words");
}

#[test]
fn the_last_words_leave_without_a_token() {
    let mut worker = Scripted::new("");
    worker.deliver_script(1, &["a@d"], "progress 1; wait go; progress 2; progress 3");
    worker.collect(|said| row(said).is_some_and(|update| update.progress == Some(1)));
    worker.go("go");
    worker.finished(1);
    worker.grants = false;
    let said = worker.collect(|said| row(said).is_some_and(|update| update.progress == Some(3)));
    assert!(!said.contains(&FromWorker::Want), "{said:?}");
}

#[test]
fn words_grow_in_number_and_each_row_has_its_own() {
    let mut worker = Scripted::new("idle = ['row letters 1; row parcels 2; row letters 3; progress 4']");
    worker.say(&ToWorker::Idle);
    let (mut seen, mut last) = (std::collections::BTreeMap::new(), 0);
    while seen != [("", 4), ("letters", 3), ("parcels", 2)].map(|(row, percent)| (row.to_owned(), percent)).into() {
        if let FromWorker::Row { sequence, row, update } = worker.next() {
            assert!(sequence > last, "{sequence} after {last}");
            last = sequence;
            seen.extend(update.progress.map(|percent| (row, percent)));
        }
    }
}

#[test]
fn a_provider_cannot_have_rows_without_end() {
    let script: String = (0..=ROWS_MAX).map(|number| format!("row r{number} 1;")).collect();
    let mut worker = Scripted::new(&format!("idle = ['{script}']"));
    worker.say(&ToWorker::Idle);
    worker.collect(|said| *said == FromWorker::Idled);
    let calls = worker.calls();
    assert_eq!(calls.iter().filter(|call| *call == "row Ok(())").count(), ROWS_MAX);
    assert_eq!(calls.last().map(String::as_str), Some("row Err(Full)"));
}

#[test]
fn what_was_not_said_yet_is_said_before_the_end() {
    let mut worker = Scripted::new("logoff = ['progress 1; progress 2; progress 3']");
    worker.say(&ToWorker::Logoff { hurry: false });
    let said = worker.collect(|said| *said == FromWorker::LoggedOff);
    let last = said.iter().rev().find_map(row).and_then(|update| update.progress);
    assert_eq!(last, Some(3), "{said:?}");
}
