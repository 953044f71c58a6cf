//! The channel to a worker; the only file of this crate that knows ipc-channel.
//!
//! **Nothing is received through ipc-channel.** What a worker sends could hang, panic or abort its receiver: there, the bytes of a packet
//! say how many more to wait for, how much memory to take and which descriptors to map. So what a worker says comes as [`packets`]
//! and is decoded by the codec, which believes nothing. ipc-channel carries what is said to a worker, and is only ever sent with:
//! the worker opens a one-shot server and says where it is in its hello, and the reading end of the channel is sent there. The
//! server's socket is looked up without following links, has to be of the user that the worker was started as, and is connected to by
//! its descriptor, so that it cannot be exchanged in between.
//!
//! [`packets`]: crate::system::packets
//!
//! `send()` blocks when the worker does not read. So each worker has a thread that writes, and what the loop touches is a queue, with one
//! exception.
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

use std::any::Any;
use std::fmt::Display;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use ipc_channel::ipc::{self, IpcBytesSender, IpcSender};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::geteuid;
use spooler_protocol::codec::{self, CodecError};
use spooler_protocol::handshake::{Bootstrap, Hello, SOCKET_NAME};
use spooler_protocol::ids::Token;
use spooler_protocol::to_worker::ToWorker;

use crate::system::packets::Packets;
use crate::system::words::Words;

/// Words to one worker that may wait. A worker that lets more pile up does not read and is ended.
const OUTBOX_WORDS_MAX: usize = 8192;
const STACK_BYTES: usize = 256 * 1024;
/// What may be unread, by [`cost`], when the loop sends a word itself.
const DIRECT_BYTES_MAX: usize = 64 * 1024;
/// The send buffer must have so many times as much.
const BUFFER_FACTOR: usize = 3;
/// A frame that the loop sends itself is no longer.
const DIRECT_FRAME_BYTES_MAX: usize = 512;

/// A worker that has said hello, and takes what is said to it.
pub struct Greeted {
    packets: Packets,
    channel: IpcBytesSender,
}

/// The writing end of a worker's channel. When it is dropped the worker sees the end of its channel.
pub struct Link {
    outbox: Sender<Waiting>,
    way: Arc<Way>,
    /// Whether this hand may send by itself: only one may.
    direct: bool,
}

/// A word in the outbox, and what is dropped when it is sent.
struct Waiting {
    word: ToWorker,
    _held: Option<Box<dyn Any + Send>>,
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

/// To be called once, before there are workers. ipc-channel measures the system's send buffer when it sends for the first time; if it gets
/// no descriptors for that, it panics, and so does every later sending of this process. So it sends here, where descriptors are left.
///
/// # Errors
/// What the system says.
pub fn prepare() -> std::io::Result<()> {
    let (sender, _receiver) = ipc::bytes_channel()?;
    // Shows that there are descriptors for the measuring, and leaves them to it.
    drop(ipc::bytes_channel()?);
    sender.send(&[]).map_err(std::io::Error::other)
}

/// Waits for the hello of the worker with this process, and sends it its channel; it opens its one-shot server in this place. Nothing if
/// the worker's end closes before it has said anything; waits for ever if that does not happen either and nobody hangs up.
///
/// # Errors
/// If it is not the worker that was started, or cannot be sent anything.
pub fn greet(mut packets: Packets, pid: u32, place: &Path) -> Result<Option<Greeted>, String> {
    let Some(hello) = packets.receive().map_err(|error| format!("the worker said {error} instead of a hello"))? else {
        return Ok(None);
    };
    let hello = Hello::decode(hello).map_err(|error| error.to_string())?;
    if hello.pid != pid {
        return Err("somebody else said hello instead of the worker".to_owned());
    }
    let failed = |why: &dyn Display| format!("the worker does not take its channel: {why}");
    let bootstrap = connect(place, &hello.folder).map_err(|why| failed(&why))?;
    let (channel, inbox) = ipc::bytes_channel().map_err(|error| failed(&error))?;
    bootstrap.send(Bootstrap { nonce: hello.nonce, inbox }).map_err(|error| failed(&error))?;
    Ok(Some(Greeted { packets, channel }))
}

/// Connects to the one-shot server in this folder of the place for them.
fn connect(place: &Path, folder: &str) -> Result<IpcSender<Bootstrap>, String> {
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let name = Path::new(folder).join(SOCKET_NAME);
    let failed = |error: Errno| format!("{}: {error}", place.join(&name).display());
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::open(place, flags | OFlags::DIRECTORY, Mode::empty()).map_err(failed)?;
    let socket = rustix::fs::openat2(&root, &name, flags, Mode::empty(), beneath).map_err(failed)?;
    let found = rustix::fs::fstat(&socket).map_err(failed)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Socket || found.st_uid != geteuid().as_raw() {
        return Err(format!("{} is no socket of its own", place.join(&name).display()));
    }
    IpcSender::connect(format!("/proc/self/fd/{}", socket.as_raw_fd())).map_err(|error| error.to_string())
}

impl Greeted {
    /// Starts the thread that writes to the worker; gives both ends of its channel.
    ///
    /// # Errors
    /// If there can be no further thread.
    pub fn link(self) -> Result<(Link, Words), String> {
        let Self { packets, channel } = self;
        let (outbox, words) = bounded(OUTBOX_WORDS_MAX);
        let way = Arc::new(Way::new(channel));
        let writers_way = Arc::clone(&way);
        std::thread::Builder::new()
            .name("worker-writer".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || write_all(&writers_way, &words))
            .map_err(|error| error.to_string())?;
        let link = Link { outbox, way, direct: send_buffer_bytes() >= BUFFER_FACTOR * DIRECT_BYTES_MAX };
        Ok((link, Words::new(packets)))
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
        self.put(Waiting { word, _held: None })
    }

    /// Says something to the worker by way of the outbox, and holds something until it is sent.
    ///
    /// # Errors
    /// If the worker cannot be told.
    pub fn say_and_hold(&self, word: ToWorker, held: impl Any + Send) -> Result<(), LinkError> {
        self.put(Waiting { word, _held: Some(Box::new(held)) })
    }

    fn put(&self, waiting: Waiting) -> Result<(), LinkError> {
        self.way.waiting.fetch_add(1, Ordering::AcqRel);
        self.outbox.try_send(waiting).map_err(|error| {
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

fn write_all(way: &Way, words: &Receiver<Waiting>) {
    for waiting in words {
        match way.send(&waiting.word) {
            Ok(()) => {}
            Err(SendError::Gone) => return,
            Err(SendError::Wait) => {}
            Err(SendError::Codec(error)) => tracing::error!(%error, "a message to a worker cannot be encoded"),
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

#[cfg(test)]
mod tests;
