//! The supervisor of the spooler, and the client tools.

/// What the spooler is told to be: one file, checked as a whole.
pub mod config;
/// Everything that touches the kernel.
pub mod system;
