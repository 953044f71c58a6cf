//! Real messages come out as they went in, but for what the rules of their way demand. The rules are stated here once more, as pure
//! functions that share no code with the programs.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use crate::sink::Sink;
use crate::smtp::Client;
use crate::world::World;
use crate::{IN, data, relay};

const SENDER: &str = "a@b.test";

/// The fields that `sendmail` adds where they are missing, in the order in which it adds them.
const ADDED: [&str; 3] = ["Date", "From", "Message-ID"];

fn messages() -> Vec<PathBuf> {
    data::own_messages().into_iter().chain(data::corpus()).collect()
}

/// A message taken apart: the fields of its header with their folded lines, and its body without the empty line between. CRLF line ends.
#[derive(Debug, PartialEq, Eq)]
struct Parts {
    fields: Vec<String>,
    body: String,
}

/// The rules of line ends: LF becomes CRLF, a bare CR a space, the last line has an end, and a NUL is removed.
fn lines_of(input: &[u8]) -> Vec<Vec<u8>> {
    let input: Vec<u8> = input.iter().copied().filter(|byte| *byte != 0).collect();
    let mut lines: Vec<Vec<u8>> = input.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
    // What is behind the last LF is no line unless something stands there; a CR at its end has no LF.
    let last = lines.pop().filter(|line| !line.is_empty());
    for line in &mut lines {
        line.pop_if(|byte| *byte == b'\r');
    }
    lines.extend(last);
    for byte in lines.iter_mut().flatten().filter(|byte| **byte == b'\r') {
        *byte = b' ';
    }
    lines
}

/// The `From ` line of an mbox goes; an empty line parts header and body, also where the program forgot it.
fn parts(input: &[u8]) -> Parts {
    let mut lines = lines_of(input);
    if lines.first().is_some_and(|line| line.starts_with(b"From ") || line.starts_with(b">From ")) {
        lines.remove(0);
    }
    let mut fields: Vec<String> = Vec::new();
    let mut header = 0;
    for line in &lines {
        let text = String::from_utf8_lossy(line) + "\r\n";
        match (field_name(line), fields.last_mut()) {
            (Some(_), _) => fields.push(text.into_owned()),
            (None, Some(field)) if matches!(line.first(), Some(b' ' | b'\t')) => field.push_str(&text),
            (None, _) => break,
        }
        header += 1;
    }
    let empty = usize::from(lines.get(header).is_some_and(Vec::is_empty));
    let body = lines.split_off(header + empty);
    let body = body.iter().map(|line| String::from_utf8_lossy(line).into_owned() + "\r\n").collect();
    Parts { fields, body }
}

/// Whether a field is one that no submission keeps.
fn is_dropped(field: &str) -> bool {
    let name = field_name(field.as_bytes()).unwrap_or_default();
    matches!(name.as_str(), "bcc" | "resent-bcc" | "return-path")
}

/// Compares what came out at the far end with what went in: which of the [`ADDED`] fields were added, each once. Addresses may have got a
/// domain.
fn added(sent: &Parts, found: &Parts, file: &std::path::Path) -> Vec<&'static str> {
    assert_eq!(found.body, sent.body, "{}", file.display());
    let unqualified = |field: &String| field.replace("@spooler.test", "");
    let kept: Vec<String> = sent.fields.iter().filter(|field| !is_dropped(field)).map(unqualified).collect();
    let mut found: Vec<String> = found.fields.iter().map(unqualified).collect();
    let lacks = |name: &&str| !kept.iter().any(|field| field_name(field.as_bytes()).as_deref() == Some(*name));
    let missing: Vec<&str> = ADDED.into_iter().filter(|name| lacks(&name.to_ascii_lowercase().as_str())).collect();
    for name in &missing {
        let prefix = format!("{name}: ");
        let at = found.iter().position(|field| field.starts_with(&prefix));
        found.remove(at.unwrap_or_else(|| panic!("{}: {name} is missing", file.display())));
    }
    assert_eq!(found, kept, "{}", file.display());
    missing
}

/// The name of the field that a line begins, in lower case.
fn field_name(line: &[u8]) -> Option<String> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let name = line[..colon].trim_ascii_end();
    let right = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    right.then(|| String::from_utf8(name.to_ascii_lowercase()).unwrap())
}

/// What a mail client makes of a file: CRLF line ends if the file has LF alone, and an end of the last line.
fn as_mail(input: &[u8]) -> Vec<u8> {
    let mut mail = input.to_vec();
    if !input.contains(&b'\r') {
        mail = input.split(|&byte| byte == b'\n').collect::<Vec<_>>().join(&b"\r\n"[..]);
    }
    if !mail.is_empty() && !mail.ends_with(b"\r\n") {
        mail.extend_from_slice(b"\r\n");
    }
    mail
}

/// The rule of `smtp-in`: lines end with CRLF, neither character stands alone, and there is no NUL.
fn is_strict(mail: &[u8]) -> bool {
    let pairs = mail.windows(2).filter(|pair| pair == b"\r\n").count();
    let count = |wanted: u8| mail.iter().filter(|byte| **byte == wanted).count();
    count(0) == 0 && count(b'\r') == pairs && count(b'\n') == pairs
}

