//! Addresses and headers on their way in: every entrance completes a submission in the same way.

use std::fs;

use nix::sys::signal::Signal;

use crate::sink::{Arrived, Sink};
use crate::smtp::Client;
use crate::tools::{bad, good};
use crate::world::World;
use crate::{IN, relay};

/// What cron writes.
const CRON: &str = "From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@host> job\n\noutput\n";

/// The header of the one message that arrived, and its body.
fn parts(message: &Arrived) -> (String, String) {
    let text = String::from_utf8(message.content.clone()).unwrap();
    let (header, body) = text.split_once("\r\n\r\n").unwrap();
    (format!("{header}\r\n"), body.to_owned())
}

/// Every entrance, by name, with a way to hand a message in.
const ENTRANCES: [&str; 5] = ["sendmail", "sendmail -bs", "spoolctl", "pick-up", "smtp-in"];

fn dialogue(sender: &str, recipient: &str, message: &str) -> String {
    let content = message.replace('\n', "\r\n");
    format!("EHLO x\r\nMAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n{content}.\r\nQUIT\r\n")
}

fn hand_in(world: &World, entrance: &str, sender: &str, recipient: &str, message: &str) {
    match entrance {
        "sendmail" => drop(good(&world.client("sendmail", &["-i", "-f", sender, recipient], message.as_bytes()))),
        "sendmail -bs" => {
            let said = good(&world.client("sendmail", &["-bs"], dialogue(sender, recipient, message).as_bytes()));
            assert!(said.contains("250 2.0.0 queued"), "{said}");
        }
        "spoolctl" => {
            let arguments = ["submit", "--from", sender, "--to", recipient];
            drop(good(&world.client("spoolctl", &arguments, message.as_bytes())));
        }
        "pick-up" => {
            let mut sendmail = world.command(world.tool("sendmail"));
            sendmail.env("SPOOLER_SOCKET", world.path("nobody.sock")).args(["-i", "-f", sender, recipient]);
            let input = world.path("message");
            fs::write(&input, message).unwrap();
            assert!(sendmail.stdin(fs::File::open(input).unwrap()).status().unwrap().success());
        }
        _ => {
            let mut client = Client::connect(world.port("submission")).unwrap();
            let reply = client.send(sender, &[recipient], message.replace('\n', "\r\n").as_bytes()).unwrap();
            assert!(reply.starts_with("250"), "{reply}");
        }
    }
}

/// Hands a message in by every entrance; what arrives, in the same order.
fn by_every_entrance(config: &str, sender: &str, recipient: &str, message: &str) -> Vec<Arrived> {
    let sink = Sink::start();
    let mut world = World::running(&format!("{IN}{}{config}", relay(sink.port)));
    let arrived = ENTRANCES.map(|entrance| {
        hand_in(&world, entrance, sender, recipient, message);
        if entrance == "pick-up" {
            // It is looked at when the spooler starts.
            world.stop();
            world.start();
        }
        sink.wait(1);
        world.wait_empty();
        let mut arrived = sink.take();
        assert_eq!(arrived.len(), 1, "{entrance}");
        arrived.remove(0)
    });
    arrived.into()
}

#[test]
fn every_entrance_completes_what_cron_writes() {
    for (entrance, message) in ENTRANCES.iter().zip(by_every_entrance("", "root", "root", CRON)) {
        assert_eq!(
            (message.from.as_str(), message.to.as_slice()),
            ("root@spooler.test", &["root@spooler.test".to_owned()][..])
        );
        let (header, body) = parts(&message);
        assert!(header.contains("\r\nFrom: root@spooler.test (Cron Daemon)\r\nTo: root@spooler.test\r\nSubject: Cron <root@host> job\r\n"), "{entrance}: {header}");
        assert!(header.contains("\r\nDate: ") && header.contains("\r\nMessage-ID: <"), "{entrance}: {header}");
        assert!(header.contains("@spooler.test>\r\n") && header.starts_with("Received: "), "{entrance}: {header}");
        assert_eq!(body, "output\r\n", "{entrance}");
    }
}

