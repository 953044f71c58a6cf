//! What the providers that deliver on this machine share: placeholders, the last form of a message, accounts.
//!
//! Nothing here opens a file or starts a program.

// System users and groups to act for.
pub(crate) mod account;
// The form in which a message leaves the mail system: headers in front, line ends.
pub(crate) mod form;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
// What a final delivery changes in the content.
pub(crate) mod last_form;
// The parts of an address, as placeholders take them.
pub(super) mod parts;
// Texts with placeholders such as `{local}`.
pub(super) mod template;
