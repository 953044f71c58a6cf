//! The form in which a message leaves the mail system: no address makes a line of its own, and line ends are a matter of line ends.

use bytes::Bytes;
use spooler_protocol::fuzzing::{pieces, sections};
use spooler_protocol::ids::{DeliveryId, MessageId};
use spooler_protocol::message::{BodyType, Priority, Recipient};
use spooler_protocol::to_worker::Submission;

use super::form::{Converter, Front, LineEnds};
use super::last_form::{LastForm, Rules};

/// Input: how the content is cut, the sender and the recipient (a line each, whatever is in it), then the content.
pub(crate) fn form(input: &[u8]) {
    let [cuts, addresses, content] = sections(input);
    front(&String::from_utf8_lossy(addresses));
    let (mut converter, mut lf) = (Converter::new(LineEnds::Lf), Vec::new());
    let mut out = Vec::new();
    for piece in pieces(content, cuts) {
        converter.convert(piece, &mut out);
        lf.extend_from_slice(&out);
    }
    lf.extend_from_slice(converter.finish());
    let wanted = memchr::memmem::find_iter(content, b"\r\n").count();
    assert_eq!(lf.len() + wanted, content.len(), "each CRLF loses one byte, and nothing else does");
    let mut rest = lf.as_slice();
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r\n").map_or(line.to_vec(), |line| [line, b"\n"].concat());
        rest = rest.strip_prefix(line.as_slice()).expect("each line comes out as it went in");
    }
    assert!(rest.is_empty());
    last_form(content, cuts);
}

/// However the content is cut, its last form is the same, has no `Return-Path` in its header, and no line that begins a message in an mbox.
fn last_form(content: &[u8], cuts: &[u8]) {
    let rules = Rules { drop_return_path: true, quote_from: true };
    let convert = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut form, mut all, mut out) = (LastForm::new(LineEnds::Lf, rules), Vec::new(), Vec::new());
        for piece in pieces {
            form.convert(piece, &mut out);
            all.extend_from_slice(&out);
        }
        form.finish(&mut all);
        all
    };
    let all = convert(&mut pieces(content, cuts));
    assert_eq!(all, convert(&mut std::iter::once(content)));
    let mut lines = all.split(|byte| *byte == b'\n');
    assert!(
        lines
            .by_ref()
            .take_while(|line| !line.is_empty() && *line != b"\r")
            .all(|line| !line.starts_with(b"Return-Path:"))
    );
    assert!(!all.split(|byte| *byte == b'\n').any(|line| line.starts_with(b"From ")));
}

fn front(addresses: &str) {
    let (sender, recipient) = addresses.split_once('\n').unwrap_or((addresses, ""));
    let Ok(address) = recipient.parse() else { return };
    let recipient = Recipient::new(address);
    let submission = Submission {
        delivery: DeliveryId(1),
        message: MessageId(1),
        sender: sender.to_owned(),
        recipients: vec![recipient.clone()],
        others: Vec::new(),
        deferred_before: false,
        body: BodyType::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
        priority: Priority::Normal,
        attempt: 1,
        size: 0,
        content: Some(Bytes::new()),
    };
    let front = Front { from_line: Some(1_792_900_000), return_path: true, delivered_to: true };
    for (ends, end) in [(LineEnds::Lf, "\n"), (LineEnds::Crlf, "\r\n")] {
        let lines = front.lines(&submission, &[&recipient], ends);
        let text = String::from_utf8(lines).expect("lines of text");
        let lines: Vec<&str> = text.split_terminator(end).collect();
        let begin = ["From ", "Return-Path: <", "Delivered-To: "];
        assert_eq!(lines.len(), begin.len(), "{text:?}");
        for (line, begin) in lines.iter().zip(begin) {
            assert!(line.starts_with(begin) && !line.contains(char::is_control), "{line:?}");
        }
        let words: Vec<&str> =
            lines.first().map(|line| line.split(' ').filter(|word| !word.is_empty()).collect()).unwrap_or_default();
        assert_eq!(words.len(), 7, "the line From_ has a sender of one word, and a date: {words:?}");
    }
}
