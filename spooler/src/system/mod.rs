//! Everything that touches the kernel: system calls, threads, files, sockets. Nothing here decides.

/// What is on disk, and how it gets there.
pub mod store;
