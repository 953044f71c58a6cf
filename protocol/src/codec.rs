//! Messages to and from bytes: bincode inside frames that ipc-channel never fragments.
//!
//! A frame is one flag byte and up to [`FRAME_BYTES_MAX`] - 1 bytes of an encoded message. The flag says whether more frames of the
//! same message follow. All use of bincode is in this file, so that a change of codec is a change of this file.

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::{ENCODED_BYTES_MAX, FRAME_BYTES_MAX};

const LAST: u8 = 0;
const MORE: u8 = 1;
const PAYLOAD_BYTES_MAX: usize = FRAME_BYTES_MAX - 1;

/// Why bytes are not a message, or a message cannot become bytes.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The peer speaks another language, or garbage.
    #[error("The frame cannot be decoded")]
    Decode(#[from] bincode::error::DecodeError),
    /// A value that the codec cannot hold.
    #[error("The message cannot be encoded")]
    Encode(#[from] bincode::error::EncodeError),
    /// Larger than any message may be.
    #[error("The message is larger than {ENCODED_BYTES_MAX} bytes")]
    TooLarge,
    /// An empty frame or a flag that means nothing.
    #[error("The frame has no valid flag")]
    Flag,
    /// A decoded message with bytes left over.
    #[error("The message is followed by {0} bytes that do not belong to it")]
    Trailing(usize),
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<ENCODED_BYTES_MAX>()
}

/// Encodes a message and hands its frames, in order, to `send`.
///
/// # Errors
/// If the message cannot be encoded or is too large, or the first error of `send`.
pub fn encode<M: Serialize, E: From<CodecError>>(
    message: &M,
    mut send: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut bytes = vec![LAST];
    bincode::serde::encode_into_std_write(message, &mut bytes, config()).map_err(CodecError::from)?;
    if bytes.len() <= FRAME_BYTES_MAX {
        return send(&bytes);
    }
    if bytes.len() > ENCODED_BYTES_MAX {
        return Err(CodecError::TooLarge.into());
    }
    let payload = bytes.get(1..).unwrap_or_default();
    let mut pieces = payload.chunks(PAYLOAD_BYTES_MAX).peekable();
    let mut frame = Vec::with_capacity(FRAME_BYTES_MAX);
    while let Some(piece) = pieces.next() {
        frame.clear();
        frame.push(if pieces.peek().is_some() { MORE } else { LAST });
        frame.extend_from_slice(piece);
        send(&frame)?;
    }
    Ok(())
}

/// Puts frames together again and decodes them.
#[derive(Debug, Default)]
pub struct Assembler {
    pending: Vec<u8>,
}

impl Assembler {
    /// Takes the next frame; gives the message if it was the last one of it.
    ///
    /// # Errors
    /// On anything that [`encode`] does not make. The peer is then not to be believed any more.
    pub fn push<M: DeserializeOwned>(&mut self, frame: &[u8]) -> Result<Option<M>, CodecError> {
        let (flag, payload) = frame.split_first().ok_or(CodecError::Flag)?;
        if self.pending.len() + payload.len() > ENCODED_BYTES_MAX {
            return Err(CodecError::TooLarge);
        }
        match *flag {
            MORE => {
                self.pending.extend_from_slice(payload);
                Ok(None)
            }
            LAST if self.pending.is_empty() => decode(payload).map(Some),
            LAST => {
                let mut whole = std::mem::take(&mut self.pending);
                whole.extend_from_slice(payload);
                decode(&whole).map(Some)
            }
            _ => Err(CodecError::Flag),
        }
    }
}

fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, CodecError> {
    let (message, used) = bincode::serde::decode_from_slice(bytes, config())?;
    if used == bytes.len() { Ok(message) } else { Err(CodecError::Trailing(bytes.len() - used)) }
}

#[cfg(test)]
mod hostile;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::from_worker::{Arrival, Content, FromWorker};
    use crate::ids::AcceptId;
    use crate::message::Envelope;

    fn frames(message: &FromWorker) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        encode::<_, CodecError>(message, |frame| {
            frames.push(frame.to_vec());
            Ok(())
        })
        .unwrap();
        frames
    }

    fn accept(size: usize) -> FromWorker {
        FromWorker::Accept {
            accept: AcceptId(7),
            envelope: Envelope { sender: "a@b".to_owned(), ..Envelope::default() },
            arrival: Arrival::default(),
            content: Content::Inline(Bytes::from(vec![b'x'; size])),
        }
    }

    #[test]
    fn small_and_large_messages_survive_the_trip() {
        for size in [0, 4096, 70_000, 130_000] {
            let message = accept(size);
            let frames = frames(&message);
            assert!(frames.iter().all(|frame| frame.len() <= FRAME_BYTES_MAX));
            let mut assembler = Assembler::default();
            let decoded: Vec<FromWorker> = frames.iter().filter_map(|frame| assembler.push(frame).unwrap()).collect();
            assert_eq!(decoded, vec![message]);
        }
    }

    #[test]
    fn garbage_is_an_error_and_never_a_panic() {
        let mut assembler = Assembler::default();
        assert!(matches!(assembler.push::<FromWorker>(&[]), Err(CodecError::Flag)));
        assert!(matches!(assembler.push::<FromWorker>(&[9, 1]), Err(CodecError::Flag)));
        assert!(matches!(assembler.push::<FromWorker>(&[LAST, 250, 255, 255]), Err(CodecError::Decode(_))));
        let mut trailing = frames(&FromWorker::Want).remove(0);
        trailing.push(0);
        assert!(matches!(assembler.push::<FromWorker>(&trailing), Err(CodecError::Trailing(1))));
    }

    #[test]
    fn a_message_that_never_ends_is_refused() {
        let mut assembler = Assembler::default();
        let frame = [&[MORE], vec![0_u8; PAYLOAD_BYTES_MAX].as_slice()].concat();
        let refused = (0..=ENCODED_BYTES_MAX / PAYLOAD_BYTES_MAX)
            .any(|_| matches!(assembler.push::<FromWorker>(&frame), Err(CodecError::TooLarge)));
        assert!(refused);
    }

    #[test]
    fn a_length_that_lies_is_refused_without_allocating_it() {
        // Variant 11 (Accept) cut short behind an inline content of a claimed 2^62 bytes.
        let mut frame = frames(&accept(10)).remove(0);
        let at = frame.len() - 11;
        frame.truncate(at);
        frame.extend_from_slice(&[253, 0, 0, 0, 0, 0, 0, 0, 0x40]);
        assert!(Assembler::default().push::<FromWorker>(&frame).is_err());
    }
}