#[test]
fn bcc_leaves_by_no_entrance() {
    let message = "From: s@example.org\nTo: a@example.org\nBcc: b@example.org,\n c@example.org\nresent-bcc: d@example.org\nSubject: x\n\nhi\n";
    for (entrance, message) in ENTRANCES.iter().zip(by_every_entrance("", "s@example.org", "a@example.org", message)) {
        let (header, body) = parts(&message);
        assert!(!header.to_lowercase().contains("bcc") && !header.contains("c@example.org"), "{entrance}: {header}");
        assert!(header.contains("\r\nTo: a@example.org\r\nSubject: x\r\n") && body == "hi\r\n", "{entrance}: {header}");
    }
}

#[test]
fn text_without_header_stays_text_by_every_entrance() {
    let text = "  total 12\n-rw-r--r-- 1 root root 5 file\n";
    for (entrance, message) in ENTRANCES.iter().zip(by_every_entrance("", "s@x.test", "nh@x.test", text)) {
        let (header, body) = parts(&message);
        assert_eq!(body, text.replace('\n', "\r\n"), "{entrance}");
        assert!(header.contains("\r\nFrom: ") && !header.contains("total 12"), "{entrance}: {header}");
    }
}

#[test]
fn postmaster_needs_no_domain() {
    let local = "[provider.local]\nkind = \"maildir\"\nclaims = [\"@spooler.test\"]\npath = \"{dir}/mail/{local}\"\n";
    let world = World::running(&format!("{IN}{local}"));
    let mut client = Client::connect(world.port("submission")).unwrap();
    let reply = client.send("cron", &["postmaster", "root"], b"Subject: alarm\r\n\r\nhi\r\n").unwrap();
    assert!(reply.starts_with("250"), "{reply}");
    let refused = client.send("cron", &["root@elsewhere.test"], b"x\r\n").unwrap();
    assert!(refused.starts_with("550") || refused.starts_with("554"), "{refused}");
    world.wait_empty();
    for user in ["postmaster", "root"] {
        let file = fs::read_dir(world.path("mail").join(user).join("new")).unwrap().next().unwrap().unwrap();
        let text = fs::read_to_string(file.path()).unwrap();
        assert!(
            text.starts_with(&format!("Return-Path: <cron@spooler.test>\nDelivered-To: {user}@spooler.test\n")),
            "{text}"
        );
        assert!(text.contains("\nFrom: cron@spooler.test\n"), "{text}");
    }
}

#[test]
fn passed_on_mail_stays_as_it_is() {
    let sink = Sink::start();
    let passing = IN.replace("listen =", "submission = false\nlisten =");
    let world = World::running(&format!("{passing}{}", relay(sink.port)));
    let content = b"From: root\r\nBcc: b@x.test\r\n\r\nhi\r\n";
    let mut client = Client::connect(world.port("submission")).unwrap();
    assert!(client.send("s@x.test", &["a@x.test"], content).unwrap().starts_with("250"));
    let message = sink.wait(1).remove(0);
    assert!(message.content.starts_with(b"Received: from ") && message.content.ends_with(content));
    sink.take();
    good(&world.client("spoolctl", &["submit", "--as-is", "--from", "s@x.test", "--to", "a@x.test"], content));
    assert_eq!(sink.wait(1)[0].content, content);
}

