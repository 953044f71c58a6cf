//! The date and the number that a message gets which has none.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Zoned;

/// What is written into a header that lacks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Now (RFC 5322 3.3).
    pub(crate) date: String,
    /// A number that no other message has, with its angle brackets (RFC 5322 3.6.4).
    pub(crate) message_id: String,
}

/// A new one, of this moment, on the machine of this name.
pub(crate) fn stamp(host: &str) -> Stamp {
    let now = Zoned::now();
    let date =
        jiff::fmt::rfc2822::to_string(&now).unwrap_or_else(|_| now.strftime("%a, %d %b %Y %H:%M:%S %z").to_string());
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let message_id = format!("<{:x}.{}.{:016x}@{host}>", since.as_micros(), std::process::id(), fastrand::u64(..));
    Stamp { date, message_id }
}
