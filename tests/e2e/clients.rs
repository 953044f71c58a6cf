//! Programs that people send mail with, from their command line to the far end: by `sendmail` and by SMTP. What is not installed is
//! skipped by name.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::sink::{Arrived, Sink};
use crate::world::World;
use crate::{IN, relay};

/// What a person writes.
const TEXT: &str = "hello\n.\n.dot\nend\n";
/// What arrives of it.
const BODY: &str = "\r\n\r\nhello\r\n.\r\n.dot\r\nend\r\n";
/// The recipients of everything, the blind one last.
const RECIPIENTS: [&str; 3] = ["cc@x.test", "hidden@x.test", "to@x.test"];

/// A spooler before a sink, with files for the client.
struct Desk {
    world: World,
    sink: Sink,
}

impl Desk {
    /// `None` and a word on standard error if the client is not there.
    fn of(client: &str) -> Option<Self> {
        Self::before(Sink::start(), client)
    }

    fn before(sink: Sink, client: &str) -> Option<Self> {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&folders).any(|folder| folder.join(client).exists()) {
            eprintln!("skipped: {client} is not installed");
            return None;
        }
        let world = World::running(&format!("{IN}{}", relay(sink.port)));
        Some(Self { world, sink })
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.world.path(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn sendmail(&self) -> String {
        self.world.tool("sendmail").display().to_string()
    }

    fn server(&self) -> String {
        format!("127.0.0.1:{}", self.world.port("submission"))
    }

    /// A client without the settings of whoever runs the tests.
    fn client(&self, program: &str) -> Command {
        let mut command = self.world.command(program);
        command.current_dir(self.world.path("mail")).env("HOME", self.world.path("mail")).env("MAILRC", "/dev/null");
        command
    }

    /// Runs a client to its good end.
    fn run(&self, client: &mut Command, input: &str) -> String {
        let mut child = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A client need not read.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{client:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What has arrived, once there is nothing left to come.
    fn arrived(&self) -> Vec<Arrived> {
        self.world.wait_empty();
        self.sink.arrived()
    }

    /// The only message that has arrived.
    fn only(&self) -> Arrived {
        let mut arrived = self.arrived();
        assert_eq!(arrived.len(), 1, "{arrived:?}");
        arrived.remove(0)
    }
}

/// Everybody got it, nobody learns of the blind one, and what a message must have is there once.
fn check(mut message: Arrived) {
    message.to.sort();
    assert_eq!(message.to, RECIPIENTS);
    let content = String::from_utf8(message.content).unwrap();
    let (header, _) = content.split_once("\r\n\r\n").unwrap();
    let names: Vec<String> =
        header.lines().filter_map(|line| Some(line.split_once(':')?.0.to_ascii_lowercase())).collect();
    for name in ["from", "date", "message-id", "to", "cc", "subject"] {
        assert_eq!(names.iter().filter(|found| *found == name).count(), 1, "{name} in\n{header}");
    }
    assert!(!header.to_lowercase().contains("bcc") && !content.contains("hidden@"), "{header}");
    assert!(content.ends_with(BODY), "{content:?}");
}

#[test]
fn bsd_mailx() {
    let Some(desk) = Desk::of("bsd-mailx") else { return };
    let settings = desk.file("mailrc", &format!("set sendmail={}\n", desk.sendmail()));
    let arguments = ["-n", "-s", "hello", "-c", "cc@x.test", "-b", "hidden@x.test", "-r", "me@x.test", "to@x.test"];
    desk.run(desk.client("bsd-mailx").args(arguments).env("MAILRC", settings), TEXT);
    let message = desk.only();
    assert_eq!(message.from, "me@x.test");
    check(message);
}

#[test]
fn s_nail() {
    let Some(desk) = Desk::of("s-nail") else { return };
    let (agent, sender) = (format!("mta={}", desk.sendmail()), "me@x.test");
    let arguments = ["-n", "-S", &agent, "-S", "sendwait", "-S", "from=me@x.test", "-s", "hello"];
    let to = ["-r", sender, "-c", "cc@x.test", "-b", "hidden@x.test", "to@x.test"];
    desk.run(desk.client("s-nail").args(arguments).args(to), TEXT);
    let message = desk.only();
    assert_eq!(message.from, sender);
    check(message);
}

/// Settings of mutt that send by the world's sendmail.
fn muttrc(desk: &Desk, more: &str) -> String {
    let sendmail = desk.sendmail();
    desk.file(
        "muttrc",
        &format!(
            "set sendmail=\"{sendmail} -oem -oi\"\nset sendmail_wait=0\nset from=\"me@x.test\"\nset use_envelope_from=yes\n\
             set copy=no\nset record=\"\"\n{more}"
        ),
    )
}

#[test]
fn mutt() {
    let Some(desk) = Desk::of("mutt") else { return };
    let settings = muttrc(&desk, "");
    let arguments = ["-n", "-F", &settings, "-s", "hello", "-c", "cc@x.test", "-b", "hidden@x.test", "to@x.test"];
    desk.run(desk.client("mutt").args(arguments), TEXT);
    let message = desk.only();
    assert_eq!(message.from, "me@x.test");
    check(message);
}

#[test]
fn what_mutt_wishes_of_reports_reaches_the_next_hop() {
    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&said);
    let sink = Sink::scripted(move |line| {
        heard.lock().unwrap().push(line.to_owned());
        if line.starts_with("EHLO") {
            return Some("250-sink.test\r\n250-8BITMIME\r\n250 DSN".to_owned());
        }
        line.starts_with("RCPT").then(|| "451 4.2.0 later".to_owned())
    });
    let Some(desk) = Desk::before(sink, "mutt") else { return };
    let settings = muttrc(&desk, "set dsn_notify=\"failure,delay\"\nset dsn_return=hdrs\n");
    desk.run(desk.client("mutt").args(["-n", "-F", &settings, "-s", "hello", "to@x.test"]), TEXT);
    desk.world
        .wait_for("the message to be deferred", |world| (world.status()?["supervisor"]["deferred"] == 1).then_some(()));
    let shown = desk.world.spoolctl(&["queue", "show", "1", "--json"]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let notify = &shown["recipient_details"][0]["notify"];
    assert_eq!((&notify["failure"], &notify["delay"], &notify["success"]), (&true.into(), &true.into(), &false.into()));
    let said = said.lock().unwrap();
    let line = |begin: &str| said.iter().find(|line| line.starts_with(begin)).unwrap();
    assert!(line("MAIL").contains(" RET=HDRS"), "{said:?}");
    assert!(line("RCPT").contains(" NOTIFY=FAILURE,DELAY"), "{said:?}");
}

#[test]
fn a_patch_series_by_git() {
    let Some(desk) = Desk::of("git") else { return };
    let git = |arguments: &[&str]| {
        let mut command = desk.client("git");
        command.args(["-c", "user.name=Me", "-c", "user.email=me@x.test"]).args(arguments);
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        command
    };
    if !git(&["send-email", "--dump-aliases"]).output().unwrap().status.success() {
        return eprintln!("skipped: git send-email is not installed");
    }
    desk.run(&mut git(&["init", "-q"]), "");
    for number in 0..4 {
        desk.file("mail/file", &format!("line {number}\n.\n.dot\n"));
        desk.run(&mut git(&["add", "file"]), "");
        desk.run(&mut git(&["commit", "-q", "-m", &format!("change {number}")]), "");
    }
    let patches = desk.run(&mut git(&["format-patch", "-3"]), "");
    let server = format!("--smtp-server={}", desk.sendmail());
    let mut send =
        git(&["send-email", "--quiet", "--confirm=never", "--envelope-sender=me@x.test", "--suppress-cc=all", &server]);
    send.args(["--from=me@x.test", "--to=to@x.test", "--cc=cc@x.test", "--bcc=hidden@x.test"]).args(patches.lines());
    desk.run(&mut send, "");
    let arrived = desk.arrived();
    assert_eq!(arrived.len(), 3);
    let mut subjects: Vec<String> = Vec::new();
    for message in arrived {
        let content = String::from_utf8(message.content).unwrap();
        let mut to = message.to;
        to.sort();
        assert_eq!((message.from.as_str(), to.as_slice()), ("me@x.test", RECIPIENTS.map(str::to_owned).as_slice()));
        assert!(!content.contains("hidden@") && content.contains("\r\nMessage-ID: ") && content.contains("\r\nDate: "));
        subjects.extend(content.lines().find(|line| line.starts_with("Subject: ")).map(str::to_owned));
    }
    subjects.sort();
    assert_eq!(subjects, [1, 2, 3].map(|number| format!("Subject: [PATCH {number}/3] change {number}")));
}

#[test]
fn swaks() {
    let Some(desk) = Desk::of("swaks") else { return };
    let data = "From: me@x.test\\nTo: to@x.test\\nCc: cc@x.test\\nSubject: hello\\nDate: d\\nMessage-ID: <i@x>\\n\\nhello\\n.\\n.dot\\nend";
    for more in [&[][..], &["--pipeline"]] {
        let arguments =
            ["--server", &desk.server(), "--from", "me@x.test", "--to", &RECIPIENTS.join(","), "--data", data];
        desk.run(desk.client("swaks").args(arguments).args(more), "");
    }
    let arrived = desk.arrived();
    assert_eq!(arrived.len(), 2);
    arrived.into_iter().for_each(check);
}

/// A message as a file.
fn file_of(text: &str) -> String {
    format!("From: me@x.test\nTo: to@x.test\nCc: cc@x.test\nSubject: hello\nDate: d\nMessage-ID: <i@x>\n\n{text}")
}

#[test]
fn curl() {
    let Some(desk) = Desk::of("curl") else { return };
    let file = desk.file("message", &file_of(TEXT));
    let url = format!("smtp://{}", desk.server());
    let mut curl = desk.client("curl");
    curl.args(["-sS", "--crlf", "-T", &file, "--mail-from", "me@x.test", &url]);
    for recipient in RECIPIENTS {
        curl.args(["--mail-rcpt", recipient]);
    }
    desk.run(&mut curl, "");
    check(desk.only());
}

#[test]
fn python() {
    let Some(desk) = Desk::of("python3") else { return };
    let file = desk.file("message", &file_of(TEXT));
    let script = "
import smtplib, sys
from email.message import EmailMessage
host, port = sys.argv[1].split(':')
everybody = ['to@x.test', 'cc@x.test', 'hidden@x.test']
with smtplib.SMTP(host, int(port)) as server:
    server.sendmail('me@x.test', everybody, open(sys.argv[2]).read())
    message = EmailMessage()
    message['Subject'], message['From'], message['To'] = 'hello', 'me@x.test', 'to@x.test'
    message['Cc'], message['Bcc'] = 'cc@x.test', 'hidden@x.test'
    message['Date'], message['Message-ID'] = 'd', '<i@x>'
    message.set_content('hello\\n.\\n.dot\\nend\\n')
    server.send_message(message)
    message = EmailMessage()
    message['Subject'], message['From'], message['To'] = 'grüße', 'ä@exämple.org', 'ö@x.test'
    message.set_content('größe')
    server.send_message(message)
";
    desk.run(desk.client("python3").args(["-c", script, &desk.server(), &file]), "");
    let (utf8, plain): (Vec<_>, Vec<_>) = desk.arrived().into_iter().partition(|message| message.from.contains('ä'));
    assert_eq!((utf8.len(), plain.len()), (1, 2));
    plain.into_iter().for_each(check);
    assert_eq!((utf8[0].from.as_str(), utf8[0].to.as_slice()), ("ä@exämple.org", ["ö@x.test".to_owned()].as_slice()));
    assert!(String::from_utf8_lossy(&utf8[0].content).contains("\r\nSubject: grüße\r\n"));
}
