//! How a session begins, changes and ends.

use spooler_protocol::calls::{SpoolerNotify, Wishes};
use spooler_protocol::from_worker::FromWorker;

use super::bench::{Bench, smtp};

const ONE: &str = "[provider.a]\nkind = 'smtp'\n";

#[test]
fn a_session_starts_with_a_welcome() {
    let mut bench = Bench::new(ONE);
    assert_eq!(bench.calls("a"), ["Welcome"]);
}

#[test]
fn what_comes_in_goes_out_and_is_gone() {
    let mut bench = Bench::ready(ONE, &[("a", smtp(Wishes::default()))]);
    let id = bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    assert_eq!(order.id, id);
    bench.deliver("a", &order);
    assert!(bench.disk.is_empty());
}

#[test]
fn words_before_the_logon_are_gossip() {
    let mut bench = Bench::new(ONE);
    bench.calls("a");
    bench.notify("a", SpoolerNotify::NewMail);
    bench.say("a", FromWorker::Polled { waiting: true });
    assert!(bench.calls("a").is_empty());
}
