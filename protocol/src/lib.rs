//! The only dictionary of the spooler: every word that its processes and clients say to each other.
//!
//! Nothing here performs I/O or reads a clock. The supervisor (`spooler`) and the workers (`spooler-worker`) both depend on this
//! crate and never on each other.

// What clients are told about aliases (JSON).
pub mod aliases;
// The calls of the provider contract that are not deliveries: flags and answers.
pub mod calls;
// Which recipients a provider serves: patterns and address types.
pub mod claims;
// Messages to and from bytes: bincode inside frames that ipc-channel never fragments.
pub mod codec;
// The sandbox of a worker: what is wished of it, and what came of it.
pub mod confinement;
// What clients and the supervisor exchange on the control socket (JSON).
pub mod control;
// What a worker says to the supervisor.
pub mod from_worker;
// Fuzz targets, and what they have in common.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
// The first words of a worker, before anything else is believed.
pub mod handshake;
/// What became of messages that have left the queue.
pub mod history;
// A type for each identity.
pub mod ids;
// Addresses that are not ASCII, towards servers that take only ASCII.
pub mod international;
// Every limit, in one place, with the relations between them checked at compile time.
pub mod limits;
// Envelopes, recipients and addresses.
pub mod message;
// News for a provider.
pub mod notification;
// What became of a delivery, per recipient and per message.
pub mod outcome;
// Errors of the system in words for people.
pub mod plain;
// Who gets a place where there are fewer places than visitors.
pub mod places;
// Reading a table of settings so that every mistake is found at once.
pub mod settings;
// Status rows and the bits of a status code.
pub mod status;
// What the supervisor says to a worker.
pub mod to_worker;
// Units that people write: durations and sizes.
pub mod units;
// What clients that watch the status table get.
pub mod watching;
