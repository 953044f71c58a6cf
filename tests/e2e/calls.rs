//! What the spooler asks providers and what they ask of it, with real workers: polling, messages that are kept, questions at logon,
//! the recipients of others, and reports that a provider wants sent.

use std::fs;

use crate::world::World;

/// A provider that does what messages and settings say: see `tests/contract/contract_worker.rs`.
fn scripted(name: &str, settings: &str) -> String {
    format!(
        "[provider.{name}]\nkind = \"scripted\"\nclaims = [\"@{name}.test\"]\nfolder = \"{{dir}}/{name}\"\n{settings}\n"
    )
}

/// A world with these providers; each is a name and its settings.
fn world(providers: &[(&str, &str)]) -> World {
    let config: String = providers.iter().map(|(name, settings)| scripted(name, settings)).collect();
    let world = World::scripted(&config);
    for (name, _) in providers {
        fs::create_dir(world.path(name)).unwrap();
    }
    world
}

fn started(providers: &[(&str, &str)]) -> World {
    let mut world = world(providers);
    world.start();
    world
}

/// Sends a message whose body the providers act on; options of sendmail come before the recipients.
pub(crate) fn send(world: &World, arguments: &[&str], body: &str) {
    let mail = format!("Subject: steps\n\n{body}\n");
    let output = world.client("sendmail", &[&["-i", "-f", "ann@home.test"], arguments].concat(), mail.as_bytes());
    assert!(output.status.success(), "{output:?}");
}

/// What a provider was called for so far, without what it makes of the header of a message.
pub(crate) fn calls(world: &World, provider: &str) -> Vec<String> {
    let text = fs::read_to_string(world.path(provider).join("calls")).unwrap_or_default();
    text.lines().filter(|line| !line.starts_with("no such step")).map(str::to_owned).collect()
}

/// Waits until a provider has been called for this; gives everything that it was called for.
pub(crate) fn wait_call(world: &World, provider: &str, wanted: &str) -> Vec<String> {
    world.wait_for(wanted, |world| {
        let calls = calls(world, provider);
        calls.iter().any(|call| call.starts_with(wanted)).then_some(calls)
    })
}

fn position(calls: &[String], wanted: &str) -> usize {
    calls.iter().position(|call| call.starts_with(wanted)).unwrap_or_else(|| panic!("no {wanted} in {calls:#?}"))
}

#[test]
fn who_wishes_it_is_polled_and_what_waits_is_fetched_and_delivered() {
    let fetching = "wishes = [\"poll\"]\npoll_interval = \"1s\"\npoll = [\"\", \"return waiting\", \"\"]\n\
                    start = [\"write settle * delivered; accept bob@home.test\"]";
    let world = started(&[("far", fetching), ("home", "")]);
    let home = wait_call(&world, "home", "submit ");
    assert!(home[position(&home, "submit ")].contains("to bob@home.test"), "{home:#?}");
    let far = wait_call(&world, "far", "accept Ok(");
    let polls = far.iter().take(position(&far, "start")).filter(|call| *call == "poll").count();
    assert_eq!(polls, 2, "it is received when the provider has said that something waits: {far:#?}");
    world.wait_empty();
}

#[test]
fn a_provider_hears_when_a_flush_begins_and_ends_and_knows_that_it_need_not_yield() {
    let world = started(&[("far", "start = [\"flushing; write x; accept bob@home.test\", \"\"]"), ("home", "")]);
    // What is in the queue waits for a flush.
    send(&world, &["bob@far.test"], "settle-if open delivered\nflushing");
    wait_call(&world, "far", "end ");
    fs::write(world.path("far/open"), "").unwrap();
    fs::write(world.path("far/calls"), "").unwrap();
    let output = world.spoolctl(&["flush", "far"]);
    assert!(output.status.success(), "{output:?}");
    // It was told before that ended, but it may not have heard it yet.
    let far = wait_call(&world, "far", "notify EndInboundFlush");
    let expected = [
        "flush 0xe",
        "notify BeginOutboundFlush",
        "submit ",
        "flushing 0x2",
        "end ",
        "notify EndOutboundFlush",
        "notify BeginInboundFlush",
        "start",
        "flushing 0x4",
        "write Ok(())",
        "accept Ok(",
        "start",
        "notify EndInboundFlush",
    ];
    let heard: Vec<&String> = far.iter().filter(|call| *call != "notify returned").collect();
    assert!(heard.iter().zip(expected).all(|(call, expected)| call.starts_with(expected)), "{far:#?}");
    assert_eq!(heard.len(), expected.len(), "{far:#?}");
    send(&world, &["bob@far.test"], "settle * delivered\nflushing");
    wait_call(&world, "far", "flushing 0x0");
}

#[test]
fn one_that_hangs_as_it_looks_for_mail_is_replaced_and_the_next_one_fetches_it() {
    let fetching = "wishes = [\"poll\"]\nstall_timeout = \"1s\"\npoll = [\"wait open; return waiting\", \"\"]\n\
                    start = [\"write settle * delivered; accept bob@home.test\"]";
    let world = started(&[("far", fetching), ("home", "")]);
    let row = world.wait_for("the warning", |world| world.provider("far").filter(|row| row["overrun"] == "warned"));
    assert!(row["text"].as_str().unwrap().contains("said nothing of whether a message waits (Poll)"), "{row}");
    let row = world.wait_for("its end", |world| world.provider("far").filter(|row| row["deaths"] == 1));
    assert!(row["last_error"].as_str().unwrap().contains("(Poll)"), "{row}");
    fs::write(world.path("far/open"), "").unwrap();
    wait_call(&world, "home", "submit ");
    // One that has nothing to answer is left alone.
    assert_eq!(world.provider("home").unwrap()["deaths"], 0);
}

