//! What the supervisor hears and what it wants done. All plain data.

use std::fmt;

use bytes::Bytes;
use spooler_protocol::calls::ValidateFlags;
use spooler_protocol::control::{
    ApiError, FlushCommand, FlushProgress, LogonCommand, LogonState, MessageSummary, ProviderCommand, ProviderDetail,
    QueueAction, QueueDone, Validated,
};
use spooler_protocol::from_worker::FromWorker;
use spooler_protocol::ids::{AcceptId, DeliveryId, Generation, MessageId};
use spooler_protocol::message::Envelope;
use spooler_protocol::notification::SystemMessage;
use spooler_protocol::outcome::Reply;
use spooler_protocol::status::StatusTable;
use spooler_protocol::to_worker::{Refusal, ToWorker};

use super::mail::MailEvent;
use crate::config::Config;
use crate::policy::ProviderId;
use crate::policy::idle_gate::Observation;
use crate::policy::priority_plan::{Level, Reached};
use crate::record::{Change, NewMessage, Scanned};

/// Names a unit of changes on its way to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Names a question of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// Names a content that is being uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadKey(pub u64);

/// Names one worker: late words of an older generation are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId {
    /// Whose worker.
    pub provider: ProviderId,
    /// Which incarnation.
    pub generation: Generation,
}

/// The content of a message that comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// Here.
    Inline(Bytes),
    /// In an upload of so many bytes.
    Upload {
        /// Which.
        key: UploadKey,
        /// Bytes.
        size: u64,
        /// The `Message-ID` of its header, for the mail log.
        message_id: Option<String>,
    },
}

/// How the process of a worker ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerEnd {
    /// Its exit code or signal, for people.
    pub how: String,
    /// The last lines of its log.
    pub stderr_tail: Vec<String>,
    /// Whether it ended by a signal with which people ask processes to go (SIGTERM, SIGINT, SIGHUP), and which no crash brings.
    pub by_hand: bool,
}

impl From<&str> for WorkerEnd {
    fn from(how: &str) -> Self {
        Self { how: how.to_owned(), ..Self::default() }
    }
}

impl fmt::Display for WorkerEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.how)?;
        if self.stderr_tail.is_empty() {
            return Ok(());
        }
        write!(f, "; stderr: {}", self.stderr_tail.join(" / "))
    }
}

/// News of a worker.
#[derive(Debug)]
pub enum WorkerNews {
    /// The process runs.
    Started {
        /// Its id.
        pid: u32,
    },
    /// There is no process, or it gave no acceptable hello and is being killed.
    StartFailed(String),
    /// It said something.
    Said {
        /// What; never about bodies, which do not concern the supervisor.
        said: FromWorker,
        /// The process's CPU clock, where it matters.
        cpu_us: Option<u64>,
    },
    /// It hands a message over.
    Accept {
        /// Repeated in the answer.
        accept: AcceptId,
        /// For whom.
        envelope: Envelope,
        /// Whether its sender hands it in here for the first time.
        submission: bool,
        /// The client that it had it from, for the mail log; empty if there is none.
        client: String,
        /// What.
        content: Incoming,
    },
    /// It says what cannot be understood.
    Garbled(String),
    /// The process is dead.
    Died(WorkerEnd),
    /// Its priority was set, as far as it could be.
    Priority(Level, Reached),
    /// The process's CPU clock, read for the status row or because the supervisor wants to know.
    Cpu(Option<u64>),
    /// Microseconds of CPU that the programs which it runs have used so far.
    Programs(u64),
    /// It asked for a piece of the body of a delivery that it has in its hands.
    Reads(DeliveryId),
    /// It handed in a piece of a large message.
    Uploads,
}

/// A question of a client, or a submission.
#[derive(Debug)]
pub enum Ask {
    /// A message comes in.
    Submit {
        /// For whom.
        envelope: Envelope,
        /// Whether it is submitted rather than passed on.
        submission: bool,
        /// Who hands it over, for people.
        origin: String,
        /// Who may see it.
        owner_uid: u32,
        /// What.
        content: Incoming,
    },
    /// The status table.
    Status,
    /// State and reason of these messages, or of those among them that go through a provider.
    Overlay(Vec<MessageSummary>, Option<String>),
    /// An action on messages, and the user who wants it.
    Queue(QueueAction, Vec<MessageId>, u32),
    /// Begin a flush.
    FlushBegin(FlushCommand),
    /// How far it is.
    FlushProgress(u64),
    /// Nobody watches it any more.
    FlushEnd(u64),
    /// An action on a provider.
    Provider(String, ProviderCommand),
    /// All providers look after their state.
    ValidateAll(ValidateFlags),
    /// Everything about a provider.
    ProviderDetail(String),
    /// A person is there to log a provider on.
    Logon(String, LogonCommand),
}

/// The answer to an [`Ask`].
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The message is on disk, or refused.
    Submitted(Result<MessageId, Refusal>),
    /// The table.
    Status(Box<StatusTable>),
    /// The same messages as the schedule sees them.
    Overlay(Vec<MessageSummary>),
    /// How the action went.
    Queue(Result<QueueDone, ApiError>),
    /// The number of the flush.
    Flush(Result<u64, ApiError>),
    /// How far it is.
    FlushProgress(Option<FlushProgress>),
    /// Whether it was done.
    Provider(Result<(), ApiError>),
    /// What became of each provider.
    Validated(Vec<Validated>),
    /// Everything about the provider.
    ProviderDetail(Box<Result<ProviderDetail, ApiError>>),
    /// How far the logon is.
    Logon(Result<LogonState, ApiError>),
}

