//! The channel to the supervisor; the only file of this crate that knows ipc-channel.
//!
//! What the supervisor says is read on the runtime's own thread, token or not, whenever provider code is not in the middle of
//! computing: a thread for it would cost a switch for each word, and nothing could be done with the word meanwhile anyway. Sending
//! happens there too: it blocks while the supervisor does not read, which is where a flooding worker is held back.

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};

use ipc_channel::TryRecvError;
use ipc_channel::ipc::{self, IpcBytesReceiver, IpcBytesSender, IpcReceiver, IpcSender};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use spooler_protocol::codec::{self, Assembler, CodecError};
use spooler_protocol::from_worker::FromWorker;
use spooler_protocol::handshake::{Hello, NONCE_BYTES, PROTOCOL_VERSION};
use spooler_protocol::to_worker::ToWorker;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// Why the supervisor cannot be talked to (any more).
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The one-shot server is not there, or a channel could not be made.
    #[error("Cannot reach the supervisor at {name:?}: {why}")]
    Connect {
        /// The server's name.
        name: String,
        /// What ipc-channel says.
        why: String,
    },
    /// Standard input did not hold a nonce.
    #[error("No nonce on standard input; a worker is started by the supervisor, not by hand")]
    Nonce(#[source] std::io::Error),
    /// The supervisor is gone.
    #[error("The supervisor is gone")]
    Gone,
    /// A message cannot be encoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// The sending end.
#[derive(Debug)]
pub struct LinkSender {
    channel: IpcBytesSender,
}

impl LinkSender {
    /// Sends a message; blocks while the supervisor does not read.
    ///
    /// # Errors
    /// If the supervisor is gone.
    pub fn send(&self, message: &FromWorker) -> Result<(), LinkError> {
        codec::encode(message, |frame| self.channel.send(frame).map_err(|_| LinkError::Gone))
    }
}

/// Says hello to the supervisor whose one-shot server has this name, with the nonce from standard input.
///
/// The receiving end closes when the supervisor is gone or talks garbage. To be called on the runtime, before there is another thread.
///
/// # Errors
/// If there is no such server or no nonce.
pub fn connect(name: &str) -> Result<(LinkSender, mpsc::UnboundedReceiver<ToWorker>), LinkError> {
    let failed = |why: String| LinkError::Connect { name: name.to_owned(), why };
    let mut nonce = [0; NONCE_BYTES];
    std::io::stdin().lock().read_exact(&mut nonce).map_err(LinkError::Nonce)?;
    let (to_worker, inbox) = ipc::channel().map_err(|error| failed(error.to_string()))?;
    let (outbox, from_worker) = ipc::bytes_channel().map_err(|error| failed(error.to_string()))?;
    let bootstrap = IpcSender::connect(name.to_owned()).map_err(|error| failed(error.to_string()))?;
    let hello = Hello { version: PROTOCOL_VERSION, pid: std::process::id(), nonce, to_worker, from_worker };
    bootstrap.send(hello).map_err(|error| failed(error.to_string()))?;
    // It comes when the hello was accepted; a supervisor that does not accept it closes the channel.
    let (inbox, watch) = take_inbox(&inbox).map_err(|error| failed(error.to_string()))?;
    let (sender, receiver) = mpsc::unbounded_channel();
    drop(tokio::spawn(read_all(inbox, watch, sender)));
    Ok((LinkSender { channel: outbox }, receiver))
}

/// Takes the inbox that the supervisor sends, with a second descriptor of it for the reactor to watch. ipc-channel does not tell its
/// number; but a new descriptor has the lowest one that is free, and there is no other thread to take it.
fn take_inbox(from: &IpcReceiver<IpcBytesReceiver>) -> io::Result<(IpcBytesReceiver, UnixStream)> {
    let probe = io::stdin().as_fd().try_clone_to_owned()?;
    let number = probe.as_raw_fd();
    drop(probe);
    let inbox = from.recv().map_err(io::Error::other)?;
    let ourselves = pidfd_open(getpid(), PidfdFlags::empty())?;
    let second = pidfd_getfd(&ourselves, number, PidfdGetfdFlags::empty())?;
    // Not a stream, but all that is asked of it is whether there is something to read.
    let watch = std::os::unix::net::UnixStream::from(second);
    watch.set_nonblocking(true)?;
    Ok((inbox, UnixStream::from_std(watch)?))
}

async fn read_all(inbox: IpcBytesReceiver, watch: UnixStream, sender: mpsc::UnboundedSender<ToWorker>) {
    let mut assembler = Assembler::default();
    while watch.readable().await.is_ok() {
        let frame = watch.try_io(Interest::READABLE, || {
            inbox.try_recv().map_err(|error| match error {
                TryRecvError::Empty => io::ErrorKind::WouldBlock.into(),
                TryRecvError::IpcError(error) => io::Error::other(error),
            })
        });
        match frame {
            Ok(frame) => {
                if !pass_on(&mut assembler, &frame, &sender) {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// False if there is nobody to go on for.
fn pass_on(assembler: &mut Assembler, frame: &[u8], sender: &mpsc::UnboundedSender<ToWorker>) -> bool {
    match assembler.push(frame) {
        Ok(Some(message)) => sender.send(message).is_ok(),
        Ok(None) => true,
        Err(error) => {
            tracing::error!(%error, "the supervisor's frame cannot be understood");
            false
        }
    }
}
