//! Listings and commands on messages.

use std::io::{Read, Write};

use spooler_protocol::control::{MessageState, MessageSummary};

use super::supervisor::Running;

/// The documents of a chunked answer of JSON lines.
fn summaries(answer: &str) -> Vec<MessageSummary> {
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mut rest = answer.split_once("\r\n\r\n").unwrap().1;
    let mut text = String::new();
    loop {
        let (size, behind) = rest.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        text.push_str(&behind[..size]);
        rest = &behind[size + 2..];
    }
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(answer: &str) -> Vec<u64> {
    summaries(answer).iter().map(|summary| summary.id.0).collect()
}

#[test]
fn the_schedule_is_laid_over_and_filters_hold() {
    let running = Running::start();
    running.books.add_messages(3, 0, MessageState::InFlight);
    running.books.add_messages(2, 0, MessageState::Held);
    let all = summaries(&running.get("/v1/messages"));
    assert_eq!(all.len(), 5);
    assert_eq!((all[0].state, all[0].why.as_str()), (MessageState::InFlight, "laid over"));
    assert_eq!(ids(&running.get("/v1/messages?state=in-flight&limit=2")), [1, 2]);
    assert_eq!(ids(&running.get("/v1/messages?state=ready")), [] as [u64; 0]);
    assert_eq!(ids(&running.get("/v1/messages?state=held")), [4, 5]);
    assert_eq!(ids(&running.get("/v1/messages?ids=2,5")), [2, 5]);
    assert!(running.get("/v1/messages/1").contains("\"why\":\"laid over\""));
}

#[test]
fn a_slow_client_does_not_hold_a_reader_and_still_gets_every_message_once() {
    let running = Running::start();
    running.books.add_messages(20_000, 0, MessageState::Ready);
    let mut stream = running.connect();
    stream.write_all(b"GET /v1/messages HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    // The reader is let go although nothing was read.
    drop(running.books.wait_for(|books| books.jobs_ended > 0));
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(ids(&answer), (1..=20_000).collect::<Vec<u64>>());
    assert!(running.books.books().jobs_begun > 1);
}

#[test]
fn commands_reach_the_messages_of_the_filter_and_name_those_that_are_not_there() {
    let running = Running::start();
    running.books.add_messages(2500, 0, MessageState::Ready);
    let answer = running.post("/v1/messages/do", b"{\"action\":\"hold\",\"filter\":{}}");
    assert!(answer.contains("\"done\":2500"), "{answer}");
    let answer = running.post("/v1/messages/do", b"{\"action\":\"delete\",\"filter\":{\"ids\":\"3,9999\"}}");
    assert!(answer.contains("\"done\":1") && answer.contains("9999: no such message"), "{answer}");
}

#[test]
fn contents_come_whole() {
    let running = Running::start();
    running.books.add_messages(1, 0, MessageState::Ready);
    let content = b"line\r\n".repeat(200_000);
    running.books.change(|books| books.messages[0].content.clone_from(&content));
    let output = running.tool("spoolctl").args(["queue", "cat", "1"]).output().unwrap();
    assert_eq!(output.stdout.len(), content.len());
    assert_eq!(output.stdout, content);
}
