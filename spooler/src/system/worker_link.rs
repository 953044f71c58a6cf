//! The channel to a worker; the only file of this crate that knows ipc-channel.
//!
//! `send()` blocks when the worker does not read, and `recv()` when it is stopped in the middle of a message. So each worker has a
//! thread that reads and one that writes, and what the loop touches are queues, with one exception.
//!
//! **Short words go directly.** A word through the writer costs a switch of threads, for a grant as much as the decision. So while
//! nothing waits in the outbox, the loop sends a short word itself if it is certain that the socket takes it at once:
//!
//! - The kernel lets a sender wait when what its socket has sent and nobody has read is more than the socket's send buffer
//!   (`net.core.wmem_default`, 212,992 bytes; each frame counts with what it occupies in the kernel). The sending end was made here and
//!   has never left this process, so nobody else can change its buffer, or fill it.
//! - What was sent is added up, each frame by more than it can occupy (`cost`). What the worker has read is known from the tokens
//!   that it gives back: they cannot be guessed, so who gives one back has read it, and with it all that was sent before.
//! - The loop sends only while what may be unread stays within `DIRECT_BYTES_MAX`, a quarter of the buffer at most; a kernel with a
//!   smaller buffer gets no word directly.
//!
//! A worker that is stopped or does not read thus gets some thirty short words directly, and the next ones wait in its outbox.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use ipc_channel::ipc::{self, IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcSender};
use spooler_protocol::codec::{self, Assembler, CodecError};
use spooler_protocol::handshake::{Hello, NONCE_BYTES, PROTOCOL_VERSION};
use spooler_protocol::ids::Token;
use spooler_protocol::to_worker::ToWorker;

use crate::system::mailbox::{InboxWriter, Word};

/// Words to one worker that may wait. A worker that lets more pile up does not read and is ended.
const OUTBOX_WORDS_MAX: usize = 8192;
const STACK_BYTES: usize = 256 * 1024;
/// What may be unread, by [`cost`], when the loop sends a word itself.
const DIRECT_BYTES_MAX: usize = 64 * 1024;
/// The send buffer must have so many times as much.
const BUFFER_FACTOR: usize = 3;
/// A frame that the loop sends itself is no longer.
const DIRECT_FRAME_BYTES_MAX: usize = 512;

/// Where a worker is expected to say hello.
pub struct Server {
    server: IpcOneShotServer<Hello>,
    name: String,
}

/// A worker that has said hello, before anything else is believed.
pub struct Greeted {
    hello: Hello,
}

/// The writing end of a worker's channel. When it is dropped the worker sees the end of its channel.
pub struct Link {
    outbox: Sender<ToWorker>,
    way: Arc<Way>,
    /// Whether this hand may send by itself: only one may.
    direct: bool,
}

/// The way to a worker, for whoever sends.
struct Way {
    /// Held while a message is sent, which may take for ever.
    channel: Mutex<IpcBytesSender>,
    /// Held for a moment only.
    account: Mutex<Account>,
    /// Words in the outbox, and the one that is being sent.
    waiting: AtomicUsize,
}

/// What a worker has been sent, and what it has read for sure.
#[derive(Debug, Default)]
struct Account {
    /// Bytes of the send buffer that everything sent occupied at most.
    sent: usize,
    /// Of these, read.
    read: usize,
    /// The last token sent, and what had been sent then.
    mark: Option<(Token, usize)>,
}

/// Why a word cannot be said to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Its outbox is full.
    #[error("the worker does not read what it is told")]
    Full,
    /// Its channel is closed.
    #[error("the worker's channel is closed")]
    Closed,
}

impl Server {
    /// A place with a name of its own, in a folder that only this user can enter (the process's umask sees to that).
    ///
    /// # Errors
    /// What the system says.
    pub fn new() -> Result<Self, String> {
        let (server, name) = IpcOneShotServer::new().map_err(|error| error.to_string())?;
        Ok(Self { server, name })
    }

