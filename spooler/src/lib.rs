//! The supervisor of the spooler, and the client tools.

/// Everything that touches the kernel.
pub mod system;
