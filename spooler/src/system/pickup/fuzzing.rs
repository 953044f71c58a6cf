//! Files of the pick-up folder with anything at all in them.

use spooler_protocol::fuzzing::assert_clean;

use super::{PickupError, picked};

/// Bytes of the largest message.
const CONTENT_BYTES_MAX: u64 = 3000;

/// Input: the file.
pub(crate) fn file(input: &[u8]) {
    match picked(input, 1000, CONTENT_BYTES_MAX) {
        Ok(found) => {
            found.submit.envelope.check().expect("an envelope that can be one");
            assert_clean("a picked-up message", &found.content);
            assert!(found.content.len() as u64 <= CONTENT_BYTES_MAX);
            let mut again = serde_json::to_vec(&found.submit).expect("an envelope can be written");
            again.push(b'\n');
            again.extend_from_slice(&found.content);
            assert_eq!(picked(&again, 1000, CONTENT_BYTES_MAX).expect("it can be read again"), found);
        }
        Err(error) => {
            assert!(!error.is_temporary() && !error.to_string().is_empty());
            assert!(!matches!(error, PickupError::NotPlain));
        }
    }
}
