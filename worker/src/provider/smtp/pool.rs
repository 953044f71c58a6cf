//! Sessions that wait for the next message to the same destination.
//!
//! The one that waited least is taken first, so that those too many grow old; a task of its own says QUIT to the old ones, and
//! lives only as long as there are sessions to watch.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::connection::Connection;
use crate::support::Support;

/// How long a server may take for the reply to QUIT.
const QUIT_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Idle {
    connection: Connection,
    until: Instant,
}

/// Sessions by destination.
#[derive(Debug)]
pub(super) struct Pool {
    idle: RefCell<HashMap<Box<str>, Vec<Idle>>>,
    watched: Cell<bool>,
    keep: Duration,
    messages_max: u32,
    support: Support,
}

impl Pool {
    /// Keeps a session for so long, and until it has taken so many messages.
    pub(super) fn new(keep: Duration, messages_max: u32, support: Support) -> Rc<Self> {
        let (idle, watched) = (RefCell::default(), Cell::new(false));
        Rc::new(Self { idle, watched, keep, messages_max, support })
    }

    /// A session with the destination, if one waits that still seems good.
    pub(super) fn take(&self, destination: &str) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let waiting = idle.get_mut(destination)?;
        let now = Instant::now();
        while let Some(Idle { mut connection, until }) = waiting.pop() {
            if until > now && connection.wire.is_quiet() {
                connection.reused = true;
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a session, or ends it if it has served long enough.
    pub(super) fn put(self: &Rc<Self>, destination: &str, connection: Connection) {
        if self.keep.is_zero() || connection.served >= self.messages_max {
            self.support.spawn(connection.wire.quit(QUIT_TIMEOUT));
            return;
        }
        let entry = Idle { connection, until: Instant::now() + self.keep };
        let mut idle = self.idle.borrow_mut();
        match idle.get_mut(destination) {
            Some(waiting) => waiting.push(entry),
            None => {
                idle.insert(destination.into(), vec![entry]);
            }
        }
        if !self.watched.replace(true) {
            self.support.spawn(Rc::clone(self).watch());
        }
    }

    /// Ends all sessions, politely.
    pub(super) async fn close(&self) {
        let all = std::mem::take(&mut *self.idle.borrow_mut());
        let goodbyes = all.into_values().flatten().map(|idle| idle.connection.wire.quit(QUIT_TIMEOUT));
        futures_util::future::join_all(goodbyes).await;
    }

    async fn watch(self: Rc<Self>) {
        while let Some(next) = self.first_to_go() {
            sleep_until(next).await;
            for old in self.take_old(Instant::now()) {
                self.support.spawn(old.wire.quit(QUIT_TIMEOUT));
            }
        }
        self.watched.set(false);
    }

    fn first_to_go(&self) -> Option<Instant> {
        self.idle.borrow().values().flatten().map(|idle| idle.until).min()
    }

    fn take_old(&self, now: Instant) -> Vec<Connection> {
        let mut old = Vec::new();
        self.idle.borrow_mut().retain(|_, waiting| {
            let gone = waiting.extract_if(.., |idle| idle.until <= now);
            old.extend(gone.map(|idle| idle.connection));
            !waiting.is_empty()
        });
        old
    }
}
