//! Every way in, every sequence that some server takes for the end of a message, and the raw bytes that leave.
//!
//! What two readers could read differently is refused on the way in where a protocol says how lines end (SMTP, `sendmail -bs`), and made
//! harmless where programs hand over text (`sendmail`, the control socket, the pick-up folder). A NUL is removed by `sendmail`, and
//! refused by all others. On the way
//! out, not one byte of it is left: a tap between the relay and the next hop keeps everything that was said.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use spooler::system::pickup;

use crate::sink::{Arrived, Sink};
use crate::smtp::Client;
use crate::world::World;
use crate::{IN, relay};

/// Look-alikes of the end of a message: name, bytes.
const VECTORS: [(&str, &[u8]); 13] = [
    ("lf.lf", b"\n.\n"),
    ("lf.crlf", b"\n.\r\n"),
    ("crlf.lf", b"\r\n.\n"),
    ("cr.cr", b"\r.\r"),
    ("cr.lf", b"\r.\n"),
    ("lf.cr", b"\n.\r"),
    ("cr.crlf", b"\r.\r\n"),
    ("crlf.cr", b"\r\n.\r"),
    ("crlf.crcrlf", b"\r\n.\r\r\n"),
    ("crcrlf.crcrlf", b"\r\r\n.\r\r\n"),
    ("nul-before", b"\r\n\0.\r\n"),
    ("nul-after", b"\r\n.\0\r\n"),
    ("sp-after", b"\r\n. \r\n"),
];

/// The only one that a strict reader takes for text.
const TEXT: &str = "sp-after";

const SMUGGLED: &[u8] =
    b"MAIL FROM:<smug@x.test>\r\nRCPT TO:<victim@x.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n";

/// Between the relay and the sink: hands on what is said, and keeps what the relay said.
struct Tap {
    port: u16,
    said: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    fn before(sink: &Sink) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, behind) = (listener.local_addr().unwrap().port(), sink.port);
        let said = Arc::<Mutex<Vec<u8>>>::default();
        let kept = Arc::clone(&said);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", behind)) else { return };
                let (mut back, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut back, &mut to_client));
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || hand_on(client, server, &kept));
            }
        });
        Self { port, said }
    }

    fn said(&self) -> Vec<u8> {
        self.said.lock().unwrap().clone()
    }
}

fn hand_on(mut client: TcpStream, mut server: TcpStream, kept: &Mutex<Vec<u8>>) -> Option<()> {
    let mut piece = [0; 4096];
    loop {
        let count = client.read(&mut piece).ok().filter(|count| *count > 0)?;
        kept.lock().unwrap().extend_from_slice(&piece[..count]);
        server.write_all(&piece[..count]).ok()?;
    }
}

/// What must hold of everything that leaves: CRLF is the only line end, there is no NUL, and nobody speaks for the smuggler.
fn assert_harmless(said: &[u8]) {
    for (at, byte) in said.iter().enumerate() {
        let stray = match byte {
            b'\r' => said.get(at + 1) != Some(&b'\n'),
            b'\n' => at == 0 || said[at - 1] != b'\r',
            byte => *byte == 0,
        };
        let around = &said[at.saturating_sub(40)..said.len().min(at + 40)];
        assert!(!stray, "a stray byte left: {}", around.escape_ascii());
    }
    let lines: Vec<&[u8]> = said.split(|byte| *byte == b'\n').collect();
    let ends = lines.iter().filter(|line| **line == b".\r").count();
    let messages = lines.iter().filter(|line| **line == b"DATA\r").count();
    // In each message whose text came through, the smuggler's DATA is one line more, and his dot is stuffed.
    assert!(ends <= messages, "{ends} ends of {messages} messages");
}

/// Text of a program with CRLF line ends, computed in another way than the spooler does.
fn normalised(text: &[u8]) -> Vec<u8> {
    let text = text.iter().filter(|byte| **byte != 0).map(|byte| char::from(*byte)).collect::<String>();
    let text = text.replace("\r\n", "\n").replace('\r', " ").replace('\n', "\r\n");
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect()
}

fn message(vector: &[u8]) -> Vec<u8> {
    [b"From: a@b.test\r\nDate: d\r\nMessage-ID: <i@b.test>\r\nSubject: t\r\n\r\nline one", vector, SMUGGLED].concat()
}

fn has_nul(vector: &[u8]) -> bool {
    vector.contains(&0)
}

/// By SMTP, strictly: refused but for what is text. The reply comes at the true end, so the connection goes on.
fn by_data(world: &World) -> usize {
    let mut client = Client::connect(world.port("submission")).unwrap();
    for (name, vector) in VECTORS {
        for line in ["MAIL FROM:<data@b.test>", "RCPT TO:<one@x.test>", "DATA"] {
            client.command(line).unwrap();
        }
        client.write(&message(vector)).unwrap();
        let reply = client.reply().unwrap();
        assert_eq!(reply.starts_with("250 2.0.0 Queued"), name == TEXT, "{name}: {reply}");
        assert!(name == TEXT || reply.starts_with("550 5.5.2"), "{name}: {reply}");
    }
    1
}

