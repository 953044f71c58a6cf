//! The supervisor of the spooler, and the client tools.

/// Reports to senders about what became of their messages.
pub mod report;
/// Everything that touches the kernel.
pub mod system;
