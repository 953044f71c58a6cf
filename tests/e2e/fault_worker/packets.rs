//! A worker that has logged on and then sends packets that are none:
//!
//! | content of `before-hello` | what it sends |
//! |---|---|
//! | `packets-short` | a packet of one byte |
//! | `packets-empty` | a packet without a byte |
//! | `packets-long` | a packet larger than any frame |
//! | `packets-random` | bytes of no meaning, without end |
//! | `packets-endless` | one message that has no end |
//! | `packets-ipc` | what would make the receiver of ipc-channel take 2^62 bytes of memory, with a socket |
//! | `packets-half` | nothing more: it closes half of its end |
//! | `packets-descriptors` | 64 descriptors with each word, without end |

use std::error::Error;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, send, sendmsg, shutdown};
use spooler_protocol::codec;
use spooler_protocol::from_worker::{FromWorker, RowUpdate};
use spooler_protocol::limits::FRAME_BYTES_MAX;

use crate::stranger::log_on;

/// Descriptors that come with one packet.
const DESCRIPTORS: usize = 64;

pub(crate) fn send_all(mode: &str, outbox: &OwnedFd) -> Result<(), Box<dyn Error>> {
    log_on(outbox)?;
    match mode {
        "packets-short" => put(outbox, &[0])?,
        "packets-empty" => put(outbox, &[])?,
        "packets-long" => put(outbox, &vec![0; 200_000])?,
        "packets-random" => loop {
            let bytes: Vec<u8> = (0..fastrand::usize(1..FRAME_BYTES_MAX)).map(|_| fastrand::u8(..)).collect();
            put(outbox, &bytes)?;
        },
        "packets-endless" => loop {
            put(outbox, &vec![1; FRAME_BYTES_MAX])?;
        },
        "packets-ipc" => {
            put_with_descriptors(outbox, &[[8, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0x40]].concat())?
        }
        "packets-half" => shutdown(outbox, Shutdown::Write)?,
        "packets-descriptors" => send_descriptors(outbox)?,
        _ => {}
    }
    Ok(())
}

fn put(outbox: &OwnedFd, packet: &[u8]) -> Result<(), Box<dyn Error>> {
    send(outbox, packet, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn put_with_descriptors(outbox: &OwnedFd, packet: &[u8]) -> Result<(), Box<dyn Error>> {
    let many = [outbox.as_fd(); DESCRIPTORS];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut along = SendAncillaryBuffer::new(&mut space);
    along.push(SendAncillaryMessage::ScmRights(&many));
    sendmsg(outbox, &[IoSlice::new(packet)], &mut along, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn send_descriptors(outbox: &OwnedFd) -> Result<(), Box<dyn Error>> {
    for sequence in 1.. {
        let text = Some(format!("sent {sequence} times {DESCRIPTORS}"));
        let update = Box::new(RowUpdate { text, ..RowUpdate::default() });
        let row = FromWorker::Row { sequence, row: String::new(), update };
        codec::encode::<_, Box<dyn Error>>(&row, |frame| put_with_descriptors(outbox, frame))?;
    }
    Ok(())
}
