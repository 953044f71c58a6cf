//! Everything that touches the kernel: system calls, threads, files, sockets. Nothing here decides.

// Two clocks, read together.
pub mod clock;
// The control socket.
pub mod control;
// The one channel into the loop.
pub mod mailbox;
// The pick-up folder.
pub mod pickup;
// Empties the pick-up folder.
pub mod pickup_feeder;
// What the kernel is told about a worker's urgency.
pub mod priority;
// Signals become letters.
pub mod signals;
// What is on disk, and how it gets there.
pub mod store;
// What each thread of a worker runs at.
mod threads;
// The channel to a worker.
pub mod worker_link;
// A worker's process.
pub mod worker_process;
