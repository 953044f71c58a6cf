//! The ladder, rung by rung, and what is no reason to climb it.

use super::*;

const LIMITS: Limits = Limits { cpu_us: 30_000_000, answer_ms: 60_000, silence_ms: 900_000 };

fn overrun() -> Overrun {
    Overrun::new(LIMITS, 0)
}

/// Holds a token from the start.
fn holding() -> Overrun {
    let mut overrun = overrun();
    overrun.on_awaited(0);
    overrun.on_granted(0);
    overrun
}

/// Looks as often as it wants until a time; gives what there was to be done, and when.
fn look_until(overrun: &mut Overrun, in_flight: bool, end_ms: i64) -> Vec<(i64, Step)> {
    let mut steps = Vec::new();
    while let Some(at_ms) = overrun.look_ms().filter(|at_ms| *at_ms <= end_ms) {
        overrun.on_looking(at_ms);
        steps.extend(overrun.on_cpu(0, 0, at_ms).into_iter().map(|step| (at_ms, step)));
        for step in overrun.on_look(in_flight, false, at_ms) {
            if step == Step::Probe {
                overrun.on_recalled(at_ms);
            }
            steps.push((at_ms, step));
        }
    }
    steps
}

#[test]
fn computing_without_an_end_climbs_rung_by_rung() {
    let mut overrun = holding();
    let mut climbed = Vec::new();
    for second in 1..=40_i64 {
        for step in overrun.on_cpu(1_000_000, 1_000_000, second * 1000) {
            climbed.push((second, step, overrun.rung()));
        }
        assert_eq!(overrun.on_look(true, false, second * 1000), [], "it does not hang");
    }
    let cpu = |seconds: u64| Trouble::Cpu(seconds * 1_000_000);
    let steps: Vec<(i64, Step)> = climbed.into_iter().map(|(second, step, _)| (second, step)).collect();
    assert_eq!(
        steps,
        [(1, Step::Warn(cpu(1))), (1, Step::Surcharge(true)), (5, Step::Demote(true)), (30, Step::Ask(cpu(30)))]
    );
    assert_eq!(overrun.look_ms(), None, "what follows is not its business");
}

#[test]
fn one_that_gives_its_token_back_in_time_again_is_put_back() {
    let mut overrun = holding();
    overrun.on_cpu(6_000_000, 6_000_000, 1000);
    assert_eq!(overrun.rung(), Rung::Demoted);
    let mut now_ms = 2000;
    assert_eq!(overrun.on_returned(true, now_ms), None, "this turn was a bad one");
    let mut steps = Vec::new();
    for _ in 0..GOOD_TURNS {
        overrun.on_granted(now_ms);
        overrun.on_cpu(100_000, 0, now_ms + 100);
        now_ms += 200;
        steps.extend(overrun.on_returned(true, now_ms));
    }
    assert_eq!(steps, [Step::Demote(false)]);
    assert_eq!((overrun.rung(), overrun.trouble()), (Rung::Calm, None));
    assert_eq!(overrun.on_cpu(120_000, 50_000, now_ms), [], "it begins anew");
}

#[test]
fn time_heals_one_that_never_had_a_token() {
    let mut overrun = overrun();
    overrun.on_cpu(200_000, 200_000, 500);
    assert_eq!(overrun.rung(), Rung::Warned);
    look_until(&mut overrun, false, 500 + CALM_MS - 1000);
    assert_eq!(overrun.rung(), Rung::Warned);
    look_until(&mut overrun, false, 500 + CALM_MS + 1000);
    assert_eq!(overrun.rung(), Rung::Calm);
    assert_eq!(look_until(&mut overrun, false, i64::MAX), [], "then there is no timer any more");
    assert_eq!(overrun.look_ms(), None);
}

#[test]
fn one_that_is_stopped_is_found_by_the_recall_that_it_does_not_answer() {
    let mut overrun = holding();
    overrun.on_news(0);
    let steps = look_until(&mut overrun, true, 1_000_000);
    let [
        (probed, Step::Probe),
        (warned, Step::Warn(Trouble::Unanswered(_))),
        (asked, Step::Ask(Trouble::Unanswered(_))),
    ] = steps.as_slice()
    else {
        panic!("{steps:?}")
    };
    assert_eq!((*probed, *warned), (30_000, 35_000));
    assert!((90_000..=91_000).contains(asked), "{asked}");
}

#[test]
fn one_that_computes_is_not_taken_for_one_that_hangs() {
    let mut overrun = holding();
    overrun.on_recalled(0);
    for second in 1..1000 {
        assert_eq!(overrun.on_cpu(STIR_US, 0, second * 1000), []);
        assert_eq!(overrun.on_look(false, false, second * 1000), []);
    }
    assert_eq!(overrun.rung(), Rung::Calm);
}

#[test]
fn one_that_answers_again_is_forgiven() {
    let mut overrun = holding();
    overrun.on_recalled(0);
    look_until(&mut overrun, true, 40_000);
    assert!(matches!(overrun.trouble(), Some(Trouble::Unanswered(_))));
    overrun.on_returned(false, 41_000);
    assert_eq!((overrun.rung(), overrun.trouble()), (Rung::Calm, None));
}

