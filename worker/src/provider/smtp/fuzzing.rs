//! A server that says anything at all to the client, and content of any kind on its way out.
//!
//! What holds: whatever the server says, only commands and the message in its wire form go out. No recipient has two outcomes, none is
//! left without one, and none counts as served unless the message was sent as a whole.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use spooler_protocol::from_worker::FromWorker;
use spooler_protocol::fuzzing::{assert_clean, pieces, sections};
use spooler_protocol::ids::{DeliveryId, MessageId};
use spooler_protocol::message::{BodyType, Envelope, Recipient};
use spooler_protocol::outcome::Outcome;
use spooler_protocol::to_worker::Submission;

use super::command::is_path;
use super::connection::Connection;
use super::dot::WireForm;
use super::extensions::Extensions;
use super::opening::Opening;
use super::reply::{Garbled, ServerReply};
use super::settings::Timeouts;
use super::transaction::{Ended, Manner, Transaction};
use super::wire::{Stream, Wire};
use crate::delivery::{Delivery, DeliveryState};
use crate::fuzzing::{MemoryStream, run, supervisor};
use crate::provider::smtp_in::fuzzing::{one_line, read_content};

/// Transactions over one session: the server can ask for another one with each recipient.
const TRANSACTIONS_MAX: usize = 10;

/// What a server says, reply by reply. Input: how it is cut, then the bytes.
pub(crate) fn replies(input: &[u8]) {
    let [cuts, said] = sections(input);
    let whole = read_replies(std::iter::once(said));
    assert_eq!(read_replies(pieces(said, cuts)), whole, "another cut, other replies");
    for reply in whole.0 {
        assert!((200..600).contains(&reply.code));
        assert!(!reply.text.chars().any(|c| c.is_control() && c != '\t' && c != '\n'));
        assert!(reply.enhanced.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'));
        let _ = Extensions::read(&reply);
        let (permanent, reply) = (reply.is_permanent(), reply.from("mx.test").capped());
        // What a server said can come out at the other end: as the answer to a client of ours.
        let line = one_line(!permanent, &reply.enhanced, &reply.text);
        assert!(line.len() <= 512 && line.ends_with("\r\n") && line.matches(char::is_control).count() == 2, "{line:?}");
    }
}

fn read_replies<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<ServerReply>, Option<Garbled>) {
    let (mut input, mut found) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match ServerReply::take(&mut input) {
                Ok(Some(reply)) => found.push(reply),
                Ok(None) => break,
                Err(garbled) => return (found, Some(garbled)),
            }
        }
    }
    (found, None)
}

/// Content on its way out. Input: how it is cut, then the content.
pub(crate) fn content(input: &[u8]) {
    let [cuts, content] = sections(input);
    let wanted = normalised(content);
    for (form, stuffed) in [(WireForm::for_data as fn() -> WireForm, true), (WireForm::for_bdat, false)] {
        let wire = wire_form(form(), std::iter::once(content));
        assert_eq!(wire_form(form(), pieces(content, cuts)), wire, "another cut, another form");
        assert_clean("what goes out", &wire);
        if stuffed {
            let (text, rest) = read_content(&wire).expect("our own server takes it");
            assert!(rest.is_empty(), "the message ends before its end");
            assert_eq!(text, wanted);
        } else {
            assert_eq!(wire, wanted);
        }
    }
    assert_eq!(normalised(&wanted), wanted);
}

fn wire_form<'a>(mut form: WireForm, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut wire = Vec::new();
    pieces.for_each(|piece| form.push(piece, &mut wire));
    form.finish(&mut wire);
    wire
}

/// The wire form without stuffed dots, computed byte by byte over the whole.
fn normalised(content: &[u8]) -> Vec<u8> {
    let mut clean = Vec::new();
    for (at, &byte) in content.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| content.get(at));
        match byte {
            b'\n' if before == Some(&b'\r') => clean.push(b'\n'),
            b'\n' => clean.extend_from_slice(b"\r\n"),
            b'\r' if content.get(at + 1) == Some(&b'\n') => clean.push(b'\r'),
            b'\r' | 0 => clean.push(b' '),
            other => clean.push(other),
        }
    }
    if !clean.is_empty() && !clean.ends_with(b"\n") {
        clean.extend_from_slice(b"\r\n");
    }
    clean
}

/// A session. Input: manner and cuts, the envelope (sender, then recipients, a line each), the content, what the server says from its
/// reply to EHLO on. In the manner, `l` is for LMTP, `c` for BDAT where it is offered, `r` for a session that was used before.
pub(crate) fn transaction(input: &[u8]) {
    let [manner, envelope, content, said] = sections(input);
    let Some(submission) = submission(envelope, content) else { return };
    let mut said = BytesMut::from(said);
    let offered = ServerReply::take(&mut said).ok().flatten().map(|reply| Extensions::read(&reply));
    let timeout = Duration::from_secs(60);
    let timeouts = Timeouts { connect: timeout, greeting: timeout, command: timeout, data: timeout };
    let how = Manner { lmtp: manner.contains(&b'l'), chunking: manner.contains(&b'c'), timeouts };
    let (stream, heard) = MemoryStream::new(pieces(&said, manner));
    let mut connection =
        Connection::new(Wire::new(Stream::Memory(stream)), offered.unwrap_or_default(), Rc::from("mx.test[192.0.2.1]"));
    connection.reused = manner.contains(&b'r');

    let (support, mut ear) = supervisor(1 << 20);
    let (first, count) = (submission.content.clone().unwrap_or_default(), submission.recipients.len());
    let state = Rc::new(DeliveryState::default());
    let delivery = Delivery::new(submission, support.clone(), Rc::clone(&state));
    let work = send_all(&mut connection, &delivery, how);
    let left = run(&support, &mut ear, work, |_| None);
    let mut outcomes = Vec::new();
    state.tell(DeliveryId(1), |word| match word {
        FromWorker::Settled { outcomes: told, .. } => outcomes.extend(told.iter().cloned()),
        other => panic!("a transaction does not say {other:?}"),
    });
    let heard = heard.take();
    let sent = Sent::read(&heard, &normalised(&first));
    check_outcomes(&outcomes, left.as_deref(), count, &sent);
}

