//! Command lines and messages of any kind, as programs give them to `sendmail`.
//!
//! No address has a control character, however it was written. The header that the next reader finds is the one that was looked at here,
//! and the body is the sender's.

use spooler_protocol::fuzzing::{assert_clean, sections};

use super::argv::{self, Mode};
use super::compose::{Composed, compose};
use super::input;
pub(crate) use super::smtp::fuzzing::session as sendmail_smtp;
use crate::client::header;
use crate::client::identity::Identity;
use crate::line_ends::with_crlf;

/// Somebody whose name asks for trouble.
pub(super) fn somebody() -> Identity {
    Identity { user: "ann".to_owned(), full_name: "Ann \"A\" O\u{2019}ther".to_owned(), host: "box.test".to_owned() }
}

/// Input: the arguments, a line each, then standard input.
pub(crate) fn sendmail(input: &[u8]) {
    let [arguments, stdin] = sections(input);
    let arguments: Vec<String> = String::from_utf8_lossy(arguments).lines().map(str::to_owned).collect();
    let options = match argv::parse(&arguments) {
        Ok(options) => options,
        Err(failure) => {
            assert_eq!(failure.code(), 64);
            assert!(!failure.to_string().is_empty());
            return;
        }
    };
    let message = input::read(&mut &*stdin, options.ignore_dots).expect("memory can be read");
    assert!(stdin.starts_with(&message));
    if options.mode != Mode::Deliver {
        return;
    }
    match compose(&options, &somebody(), &message) {
        Ok(composed) => check(&message, &composed),
        Err(failure) => assert!(matches!(failure.code(), 64 | 65) && !failure.to_string().is_empty(), "{failure:?}"),
    }
}

fn check(message: &[u8], composed: &Composed) {
    let envelope = &composed.submit.envelope;
    assert!(!envelope.recipients.is_empty());
    let addresses = envelope.recipients.iter().map(|recipient| recipient.address.text());
    for address in addresses.chain([envelope.sender.as_str()]) {
        assert!(!address.chars().any(char::is_control), "{address:?}");
    }
    let (fields, body) = header::split(&composed.content);
    for name in ["Date", "From"] {
        assert!(fields.iter().any(|field| field.is(name)), "there is no {name}");
    }
    assert_eq!(body, header::split(message).1, "another body");
    let Ok(queued) = with_crlf(&composed.content) else { return };
    assert_clean("a submitted message", &queued);
    let names = |fields: &[header::Field<'_>]| fields.iter().map(|field| field.name.to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&header::split(&queued).0), names(&fields), "the next reader finds another header");
}
