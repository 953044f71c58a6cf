//! Packets from a worker: the side of its channel on which it may do what it likes.
//!
//! The worker has one end of a pair of `SOCK_SEQPACKET` sockets as its standard input. The pair has no name, so nobody else can ever
//! reach it. What comes out of it is bytes up to a limit, into one buffer that is used again and again:
//!
//! ```text
//!   the worker does                         and here is
//!   sends 1 to FRAME_BYTES_MAX bytes        a packet
//!   sends more                              PacketError::TooLong; what was cut off is gone
//!   sends nothing, as a packet              PacketError::Empty
//!   sends descriptors along                 the packet; the kernel drops the descriptors, because there is no room for them
//!   closes its end, half of it, or dies     the packets that it sent before, then the end
//!   sends faster than is read               the worker waits (its send buffer is what it may have under way)
//!   hands its end to somebody else          what that one sends; the end when the worker's process has ended (see `hang_up`)
//! ```
//!
//! What the bytes mean is not known here.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, Shutdown, SocketFlags, SocketType, recv, shutdown, socketpair};
use spooler_protocol::limits::FRAME_BYTES_MAX;

/// Our end, and the one that a worker gets.
///
/// # Errors
/// If there can be no more descriptors.
pub fn pair() -> Result<(Arc<OwnedFd>, OwnedFd), String> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|error| format!("no channel for a worker: {error}"))?;
    Ok((Arc::new(ours), theirs))
}

/// Nothing more is taken: who waits in [`Packets::receive`] gets what was sent before, and then the end, even if somebody still holds the
/// other end.
pub fn hang_up(socket: &OwnedFd) {
    // It fails only if the other end is gone, which says the same.
    let _ = shutdown(socket, Shutdown::Both);
}

/// Why nothing more is taken from a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Longer than any frame.
    #[error("a packet of {0} bytes; no frame has more than {FRAME_BYTES_MAX}")]
    TooLong(usize),
    /// Without a single byte.
    #[error("an empty packet")]
    Empty,
}

/// What was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken<P> {
    /// A packet.
    Packet(P),
    /// Nothing yet.
    Nothing,
    /// The end: nothing will come.
    End,
}

/// Takes packets out of a socket.
pub struct Packets {
    socket: Arc<OwnedFd>,
    buffer: Box<[u8]>,
}

impl Packets {
    /// From our end of a [`pair`].
    #[must_use]
    pub fn new(socket: Arc<OwnedFd>) -> Self {
        Self { socket, buffer: vec![0; FRAME_BYTES_MAX].into_boxed_slice() }
    }

    /// Waits for the next packet; nothing at the end.
    ///
    /// # Errors
    /// If it is not as a packet has to be. What follows is not worth looking at.
    pub fn receive(&mut self) -> Result<Option<&[u8]>, PacketError> {
        match self.take(RecvFlags::TRUNC)? {
            Taken::Packet(length) => Ok(self.buffer.get(..length)),
            Taken::Nothing | Taken::End => Ok(None),
        }
    }

    /// The next packet if there is one.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub fn try_receive(&mut self) -> Result<Taken<&[u8]>, PacketError> {
        Ok(match self.take(RecvFlags::TRUNC | RecvFlags::DONTWAIT)? {
            Taken::Packet(length) => Taken::Packet(self.buffer.get(..length).unwrap_or_default()),
            Taken::Nothing => Taken::Nothing,
            Taken::End => Taken::End,
        })
    }

    /// The socket, to be waited for.
    #[must_use]
    pub fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Takes a packet into the buffer; how long it is.
    fn take(&mut self, flags: RecvFlags) -> Result<Taken<usize>, PacketError> {
        let length = loop {
            match recv(&self.socket, &mut *self.buffer, flags) {
                Ok((_, length)) => break length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Taken::Nothing),
                // The other end is gone with something unread in it.
                Err(_) => return Ok(Taken::End),
            }
        };
        match length {
            0 if self.is_at_end() => Ok(Taken::End),
            0 => Err(PacketError::Empty),
            _ if length > self.buffer.len() => Err(PacketError::TooLong(length)),
            _ => Ok(Taken::Packet(length)),
        }
    }

    /// An end and an empty packet read the same; but an end can be read twice.
    fn is_at_end(&mut self) -> bool {
        let again = recv(&self.socket, &mut *self.buffer, RecvFlags::PEEK | RecvFlags::DONTWAIT);
        again.map_or_else(|error| error != Errno::AGAIN, |(_, length)| length == 0)
    }
}

#[cfg(test)]
mod tests;
