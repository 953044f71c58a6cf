//! Who is tried first, and which message goes first.

use spooler_protocol::calls::Wishes;
use spooler_protocol::from_worker::{FromWorker, LoggedOn, RowUpdate};
use spooler_protocol::message::{Envelope, Priority, Recipient};

use super::bench::{Bench, smtp};
use crate::supervisor::event::{Ask, AskId, Event, Incoming};

const TWO: &str = "[provider.a]\nkind = 'smtp'\nclaims = ['@a']\n[provider.b]\nkind = 'smtp'\nclaims = ['@b']\n";

fn types(types: &[&str]) -> LoggedOn {
    LoggedOn { address_types: types.iter().map(|&kind| kind.to_owned()).collect(), ..smtp(Wishes::default()) }
}

fn one_at_a_time() -> LoggedOn {
    LoggedOn { credit: 1, ..smtp(Wishes::default()) }
}

/// Who gets a message to this recipient.
fn taker(config: &str, providers: &[(&str, LoggedOn)], recipient: &str) -> String {
    let mut bench = Bench::ready(config, providers);
    bench.submit(&[recipient]);
    let takers = providers.iter().filter(|(name, _)| bench.calls(name).iter().any(|call| call.starts_with("Submit")));
    takers.map(|(name, _)| *name).collect()
}

#[test]
fn order_is_preserved_across_sources() {
    let mut bench = Bench::ready(TWO, &[("a", one_at_a_time()), ("b", one_at_a_time())]);
    let ids = [bench.submit(&["x@b"]), bench.submit(&["y@b"]), bench.submit(&["z@b"])];
    for id in ids {
        let order = bench.delivery("b");
        assert_eq!(order.id, id);
        bench.deliver("b", &order);
    }
}

#[test]
fn overtaking_only_when_the_heads_provider_is_unavailable() {
    let mut bench = Bench::ready(TWO, &[("a", one_at_a_time()), ("b", one_at_a_time())]);
    let row = RowUpdate { offline: Some(true), ..RowUpdate::default() };
    bench.say("a", FromWorker::Row { sequence: 1, row: String::new(), update: Box::new(row) });
    let (head, other) = (bench.submit(&["x@a"]), bench.submit(&["x@b"]));
    assert!(bench.calls("a").is_empty());
    assert_eq!(bench.calls("b"), [format!("Submit {other}")]);
    let row = RowUpdate { offline: Some(false), ..RowUpdate::default() };
    bench.say("a", FromWorker::Row { sequence: 2, row: String::new(), update: Box::new(row) });
    assert_eq!(bench.calls("a"), [format!("Submit {head}")]);
}

#[test]
fn overtaking_by_priority() {
    let mut bench = Bench::ready(TWO, &[("a", one_at_a_time()), ("b", one_at_a_time())]);
    let first = bench.submit(&["x@b"]);
    let second = bench.submit(&["x@b"]);
    let urgent = bench.submit_envelope(Envelope { priority: Priority::Urgent, ..Envelope::default() }, &["x@b"]);
    for id in [first, urgent, second] {
        let order = bench.delivery("b");
        assert_eq!(order.id, id);
        bench.deliver("b", &order);
    }
}

#[test]
fn an_empty_string_type_is_never_matched_and_any_type_always() {
    let config = "[provider.a]\nkind = 'smtp'\n[provider.b]\nkind = 'smtp'\n";
    let providers = [("a", types(&[""])), ("b", types(&["*"]))];
    for recipient in ["x@y", "FAX:1"] {
        assert_eq!(taker(config, &providers, recipient), "b");
    }
}

#[test]
fn the_claims_pass_beats_the_type_pass() {
    let providers = [("b", types(&["*"])), ("a", types(&[]))];
    assert_eq!(taker(TWO, &providers, "x@a"), "a");
}

#[test]
fn prefer_last_is_last_unless_an_explicit_order_says_otherwise() {
    let config = "[provider.a]\nkind = 'smtp'\n[provider.b]\nkind = 'smtp'\n";
    let last = LoggedOn { prefer_last: true, ..types(&["*"]) };
    let providers = [("a", last), ("b", types(&["*"]))];
    assert_eq!(taker(config, &providers, "x@y"), "b");
    let ordered = format!("[routing]\norder = ['a', 'b']\n{config}");
    assert_eq!(taker(&ordered, &providers, "x@y"), "a");
}

#[test]
fn a_message_that_is_on_its_way_to_the_disk_when_ways_change_goes_the_new_way() {
    let later = "[provider.b]\nkind = 'smtp'\nclaims = ['@a']\n";
    for first in
        [later.replace("claims = ['@a']\n", "") + "[provider.a]\nkind = 'smtp'\nclaims = ['@a']\n", TWO.to_owned()]
    {
        let mut bench = Bench::ready(&first, &[("a", smtp(Wishes::default())), ("b", smtp(Wishes::default()))]);
        let recipients = vec![Recipient::new("x@a".parse().unwrap())];
        let envelope = Envelope { sender: "me@here".to_owned(), recipients, ..Envelope::default() };
        let content = Incoming::Inline(bytes::Bytes::from_static(b"Subject: x\r\n\r\nx\r\n"));
        let ask = Ask::Submit { envelope, submission: true, origin: "uid 1".to_owned(), owner_uid: 1, content };
        let config = crate::config::parse(later, std::path::Path::new("x.toml")).unwrap();
        // The new configuration comes before the message is on disk.
        bench.hear_in_a_row([Event::Asked(AskId(99), ask), Event::Reload(Box::new(config))]);
        assert_eq!(bench.disk.len(), 1);
        let order = bench.delivery("b");
        bench.deliver("b", &order);
        assert!(bench.disk.is_empty());
        assert!(!bench.calls("a").iter().any(|call| call.starts_with("Submit")));
    }
}
