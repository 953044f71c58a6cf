//! What senders are told about their messages (RFC 3461, 3464), as their own programs read it.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::sink::Sink;
use crate::world::World;

const SENDER: &str = "ann@local.test";
const MAIL: &[u8] = b"From: ann@local.test\nDate: d\nMessage-ID: <original@local.test>\nSubject: hello\n\nthe body\n";

/// What the relay says to `bad@remote.test`.
const REFUSAL: &str = "550-5.1.1 There is nobody of this name here.\r\n550-5.1.1 See <https://remote.test/why?a=b> (in\r\n550 5.1.1 many languages).";

/// A relay for `@remote.test` and maildirs for `@local.test`, where senders live.
struct Post {
    world: World,
    said: Arc<Mutex<Vec<String>>>,
}

impl Post {
    /// With a relay that refuses `bad@` for good and `later@` for now, and further sections of the configuration.
    fn open(more: &str) -> Self {
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        let sink = Sink::scripted(move |line| {
            heard.lock().unwrap().push(line.to_owned());
            match line {
                "RCPT TO:<bad@remote.test>" => Some(REFUSAL.to_owned()),
                "RCPT TO:<later@remote.test>" => Some("451 4.2.0 come back later".to_owned()),
                _ => None,
            }
        });
        let world = World::running(&format!(
            "[provider.relay]\nkind = \"smtp\"\nhost = \"127.0.0.1:{}\"\ntls = \"none\"\nclaims = [\"@remote.test\"]\n\
             [provider.local]\nkind = \"maildir\"\nclaims = [\"@local.test\"]\npath = \"{{dir}}/mail/{{local}}\"\n{more}",
            sink.port
        ));
        Self { world, said }
    }

    /// Sends a message of `SENDER`; options of sendmail come before the recipients.
    fn send(&self, arguments: &[&str]) {
        let output = self.world.client("sendmail", &[&["-i", "-f", SENDER], arguments].concat(), MAIL);
        assert!(output.status.success(), "{output:?}");
    }

    /// The lines with this beginning that the relay heard.
    fn heard(&self, begin: &str) -> Vec<String> {
        self.said.lock().unwrap().iter().filter(|line| line.starts_with(begin)).cloned().collect()
    }

    /// What lies in a maildir.
    fn letters(&self, user: &str) -> Vec<String> {
        let Ok(files) = fs::read_dir(self.world.path("mail").join(user).join("new")) else { return Vec::new() };
        files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect()
    }

    /// The only report that the sender has, once nothing is under way any more.
    fn only_report(&self) -> Report {
        self.world.wait_empty();
        let letters = self.letters("ann");
        assert_eq!(letters.len(), 1, "{letters:#?}");
        Report::of(&letters[0])
    }

    fn wait_deferred(&self, attempts: u64) -> Value {
        self.world.wait_for("the message to be deferred", |world| {
            let shown: Value =
                serde_json::from_slice(&world.spoolctl(&["queue", "show", "1", "--json"]).stdout).ok()?;
            (shown["state"] == "deferred" && shown["attempts"] == attempts).then_some(shown)
        })
    }
}

