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

/// What comes out at the far end for what a program gave to `sendmail`.
#[derive(Debug, PartialEq, Eq)]
struct Expected {
    content: Vec<u8>,
    /// Fields that are added in front.
    missing: Vec<&'static str>,
    /// Whether an empty line had to be put between header and body.
    parted: bool,
}

/// The rules of `sendmail`: LF becomes CRLF, a bare CR a space; the `From ` line of an mbox goes; an empty line parts header and
/// body, also where the program forgot it; the last line has an end. A message with a NUL is refused: `None`.
fn expected(input: &[u8]) -> Option<Expected> {
    if input.contains(&0) {
        return None;
    }
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
    if lines.first().is_some_and(|line| line.starts_with(b"From ")) {
        lines.remove(0);
    }
    let mut names = Vec::new();
    let mut header = 0;
    for line in &lines {
        match field_name(line) {
            Some(name) => names.push(name),
            None if header > 0 && matches!(line.first(), Some(b' ' | b'\t')) => {}
            None => break,
        }
        header += 1;
    }
    let parted = lines.get(header).is_none_or(|line| !line.is_empty());
    if parted {
        lines.insert(header, Vec::new());
    }
    let missing = ADDED.into_iter().filter(|name| !names.contains(&name.to_ascii_lowercase())).collect();
    Some(Expected { content: lines.iter().flat_map(|line| [line, &b"\r\n"[..]].concat()).collect(), missing, parted })
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
    let all = ADDED.to_vec();
    for (input, content, missing, parted) in [
        (
            &b"From: a\nDate: d\nMessage-Id: m\n\nx\r\n.\n"[..],
            &b"From: a\r\nDate: d\r\nMessage-Id: m\r\n\r\nx\r\n.\r\n"[..],
            vec![],
            false,
        ),
        (b"From x\nA: 1\r2\n 3\n\ny\r", b"A: 1 2\r\n 3\r\n\r\ny \r\n", all.clone(), false),
        (b"date: 1", b"date: 1\r\n\r\n", vec!["From", "Message-ID"], true),
        (b"no header\n", b"\r\nno header\r\n", all.clone(), true),
        (b"", b"\r\n", all, true),
    ] {
        assert_eq!(expected(input), Some(Expected { content: content.to_vec(), missing, parted }));
    }
    assert_eq!(expected(b"A: 1\n\n\0"), None);
    assert_eq!(as_mail(b"a\nb"), b"a\r\nb\r\n");
    for (mail, strict) in
        [(&b"a\r\n"[..], true), (b"", true), (b"a\n", false), (b"a\rb\r\n", false), (b"\0\r\n", false)]
    {
        assert_eq!(is_strict(mail), strict);
    }
}

#[test]
fn every_message_goes_from_sendmail_to_a_relay_as_it_is() {
    let sink = Sink::start();
    let world = World::running(&relay(sink.port));
    let (mut sent, mut refused) = (HashMap::new(), 0);
    for (number, file) in messages().into_iter().enumerate() {
        let input = fs::read(&file).unwrap();
        let recipient = format!("m{number}@sink.test");
        let output = world.client("sendmail", &["-i", "-f", SENDER, &recipient], &input);
        let expected = expected(&input);
        let code = if expected.is_some() { 0 } else { 65 };
        assert_eq!(output.status.code(), Some(code), "{}: {output:?}", file.display());
        match expected {
            Some(expected) => assert!(sent.insert(recipient, (file, expected)).is_none()),
            None => refused += 1,
        }
    }
    let arrived = sink.wait(sent.len());
    world.wait_empty();
    assert_eq!((arrived.len(), sink.arrived().len()), (sent.len(), sent.len()));
    let parted = sent.values().filter(|(_, expected)| expected.parted).count();
    let completed = sent.values().filter(|(_, expected)| !expected.missing.is_empty()).count();
    let count = sent.len();
    for message in arrived {
        let (file, expected) = message.to.first().and_then(|to| sent.remove(to)).expect("a stranger, or a second copy");
        assert_eq!(message.from, SENDER);
        let added = message.content.strip_suffix(expected.content.as_slice());
        let added = added.unwrap_or_else(|| {
            panic!("{} has changed: {}", file.display(), difference(&expected.content, &message.content))
        });
        let names: Vec<_> = added.split_inclusive(|&byte| byte == b'\n').filter_map(field_name).collect();
        let wanted: Vec<_> = expected.missing.iter().map(|name| name.to_ascii_lowercase()).collect();
        assert_eq!(names, wanted, "{}: {}", file.display(), String::from_utf8_lossy(added));
    }
    println!(
        "sendmail to relay: {count} sent and compared ({completed} with fields added, {parted} with an empty line added), {refused} refused for a NUL"
    );
}

#[test]
fn every_message_goes_from_smtp_to_a_maildir_as_it_is() {
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
    assert_eq!(world.status().unwrap()["supervisor"]["accepted"], sent.len());
    for (user, file, mail) in &sent {
        let stored = only_file(&world, user);
        let expected: Vec<u8> = mail.split(|&byte| byte == b'\r').collect::<Vec<_>>().concat();
        let front = stored.strip_suffix(expected.as_slice());
        let front =
            front.unwrap_or_else(|| panic!("{} has changed: {}", file.display(), difference(&expected, &stored)));
        let front = String::from_utf8(front.to_vec()).unwrap();
        let given = format!("Return-Path: <{SENDER}>\nDelivered-To: {user}@local.test\nReceived: from test (");
        assert!(front.starts_with(&given), "{front}");
        assert!(front[given.len()..].lines().skip(1).all(|line| line.starts_with('\t')), "{front}");
    }
    println!(
        "smtp-in to maildir: {} sent and compared, {refused} refused for a bare CR, a bare LF or a NUL",
        sent.len()
    );
}

/// Where two messages part, seen from their ends, because what is added is added in front.
fn difference(expected: &[u8], found: &[u8]) -> String {
    let same = expected.iter().rev().zip(found.iter().rev()).take_while(|(one, other)| one == other).count();
    let tail = |bytes: &[u8]| {
        bytes[bytes.len().saturating_sub(same + 60)..].escape_ascii().to_string()[..]
            .chars()
            .take(200)
            .collect::<String>()
    };
    format!("expected {:?}, found {:?}", tail(expected), tail(found))
}

/// The one message that a user has.
fn only_file(world: &World, user: &str) -> Vec<u8> {
    let files: Vec<_> = fs::read_dir(world.path("mail").join(user).join("new")).unwrap().collect();
    assert_eq!(files.len(), 1, "{user}");
    fs::read(files[0].as_ref().unwrap().path()).unwrap()
}
