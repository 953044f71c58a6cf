//! Rubbish on the socket harms nobody.

use std::io::Write;

use super::supervisor::Running;

#[test]
fn garbage_ends_its_own_connection_only() {
    let running = Running::start();
    let mut random = fastrand::Rng::with_seed(3);
    for round in 0..50 {
        let mut bytes: Vec<u8> = (0..random.usize(1..4000)).map(|_| random.u8(..)).collect();
        bytes.extend_from_slice(b"\r\n\r\n");
        let answer = running.raw(&bytes);
        assert!(!answer.starts_with("HTTP/1.1 2"), "round {round}: {answer}");
    }
    assert!(running.get("/v1/status").starts_with("HTTP/1.1 200"));
}

#[test]
fn wrong_paths_methods_and_words_are_told_apart() {
    let running = Running::start();
    for (answer, status) in [
        (running.get("/"), "404"),
        (running.get("/v1/messages/do"), "405"),
        (running.get("/v1/messages/x"), "400"),
        (running.get("/v1/messages/%ff"), "400"),
        (running.get("/v1/messages/7"), "404"),
        (running.get("/v1/messages/7/content"), "404"),
        (running.get("/v1/messages?ids=1,x"), "400"),
        (running.get("/v1/messages?state=odd"), "400"),
        (running.get("/v1/messages?colour=red"), "400"),
        (running.post("/v1/messages/do", b"{\"action\":\"burn\",\"filter\":{}}"), "400"),
        (running.post("/v1/flush", b"7"), "400"),
        (running.post("/v1/providers/x/do", b"{}"), "400"),
        (running.post("/v1/flush", b"{\"provider\":\"none\"}"), "422"),
    ] {
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains("\"error\":"),
            "{status}: {answer}"
        );
    }
}

#[test]
fn connections_that_say_nothing_do_not_keep_others_out() {
    let running = Running::start();
    let silent: Vec<_> = (0..100).map(|_| running.connect()).collect();
    let mut half = running.connect();
    half.write_all(b"GET /v1/status HTTP/1.1\r\nHo").unwrap();
    assert!(running.get("/v1/status").starts_with("HTTP/1.1 200"));
    drop(silent);
}