fn submission(envelope: &[u8], content: &[u8]) -> Option<Submission> {
    let text = String::from_utf8_lossy(envelope);
    let mut lines = text.lines();
    let sender = lines.next().unwrap_or_default().to_owned();
    let recipients: Vec<Recipient> = lines.filter_map(|line| Some(Recipient::new(line.parse().ok()?))).collect();
    let envelope = Envelope { sender, recipients, ..Envelope::default() };
    let are_paths = envelope.recipients.iter().all(|recipient| is_path(recipient.address.text()));
    if envelope.check().is_err() || !is_path(&envelope.sender) || !are_paths {
        return None;
    }
    Some(Submission {
        delivery: DeliveryId(1),
        message: MessageId(1),
        sender: envelope.sender,
        recipients: envelope.recipients,
        others: Vec::new(),
        deferred_before: false,
        body: BodyType::EightBit,
        smtputf8: false,
        ret: None,
        envid: Some("id+2B1".to_owned()),
        priority: spooler_protocol::message::Priority::Normal,
        attempt: 1,
        size: content.len() as u64,
        content: Some(Bytes::copy_from_slice(content)),
    })
}

/// One transaction after another, as long as the server wants more of them: those that are left without an outcome, or nobody if the
/// session broke before anything was done.
async fn send_all(connection: &mut Connection, delivery: &Delivery, manner: Manner) -> Option<Vec<usize>> {
    let opening = Opening::read(delivery).await.expect("the content came along");
    let all: Vec<usize> = (0..delivery.recipients().len()).collect();
    let mut group = opening.takeable(delivery, &all, connection);
    let refused = group.len() < all.len();
    if group.is_empty() {
        return Some(group);
    }
    for _ in 0..TRANSACTIONS_MAX {
        match Transaction::new(connection, delivery, &group, &opening, manner).run().await {
            Ended::InStep { again } if again.is_empty() => return Some(again),
            Ended::InStep { again } => {
                assert!(again.len() < group.len(), "a transaction that brings nothing is not made again");
                // As the provider does: what breaks from here on did not break while it waited in the pool.
                connection.reused = false;
                group = again;
            }
            Ended::Over => return Some(Vec::new()),
            Ended::Stale => return refused.then_some(group),
            ended @ (Ended::Cancelled | Ended::Unreadable(_)) => panic!("nobody did that: {ended:?}"),
        }
    }
    Some(group)
}

fn check_outcomes(outcomes: &[(u32, Outcome)], left: Option<&[usize]>, count: usize, sent: &Sent) {
    let settled: BTreeSet<usize> = outcomes.iter().filter_map(|(index, _)| usize::try_from(*index).ok()).collect();
    assert_eq!(settled.len(), outcomes.len(), "somebody was settled twice: {outcomes:?}");
    match left {
        Some(left) => {
            let all: BTreeSet<usize> = settled.iter().chain(left).copied().collect();
            assert_eq!(all, (0..count).collect(), "somebody has no outcome: {outcomes:?}");
        }
        None => assert!(outcomes.is_empty(), "nothing was done, it said: {outcomes:?}"),
    }
    let served = outcomes.iter().any(|(_, outcome)| matches!(outcome, Outcome::Delivered(_) | Outcome::Relayed { .. }));
    assert!(!served || sent.messages > 0, "served without a message: {outcomes:?}");
}

/// What a server would make of what it heard.
#[derive(Debug, Default)]
struct Sent {
    /// Whole messages.
    messages: usize,
}

impl Sent {
    fn read(heard: &[u8], content: &[u8]) -> Self {
        assert_clean("what the client says", heard);
        let wire = wire_form(WireForm::for_data(), std::iter::once(content));
        let (mut sent, mut rest, mut chunks) = (Self::default(), heard, content);
        while !rest.is_empty() {
            let end = memchr::memmem::find(rest, b"\r\n").expect("a line ends");
            let (line, behind) = rest.split_at(end);
            rest = behind.get(2..).unwrap_or_default();
            match line {
                b"RSET" => {}
                b"DATA" => {
                    if let Some(behind) = rest.strip_prefix(wire.as_slice()) {
                        (sent.messages, rest) = (sent.messages + 1, behind);
                    } else if let Some(behind) = rest.strip_prefix(b".\r\n") {
                        rest = behind;
                    }
                }
                _ if line.starts_with(b"MAIL FROM:<") => chunks = content,
                _ if line.starts_with(b"RCPT TO:<") => {}
                _ if line.starts_with(b"BDAT ") => {
                    let size = size_of_chunk(line);
                    let (chunk, behind) = rest.split_at_checked(size).expect("a chunk is as long as it says");
                    chunks = chunks.strip_prefix(chunk).expect("a chunk is the next part of the message");
                    rest = behind;
                    sent.messages += usize::from(chunks.is_empty() && line.ends_with(b" LAST"));
                }
                _ => panic!("no command: {:?}", line.escape_ascii().to_string()),
            }
        }
        sent
    }
}

fn size_of_chunk(line: &[u8]) -> usize {
    let text = std::str::from_utf8(line).expect("a command is text");
    text.split(' ').nth(1).and_then(|size| size.parse().ok()).expect("a chunk has a size")
}
