//! Messages whose recipient no provider serves any more: a change of the configuration makes them wait, never fail.

use spooler_protocol::calls::Wishes;
use spooler_protocol::control::MessageState;
use spooler_protocol::from_worker::{FromWorker, LoggedOn};
use spooler_protocol::outcome::{Outcome, SubmitResult};

use super::bench::{Bench, reply, smtp};
use crate::supervisor::event::{Answer, Ask, Incoming, ReportKind};

const GOOD: &str =
    "[provider.a]\nkind = 'smtp'\nclaims = ['@part.test']\n[provider.b]\nkind = 'smtp'\nclaims = ['@b']\n";
/// The same with a slip in it.
const SLIP: &str =
    "[provider.a]\nkind = 'smtp'\nclaims = ['@partt.test']\n[provider.b]\nkind = 'smtp'\nclaims = ['@b']\n";
/// The same without the provider.
const WITHOUT: &str = "[provider.b]\nkind = 'smtp'\nclaims = ['@b']\n";

const DAY_MS: i64 = 86_400_000;

fn one_at_a_time() -> LoggedOn {
    LoggedOn { credit: 1, ..smtp(Wishes::default()) }
}

/// A supervisor with [`GOOD`], and two messages to `a`: one in flight, one that waits.
fn two_messages() -> (Bench, [spooler_protocol::ids::MessageId; 2]) {
    let mut bench = Bench::ready(GOOD, &[("a", one_at_a_time()), ("b", one_at_a_time())]);
    let ids = [bench.submit(&["x@part.test"]), bench.submit(&["x@part.test"])];
    (bench, ids)
}

#[test]
fn claims_alone_serve_no_address_type() {
    let types = Some(&[][..]);
    let address_types = |keys: &str| {
        let text = format!("[provider.x]\nkind = 'smtp'\n{keys}");
        let config = crate::config::parse(&text, std::path::Path::new("x.toml")).unwrap();
        config.providers[0].address_types().map(<[String]>::to_vec)
    };
    assert_eq!(address_types("claims = ['@x']").as_deref(), types);
    assert_eq!(address_types(""), None, "the worker says");
    assert_eq!(address_types("claims = ['@x']\naddress_types = ['SMTP']"), Some(vec!["SMTP".to_owned()]));

    let mut bench = Bench::ready(GOOD, &[("a", one_at_a_time()), ("b", one_at_a_time())]);
    let ask = Ask::Submit {
        submission: true,
        envelope: spooler_protocol::message::Envelope {
            recipients: vec![spooler_protocol::message::Recipient::new("x@other.test".parse().unwrap())],
            ..Default::default()
        },
        origin: String::new(),
        owner_uid: 1,
        content: Incoming::Inline(bytes::Bytes::from_static(b"\r\nx\r\n")),
    };
    let Some(Answer::Submitted(Err(refused))) = bench.ask(ask) else { panic!("accepted") };
    assert!(refused.text.contains("No provider serves x@other.test"), "{refused:?}");
}

#[test]
fn unserved_recipient_waits_until_served_again() {
    for changed in [SLIP, WITHOUT] {
        let (mut bench, [first, second]) = two_messages();
        let order = bench.delivery("a");
        assert_eq!(order.id, first);
        bench.reload(changed);
        let (state, why) = bench.state(second).unwrap();
        assert_eq!(state, MessageState::Deferred);
        assert!(why.starts_with("no provider serves this address any more") && why.contains("`reload it`"), "{why}");
        bench.pass(60_000);
        assert!(bench.reports.is_empty(), "{:?}", bench.reports);
        assert_eq!(bench.disk.len(), 2, "nothing was lost");

        bench.deliver("a", &order);
        if changed == WITHOUT {
            bench.die("a", "exit status: 0");
        }
        assert_eq!(bench.disk.keys().copied().collect::<Vec<_>>(), [second]);
        bench.reload(GOOD);
        if changed == WITHOUT {
            bench.say("a", FromWorker::LoggedOn(one_at_a_time()));
        }
        let order = bench.delivery("a");
        bench.deliver("a", &order);
        assert!(bench.disk.is_empty());
        assert!(bench.reports.is_empty());
    }
}