    /// The name, for the worker's arguments.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits for the hello; without end, if nobody comes: see [`give_up`].
    ///
    /// # Errors
    /// If whoever came did not say hello, or is not the one that was started.
    pub fn accept(self, pid: u32, nonce: [u8; NONCE_BYTES]) -> Result<Greeted, String> {
        let (bootstrap, hello) = self.server.accept().map_err(|error| format!("no hello from the worker: {error}"))?;
        // It is inherited by the next worker unless it is dropped at once.
        drop(bootstrap);
        if hello.version != PROTOCOL_VERSION {
            let (theirs, ours) = (hello.version, PROTOCOL_VERSION);
            return Err(format!(
                "the worker speaks protocol version {theirs}, this program speaks {ours}; install both together"
            ));
        }
        if hello.pid != pid || hello.nonce != nonce {
            return Err("somebody else said hello instead of the worker".to_owned());
        }
        Ok(Greeted { hello })
    }
}

/// Frees whoever waits at a server that nobody will come to any more.
pub fn give_up(name: &str) {
    // Connecting and leaving without a word is an error to the one who waits, which is what is wanted.
    drop(IpcSender::<Hello>::connect(name.to_owned()));
}

impl Greeted {
    /// Starts the two threads of a worker's channel.
    ///
    /// # Errors
    /// If there can be no further threads.
    pub fn link(self, inbox: InboxWriter) -> Result<Link, String> {
        let Hello { to_worker, from_worker, .. } = self.hello;
        let (channel, theirs) = ipc::bytes_channel().map_err(|error| error.to_string())?;
        to_worker.send(theirs).map_err(|error| format!("the worker does not take its channel: {error}"))?;
        let (outbox, words) = bounded(OUTBOX_WORDS_MAX);
        let way = Arc::new(Way::new(channel));
        let writers_way = Arc::clone(&way);
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES);
        thread("worker-reader")
            .spawn(move || read_all(&from_worker, &inbox))
            .and_then(|_| thread("worker-writer").spawn(move || write_all(&writers_way, &words)))
            .map_err(|error| error.to_string())?;
        Ok(Link { outbox, way, direct: send_buffer_bytes() >= BUFFER_FACTOR * DIRECT_BYTES_MAX })
    }
}

impl Link {
    /// Says something to the worker; never waits.
    ///
    /// # Errors
    /// If the worker cannot be told.
    pub fn say(&self, word: ToWorker) -> Result<(), LinkError> {
        if self.direct && is_short(&word) {
            match self.way.send_directly(&word) {
                Direct::Sent => return Ok(()),
                Direct::Gone => return Err(LinkError::Closed),
                Direct::Not => {}
            }
        }
        self.way.waiting.fetch_add(1, Ordering::AcqRel);
        self.outbox.try_send(word).map_err(|error| {
            self.way.waiting.fetch_sub(1, Ordering::AcqRel);
            match error {
                TrySendError::Full(_) => LinkError::Full,
                TrySendError::Disconnected(_) => LinkError::Closed,
            }
        })
    }

    /// The worker gave this token back: it has read everything up to it.
    pub fn on_returned(&self, token: Token) {
        self.way.account().on_returned(token);
    }

    /// A second hand that can say something to the worker.
    #[must_use]
    pub fn share(&self) -> Self {
        Self { outbox: self.outbox.clone(), way: Arc::clone(&self.way), direct: false }
    }
}

fn read_all(channel: &IpcBytesReceiver, inbox: &InboxWriter) {
    let mut assembler = Assembler::default();
    while let Ok(frame) = channel.recv() {
        let word = match assembler.push(&frame) {
            Ok(Some(said)) => Word::Said(said),
            Ok(None) => continue,
            Err(error) => {
                inbox.put(Word::Garbled(format!("the worker talks garbage: {error}")));
                break;
            }
        };
        if !inbox.put(word) {
            return;
        }
    }
    inbox.put(Word::Closed);
}

/// What became of a word that was to be sent directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direct {
    Sent,
    /// It has to wait in the outbox.
    Not,
    /// The worker has closed its channel.
    Gone,
}

