//! What decides: no I/O, no clock, no threads. Only the supervisor calls into here.

// Addresses on their way in: domains, rewriting, aliases.
pub mod addressing;
// One thing, or several: most messages have one recipient.
pub mod few;
// How one provider's queues are worked off, step by step.
pub mod flush;
// How many slots background work may have, from what the foreground leaves.
pub mod idle_gate;
// Spreading things out by chance that can be replayed.
pub mod jitter;
// One provider's waiting work, by destination.
pub mod lane;
// Who may use a scarce resource.
pub mod lease;
// When a worker is started, asked to go, made to go, and started again.
pub mod lifecycle;
// A worker that takes too much, or gives no sign of life.
pub mod overrun;
// What a worker's priority is to be.
pub mod priority_plan;
// The schedule in RAM: which messages wait for whom.
pub mod queue;
// When to try again, and when to give up.
pub mod retry;
// Which provider serves a recipient.
pub mod routing;
// Who holds a token next.
pub mod scheduler;
// What a worker says about its status rows, put together.
pub mod status_table;

/// Two clocks at one moment; given to every decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds that never jump; their origin means nothing.
    pub mono_ms: i64,
    /// Milliseconds since 1970, for what is kept on disk and shown to people.
    pub wall_ms: i64,
}

/// A configured provider, for as long as its name stays in the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProviderId(pub u32);