/// By BDAT there is no end to be taken for another, but a later hop may have one.
fn by_bdat(world: &World) -> usize {
    let mut client = Client::connect(world.port("submission")).unwrap();
    for (name, vector) in VECTORS {
        for line in ["MAIL FROM:<bdat@b.test>", "RCPT TO:<one@x.test>"] {
            client.command(line).unwrap();
        }
        let (message, half) = (message(vector), 40);
        client.write(format!("BDAT {half}\r\n").as_bytes()).unwrap();
        client.write(&message[..half]).unwrap();
        assert!(client.reply().unwrap().starts_with("250"));
        client.write(format!("BDAT {} LAST\r\n", message.len() - half).as_bytes()).unwrap();
        client.write(&message[half..]).unwrap();
        let reply = client.reply().unwrap();
        assert_eq!(reply.starts_with("250 2.0.0 Queued"), name == TEXT, "{name}: {reply}");
    }
    1
}

/// `sendmail -bs` is as strict.
fn by_bs(world: &World) -> usize {
    for (name, vector) in VECTORS {
        let begin = b"EHLO x\r\nMAIL FROM:<bs@b.test>\r\nRCPT TO:<one@x.test>\r\nDATA\r\n";
        let output = world.client("sendmail", &["-bs"], &[begin, &*message(vector), b"QUIT\r\n"].concat());
        let replies = String::from_utf8_lossy(&output.stdout);
        assert_eq!(replies.contains("\r\n250 2.0.0 queued"), name == TEXT, "{name}: {replies}");
        assert_eq!(replies.matches("\r\n354 ").count(), 1, "{name}: {replies}");
    }
    1
}

/// `sendmail` takes text: line ends are mended, and a NUL is removed with a word on standard error.
fn by_sendmail(world: &World) -> usize {
    for (name, vector) in VECTORS {
        let output = world.client("sendmail", &["-i", "-f", "sendmail@b.test", "one@x.test"], &message(vector));
        assert!(output.status.success(), "{name}: {output:?}");
        let told = String::from_utf8_lossy(&output.stderr).contains("NUL");
        assert_eq!(told, has_nul(vector), "{name}: {output:?}");
    }
    VECTORS.len()
}

fn envelope(sender: &str) -> Value {
    json!({ "envelope": { "sender": sender, "recipients": [{ "address": "one@x.test" }] } })
}

fn by_socket(world: &World) -> usize {
    let mut accepted = 0;
    for (name, vector) in VECTORS {
        let body = [format!("{}\n", envelope("socket@b.test")).as_bytes(), &*message(vector)].concat();
        let (status, answer) = world.control().post("/v1/messages", &body).unwrap();
        assert_eq!(status, if has_nul(vector) { 400 } else { 200 }, "{name}: {answer}");
        accepted += usize::from(status == 200);
    }
    accepted
}

/// Files are left before the spooler starts; those with a NUL are set aside.
fn by_pickup(world: &World) -> usize {
    let folder = world.path("spool/pickup");
    pickup::prepare(&folder).unwrap();
    for (_, vector) in VECTORS {
        let submit = serde_json::from_value(envelope("pickup@b.test")).unwrap();
        pickup::deposit(&folder, &submit, &message(vector)).unwrap();
    }
    VECTORS.iter().filter(|(_, vector)| !has_nul(vector)).count()
}

/// Each message arrived once, from whom it was, to whom it was for, with the text that was written.
fn check_arrived(arrived: &[Arrived]) {
    for message in arrived {
        assert_eq!(message.to, ["one@x.test"], "{message:?}");
        assert!(message.from.ends_with("@b.test"), "{message:?}");
        let is_text = |vector: &[u8]| message.content.ends_with(&normalised(&[b"line one", vector, SMUGGLED].concat()));
        // By SMTP, what ends the smuggler's message ends the one around it.
        let ended = |vector: &[u8]| {
            let all = normalised(&[b"line one", vector, SMUGGLED].concat());
            let unstuffed = String::from_utf8_lossy(&all).replace("\r\n. \r\n", "\r\n \r\n");
            message.content.ends_with(unstuffed.strip_suffix(".\r\n").unwrap().as_bytes())
        };
        let known = VECTORS.iter().any(|(_, vector)| is_text(vector) || ended(vector));
        assert!(known, "nobody wrote {}", message.content.escape_ascii());
    }
}

