//! The control socket and a client that says anything at all.
//!
//! What holds: whoever speaks HTTP gets one answer, and refusals are JSON with a sentence. Nothing that a peer may not do reaches the
//! supervisor. What is submitted has an envelope that can be one, and CRLF line ends.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use spooler_protocol::aliases::AliasesRead;
use spooler_protocol::control::{ApiError, FlushProgress, LogonState, QueueDone};
use spooler_protocol::fuzzing::{assert_clean, pieces, sections};
use spooler_protocol::ids::MessageId;
use spooler_protocol::message::{Envelope, Recipient};
use spooler_protocol::status::{StatusCode, StatusTable, SupervisorRow};
use spooler_protocol::watching::{StatusNews, StatusUpdate};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::timeout;

use super::access::{Access, Peer};
use super::desk::{Desk, WATCHERS_MAX};
use super::hall::Hall;
use super::server::{converse, routes};
use super::{Bridge, Feed, ReadJob, Request, SubmitContent};
use crate::policy::addressing::Addressing;
use crate::record::{Change, NewMessage, StoredContent};
use crate::system::store::Store;
use crate::system::store::memory::MemoryStore;

/// Bytes of the largest message.
const MESSAGE_BYTES_MAX: u64 = 100_000;
/// How long one connection may take: nothing has to be waited for.
const PATIENCE: Duration = Duration::from_secs(5);
const OWNER: u32 = 1000;
const SUBMITTER: u32 = 2000;

/// Input: who it is (`o` the owner, `g` of the submit group, anybody else) and how the request is cut; then the request.
pub(crate) fn connection(input: &[u8]) {
    thread_local! {
        static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be made");
    }
    let [who, said] = sections(input);
    let peer = match who.first() {
        Some(b'o') => Peer { uid: OWNER, in_submit_group: false, in_monitor_group: false, sandboxed: false },
        Some(b'g') => Peer { uid: SUBMITTER, in_submit_group: true, in_monitor_group: false, sandboxed: false },
        _ => Peer { uid: 3000, in_submit_group: false, in_monitor_group: false, sandboxed: false },
    };
    let books = Arc::new(Books::new());
    let (stop, stopping) = watch::channel(false);
    let bridge: Arc<dyn Bridge> = Arc::clone(&books) as Arc<dyn Bridge>;
    let desk = Arc::new(Desk {
        bridge,
        access: Access { owner_uid: OWNER, submit_group: Some(7), monitor_group: None, anyone_may_submit: false },
        message_bytes_max: MESSAGE_BYTES_MAX,
        next_upload: AtomicU64::new(1),
        watchers: Arc::new(Semaphore::new(WATCHERS_MAX)),
        stopping,
    });
    let (client, server) = duplex(1 << 16);
    let (mut hears, mut says) = tokio::io::split(client);
    let answer = RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let client = async {
                for piece in pieces(said, who) {
                    if says.write_all(piece).await.is_err() {
                        break;
                    }
                }
                let _ = says.shutdown().await;
                let mut answer = Vec::new();
                let _ = hears.read_to_end(&mut answer).await;
                answer
            };
            // Whoever watches would watch for ever.
            stop.send_replace(said.windows(6).any(|word| word == b"/watch" || word == b"/flush"));
            let place = Arc::new(Hall::new().enter(peer.uid).await.expect("nobody else is there"));
            let both = async { tokio::join!(client, converse(server, peer, routes(desk), place)) };
            timeout(PATIENCE, both).await.expect("the connection does not end").0
        })
    });
    check_answer(&answer);
    books.check(peer);
}

fn check_answer(answer: &[u8]) {
    if answer.is_empty() {
        return;
    }
    let text = String::from_utf8_lossy(answer);
    let code = text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|code| code.parse::<u16>().ok());
    let code = code.unwrap_or_else(|| panic!("no answer of HTTP: {text}"));
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer has a head");
    assert!((100..600).contains(&code) && !head.contains('\0'));
    let is_json = head.to_ascii_lowercase().contains("content-type: application/json");
    if code >= 400 && is_json && !body.is_empty() {
        let error: ApiError = serde_json::from_str(body).expect("a refusal is an ApiError");
        assert!(!error.error.is_empty());
    }
}

/// What reached the supervisor.
struct Books {
    store: MemoryStore,
    feed: Feed,
    status: watch::Sender<u64>,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    /// Who may do these things is only the owner.
    commands: Vec<&'static str>,
    /// Messages that were to be changed.
    changed: Vec<MessageId>,
    asked: u64,
    submitted: Vec<(Envelope, Vec<u8>)>,
    uploads: std::collections::HashMap<u64, Vec<u8>>,
}

