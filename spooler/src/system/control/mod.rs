//! The control socket: HTTP and JSON over a Unix socket, served by a thread of its own.
//!
//! The thread decides who may ask (peer credentials) and what is well-formed; what the answer is, the supervisor's loop decides
//! ([`Request`] over [`Bridge::ask`]), or the store's readers where only reading is needed ([`Bridge::read`]).

mod access;
mod aliases;
mod body;
mod desk;
mod feed;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod hall;
mod history;
mod listing;
mod patience;
mod provider;
mod queue;
mod refusal;
mod server;
mod socket;
mod submit;
mod watch;

pub use access::{Access, Denied, Operation, Peer, Scope, identify, identify_absent, identify_at_once, may};
pub use feed::{Feed, LINES_KEPT, Line, Subscription};
pub use server::{ControlOptions, ControlServer, start};
pub use socket::{BindError, bind};
use spooler_protocol::aliases::AliasesRead;
use spooler_protocol::calls::ValidateFlags;
use spooler_protocol::control::{
    ApiError, FlushCommand, FlushProgress, LogonCommand, LogonState, MessageSummary, ProviderCommand, ProviderDetail,
    QueueAction, QueueDone, Validated,
};
use spooler_protocol::ids::MessageId;
use spooler_protocol::message::Envelope;
use spooler_protocol::status::StatusTable;
use tokio::sync::oneshot;

use crate::policy::addressing::Addressing;
use crate::system::store::StoreReader;

/// What the supervisor's loop is asked. Each carries where the answer goes; an answer that never comes means shutdown.
#[derive(Debug)]
pub enum Request {
    /// A message comes in. Answered after the commit is synced.
    Submit {
        /// For whom; checked.
        envelope: Envelope,
        /// Whether it is submitted rather than passed on.
        submission: bool,
        /// Who hands it over.
        origin: String,
        /// The user who may see it.
        owner_uid: u32,
        /// An inline content, or the upload that holds it.
        content: SubmitContent,
        /// The number, or the refusal.
        answer: oneshot::Sender<Result<MessageId, ApiError>>,
    },
    /// The table now.
    Status {
        /// The table.
        answer: oneshot::Sender<StatusTable>,
    },
    /// The table now, and every change from here on.
    Watch {
        /// Both.
        answer: oneshot::Sender<Subscription>,
    },
    /// In which state, and why, the schedule has these messages: it overlays what the store said.
    Overlay {
        /// What the store said.
        summaries: Vec<MessageSummary>,
        /// Only those that go through this provider, if one is named: the store knows it only of what was tried already.
        provider: Option<String>,
        /// The same with `state` and `why` of the schedule; messages that are gone meanwhile are left out.
        answer: oneshot::Sender<Vec<MessageSummary>>,
    },
    /// An action on messages. Answered after the commit is synced.
    Queue {
        /// What.
        action: QueueAction,
        /// With which.
        ids: Vec<MessageId>,
        /// The user who wants it.
        uid: u32,
        /// How it went.
        answer: oneshot::Sender<Result<QueueDone, ApiError>>,
    },
    /// A flush begins; the answer names it for [`Request::FlushProgress`].
    FlushBegin {
        /// Of what.
        command: FlushCommand,
        /// Its number.
        answer: oneshot::Sender<Result<u64, ApiError>>,
    },
    /// How far a flush is.
    FlushProgress {
        /// Which.
        flush: u64,
        /// How far; `None` if there is no such flush.
        answer: oneshot::Sender<Option<FlushProgress>>,
    },
    /// The client that began a flush has left. If it was to wait for it, the flush ends; what is queued is delivered in the background.
    FlushEnd {
        /// Which.
        flush: u64,
    },
    /// The files of aliases are to be read again.
    ReadAliases {
        /// How they were, and whether they are in effect.
        answer: oneshot::Sender<AliasesRead>,
    },
    /// An action on a provider.
    Provider {
        /// Its name.
        name: String,
        /// What.
        command: ProviderCommand,
        /// Whether it was done.
        answer: oneshot::Sender<Result<(), ApiError>>,
    },
    /// All providers look after their state.
    ValidateAll {
        /// How.
        flags: ValidateFlags,
        /// What became of each.
        answer: oneshot::Sender<Vec<Validated>>,
    },
    /// Everything about a provider.
    ProviderDetail {
        /// Its name.
        name: String,
        /// That, or why not.
        answer: oneshot::Sender<Result<ProviderDetail, ApiError>>,
    },
    /// A person is there to log a provider on. Answered when the logon has ended.
    Logon {
        /// Its name.
        name: String,
        /// What the person answered so far.
        command: LogonCommand,
        /// How far it is.
        answer: oneshot::Sender<Result<LogonState, ApiError>>,
    },
}

/// Where the content of a submission is.
#[derive(Debug)]
pub enum SubmitContent {
    /// In memory, CRLF line ends.
    Inline(bytes::Bytes),
    /// In an upload of the store that was begun under this key; so many bytes.
    Uploaded {
        /// The key.
        upload: u64,
        /// Bytes.
        size: u64,
        /// The `Message-ID` of its header, for the mail log.
        message_id: Option<String>,
    },
}

/// A job for a store reader's thread.
pub type ReadJob = Box<dyn FnOnce(&mut dyn StoreReader) + Send>;

/// What the control thread may ask of the rest of the process. Nothing here blocks.
pub trait Bridge: Send + Sync + 'static {
    /// Hands a request to the loop.
    fn ask(&self, request: Request);

    /// Runs a job on a reader's thread.
    fn read(&self, job: ReadJob);

    /// Changes whenever the status table may have changed.
    fn status_changes(&self) -> tokio::sync::watch::Receiver<u64>;

    /// What is done with addresses on their way in.
    fn addressing(&self) -> std::sync::Arc<Addressing>;

    /// Appends to the upload `key`, beginning it if it is new; answers when the chunk is written (not synced).
    fn upload(&self, key: u64, chunk: bytes::Bytes, answer: oneshot::Sender<Result<(), ApiError>>);

    /// Forgets an upload.
    fn abandon_upload(&self, key: u64);
}
