//! Mail that other servers are known to lose or to send astray: each case once, with the right outcome.
//!
//! A case of a program is a row of `SENDMAIL`; a case of the network is a row of `DIALOGUES`. Where `SPOOLER_SHARED` has the file of a
//! case, its bytes are tried, too.

use std::path::Path;
use std::{env, fs};

use crate::sink::Sink;
use crate::world::World;
use crate::{IN, relay};

/// How `sendmail` has to end.
enum Right {
    /// Exit code 0, and one message for each of these.
    For(&'static [&'static str]),
    /// This exit code, and nothing is sent.
    Code(i32),
}

use Right::{Code, For};

struct Case {
    /// The end of the file's name in the shared folder.
    name: &'static str,
    arguments: &'static [&'static str],
    message: &'static str,
    right: Right,
}

const fn case(name: &'static str, arguments: &'static [&'static str], message: &'static str, right: Right) -> Case {
    Case { name, arguments, message, right }
}

const TEXT: &str = "Subject: s\n\nhi\n";

const SENDMAIL: [Case; 15] = [
    case("nul-byte", &["-i", "a@sink.test"], "Subject: s\n\nbefore\0after\n", For(&["a@sink.test"])),
    case("t-display-names", &["-t"], "To: \u{5c71}\u{3000}\u{592a} <a@example.org>\n\nhi\n", For(&["a@example.org"])),
    case("t-no-break-space", &["-t"], "To: Pat\u{a0}B <a@example.org>\n\nhi\n", For(&["a@example.org"])),
    case("t-backslash", &["-t"], "To: Pat O\\'Brien <a@example.org>\n\nhi\n", For(&["a@example.org"])),
    case("t-comma", &["-t"], "To: Pat Brien, Jr. <a@example.org>\n\nhi\n", For(&["a@example.org"])),
    case("t-undisclosed", &["-t"], "To: Undisclosed Recipients\nBcc: b@example.org\n\nhi\n", For(&["b@example.org"])),
    case("t-empty-angle", &["-t"], "To: Undisclosed <>\nBcc: b@example.org\n\nhi\n", For(&["b@example.org"])),
    case("t-group", &["-t"], "To: <undisclosed-recipients:;>\nBcc: b@example.org\n\nhi\n", For(&["b@example.org"])),
    case("t-one-bad", &["-t", "-f", ""], "To: a@example.org, b@\n\nhi\n", For(&["a@example.org"])),
    case("q-with-message", &["-q", "a@example.org"], TEXT, Code(64)),
    case("qf-with-t", &["-qf", "-t"], "To: a@example.org\n\nhi\n", Code(64)),
    case("bp-with-t", &["-bp", "-t"], "To: a@example.org\n\nhi\n", Code(64)),
    case("e-apart", &["-e", "m", "-i", "a@example.org"], TEXT, For(&["a@example.org"])),
    case("from-line", &["a@example.org"], ">From x Mon Jan\nSubject: s\n\nhi\n", For(&["a@example.org"])),
    case("ignore-dots", &["-OIgnoreDots=true", "a@example.org"], "Subject: s\n\n.\nhi\n", For(&["a@example.org"])),
];

/// Dialogues with `smtp-in`, and who gets one copy each.
const DIALOGUES: [(&str, &str, &[&str]); 4] = [
    (
        "duplicate-rcpt",
        "EHLO x\r\nMAIL FROM:<s@local.test>\r\nRCPT TO:<dup@local.test>\r\nRCPT TO:<dup@local.test>\r\nDATA\r\nSubject: d\r\n\r\nhi\r\n.\r\n\
         QUIT\r\n",
        &["dup@local.test"],
    ),
    (
        "no-angle-brackets",
        "EHLO x\r\nMAIL FROM:s@example.org\r\nRCPT TO:a@example.org\r\nDATA\r\nSubject: x\r\n\r\nhi\r\n.\r\nQUIT\r\n",
        &["a@example.org"],
    ),
    (
        "ehlo-with-spaces",
        "EHLO A Printer 4000\r\nMAIL FROM:<s@example.org>\r\nRCPT TO:<a@example.org>\r\nDATA\r\nSubject: x\r\n\r\nhi\r\n.\r\nQUIT\r\n",
        &["a@example.org"],
    ),
    (
        "odd-brackets",
        "EHLO x\r\nMAIL FROM:\t<< s@example.org >>\r\nRCPT TO:< a@example.org >\r\nDATA\r\nSubject: x\r\n\r\nhi\r\n.\r\nQUIT\r\n",
        &["a@example.org"],
    ),
];

/// The bytes of a case as they were collected, if they are there.
fn collected(name: &str) -> Option<Vec<u8>> {
    let shared = env::var_os("SPOOLER_SHARED").unwrap_or_else(|| "../shared".into());
    let files = fs::read_dir(Path::new(&shared).join("cases/mail")).ok()?;
    let ending = format!("-{name}.in");
    let mut paths = files.filter_map(Result::ok).map(|entry| entry.path());
    let found = paths.find(|path| path.to_string_lossy().ends_with(&ending))?;
    Some(fs::read(found).unwrap())
}

fn texts(name: &str, own: &str) -> Vec<Vec<u8>> {
    std::iter::once(own.as_bytes().to_vec()).chain(collected(name)).collect()
}

/// Everything that has arrived since the last look, after the queue has become empty.
fn check(world: &World, sink: &Sink, right: &[&str], what: &str) {
    world.wait_empty();
    let arrived = sink.take();
    let mut recipients: Vec<String> = arrived.iter().flat_map(|message| message.to.clone()).collect();
    recipients.sort();
    assert_eq!(recipients, right, "{what}");
    for message in arrived {
        let text = String::from_utf8_lossy(&message.content);
        assert!(text.ends_with("hi\r\n") || text.ends_with("\r\nbeforeafter\r\n"), "{what}: {text}");
        assert!(!text.contains(">From"), "{what}: {text}");
    }
}

#[test]
fn sendmail_reaches_every_good_address() {
    let sink = Sink::start();
    let world = World::running(&relay(sink.port));
    for case in &SENDMAIL {
        for text in texts(case.name, case.message) {
            let output = world.client("sendmail", case.arguments, &text);
            let (code, recipients) = match case.right {
                For(recipients) => (0, recipients),
                Code(code) => (code, &[][..]),
            };
            assert_eq!(output.status.code(), Some(code), "{}: {output:?}", case.name);
            check(&world, &sink, recipients, case.name);
        }
    }
}

#[test]
fn sender_hears_of_the_bad_address() {
    let sink = Sink::start();
    let world = World::running(&relay(sink.port));
    let message = collected("one-bad-of-many").unwrap_or_else(|| b"To: a@example.org, b@\n\nhi\n".to_vec());
    let output = world.client("sendmail", &["-t", "-f", "s@example.org"], &message);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("\"b@\""), "{output:?}");
    world.wait_empty();
    let arrived = sink.take();
    let content_for = |recipient: &str| {
        let message = arrived.iter().find(|message| message.to == [recipient]);
        String::from_utf8_lossy(&message.expect(recipient).content).into_owned()
    };
    assert!(content_for("a@example.org").contains("To: a@example.org, b@"));
    let report = content_for("s@example.org");
    assert!(report.contains("Final-Recipient: rfc822; b@\r\nAction: failed\r\nStatus: 5.1.3\r\n"), "{report}");
    assert_eq!(arrived.len(), 2);
}

