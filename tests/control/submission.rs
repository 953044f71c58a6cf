//! Submissions: what comes in is what is kept, or nothing is.

use std::io::Write;

use spooler_protocol::control::ApiError;

use super::supervisor::{ENVELOPE, MESSAGE_BYTES_MAX, Running};

fn submit(running: &Running, message: &[u8]) -> String {
    let mut body = format!("{ENVELOPE}\n").into_bytes();
    body.extend_from_slice(message);
    running.post("/v1/messages", &body)
}

/// What stands behind the trace header of a local submission.
fn without_trace(content: &[u8]) -> &[u8] {
    let trace = format!("Received: by box.origin.test (spooler, from userid {});\r\n\t", nix::unistd::getuid());
    let behind = content.strip_prefix(trace.as_bytes()).expect("a trace header");
    let end = behind.iter().position(|byte| *byte == b'\n').expect("the end of the date");
    &behind[end + 1..]
}

#[test]
fn a_small_message_is_kept_with_crlf_line_ends() {
    let running = Running::start();
    let answer = submit(&running, b"From: a@x\nDate: d\nMessage-ID: <i@x>\nSubject: s\n\none\r\ntwo\rhalf\n.\nlast");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("{\"id\":1}"), "{answer}");
    let books = running.books.books();
    let content = without_trace(&books.messages[0].content);
    let expected = b"From: a@x\r\nDate: d\r\nMessage-ID: <i@x>\r\nSubject: s\r\n\r\none\r\ntwo half\r\n.\r\nlast\r\n";
    assert_eq!(content.escape_ascii().to_string(), expected.escape_ascii().to_string());
    assert_eq!(books.messages[0].envelope.sender, "a@x");
    assert_eq!(books.messages[0].owner_uid, nix::unistd::getuid().as_raw());
}

#[test]
fn a_large_message_goes_through_an_upload() {
    let running = Running::start();
    let message = "0123456789abcde\n".repeat(60_000);
    assert!(submit(&running, message.as_bytes()).starts_with("HTTP/1.1 200"));
    let books = running.books.books();
    let content = &books.messages[0].content;
    assert!(content.ends_with(message.replace('\n', "\r\n").as_bytes()));
    assert!(String::from_utf8_lossy(content).contains("From: a@x\r\nMessage-ID: <"), "a text without header gets one");
    assert!(books.uploads.is_empty());
    assert_eq!(books.abandoned, 0);
}

#[test]
fn a_message_that_is_too_large_is_refused_and_forgotten() {
    let running = Running::start();
    let lines = usize::try_from(MESSAGE_BYTES_MAX).unwrap() / 2;
    // Announced too large; and too large only with its line ends put right.
    for message in [vec![b'x'; lines * 4], vec![b'\n'; lines + 1]] {
        let answer = submit(&running, &message);
        assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("\"temporary\":false"), "{answer}");
    }
    let books = running.books.wait_for(|books| books.uploads.is_empty());
    assert!(books.messages.is_empty());
    drop(books);
    assert!(submit(&running, &vec![b'\n'; lines]).starts_with("HTTP/1.1 200"));
}

#[test]
fn what_is_wrong_is_said() {
    let running = Running::start();
    for (body, word) in [
        (&b""[..], "no end"),
        (b"{}\nx", "not an envelope"),
        (b"no json\nx", "not an envelope"),
        (b"{\"envelope\":{\"sender\":\"\",\"recipients\":[]}}\nx", "no recipient"),
        (b"{\"envelope\":{\"sender\":\"a\\n@x\",\"recipients\":[{\"address\":\"b@x\"}]}}\nx", "control character"),
        (b"{\"envelope\":{\"sender\":\"\",\"recipients\":[{\"address\":\"b@x\"}]}}\na\0b", "NUL"),
        (&vec![b'x'; 1024 * 1024], "longer than"),
    ] {
        let answer = running.post("/v1/messages", body);
        assert!(answer.starts_with("HTTP/1.1 4") && answer.contains(word), "{word}: {answer}");
    }
    assert!(running.books.books().messages.is_empty());
}

#[test]
fn a_sender_that_goes_away_leaves_nothing() {
    let running = Running::start();
    let mut stream = running.connect();
    let head = "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n";
    stream.write_all(format!("{head}{ENVELOPE}\n{}", "x".repeat(300_000)).as_bytes()).unwrap();
    drop(running.books.wait_for(|books| !books.uploads.is_empty()));
    drop(stream);
    let books = running.books.wait_for(|books| books.abandoned == 1);
    assert!(books.uploads.is_empty() && books.messages.is_empty());
}

#[test]
fn refusals_of_the_supervisor_reach_the_client() {
    let running = Running::start();
    for (temporary, status) in [(true, "503"), (false, "422")] {
        let error = ApiError { error: "because".to_owned(), temporary };
        running.books.change(|books| books.refuse_with = Some(error));
        let answer = submit(&running, b"x");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains("because"), "{answer}");
    }
}
