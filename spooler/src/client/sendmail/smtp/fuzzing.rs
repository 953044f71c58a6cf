//! `sendmail -bs` and a client that says anything at all.

use std::cell::RefCell;

use spooler_protocol::control::Submit;
use spooler_protocol::fuzzing::{assert_clean, stray_byte};
use spooler_protocol::ids::MessageId;

use super::Session;
use crate::client::failure::Failure;
use crate::client::handover::Handed;
use crate::client::sendmail::fuzzing::somebody;

/// Input: what the client says.
pub(crate) fn session(input: &[u8]) {
    let taken = RefCell::new(Vec::new());
    let deliver = |submit: &Submit, content: &[u8]| {
        if let Err(error) = submit.envelope.check() {
            return Err(Failure::Data(error.to_string()));
        }
        taken.borrow_mut().push(content.to_vec());
        Ok(Handed::Queued(MessageId(taken.borrow().len() as u64)))
    };
    let mut output = Vec::new();
    let mut session = Session { identity: somebody(), greeted: false, envelope: None, deliver: &deliver };
    session.run(&mut &*input, &mut output).expect("memory can be read and written");
    let replies = String::from_utf8(output).expect("replies are text");
    assert_clean("replies", replies.as_bytes());
    for line in replies.split_terminator("\r\n") {
        let code = line.get(..3).and_then(|code| code.parse::<u16>().ok());
        assert!(code.is_some_and(|code| (211..=555).contains(&code)), "{line:?}");
        assert!(matches!(line.as_bytes().get(3), Some(b' ' | b'-')) && !line.contains(char::is_control), "{line:?}");
    }
    let taken = taken.into_inner();
    assert_eq!(replies.matches("\r\n250 2.0.0 queued as ").count(), taken.len());
    for content in taken {
        // Fields that were missing end with LF alone, which becomes CRLF on the way in; what the client sent has neither CR nor LF alone.
        assert!(!content.contains(&0));
        let body = memchr::memmem::find(&content, b"\n\r\n").or_else(|| memchr::memmem::find(&content, b"\n\n"));
        let body = content.get(body.map_or(0, |at| at + 2)..).unwrap_or_default();
        let body = body.strip_prefix(b"\n").unwrap_or(body);
        assert_eq!(stray_byte(body), None, "{:?}", body.escape_ascii().to_string());
    }
}