#[test]
fn no_look_alike_of_an_end_comes_in_or_leaves() {
    let sink = Sink::start();
    let tap = Tap::before(&sink);
    let mut world = World::new(&format!("{IN}max_errors = 1000\n{}", relay(tap.port)));
    let mut accepted = by_pickup(&world);
    world.start();
    for entrance in [by_data, by_bdat, by_bs, by_sendmail, by_socket] {
        accepted += entrance(&world);
    }
    let arrived = sink.wait(accepted);
    world.wait_empty();
    assert_eq!(sink.arrived().len(), accepted, "{arrived:?}");
    check_arrived(&arrived);
    assert_harmless(&tap.said());
    let senders = |name: &str| arrived.iter().filter(|message| message.from.starts_with(name)).count();
    assert_eq!(["data", "bdat", "bs", "sendmail", "socket", "pickup"].map(senders), [1, 1, 1, 13, 11, 11]);
    let aside = std::fs::read_dir(world.path("spool/pickup/bad")).unwrap().count();
    assert_eq!(aside, 2, "files with a NUL are set aside");
}

#[test]
fn no_address_or_parameter_breaks_out_of_its_command() {
    let sink = Sink::start();
    let tap = Tap::before(&sink);
    let world = World::running(&format!("{IN}max_errors = 1000\n{}", relay(tap.port)));
    let mut client = Client::connect(world.port("submission")).unwrap();
    for line in [
        "MAIL FROM:<a@b.test\rRCPT TO:<victim@x.test>",
        "MAIL FROM:<a@b.test\nRCPT TO:<victim@x.test>",
        "MAIL FROM:<a@b.test\0>",
        "MAIL FROM:<a@b.test> ENVID=x+0D+0ARCPT",
        "MAIL FROM:<a@b.test> BODY=BINARYMIME",
        "MAIL FROM:<a@b.test> SIZE=1 SIZE=2",
        "MAIL FROM:<a@b.test>RCPT TO:<victim@x.test>",
        "MAIL FROM:<\"a\u{7f}\"@b.test>",
    ] {
        let reply = client.command(line).unwrap();
        assert!(reply.starts_with('5'), "{line:?}: {reply}");
    }
    assert!(client.command("MAIL FROM:<a@b.test>").unwrap().starts_with("250"));
    for line in [
        "RCPT TO:<one@x.test> ORCPT=rfc822;a+0D+0ADATA",
        "RCPT TO:<one@x.test> NOTIFY=NEVER,SUCCESS",
        "RCPT TO:<one@x.test\r\t>",
        "RCPT TO:<one@x.test> <victim@x.test>",
        "RCPT TO:<@evil.test,one@x.test>",
    ] {
        let reply = client.command(line).unwrap();
        assert!(reply.starts_with('5'), "{line:?}: {reply}");
    }
    for arguments in [["-f", "a\r\nRCPT TO:<victim@x.test>", "one@x.test"], ["-i", "--", "one@x.test\nDATA"]] {
        let output = world.client("sendmail", &arguments, b"Subject: t\n\nx\n");
        assert!(!output.status.success(), "{arguments:?}: {output:?}");
    }
    let sender = "a@b.test>\r\nRCPT TO:<victim@x.test";
    let to = json!({ "envelope": { "sender": "a@b.test", "recipients": [{ "address": "one@x.test\r\nDATA" }] } });
    for body in [envelope(sender), to] {
        let (status, answer) = world.control().post("/v1/messages", format!("{body}\nx\n").as_bytes()).unwrap();
        assert_eq!(status, 400, "{answer}");
    }
    // A header that looks like one more command, and one that names more recipients than it seems to.
    let hostile = b"From: a@b.test\nTo: one@x.test\rBcc: victim@x.test\nSubject: t\r\r\nBcc: victim@x.test\n\nx\n";
    let output = world.client("sendmail", &["-i", "-t", "-f", "a@b.test"], hostile);
    let arrived = if output.status.success() { sink.wait(1) } else { Vec::new() };
    world.wait_empty();
    let victims = arrived.iter().filter(|message| message.content.windows(4).any(|word| word == b"\nBcc")).count();
    assert_eq!(victims, 0, "{arrived:?}");
    assert_harmless(&tap.said());
}

#[test]
fn a_report_about_a_hostile_reply_and_message_is_harmless() {
    let sink = Sink::scripted(|line| {
        let reply = "550-5.1.1 no\u{0}such\u{1b}[31m\r\n550-5.1.1 .\r\n550 5.1.1 MAIL FROM:<smug@x.test>\u{85}";
        line.starts_with("RCPT TO:<one@").then(|| reply.to_owned())
    });
    let tap = Tap::before(&sink);
    let world = World::running(&relay(tap.port));
    let message = b"From: a@b.test\nSubject: t\r.\r\nX-Odd: \r\n .\r\n\r\n.\r.\nMAIL FROM:<smug@x.test>\n";
    let output =
        world.client("sendmail", &["-i", "-f", "a@b.test", "-N", "failure", "-V", "x\r\ny", "one@x.test"], message);
    assert!(output.status.success(), "{output:?}");
    let arrived = sink.wait(1);
    world.wait_empty();
    assert_eq!((arrived.len(), arrived[0].from.as_str(), &*arrived[0].to), (1, "", &["a@b.test".to_owned()][..]));
    let text = String::from_utf8_lossy(&arrived[0].content);
    assert!(text.contains("multipart/report") && text.contains("no?such?[31m"), "{text}");
    assert_harmless(&tap.said());
}