/// What the supervisor hears.
#[derive(Debug)]
pub enum Event {
    /// News of a worker.
    Worker(WorkerId, WorkerNews),
    /// A unit is on disk, synced; or nothing of it is.
    Committed(Ticket, Result<(), Refusal>),
    /// An upload has its final name on disk; or it is gone.
    UploadFinished(Ticket, Result<u64, Refusal>),
    /// Messages read back from the store.
    Scanned(Vec<Scanned>),
    /// That was all of them.
    ScanEnded(Result<(), String>),
    /// A report is ready to be queued; or none is wanted.
    ReportBuilt(Ticket, Option<Box<NewMessage>>),
    /// A delivery could not be handed over: its message is damaged.
    Unreadable(DeliveryId, String),
    /// A delivery could not be handed over: the store cannot be read now, and may be later.
    ReadFailed(DeliveryId, String),
    /// This was ordered and has not come about: the store cannot be read now, and may be later.
    NotRead(Reading, String),
    /// What becomes of deliveries does not come to disk now, and why; or it does again.
    StoreStuck(Option<String>),
    /// A client asks.
    Asked(AskId, Ask),
    /// Somebody has looked at the machine, as [`Action::Look`] ordered.
    Observed(Observation),
    /// A new, good configuration.
    Reload(Box<Config>),
    /// Something happens to the machine.
    System(SystemMessage),
    /// News of devices were lost: those that are needed have to be looked for.
    DevicesUncertain,
    /// Whether a device is there that was looked for.
    DevicePresent(String, bool),
    /// Whether the machine's user is away, if that is known.
    IdleHint(Option<bool>),
    /// Stop; said again: hurry.
    Stop,
    /// A deadline may have passed.
    Tick,
}

/// Which report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportKind {
    /// Recipients failed for good.
    Failed,
    /// Recipients are late.
    Delayed {
        /// When they will be given up, milliseconds since 1970.
        max_age_ms: i64,
    },
    /// Recipients were served, and their sender may have asked to be told.
    Sent,
    /// Recipients were served, and their provider wants the sender to be told, unless the sender never wants to.
    SentAsAsked,
}

/// A recipient in a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedRecipient {
    /// Its place in the envelope.
    pub index: u32,
    /// The last word about it.
    pub reply: Reply,
    /// Whether it was handed to a next hop instead of being delivered.
    pub relayed: bool,
}

/// A report to be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportOrder {
    /// Repeated in [`Event::ReportBuilt`].
    pub ticket: Ticket,
    /// About which message.
    pub id: MessageId,
    /// Which report.
    pub kind: ReportKind,
    /// About whom.
    pub recipients: Vec<ReportedRecipient>,
}

/// A notice to be built, about messages in quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoticeOrder {
    /// Repeated in [`Event::ReportBuilt`].
    pub ticket: Ticket,
    /// About which messages; those that have left the queue meanwhile, and notices themselves, are left out.
    pub ids: Vec<MessageId>,
    /// How many more there are that it does not name.
    pub more: u64,
}

/// What is ordered that needs the store to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// [`Action::Lookup`].
    Message(MessageId),
    /// [`Action::Report`].
    Report(ReportOrder),
    /// [`Action::Notice`].
    Notice(NoticeOrder),
}

/// A delivery to be handed to a worker; envelope and content are read by who does it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubmitOrder {
    /// To whom.
    pub worker: WorkerId,
    /// Its name from here on.
    pub delivery: DeliveryId,
    /// Which message.
    pub id: MessageId,
    /// Which recipients, by their places in the envelope.
    pub recipients: Vec<u32>,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Whether the provider wishes to see the recipients that others serve.
    pub sees_others: bool,
    /// Whether this worker deferred the message and asked for it.
    pub deferred_before: bool,
}

/// How loud a line in the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loudness {
    /// For the record.
    Info,
    /// Somebody should look.
    Warn,
}

/// What the supervisor wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a worker.
    Spawn(WorkerId),
    /// Send SIGTERM.
    Term(WorkerId),
    /// Send SIGKILL.
    Kill(WorkerId),
    /// Say something to a worker.
    Send(WorkerId, ToWorker),
    /// Hand a delivery over.
    Submit(SubmitOrder),
    /// A delivery is over: nothing of it will be asked for any more.
    Forget(DeliveryId),
    /// Read a worker's CPU clock; [`WorkerNews::Cpu`] answers.
    ReadCpu(WorkerId),
    /// Set a worker's priority and read it back.
    SetPriority(WorkerId, Level),
    /// Bring a unit to disk.
    Commit(Ticket, Vec<Change>),
    /// Give an upload its final name.
    FinishUpload(Ticket, UploadKey, MessageId),
    /// Forget an upload.
    AbandonUpload(UploadKey),
    /// Forget the file of a content, if there is one: its message was not accepted after all.
    DiscardContent(MessageId),
    /// Read all messages up to this number back.
    Scan(MessageId),
    /// Read one message back, to find its way again; [`Event::NotRead`] if that cannot be done now.
    Lookup(MessageId),
    /// Build a report; [`Event::ReportBuilt`] answers, or [`Event::NotRead`].
    Report(ReportOrder),
    /// Build a notice to the postmaster about messages that were set aside; [`Event::ReportBuilt`] answers, or
    /// [`Event::NotRead`].
    Notice(NoticeOrder),
    /// Answer a client.
    Answer(AskId, Answer),
    /// Look at the machine so often, and once more when there is pressure; each look comes back as [`Event::Observed`].
    Look {
        /// Milliseconds; `None`: no more.
        every_ms: Option<i64>,
    },
    /// See whether a device is there; the answer is [`Event::DevicePresent`].
    LookForDevice(String),
    /// Do not keep the machine from sleeping or shutting down any more.
    LetMachineGo,
    /// Write to the mail log.
    Mail(MailEvent),
    /// Write to the log.
    Log(Loudness, String),
    /// Everything is done.
    Exit,
}
