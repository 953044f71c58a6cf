//! What a worker says to the supervisor.
//!
//! A worker's word is gossip: the supervisor checks sizes and states, and drops what is late or unknown. The order of variants is
//! the wire format: append only, with a new [`crate::handshake::PROTOCOL_VERSION`].

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{AcceptId, DeliveryId, RequestId, Token};
use crate::message::Envelope;
use crate::outcome::{Outcome, SubmitResult};

/// What a provider is, said once after a successful logon (IXPLogon::AddressTypes and the flags of TransportLogon).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedOn {
    /// Address types served, such as `SMTP`, used where the configuration gives none. Empty: nothing by type.
    pub address_types: Vec<String>,
    /// Deliveries that may be in flight at once; 0 for a provider that only receives.
    pub credit: u32,
    /// How deliveries are grouped and limited.
    pub destinations: Destinations,
    /// What the row shows as identity: the relay's name, the listening addresses, a folder.
    pub identity: String,
}

/// How the deliveries of a provider are grouped and limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destinations {
    /// Whether each domain is a destination of its own; otherwise the provider is one destination.
    pub by_domain: bool,
    /// Deliveries in flight to one destination; 0 for no limit but the credit.
    pub concurrency: u32,
    /// Milliseconds between two deliveries to one destination; 0 for no limit.
    pub interval_ms: u64,
}

/// Why a logon failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogonError {
    /// Settings are missing or wrong; nothing helps but a change of them (MAPI_E_UNCONFIGURED, 0x8004011C).
    Unconfigured(String),
    /// This provider cannot work now, for a reason outside; it is tried again (MAPI_E_FAILONEPROVIDER, 0x8004011D).
    Failed(String),
}

/// Where the content of an accepted message is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// Here: at most [`crate::limits::BODY_INLINE_BYTES_MAX`] bytes.
    Inline(Bytes),
    /// In the chunks sent before under the same [`AcceptId`], so many bytes in all.
    Uploaded {
        /// Bytes.
        size: u64,
    },
}

/// What a provider wants shown in its status row; `None` leaves a column as it is (STATUSROW_UPDATE).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowUpdate {
    /// A sentence for a person.
    pub text: Option<String>,
    /// 0 to 100.
    pub progress: Option<u8>,
    /// Whether the provider can reach what it serves (STATUS_OFFLINE).
    pub offline: Option<bool>,
}

/// How far one delivery is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done: `connecting`, `data`, …
    pub phase: String,
    /// Bytes of the message sent so far.
    pub bytes: u64,
}

/// What a worker says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// The provider is ready.
    LoggedOn(LoggedOn),
    /// The provider is not; the worker exits.
    LogonFailed(LogonError),
    /// A future can go on and there is no token.
    Want,
    /// The token goes back.
    Yield {
        /// Which.
        token: Token,
        /// Whether there is more to do at once.
        more: bool,
    },
    /// Some recipients of a delivery are known while others are still under way.
    Settled {
        /// Which delivery.
        delivery: DeliveryId,
        /// Index of the recipient in the delivery, and what became of it.
        outcomes: Vec<(u32, Outcome)>,
    },
    /// A delivery is over. Recipients that were never mentioned are offered again.
    Finished {
        /// Which delivery.
        delivery: DeliveryId,
        /// How it ended.
        result: SubmitResult,
        /// Index of the recipient in the delivery, and what became of it: those not said before.
        outcomes: Vec<(u32, Outcome)>,
    },
    /// How far a delivery is.
    Progress {
        /// Which delivery.
        delivery: DeliveryId,
        /// How far.
        progress: Progress,
    },
    /// A piece of a body is wanted.
    ReadBody {
        /// Repeated in the answer.
        request: RequestId,
        /// Of which delivery.
        delivery: DeliveryId,
        /// First byte.
        offset: u64,
    },
    /// A piece of an inbound message too large to go inline.
    Upload {
        /// Of which message.
        accept: AcceptId,
        /// At most [`crate::limits::BODY_CHUNK_BYTES_MAX`] bytes.
        data: Bytes,
    },
    /// An upload will not be finished.
    UploadAbandoned {
        /// Of which message.
        accept: AcceptId,
    },
    /// A message came in: keep it and say so.
    Accept {
        /// Repeated in the answer.
        accept: AcceptId,
        /// For whom.
        envelope: Envelope,
        /// What.
        content: Content,
    },
    /// A critical section begins; sections nest by count (NOTIFY_CRITSEC, 0x1000).
    CriticalBegin {
        /// For the status row and the audit log.
        reason: String,
    },
    /// A critical section ends (NOTIFY_NONCRIT, 0x2000).
    CriticalEnd,
    /// Columns of the provider's status row (IMAPISupport::ModifyStatusRow).
    Row(RowUpdate),
    /// The provider has logged off; the worker exits.
    LoggedOff,
}
