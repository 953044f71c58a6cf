//! Filters and hooks between real providers: what a configuration says of them reaches the workers, and the queue keeps what came in.

use crate::sink::Sink;
use crate::world::World;
use crate::{IN, relay, smtp};

const MAIL: &[u8] = b"Subject: hello\r\n\r\nbody\r\n";

fn filter(provider: &str, kind: &str, script: &str) -> String {
    format!("[[provider.{provider}.{kind}]]\ncommand = [\"/bin/sh\", \"-c\", '''{script}''']\n")
}

#[test]
fn a_message_goes_through_hooks_and_preprocessors() {
    let sink = Sink::start();
    let world = World::running(&format!(
        "{IN}{}{}{}{}{}",
        filter("submission", "inbound_hook", r#"echo "{\"recipients\":[\"other@remote.test\"]}""#),
        relay(sink.port),
        filter("relay", "preprocess", "echo X-Filtered: yes; cat"),
        filter("relay", "preprocess", "test ! -e {dir}/closed || { echo closed for today >&2; exit 75; }"),
        filter("relay", "outbound_hook", "cat >{dir}/mail/new && mv {dir}/mail/new {dir}/mail/kept"),
    ));
    smtp::send(world.port("submission"), "a@b.test", &["x@remote.test"], MAIL);
    let arrived = sink.wait(1);
    assert_eq!(arrived[0].to, ["other@remote.test"]);
    let content = String::from_utf8(arrived[0].content.clone()).unwrap();
    assert!(content.starts_with("X-Filtered: yes\r\nReceived: ") && content.ends_with("\r\n\r\nbody\r\n"), "{content}");
    let kept = world.wait_for("the copy", |world| std::fs::read_to_string(world.path("mail/kept")).ok());
    assert_eq!(kept, content.replace('\r', ""));
    world.wait_empty();
    std::fs::write(world.path("closed"), "").unwrap();
    smtp::send(world.port("submission"), "a@b.test", &["x@remote.test"], MAIL);
    world.wait_for("the deferral with its reason", |world| {
        let listed = world.control().get("/v1/messages?to=other@")?;
        (listed.contains("deferred") && listed.contains("closed for today")).then_some(())
    });
}

#[test]
fn filters_never_have_roots_rights() {
    let local = "[provider.local]\nkind = \"maildir\"\npath = \"{dir}/mail/{local}\"\n";
    let mut world = World::new(&format!("{local}{}", filter("local", "preprocess", "cat")));
    let checked = world.spooler(&["check"]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && said.contains("provider.local has filters and no run_as"), "{said}");
    if !nix::unistd::getuid().is_root() {
        eprintln!("filters_never_have_roots_rights: the start is skipped, it needs root");
        return;
    }
    world.start_unready();
    let why = world.wait_for("the refusal", |world| world.provider("local")?["last_error"].as_str().map(str::to_owned));
    assert!(why.contains("root's rights over all files; set run_as"), "{why}");
}

#[test]
fn a_wrong_filter_is_found_with_its_line() {
    let world =
        World::new(&format!("{IN}{}", filter("submission", "inbound_hook", "true").replace("command", "comand")));
    let checked = world.spooler(&["check"]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert_eq!(checked.status.code(), Some(78), "{said}");
    assert!(said.contains("provider.submission.inbound_hook.0.comand") && said.contains("command"), "{said}");
}
