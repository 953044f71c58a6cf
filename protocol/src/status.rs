//! Status rows and the bits of a status code. How rows travel to those who watch them is in [`crate::watching`].
//!
//! No column changes by time alone: since when something is so is a point in time, not a span. So a row that nothing happens to stays
//! the same, and need not be sent again.

use std::ops::{BitOr, BitOrAssign};

use serde::{Deserialize, Serialize};

use crate::calls::Methods;
use crate::ids::{DeliveryId, Generation, MessageId};

/// What a provider is doing, with MAPI's bits and values (PR_STATUS_CODE, 0x3E04).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StatusCode(pub u32);

impl StatusCode {
    /// Operational.
    pub const AVAILABLE: Self = Self(0x0000_0001);
    /// Only local data or services can be used.
    pub const OFFLINE: Self = Self(0x0000_0002);
    /// In trouble; may be shut down soon.
    pub const FAILURE: Self = Self(0x0000_0004);
    /// Can receive.
    pub const INBOUND_ENABLED: Self = Self(0x0001_0000);
    /// Is receiving.
    pub const INBOUND_ACTIVE: Self = Self(0x0002_0000);
    /// Is emptying its inbound queue.
    pub const INBOUND_FLUSH: Self = Self(0x0004_0000);
    /// Can send.
    pub const OUTBOUND_ENABLED: Self = Self(0x0010_0000);
    /// Is sending.
    pub const OUTBOUND_ACTIVE: Self = Self(0x0020_0000);
    /// Is emptying its outbound queue.
    pub const OUTBOUND_FLUSH: Self = Self(0x0040_0000);
    /// Can fetch headers without their messages.
    pub const REMOTE_ACCESS: Self = Self(0x0080_0000);

    /// Every bit with its name as people read it, in the order of their values.
    pub const NAMES: [(Self, &str); 10] = [
        (Self::AVAILABLE, "available"),
        (Self::OFFLINE, "offline"),
        (Self::FAILURE, "failure"),
        (Self::INBOUND_ENABLED, "inbound-enabled"),
        (Self::INBOUND_ACTIVE, "inbound-active"),
        (Self::INBOUND_FLUSH, "inbound-flush"),
        (Self::OUTBOUND_ENABLED, "outbound-enabled"),
        (Self::OUTBOUND_ACTIVE, "outbound-active"),
        (Self::OUTBOUND_FLUSH, "outbound-flush"),
        (Self::REMOTE_ACCESS, "remote-access"),
    ];

    /// This bit if `on`, nothing otherwise.
    #[must_use]
    pub fn when(self, on: bool) -> Self {
        if on { self } else { Self::default() }
    }

    /// Whether all bits of `other` are set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for StatusCode {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for StatusCode {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// Where a worker stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkerState {
    /// Started, not yet logged on.
    Starting,
    /// Logged on.
    Ready,
    /// Finishing what it has; nothing new is given to it.
    Draining,
    /// Asked to go, or being made to.
    Stopping,
    /// Dead; started again after a while.
    Backoff,
    /// Dead, and not started again until somebody changes something.
    Failed,
    /// Held back by a person.
    Paused,
}

/// Whether a worker may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenState {
    /// Has nothing to do.
    Idle,
    /// Could go on and waits for a token.
    Runnable,
    /// Holds a token.
    Running,
    /// Holds a token that was asked back.
    Preempting,
}

/// How far up the ladder a worker is that overruns or gives no sign of life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overrun {
    /// Nothing is wrong.
    #[default]
    None,
    /// Something is, and that is all so far.
    Warned,
    /// What it overruns is charged against its share twice.
    Penalized,
    /// It runs when nobody else wants the processor.
    Demoted,
    /// It was asked to log off.
    Stopping,
    /// SIGTERM was sent.
    Terminated,
    /// SIGKILL was sent.
    Killed,
}

/// The row of the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorRow {
    /// The supervisor's process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// MAPI's bits.
    pub code: StatusCode,
    /// A sentence for a person.
    pub text: String,
    /// When it started, milliseconds since 1970.
    pub started_ms: i64,
    /// Tokens that may be out at once for background work, as the idle gate allows now.
    pub slots: u32,
    /// The state of the idle gate and its reason, such as `open: others use 0.2 of 2 cores`.
    pub gate: String,
    /// Tokens that are out.
    pub tokens_out: u32,
    /// Messages on disk.
    pub queued: u64,
    /// Of these, waiting for a worker.
    pub ready: u64,
    /// Deliveries that workers have in their hands.
    pub in_flight: u64,
    /// Messages waiting for a later attempt.
    pub deferred: u64,
    /// Messages held by a person, or in quarantine.
    pub held: u64,
    /// Of these, in quarantine.
    #[serde(default)]
    pub quarantined: u64,
    /// What was set aside last, and why: a sentence for a person, as long as it is in quarantine.
    #[serde(default)]
    pub quarantine: Option<String>,
    /// Messages accepted since the start.
    pub accepted: u64,
    /// Recipients settled well since the start.
    pub sent: u64,
    /// Recipients failed for good since the start.
    pub failed: u64,
}

