//! A message that kills its worker each time, among thousands that do not: it is set aside after three deaths, all others are delivered,
//! and people are told.
//!
//! `SPOOLER_OTHERS=10000` is the full figure; the checks are content with fewer.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use serde_json::{Value, json};

use crate::sink::Sink;
use crate::tools::good;
use crate::world::World;
use crate::{IN, relay, smtp};

/// Deliveries that the provider `fault` has in its hands at most.
const CREDIT: u64 = 4;

fn config(sink: &Sink) -> String {
    format!(
        "postmaster = \"post@local.test\"\n[scheduler]\ngate = \"off\"\n{IN}\
         [provider.local]\nkind = \"maildir\"\nclaims = [\"@local.test\"]\npath = \"{{dir}}/mail/local\"\n\
         [provider.fault]\nkind = \"fault\"\nclaims = [\"@fault.test\"]\naddress_types = [\"FAULT\"]\njournal = \"{{dir}}/journal\"\n{}",
        relay(sink.port)
    )
}

fn submit_poison(world: &World) {
    let submit = ["submit", "--from", "a@b.test", "--to", "FAULT:crash"];
    good(&world.client("spoolctl", &submit, b"Subject: poison\r\n\r\nbody\r\n"));
}

/// What is on disk of the only message in quarantine.
fn detail(world: &World) -> Value {
    let listed = world.wait_for("the quarantine to be on disk", |world| {
        let listed = world.control().get("/v1/messages?state=quarantined")?;
        serde_json::from_str::<Value>(listed.trim()).ok()
    });
    let id = listed["id"].as_u64().unwrap();
    serde_json::from_str(&world.control().get(&format!("/v1/messages/{id}")).unwrap()).unwrap()
}

fn wait_quarantined(world: &World) -> Value {
    world.wait_for("the poison to be all that is left", |world| {
        let row = world.status()?["supervisor"].clone();
        (row["queued"] == 1 && row["quarantined"] == 1).then_some(row)
    })
}

fn check_deaths(detail: &Value) {
    let deaths = detail["deaths"].as_array().unwrap();
    assert_eq!(deaths.len(), 3, "{detail:#}");
    for death in deaths {
        assert_eq!((&death["provider"], &death["phase"]), (&"fault".into(), &"setting fire".into()), "{death:#}");
        assert_eq!(death["cause"], "signal 4 (SIGILL)", "{death:#}");
        let words = death["stderr_tail"].as_array().unwrap();
        assert!(words.iter().any(|line| line == "the paper tray is on fire"), "{death:#}");
    }
    // Only the first death was in company, if any was.
    assert_eq!((&deaths[1]["company"], &deaths[2]["company"]), (&0.into(), &0.into()), "{detail:#}");
}

/// How often each message was delivered by the provider that the poison kills.
fn journal(world: &World) -> BTreeMap<String, u64> {
    let mut copies = BTreeMap::new();
    for id in fs::read_to_string(world.path("journal")).unwrap().lines() {
        *copies.entry(id.to_owned()).or_default() += 1;
    }
    copies
}

#[test]
fn among_thousands_it_alone_is_set_aside() {
    let others: usize = std::env::var("SPOOLER_OTHERS").map_or(1000, |text| text.parse().unwrap());
    let sink = Sink::start();
    let world = World::rogue(&config(&sink));
    let port = world.port("submission");
    let start = Instant::now();
    std::thread::scope(|scope| {
        for client in 0..4 {
            let world = &world;
            scope.spawn(move || {
                let mut smtp = smtp::Client::connect(port).unwrap();
                for number in (client..others).step_by(4) {
                    if number == others / 4 {
                        submit_poison(world);
                    }
                    let to = if number.is_multiple_of(2) { "x@fault.test" } else { "x@remote.test" };
                    let content = format!("Subject: {number}\r\n\r\nbody\r\n");
                    let reply = smtp.send("a@b.test", &[to], content.as_bytes()).unwrap();
                    assert!(reply.starts_with("250"), "refused: {reply}");
                }
            });
        }
    });
    let row = wait_quarantined(&world);
    let (seconds, local) = (start.elapsed().as_secs_f64(), journal(&world));
    let remote: Vec<Vec<u8>> = sink.take().into_iter().map(|arrived| arrived.content).collect();
    let copies = local.values().sum::<u64>() - local.len() as u64;
    println!(
        "{others} others: {} by the provider that was killed, {} by another; {copies} copies too many; {seconds:.1} s",
        local.len(),
        remote.len()
    );
    assert_eq!((local.len(), remote.len()), (others.div_ceil(2), others / 2), "all are delivered");
    assert_eq!(row["failed"], 0, "{row}");
    assert!(copies < CREDIT, "only what was in company at the first death may come twice");
    assert_eq!(world.provider("fault").unwrap()["deaths"], 3);
    check_deaths(&detail(&world));
}

#[test]
fn what_is_known_of_it_survives_a_restart_and_people_are_told() {
    let sink = Sink::start();
    let mut world = World::rogue(&config(&sink));
    submit_poison(&world);
    // The notice is a message, too; once it is delivered, the poison is all that is left.
    world.wait_for("the notice", |world| fs::read_dir(world.path("mail/local/new")).ok()?.flatten().next());
    wait_quarantined(&world);
    world.crash();
    world.start();
    let known = detail(&world);
    check_deaths(&known);
    let id = known["id"].as_u64().unwrap().to_string();

    let shown = good(&world.spoolctl(&["queue", "show", &id]));
    for words in ["quarantined", "died 3 times", "SIGILL", "while setting fire", "| the paper tray is on fire"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let status = good(&world.spoolctl(&["status"]));
    assert!(status.contains(&format!("quarantine: 1; last message {id}")), "{status}");
    let file = fs::read_dir(world.path("mail/local/new")).unwrap().next().unwrap().unwrap();
    let notice = fs::read_to_string(file.path()).unwrap();
    for words in
        ["To: <post@local.test>", "from <a@b.test>", "to <FAULT:crash>", "SIGILL", "paper tray", "queue release"]
    {
        assert!(notice.contains(words), "{words}: {notice}");
    }

    // Another chance, which it does not use; then it is forgotten.
    good(&world.spoolctl(&["queue", "release", "--state", "quarantined"]));
    world.wait_for("three more deaths", |world| (world.provider("fault")?["deaths"] == 3).then_some(()));
    wait_quarantined(&world);
    check_deaths(&detail(&world));
    let delete = json!({ "action": "delete", "filter": { "state": "quarantined" } });
    world.post("/v1/messages/do", &delete);
    world.wait_empty();
}
