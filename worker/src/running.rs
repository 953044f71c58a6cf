//! The calls into the provider that are under way.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// What a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `submit_message` and `end_message`.
    Delivery,
    /// `start_message`.
    Start,
    /// `poll`.
    Poll,
    /// `idle`.
    Idle,
    /// `flush_queues`.
    Flush,
    /// `validate_state`.
    Validate,
    /// `notify`, one word after another.
    News,
}

/// The calls under way.
#[derive(Debug, Default)]
pub(crate) struct Running {
    calls: RefCell<HashMap<u64, (Kind, AbortHandle)>>,
    next: Cell<u64>,
    ended: Notify,
}

/// Takes a call off the list when it ends, whether it came to its end or was dropped.
struct Entry {
    running: Rc<Running>,
    number: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.running.calls.borrow_mut().remove(&self.number);
        self.running.ended.notify_waiters();
    }
}

impl Running {
    /// Begins a call.
    pub(crate) fn spawn(self: &Rc<Self>, kind: Kind, call: impl Future<Output = ()> + 'static) {
        let number = self.next.get();
        self.next.set(number + 1);
        let entry = Entry { running: Rc::clone(self), number };
        let task = tokio::task::spawn_local(async move {
            let _entry = entry;
            call.await;
        });
        self.calls.borrow_mut().insert(number, (kind, task.abort_handle()));
    }

    /// Whether a call of this kind is under way.
    pub(crate) fn has(&self, kind: Kind) -> bool {
        self.calls.borrow().values().any(|(running, _)| *running == kind)
    }

    /// Waits until no call is under way but housekeeping, which is stopped then.
    pub(crate) async fn finish(&self) {
        self.until(|kind| kind == Kind::Idle).await;
        self.stop().await;
    }

    /// Drops all calls.
    pub(crate) async fn stop(&self) {
        for (_, call) in self.calls.borrow().values() {
            call.abort();
        }
        self.until(|_| false).await;
    }

    /// Waits until only calls of these kinds are under way.
    async fn until(&self, may_stay: impl Fn(Kind) -> bool) {
        loop {
            let ended = self.ended.notified();
            if self.calls.borrow().values().all(|(kind, _)| may_stay(*kind)) {
                return;
            }
            ended.await;
        }
    }
}
