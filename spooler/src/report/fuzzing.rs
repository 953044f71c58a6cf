//! Reports about anything at all: every piece that a report quotes is somebody else's.
//!
//! What holds: a report has CRLF lines of at most 998 bytes and no NUL. It has the fields that it should have, each once, and three
//! parts; and there is a block for each recipient. Nothing that is quoted can add to any of these.

use bytes::Bytes;
use spooler_protocol::fuzzing::{assert_clean, sections};
use spooler_protocol::ids::MessageId;
use spooler_protocol::limits::ADDRESS_BYTES_MAX;
use spooler_protocol::message::Ret;
use spooler_protocol::outcome::{Cause, Reply};

use super::{Action, ReportInput, ReportKind, ReportedRecipient, build};

/// Input: what it is about (`f`, `d` or `s` for the kind, `h` for headers only, `u` for UTF-8, `c` `l` `s` for the cause) with the
/// host's name on a second line; sender and ENVID, a line each; recipients, a line each, with their ORCPT behind a `|`; the remote, the
/// code and the enhanced code, a line each, with the text of the reply below; the header; the body.
pub(crate) fn report(input: &[u8]) {
    let [about, sender, recipients, reply, header, body] = sections(input).map(String::from_utf8_lossy);
    let [_, _, _, _, raw_header, raw_body] = sections(input);
    drop((header, body));
    let (flags, hostname) = about.split_once('\n').unwrap_or((&about, ""));
    let (sender, envid) = sender.split_once('\n').unwrap_or((&sender, ""));
    let reply = reply_of(&reply, flags);
    let kind = match flags.chars().next() {
        Some('d') => ReportKind::Delayed { max_age_ms: u64::from_le_bytes(first_bytes(raw_body)) },
        Some('s') => ReportKind::Delivered,
        _ => ReportKind::Failed,
    };
    let action = match kind {
        ReportKind::Failed => Action::Failed,
        ReportKind::Delayed { .. } => Action::Delayed,
        ReportKind::Delivered => Action::Relayed,
    };
    let recipient = |line: &str| {
        let (address, orcpt) = line.split_once('|').map_or((line, None), |(address, orcpt)| (address, Some(orcpt)));
        Some(ReportedRecipient {
            address: address.parse().ok()?,
            orcpt: orcpt.map(str::to_owned),
            action,
            reply: reply.clone(),
            attempts: 3,
            last_attempt_ms: Some(u64::from_le_bytes(first_bytes(raw_header))),
        })
    };
    let recipients: Vec<ReportedRecipient> = recipients.lines().filter_map(recipient).take(50).collect();
    if recipients.is_empty() || sender.is_empty() || sender.len() > ADDRESS_BYTES_MAX {
        return;
    }
    let input = ReportInput {
        // Ours, and never longer: the configuration sees to that.
        hostname: hostname.chars().take(HOSTNAME_CHARS_MAX).collect(),
        sender: sender.to_owned(),
        envid: (!envid.is_empty()).then(|| envid.to_owned()),
        ret: flags.contains('h').then_some(Ret::Headers),
        message: MessageId(42),
        submitted_ms: u64::from_le_bytes(first_bytes(raw_header)),
        now_ms: 1_793_000_001_000,
        kind,
        recipients,
        header: Bytes::copy_from_slice(raw_header),
        body: Some(Bytes::copy_from_slice(raw_body)),
        original_smtputf8: flags.contains('u'),
    };
    check(&input, &build(&input));
}

/// Characters of a host's name (RFC 1035 2.3.4).
const HOSTNAME_CHARS_MAX: usize = 253;

fn first_bytes(bytes: &[u8]) -> [u8; 8] {
    let mut first = [0; 8];
    first.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    first
}

fn reply_of(text: &str, flags: &str) -> Reply {
    let mut lines = text.splitn(4, '\n');
    let mut next = || lines.next().unwrap_or_default().to_owned();
    let (remote, code, enhanced, text) = (next(), next(), next(), next());
    let cause = match flags.chars().nth(1) {
        Some('c') => Cause::Connect,
        Some('l') => Cause::Lost,
        Some('s') => Cause::Stalled,
        Some('o') => Cause::Local,
        _ => Cause::Remote,
    };
    Reply { cause, code: code.parse().unwrap_or(0), enhanced, text, remote, hop: None }.capped()
}

/// The fields of a report's own header, in lower case.
const FIELDS: [&str; 9] =
    ["from", "to", "subject", "date", "message-id", "mime-version", "auto-submitted", "content-type", "references"];

fn check(input: &ReportInput, report: &[u8]) {
    assert_clean("a report", report);
    assert!(report.split(|byte| *byte == b'\n').all(|line| line.len() <= 999));
    let text = String::from_utf8_lossy(report);
    let (head, rest) = text.split_once("\r\n\r\n").expect("a report has a header and a body");
    let mut names: Vec<String> = field_names(head);
    for name in ["from", "to", "subject", "date", "message-id", "mime-version", "content-type"] {
        assert_eq!(names.iter().filter(|found| *found == name).count(), 1, "{name} in {head}");
    }
    names.retain(|name| {
        !FIELDS.contains(&name.as_str()) && name != "in-reply-to" && name != "content-transfer-encoding"
    });
    assert!(names.is_empty(), "fields that nobody wrote: {names:?} in {head}");
    let boundary = head.split_once("boundary=\"").and_then(|(_, rest)| rest.split_once('"')).expect("a boundary").0;
    let (begin, end) = (format!("--{boundary}\r\n"), format!("--{boundary}--\r\n"));
    assert!(rest.ends_with(&end));
    let parts: Vec<&str> = rest.split(begin.as_str()).skip(1).collect();
    assert_eq!(parts.len(), 3, "three parts");
    assert_eq!(rest.matches(&format!("--{boundary}")).count(), 4);
    let (_, fields) = parts.get(1).and_then(|part| part.split_once("\r\n\r\n")).expect("a part has a header");
    let blocks: Vec<&str> = fields.trim_end().split("\r\n\r\n").collect();
    assert_eq!(blocks.len(), 1 + input.recipients.len(), "a block for each recipient: {fields}");
    for block in blocks.iter().skip(1) {
        let names = field_names(block);
        for name in ["final-recipient", "action", "status"] {
            assert_eq!(names.iter().filter(|found| *found == name).count(), 1, "{name} in {block}");
        }
    }
}

fn field_names(head: &str) -> Vec<String> {
    let lines = head.split("\r\n").filter(|line| !line.starts_with([' ', '\t']));
    lines.map(|line| line.split_once(':').expect("a field has a name").0.to_ascii_lowercase()).collect()
}
