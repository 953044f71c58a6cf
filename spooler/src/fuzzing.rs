//! Fuzz targets of this crate. Only with the feature `fuzzing`; nothing that is shipped has it.
//!
//! Each target stands beside the code that it tries, in a `fuzzing` room, and is listed here. What all targets have in common is in
//! [`spooler_protocol::fuzzing`].

use spooler_protocol::fuzzing::{Target, assert_clean, pieces, sections};

use crate::line_ends::{LineEnds, NulByte, with_crlf};
use crate::{client, config, report, supervisor, system};

/// The targets of this crate.
pub const TARGETS: &[Target] = &[
    ("line_ends", line_ends),
    ("sendmail", client::fuzzing::sendmail),
    ("sendmail_smtp", client::fuzzing::sendmail_smtp),
    ("report", report::fuzzing::report),
    ("admission", crate::admission::fuzzing::admission_of_any),
    ("lying_worker", supervisor::fuzzing::lying_worker),
    ("configuration", config::fuzzing::configuration),
    ("control_socket", system::control::fuzzing::connection),
    ("pickup_file", system::pickup::fuzzing::file),
    ("store_rows", system::store::fuzzing::rows),
    ("store_damage", system::store::fuzzing::damage),
];

/// Line ends on the way in. Input: how it is cut, then the message.
fn line_ends(input: &[u8]) {
    let [cuts, message] = sections(input);
    let whole = with_crlf(message);
    let mut ends = LineEnds::default();
    let mut out = Vec::new();
    let fed: Result<(), NulByte> = pieces(message, cuts).try_for_each(|piece| ends.feed(piece, &mut out));
    ends.finish(&mut out);
    assert_eq!(fed.map(|()| out), whole, "another cut, another message");
    assert_eq!(whole.is_err(), message.contains(&0));
    let Ok(whole) = whole else { return };
    assert_clean("a message", &whole);
    assert!(whole.is_empty() || whole.ends_with(b"\r\n"));
    assert_eq!(with_crlf(&whole).as_ref(), Ok(&whole));
}