#[test]
fn ascii_sender_hears_of_utf8_recipient() {
    // A relay without SMTPUTF8, for the message and for the report about it.
    let offers = |line: &str| line.starts_with("EHLO").then(|| "250-sink.test\r\n250 8BITMIME".to_owned());
    let sink = Sink::scripted(offers);
    let world = World::running(&format!(
        "[provider.relay]\nkind = \"smtp\"\nhost = \"127.0.0.1:{}\"\ntls = \"none\"\n",
        sink.port
    ));
    let recipients = ["-i", "-f", "s@example.org", "--", "j\u{f6}rg@ex\u{e4}mple.example", "ok@example.org"];
    assert!(world.client("sendmail", &recipients, MAIL).status.success());
    let mut arrived = sink.wait(2);
    world.wait_empty();
    arrived.sort_by_key(|message| message.from.is_empty());
    let [message, report] = arrived.as_slice() else { panic!("{arrived:?}") };
    assert_eq!(
        (message.from.as_str(), message.to.as_slice()),
        ("s@example.org", ["ok@example.org".to_owned()].as_slice())
    );
    assert_eq!((report.from.as_str(), report.to.as_slice()), ("", ["s@example.org".to_owned()].as_slice()));
    let text = String::from_utf8(report.content.clone()).unwrap();
    assert!(text.is_ascii(), "{text}");
    for line in [
        "Final-Recipient: utf-8; j\\x{F6}rg@ex\\x{E4}mple.example",
        "Status: 5.6.7",
        "Content-Type: message/delivery-status",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
}

/// A report as Python's `email` understands it.
struct Report {
    text: String,
    /// `None` where there is no Python.
    parsed: Option<Value>,
}

impl Report {
    fn of(text: &str) -> Self {
        assert!(text.starts_with("Return-Path: <>\n"), "{text}");
        Self { text: text.to_owned(), parsed: parse(text) }
    }

    /// A field of the group of the only recipient.
    fn field(&self, name: &str) -> String {
        match &self.parsed {
            Some(parsed) => parsed["recipients"][0][name].as_str().unwrap_or_default().to_owned(),
            None => {
                let (begin, unfolded) = (format!("\n{name}: "), self.text.replace("\n ", " "));
                let found = unfolded.split_once(&begin).and_then(|(_, rest)| rest.split_once('\n'));
                found.map(|(value, _)| value.to_owned()).unwrap_or_default()
            }
        }
    }
}

/// The groups of fields of the second part, unfolded; the type and the content of the third.
fn parse(text: &str) -> Option<Value> {
    let script = "
import email, email.policy, json, sys
report = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.compat32)
assert report.get_content_type() == 'multipart/report' and report.get_param('report-type') == 'delivery-status'
person, status, returned = report.get_payload()
assert not any(part.defects for part in report.walk()), [part.defects for part in report.walk()]
assert person.get_content_type() == 'text/plain' and status.get_content_type() == 'message/delivery-status'
unfold = lambda value: ' '.join(line.strip() for line in value.splitlines())
groups = [{name: unfold(value) for name, value in group.items()} for group in status.get_payload()]
whole = returned.get_content_type() == 'message/rfc822'
content = returned.get_payload(0).as_string() if whole else returned.get_payload()
json.dump({'to': report['To'], 'auto': report['Auto-Submitted'], 'message': groups[0], 'recipients': groups[1:],
    'person': person.get_payload(), 'type': returned.get_content_type(), 'returned': content}, sys.stdout)
";
    let python = Command::new("python3").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut python) = python else {
        eprintln!("skipped: reading reports with Python, which is not installed");
        return None;
    };
    python.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "Python cannot read this:\n{text}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn a_refused_recipient_makes_one_report_with_what_the_remote_said() {
    let post = Post::open("");
    post.send(&["-V", "my+id", "bad@remote.test"]);
    let report = post.only_report();
    assert_eq!(report.field("Action"), "failed");
    assert_eq!(report.field("Status"), "5.1.1");
    assert_eq!(report.field("Final-Recipient"), "rfc822; bad@remote.test");
    assert!(report.field("Remote-MTA").starts_with("dns; 127.0.0.1"), "{}", report.text);
    let Some(parsed) = report.parsed else { return };
    let said = "There is nobody of this name here. See <https://remote.test/why?a=b> (in many languages).";
    assert_eq!(parsed["recipients"][0]["Diagnostic-Code"], format!("smtp; 550 5.1.1 {said}"));
    assert_eq!(parsed["message"]["Reporting-MTA"], "dns; spooler.test");
    assert_eq!(parsed["message"]["Original-Envelope-Id"], "my+id");
    assert_eq!((&parsed["to"], &parsed["auto"]), (&format!("<{SENDER}>").into(), &"auto-replied".into()));
    assert_eq!(parsed["recipients"].as_array().unwrap().len(), 1);
    let person = parsed["person"].as_str().unwrap();
    for line in REFUSAL.lines() {
        assert!(person.contains(line[4..].trim_start_matches("5.1.1 ")), "{person}");
    }
    assert_eq!(parsed["type"], "message/rfc822");
    assert!(parsed["returned"].as_str().unwrap().as_bytes().ends_with(MAIL));
}

#[test]
fn the_header_alone_goes_back_to_who_wants_no_more() {
    let post = Post::open("");
    post.send(&["-R", "hdrs", "bad@remote.test"]);
    let report = post.only_report();
    assert!(report.text.contains("Subject: hello") && !report.text.contains("the body"), "{}", report.text);
    let Some(parsed) = report.parsed else { return };
    assert_eq!(parsed["type"], "text/rfc822-headers");
}

