//! The supervisor of the spooler, and the client tools.

/// The client tools: `spoolctl`, `sendmail`, `mailq`, `newaliases`.
pub mod client;
/// Line ends of messages on their way in.
pub mod line_ends;
/// Everything that touches the kernel.
pub mod system;
