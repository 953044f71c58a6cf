//! What clients and the supervisor exchange on the control socket: HTTP with JSON, below `/v1`.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/messages` a [`Submit`] line, `\n`, then the message as it is | [`Submitted`] |
//! | `GET /v1/messages?`[`Filter`] | [`MessageSummary`] values, one JSON document a line |
//! | `GET /v1/messages/count` | [`QueueCount`] |
//! | `GET /v1/messages/ID` | [`MessageDetail`] |
//! | `GET /v1/messages/ID/content` | the message as it is |
//! | `POST /v1/messages/do` a [`QueueCommand`] | [`QueueDone`] |
//! | `GET /v1/history?`[`crate::history::HistoryFilter`] | [`crate::history::Finished`] values, newest first, one a line |
//! | `GET /v1/history/ID` | [`crate::history::Finished`] |
//! | `GET /v1/status` | [`crate::status::StatusTable`] |
//! | `GET /v1/status/watch` | [`crate::watching::StatusUpdate`] values, one a line: a snapshot, then every change in order |
//! | `POST /v1/flush` a [`FlushCommand`] | [`FlushProgress`] values, one a line, until it is done; only one if nobody waits |
//! | `GET /v1/providers/NAME` | [`ProviderDetail`] |
//! | `POST /v1/providers/NAME/do` a [`ProviderCommand`] | `{}` |
//! | `POST /v1/providers/NAME/logon` a [`LogonCommand`] | [`LogonState`] |
//! | `POST /v1/validate` a [`ValidateCommand`] | a list of [`Validated`] |
//!
//! Every refusal is an [`ApiError`] with a fitting HTTP status.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::calls::{Prompt, ValidateFlags};
use crate::ids::MessageId;
use crate::message::{Envelope, Notify};
use crate::outcome::Reply;
use crate::status::ProviderRow;
use crate::to_worker::Refusal;

/// The first line of a submission on the control socket, and of a file in the pick-up folder; the message follows behind `\n`.
///
/// The message has LF or CRLF line ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submit {
    /// For whom.
    pub envelope: Envelope,
    /// The message is passed on, not submitted: its header stays as it is.
    #[serde(default)]
    pub as_is: bool,
}

/// A submission was accepted: it is on disk, synced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// Its number in the queue.
    pub id: MessageId,
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// A sentence for a person: what, where and what to do.
    pub error: String,
    /// Whether trying again later can help.
    pub temporary: bool,
}

impl From<Refusal> for ApiError {
    /// What a client is told of a message that is refused.
    fn from(refusal: Refusal) -> Self {
        Self { error: refusal.text, temporary: refusal.temporary }
    }
}

/// In which state a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MessageState {
    /// Waits for its provider.
    Ready,
    /// In the hands of a worker.
    InFlight,
    /// Waits for a later attempt.
    Deferred,
    /// Held by a person.
    Held,
    /// Set aside after it was in flight in workers that died, or because it is damaged.
    Quarantined,
}

/// Where a recipient stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecipientState {
    /// Not settled.
    Pending,
    /// In its mailbox, or handed to its program.
    Delivered,
    /// Passed on to another server.
    Relayed,
    /// Failed for good.
    Failed,
}

/// Which messages; all given conditions hold together. No condition means every message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// These numbers, separated by commas.
    pub ids: Option<String>,
    /// An unsettled recipient goes through this provider.
    pub provider: Option<String>,
    /// A recipient contains this text, case ignored.
    pub to: Option<String>,
    /// The sender contains this text, case ignored; `<>` is the null sender.
    pub from: Option<String>,
    /// In this state.
    pub state: Option<MessageState>,
    /// Submitted longer ago than so many seconds.
    pub older_s: Option<u64>,
    /// At most so many messages, oldest first.
    pub limit: Option<u64>,
}

/// One line of a queue listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageSummary {
    /// Its number.
    pub id: MessageId,
    /// In which state.
    pub state: MessageState,
    /// Why it waits; empty if it does not.
    pub why: String,
    /// Return path; empty is the null sender.
    pub sender: String,
    /// Unsettled recipients first; at most 10.
    pub recipients: Vec<String>,
    /// How many recipients are not settled.
    pub pending: u64,
    /// Bytes of the content.
    pub size: u64,
    /// When it was accepted, milliseconds since 1970.
    pub submitted_ms: i64,
    /// When the next attempt is due, milliseconds since 1970.
    pub next_try_ms: Option<i64>,
    /// Attempts made so far.
    pub attempts: u32,
}

/// The numbers of the queue. A message that goes through several providers counts at each of them in `ready`, `in_flight` and
/// `deferred`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueCount {
    /// Messages on disk.
    pub total: u64,
    /// Of these, waiting for a worker.
    pub ready: u64,
    /// In the hands of workers.
    pub in_flight: u64,
    /// Waiting for a later attempt.
    pub deferred: u64,
    /// Held by a person.
    pub held: u64,
    /// Set aside.
    pub quarantined: u64,
    /// When the oldest was accepted, milliseconds since 1970.
    pub oldest_ms: Option<i64>,
    /// Whether a listing shows all of them to the user that asks.
    pub all_visible: bool,
}

/// One recipient of a [`MessageDetail`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientDetail {
    /// Where to.
    pub address: String,
    /// Where it stands.
    pub state: RecipientState,
    /// Attempts made so far.
    pub attempts: u32,
    /// When the next attempt is due, milliseconds since 1970.
    pub next_try_ms: Option<i64>,
    /// The provider that serves it now, or served it last.
    pub provider: Option<String>,
    /// The last word about it.
    pub reply: Option<Reply>,
    /// Which reports its sender wants.
    pub notify: Option<Notify>,
}