impl Way {
    fn new(channel: IpcBytesSender) -> Self {
        Self { channel: Mutex::new(channel), account: Mutex::new(Account::default()), waiting: AtomicUsize::new(0) }
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a short word if that cannot wait and nothing waits before it.
    fn send_directly(&self, word: &ToWorker) -> Direct {
        let channel = match self.channel.try_lock() {
            Ok(channel) => channel,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Somebody is sending, perhaps for ever.
            Err(TryLockError::WouldBlock) => return Direct::Not,
        };
        // Looked at with the channel in hand: what this hand put into the outbox before has left it, whole, or is counted.
        if self.waiting.load(Ordering::Acquire) > 0 {
            return Direct::Not;
        }
        let mut frames = 0;
        let sent = codec::encode(word, |frame| {
            frames += 1;
            if frames > 1 || frame.len() > DIRECT_FRAME_BYTES_MAX || !self.account().admits(frame.len()) {
                return Err(SendError::Wait);
            }
            self.account().on_sent(word, frame.len());
            channel.send(frame).map_err(|_| SendError::Gone)
        });
        match sent {
            Ok(()) => Direct::Sent,
            Err(SendError::Gone) => Direct::Gone,
            // Whoever writes reports what cannot be encoded.
            Err(SendError::Wait | SendError::Codec(_)) => Direct::Not,
        }
    }

    /// Sends a word, however long that takes.
    fn send(&self, word: &ToWorker) -> Result<(), SendError> {
        let channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = codec::encode(word, |frame| {
            self.account().on_sent(word, frame.len());
            channel.send(frame).map_err(|_| SendError::Gone)
        });
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        sent
    }
}

impl Account {
    /// Whether one more frame, sent by the loop, is certain not to wait.
    fn admits(&self, frame_bytes: usize) -> bool {
        self.sent - self.read + cost(frame_bytes) <= DIRECT_BYTES_MAX
    }

    /// A frame of a word is about to be sent: counted before it can be read.
    fn on_sent(&mut self, word: &ToWorker, frame_bytes: usize) {
        self.sent += cost(frame_bytes);
        if let ToWorker::Grant { token, .. } = word {
            self.mark = Some((*token, self.sent));
        }
    }

    fn on_returned(&mut self, token: Token) {
        if let Some((_, sent)) = self.mark.take_if(|(last, _)| *last == token) {
            self.read = sent;
        }
    }
}

/// More than a frame occupies of a send buffer: the kernel rounds its memory up to a power of two, and adds its own records of a few
/// hundred bytes.
fn cost(frame_bytes: usize) -> usize {
    2048 + 2 * frame_bytes
}

/// Words that the loop may send itself, if their frames are short.
fn is_short(word: &ToWorker) -> bool {
    match word {
        ToWorker::Grant { .. }
        | ToWorker::Recall { .. }
        | ToWorker::UploadCredit { .. }
        | ToWorker::Accepted { .. }
        | ToWorker::CriticalGranted { .. }
        | ToWorker::CriticalEnded { .. }
        | ToWorker::Announce
        | ToWorker::Poll
        | ToWorker::StartMessage
        | ToWorker::Idle
        | ToWorker::FlushQueues(_)
        | ToWorker::ValidateState { .. }
        | ToWorker::Logoff { .. } => true,
        ToWorker::Welcome(_)
        | ToWorker::Submit(_)
        | ToWorker::Body { .. }
        | ToWorker::Notify(_)
        | ToWorker::Claims(_) => false,
    }
}

/// The send buffer that a new socket has; 0 if the kernel does not say.
fn send_buffer_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/sys/net/core/wmem_default").unwrap_or_default();
    text.trim().parse().unwrap_or_default()
}

fn write_all(way: &Way, words: &Receiver<ToWorker>) {
    for word in words {
        match way.send(&word) {
            Ok(()) => {}
            Err(SendError::Gone) => return,
            Err(SendError::Wait) => {}
            Err(SendError::Codec(error)) => tracing::error!(%error, "a word to a worker cannot be encoded"),
        }
    }
}

enum SendError {
    Gone,
    /// It cannot be sent directly.
    Wait,
    Codec(CodecError),
}

impl From<CodecError> for SendError {
    fn from(error: CodecError) -> Self {
        Self::Codec(error)
    }
}

/// After a worker's death, so long at most for the rest of its words to be read.
pub const LAST_WORDS_PATIENCE: Duration = Duration::from_millis(30);

#[cfg(test)]
mod tests;
