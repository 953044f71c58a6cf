//! The supervisor of the spooler, and the client tools.

/// What the configuration says.
pub mod config;
/// What decides.
pub mod policy;
/// What is kept on disk, as plain data.
pub mod record;
/// The pure heart: hears events, says what is to be done.
pub mod supervisor;
/// Everything that touches the kernel.
pub mod system;
