//! The first words of a worker, before anything else is believed.
//!
//! ```text
//!   supervisor                                             worker
//!       | starts it; its standard input is a socket           |
//!       |                                                     | opens a one-shot server of ipc-channel
//!       |<-- Hello: version, pid, nonce, where that is -------|
//!       |--- Bootstrap: nonce, reading end of the channel --->|
//!       |                                                     |
//!       |<-- frames of FromWorker over the socket ------------|
//!       |--- frames of ToWorker over the channel ------------>|
//! ```
//!
//! A worker trusts its supervisor and not the other way round. So what the worker says comes as plain packets, which the supervisor reads
//! with nothing but a system call and the codec; what the supervisor says goes through ipc-channel, which the worker alone receives
//! with. [`Hello`] is written by hand and its first four bytes never change their meaning: a worker of another [`PROTOCOL_VERSION`] is
//! told apart before anything else of it is looked at.

use ipc_channel::ipc::IpcBytesReceiver;
use serde::{Deserialize, Serialize};

/// The version of everything in this crate that travels between supervisor and worker.
///
/// | version | brought |
/// |---|---|
/// | 1 | tokens, deliveries, inbound messages, critical sections |
/// | 2 | the whole provider contract: polls, flushes, validation, deferred messages, system messages |
/// | 3 | the sandbox of workers; what a worker says comes as packets on its standard input |
/// | 4 | a token says at once that it is asked back |
/// | 5 | how a message came in; where local addresses belong; how a remote was reached |
pub const PROTOCOL_VERSION: u32 = 5;

/// Bytes of the secret by which a worker knows that its supervisor came.
pub const NONCE_BYTES: usize = 16;

/// Bytes of the name of the folder that a one-shot server is in.
pub const FOLDER_BYTES_MAX: usize = 32;

/// The variable of a worker's environment with the folder in which a worker that runs programs makes one for their temporary files. `TMPDIR` is
/// where the worker opens its one-shot server.
pub const TEMPORARY_FOLDER: &str = "SPOOLER_TMPDIR";

/// The name of the socket in that folder; ipc-channel's choice.
pub const SOCKET_NAME: &str = "socket";

/// What a worker says first. On the wire: version and pid in four bytes each, little end first; the nonce; the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] of the worker.
    pub version: u32,
    /// The worker's process id, to be compared with the one that was started.
    pub pid: u32,
    /// A secret of the worker: who cannot repeat it is not its supervisor.
    pub nonce: [u8; NONCE_BYTES],
    /// The folder of its one-shot server, below the folder for temporary files that both have. Letters, digits and dots.
    pub folder: String,
}

/// What the supervisor sends to the one-shot server.
#[derive(Debug, Serialize, Deserialize)]
pub struct Bootstrap {
    /// Repeated from [`Hello`].
    pub nonce: [u8; NONCE_BYTES],
    /// Where the worker receives frames of [`crate::to_worker::ToWorker`]. Made by the supervisor, which is thus the only one who ever
    /// had the sending end in hand.
    pub inbox: IpcBytesReceiver,
}

/// Why bytes are no acceptable [`Hello`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// Another version of this crate.
    #[error("the worker speaks protocol version {0}, this program speaks {PROTOCOL_VERSION}; install both together")]
    Version(u32),
    /// Too few bytes for a hello.
    #[error("the worker's first words are too short for a hello")]
    Short,
    /// The folder is too long, empty, or more than a name.
    #[error("the worker's hello names no folder that can be its own")]
    Folder,
}

impl Hello {
    /// The one packet that it is.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        [&self.version.to_le_bytes(), &self.pid.to_le_bytes(), self.nonce.as_slice(), self.folder.as_bytes()].concat()
    }

    /// Reads a packet; looks no further than the version if that is another one.
    ///
    /// # Errors
    /// If it is no hello of this version.
    pub fn decode(packet: &[u8]) -> Result<Self, HelloError> {
        let (version, rest) = packet.split_first_chunk().ok_or(HelloError::Short)?;
        let version = u32::from_le_bytes(*version);
        if version != PROTOCOL_VERSION {
            return Err(HelloError::Version(version));
        }
        let (pid, rest) = rest.split_first_chunk().ok_or(HelloError::Short)?;
        let (nonce, folder) = rest.split_first_chunk().ok_or(HelloError::Short)?;
        let folder = std::str::from_utf8(folder).map_err(|_| HelloError::Folder)?;
        if !is_plain_name(folder) {
            return Err(HelloError::Folder);
        }
        Ok(Self { version, pid: u32::from_le_bytes(*pid), nonce: *nonce, folder: folder.to_owned() })
    }
}

/// Whether this can only be the name of something in a folder.
fn is_plain_name(name: &str) -> bool {
    let harmless = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
    harmless && !matches!(name, "" | "." | "..") && name.len() <= FOLDER_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello { version: PROTOCOL_VERSION, pid: 4711, nonce: [9; NONCE_BYTES], folder: ".tmpAbC123".to_owned() }
    }

    #[test]
    fn a_hello_survives_the_way_and_its_layout_is_frozen() {
        let packet = hello().encode();
        let mut by_hand = vec![5, 0, 0, 0, 0x67, 0x12, 0, 0];
        by_hand.extend([9; 16]);
        by_hand.extend(b".tmpAbC123");
        assert_eq!(packet, by_hand);
        assert_eq!(Hello::decode(&packet), Ok(hello()));
    }

    #[test]
    fn another_version_is_told_apart_whatever_follows() {
        assert_eq!(Hello::decode(&[3, 0, 0, 0]), Err(HelloError::Version(3)));
        assert_eq!(Hello::decode(&[0xff; 100]), Err(HelloError::Version(u32::MAX)));
    }

    #[test]
    fn what_is_cut_short_is_none() {
        let packet = hello().encode();
        for length in 0..24 {
            assert_eq!(Hello::decode(&packet[..length]), Err(HelloError::Short), "{length}");
        }
        assert_eq!(Hello::decode(&packet[..24]), Err(HelloError::Folder));
    }

    #[test]
    fn a_folder_is_a_name_and_not_a_way() {
        for folder in ["", ".", "..", "/", "../x", "a/b", "a\0b", "a b", "ü", "0123456789012345678901234567890123"] {
            let packet = Hello { folder: folder.to_owned(), ..hello() }.encode();
            assert_eq!(Hello::decode(&packet), Err(HelloError::Folder), "{folder}");
        }
        let mut packet = hello().encode();
        packet.push(0xff);
        assert_eq!(Hello::decode(&packet), Err(HelloError::Folder));
    }
}
