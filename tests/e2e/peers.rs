//! Other people's servers and programs at the far end, and what they have in the end.

use std::collections::BTreeSet;
use std::fs::{self, Permissions, set_permissions};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command};

use serde_json::Value;

use crate::dovecot::Dovecot;
use crate::tools::{good, relay};
use crate::world::World;

const SENDER: &str = "a@b.test";
const MAIL: &[u8] = b"From: a@b.test\nDate: d\nMessage-ID: <i@b.test>\nSubject: hello\n\n.\n.dot\nlast\n";

fn send(world: &World, recipients: &[&str]) {
    good(&world.client("sendmail", &[&["-i", "-f", SENDER], recipients].concat(), MAIL));
}

#[test]
fn dovecot_gets_mail_by_both_kinds_of_socket() {
    let Some(dovecot) = Dovecot::start("dovecot_gets_mail_by_both_kinds_of_socket") else { return };
    let lmtp = |name: &str, way: &str| {
        format!(
            "[provider.{name}]\nkind = \"smtp\"\nprotocol = \"lmtp\"\ntls = \"none\"\nclaims = [\"@{name}.test\"]\n{way}\n"
        )
    };
    let local = lmtp("local", &format!("socket = \"{}\"", dovecot.socket().display()));
    let tcp = lmtp("tcp", &format!("host = \"127.0.0.1:{}\"", dovecot.port()));
    let world = World::running(&(local + &tcp));
    let users = ["one@local.test", "two@local.test", "three@tcp.test"];
    for _ in 0..5 {
        send(&world, &users);
    }
    world.wait_empty();
    for user in users {
        let messages = dovecot.messages(user);
        assert_eq!(messages.len(), 5, "{user}");
        for message in messages {
            assert!(message.ends_with(MAIL), "{}", String::from_utf8_lossy(&message));
        }
    }
}

/// Postfix's sink, writing what it gets into one file.
struct PostfixSink {
    process: Child,
    port: u16,
}

impl PostfixSink {
    fn start(world: &World) -> Option<Self> {
        let folder = world.path("sink");
        fs::create_dir(&folder).unwrap();
        for folder in [world.path(""), folder.clone()] {
            set_permissions(folder, Permissions::from_mode(0o1777)).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("smtp-sink");
        if nix::unistd::geteuid().is_root() {
            command.args(["-u", "nobody"]);
        }
        let Ok(process) = command.args(["-D", "dump", &format!("127.0.0.1:{port}"), "10"]).current_dir(folder).spawn()
        else {
            eprintln!("skipped: smtp-sink is not installed");
            return None;
        };
        let sink = Self { process, port };
        world.wait_for("smtp-sink to listen", |_| TcpStream::connect(("127.0.0.1", port)).ok());
        Some(sink)
    }
}

impl Drop for PostfixSink {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn the_sink_of_postfix_gets_everything_once() {
    let mut world = World::new("");
    let Some(sink) = PostfixSink::start(&world) else { return };
    world.configure(&relay("relay", sink.port, "x.test"));
    world.start();
    for number in 0..20 {
        send(&world, &[&format!("u{number}@x.test")]);
    }
    world.wait_empty();
    let body = String::from_utf8(MAIL.to_vec()).unwrap();
    let text = world.wait_for("the dump to be complete", |world| {
        let text = fs::read_to_string(world.path("sink/dump")).ok()?.replace('\r', "");
        (text.matches(&body).count() >= 20).then_some(text)
    });
    assert_eq!(text.matches(&body).count(), 20);
    let recipients: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("X-Rcpt-Args: ")).collect();
    assert_eq!((recipients.len(), recipients.iter().collect::<BTreeSet<_>>().len()), (20, 20), "{recipients:?}");
}

#[test]
fn python_reads_what_is_in_a_maildir() {
    let script = "
import json, mailbox, sys
box = mailbox.Maildir(sys.argv[1], create=False)
found = [[message['Subject'], message.get_subdir(), message['Delivered-To'], message.get_payload()] for message in box]
json.dump(found, sys.stdout)
";
    let world = World::running(
        "[provider.local]\nkind = \"maildir\"\nclaims = [\"@local.test\"]\npath = \"{dir}/mail/{local}\"\n",
    );
    for _ in 0..3 {
        send(&world, &["ann@local.test"]);
    }
    world.wait_empty();
    let Ok(output) = Command::new("python3").args(["-c", script]).arg(world.path("mail/ann")).output() else {
        eprintln!("skipped: python3 is not installed");
        return;
    };
    let found: Value = serde_json::from_str(&good(&output)).unwrap();
    let one = serde_json::json!(["hello", "new", "ann@local.test", ".\n.dot\nlast\n"]);
    assert_eq!(found, serde_json::json!([one, one, one]));
}

#[test]
fn the_exit_code_of_a_program_decides() {
    let config = r#"[provider.pipe]
kind = "pipe"
claims = ["@pipe.test"]
shell = true
command = ["case $LOCAL in busy) exit 75;; nobody) echo 'nobody of this name' >&2; exit 67;; esac; cat > {dir}/mail/$LOCAL"]
"#;
    let world = World::running(config);
    let recipients = ["ann@pipe.test", "busy@pipe.test", "nobody@pipe.test"];
    let arguments = [&["-i", "-f", "me@pipe.test"][..], &recipients].concat();
    good(&world.client("sendmail", &arguments, MAIL));
    let shown: Value = world.wait_for("all to be tried, and that to be on disk", |world| {
        let shown: Value = serde_json::from_slice(&world.spoolctl(&["queue", "show", "1", "--json"]).stdout).ok()?;
        let said = shown["recipient_details"].as_array()?.iter().all(|detail| !detail["reply"].is_null());
        said.then_some(shown)
    });
    let details = shown["recipient_details"].as_array().unwrap();
    let found: Vec<(&str, &str)> = details
        .iter()
        .map(|detail| (detail["state"].as_str().unwrap(), detail["reply"]["text"].as_str().unwrap()))
        .collect();
    let expected = [
        ("delivered", "Delivered to the program"),
        ("pending", "The program ended with exit code 75: temporary failure"),
        ("failed", "nobody of this name"),
    ];
    assert_eq!(found, expected);
    let kept = fs::read(world.path("mail/ann")).unwrap();
    let kept = String::from_utf8_lossy(&kept);
    let front =
        "Return-Path: <me@pipe.test>\nDelivered-To: ann@pipe.test\nReceived: by spooler.test (spooler, from userid ";
    assert!(kept.starts_with(front) && kept.as_bytes().ends_with(MAIL), "{kept}");
    let report = world.wait_for("the report", |world| {
        fs::read_to_string(world.path("mail/me")).ok().filter(|report| report.ends_with("--\n"))
    });
    assert!(report.contains("Diagnostic-Code: x-spooler; nobody of this name\n"), "{report}");
}
