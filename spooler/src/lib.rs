//! The supervisor of the spooler, and the client tools.

// What is looked at, and completed, in every message on its way in.
mod admission;
// The client tools: `spoolctl`, `sendmail`, `mailq`, `newaliases`.
pub mod client;
// What the configuration says.
pub mod config;
// The daemon: everything put together.
pub mod daemon;
// The loop between the supervisor and the system.
pub mod driver;
// Fuzz targets.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
// `spooler init`.
pub mod init;
// Line ends of messages on their way in.
pub mod line_ends;
// The mail log in words.
pub mod mail_log;
// What decides.
pub mod policy;
// What is kept on disk, as plain data.
pub mod record;
// Reports to senders about what became of their messages.
pub mod report;
// The pure heart: hears events, says what is to be done.
pub mod supervisor;
// Everything that touches the kernel.
pub mod system;