#[test]
fn unserved_recipient_waits_through_a_restart() {
    let (mut bench, ids) = two_messages();
    bench.reload(WITHOUT);
    bench.crash();
    bench.say("b", FromWorker::LoggedOn(one_at_a_time()));
    for id in ids {
        let (state, why) = bench.state(id).unwrap();
        assert!(state == MessageState::Deferred && why.starts_with("no provider serves"), "{state:?} {why}");
    }
    assert!(bench.reports.is_empty());
    bench.reload(GOOD);
    bench.say("a", FromWorker::LoggedOn(one_at_a_time()));
    for id in ids {
        let order = bench.delivery("a");
        assert_eq!(order.id, id);
        bench.deliver("a", &order);
    }
    assert!(bench.disk.is_empty());
}

#[test]
fn unserved_recipient_is_reported_late_and_expires() {
    let (mut bench, [first, _]) = two_messages();
    let order = bench.delivery("a");
    assert_eq!(order.id, first);
    bench.reload(SLIP);
    bench.deliver("a", &order);
    bench.pass(DAY_MS);
    let kinds = |bench: &Bench| bench.reports.iter().map(|order| order.kind).collect::<Vec<_>>();
    assert!(matches!(kinds(&bench)[..], [ReportKind::Delayed { .. }]), "{:?}", bench.reports);
    let text = bench.reports[0].recipients[0].reply.to_string();
    assert!(text.contains("no provider serves this address any more"), "{text}");
    bench.pass(5 * DAY_MS);
    assert!(matches!(kinds(&bench)[..], [ReportKind::Delayed { .. }, ReportKind::Failed]), "{:?}", bench.reports);
    assert!(bench.disk.is_empty());
}

/// The part that waits for a later attempt says why it waits now, not why it failed then.
#[test]
fn unserved_deferred_recipient_says_so() {
    let (mut bench, [first, second]) = two_messages();
    let order = bench.delivery("a");
    bench.finish("a", &order, SubmitResult::Error(reply(451, "greylisted")));
    assert!(bench.state(first).unwrap().1.contains("greylisted"));
    bench.reload(SLIP);
    assert!(bench.state(first).unwrap().1.starts_with("no provider serves"), "{:?}", bench.state(first));
    assert_eq!(bench.delivery("a").id, second, "what is in flight stays so");
}

/// A worker that has to go brings back what it could not deliver after the routes have changed.
#[test]
fn last_deferral_of_removed_provider_waits() {
    let (mut bench, [first, _]) = two_messages();
    let order = bench.delivery("a");
    bench.reload(WITHOUT);
    bench.finish("a", &order, SubmitResult::Error(reply(451, "greylisted")));
    bench.die("a", "exit status: 0");
    let (_, why) = bench.state(first).unwrap();
    assert!(why.starts_with("no provider serves"), "{why}");
    bench.reload(GOOD);
    bench.say("a", FromWorker::LoggedOn(one_at_a_time()));
    assert_eq!(bench.delivery("a").id, first);
}

/// Only a provider's own word makes a recipient fail: the second one has declined before the reload took it away.
#[test]
fn declined_recipient_waits_if_next_is_removed() {
    let both = "[provider.a]\nkind = 'smtp'\n[provider.b]\nkind = 'smtp'\n";
    let mut bench = Bench::ready(both, &[("a", one_at_a_time()), ("b", one_at_a_time())]);
    let busy = bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    bench.finish("a", &order, SubmitResult::NotMe);
    let order = bench.delivery("b");
    bench.end("b", &order, SubmitResult::Error(reply(451, "later")), spooler_protocol::calls::EndMessage::Done, vec![]);
    bench.reload("[provider.a]\nkind = 'smtp'\n");
    bench.die("b", "exit status: 0");
    bench.reload("[provider.a]\nkind = 'smtp'\nweight = 7\n");
    assert!(bench.state(busy).unwrap().1.starts_with("no provider serves"), "{:?}", bench.state(busy));
    assert!(bench.reports.is_empty());
    bench.reload(both);
    bench.say("b", FromWorker::LoggedOn(one_at_a_time()));
    let order = bench.delivery("b");
    bench.end("b", &order, SubmitResult::Done, Default::default(), vec![(0, Outcome::Delivered(reply(250, "ok")))]);
    assert!(bench.disk.is_empty());
}