/// Everything about one message but its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageDetail {
    /// As in the listing.
    #[serde(flatten)]
    pub summary: MessageSummary,
    /// The sender's envelope identifier.
    pub envid: Option<String>,
    /// Who handed it over: a user id, a provider.
    pub origin: String,
    /// Each recipient.
    pub recipient_details: Vec<RecipientDetail>,
    /// Workers that died while they had it, since it was accepted or released; the oldest first.
    #[serde(default)]
    pub deaths: Vec<Death>,
}

/// The end of a worker that had a message in its hands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// Whose worker it was.
    pub provider: String,
    /// How it ended, such as `signal 11 (SIGSEGV)`, and what it was ended for if it was ended.
    pub cause: String,
    /// What it was doing with the message, in its own words; empty if it had said nothing.
    pub phase: String,
    /// Bytes of the content that it had asked for or sent on, as it had said.
    pub bytes: u64,
    /// How many other messages it had in its hands.
    pub company: u32,
    /// The last lines of its log.
    pub stderr_tail: Vec<String>,
}

/// What to do with messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueueAction {
    /// Do not deliver until released.
    Hold,
    /// Deliver again.
    Release,
    /// Try now, whatever the schedule says.
    Retry,
    /// Forget, without a report.
    Delete,
    /// Stop what is under way and give up on recipients not served yet, without a report.
    Cancel,
}

/// An action on the messages of a filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueCommand {
    /// What to do.
    pub action: QueueAction,
    /// With which messages.
    pub filter: Filter,
}

/// How an action went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueDone {
    /// Messages it was done to.
    pub done: u64,
    /// Their numbers, at most 1000.
    pub ids: Vec<MessageId>,
    /// Messages that it does not apply to, with the reason: `12: is in flight; try again, or cancel it`.
    pub refused: Vec<String>,
}

/// Work queues off now (IMAPIStatus::FlushQueues).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlushCommand {
    /// Of one provider; of all without it.
    pub provider: Option<String>,
    /// What goes out. Without either direction both are meant (FLUSH_UPLOAD).
    pub outbound: bool,
    /// What comes in (FLUSH_DOWNLOAD).
    pub inbound: bool,
    /// Nobody waits for the end: it goes on when the client has left (FLUSH_ASYNC_OK). A flush that somebody waits for ends when
    /// nobody does any more.
    pub no_wait: bool,
    /// End flushes that run, whoever began them, instead of beginning one.
    pub stop: bool,
}

/// How far a flush is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlushProgress {
    /// Messages that were waiting when it began.
    pub total: u64,
    /// Of these, attempted since.
    pub attempted: u64,
    /// Of these attempted, recipients settled well.
    pub sent: u64,
    /// Recipients failed or deferred.
    pub not_sent: u64,
    /// Messages received meanwhile by the providers in it.
    #[serde(default)]
    pub received: u64,
    /// Whether every one of them was attempted, or cannot be, and everything that waited was received.
    pub done: bool,
    /// What it waits for, if nothing moves.
    pub why: String,
    /// Recipients that failed or were deferred, the first 20.
    #[serde(default)]
    pub failures: Vec<FlushFailure>,
}

/// A recipient that a flush could not deliver to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlushFailure {
    /// Of which message.
    pub id: MessageId,
    /// Its place among the recipients of the message.
    pub recipient: u32,
    /// The provider that tried.
    pub provider: String,
    /// Whether it failed for good; otherwise it is tried again.
    pub permanent: bool,
    /// Why: the reply word for word.
    pub reason: String,
}

/// What to do with a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderAction {
    /// Log its worker off and start another, even if it had failed for good.
    Restart,
    /// Let it finish what it has and give it nothing more.
    Pause,
    /// Go on after a pause.
    Resume,
    /// Look after its state (ValidateState); one that has failed is logged on again instead.
    Validate,
}

/// An action on a provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderCommand {
    /// What to do.
    pub action: ProviderAction,
    /// How, where the action is [`ProviderAction::Validate`].
    #[serde(default)]
    pub flags: ValidateFlags,
}

/// All providers look after their state (ValidateState of the spooler). Those that have failed are logged on again; with
/// [`ValidateFlags::CONFIG_CHANGED`] each says again what it serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidateCommand {
    /// What to do.
    #[serde(default)]
    pub flags: ValidateFlags,
}

/// What came of validating one provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validated {
    /// Its name.
    pub provider: String,
    /// Whether it went well.
    pub ok: bool,
    /// The rest of a sentence about the provider; or why it did not go well.
    pub text: String,
}

/// Everything about one provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderDetail {
    /// Its row.
    #[serde(flatten)]
    pub row: ProviderRow,
    /// What it needs of the machine, and its limits: what, and how much. Empty before its worker has closed its sandbox.
    pub needs: Vec<(String, String)>,
    /// How long its worker took to close its sandbox, microseconds.
    pub closing_us: u64,
}

/// A person is there to log a provider on.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogonCommand {
    /// Answers to what was asked before, by the keys of the questions. They are kept in memory only.
    #[serde(default)]
    pub answers: BTreeMap<String, String>,
    /// The person gives up: the provider stays barred, and what was answered is forgotten.
    #[serde(default)]
    pub cancel: bool,
}

impl fmt::Debug for LogonCommand {
    /// Leaves out the answers: they are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogonCommand").field("cancel", &self.cancel).finish_non_exhaustive()
    }
}

/// How far a logon is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum LogonState {
    /// The provider is logged on.
    Ready,
    /// It asks; repeat the logon with the answers.
    Asks {
        /// What it asks.
        prompts: Vec<Prompt>,
    },
    /// It was given up.
    Cancelled,
}