#[test]
fn aliases_lead_to_each_recipient_once() {
    let sink = Sink::start();
    let aliases = "[aliases]\nroot = \"admin@example.org\"\nops = [\"root\", \"ann\", \"admin@example.org\"]\nfiles = [\"{dir}/aliases\"]\n";
    let world = World::new(&format!("{IN}{}{aliases}", relay(sink.port)));
    let path = world.path("aliases");
    fs::write(&path, "ann: ann@example.org\nbad: |/bin/sh\n").unwrap();
    let mut world = world;
    world.start();
    for entrance in ["sendmail", "smtp-in"] {
        hand_in(&world, entrance, "s@x.test", "OPS@spooler.test", CRON);
        let message = sink.wait(1).remove(0);
        let mut to = message.to.clone();
        to.sort();
        assert_eq!(to, ["admin@example.org", "ann@example.org"], "{entrance}");
        world.wait_empty();
        sink.take();
    }
    assert!(world.log().contains("aliases:2: has the program \"|/bin/sh\""), "{}", world.log());
    let way = good(&world.spoolctl(&["alias", "ann"]));
    assert_eq!(way, format!("ann@spooler.test   {}:1\n  ann@example.org\n", path.display()));
    // Other aliases are in effect as soon as they are read again.
    fs::write(&path, "ann: ann@example.net\n").unwrap();
    assert_eq!(good(&world.client("newaliases", &[], b"")), format!("{}: 1 alias, no mistakes\n", path.display()));
    hand_in(&world, "smtp-in", "s@x.test", "ann", CRON);
    assert_eq!(sink.wait(1)[0].to, ["ann@example.net"]);
    // A file that anybody can change is not used, and those before stay.
    world.wait_empty();
    sink.take();
    fs::write(&path, "ann: evil@example.net\n").unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let (code, said) = bad(&world.client("newaliases", &[], b""));
    assert!(code == 65 && said.contains("chmod go-w") && said.contains("stay as they were"), "{said}");
    world.signal(Signal::SIGHUP);
    world.wait_for("the refusal", |world| {
        world.log().contains("configuration refused, the old one stays").then_some(())
    });
    hand_in(&world, "sendmail", "s@x.test", "ann", CRON);
    assert_eq!(sink.wait(1)[0].to, ["ann@example.net"]);
}

#[test]
fn report_names_the_address_as_written() {
    let sink = Sink::scripted(|line| line.contains("TO:<gone@").then(|| "550 5.1.1 nobody here".to_owned()));
    let local = "[provider.local]\nkind = \"maildir\"\nclaims = [\"me@spooler.test\"]\npath = \"{dir}/mail/me\"\n";
    let config = format!("{local}{}[aliases]\nroot = \"gone@example.org\"\n", relay(sink.port));
    let world = World::running(&config);
    good(&world.client("sendmail", &["-i", "-f", "me", "root"], CRON.as_bytes()));
    world.wait_empty();
    let file = fs::read_dir(world.path("mail/me/new")).unwrap().next().unwrap().unwrap();
    let report = fs::read_to_string(file.path()).unwrap();
    assert!(
        report.contains("Original-Recipient: rfc822; root@spooler.test")
            || report.contains("Original-Recipient: rfc822;root@spooler.test"),
        "{report}"
    );
    assert!(report.contains("Final-Recipient: rfc822; gone@example.org"), "{report}");
}

#[test]
fn rewriting_follows_the_configuration_that_is_in_effect() {
    let sink = Sink::start();
    let head = format!("{IN}{}", relay(sink.port));
    let world = World::running(&format!(
        "{head}[rewrite]\nsender.\"root@spooler.test\" = \"alerts@example.org\"\nrecipient.\"@old.test\" = \"@new.test\"\n"
    ));
    hand_in(&world, "smtp-in", "root", "a@old.test", "To: A <a@old.test>\nFrom: root\n\nx\n");
    let message = sink.wait(1).remove(0);
    assert_eq!((message.from.as_str(), message.to.as_slice()), ("alerts@example.org", &["a@new.test".to_owned()][..]));
    let (header, _) = parts(&message);
    assert!(header.contains("To: A <a@new.test>\r\nFrom: alerts@example.org\r\n"), "{header}");
    world.wait_empty();
    sink.take();
    world.configure(&format!("{head}[rewrite]\nsender.\"*\" = \"all@example.org\"\nsender_scope = \"envelope\"\n"));
    world.signal(Signal::SIGHUP);
    world.wait_for("the new configuration", |world| world.log().contains("reloaded").then_some(()));
    hand_in(&world, "sendmail", "root", "a@old.test", "To: a@old.test\nFrom: root\n\nx\n");
    let message = sink.wait(1).remove(0);
    assert_eq!((message.from.as_str(), message.to.as_slice()), ("all@example.org", &["a@old.test".to_owned()][..]));
    assert!(parts(&message).0.contains("\r\nFrom: root@spooler.test\r\n"));
    let printed = good(&world.spooler(&["check", "--print"]));
    assert!(printed.contains("\nsender.\"*\" = \"all@example.org\"\n"), "{printed}");
}
