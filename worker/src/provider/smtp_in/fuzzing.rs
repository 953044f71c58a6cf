//! A whole session of a client that says anything at all, in pieces of any size.
//!
//! What holds: every reply is a reply and nothing else. What is accepted has CRLF line ends and no NUL, an envelope that can be one, and
//! is in what the client sent. How the network cuts the input can end a session early, and changes nothing else.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use spooler_protocol::from_worker::{Content, FromWorker};
use spooler_protocol::fuzzing::{assert_clean, pieces, sections};
use spooler_protocol::ids::{AcceptId, MessageId};
use spooler_protocol::message::Envelope;
use spooler_protocol::to_worker::{Refusal, ToWorker};

use super::connection::Connection;
use super::data::ContentReader;
use super::networks::Network;
use super::reply::Reply;
use super::stream::Stream;
use super::{Settings, service};
use crate::fuzzing::{MemoryStream, run, supervisor};

/// Bytes of the largest message: more than stays in memory, so that uploads are tried too.
const MESSAGE_BYTES_MAX: u64 = 100_000;

/// Bytes of a reply line (RFC 5321 4.5.3.1.5).
const REPLY_BYTES_MAX: usize = 512;

/// Input: how it is cut, then what the client says.
pub(crate) fn session(input: &[u8]) {
    let [cuts, said] = sections(input);
    let whole = talk(said, b"1");
    let cut = talk(said, cuts);
    whole.check(said);
    cut.check(said);
    assert!(whole.accepted.starts_with(&cut.accepted), "another cut, another message: {cut:?} {whole:?}");
    let out_of_step = cut.replies.rsplit_once("554 5.5.0 SMTP sync").map(|(before, _)| before);
    let common = out_of_step.unwrap_or(&cut.replies);
    assert!(whole.replies.starts_with(common), "another cut, another reply: {cut:?} {whole:?}");
}

/// Reads content as the server does, up to its dot: the text, and what is behind it. `None` if it has a fault or no end.
pub(crate) fn read_content(input: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (mut reader, mut text, mut rest) = (ContentReader::dotted(), Vec::new(), input);
    while !rest.is_empty() {
        let piece = reader.next(rest);
        text.extend_from_slice(rest.get(piece.text)?);
        rest = rest.get(piece.taken..)?;
        if piece.ended {
            return reader.fault().is_none().then_some((text, rest));
        }
    }
    None
}

/// What came of a session.
#[derive(Debug)]
struct Talk {
    replies: String,
    accepted: Vec<(Envelope, Vec<u8>)>,
}

fn talk(said: &[u8], cuts: &[u8]) -> Talk {
    let (support, mut ear) = supervisor(MESSAGE_BYTES_MAX);
    let settings = Settings {
        listen: Vec::new(),
        hostname: None,
        message_bytes_max: None,
        recipients_max: 8,
        connections_max: 1,
        per_host_max: 1,
        errors_max: 20,
        timeout: Duration::from_secs(60),
        rate_min: 0,
        relay_from: vec![Network::parse("127.0.0.0/8").expect("a network")],
        tls: None,
        users: super::auth::Users::default(),
        auth_required: false,
        submission: true,
    };
    let service = Rc::new(service(support.clone(), settings, None));
    let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let slot = service.slot(peer).expect("there is a place");
    let (stream, heard) = MemoryStream::new(pieces(said, cuts));
    let mut desk = Desk::default();
    run(&support, &mut ear, Connection::new(slot, Stream::Memory(stream), peer).serve(), |word| desk.answer(word));
    let replies = String::from_utf8(heard.take()).expect("replies are text");
    Talk { replies, accepted: desk.accepted }
}

/// The supervisor's part.
#[derive(Default)]
struct Desk {
    uploads: HashMap<AcceptId, Vec<u8>>,
    accepted: Vec<(Envelope, Vec<u8>)>,
}

