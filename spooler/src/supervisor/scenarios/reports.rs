//! Who is told what, and only once.

use spooler_protocol::calls::{EndMessage, StatusReport, Wishes};
use spooler_protocol::from_worker::FromWorker;
use spooler_protocol::outcome::{Outcome, SubmitResult};

use super::bench::{Bench, reply, smtp};
use crate::supervisor::event::{ReportKind, SubmitOrder};

const ONE: &str = "[provider.a]\nkind = 'smtp'\n";

fn tell(bench: &mut Bench, order: &SubmitOrder, reports: Vec<(u32, StatusReport)>) {
    bench.say("a", FromWorker::StatusRecips { delivery: order.delivery, reports });
}

fn failed() -> StatusReport {
    StatusReport::Failed(reply(550, "no such fax"))
}

/// Kinds and recipients of the reports that were ordered.
fn ordered(bench: &Bench) -> Vec<(ReportKind, Vec<u32>)> {
    let indexes = |order: &crate::supervisor::event::ReportOrder| {
        order.recipients.iter().map(|recipient| recipient.index).collect()
    };
    bench.reports.iter().map(|order| (order.kind, indexes(order))).collect()
}

#[test]
fn a_failure_that_the_provider_reports_is_not_reported_again() {
    let mut bench = Bench::ready(ONE, &[("a", smtp(Wishes::default()))]);
    bench.submit(&["x@y", "z@y"]);
    let order = bench.delivery("a");
    tell(&mut bench, &order, vec![(1, failed())]);
    tell(&mut bench, &order, vec![(1, failed()), (7, failed())]);
    let outcome = Outcome::Failed(reply(550, "no such fax"));
    bench.end("a", &order, SubmitResult::Done, EndMessage::Done, vec![(0, outcome.clone()), (1, outcome)]);
    assert_eq!(ordered(&bench), [(ReportKind::Failed, vec![1]), (ReportKind::Failed, vec![0])]);
    assert!(bench.disk.is_empty());
}

#[test]
fn a_report_of_failure_settles_nothing_and_holds_over_attempts() {
    let mut bench = Bench::ready(ONE, &[("a", smtp(Wishes::default()))]);
    bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    tell(&mut bench, &order, vec![(0, failed())]);
    bench.finish("a", &order, SubmitResult::Busy);
    bench.pass(2000);
    let order = bench.delivery("a");
    bench.end("a", &order, SubmitResult::Done, EndMessage::Done, vec![(0, Outcome::Failed(reply(550, "no")))]);
    assert_eq!(ordered(&bench), [(ReportKind::Failed, vec![0])]);
    assert!(bench.disk.is_empty(), "what was not to be reported again is on disk nevertheless");
}

#[test]
fn what_was_reported_ends_on_disk_only_with_its_report() {
    let mut bench = Bench::ready(ONE, &[("a", smtp(Wishes::default()))]);
    bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    bench.reads_to_fail = 1;
    tell(&mut bench, &order, vec![(0, failed())]);
    bench.end("a", &order, SubmitResult::Done, EndMessage::Done, vec![(0, Outcome::Failed(reply(550, "no")))]);
    assert_eq!(bench.disk.len(), 1, "the report cannot be built, and would have nothing to quote");
    bench.pass(10_000);
    assert_eq!(ordered(&bench), [(ReportKind::Failed, vec![0])]);
    assert!(bench.disk.is_empty());
}

#[test]
fn delivery_and_failure_are_told_apart() {
    let mut bench = Bench::ready(ONE, &[("a", smtp(Wishes::default()))]);
    bench.submit(&["x@y", "z@y"]);
    let order = bench.delivery("a");
    let delivered = StatusReport::Delivered(reply(250, "kept"));
    tell(&mut bench, &order, vec![(0, delivered.clone()), (1, failed()), (0, delivered)]);
    assert_eq!(ordered(&bench), [(ReportKind::SentAsAsked, vec![0]), (ReportKind::Failed, vec![1])]);
}

#[test]
fn nobody_reports_for_somebody_else() {
    let mut bench = Bench::ready(
        "[provider.a]\nkind = 'smtp'\n[provider.b]\nkind = 'smtp'\n",
        &[("a", smtp(Wishes::default())), ("b", smtp(Wishes::default()))],
    );
    bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    bench.say("b", FromWorker::StatusRecips { delivery: order.delivery, reports: vec![(0, failed())] });
    assert!(bench.reports.is_empty());
}

#[test]
fn who_waits_for_a_busy_provider_is_named_in_the_report_of_delay() {
    let config =
        "[retry]\nfirst = '1s'\nmax = '1s'\nmax_age = '1h'\ndelay_warning = '90s'\n[provider.a]\nkind = 'smtp'\n";
    let mut bench = Bench::ready(config, &[("a", smtp(Wishes::default()))]);
    let id = bench.submit(&["x@y", "z@y"]);
    let order = bench.delivery("a");
    bench.end(
        "a",
        &order,
        SubmitResult::NotWanted,
        EndMessage::Done,
        vec![(0, Outcome::Delivered(reply(250, "kept")))],
    );
    assert!(bench.reports.is_empty(), "it is not late yet");
    bench.pass(60_000);
    let order = bench.delivery("a");
    bench.finish("a", &order, SubmitResult::NotWanted);
    let [report] = bench.reports.as_slice() else { panic!("{:?}", bench.reports) };
    assert!(matches!(report.kind, ReportKind::Delayed { .. }), "{report:?}");
    let [late] = report.recipients.as_slice() else { panic!("{report:?}") };
    assert_eq!((late.index, late.reply.text.as_str()), (1, "The provider wanted the message later each time"));
    bench.pass(60_000);
    let order = bench.delivery("a");
    bench.finish("a", &order, SubmitResult::Busy);
    assert_eq!(bench.reports.len(), 1, "once");
    assert!(bench.disk.contains_key(&id));
}

#[test]
fn a_delivery_that_leaves_nobody_waiting_says_nothing_of_delay() {
    let config =
        "[retry]\nfirst = '1s'\nmax = '1s'\nmax_age = '1h'\ndelay_warning = '1s'\n[provider.a]\nkind = 'smtp'\n";
    let mut bench = Bench::ready(config, &[("a", smtp(Wishes::default()))]);
    bench.submit(&["x@y"]);
    let order = bench.delivery("a");
    bench.end(
        "a",
        &order,
        SubmitResult::NotWanted,
        EndMessage::Done,
        vec![(0, Outcome::Delivered(reply(250, "kept")))],
    );
    assert!(bench.reports.is_empty());
    assert!(bench.disk.is_empty());
}
