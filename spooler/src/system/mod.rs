//! Everything that touches the kernel: system calls, threads, files, sockets. Nothing here decides.

/// The control socket.
pub mod control;
/// The pick-up folder.
pub mod pickup;
/// What is on disk, and how it gets there.
pub mod store;
