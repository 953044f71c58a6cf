//! Tokens: provider code runs only while the worker holds one.

use std::fs::File;
use std::io::Write;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use spooler_protocol::from_worker::FromWorker;
use spooler_protocol::ids::{DeliveryId, Token};
use spooler_protocol::notification::Notification;
use spooler_protocol::outcome::SubmitResult;
use spooler_protocol::to_worker::ToWorker;
use tempfile::TempDir;

use crate::peer::{Peer, submission};

const MESSAGE: &[u8] = b"Subject: hello\r\n\r\nbody\r\n";

/// Starts a worker that gets a token only when the test says so, and logs it on with the one that is returned.
fn by_hand(kind: &str, settings: &str) -> (Peer, Token) {
    let mut peer = Peer::start(kind, settings);
    peer.grants = false;
    assert_eq!(peer.next(), FromWorker::Want);
    let token = peer.grant(200);
    let said = peer.next();
    assert!(matches!(said, FromWorker::LoggedOn(_)), "with token {token}: {said:?}");
    (peer, token)
}

/// A pipe worker whose programs each wait at the gate named like their recipient, which the test opens.
struct Gates {
    peer: Peer,
    dir: TempDir,
}

impl Gates {
    fn new(names: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        for name in names {
            mkfifo(&dir.path().join(name), Mode::S_IRWXU).unwrap();
        }
        let settings = format!(
            "credit = 2\ncommand = ['/bin/sh', '-c', 'read line <\"$0\"', '{}/{{local}}']",
            dir.path().display()
        );
        Self { peer: Peer::logged_on("pipe", &settings).0, dir }
    }

    /// Waits until the program for this recipient is at its gate, and returns what opens it.
    fn arrival(&self, name: &str) -> File {
        File::options().write(true).open(self.dir.path().join(name)).unwrap()
    }
}

fn open_gate(mut gate: File) {
    gate.write_all(b"go\n").unwrap();
}

#[test]
fn a_worker_without_a_token_does_not_even_log_on() {
    let (mut peer, token) = by_hand("pipe", "command = ['/bin/cat']");
    peer.say(&ToWorker::Recall { token });
    assert_eq!(peer.next(), FromWorker::Yield { token, more: false });
}

#[test]
fn an_idle_worker_gives_its_token_back_when_asked_and_asks_again_for_work() {
    let dir = TempDir::new().unwrap();
    let (mut peer, first) = by_hand("maildir", &format!("path = '{}/{{local}}'", dir.path().display()));
    peer.say(&ToWorker::Recall { token: first });
    assert_eq!(peer.next(), FromWorker::Yield { token: first, more: false });
    peer.submit(1, "s@d", &["bob@d"], MESSAGE);
    assert_eq!(peer.next(), FromWorker::Want);
    assert!(!dir.path().join("bob").exists(), "nothing was done without a token");
    // A token that is long void is not given back once more.
    peer.say(&ToWorker::Recall { token: first });
    peer.grant(200);
    let (result, outcomes) = peer.finished(1);
    assert_eq!((result, outcomes.len()), (SubmitResult::Done, 1));
}

#[test]
fn a_token_that_others_wait_for_from_the_start_comes_back_unasked() {
    let dir = TempDir::new().unwrap();
    let (mut peer, first) = by_hand("maildir", &format!("path = '{}/{{local}}'", dir.path().display()));
    peer.say(&ToWorker::Recall { token: first });
    assert_eq!(peer.next(), FromWorker::Yield { token: first, more: false });
    peer.submit(1, "s@d", &["bob@d"], MESSAGE);
    assert_eq!(peer.next(), FromWorker::Want);
    let second = Token(first.0 + 1000);
    peer.say(&ToWorker::Grant { token: second, slice_ms: 60_000, recalled: true });
    let mut said = vec![peer.next()];
    while !matches!(said.last(), Some(FromWorker::Yield { .. })) {
        said.push(peer.next());
    }
    assert!(matches!(said.last(), Some(FromWorker::Yield { token, more: false }) if *token == second), "{said:?}");
    if !said.iter().any(|said| matches!(said, FromWorker::Finished { .. })) {
        // It waited for something in between, and wants to go on.
        peer.grant(200);
        peer.finished(1);
    }
}

