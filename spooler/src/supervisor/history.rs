//! What is kept of messages that leave the queue.

use spooler_protocol::history::End;
use spooler_protocol::ids::MessageId;

use super::Supervisor;
use crate::policy::retry::ms;
use crate::record::{Change, Ending, Keep, RecipientUpdate};

impl Supervisor {
    /// A message leaves the queue because all of its recipients are settled; `updates` is what is not on disk yet of that.
    pub(super) fn remove_settled(&self, id: MessageId, updates: Vec<RecipientUpdate>) -> Change {
        self.remove(id, End::Settled, None, updates)
    }

    /// A message leaves the queue because a person wanted that.
    pub(super) fn remove_by_hand(&self, id: MessageId, end: End, by_uid: Option<u32>) -> Change {
        self.remove(id, end, by_uid, Vec::new())
    }

    fn remove(&self, id: MessageId, end: End, by_uid: Option<u32>, updates: Vec<RecipientUpdate>) -> Change {
        let history = self.config.history;
        let since_ms = self.wall_ms.saturating_sub(ms(history.keep));
        let keep = if history.keep.is_zero() {
            Keep { since_ms: i64::MAX, bytes_max: 0 }
        } else {
            Keep { since_ms, bytes_max: history.max }
        };
        Change::Remove { id, ending: Some(Box::new(Ending { at_ms: self.wall_ms, end, by_uid, updates, keep })) }
    }
}
