//! What the control socket and the pick-up folder may ask of the loop, and how the answers find their way back.

use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use spooler_protocol::aliases::AliasesRead;
use spooler_protocol::control::{
    ApiError, FlushProgress, LogonState, MessageSummary, ProviderDetail, QueueDone, Validated,
};
use spooler_protocol::ids::MessageId;
use spooler_protocol::status::StatusTable;
use tokio::sync::{oneshot, watch};

use crate::policy::addressing::Addressing;
use crate::supervisor::event::{Answer, Ask, Incoming, UploadKey};
use crate::system::control::{Bridge, ReadJob, Request, SubmitContent, Subscription};
use crate::system::mailbox::{Letter, Mailbox};
use crate::system::store::readers::Readers;
use crate::system::store::uploads::Uploads;

/// Uploads of clients have keys of their own, so that they never meet those of workers.
const CLIENT_UPLOAD: u64 = 1 << 63;

/// What is done with addresses, as the configuration in effect says. Shared by all entrances; a reload changes it for all at once.
#[derive(Clone, Debug)]
pub struct CurrentAddressing(Arc<RwLock<Arc<Addressing>>>);

impl CurrentAddressing {
    /// As a configuration says.
    #[must_use]
    pub fn new(addressing: Arc<Addressing>) -> Self {
        Self(Arc::new(RwLock::new(addressing)))
    }

    /// As it is now.
    #[must_use]
    pub fn get(&self) -> Arc<Addressing> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// As it is from now on.
    pub(super) fn set(&self, addressing: Arc<Addressing>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = addressing;
    }
}

/// The loop, as the control socket's thread sees it.
pub struct LoopBridge {
    /// The way into the loop.
    pub mailbox: Mailbox,
    /// The reading ends of the store.
    pub readers: Arc<Readers>,
    /// Contents on their way in.
    pub uploads: Arc<Uploads>,
    /// Moves whenever the status table may have changed.
    pub status: watch::Receiver<u64>,
    /// What is done with addresses on their way in.
    pub addressing: CurrentAddressing,
}

impl Bridge for LoopBridge {
    fn ask(&self, request: Request) {
        self.mailbox.put(Letter::Asked(request));
    }

    fn read(&self, job: ReadJob) {
        self.readers.run(job);
    }

    fn status_changes(&self) -> watch::Receiver<u64> {
        self.status.clone()
    }

    fn addressing(&self) -> Arc<Addressing> {
        self.addressing.get()
    }

    fn upload(&self, key: u64, chunk: Bytes, answer: oneshot::Sender<Result<(), ApiError>>) {
        let done = move |result: Result<(), crate::system::store::StoreError>| {
            let result = result.map_err(|error| ApiError::from(super::acting::refusal(&error)));
            let _ = answer.send(result);
        };
        self.uploads.append(key | CLIENT_UPLOAD, chunk, Box::new(done));
    }

    fn abandon_upload(&self, key: u64) {
        self.uploads.abandon(key | CLIENT_UPLOAD);
    }
}

/// Who waits for an answer.
pub(super) enum Question {
    Submit(oneshot::Sender<Result<MessageId, ApiError>>),
    Status(oneshot::Sender<StatusTable>),
    Overlay(oneshot::Sender<Vec<MessageSummary>>),
    Queue(oneshot::Sender<Result<QueueDone, ApiError>>),
    Flush(oneshot::Sender<Result<u64, ApiError>>),
    FlushProgress(oneshot::Sender<Option<FlushProgress>>),
    Provider(oneshot::Sender<Result<(), ApiError>>),
    Validated(oneshot::Sender<Vec<Validated>>),
    ProviderDetail(oneshot::Sender<Result<ProviderDetail, ApiError>>),
    Logon(oneshot::Sender<Result<LogonState, ApiError>>),
    Nobody,
}

impl Question {
    /// Gives the answer to whoever still waits for it.
    pub(super) fn answer(self, answer: Answer) {
        match (self, answer) {
            (Self::Submit(to), Answer::Submitted(result)) => drop(to.send(result.map_err(ApiError::from))),
            (Self::Status(to), Answer::Status(table)) => drop(to.send(*table)),
            (Self::Overlay(to), Answer::Overlay(summaries)) => drop(to.send(summaries)),
            (Self::Queue(to), Answer::Queue(result)) => drop(to.send(result)),
            (Self::Flush(to), Answer::Flush(result)) => drop(to.send(result)),
            (Self::FlushProgress(to), Answer::FlushProgress(progress)) => drop(to.send(progress)),
            (Self::Provider(to), Answer::Provider(result)) => drop(to.send(result)),
            (Self::Validated(to), Answer::Validated(results)) => drop(to.send(results)),
            (Self::ProviderDetail(to), Answer::ProviderDetail(result)) => drop(to.send(*result)),
            (Self::Logon(to), Answer::Logon(result)) => drop(to.send(result)),
            // A question without its answer: dropping it tells whoever waits.
            _ => {}
        }
    }
}

/// What a request means for the loop.
pub(super) enum Split {
    /// A question to the supervisor, and who waits for the answer.
    Ask(Ask, Question),
    /// Somebody begins to watch.
    Watch(oneshot::Sender<Subscription>),
    /// Aliases are to be read again.
    ReadAliases(oneshot::Sender<AliasesRead>),
}

/// Who is to deal with a request.
pub(super) fn split(request: Request) -> Split {
    let (ask, question) = match request {
        Request::Watch { answer } => return Split::Watch(answer),
        Request::ReadAliases { answer } => return Split::ReadAliases(answer),
        Request::Submit { envelope, submission, origin, owner_uid, content, answer } => {
            let content = match content {
                SubmitContent::Inline(bytes) => Incoming::Inline(bytes),
                SubmitContent::Uploaded { upload, size, message_id } => {
                    Incoming::Upload { key: UploadKey(upload | CLIENT_UPLOAD), size, message_id }
                }
            };
            (Ask::Submit { envelope, submission, origin, owner_uid, content }, Question::Submit(answer))
        }
        Request::Status { answer } => (Ask::Status, Question::Status(answer)),
        Request::Overlay { summaries, provider, answer } => {
            (Ask::Overlay(summaries, provider), Question::Overlay(answer))
        }
        Request::Queue { action, ids, uid, answer } => (Ask::Queue(action, ids, uid), Question::Queue(answer)),
        Request::FlushBegin { command, answer } => (Ask::FlushBegin(command), Question::Flush(answer)),
        Request::FlushProgress { flush, answer } => (Ask::FlushProgress(flush), Question::FlushProgress(answer)),
        Request::FlushEnd { flush } => (Ask::FlushEnd(flush), Question::Nobody),
        Request::Provider { name, command, answer } => (Ask::Provider(name, command), Question::Provider(answer)),
        Request::ValidateAll { flags, answer } => (Ask::ValidateAll(flags), Question::Validated(answer)),
        Request::ProviderDetail { name, answer } => (Ask::ProviderDetail(name), Question::ProviderDetail(answer)),
        Request::Logon { name, command, answer } => (Ask::Logon(name, command), Question::Logon(answer)),
    };
    Split::Ask(ask, question)
}
