//! A supervisor of a few lines: it keeps messages in memory and does at once what it is asked.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use spooler::policy::addressing::Addressing;
use spooler::policy::addressing::aliases::{Aliases, Spot};
use spooler::system::control::{
    Access, Bridge, ControlOptions, ControlServer, Feed, ReadJob, Request, SubmitContent, Subscription, bind, start,
};
use spooler::system::store::{HistoryPage, Scanned, StoreError, StoreReader};
use spooler_protocol::aliases::{AliasFile, AliasMistake, AliasesRead};
use spooler_protocol::calls::{Prompt, ValidateFlags};
use spooler_protocol::control::{
    ApiError, Filter, FlushProgress, LogonState, MessageDetail, MessageState, MessageSummary, ProviderCommand,
    ProviderDetail, QueueAction, QueueDone, Validated,
};
use spooler_protocol::history::{Finished, HistoryFilter};
use spooler_protocol::ids::MessageId;
use spooler_protocol::message::Envelope;
use spooler_protocol::status::{StatusCode, StatusTable, SupervisorRow};
use spooler_protocol::watching::{RowChange, StatusNews, StatusUpdate};
use tokio::sync::{oneshot, watch};

/// The largest message that the supervisor takes.
pub(crate) const MESSAGE_BYTES_MAX: u64 = 2 * 1024 * 1024;

#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) id: MessageId,
    pub(crate) envelope: Envelope,
    pub(crate) owner_uid: u32,
    pub(crate) content: Vec<u8>,
    pub(crate) state: MessageState,
}

/// Everything that a test may look at or set.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) messages: Vec<Kept>,
    pub(crate) uploads: HashMap<u64, Vec<u8>>,
    pub(crate) abandoned: u64,
    pub(crate) jobs_begun: u64,
    pub(crate) jobs_ended: u64,
    pub(crate) refuse_with: Option<ApiError>,
    pub(crate) flush_steps: u64,
    pub(crate) flush_asked: u64,
    pub(crate) flushes_ended: Vec<u64>,
    pub(crate) actions: Vec<QueueAction>,
    pub(crate) provider_commands: Vec<String>,
    /// Of lines for those who watch.
    pub(crate) seq: u64,
    pub(crate) snapshots: u64,
}

pub(crate) struct Loop {
    books: Mutex<Books>,
    changed: Condvar,
    status: watch::Sender<u64>,
    feed: Feed,
    addressing: Arc<Addressing>,
}

