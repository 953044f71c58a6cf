//! Answers that go on: the status table, and flushes.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use spooler_protocol::ids::DeliveryId;
use spooler_protocol::watching::{RowChange, RowKey, StatusNews, StatusUpdate};

use super::supervisor::Running;

fn update(line: std::io::Result<String>) -> StatusUpdate {
    serde_json::from_str(&line.unwrap()).unwrap()
}

fn queued(update: &StatusUpdate) -> u64 {
    match &update.news {
        StatusNews::Snapshot(table) => table.supervisor.queued,
        StatusNews::Changes(changes) => match changes.as_slice() {
            [RowChange::Supervisor(row)] => row.queued,
            other => panic!("{other:?}"),
        },
    }
}

#[test]
fn lines_look_as_documented() {
    let gone = StatusNews::Changes(vec![RowChange::Gone(RowKey::Message(DeliveryId(4711)))]);
    let line = serde_json::to_string(&StatusUpdate { seq: 18, news: gone.clone() }).unwrap();
    assert_eq!(line, r#"{"seq":18,"changes":[{"gone":{"message":4711}}]}"#);
    assert_eq!(serde_json::from_str::<StatusUpdate>(&line).unwrap().news, gone);
}

#[test]
fn a_watcher_gets_a_snapshot_and_every_change_in_order() {
    let mut running = Running::start();
    let mut child =
        running.tool("spoolctl").args(["status", "--watch", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(update);
    let first = lines.next().unwrap();
    assert!(matches!(first.news, StatusNews::Snapshot(_)), "{first:?}");
    for number in 1..=50 {
        running.books.publish_queued(number);
        let next = lines.next().unwrap();
        assert_eq!((next.seq, queued(&next)), (first.seq + number, number));
    }
    assert_eq!(running.books.books().snapshots, 1);
    running.stop();
    assert_eq!(child.wait().unwrap().code(), Some(75));
}

#[test]
fn a_watcher_that_does_not_read_gets_a_new_snapshot_and_holds_up_nobody() {
    let running = Running::start();
    let mut slow = running.connect();
    slow.write_all(b"GET /v1/status/watch HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    drop(running.books.wait_for(|books| books.snapshots == 1));
    // More than its socket and the feed hold together; the loop never waits.
    let count = 20_000;
    for number in 1..=count {
        running.books.publish_queued(number);
    }
    let mut lines = BufReader::new(slow).lines().map(Result::unwrap).filter(|line| line.starts_with('{'));
    let mut seen = Vec::new();
    while seen.last().is_none_or(|update: &StatusUpdate| update.seq < count) {
        seen.push(update(Ok(lines.next().unwrap())));
    }
    assert!((2..19_000).contains(&seen.len()), "it has read {} lines", seen.len());
    for (one, next) in seen.iter().zip(&seen[1..]) {
        let leap = next.seq != one.seq + 1;
        let snapshot = matches!(next.news, StatusNews::Snapshot(_));
        assert!(!leap || snapshot, "after {} comes {next:?}", one.seq);
    }
    assert_eq!(seen.iter().filter(|update| matches!(update.news, StatusNews::Snapshot(_))).count() as u64, {
        running.books.books().snapshots
    });
}

#[test]
fn a_flush_is_watched_until_it_is_done() {
    let running = Running::start();
    let child = running.tool("spoolctl").arg("flush").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    for _ in 0..3 {
        running.books.change(|books| books.flush_steps += 1);
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("3 of 3 messages attempted; recipients: 3 delivered, 0 not delivered"), "{text}");
    assert_eq!(output.stderr, b"");
    assert_eq!(running.books.wait_for(|books| !books.flushes_ended.is_empty()).flushes_ended, [9]);
}

#[test]
fn a_flush_whose_watcher_goes_away_is_let_go() {
    let running = Running::start();
    let mut stream = running.connect();
    stream.write_all(b"POST /v1/flush HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}").unwrap();
    let mut first = [0; 200];
    assert!(stream.read(&mut first).unwrap() > 0);
    drop(stream);
    assert_eq!(running.books.wait_for(|books| !books.flushes_ended.is_empty()).flushes_ended, [9]);
}

#[test]
fn a_person_who_stops_watching_hears_that_delivery_goes_on() {
    let running = Running::start();
    let child = running.tool("spoolctl").arg("flush").stderr(Stdio::piped()).spawn().unwrap();
    // It is there once it has asked: the first progress was given.
    running.books.change(|books| books.flush_steps = 1);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    drop(running.books.wait_for(|books| books.flush_asked > 0));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(String::from_utf8(output.stderr).unwrap().contains("delivered in the background"));
}

#[test]
fn too_many_watchers_are_refused_and_short_requests_are_not() {
    let running = Running::start();
    let watchers: Vec<_> = (0..64)
        .map(|_| {
            let mut stream = running.connect();
            stream.write_all(b"GET /v1/status/watch HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            let mut first = [0; 12];
            stream.read_exact(&mut first).unwrap();
            stream
        })
        .collect();
    assert!(running.get("/v1/status/watch").starts_with("HTTP/1.1 503"));
    assert!(running.get("/v1/status").starts_with("HTTP/1.1 200"));
    drop(watchers);
}