#[test]
fn who_wants_no_report_or_has_no_address_gets_none() {
    let post = Post::open("");
    post.send(&["-N", "never", "bad@remote.test"]);
    post.send(&["-f", "<>", "bad@remote.test"]);
    // A report that cannot be delivered makes no further one.
    post.send(&["-f", "bad@remote.test", "bad@remote.test"]);
    post.world.wait_empty();
    assert_eq!(post.letters("ann"), [""; 0]);
    let mut senders = post.heard("MAIL");
    senders.iter_mut().for_each(|line| line.truncate(line.find('>').unwrap()));
    senders.sort();
    let expected = ["MAIL FROM:<", "MAIL FROM:<", "MAIL FROM:<ann@local.test", "MAIL FROM:<bad@remote.test"];
    assert_eq!(senders, expected);
}

#[test]
fn who_asks_is_told_of_success() {
    for (recipient, user, action) in [("bob@local.test", "bob", "delivered"), ("good@remote.test", "", "relayed")] {
        let post = Post::open("");
        post.send(&["-N", "success", recipient]);
        let report = post.only_report();
        assert_eq!(
            (report.field("Action"), report.field("Final-Recipient")),
            (action.to_owned(), format!("rfc822; {recipient}"))
        );
        assert!(report.field("Status").starts_with('2') && !report.text.contains("the body"), "{}", report.text);
        assert_eq!(post.letters(user).len(), usize::from(!user.is_empty()));
    }
}

#[test]
fn a_delay_is_told_once() {
    let post = Post::open("[retry]\nfirst = \"1h\"\ndelay_warning = \"1s\"\n");
    post.send(&["later@remote.test"]);
    post.wait_deferred(1);
    let told = post.world.wait_for("the warning", |_| post.letters("ann").pop());
    let report = Report::of(&told);
    assert_eq!((report.field("Action"), report.field("Status")), ("delayed".to_owned(), "4.2.0".to_owned()));
    assert!(!report.field("Will-Retry-Until").is_empty() && !report.text.contains("the body"), "{}", report.text);
    assert!(post.world.spoolctl(&["queue", "retry", "1"]).status.success());
    post.wait_deferred(2);
    let status = post.world.status().unwrap();
    assert_eq!((&status["supervisor"]["queued"], post.letters("ann").len()), (&1.into(), 1));
}

#[test]
fn what_cannot_be_delivered_in_time_fails() {
    let post = Post::open("[retry]\nfirst = \"20ms\"\nmax = \"20ms\"\nmax_age = \"50ms\"\ndelay_warning = \"0\"\n");
    post.send(&["later@remote.test"]);
    let report = post.only_report();
    assert_eq!((report.field("Action"), report.field("Status")), ("failed".to_owned(), "5.2.0".to_owned()));
    assert!(report.field("Diagnostic-Code").ends_with("451 4.2.0 come back later"), "{}", report.text);
}

#[test]
fn each_recipient_is_settled_for_itself() {
    let post = Post::open("");
    post.send(&["good@remote.test", "bad@remote.test", "later@remote.test", "bob@local.test"]);
    post.world.wait_for("the report and the local copy", |_| {
        (post.letters("ann").len() == 1 && post.letters("bob").len() == 1).then_some(())
    });
    // A failure is on disk with its report.
    let shown = post.wait_deferred(1);
    let of = |address: &str| {
        let details = shown["recipient_details"].as_array().unwrap();
        details.iter().find(|detail| detail["address"] == address).unwrap()["state"].clone()
    };
    assert_eq!(["bad@remote.test", "later@remote.test"].map(of), ["failed", "pending"]);
    let report = Report::of(&post.letters("ann")[0]);
    assert_eq!(report.field("Final-Recipient"), "rfc822; bad@remote.test");
    let before = post.heard("RCPT").len();
    assert!(post.world.spoolctl(&["queue", "retry", "1"]).status.success());
    post.wait_deferred(2);
    assert_eq!(post.heard("RCPT")[before..], ["RCPT TO:<later@remote.test>"]);
    assert_eq!((post.letters("ann").len(), post.letters("bob").len()), (1, 1));
}
