//! The one channel into the loop, and the inboxes of the workers behind it.
//!
//! A worker's words wait in an inbox of its own, with little room. What goes through the channel is only the word that there is
//! something in it, once until the loop has looked. So a worker that floods fills its own inbox and holds itself back, and the loop
//! takes a few words from each worker in turn.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
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
    bell: Arc<Bell>,
}

/// Wakes the loop where it sleeps.
struct Bell {
    event: EventFd,
    /// The loop sleeps, or is about to: who puts a letter in has to ring.
    sleeps: AtomicBool,
}

/// The loop's side: what was put in.
pub struct Letters {
    receiver: Receiver<Letter>,
    bell: Arc<Bell>,
    epoll: Epoll,
}

impl Mailbox {
    /// The channel. Its letters are few: each source has a bound of its own on what it may have under way.
    ///
    /// # Errors
    /// If there can be no further descriptors.
    pub fn new() -> io::Result<(Self, Letters)> {
        let (sender, receiver) = unbounded();
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        // Each ringing is an edge, so that nobody has to read the counter.
        epoll.add(&event, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0))?;
        let bell = Arc::new(Bell { event, sleeps: AtomicBool::new(false) });
        Ok((Self { sender, bell: Arc::clone(&bell) }, Letters { receiver, bell, epoll }))
    }

    /// Puts a letter in; nobody misses it when the loop has ended.
    pub fn put(&self, letter: Letter) {
        let _ = self.sender.send(letter);
        if self.bell.sleeps.swap(false, Ordering::SeqCst) {
            let _ = self.bell.event.write(1);
        }
    }
}

impl Letters {
    /// Sleeps until there is a letter, or so long; for ever without an end.
    pub fn wait(&self, longest: Option<Duration>) {
        self.bell.sleeps.store(true, Ordering::SeqCst);
        // A letter that came before is found here; one that comes later finds the flag, and rings.
        if self.receiver.is_empty() {
            let whole_ms = longest.map(|longest| i32::try_from(longest.as_millis()).unwrap_or(i32::MAX));
            let timeout =
                whole_ms.map_or(EpollTimeout::NONE, |ms| EpollTimeout::try_from(ms).unwrap_or(EpollTimeout::MAX));
            let mut events = [EpollEvent::empty(); 16];
            // An interruption is as good as a letter that is not there.
            let _ = self.epoll.wait(&mut events, timeout);
        }
        self.bell.sleeps.store(false, Ordering::SeqCst);
    }

    /// A letter, if there is one.
    pub fn take(&self) -> Option<Letter> {
        self.receiver.try_recv().ok()
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