#[test]
fn the_rules_say_what_they_should() {
    for (input, fields, body) in [
        (&b"From: a\nDate: d\n\nx\r\n.\n"[..], &["From: a\r\n", "Date: d\r\n"][..], "x\r\n.\r\n"),
        (b"From x\nA: 1\r2\n 3\n\ny\r", &["A: 1 2\r\n 3\r\n"], "y \r\n"),
        (b"date: 1", &["date: 1\r\n"], ""),
        (b"no header\n", &[], "no header\r\n"),
        (b"A: 1\nno field\n", &["A: 1\r\n"], "no field\r\n"),
        (b"", &[], ""),
        (b">From x\nA: 1\0\n\n\0y\n", &["A: 1\r\n"], "y\r\n"),
    ] {
        let found = parts(input);
        assert_eq!(
            (found.fields.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), found.body.as_str()),
            (fields, body)
        );
    }
    assert_eq!(as_mail(b"a\nb"), b"a\r\nb\r\n");
    for (mail, strict) in
        [(&b"a\r\n"[..], true), (b"", true), (b"a\n", false), (b"a\rb\r\n", false), (b"\0\r\n", false)]
    {
        assert_eq!(is_strict(mail), strict);
    }
}

#[test]
fn every_message_goes_from_sendmail_to_a_relay() {
    let sink = Sink::start();
    let world = World::running(&relay(sink.port));
    let (mut sent, mut repaired) = (HashMap::new(), 0);
    for (number, file) in messages().into_iter().enumerate() {
        let input = fs::read(&file).unwrap();
        let recipient = format!("m{number}@sink.test");
        let output = world.client("sendmail", &["-i", "-f", SENDER, &recipient], &input);
        assert_eq!(output.status.code(), Some(0), "{}: {output:?}", file.display());
        let told = String::from_utf8_lossy(&output.stderr).contains("NUL");
        assert_eq!(told, input.contains(&0), "{}: {output:?}", file.display());
        repaired += usize::from(told);
        assert!(sent.insert(recipient, (file, parts(&input))).is_none());
    }
    let arrived = sink.wait(sent.len());
    world.wait_empty();
    assert_eq!((arrived.len(), sink.arrived().len()), (sent.len(), sent.len()));
    let (count, mut completed) = (sent.len(), 0);
    for message in arrived {
        let (file, parts_sent) =
            message.to.first().and_then(|to| sent.remove(to)).expect("a stranger, or a second copy");
        assert_eq!(message.from, SENDER);
        let mut found = parts(&message.content);
        let trace = found.fields.remove(0);
        assert!(trace.starts_with("Received: by spooler.test (spooler, from userid "), "{trace}");
        completed += usize::from(!added(&parts_sent, &found, &file).is_empty());
    }
    println!(
        "sendmail to relay: {count} sent and compared ({completed} with fields added, {repaired} with a NUL removed)"
    );
}

#[test]
fn every_message_goes_from_smtp_to_a_maildir() {
    let local = "[provider.local]\nkind = \"maildir\"\nclaims = [\"@local.test\"]\npath = \"{dir}/mail/{local}\"\n";
    let world = World::running(&format!("{IN}{local}"));
    let mut client = Client::connect(world.port("submission")).unwrap();
    let (mut sent, mut refused) = (Vec::new(), 0);
    for (number, file) in messages().into_iter().enumerate() {
        let mail = as_mail(&fs::read(&file).unwrap());
        let user = format!("m{number}");
        let reply = client.send(SENDER, &[&format!("{user}@local.test")], &mail).expect("the connection broke");
        let code = if is_strict(&mail) { "250" } else { "550" };
        assert!(reply.starts_with(code), "{}: {reply}", file.display());
        if is_strict(&mail) {
            sent.push((user, file, mail));
        } else {
            refused += 1;
        }
    }
    world.wait_empty();
    assert!(sent.len() > refused, "{refused} refused, and no more than that sent");
    assert_eq!(world.status().unwrap()["supervisor"]["accepted"], sent.len());
    for (user, file, mail) in &sent {
        let mut found = parts(&only_file(&world, user));
        let front: Vec<String> = found.fields.drain(..3).collect();
        let given = [format!("Return-Path: <{SENDER}>\r\n"), format!("Delivered-To: {user}@local.test\r\n")];
        assert_eq!(front[..2], given);
        assert!(front[2].starts_with("Received: from test ("), "{}", front[2]);
        added(&parts(mail), &found, file);
    }
    println!(
        "smtp-in to maildir: {} sent and compared, {refused} refused for a bare CR, a bare LF or a NUL",
        sent.len()
    );
}

/// The one message that a user has.
fn only_file(world: &World, user: &str) -> Vec<u8> {
    let files: Vec<_> = fs::read_dir(world.path("mail").join(user).join("new")).unwrap().collect();
    assert_eq!(files.len(), 1, "{user}");
    fs::read(files[0].as_ref().unwrap().path()).unwrap()
}
