//! Tokens: provider code runs only while the worker holds one.

use spooler_protocol::from_worker::FromWorker;

use crate::peer::Peer;

#[test]
fn a_worker_without_a_token_does_not_even_log_on() {
    let mut peer = Peer::start("pipe", "command = ['/bin/cat']");
    peer.grants = false;
    assert_eq!(peer.next(), FromWorker::Want);
    let token = peer.grant(200);
    let said = peer.next();
    assert!(matches!(said, FromWorker::LoggedOn(_)), "with token {token}: {said:?}");
}
