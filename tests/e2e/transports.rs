//! Which transport gets which message, and in which order, with real workers.

use std::fs;

use serde_json::json;

use crate::calls::{calls, send, wait_call};
use crate::world::World;

/// A world with these providers, in this order; each is a name and its settings.
fn world(above: &str, providers: &[(&str, &str)]) -> World {
    let provider = |(name, settings): &(&str, &str)| {
        format!("[provider.{name}]\nkind = \"scripted\"\nfolder = \"{{dir}}/{name}\"\n{settings}\n")
    };
    let mut world = World::scripted(&format!("{above}{}", providers.iter().map(provider).collect::<String>()));
    for (name, _) in providers {
        fs::create_dir(world.path(name)).unwrap();
    }
    world.start();
    world
}

fn tell(world: &World, provider: &str, action: &str) {
    world.post(&format!("/v1/providers/{provider}/do"), &json!({ "action": action }));
}

/// For whom a provider was called to submit, call by call.
fn submitted(world: &World, provider: &str) -> Vec<String> {
    let calls = calls(world, provider);
    let whom = |call: &String| Some(call.strip_prefix("submit ")?.split_whitespace().nth(2)?.to_owned());
    calls.iter().filter_map(whom).collect()
}

/// Which of two transports a message is given to.
fn taker(above: &str, first: &str, second: &str) -> &'static str {
    let world = world(above, &[("first", first), ("second", second)]);
    send(&world, &["bob@far.test"], "settle * delivered");
    world.wait_empty();
    match [submitted(&world, "first").len(), submitted(&world, "second").len()] {
        [1, 0] => "first",
        [0, 1] => "second",
        other => panic!("it was submitted {other:?} times"),
    }
}

#[test]
fn what_several_submit_leaves_in_the_order_in_which_it_came() {
    let world = world("", &[("far", "credit = 1")]);
    tell(&world, "far", "pause");
    let mut wanted = Vec::new();
    for number in 0..12 {
        let whom = format!("{number}@far.test");
        if number % 2 == 0 {
            send(&world, &[&whom], "settle * delivered");
        } else {
            let envelope = json!({ "envelope": { "sender": "eve@home.test", "recipients": [{ "address": whom }] } });
            let content = "Subject: steps\r\n\r\nsettle * delivered\r\n";
            let (status, answer) =
                world.control().post("/v1/messages", format!("{envelope}\n{content}").as_bytes()).unwrap();
            assert_eq!(status / 100, 2, "{answer}");
        }
        wanted.push(whom);
    }
    tell(&world, "far", "resume");
    world.wait_empty();
    assert_eq!(submitted(&world, "far"), wanted);
}

#[test]
fn a_message_passes_one_whose_transport_is_not_there_and_waits_for_no_other_reason() {
    let world = world("", &[("far", "claims = [\"@far.test\"]"), ("home", "claims = [\"@home.test\"]")]);
    tell(&world, "far", "pause");
    send(&world, &["bob@far.test"], "settle * delivered");
    send(&world, &["eve@home.test"], "settle * delivered");
    wait_call(&world, "home", "submit ");
    assert!(submitted(&world, "far").is_empty());
    tell(&world, "far", "resume");
    world.wait_empty();
    assert_eq!(submitted(&world, "far"), ["bob@far.test"]);
}

#[test]
fn who_says_after_the_end_of_outbound_that_it_is_ready_gets_nothing() {
    let world = world("", &[("far", "credit = 1")]);
    send(&world, &["first@far.test"], "wait open; settle * delivered\nnotify ready");
    wait_call(&world, "far", "submit ");
    send(&world, &["second@far.test"], "settle * delivered");
    tell(&world, "far", "pause");
    wait_call(&world, "far", "notify EndOutbound");
    fs::write(world.path("far/open"), "").unwrap();
    wait_call(&world, "far", "logoff");
    assert_eq!(submitted(&world, "far"), ["first@far.test"]);
    tell(&world, "far", "resume");
    world.wait_empty();
    assert_eq!(submitted(&world, "far"), ["first@far.test", "second@far.test"]);
}

#[test]
fn the_empty_type_matches_nothing_and_any_type_everything() {
    assert_eq!(taker("", "announces = [\"\"]", "announces = [\"*\"]"), "second");
    assert_eq!(taker("", "announces = [\"*\"]", "announces = [\"*\"]"), "first");
}

#[test]
fn a_claim_goes_before_any_type() {
    assert_eq!(taker("", "announces = [\"*\"]", "announces = []\nclaims = [\"@far.test\"]"), "second");
}

#[test]
fn who_prefers_to_be_last_is_unless_somebody_has_set_an_order() {
    let providers = ["announces = [\"*\"]\nprefer_last = true", "announces = [\"*\"]"];
    assert_eq!(taker("", providers[0], providers[1]), "second");
    assert_eq!(taker("[routing]\norder = [\"first\", \"second\"]\n", providers[0], providers[1]), "first");
}
