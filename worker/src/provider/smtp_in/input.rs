//! Bytes that came and were not looked at yet, in a buffer of fixed size.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// Bytes of a connection's input buffer: several commands, or a usual message, in one read.
const INPUT_BYTES: usize = 16 * 1024;

/// Buffers that are kept for the next connections.
const SPARE_MAX: usize = 16;

/// Buffers of connections that are over.
#[derive(Debug, Default)]
pub(super) struct Spare(Vec<Box<[u8]>>);

impl Spare {
    /// A buffer for a connection.
    pub(super) fn take(&mut self) -> Input {
        Input { bytes: self.0.pop().unwrap_or_else(|| vec![0; INPUT_BYTES].into_boxed_slice()), from: 0, to: 0 }
    }

    /// Takes back what [`Spare::take`] gave.
    pub(super) fn give_back(&mut self, input: Input) {
        if self.0.len() < SPARE_MAX {
            self.0.push(input.bytes);
        }
    }
}

/// The input of one connection.
#[derive(Debug)]
pub(super) struct Input {
    bytes: Box<[u8]>,
    from: usize,
    to: usize,
}

impl Input {
    /// What is there.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(self.from..self.to).unwrap_or_default()
    }

    /// Removes bytes at the front.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.from = self.to.min(self.from.saturating_add(bytes));
    }

    /// Reads more, at least one byte; 0 is the end of the stream.
    ///
    /// # Errors
    /// What reading says; or if nothing was taken out of a full buffer, which would be a mistake of the caller.
    pub(super) fn poll_fill<S>(&mut self, stream: Pin<&mut S>, cx: &mut Context<'_>) -> Poll<io::Result<usize>>
    where
        S: AsyncRead,
    {
        if self.from > 0 {
            self.bytes.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
        }
        let mut room = ReadBuf::new(self.bytes.get_mut(self.to..).unwrap_or_default());
        if room.remaining() == 0 {
            return Poll::Ready(Err(io::ErrorKind::StorageFull.into()));
        }
        ready!(stream.poll_read(cx, &mut room))?;
        let count = room.filled().len();
        self.to += count;
        Poll::Ready(Ok(count))
    }
}