#[test]
fn smtp_in_takes_what_devices_say() {
    let sink = Sink::start();
    let world = World::running(&format!("{IN}{}", relay(sink.port)));
    for (name, dialogue, right) in DIALOGUES {
        for text in texts(name, dialogue) {
            let said = speak(world.port("submission"), &String::from_utf8(text).unwrap());
            assert!(said.contains("\r\n250 2.0.0") || said.contains("queued"), "{name}: {said}");
            check(&world, &sink, right, name);
        }
    }
}

/// Sends line by line and waits for each reply; inside DATA no reply comes until the dot.
fn speak(port: u16, dialogue: &str) -> String {
    use std::io::{BufRead, BufReader, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    let mut replies = BufReader::new(stream.try_clone().unwrap());
    let mut said = String::new();
    let mut reply = |said: &mut String| loop {
        let mut line = String::new();
        assert!(replies.read_line(&mut line).unwrap() > 0, "the server hung up after {said}");
        said.push_str(&line);
        if line.as_bytes().get(3) == Some(&b' ') {
            return line;
        }
    };
    reply(&mut said);
    let mut in_data = false;
    for line in dialogue.split_inclusive('\n') {
        stream.write_all(line.as_bytes()).unwrap();
        if !in_data || line == ".\r\n" {
            in_data = reply(&mut said).starts_with("354");
        }
    }
    said
}