#[test]
fn stopping_a_flush_cancels_what_comes_in() {
    let start = "start = [\"write half; say half of it; cancelled; accept bob@far.test\"]";
    let world = started(&[("far", start)]);
    assert!(world.spoolctl(&["flush", "far", "--inbound", "--no-wait"]).status.success());
    world.wait_for("half of the message", |world| world.provider("far").filter(|row| row["text"] == "half of it"));
    assert_eq!(calls(&world, "far").iter().find(|call| call.starts_with("flush ")), Some(&"flush 0x1c".to_owned()));
    assert!(world.spoolctl(&["flush", "far", "--inbound", "--stop"]).status.success());
    let far = wait_call(&world, "far", "accept Err(");
    assert!(position(&far, "notify CancelInbound") > position(&far, "notify BeginInboundFlush"), "{far:#?}");
    wait_call(&world, "far", "notify EndInboundFlush");
    assert_eq!(world.queued(), Some(0));
}

#[test]
fn what_a_provider_keeps_waits_until_it_asks_for_it() {
    let world = started(&[("far", "end = [\"return deferred\", \"\"]")]);
    send(&world, &["bob@far.test"], "settle-again * delivered");
    let shown = world.wait_for("the message to be deferred", |world| {
        let output = world.spoolctl(&["queue", "show", "1"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.contains("deferred").then_some(text)
    });
    assert!(shown.contains("bob@far.test"), "{shown}");
    wait_call(&world, "far", "end ");
    assert_eq!(calls(&world, "far").iter().filter(|call| call.starts_with("submit ")).count(), 1);
    // Another message makes the provider ask for the first one.
    send(&world, &["eve@far.test"], "settle * delivered\nnotify deferred");
    world.wait_empty();
    let far = calls(&world, "far");
    let again: Vec<&String> = far.iter().filter(|call| call.ends_with("deferred before")).collect();
    assert_eq!(again.len(), 1, "{far:#?}");
    assert!(again[0].contains("to bob@far.test"), "{far:#?}");
}

#[test]
fn a_worker_that_goes_leaves_what_it_kept_to_the_next_one() {
    let world = started(&[("far", "end = [\"return deferred\", \"\"]")]);
    send(&world, &["bob@far.test"], "settle-if open delivered");
    wait_call(&world, "far", "end ");
    fs::write(world.path("far/open"), "").unwrap();
    world.restart("far");
    world.wait_empty();
    let far = calls(&world, "far");
    assert_eq!(far.iter().filter(|call| call.starts_with("submit ")).count(), 2, "{far:#?}");
    assert!(!far.iter().any(|call| call.ends_with("deferred before")), "the next worker has kept nothing: {far:#?}");
}

#[test]
fn a_person_answers_what_a_provider_asks_at_logon() {
    let mut world = world(&[("far", "prompts = [\"password\"]")]);
    world.start_unready();
    let row = world.wait_for("the question", |world| world.provider("far").filter(|row| row["state"] == "failed"));
    assert!(row["text"].as_str().unwrap().contains("spoolctl logon far"), "{row}");
    send(&world, &["bob@far.test"], "settle * delivered");
    let output = world.client("spoolctl", &["logon", "far"], b"open sesame\n");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().last(), Some("far is logged on"), "{output:?}");
    world.wait_empty();
    assert!(calls(&world, "far").contains(&"answer open sesame".to_owned()));
    assert!(!world.log().contains("sesame"), "an answer is a secret");
    // The next worker is not a reason to ask again.
    world.restart("far");
    world.wait_for("the next worker", |world| {
        (calls(world, "far").iter().filter(|call| *call == "answer open sesame").count() == 2).then_some(())
    });
}

#[test]
fn only_who_wishes_it_sees_the_recipients_of_others() {
    let world = started(&[("far", "wishes = [\"resolve\"]"), ("home", "")]);
    send(&world, &["bob@far.test", "eve@home.test"], "settle * delivered");
    world.wait_empty();
    let (far, home) = (calls(&world, "far"), calls(&world, "home"));
    assert!(far[position(&far, "submit ")].ends_with("to bob@far.test others eve@home.test"), "{far:#?}");
    assert!(home[position(&home, "submit ")].ends_with("to eve@home.test others "), "{home:#?}");
}

#[test]
fn what_a_provider_wants_told_is_told_unless_the_sender_never_wants_to_hear() {
    let world = started(&[("far", ""), ("home", "")]);
    let both = "report 0 delivered\nreport 0 delivered\nsettle 0 failed";
    send(&world, &["-N", "never", "bob@far.test"], both);
    world.wait_empty();
    assert!(!calls(&world, "home").iter().any(|call| call.starts_with("submit ")), "NOTIFY=NEVER (RFC 3461, 4.1)");
    // Nobody asked for a report of success, but the provider wants it; each is told once.
    send(&world, &["bob@far.test"], both);
    world.wait_for("both reports", |world| {
        let home = calls(world, "home");
        (home.iter().filter(|call| call.starts_with("submit ")).count() == 2).then_some(())
    });
    let home = calls(&world, "home");
    assert!(home.iter().filter(|call| call.starts_with("submit ")).all(|call| call.contains("to ann@home.test")));
}
