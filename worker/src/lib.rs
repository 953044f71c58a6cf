//! The worker: the process that runs one provider, and the kit to write providers with.
//!
//! A provider's author implements [`Provider`] with plain `async fn`s. The runtime polls its futures only while the worker holds a
//! token, so that yielding is done for the author; see [`runtime`].

// The first milliseconds of the process: session, death signal, log, handshake.
pub mod bootstrap;
// From the supervisor's orders to calls of the provider's methods, and their answers.
mod calls;
// From what a provider needs to a closed sandbox.
mod confine;
// The trait that a provider implements.
pub mod contract;
// The critical sections of this worker.
mod critical;
// One message in the hands of a provider.
pub mod delivery;
// Programs that look at messages before and after the provider does.
pub mod filter;
// Fuzz targets, and the world that they play in.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
// One message on its way in.
pub mod inbound;
// The channel to the supervisor; the only file of this crate that knows ipc-channel.
pub mod link;
// What the supervisor asks for, until the provider's own loop can act on it.
mod orders;
// Trying a provider without a message.
pub mod probe;
// The command line of a worker program.
pub mod program;
// The built-in providers.
pub mod provider;
// The calls into the provider that are under way.
mod running;
// The executor that runs futures only while there is a token.
pub mod runtime;
// What a worker may do, and nothing else.
pub mod sandbox;
// Temporary files of a worker that runs programs.
mod scratch;
// Who holds the token and for how long: pure.
pub mod session;
// A provider's own loop: logs on, takes orders, logs off.
mod session_loop;
// What a provider may ask of the spooler.
pub mod support;

pub use contract::{Capacity, Provider};
pub use delivery::Delivery;
pub use inbound::Inbound;
pub use probe::{Probe, Probed};
pub use sandbox::{Identity, Needs, Ports, Privilege};
pub use support::{CriticalSection, RowError, Support, Yielded};
