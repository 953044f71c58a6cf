//! The client tools as programs: what they send, say and exit with.

use std::fs;
use std::process::Command;

use spooler::system::pickup;
use spooler_protocol::control::{ApiError, MessageState, QueueAction};
use spooler_protocol::message::{BodyType, Notify};

use super::supervisor::{ENVELOPE, Running, feed};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn sendmail_queues_what_mutt_hands_it() {
    let running = Running::start();
    let arguments = ["-oem", "-oi", "-f", "env@x", "-N", "failure,delay", "-R", "hdrs", "--", "b@x", "c@x"];
    let output = feed(running.tool("sendmail").args(arguments), "From: a@x\n\n.\n\u{e4}\n".as_bytes());
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), String::new()));
    let books = running.books.books();
    let kept = &books.messages[0];
    assert_eq!(kept.envelope.sender, "env@x");
    assert_eq!(kept.envelope.body, BodyType::EightBit);
    let wanted = Notify { failure: true, delay: true, success: false };
    assert!(kept.envelope.recipients.iter().all(|recipient| recipient.notify == Some(wanted)));
    assert!(text(&kept.content).contains("\r\nFrom: a@x\r\nMessage-ID: <"), "{}", text(&kept.content));
    assert!(kept.content.ends_with("@box.origin.test>\r\n\r\n.\r\n\u{e4}\r\n".as_bytes()));
}

#[test]
fn sendmail_by_header_keeps_bcc_secret() {
    let running = Running::start();
    let message = "To: b@x\nBcc: hidden@x\nSubject: s\n\nhi\n.\nnot sent\n";
    assert!(feed(running.tool("spoolctl").args(["sendmail", "-t"]), message.as_bytes()).status.success());
    let books = running.books.books();
    let kept = &books.messages[0];
    assert_eq!(kept.envelope.recipients.len(), 2);
    let content = text(&kept.content);
    assert!(!content.contains("hidden") && content.ends_with("\r\n\r\nhi\r\n"), "{content}");
    assert!(content.contains("Date: ") && content.contains("Message-ID: <") && content.contains("From: "));
}

#[test]
fn sendmail_speaks_smtp() {
    let running = Running::start();
    let dialogue = "EHLO x\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\nSubject: s\r\n\r\n..\r\n.\r\nQUIT\r\n";
    let output = feed(running.tool("sendmail").arg("-bs"), dialogue.as_bytes());
    assert!(text(&output.stdout).contains("250 2.0.0 queued as 1\r\n221"), "{}", text(&output.stdout));
    assert!(text(&running.books.books().messages[0].content).ends_with("@box.origin.test>\r\n\r\n.\r\n"));
}

