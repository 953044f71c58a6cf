//! What is still to be done for each worker, in bytes.
//!
//! A worker may say what it likes, and most words are done with when they are heard. Some leave something behind: a chunk
//! until it is written, a piece of a body until it is sent, a message until it is on disk. A worker that waits for its answers, as it
//! should, has little of this; one that does not wait could fill the memory of the supervisor. So while too much is under way for a
//! worker its socket is not looked at, and it waits as one that floods does, until enough of it is done.
//!
//! ```text
//!   admits ──▶ its words are heard ──▶ each holds a Debt while it is being done
//!      │ no: the worker waits                            │ dropped, and little enough is left
//!      ◀───────────────── Letter::Settled ───────────────┘
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use spooler_protocol::ids::AcceptId;
use spooler_protocol::message::Envelope;

use crate::supervisor::event::{Incoming, WorkerId};
use crate::system::mailbox::{Letter, Mailbox};

/// Bytes that may be under way for one worker when one more of its words is heard.
const UNDER_WAY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What anything takes besides its content.
const OVERHEAD_BYTES: usize = 1024;

/// What is under way for one worker.
pub(super) struct Debts {
    account: Arc<Account>,
    /// Messages that are not answered yet. A worker that repeats a number has several of it.
    accepts: HashMap<AcceptId, Vec<Debt>>,
}

/// Something under way, until it is dropped.
pub(super) struct Debt {
    account: Arc<Account>,
    bytes: usize,
}

struct Account {
    worker: WorkerId,
    mailbox: Mailbox,
    bytes: AtomicUsize,
    /// Whether its socket is not looked at until it is told.
    waits: AtomicBool,
}

impl Debts {
    pub(super) fn new(worker: WorkerId, mailbox: Mailbox) -> Self {
        let account = Account { worker, mailbox, bytes: AtomicUsize::new(0), waits: AtomicBool::new(false) };
        Self { account: Arc::new(account), accepts: HashMap::new() }
    }

    /// Whether the worker's words may be heard. If not, a letter will say when.
    pub(super) fn admits(&self) -> bool {
        if self.account.is_low() {
            return true;
        }
        self.account.waits.store(true, Ordering::SeqCst);
        // It may have become low in between; whoever takes the flag back is the one to go on.
        self.account.is_low() && self.account.waits.swap(false, Ordering::SeqCst)
    }

    /// So many bytes are under way from now on.
    pub(super) fn owe(&self, bytes: usize) -> Debt {
        let bytes = bytes + OVERHEAD_BYTES;
        self.account.bytes.fetch_add(bytes, Ordering::SeqCst);
        Debt { account: Arc::clone(&self.account), bytes }
    }

    /// A message is on its way to the disk, until it is [`Debts::accepted`].
    pub(super) fn accepting(&mut self, accept: AcceptId, envelope: &Envelope, content: &Incoming) {
        let inline = match content {
            Incoming::Inline(bytes) => bytes.len(),
            Incoming::Upload { .. } => 0,
        };
        let recipients = envelope.recipients.iter().map(|recipient| OVERHEAD_BYTES + recipient.address.text().len());
        let debt = self.owe(inline + recipients.sum::<usize>());
        self.accepts.entry(accept).or_default().push(debt);
    }

    /// A message is on disk, or refused.
    pub(super) fn accepted(&mut self, accept: AcceptId) {
        if let Some(debts) = self.accepts.get_mut(&accept) {
            debts.pop();
            if debts.is_empty() {
                self.accepts.remove(&accept);
            }
        }
    }
}

impl Account {
    fn is_low(&self) -> bool {
        self.bytes.load(Ordering::SeqCst) < UNDER_WAY_BYTES_MAX
    }
}

impl Drop for Debt {
    fn drop(&mut self) {
        self.account.bytes.fetch_sub(self.bytes, Ordering::SeqCst);
        if self.account.is_low() && self.account.waits.swap(false, Ordering::SeqCst) {
            self.account.mailbox.put(Letter::Settled(self.account.worker));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use spooler_protocol::ids::Generation;

    use super::*;
    use crate::policy::ProviderId;
    use crate::system::mailbox::Letters;

    fn debts() -> (Debts, Letters) {
        let (mailbox, letters) = Mailbox::new().unwrap();
        let worker = WorkerId { provider: ProviderId::default(), generation: Generation(1) };
        (Debts::new(worker, mailbox), letters)
    }

    #[test]
    fn who_has_much_under_way_waits_until_it_is_done_and_is_told_once() {
        let (debts, letters) = debts();
        let much: Vec<Debt> = (0..20).map(|_| debts.owe(UNDER_WAY_BYTES_MAX / 10)).collect();
        assert!(!debts.admits());
        let mut more = much.into_iter();
        while letters.take().is_none() {
            drop(more.next().expect("all is done and nobody was told"));
        }
        assert!(debts.admits() && more.len() > 5, "{}", more.len());
        drop(more);
        assert!(letters.take().is_none(), "told once");
    }

    #[test]
    fn who_has_little_under_way_is_never_told() {
        let (debts, letters) = debts();
        for _ in 0..100 {
            assert!(debts.admits());
            drop(debts.owe(UNDER_WAY_BYTES_MAX));
        }
        assert!(letters.take().is_none());
    }

    #[test]
    fn a_message_is_under_way_until_it_is_answered_even_if_its_number_is_not_its_own() {
        let (mut debts, letters) = debts();
        let content = Incoming::Inline(vec![0; UNDER_WAY_BYTES_MAX / 2].into());
        for _ in 0..3 {
            debts.accepting(AcceptId(1), &Envelope::default(), &content);
        }
        assert!(!debts.admits());
        debts.accepted(AcceptId(2));
        debts.accepted(AcceptId(1));
        assert!(letters.take().is_none());
        debts.accepted(AcceptId(1));
        assert!(matches!(letters.take(), Some(Letter::Settled(_))));
        debts.accepted(AcceptId(1));
        debts.accepted(AcceptId(1));
        assert!(debts.admits() && debts.accepts.is_empty());
    }

    #[test]
    fn nobody_waits_who_could_go_on() {
        let (debts, letters) = debts();
        for _ in 0..2000 {
            let debt = debts.owe(UNDER_WAY_BYTES_MAX);
            let other = thread::spawn(move || drop(debt));
            // Either it is admitted, or there is or will be a letter.
            if !debts.admits() {
                letters.wait(None);
                assert!(letters.take().is_some());
            }
            other.join().unwrap();
        }
    }
}
