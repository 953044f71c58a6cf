//! Fuzz target of the way in.

use std::sync::Arc;

use bytes::Bytes;
use memchr::memmem;
use spooler_protocol::from_worker::Arrival;
use spooler_protocol::fuzzing::{assert_clean, pieces, sections};
use spooler_protocol::to_worker::Refusal;

use super::{Admission, Stamp};
use crate::line_ends::with_crlf;
use crate::policy::addressing::Addressing;

fn no_stamp(_: &str) -> Stamp {
    Stamp { date: "Mon, 1 Jan 2024 00:00:00 +0000".to_owned(), message_id: "<1@box.test>".to_owned() }
}

fn addressing() -> Arc<Addressing> {
    let (origin, hostname) = ("origin.test".to_owned(), "box.origin.test".to_owned());
    Arc::new(Addressing { origin, hostname, ..Addressing::default() })
}

fn admission(submission: bool) -> Admission {
    let arrival = Arrival { submission, trace_bytes: 0, sender: "s@x.test".to_owned(), client: String::new() };
    Admission::of_worker(addressing(), arrival, no_stamp)
}

fn in_pieces(message: &Bytes, cuts: &[u8], submission: bool) -> Result<Vec<u8>, Refusal> {
    let mut admission = admission(submission);
    let mut out = Vec::new();
    for piece in pieces(message, cuts) {
        out.extend_from_slice(&admission.feed(Bytes::copy_from_slice(piece))?);
    }
    out.extend_from_slice(&admission.finish()?);
    Ok(out)
}

/// A message with CRLF line ends comes in. Input: how it is cut, then the message.
pub(crate) fn admission_of_any(input: &[u8]) {
    let [cuts, message] = sections(input);
    let Ok(message) = with_crlf(message) else { return };
    let message = Bytes::from(message);
    for submission in [false, true] {
        let whole = admission(submission).whole(message.clone());
        match (&whole, in_pieces(&message, cuts, submission)) {
            (Ok(whole), Ok(cut)) => assert_eq!(whole, &cut, "another cut, another message"),
            (Err(_), Err(_)) => {}
            (whole, cut) => panic!("another cut, another end: {whole:?}, {cut:?}"),
        }
        let Ok(whole) = whole else { continue };
        if !submission {
            assert_eq!(whole, message, "what is passed on stays");
            continue;
        }
        assert_clean("a submission", &whole);
        if let Some(end) = memmem::find(&message, b"\r\n\r\n") {
            let body = message.get(end + 2..).unwrap_or_default();
            assert!(whole.ends_with(body), "the body stays");
        }
        let mut header = whole.split_inclusive(|byte| *byte == b'\n').take_while(|line| *line != b"\r\n");
        let is_bcc = |line: &[u8]| ["bcc:", "resent-bcc:"].iter().any(|name| starts_with(line, name));
        assert!(!header.any(is_bcc), "a Bcc stays");
        let again = admission(true).whole(whole.clone());
        assert_eq!(again, Ok(whole), "what is complete stays");
    }
}

fn starts_with(line: &[u8], name: &str) -> bool {
    line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
}