#[test]
fn a_slice_that_is_used_up_ends_with_more_to_do() {
    let dir = TempDir::new().unwrap();
    let (mut peer, token) = by_hand("maildir", &format!("path = '{}/{{local}}'", dir.path().display()));
    peer.say(&ToWorker::Recall { token });
    assert_eq!(peer.next(), FromWorker::Yield { token, more: false });
    let deliveries = 300;
    for delivery in 0..deliveries {
        peer.submit(delivery, "s@d", &[".@d"], MESSAGE);
    }
    assert_eq!(peer.next(), FromWorker::Want);
    // Nothing fits into no time, but the executor does a bounded piece of work before it looks at the clock.
    let mut token = peer.grant(0);
    let (mut finished, mut with_more) = (0, 0);
    while finished < deliveries {
        match peer.next() {
            FromWorker::Finished { .. } => finished += 1,
            FromWorker::Yield { token: back, more } => {
                assert_eq!(back, token, "a token comes back once");
                with_more += u64::from(more);
                if more {
                    token = peer.grant(0);
                }
            }
            FromWorker::Want => token = peer.grant(0),
            other => panic!("{other:?}"),
        }
    }
    assert!(with_more > 0 && with_more < deliveries, "{with_more} yields with more to do");
}

#[test]
fn a_cancelled_delivery_serves_nobody_further() {
    let mut gates = Gates::new(&["a", "b", "c", "d"]);
    // Two programs run at once; the other two recipients wait for them.
    gates.peer.submit(1, "s@d", &["a@d", "b@d", "c@d", "d@d"], MESSAGE);
    let running = [gates.arrival("a"), gates.arrival("b")];
    gates.peer.say(&ToWorker::Notify(Notification::EndOutbound));
    gates.peer.say(&ToWorker::Notify(Notification::CancelMessage(DeliveryId(99))));
    gates.peer.say(&ToWorker::Notify(Notification::CancelMessage(DeliveryId(1))));
    // This one needs no program; when it is over, the cancellation before it has been heard.
    let mut nobody = submission(2, "s@d", &["a@d"], MESSAGE);
    nobody.recipients.clear();
    gates.peer.say(&ToWorker::Submit(Box::new(nobody)));
    assert_eq!(gates.peer.finished(2).0, SubmitResult::Done);
    running.into_iter().for_each(open_gate);
    let (result, outcomes) = gates.peer.finished(1);
    assert_eq!(result, SubmitResult::Cancelled);
    let mut served: Vec<u32> = outcomes.into_keys().collect();
    served.sort_unstable();
    assert_eq!(served, [0, 1]);
    gates.peer.log_off();
}

#[test]
fn logging_off_waits_for_deliveries() {
    let mut gates = Gates::new(&["a"]);
    gates.peer.submit(1, "s@d", &["a@d"], MESSAGE);
    let gate = gates.arrival("a");
    gates.peer.say(&ToWorker::Logoff { hurry: false });
    open_gate(gate);
    assert!(matches!(gates.peer.next(), FromWorker::Finished { result: SubmitResult::Done, .. }));
    assert_eq!(gates.peer.next(), FromWorker::LoggedOff);
    assert!(gates.peer.child.wait().unwrap().success());
}

#[test]
fn logging_off_in_a_hurry_does_not_wait() {
    let mut gates = Gates::new(&["a"]);
    gates.peer.submit(1, "s@d", &["a@d"], MESSAGE);
    let mut gate = gates.arrival("a");
    gates.peer.say(&ToWorker::Logoff { hurry: true });
    assert_eq!(gates.peer.next(), FromWorker::LoggedOff);
    assert!(gates.peer.child.wait().unwrap().success());
    // Nobody is left to read at the gate: the program went with its worker.
    let left = gate.write_all(b"go\n");
    assert!(left.is_err_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe));
}
