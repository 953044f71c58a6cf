//! The first words of a worker, before anything else is believed.
//!
//! A worker is started with the name of a one-shot server in its arguments and a nonce on its standard input. It connects, says
//! [`Hello`] with its ends of the channels, and from then on only those are used. The channel on which it is spoken to is made by the
//! supervisor, which is thus the only one who ever had its sending end in hand. [`Hello`] is decoded by ipc-channel and its
//! layout never changes; a worker of another [`PROTOCOL_VERSION`] is told apart from it before any other word is read.

use ipc_channel::ipc::{IpcBytesReceiver, IpcSender};
use serde::{Deserialize, Serialize};

/// The version of everything in this crate that travels between supervisor and worker.
///
/// | version | brought |
/// |---|---|
/// | 1 | tokens, deliveries, inbound messages, critical sections |
/// | 2 | the whole provider contract: polls, flushes, validation, deferred messages, system messages |
/// | 3 | the sandbox of workers |
pub const PROTOCOL_VERSION: u32 = 3;

/// Bytes of the secret that a worker reads from its standard input and repeats in its [`Hello`].
pub const NONCE_BYTES: usize = 16;

/// What a worker says first.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] of the worker.
    pub version: u32,
    /// The worker's process id, to be compared with the one that was started.
    pub pid: u32,
    /// The secret from standard input: who cannot repeat it was not started by this supervisor.
    pub nonce: [u8; NONCE_BYTES],
    /// Where the supervisor sends, once, the reading end of the channel with frames of [`crate::to_worker::ToWorker`].
    pub to_worker: IpcSender<IpcBytesReceiver>,
    /// Where the supervisor receives frames of [`crate::from_worker::FromWorker`].
    pub from_worker: IpcBytesReceiver,
}
