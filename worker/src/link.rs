//! The channel to the supervisor; the only file of this crate that knows ipc-channel.
//!
//! A thread of its own reads, token or not, so that the supervisor's words never back up. Sending happens on the runtime's thread:
//! it blocks while the supervisor does not read, which is where a flooding worker is held back.

use std::io::Read;

use ipc_channel::ipc::{self, IpcBytesReceiver, IpcBytesSender, IpcSender};
use spooler_protocol::codec::{self, Assembler, CodecError};
use spooler_protocol::from_worker::FromWorker;
use spooler_protocol::handshake::{Hello, NONCE_BYTES, PROTOCOL_VERSION};
use spooler_protocol::to_worker::ToWorker;
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
/// The receiving end closes when the supervisor is gone or talks garbage.
///
/// # Errors
/// If there is no such server or no nonce.
pub fn connect(name: &str) -> Result<(LinkSender, mpsc::UnboundedReceiver<ToWorker>), LinkError> {
    let failed = |why: String| LinkError::Connect { name: name.to_owned(), why };
    let mut nonce = [0; NONCE_BYTES];
    std::io::stdin().lock().read_exact(&mut nonce).map_err(LinkError::Nonce)?;
    let (to_worker, inbox) = ipc::bytes_channel().map_err(|error| failed(error.to_string()))?;
    let (outbox, from_worker) = ipc::bytes_channel().map_err(|error| failed(error.to_string()))?;
    let bootstrap = IpcSender::connect(name.to_owned()).map_err(|error| failed(error.to_string()))?;
    let hello = Hello { version: PROTOCOL_VERSION, pid: std::process::id(), nonce, to_worker, from_worker };
    bootstrap.send(hello).map_err(|error| failed(error.to_string()))?;
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::Builder::new()
        .name("link-reader".to_owned())
        .stack_size(256 * 1024)
        .spawn(move || read_all(&inbox, &sender))
        .map_err(|error| failed(error.to_string()))?;
    Ok((LinkSender { channel: outbox }, receiver))
}

fn read_all(inbox: &IpcBytesReceiver, sender: &mpsc::UnboundedSender<ToWorker>) {
    let mut assembler = Assembler::default();
    while let Ok(frame) = inbox.recv() {
        match assembler.push(&frame) {
            Ok(Some(message)) => {
                if sender.send(message).is_err() {
                    break;
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, "the supervisor's frame cannot be understood");
                break;
            }
        }
    }
}
