//! What the supervisor says to a worker.
//!
//! The order of variants is the wire format: append only, with a new [`crate::handshake::PROTOCOL_VERSION`].

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::calls::{FlushFlags, LogonFlags, ValidateFlags};
use crate::claims::Claims;
use crate::confinement::Confinement;
use crate::ids::{AcceptId, DeliveryId, Generation, MessageId, RequestId, Token};
use crate::message::{BodyType, Priority, Recipient, Ret};
use crate::notification::Notification;

/// The answer to a good [`crate::handshake::Hello`]: everything that a provider needs to log on.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The provider's name in the configuration: `relay` in `[provider.relay]`.
    pub provider: String,
    /// The provider's kind: `smtp`.
    pub kind: String,
    /// Which incarnation this is.
    pub generation: Generation,
    /// The provider's table of the configuration as TOML, secrets included.
    pub settings: String,
    /// This machine's name in mail.
    pub hostname: String,
    /// Largest message that is accepted, bytes.
    pub message_bytes_max: u64,
    /// What is claimed by any provider, for one that has to refuse the rest.
    pub claims: Claims,
    /// How the session begins.
    pub flags: LogonFlags,
    /// What a person answered to earlier [`crate::calls::Prompt`]s: key and answer.
    pub answers: Vec<(String, String)>,
    /// The sandbox to close before the provider logs on; `None` if the configuration switches it off.
    pub confinement: Option<Box<Confinement>>,
}

impl fmt::Debug for Welcome {
    /// Leaves out settings and answers: they hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Welcome")
            .field("provider", &self.provider)
            .field("kind", &self.kind)
            .field("generation", &self.generation)
            .field("flags", &self.flags)
            .finish_non_exhaustive()
    }
}

/// One message with the recipients that this worker is to serve (IXPLogon::SubmitMessage).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// Names the delivery from here on.
    pub delivery: DeliveryId,
    /// Names the message to people.
    pub message: MessageId,
    /// Return path; empty is the null sender.
    pub sender: String,
    /// Those to serve; outcomes name them by index.
    pub recipients: Vec<Recipient>,
    /// Those that others serve or have served, for a provider that wishes [`crate::calls::Wishes::RESOLVE`].
    pub others: Vec<Recipient>,
    /// Whether this provider deferred the message before and asked for it again (BEGIN_DEFERRED, 0x1).
    pub deferred_before: bool,
    /// What the body is declared as.
    pub body: BodyType,
    /// Whether RFC 6531 is needed.
    pub smtputf8: bool,
    /// How much a failure report returns.
    pub ret: Option<Ret>,
    /// The sender's envelope identifier, in xtext.
    pub envid: Option<String>,
    /// How urgent it is.
    pub priority: Priority,
    /// Which attempt this is for the recipients, from 1.
    pub attempt: u32,
    /// Bytes of the whole content.
    pub size: u64,
    /// The whole content if it is small, else nothing: it is then read in chunks.
    pub content: Option<Bytes>,
}

/// Why a message is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Whether trying again later can help.
    pub temporary: bool,
    /// The enhanced status code (RFC 3463), such as `4.3.1`.
    pub enhanced: String,
    /// A sentence for a person.
    pub text: String,
}

/// What the supervisor says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Log on.
    Welcome(Welcome),
    /// Run.
    Grant {
        /// What to give back.
        token: Token,
        /// For how long, milliseconds.
        slice_ms: u32,
        /// Others wait already: counts as a [`Self::Recall`] right behind.
        recalled: bool,
    },
    /// Others wait: give the token back when the slice is used up, or at once if nothing is being done.
    Recall {
        /// Which.
        token: Token,
    },
    /// Deliver.
    Submit(Box<Submission>),
    /// A piece of a body; shorter than [`crate::limits::BODY_CHUNK_BYTES_MAX`] only at the end.
    Body {
        /// Which request this answers.
        request: RequestId,
        /// The bytes, or why there are none.
        data: Result<Bytes, String>,
    },
    /// Another chunk of this upload is on disk (not synced): one more may be sent.
    UploadCredit {
        /// Which upload.
        accept: AcceptId,
    },
    /// The message is on disk, synced; or it is refused and nothing of it is kept.
    Accepted {
        /// Which message.
        accept: AcceptId,
        /// Its number in the queue, or why not.
        result: Result<MessageId, Refusal>,
    },
    /// News.
    Notify(Notification),
    /// What is claimed has changed.
    Claims(Claims),
    /// A critical section is in force.
    CriticalGranted {
        /// Repeated from [`crate::from_worker::FromWorker::CriticalBegin`].
        section: u64,
        /// Whether the priority was raised; if not, why.
        raised: Result<(), String>,
    },
    /// Say again what you are: the answer is [`crate::from_worker::FromWorker::Announced`] (IXPLogon::AddressTypes).
    Announce,
    /// Does a message wait to be received? The answer is [`crate::from_worker::FromWorker::Polled`] (IXPLogon::Poll).
    Poll,
    /// Receive one message. The answer is [`crate::from_worker::FromWorker::StartEnded`] (IXPLogon::StartMessage).
    StartMessage,
    /// The machine is idle. The answer is [`crate::from_worker::FromWorker::Idled`] (IXPLogon::Idle).
    Idle,
    /// A flush begins. The answer is [`crate::from_worker::FromWorker::FlushAnswered`] (IXPLogon::FlushQueues).
    FlushQueues(FlushFlags),
    /// Look after your state. The answer is [`crate::from_worker::FromWorker::Validated`] (IXPLogon::ValidateState).
    ValidateState {
        /// Repeated in the answer.
        request: RequestId,
        /// What to do.
        flags: ValidateFlags,
    },
    /// End all work, log off and exit.
    Logoff {
        /// Do not wait for deliveries in flight (LOGOFF_HURRY, 0x80000000).
        hurry: bool,
    },
    /// Critical sections are over although the worker did not end them: their time is up, or the spooler stops in a hurry.
    CriticalEnded {
        /// The last section that is over, and with it all that began before.
        up_to: u64,
        /// Why, for people.
        why: String,
    },
}