impl Desk {
    fn answer(&mut self, word: FromWorker) -> Option<ToWorker> {
        match word {
            FromWorker::Upload { accept, data } => {
                self.uploads.entry(accept).or_default().extend_from_slice(&data);
                Some(ToWorker::UploadCredit { accept })
            }
            FromWorker::UploadAbandoned { accept } => {
                self.uploads.remove(&accept);
                None
            }
            FromWorker::UploadBegins { .. } => None,
            FromWorker::Accept { accept, envelope, content, .. } => {
                let content = match content {
                    Content::Inline(bytes) => bytes.to_vec(),
                    Content::Uploaded { size } => {
                        self.uploads.remove(&accept).filter(|all| all.len() as u64 == size)?
                    }
                };
                Some(ToWorker::Accepted { accept, result: self.accept(envelope, content) })
            }
            other => panic!("a session does not say {other:?}"),
        }
    }

    /// A sender that begins so is refused, with the worst that a supervisor could say.
    fn accept(&mut self, envelope: Envelope, content: Vec<u8>) -> Result<MessageId, Refusal> {
        if let Some(temporary) = envelope.sender.strip_prefix("refuse") {
            let text = "No\r\n250 2.0.0 Yes\r\n".to_owned();
            return Err(Refusal { temporary: temporary.starts_with('4'), enhanced: "5.7.1\r\n250".to_owned(), text });
        }
        assert_clean("an accepted message", &content);
        self.accepted.push((envelope, behind_trace(&content).to_vec()));
        Ok(MessageId(self.accepted.len() as u64))
    }
}

impl Talk {
    fn check(&self, said: &[u8]) {
        assert!(self.replies.is_empty() || self.replies.ends_with("\r\n"));
        for line in self.replies.split_terminator("\r\n") {
            let text_ok = !line.chars().any(char::is_control) && line.len() + 2 <= REPLY_BYTES_MAX;
            assert!(text_ok && is_reply(line), "{line:?}");
        }
        let has_chunks = said.to_ascii_lowercase().windows(4).any(|word| word == b"bdat");
        for (envelope, content) in &self.accepted {
            envelope.check().expect("an envelope that can be one");
            assert!(content.len() as u64 <= MESSAGE_BYTES_MAX);
            assert!(has_chunks || contents_of(said).contains(content), "nobody sent {content:?}");
        }
        let queued = self.replies.matches("\r\n250 2.0.0 Queued as ").count();
        assert_eq!(queued, self.accepted.len());
    }
}

fn is_reply(line: &str) -> bool {
    let code = line.get(..3).and_then(|code| code.parse::<u16>().ok());
    let sign = line.as_bytes().get(3);
    code.is_some_and(|code| (211..=555).contains(&code)) && matches!(sign, Some(b' ' | b'-'))
}

/// The content without the trace header that the server put before it: the date stands behind the first line that ends with `;`.
fn behind_trace(content: &[u8]) -> &[u8] {
    assert!(content.starts_with(b"Received: from "));
    let before_date = memchr::memmem::find(content, b";\r\n\t").expect("a trace header has a date") + 3;
    let date = content.get(before_date..).unwrap_or_default();
    let end = memchr::memchr(b'\n', date).expect("a date ends its line") + 1;
    date.get(end..).unwrap_or_default()
}

/// What stands behind each line that could be DATA, up to the dot, without stuffed dots: found by searching, not by states.
fn contents_of(said: &[u8]) -> Vec<Vec<u8>> {
    let mut contents = Vec::new();
    for line_end in memchr::memmem::find_iter(said, b"\r\n") {
        let (before, from) = said.split_at(line_end);
        let line = before.get(memchr::memrchr(b'\n', before).map_or(0, |at| at + 1)..).unwrap_or_default();
        if !line.to_ascii_lowercase().starts_with(b"data") {
            continue;
        }
        if let Some(end) = memchr::memmem::find(from, b"\r\n.\r\n") {
            let text = from.get(2..end + 2).unwrap_or_default();
            let lines = text.split_inclusive(|byte| *byte == b'\n');
            contents.push(lines.flat_map(|line| line.strip_prefix(b".").unwrap_or(line)).copied().collect());
        }
    }
    contents
}

/// A reply with any text stays one line.
pub(crate) fn one_line(temporary: bool, enhanced: &str, text: &str) -> String {
    let refusal = Refusal { temporary, enhanced: enhanced.to_owned(), text: text.to_owned() };
    let mut line = Vec::new();
    Reply::from_refusal(refusal).write(&mut line);
    String::from_utf8(line).expect("a reply is text")
}
