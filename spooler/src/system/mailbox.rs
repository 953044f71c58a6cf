//! What the loop sleeps on: letters from the other threads, and the sockets of the workers.
//!
//! Letters are few and come through one channel. What workers say is not put into it: the loop is told whose sockets have something, and
//! takes a few words from each in turn. So a worker that floods fills its own socket and holds itself back.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use spooler_protocol::aliases::{AliasFile, AliasesRead};
use spooler_protocol::ids::Generation;
use tokio::sync::oneshot;

use crate::config::{AliasSources, Config};
use crate::policy::ProviderId;
use crate::policy::addressing::aliases::Aliases;
use crate::supervisor::event::{Event, WorkerEnd, WorkerId};
use crate::system::control::Request;
use crate::system::words::Words;
use crate::system::worker_link::Link;

/// The bell's name among the sockets.
const BELL: u64 = u64::MAX;
/// Sockets that one call tells of; the others are told of by the next.
const SOCKETS_A_CALL: usize = 64;

/// What comes into the loop.
pub enum Letter {
    /// For the supervisor as it is.
    Event(Event),
    /// Several of the same kind, so that a commit wakes the loop once.
    Events(Vec<Event>),
    /// Enough is done of what a worker said that it may be heard again.
    Settled(WorkerId),
    /// A worker has said hello, or will not.
    Hello(WorkerId, Result<(Link, Words), String>),
    /// A worker's process has ended.
    Ended(WorkerId, WorkerEnd),
    /// A worker's priority could not be set a moment ago.
    PriorityAgain(WorkerId),
    /// A client asks.
    Asked(Request),
    /// A person wants the configuration read again.
    Reload,
    /// A new, good configuration, and the number of its reading.
    Reloaded(u64, Box<Config>),
    /// Files of aliases were read again: where they come from, they, how each file was, and where that is to be told.
    AliasesRead(Box<AliasNews>),
}

/// Aliases that were read again.
#[derive(Debug)]
pub struct AliasNews {
    /// Where they come from.
    pub sources: AliasSources,
    /// They.
    pub aliases: Aliases,
    /// How each file was.
    pub files: Vec<AliasFile>,
    /// Where that is to be told.
    pub answer: oneshot::Sender<AliasesRead>,
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
        epoll.add(&event, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, BELL))?;
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
    /// From now on it is told when this socket of a worker has something.
    ///
    /// # Errors
    /// What the system says.
    pub fn watch(&self, worker: WorkerId, socket: impl AsFd) -> io::Result<()> {
        Ok(self.epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, key(worker)))?)
    }

    /// Nothing is told of what this socket has, until it is changed back.
    pub fn set_deaf(&self, worker: WorkerId, socket: impl AsFd, deaf: bool) {
        // One whose other end is gone is told of as long as it is watched at all, whatever is asked for.
        let _ = if deaf {
            self.epoll.delete(socket)
        } else {
            self.epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, key(worker)))
        };
    }

    /// Nothing is to be heard of this socket any more.
    pub fn forget(&self, socket: impl AsFd) {
        let _ = self.epoll.delete(socket);
    }

    /// Sleeps until there is a letter, or something in a socket, or so long; for ever without an end. Tells whose sockets have
    /// something.
    pub fn wait(&self, longest: Option<Duration>) -> Vec<WorkerId> {
        self.bell.sleeps.store(true, Ordering::SeqCst);
        // A letter that came before is found here; one that comes later finds the flag, and rings.
        let longest = if self.receiver.is_empty() { longest } else { Some(Duration::ZERO) };
        let whole_ms = longest.map(|longest| i32::try_from(longest.as_micros().div_ceil(1000)).unwrap_or(i32::MAX));
        let timeout = whole_ms.map_or(EpollTimeout::NONE, |ms| EpollTimeout::try_from(ms).unwrap_or(EpollTimeout::MAX));
        let mut events = [EpollEvent::empty(); SOCKETS_A_CALL];
        // An interruption is as good as a letter that is not there.
        let count = self.epoll.wait(&mut events, timeout).unwrap_or_default();
        self.bell.sleeps.store(false, Ordering::SeqCst);
        events.iter().take(count).map(EpollEvent::data).filter(|key| *key != BELL).map(worker).collect()
    }

    /// A letter, if there is one.
    pub fn take(&self) -> Option<Letter> {
        self.receiver.try_recv().ok()
    }
}

/// A worker as a number. Generations count the starts of one provider: they never come near 2^32.
fn key(worker: WorkerId) -> u64 {
    u64::from(worker.provider.0) << 32 | worker.generation.0 & 0xffff_ffff
}

fn worker(key: u64) -> WorkerId {
    let provider = u32::try_from(key >> 32).unwrap_or_default();
    WorkerId { provider: ProviderId(provider), generation: Generation(key & 0xffff_ffff) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn a_letter_wakes_who_sleeps() {
        let (mailbox, letters) = Mailbox::new().unwrap();
        let sleeps = letters.bell.clone();
        let putter = std::thread::spawn(move || {
            while !sleeps.sleeps.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            mailbox.put(Letter::Reload);
        });
        assert_eq!(letters.wait(None), []);
        assert!(matches!(letters.take(), Some(Letter::Reload)));
        assert!(letters.take().is_none());
        putter.join().unwrap();
    }

    #[test]
    fn a_letter_that_is_there_is_not_slept_over_and_sockets_are_seen_beside_it() {
        let (mailbox, letters) = Mailbox::new().unwrap();
        let names = [(7, 1), (u32::MAX, 3)].map(|(provider, generation)| WorkerId {
            provider: ProviderId(provider),
            generation: Generation(generation),
        });
        let pairs = names.map(|name| {
            let (ours, theirs) = pair();
            letters.watch(name, &ours).unwrap();
            (ours, theirs)
        });
        mailbox.put(Letter::Reload);
        assert_eq!(letters.wait(None), []);
        for (_, theirs) in &pairs {
            send(theirs, b"word", SendFlags::empty()).unwrap();
        }
        let mut told = letters.wait(None);
        told.sort();
        assert_eq!(told, names, "told of both");
        let [(first, _), (second, _)] = &pairs;
        recv(first, &mut [0_u8; 8], RecvFlags::empty()).unwrap();
        assert_eq!(letters.wait(None), names[1..], "told again of the one that was not read");
        letters.forget(second);
        assert_eq!(letters.wait(Some(Duration::ZERO)), []);
    }
}
