//! The channel to a worker; the only file of this crate that knows ipc-channel.
//!
//! `send()` blocks when the worker does not read, and `recv()` when it is stopped in the middle of a message. So each worker has a
//! thread that reads and one that writes, and the loop only ever touches queues.

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use ipc_channel::ipc::{IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcSender};
use spooler_protocol::codec::{self, Assembler, CodecError};
use spooler_protocol::handshake::{Hello, NONCE_BYTES, PROTOCOL_VERSION};
use spooler_protocol::to_worker::ToWorker;

use crate::system::mailbox::{InboxWriter, Word};

/// Words to one worker that may wait. A worker that lets more pile up does not read and is ended.
const OUTBOX_WORDS_MAX: usize = 8192;
const STACK_BYTES: usize = 256 * 1024;

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
        let (outbox, words) = bounded(OUTBOX_WORDS_MAX);
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES);
        thread("worker-reader")
            .spawn(move || read_all(&from_worker, &inbox))
            .and_then(|_| thread("worker-writer").spawn(move || write_all(&to_worker, &words)))
            .map_err(|error| error.to_string())?;
        Ok(Link { outbox })
    }
}

impl Link {
    /// Says something to the worker; never waits.
    ///
    /// # Errors
    /// If the worker cannot be told.
    pub fn say(&self, word: ToWorker) -> Result<(), LinkError> {
        self.outbox.try_send(word).map_err(|error| match error {
            TrySendError::Full(_) => LinkError::Full,
            TrySendError::Disconnected(_) => LinkError::Closed,
        })
    }

    /// A second hand that can say something to the worker.
    #[must_use]
    pub fn share(&self) -> Self {
        Self { outbox: self.outbox.clone() }
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

fn write_all(channel: &IpcBytesSender, words: &Receiver<ToWorker>) {
    for word in words {
        let sent = codec::encode(&word, |frame| channel.send(frame).map_err(|_| SendError::Gone));
        match sent {
            Ok(()) => {}
            Err(SendError::Gone) => return,
            Err(SendError::Codec(error)) => tracing::error!(%error, "a word to a worker cannot be encoded"),
        }
    }
}

enum SendError {
    Gone,
    Codec(CodecError),
}

impl From<CodecError> for SendError {
    fn from(error: CodecError) -> Self {
        Self::Codec(error)
    }
}

/// After a worker's death, so long at most for the rest of its words to be read.
pub const LAST_WORDS_PATIENCE: Duration = Duration::from_millis(30);