/// The row of one provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderRow {
    /// Its name in the configuration.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// What people call it: `kind (name)` (PR_DISPLAY_NAME).
    pub display: String,
    /// MAPI's bits: what the worker says, and what the supervisor knows.
    pub code: StatusCode,
    /// Where its worker stands.
    pub state: WorkerState,
    /// A sentence for a person: what it does, or why it does not.
    pub text: String,
    /// 0 to 100 where the provider says so.
    pub progress: Option<u8>,
    /// What the progress is of.
    pub progress_text: Option<String>,
    /// How far a flush of it is, if one runs; and what it waits for.
    pub phase: Option<String>,
    /// What it is to the world: relay, folder, listening addresses.
    pub identity: String,
    /// What can be done with it.
    pub methods: Methods,
    /// Whether its state can be validated now.
    pub validate_ok: bool,
    /// Words about its rows that came too fast and were taken together, in this incarnation.
    pub hasty_words: u64,
    /// The scarce resource that it may use only while nobody else does.
    pub resource: Option<String>,
    /// The worker's process, if one lives.
    pub pid: Option<u32>,
    /// Which incarnation.
    pub generation: Generation,
    /// Since when it is in this state, milliseconds since 1970.
    pub since_ms: i64,
    /// When its worker is started again, milliseconds since 1970, if it is in `backoff`.
    pub next_start_ms: Option<i64>,
    /// Whether it may run.
    pub token: TokenState,
    /// Deliveries in its hands.
    pub in_flight: u64,
    /// Messages ready for it.
    pub ready: u64,
    /// Messages waiting for a later attempt through it.
    pub deferred: u64,
    /// CPU used in this incarnation, milliseconds.
    pub cpu_ms: u64,
    /// CPU used past its slices or without a token, milliseconds.
    pub overdraft_ms: u64,
    /// How far up the ladder it is.
    pub overrun: Overrun,
    /// The priority that was read back, such as `nice 10, autogroup 10`.
    pub priority: String,
    /// How tight its worker's sandbox is, such as `Landlock ABI 6, seccomp, uid 60706, no capabilities`; empty before it is closed.
    pub sandbox: String,
    /// The reason of the critical section that runs, if one does.
    pub critical: Option<String>,
    /// Deaths of its worker since the start of the supervisor.
    pub deaths: u64,
    /// The last thing that went wrong, verbatim.
    pub last_error: Option<String>,
}

/// A row that a provider has added to its own, such as one for each of its lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedRow {
    /// Whose.
    pub provider: String,
    /// Its name.
    pub row: String,
    /// MAPI's bits.
    pub code: StatusCode,
    /// A sentence for a person.
    pub text: String,
    /// 0 to 100 where the provider says so.
    pub progress: Option<u8>,
    /// What the progress is of.
    pub progress_text: Option<String>,
}

/// The row of one message that a worker has in its hands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageRow {
    /// Names the row: a message may be in several hands at once.
    pub delivery: DeliveryId,
    /// Which.
    pub id: MessageId,
    /// Which provider has it.
    pub provider: String,
    /// MAPI's bits.
    pub code: StatusCode,
    /// What is being done, such as `waiting for the greeting of 192.0.2.1:25`; never empty.
    pub phase: String,
    /// Since when that is so, milliseconds since 1970.
    pub phase_since_ms: i64,
    /// How much of it is sent, 0 to 100.
    pub progress: u8,
    /// Bytes sent so far.
    pub bytes: u64,
    /// Bytes in all.
    pub size: u64,
    /// Recipients in this delivery.
    pub recipients: u32,
    /// When it was handed over, milliseconds since 1970.
    pub since_ms: i64,
}

/// The whole table at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusTable {
    /// The supervisor.
    pub supervisor: SupervisorRow,
    /// Providers in the order of the configuration.
    pub providers: Vec<ProviderRow>,
    /// Rows that providers have added, by provider and name.
    pub added: Vec<AddedRow>,
    /// Messages in flight, oldest first; at most a few hundred.
    pub messages: Vec<MessageRow>,
}