impl Books {
    fn new() -> Self {
        let mut store = MemoryStore::new();
        let accept = |id: u64, owner_uid| {
            let recipients = vec![Recipient::new("bob@y.test".parse().expect("an address"))];
            let envelope = Envelope { sender: "ann@x.test".to_owned(), recipients, ..Envelope::default() };
            let content = StoredContent::Inline(Bytes::from_static(b"Subject: x\r\n\r\nhello\r\n"));
            let origin = String::new();
            let id = MessageId(id);
            Change::Accept(Box::new(NewMessage { id, envelope, submitted_ms: 0, origin, owner_uid, content }))
        };
        store.commit(&[vec![accept(1, Some(SUBMITTER)), accept(2, Some(OWNER))]]).expect("memory takes it");
        Self { store, feed: Feed::default(), status: watch::Sender::new(0), told: Mutex::default() }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, peer: Peer) {
        let told = self.told();
        if peer.uid != OWNER {
            assert!(told.commands.is_empty(), "{peer:?} may not: {:?}", told.commands);
            assert!(told.changed.iter().all(|id| id.0 == 1), "{peer:?} may not change {:?}", told.changed);
        }
        if peer.uid != OWNER && !peer.in_submit_group {
            assert_eq!((told.asked, told.submitted.len()), (0, 0), "{peer:?} may nothing");
        }
        for (envelope, content) in &told.submitted {
            envelope.check().expect("an envelope that can be one");
            assert_clean("a submitted message", content);
            assert!(content.len() as u64 <= MESSAGE_BYTES_MAX);
        }
    }

    fn table() -> StatusTable {
        let supervisor = SupervisorRow {
            pid: 1,
            version: "0".to_owned(),
            code: StatusCode::AVAILABLE,
            text: String::new(),
            started_ms: 0,
            slots: 1,
            gate: String::new(),
            tokens_out: 0,
            queued: 2,
            ready: 2,
            in_flight: 0,
            deferred: 0,
            held: 0,
            quarantined: 0,
            quarantine: None,
            accepted: 0,
            sent: 0,
            failed: 0,
        };
        StatusTable { supervisor, providers: Vec::new(), added: Vec::new(), messages: Vec::new() }
    }

    fn submit(told: &mut Told, envelope: Envelope, content: SubmitContent) -> Result<MessageId, ApiError> {
        let content = match content {
            SubmitContent::Inline(bytes) => bytes.to_vec(),
            SubmitContent::Uploaded { upload, size, .. } => {
                let content = told.uploads.remove(&upload).expect("an upload that was begun");
                assert_eq!(content.len() as u64, size);
                content
            }
        };
        told.submitted.push((envelope, content));
        Ok(MessageId(2 + told.submitted.len() as u64))
    }
}

impl Bridge for Books {
    fn ask(&self, request: Request) {
        let mut told = self.told();
        told.asked += 1;
        match request {
            Request::Submit { envelope, content, answer, .. } => {
                drop(answer.send(Self::submit(&mut told, envelope, content)));
            }
            Request::Status { answer } => drop(answer.send(Self::table())),
            Request::Watch { answer } => {
                let news = StatusNews::Snapshot(Box::new(Self::table()));
                drop(answer.send(self.feed.subscribe(StatusUpdate { seq: 1, news })));
            }
            Request::Overlay { summaries, answer, .. } => drop(answer.send(summaries)),
            Request::Queue { ids, answer, .. } => {
                told.changed.extend(&ids);
                drop(answer.send(Ok(QueueDone { done: ids.len() as u64, ids, refused: Vec::new() })));
            }
            Request::FlushBegin { answer, .. } => {
                told.commands.push("flush");
                drop(answer.send(Ok(9)));
            }
            Request::FlushProgress { answer, .. } => {
                let (total, attempted, sent) = (1, 1, 1);
                let why = String::new();
                let failures = Vec::new();
                let done =
                    FlushProgress { total, attempted, sent, not_sent: 0, received: 0, done: true, why, failures };
                drop(answer.send(Some(done)));
            }
            Request::FlushEnd { .. } => {}
            Request::ReadAliases { answer } => {
                told.commands.push("aliases");
                drop(answer.send(AliasesRead { files: Vec::new(), in_effect: true }));
            }
            Request::Provider { answer, .. } => {
                told.commands.push("provider");
                drop(answer.send(Ok(())));
            }
            Request::ProviderDetail { name, answer } => {
                told.commands.push("provider");
                drop(answer.send(Err(ApiError { error: format!("there is no provider {name:?}"), temporary: false })));
            }
            Request::ValidateAll { answer, .. } => {
                told.commands.push("validate");
                drop(answer.send(Vec::new()));
            }
            Request::Logon { answer, .. } => {
                told.commands.push("logon");
                drop(answer.send(Ok(LogonState::Ready)));
            }
        }
    }

    fn read(&self, job: ReadJob) {
        // A reader's thread waits for its client; the client is on this one.
        let reader = self.store.reader();
        std::thread::spawn(move || job(&mut *reader.expect("memory can be read")));
    }

    fn status_changes(&self) -> watch::Receiver<u64> {
        self.status.subscribe()
    }

    fn addressing(&self) -> Arc<Addressing> {
        Arc::default()
    }

    fn upload(&self, key: u64, chunk: Bytes, answer: oneshot::Sender<Result<(), ApiError>>) {
        self.told().uploads.entry(key).or_default().extend_from_slice(&chunk);
        drop(answer.send(Ok(())));
    }

    fn abandon_upload(&self, key: u64) {
        self.told().uploads.remove(&key);
    }
}