impl Loop {
    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    /// Waits until the books show what a test waits for.
    pub(crate) fn wait_for(&self, what: impl Fn(&Books) -> bool) -> MutexGuard<'_, Books> {
        let deadline = Duration::from_secs(20);
        let (books, result) = self.changed.wait_timeout_while(self.books(), deadline, |books| !what(books)).unwrap();
        assert!(!result.timed_out(), "the fact never came: {books:?}");
        books
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Books)) {
        change(&mut self.books());
        self.changed.notify_all();
        self.status.send_modify(|count| *count += 1);
    }

    pub(crate) fn add_messages(&self, count: u64, owner_uid: u32, state: MessageState) {
        self.change(|books| {
            for _ in 0..count {
                let id = MessageId(books.messages.len() as u64 + 1);
                let envelope = Envelope { sender: format!("s{id}@x"), ..Envelope::default() };
                books.messages.push(Kept { id, envelope, owner_uid, content: b"x\r\n".to_vec(), state });
            }
        });
    }

    fn submit(&self, envelope: Envelope, owner_uid: u32, content: SubmitContent) -> Result<MessageId, ApiError> {
        let mut books = self.books();
        if let Some(error) = books.refuse_with.clone() {
            return Err(error);
        }
        let content = match content {
            SubmitContent::Inline(bytes) => bytes.to_vec(),
            SubmitContent::Uploaded { upload, size, .. } => {
                let content = books.uploads.remove(&upload).unwrap();
                assert_eq!(content.len() as u64, size);
                content
            }
        };
        let id = MessageId(books.messages.len() as u64 + 1);
        books.messages.push(Kept { id, envelope, owner_uid, content, state: MessageState::Ready });
        Ok(id)
    }

    fn table(&self) -> StatusTable {
        let books = self.books();
        let supervisor = SupervisorRow {
            pid: std::process::id(),
            version: "0.0.0".to_owned(),
            code: StatusCode::AVAILABLE,
            text: "test".to_owned(),
            started_ms: 0,
            slots: 1,
            gate: "off".to_owned(),
            tokens_out: 0,
            queued: books.messages.len() as u64,
            ready: 0,
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

    /// Somebody begins to watch.
    fn subscribe(&self, answer: oneshot::Sender<Subscription>) {
        let table = self.table();
        let mut books = self.books();
        books.snapshots += 1;
        let snapshot = StatusUpdate { seq: books.seq, news: StatusNews::Snapshot(Box::new(table)) };
        // Nothing may come in between the table and the place in the feed.
        drop(answer.send(self.feed.subscribe(snapshot)));
        drop(books);
        self.changed.notify_all();
    }

    /// Tells those who watch how many messages there are now.
    pub(crate) fn publish_queued(&self, queued: u64) {
        let row = SupervisorRow { queued, ..self.table().supervisor };
        let mut books = self.books();
        books.seq += 1;
        let news = StatusNews::Changes(vec![RowChange::Supervisor(Box::new(row))]);
        self.feed.publish(StatusUpdate { seq: books.seq, news });
    }

    fn flush_progress(&self) -> FlushProgress {
        let mut books = self.books();
        books.flush_asked += 1;
        let attempted = books.flush_steps.min(3);
        let done = attempted == 3;
        FlushProgress {
            total: 3,
            attempted,
            sent: attempted,
            not_sent: 0,
            received: 0,
            done,
            why: String::new(),
            failures: Vec::new(),
        }
    }
}

/// What the control thread holds.
/// `root` stands for `ann@x.test` and itself.
fn root_alias() -> Aliases {
    let mut aliases = Aliases::default();
    let source = aliases.add_source("/etc/aliases".to_owned(), 1);
    let targets = ["ann@x.test", "root"].map(|target| target.parse().unwrap());
    aliases.add("root", &targets, Spot { source, line: 3 });
    aliases
}

/// What is said of files of aliases.
fn aliases_read() -> AliasesRead {
    let mistakes = vec![AliasMistake { line: 7, message: "has no colon".to_owned() }];
    let (path, failure) = ("/etc/aliases".to_owned(), None);
    let file = AliasFile { path, count: 12, missing: false, failure, mistakes, more_mistakes: 0 };
    AliasesRead { files: vec![file], in_effect: true }
}

struct Desk(Arc<Loop>);

impl Bridge for Desk {
    fn ask(&self, request: Request) {
        let books = &self.0;
        // Receivers may be gone already; that is the client's business.
        match request {
            Request::Submit { envelope, owner_uid, content, answer, .. } => {
                drop(answer.send(books.submit(envelope, owner_uid, content)));
            }
            Request::Status { answer } => drop(answer.send(books.table())),
            Request::ReadAliases { answer } => drop(answer.send(aliases_read())),
            Request::Watch { answer } => books.subscribe(answer),
            Request::Overlay { mut summaries, answer, .. } => {
                for summary in &mut summaries {
                    let kept = books.books();
                    let found = kept.messages.iter().find(|kept| kept.id == summary.id);
                    summary.state = found.map_or(summary.state, |kept| kept.state);
                    summary.why = "laid over".to_owned();
                }
                drop(answer.send(summaries));
            }
            Request::Queue { action, ids, answer, .. } => {
                books.books().actions.push(action);
                let done = QueueDone { done: ids.len() as u64, ids: ids.clone(), refused: Vec::new() };
                drop(answer.send(Ok(done)));
            }
            Request::FlushBegin { command, answer } => {
                let unknown = ApiError { error: "no such provider".to_owned(), temporary: false };
                drop(answer.send(if command.provider.is_some() { Err(unknown) } else { Ok(9) }));
            }
            Request::FlushProgress { answer, .. } => drop(answer.send(Some(books.flush_progress()))),
            Request::FlushEnd { flush } => books.books().flushes_ended.push(flush),
            Request::Provider { name, command, answer } => {
                let ProviderCommand { action, flags } = command;
                let how = if flags == ValidateFlags::default() { String::new() } else { format!(" {:#x}", flags.0) };
                books.books().provider_commands.push(format!("{name} {action:?}{how}"));
                drop(answer.send(Ok(())));
            }
            Request::ValidateAll { flags, answer } => {
                books.books().provider_commands.push(format!("all Validate {:#x}", flags.0));
                let ok = Validated { provider: "good".to_owned(), ok: true, text: "is validated".to_owned() };
                let bad = Validated { provider: "bad".to_owned(), ok: false, text: "it is paused".to_owned() };
                drop(answer.send(vec![ok, bad]));
            }
            Request::ProviderDetail { name, answer } => {
                let row = books.table().providers.into_iter().find(|row| row.name == name);
                let needs = vec![("connects to".to_owned(), "TCP 25".to_owned())];
                let unknown = ApiError { error: "no such provider".to_owned(), temporary: false };
                drop(answer.send(row.map(|row| ProviderDetail { row, needs, closing_us: 0 }).ok_or(unknown)));
            }
            Request::Logon { name, command, answer } => {
                let said: Vec<String> = command.answers.iter().map(|(key, answer)| format!("{key}={answer}")).collect();
                books.books().provider_commands.push(format!("{name} Logon {}{}", said.join(","), command.cancel));
                let question = |key: &str, secret| Prompt { key: key.to_owned(), label: format!("Your {key}"), secret };
                drop(answer.send(Ok(match (command.cancel, command.answers.is_empty()) {
                    (true, _) => LogonState::Cancelled,
                    (false, true) => LogonState::Asks { prompts: vec![question("user", false), question("pin", true)] },
                    (false, false) => LogonState::Ready,
                })));
            }
        }
        books.changed.notify_all();
    }

    fn read(&self, job: ReadJob) {
        let books = Arc::clone(&self.0);
        books.books().jobs_begun += 1;
        std::thread::spawn(move || {
            let messages = books.books().messages.clone();
            job(&mut Reader(messages));
            books.books().jobs_ended += 1;
            books.changed.notify_all();
        });
    }

    fn status_changes(&self) -> watch::Receiver<u64> {
        self.0.status.subscribe()
    }

    fn addressing(&self) -> Arc<Addressing> {
        Arc::clone(&self.0.addressing)
    }

    fn upload(&self, key: u64, chunk: Bytes, answer: oneshot::Sender<Result<(), ApiError>>) {
        self.0.books().uploads.entry(key).or_default().extend_from_slice(&chunk);
        drop(answer.send(Ok(())));
        self.0.changed.notify_all();
    }

    fn abandon_upload(&self, key: u64) {
        let mut books = self.0.books();
        books.uploads.remove(&key);
        books.abandoned += 1;
        drop(books);
        self.0.changed.notify_all();
    }
}

struct Reader(Vec<Kept>);

fn summary(kept: &Kept) -> MessageSummary {
    MessageSummary {
        id: kept.id,
        state: if kept.state == MessageState::InFlight { MessageState::Ready } else { kept.state },
        why: String::new(),
        sender: kept.envelope.sender.clone(),
        recipients: kept.envelope.recipients.iter().map(|r| r.address.to_string()).collect(),
        pending: 1,
        size: kept.content.len() as u64,
        submitted_ms: 0,
        next_try_ms: None,
        attempts: 0,
    }
}

impl StoreReader for Reader {
    fn history(&mut self, _: &HistoryFilter, _: Option<u32>, _: u64) -> Result<HistoryPage, StoreError> {
        Ok(HistoryPage::default())
    }

    fn finished(&mut self, _: MessageId, _: Option<u32>) -> Result<Option<Finished>, StoreError> {
        Ok(None)
    }

    fn scan(&mut self, _: &mut dyn FnMut(Scanned) -> ControlFlow<()>) -> Result<(), StoreError> {
        unreachable!("the control socket never scans")
    }

    fn get(&mut self, _: MessageId) -> Result<Option<Scanned>, StoreError> {
        unreachable!("the control socket asks for details")
    }

    fn content(&mut self, id: MessageId, offset: u64, length: usize) -> Result<Bytes, StoreError> {
        let kept = self.0.iter().find(|kept| kept.id == id).unwrap();
        let begin = usize::try_from(offset).unwrap().min(kept.content.len());
        let end = (begin + length).min(kept.content.len());
        Ok(Bytes::copy_from_slice(&kept.content[begin..end]))
    }

    fn list(
        &mut self,
        filter: &Filter,
        _: i64,
        owner_uid: Option<u32>,
        visit: &mut dyn FnMut(MessageSummary) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let ids: Option<Vec<u64>> =
            filter.ids.as_ref().map(|ids| ids.split(',').map(|id| id.parse().unwrap()).collect());
        let wanted = |kept: &&Kept| {
            owner_uid.is_none_or(|uid| uid == kept.owner_uid)
                && ids.as_ref().is_none_or(|ids| ids.contains(&kept.id.0))
                && filter.state.is_none_or(|state| state == summary(kept).state)
        };
        let limit = usize::try_from(filter.limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        for kept in self.0.iter().filter(wanted).take(limit) {
            if visit(summary(kept)).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn detail(&mut self, id: MessageId, _: i64) -> Result<Option<(MessageDetail, Option<u32>)>, StoreError> {
        let found = self.0.iter().find(|kept| kept.id == id);
        Ok(found.map(|kept| {
            let origin = format!("uid {}", kept.owner_uid);
            let detail = MessageDetail {
                summary: summary(kept),
                envid: None,
                origin,
                recipient_details: Vec::new(),
                deaths: Vec::new(),
            };
            (detail, Some(kept.owner_uid))
        }))
    }
}

/// A running control socket in a folder of its own.
pub(crate) struct Running {
    pub(crate) books: Arc<Loop>,
    pub(crate) folder: tempfile::TempDir,
    server: Option<ControlServer>,
}

impl Running {
    pub(crate) fn start() -> Self {
        Self::start_for(Access {
            owner_uid: nix::unistd::getuid().as_raw(),
            submit_group: None,
            monitor_group: None,
            anyone_may_submit: false,
        })
    }

    pub(crate) fn start_for(access: Access) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (status, _) = watch::channel(0);
        let addressing = Addressing {
            origin: "origin.test".to_owned(),
            hostname: "box.origin.test".to_owned(),
            aliases: root_alias(),
            ..Addressing::default()
        };
        let addressing = Arc::new(addressing);
        let books = Arc::new(Loop {
            books: Mutex::default(),
            changed: Condvar::new(),
            status,
            feed: Feed::default(),
            addressing,
        });
        let listener = bind(&folder.path().join("control.sock"), &access).unwrap();
        let options = ControlOptions { access, message_bytes_max: MESSAGE_BYTES_MAX };
        let server = start(listener, options, Arc::new(Desk(Arc::clone(&books)))).unwrap();
        Self { books, folder, server: Some(server) }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    /// Stops the server; the socket's file stays, as after a crash.
    pub(crate) fn stop(&mut self) {
        self.server.take().unwrap().stop();
    }

    pub(crate) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Sends bytes and reads until the server closes.
    pub(crate) fn raw(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        // The server may refuse before it has read everything.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub(crate) fn post(&self, path: &str, body: &[u8]) -> String {
        let mut request =
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        request.extend_from_slice(body);
        self.raw(&request)
    }

    pub(crate) fn get(&self, path: &str) -> String {
        self.raw(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
    }

    /// A client tool under one of its names, talking to this socket.
    pub(crate) fn tool(&self, name: &str) -> Command {
        let link = self.folder.path().join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_spoolctl"), &link).unwrap();
        }
        let mut command = Command::new(link);
        command.env("SPOOLER_SOCKET", self.socket()).env("SPOOLER_PICKUP", self.folder.path().join("pickup"));
        command
    }
}

/// Runs a tool with a text on its standard input.
pub(crate) fn feed(command: &mut Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may refuse before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// The envelope line of a submission to one recipient.
pub(crate) const ENVELOPE: &str = r#"{"envelope":{"sender":"a@x","recipients":[{"address":"b@x"}]}}"#;