#[test]
fn silent_deliveries_are_found_although_the_worker_answers_and_news_renews_patience() {
    let mut overrun = holding();
    let mut steps = Vec::new();
    overrun.on_news(0);
    overrun.on_news(100_000);
    while overrun.rung() != Rung::Asked {
        let at_ms = overrun.look_ms().unwrap();
        for step in overrun.on_look(true, false, at_ms) {
            if step == Step::Probe {
                overrun.on_sought();
                overrun.on_granted(at_ms);
                overrun.on_recalled(at_ms);
                overrun.on_returned(false, at_ms + 1);
            } else {
                steps.push((at_ms, step));
            }
        }
    }
    let [(warned, Step::Warn(Trouble::Silent(_))), (asked, Step::Ask(Trouble::Silent(silent)))] = steps.as_slice()
    else {
        panic!("{steps:?}")
    };
    assert!((550_000..=580_000).contains(warned), "{warned}");
    assert!((1_000_000..=1_030_000).contains(asked) && *silent >= LIMITS.silence_ms, "{asked} {silent}");
}

#[test]
fn waiting_for_a_token_is_not_silence() {
    let mut overrun = overrun();
    overrun.on_news(0);
    overrun.on_awaited(1000);
    assert_eq!(look_until(&mut overrun, true, 2_000_000), []);
    overrun.on_granted(2_000_000);
    overrun.on_returned(false, 2_000_001);
    assert_eq!(overrun.on_look(true, false, 2_000_100), [], "only the second before counts");
}

#[test]
fn waiting_for_the_token_of_a_probe_is_silence() {
    let mut overrun = overrun();
    overrun.on_news(0);
    overrun.on_sought();
    assert!(matches!(look_until(&mut overrun, true, 2_000_000).last(), Some((_, Step::Ask(Trouble::Silent(_))))));
}

#[test]
fn an_open_call_has_a_patience_of_its_own() {
    let mut overrun = overrun();
    overrun.on_called(Call::Poll, false, 1000);
    let mut asked = None;
    for at_ms in (1000..1_000_000).step_by(1000) {
        // Deliveries get on all the time, and other calls are made and answered.
        overrun.on_news(at_ms);
        overrun.on_called(Call::Idle, true, at_ms);
        overrun.on_answered(Call::Idle, at_ms);
        assert_eq!(overrun.on_answered(Call::Announce, at_ms), None, "nobody asked for that");
        let steps = overrun.on_look(true, false, at_ms);
        asked = asked.or(steps.into_iter().find(|step| matches!(step, Step::Ask(_))).map(|step| (at_ms, step)));
    }
    let (at_ms, step) = asked.unwrap();
    assert_eq!((at_ms, step), (901_000, Step::Ask(Trouble::Open(Call::Poll, 900_000))));
}

#[test]
fn what_a_call_waits_for_a_token_is_not_its_silence_and_news_renews_its_patience() {
    let mut overrun = overrun();
    overrun.on_called(Call::Start, false, 0);
    overrun.on_awaited(0);
    assert_eq!(look_until(&mut overrun, false, 2_000_000), []);
    overrun.on_granted(2_000_000);
    overrun.on_returned(false, 2_000_001);
    assert_eq!(overrun.on_look(false, false, 2_400_000).pop(), Some(Step::Probe));
    overrun.on_call_news(2_440_000);
    overrun.on_returned(false, 2_440_000);
    assert!(!overrun.on_look(false, false, 2_889_000).iter().any(|step| matches!(step, Step::Warn(_))));
    let warned = overrun.on_look(false, false, 2_890_000);
    assert!(matches!(warned.first(), Some(Step::Warn(Trouble::Open(Call::Start, 450_000)))), "{warned:?}");
    assert_eq!(overrun.on_answered(Call::Start, 2_890_001), None, "it is calm again, which is no news");
    assert_eq!((overrun.rung(), overrun.open_call()), (Rung::Calm, None));
    assert_eq!(overrun.on_call_news(2_890_002), None);
}

#[test]
fn one_that_refuses_a_second_call_while_the_first_hangs_has_not_answered_that() {
    let mut overrun = overrun();
    overrun.on_called(Call::Flush, false, 0);
    overrun.on_called(Call::Flush, false, 200_000);
    overrun.on_answered(Call::Flush, 200_001);
    let steps = overrun.on_look(false, false, 900_000);
    assert_eq!(steps.first(), Some(&Step::Ask(Trouble::Open(Call::Flush, 900_000))));
}

#[test]
fn a_critical_section_excuses() {
    let mut overrun = holding();
    overrun.on_news(0);
    overrun.on_recalled(0);
    assert_eq!(overrun.on_look(true, true, 5_000_000), []);
    assert_eq!(overrun.on_look(true, false, 5_001_000), []);
}

#[test]
fn every_rung_answers_every_finding() {
    for rung in [Rung::Calm, Rung::Warned, Rung::Charged, Rung::Demoted, Rung::Asked] {
        for finding in [Finding::Overran, Finding::Uneasy, Finding::Lost, Finding::Better] {
            let mut overrun = Overrun { rung, ..overrun() };
            let step = overrun.step(finding);
            let after = overrun.rung();
            let expected = match finding {
                Finding::Better if rung < Rung::Asked => Rung::Calm,
                Finding::Lost => Rung::Asked,
                Finding::Overran | Finding::Uneasy | Finding::Better => after.max(rung),
            };
            assert_eq!(after, expected, "{rung:?} {finding:?}");
            assert!(rung != Rung::Asked || step.is_none(), "it is out of our hands");
        }
    }
}
