//! What the supervisor asks for: kept, in order, until the provider's own loop can act on it under its token.
//!
//! The order to leave stands beside the others as well, so that one in a hurry is heard whatever waits in front of it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use spooler_protocol::to_worker::ToWorker;
use tokio::sync::Notify;

/// How the session is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Leave {
    /// When what is under way has ended (LOGOFF_NORMAL).
    Softly,
    /// At once (LOGOFF_HURRY).
    InAHurry,
}

/// What the supervisor asked for that is not an answer.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    queue: RefCell<VecDeque<ToWorker>>,
    leave: Cell<Option<Leave>>,
    arrived: Notify,
}

impl Orders {
    /// One more.
    pub(crate) fn push(&self, order: ToWorker) {
        if let ToWorker::Logoff { hurry } = order {
            let leave = if hurry { Leave::InAHurry } else { Leave::Softly };
            // A hurry is not taken back.
            self.leave.set(self.leave.get().max(Some(leave)));
        }
        self.queue.borrow_mut().push_back(order);
        self.arrived.notify_one();
    }

    /// The next one, if there is one.
    pub(crate) fn next(&self) -> Option<ToWorker> {
        self.queue.borrow_mut().pop_front()
    }

    /// Whether the session is to end, whatever waits to be done before.
    pub(crate) fn leave(&self) -> Option<Leave> {
        self.leave.get()
    }

    /// Waits for something new.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Waits until the session is to end.
    pub(crate) async fn left(&self) {
        while self.leave.get().is_none() {
            self.arrived().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hurry_is_heard_before_what_waits_and_is_not_taken_back() {
        let orders = Orders::default();
        orders.push(ToWorker::Poll);
        orders.push(ToWorker::Logoff { hurry: false });
        assert_eq!((orders.leave(), orders.next()), (Some(Leave::Softly), Some(ToWorker::Poll)));
        orders.push(ToWorker::Logoff { hurry: true });
        orders.push(ToWorker::Logoff { hurry: false });
        assert_eq!((orders.leave(), orders.next()), (Some(Leave::InAHurry), Some(ToWorker::Logoff { hurry: false })));
    }
}
