//! Everything that touches the kernel: system calls, threads, files, sockets. Nothing here decides.

// The few words of D-Bus that logind needs.
mod bus;
// A cgroup for each worker, where we have a branch of our own.
pub mod cgroup;
// Two clocks, read together.
pub mod clock;
// The control socket.
pub mod control;
// Devices that come and go.
pub mod device_events;
// Looks at what others use of the machine.
pub mod idle_probe;
// Network interfaces that can be used, or not any more.
pub mod links;
// What logind says of the machine.
pub mod logind;
// The one channel into the loop.
pub mod mailbox;
// A socket on which the kernel tells news.
mod netlink;
// The pick-up folder.
pub mod pickup;
// Empties the pick-up folder.
pub mod pickup_feeder;
// What the kernel is told about a worker's urgency.
pub mod priority;
// The class and the I/O priority of every thread of a worker.
mod sched_class;
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