#[test]
fn exit_codes_tell_what_kind_of_failure_it_was() {
    let running = Running::start();
    for (arguments, code) in [(&["-Z"][..], 64), (&["-t"], 64), (&["a@x b@x"], 65), (&["-bd"], 64)] {
        let output = feed(running.tool("sendmail").args(arguments), b"x\n");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
    for (temporary, code) in [(true, 75), (false, 65)] {
        let error = ApiError { error: "the disk is full".to_owned(), temporary };
        running.books.change(|books| books.refuse_with = Some(error));
        let output = feed(running.tool("sendmail").arg("a@x"), b"x\n");
        assert_eq!(
            (output.status.code(), text(&output.stderr)),
            (Some(code), "sendmail: the disk is full\n".to_owned())
        );
    }
}

#[test]
fn a_message_that_is_too_large_is_told_so_while_it_is_sent() {
    let running = Running::start();
    let output = feed(running.tool("sendmail").args(["-i", "a@x"]), &vec![b'x'; 40_000_000]);
    assert_eq!(output.status.code(), Some(65), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("larger than"), "{}", text(&output.stderr));
}

#[test]
fn without_a_supervisor_messages_wait_in_the_pickup_folder() {
    let mut running = Running::start();
    running.stop();
    let folder = running.folder.path().join("pickup");
    let output = feed(running.tool("sendmail").args(["-v", "a@x"]), b"x\n");
    assert_eq!(output.status.code(), Some(75));
    assert!(text(&output.stderr).contains("No spooler is running"), "{}", text(&output.stderr));
    pickup::prepare(&folder).unwrap();
    let output = feed(running.tool("sendmail").args(["-v", "-f", "me@x", "a@x"]), b"Subject: s\n\nx");
    assert!(output.status.success() && text(&output.stdout).contains("left in"), "{}", text(&output.stdout));
    let found = pickup::scan(&folder, None).unwrap();
    let picked = pickup::read(&found[0].path, 10_000).unwrap();
    assert_eq!((picked.submit.envelope.sender.as_str(), found.len()), ("me@x", 1));
    assert!(picked.content.ends_with(b"Subject: s\r\n\r\nx\r\n"));
    let output = running.tool("spoolctl").arg("status").output().unwrap();
    assert_eq!(output.status.code(), Some(69));
    assert!(text(&output.stderr).contains("spooler run"));
}

#[test]
fn mailq_prints_what_mail_programs_expect() {
    let running = Running::start();
    let empty = running.tool("mailq").output().unwrap();
    assert_eq!(text(&empty.stdout), "Mail queue is empty\n");
    running.books.add_messages(2, 0, MessageState::Held);
    for name in ["mailq", "sendmail"] {
        let output = running.tool(name).args((name == "sendmail").then_some("-bp")).output().unwrap();
        let listing = text(&output.stdout);
        assert!(listing.starts_with("-Queue ID-  --Size-- ----Arrival Time----"), "{listing}");
        assert!(listing.contains("1!") && listing.contains(" s1@x\n") && listing.contains("(laid over)"), "{listing}");
        assert!(listing.ends_with("-- 1 Kbytes in 2 Requests.\n"), "{listing}");
    }
    assert!(running.tool("newaliases").output().unwrap().status.success());
}

#[test]
fn commands_on_nothing_in_particular_are_refused() {
    let running = Running::start();
    running.books.add_messages(2, 0, MessageState::Ready);
    for action in ["hold", "release", "retry", "delete"] {
        let output = running.tool("spoolctl").args(["queue", action]).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{action}");
        let output = running.tool("spoolctl").args(["queue", action, "--all"]).output().unwrap();
        assert!(text(&output.stdout).starts_with("2 messages "), "{action}");
    }
    let expected = [QueueAction::Hold, QueueAction::Release, QueueAction::Retry, QueueAction::Delete];
    assert_eq!(running.books.books().actions, expected);
    assert!(running.tool("spoolctl").args(["provider", "pause", "relay"]).output().unwrap().status.success());
    assert_eq!(running.books.books().provider_commands, ["relay Pause"]);
}

#[test]
fn listings_are_for_people_and_programs() {
    let running = Running::start();
    running.books.add_messages(3, 0, MessageState::Ready);
    let people = running.tool("spoolctl").args(["queue", "list", "--limit", "2"]).output().unwrap();
    let listing = text(&people.stdout);
    assert!(listing.contains("s1@x > ") && listing.contains("laid over") && !listing.contains("s3@x"), "{listing}");
    let programs = running.tool("spoolctl").args(["queue", "list", "--json"]).output().unwrap();
    assert_eq!(text(&programs.stdout).lines().count(), 3);
    let shown = running.tool("spoolctl").args(["queue", "show", "2"]).output().unwrap();
    assert!(text(&shown.stdout).contains("Sender       s2@x"), "{}", text(&shown.stdout));
    let status = running.tool("spoolctl").arg("status").output().unwrap();
    assert!(text(&status.stdout).contains("3 messages"), "{}", text(&status.stdout));
}

#[test]
fn spoolctl_submits_a_file_as_it_is() {
    let running = Running::start();
    let file = running.folder.path().join("letter");
    fs::write(&file, "no header\n").unwrap();
    let mut command = running.tool("spoolctl");
    let output =
        command.args(["submit", "--from", "me@x", "--to", "FAX:+1", "--priority", "urgent"]).arg(file).output();
    assert_eq!(text(&output.unwrap().stdout), "queued as 1\n");
    let books = running.books.books();
    assert_eq!(books.messages[0].content, b"no header\r\n");
    assert_eq!(books.messages[0].envelope.recipients[0].address.kind(), "FAX");
    assert_eq!(books.messages[0].envelope.priority, spooler_protocol::message::Priority::Urgent);
}

#[test]
fn curl_can_do_it_too() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("skipped: no curl here");
        return;
    }
    let running = Running::start();
    let message = running.folder.path().join("message");
    fs::write(&message, format!("{ENVELOPE}\n{}", "line\n".repeat(500_000 / 5))).unwrap();
    let curl = |arguments: &[&str]| {
        let mut command = Command::new("curl");
        let output = command.args(["-sS", "--unix-socket"]).arg(running.socket()).args(arguments).output().unwrap();
        text(&output.stdout)
    };
    let file = format!("@{}", message.display());
    assert_eq!(curl(&["--data-binary", &file, "http://x/v1/messages"]), "{\"id\":1}");
    assert_eq!(curl(&["-T", &message.display().to_string(), "-X", "POST", "http://x/v1/messages"]), "{\"id\":2}");
    assert!(running.books.books().messages[0].content.ends_with("line\r\n".repeat(100_000).as_bytes()));
    assert_eq!(curl(&["http://x/v1/messages?limit=1"]).lines().count(), 1);
    assert!(curl(&["-d", r#"{"action":"hold","filter":{}}"#, "http://x/v1/messages/do"]).contains("\"done\":2"));
}

#[test]
fn a_person_answers_what_a_provider_asks() {
    let running = Running::start();
    let output = feed(running.tool("spoolctl").args(["logon", "line"]), b"me\n1234\n");
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!((output.status.code(), out.as_str()), (Some(0), "line is logged on\n"), "{err}");
    assert!(err.contains("Your user: ") && err.contains("Your pin: ") && !err.contains("1234"), "{err}");
    let expected = ["line Logon false", "line Logon pin=1234,user=mefalse"];
    assert_eq!(running.books.books().provider_commands, expected);
}

#[test]
fn whoever_gives_up_a_logon_says_so() {
    let running = Running::start();
    let output = feed(running.tool("spoolctl").args(["logon", "line"]), b"me\n");
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert_eq!(running.books.books().provider_commands, ["line Logon false", "line Logon true"]);
    let output = running.tool("spoolctl").args(["logon", "../x"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64), "it would be another path");
}

#[test]
fn validating_says_what_became_of_each() {
    let running = Running::start();
    let one = running.tool("spoolctl").args(["provider", "validate", "line", "--connect"]).output().unwrap();
    assert_eq!((one.status.code(), text(&one.stdout).as_str()), (Some(0), "line is validated\n"));
    for all in [&["validate", "--config-changed"][..], &["provider", "validate", "--all", "--config-changed"]] {
        let output = running.tool("spoolctl").args(all).output().unwrap();
        assert_eq!(text(&output.stdout), "good is validated\nbad: it is paused\n");
        assert_eq!(output.status.code(), Some(75), "not all went well");
    }
    let all = "all Validate 0x100001";
    assert_eq!(running.books.books().provider_commands, ["line Validate 0x40001", all, all]);
}

#[test]
fn the_way_of_an_alias_is_shown() {
    let running = Running::start();
    let way = |name: &str| text(&feed(running.tool("spoolctl").args(["alias", name]), b"").stdout);
    assert_eq!(
        way("Root"),
        "Root@origin.test    /etc/aliases:3\n  ann@x.test\n  root@origin.test  leads back here: stays local\n"
    );
    assert_eq!(way("bob"), "bob@origin.test  is no alias\n");
    let json = text(&feed(running.tool("spoolctl").args(["alias", "root", "--json"]), b"").stdout);
    assert!(
        json.starts_with(r#"[{"depth":0,"address":"root@origin.test","written":"/etc/aliases:3","circle":false}"#),
        "{json}"
    );
}

#[test]
fn newaliases_says_how_the_files_are() {
    let running = Running::start();
    for (name, arguments) in [("newaliases", &[][..]), ("sendmail", &["-bi"])] {
        let output = feed(running.tool(name).args(arguments), b"");
        assert_eq!(text(&output.stdout), "/etc/aliases: 12 aliases, 1 mistake\n");
        assert_eq!(
            (output.status.code(), text(&output.stderr)),
            (Some(0), "/etc/aliases:7: has no colon\n".to_owned())
        );
    }
}
