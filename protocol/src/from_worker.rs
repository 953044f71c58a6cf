//! What a worker says to the supervisor.
//!
//! A worker's word is gossip: the supervisor checks sizes and states, and drops what is late or unknown. The order of variants is
//! the wire format: append only, with a new [`crate::handshake::PROTOCOL_VERSION`].

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::calls::{CallError, EndMessage, Methods, Prompt, SpoolerNotify, StartResult, StatusReport, Wishes};
use crate::confinement::Confined;
use crate::ids::{AcceptId, DeliveryId, RequestId, Token};
use crate::message::Envelope;
use crate::outcome::{Outcome, SubmitResult};
use crate::plain::plain;

/// What a provider is, said after a successful logon and again when it has changed (IXPLogon::AddressTypes and the flags of
/// TransportLogon).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedOn {
    /// Address types served, such as `SMTP`, used where the configuration gives none. Empty: nothing by type. `*`: any type.
    pub address_types: Vec<String>,
    /// Deliveries that may be in flight at once; 0 for a provider that only receives.
    pub credit: u32,
    /// How deliveries are grouped and limited.
    pub destinations: Destinations,
    /// What the row shows as identity: the relay's name, the listening addresses, a folder.
    pub identity: String,
    /// Which calls it wishes to get.
    pub wishes: Wishes,
    /// What can be done with its row.
    pub methods: Methods,
    /// Whether it wishes to be tried after all others (STATUS_XP_PREFER_LAST, 0x10).
    pub prefer_last: bool,
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
    /// The person who was asked gave up (MAPI_E_USER_CANCEL, 0x80040113).
    Cancelled,
    /// These questions have to be answered by a person first, and there is nobody to ask (MAPI_E_FAILONEPROVIDER as well: a missing
    /// credential).
    Unanswered(Vec<Prompt>),
    /// Anything else: the provider is not tried again before somebody restarts it or changes its settings.
    Other(String),
}

impl LogonError {
    /// The same without the numbers of the system.
    #[must_use]
    pub fn in_plain_words(self) -> Self {
        match self {
            Self::Unconfigured(text) => Self::Unconfigured(plain(text)),
            Self::Failed(text) => Self::Failed(plain(text)),
            Self::Other(text) => Self::Other(plain(text)),
            Self::Cancelled | Self::Unanswered(_) => self,
        }
    }
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

/// How a message came to its provider. The supervisor completes what a submission lacks (RFC 6409 8) and leaves the rest as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// Whether its sender hands it in here for the first time, rather than passing it on.
    pub submission: bool,
    /// Bytes of the trace header that the provider put before the message.
    pub trace_bytes: u32,
    /// The return path, as in the envelope.
    pub sender: String,
    /// The client, for the mail log: `host.example[192.0.2.1]`, as it names itself and where it is; empty if there is none.
    pub client: String,
}

/// What a provider wants shown in one of its status rows; `None` leaves a column as it is (STATUSROW_UPDATE).
///
/// The flush bits are commands: setting one asks the spooler for its attention, clearing it ends the flush.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowUpdate {
    /// A sentence for a person; empty for the spooler's own words (PR_STATUS_STRING).
    pub text: Option<String>,
    /// 0 to 100; anything above for nothing under way (PR_REMOTE_PROGRESS).
    pub progress: Option<u8>,
    /// What the progress is of (PR_REMOTE_PROGRESS_TEXT).
    pub progress_text: Option<String>,
    /// Whether the provider cannot reach what it serves (STATUS_OFFLINE).
    pub offline: Option<bool>,
    /// Whether it is receiving (STATUS_INBOUND_ACTIVE).
    pub inbound_active: Option<bool>,
    /// Whether its inbound queue is being emptied (STATUS_INBOUND_FLUSH).
    pub inbound_flush: Option<bool>,
    /// Whether its outbound queue is being emptied (STATUS_OUTBOUND_FLUSH).
    pub outbound_flush: Option<bool>,
    /// Whether its state can be validated now (PR_REMOTE_VALIDATE_OK).
    pub validate_ok: Option<bool>,
}

impl RowUpdate {
    /// Puts a later update over this one: columns that it says nothing of stay as they are.
    pub fn merge(&mut self, later: Self) {
        let Self { text, progress, progress_text, offline, inbound_active, inbound_flush, outbound_flush, validate_ok } =
            later;
        self.text = text.or(self.text.take());
        self.progress = progress.or(self.progress);
        self.progress_text = progress_text.or(self.progress_text.take());
        self.offline = offline.or(self.offline);
        self.inbound_active = inbound_active.or(self.inbound_active);
        self.inbound_flush = inbound_flush.or(self.inbound_flush);
        self.outbound_flush = outbound_flush.or(self.outbound_flush);
        self.validate_ok = validate_ok.or(self.validate_ok);
    }
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
    /// What the provider is now.
    Announced(LoggedOn),
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
        /// What the provider wants done with the message if the result is [`SubmitResult::Done`].
        end: EndMessage,
        /// Index of the recipient in the delivery, and what became of it: those not said before.
        outcomes: Vec<(u32, Outcome)>,
    },
    /// The sender is to be told about recipients (IMAPISupport::StatusRecips).
    StatusRecips {
        /// Of which delivery.
        delivery: DeliveryId,
        /// Index of the recipient in the delivery, and what to tell.
        reports: Vec<(u32, StatusReport)>,
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
        /// How it came.
        arrival: Arrival,
        /// What.
        content: Content,
    },
    /// A critical section begins; sections nest by count (NOTIFY_CRITSEC, 0x1000).
    CriticalBegin {
        /// Grows with each section of this worker, so that the end of an old one is never taken for that of a new one.
        section: u64,
        /// For the status row and the audit log.
        reason: String,
    },
    /// A critical section ends (NOTIFY_NONCRIT, 0x2000).
    CriticalEnd {
        /// Which.
        section: u64,
    },
    /// Columns of one of the provider's status rows (IMAPISupport::ModifyStatusRow).
    Row {
        /// Grows with each word about any row; what is older than what is known is dropped.
        sequence: u64,
        /// Which row: empty for the provider's own, a name for one that it added.
        row: String,
        /// What changes.
        update: Box<RowUpdate>,
    },
    /// News for the spooler.
    Notify(SpoolerNotify),
    /// Whether a message waits to be received.
    Polled {
        /// Whether.
        waiting: bool,
    },
    /// `start_message` is over.
    StartEnded(StartResult),
    /// `idle` is over.
    Idled,
    /// What `flush_queues` said.
    FlushAnswered(Result<(), CallError>),
    /// What `validate_state` said.
    Validated {
        /// Which request this answers.
        request: RequestId,
        /// What it said.
        result: Result<(), CallError>,
    },
    /// The provider has logged off; the worker exits.
    LoggedOff,
    /// The sandbox is closed; said before the provider logs on.
    Confined(Confined),
    /// Pieces of a message follow. Without this word they are those of a message that is passed on without a trace header.
    UploadBegins {
        /// Of which message.
        accept: AcceptId,
        /// How it came.
        arrival: Arrival,
    },
}
