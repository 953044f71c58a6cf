//! Fuzz targets: bytes of any kind on the channel, in both directions.
//!
//! An input is cut into frames as [`records`] cuts it.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Assembler, CodecError, encode};
use crate::from_worker::FromWorker;
use crate::handshake::Hello;
use crate::limits::FRAME_BYTES_MAX;
use crate::to_worker::ToWorker;

/// Cuts an input into records: two bytes of length, little end first, and so many bytes, or what is left.
pub fn records(mut input: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = input.split_first_chunk()?;
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (record, rest) = rest.split_at(length);
        input = rest;
        Some(record)
    })
}

/// What a worker says. The first frame is taken for a hello besides.
pub fn from_worker(input: &[u8]) {
    if let Some(packet) = records(input).next()
        && let Ok(hello) = Hello::decode(packet)
    {
        assert_eq!(hello.encode(), packet, "a hello has one way to be written");
        assert!(!hello.folder.contains('/') && hello.folder != "..");
    }
    hear::<FromWorker>(input);
}

/// What the supervisor says.
pub fn to_worker(input: &[u8]) {
    hear::<ToWorker>(input);
}

/// Whatever is understood can be said again, and is then understood the same way.
fn hear<M: Serialize + DeserializeOwned + PartialEq + Debug>(input: &[u8]) {
    let mut assembler = Assembler::default();
    for frame in records(input) {
        match assembler.push::<M>(frame) {
            Ok(None) => {}
            Ok(Some(message)) => assert_eq!(said_again(&message), message),
            // The peer is not heard any more.
            Err(_) => return,
        }
    }
}

fn said_again<M: Serialize + DeserializeOwned>(message: &M) -> M {
    let mut assembler = Assembler::default();
    let mut heard = None;
    let said = encode::<_, CodecError>(message, |frame| {
        assert!(frame.len() <= FRAME_BYTES_MAX && heard.is_none());
        heard = assembler.push(frame)?;
        Ok(())
    });
    assert!(said.is_ok(), "what was understood cannot be said: {said:?}");
    heard.unwrap_or_else(|| panic!("what was said is not complete"))
}
