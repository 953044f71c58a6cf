//! The one channel into the loop, and the inboxes of the workers behind it.
//!
//! A worker's words wait in an inbox of its own, with little room. What goes through the channel is only the word that there is
//! something in it, once until the loop has looked. So a worker that floods fills its own inbox and holds itself back, and the loop
//! takes a few words from each worker in turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use spooler_protocol::from_worker::FromWorker;

use crate::config::Config;
use crate::supervisor::event::{Event, WorkerId};
use crate::system::control::Request;
use crate::system::worker_link::Link;

/// Words of one worker that may wait.
const INBOX_WORDS_MAX: usize = 64;

/// What comes into the loop.
pub enum Letter {
    /// For the supervisor as it is.
    Event(Event),
    /// Several of the same kind, so that a commit wakes the loop once.
    Events(Vec<Event>),
    /// A worker's inbox has something.
    Mail(WorkerId),
    /// A worker has said hello, or will not.
    Hello(WorkerId, Result<Link, String>),
    /// A worker's process has ended; why, with its last words.
    Ended(WorkerId, String),
    /// A worker's priority could not be set a moment ago.
    PriorityAgain(WorkerId),
    /// A client asks.
    Asked(Request),
    /// A person wants the configuration read again.
    Reload,
    /// A new, good configuration, and the number of its reading.
    Reloaded(u64, Box<Config>),
}

/// The sending side of the channel into the loop.
#[derive(Clone)]
pub struct Mailbox {
    sender: Sender<Letter>,
}

impl Mailbox {
    /// The channel. Its letters are few: each source has a bound of its own on what it may have under way.
    #[must_use]
    pub fn new() -> (Self, Receiver<Letter>) {
        let (sender, receiver) = unbounded();
        (Self { sender }, receiver)
    }

    /// Puts a letter in; nobody misses it when the loop has ended.
    pub fn put(&self, letter: Letter) {
        let _ = self.sender.send(letter);
    }
}

/// A word of a worker, or the last thing that its channel says.
pub enum Word {
    /// It said this.
    Said(FromWorker),
    /// It said what cannot be understood.
    Garbled(String),
    /// Its channel is closed: nothing more will come.
    Closed,
}

/// The writing end of an inbox, for the thread that reads the worker's channel.
pub struct InboxWriter {
    worker: WorkerId,
    words: Sender<Word>,
    announced: Arc<AtomicBool>,
    mailbox: Mailbox,
}

/// The reading end of an inbox, for the loop.
pub struct Inbox {
    words: Receiver<Word>,
    announced: Arc<AtomicBool>,
}

/// An inbox for a worker.
#[must_use]
pub fn inbox(worker: WorkerId, mailbox: Mailbox) -> (InboxWriter, Inbox) {
    let (sender, receiver) = bounded(INBOX_WORDS_MAX);
    let announced = Arc::new(AtomicBool::new(false));
    (
        InboxWriter { worker, words: sender, announced: Arc::clone(&announced), mailbox },
        Inbox { words: receiver, announced },
    )
}

impl InboxWriter {
    /// Puts a word in; waits while the inbox is full. False if nobody reads it any more.
    pub fn put(&self, word: Word) -> bool {
        let sent = self.words.send(word).is_ok();
        if sent && !self.announced.swap(true, Ordering::AcqRel) {
            self.mailbox.put(Letter::Mail(self.worker));
        }
        sent
    }
}

impl Inbox {
    /// Takes up to so many words. Tells whether there may be more: then the loop has to come back by itself.
    pub fn take(&self, most: usize) -> (Vec<Word>, bool) {
        let words: Vec<Word> = self.words.try_iter().take(most).collect();
        if words.len() == most {
            return (words, true);
        }
        self.announced.store(false, Ordering::Release);
        // A word may have come in between; whoever sets the flag back is the one to come.
        let more = !self.words.is_empty() && !self.announced.swap(true, Ordering::AcqRel);
        (words, more)
    }
}
