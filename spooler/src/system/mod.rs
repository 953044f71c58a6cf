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
// The folders of the spooler, made and checked.
pub mod folders;
// Looks at what others use of the machine.
pub mod idle_probe;
// Network interfaces that can be used, or not any more.
pub mod links;
// Where the log goes.
pub mod log;
// What logind says of the machine.
pub mod logind;
// What the loop sleeps on.
pub mod mailbox;
// A socket on which the kernel tells news.
mod netlink;
// Packets from a worker.
pub mod packets;
// The pick-up folder.
pub mod pickup;
// Empties the pick-up folder.
pub mod pickup_feeder;
// What the kernel is told about a worker's urgency.
pub mod priority;
// What the programs of a worker use.
mod program_cpu;
// The class and the I/O priority of every thread of a worker.
mod sched_class;
// What of root's power is given up.
pub mod privileges;
// Whether files can be reached, and who else can read them.
pub mod reach;
// Whoever started the daemon, and wants to know how it is.
pub mod service_manager;
// The user that the service runs as.
pub mod service_user;
// Signals become letters.
pub mod signals;
// What is on disk, and how it gets there.
pub mod store;
// What each thread of a worker runs at.
mod threads;
// Who could change what is trusted.
pub mod trust;
// The channel to a worker.
pub mod worker_link;
// What a worker says.
pub mod words;
// A worker's process.
pub mod worker_process;
