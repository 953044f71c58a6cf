//! Who is served: a bounded number of connections, shared out fairly among users, so that no user's flood keeps others out.
//!
//! ```text
//!   accepted ──▶ a place is free, or becomes free ──▶ served ──▶ answered
//!      │ too many wait        │ none within PATIENCE     │ its place goes to somebody else before its request is complete
//!      ▼                      ▼                          ▼
//!     503                    503                        408
//! ```
//!
//! A client that waits for us (its request is complete) keeps its place; one for whose request we wait may lose it, see
//! `spooler_protocol::places`.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::HttpBody;
use hyper::body::{Bytes, Frame, Incoming, SizeHint};
use spooler_protocol::places::{Entry, Places, Ticket};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep};

/// Connections served at once.
const PLACES: usize = 256;
/// Of these, those of one user.
const SHARE: usize = 128;
/// Connections that may wait for a place.
const WAITING_MAX: usize = 128;
/// How long they may.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often they look.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// So many bytes of a request are progress.
const PROGRESS_BYTES: usize = 4096;

/// All places.
pub(super) struct Hall {
    books: Mutex<Books>,
    waiting: Semaphore,
    begun: Instant,
}

struct Books {
    places: Places<u32>,
    /// Whom to tell that its place is somebody else's.
    holders: HashMap<Ticket, Arc<Notify>>,
}

/// The place of one connection, free again when this is dropped.
pub(super) struct Place {
    hall: Arc<Hall>,
    ticket: Ticket,
    displaced: Arc<Notify>,
}

impl Hall {
    /// All places, free.
    pub(super) fn new() -> Arc<Self> {
        let books = Books { places: Places::new(PLACES, SHARE), holders: HashMap::new() };
        Arc::new(Self { books: Mutex::new(books), waiting: Semaphore::new(WAITING_MAX), begun: Instant::now() })
    }

    /// A place for a connection of a user, as soon as there is one; `None` if there is none for too long.
    pub(super) async fn enter(self: &Arc<Self>, uid: u32) -> Option<Place> {
        if let Some(place) = self.enter_at_once(uid) {
            return Some(place);
        }
        let _waits = self.waiting.try_acquire().ok()?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            sleep(LOOK_EVERY).await;
            if let Some(place) = self.enter_at_once(uid) {
                return Some(place);
            }
        }
        None
    }

    fn enter_at_once(self: &Arc<Self>, uid: u32) -> Option<Place> {
        let now_ms = self.now_ms();
        let mut books = self.books();
        let ticket = match books.places.enter(&uid, now_ms) {
            Entry::Free(ticket) => ticket,
            Entry::InPlaceOf(ticket, leaving) => {
                if let Some(displaced) = books.holders.remove(&leaving) {
                    displaced.notify_one();
                }
                ticket
            }
            Entry::ShareIsUsedUp | Entry::Full => return None,
        };
        let displaced = Arc::<Notify>::default();
        books.holders.insert(ticket, Arc::clone(&displaced));
        drop(books);
        Some(Place { hall: Arc::clone(self), ticket, displaced })
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.begun.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Nothing panics half-way through a change.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until it is somebody else's.
    pub(super) async fn lost(&self) {
        self.displaced.notified().await;
    }

    fn progress(&self) {
        let now_ms = self.hall.now_ms();
        self.hall.books().places.progress(self.ticket, now_ms);
    }

    fn busy(&self) {
        self.hall.books().places.busy(self.ticket);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut books = self.hall.books();
        books.places.leave(self.ticket);
        books.holders.remove(&self.ticket);
    }
}

/// The body of a request on its way in: what comes is progress, and at its end the client waits for us.
pub(super) struct Coming {
    body: Incoming,
    place: Arc<Place>,
    unnoted: usize,
}

impl Coming {
    pub(super) fn new(body: Incoming, place: Arc<Place>) -> Self {
        if body.is_end_stream() {
            place.busy();
        }
        Self { body, place, unnoted: 0 }
    }
}

impl HttpBody for Coming {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            self.unnoted += frame.data_ref().map_or(0, Bytes::len);
        }
        if frame.is_none() || self.body.is_end_stream() {
            self.place.busy();
        } else if self.unnoted >= PROGRESS_BYTES {
            self.unnoted = 0;
            self.place.progress();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_newcomer_waits_a_little_and_the_idle_one_is_told() {
        let hall = Hall::new();
        let mut places = Vec::new();
        for _ in 0..SHARE {
            places.push(hall.enter(1).await.unwrap());
        }
        places.iter().skip(1).for_each(Place::busy);
        assert!(hall.enter_at_once(1).is_none(), "a moment is not idle");
        assert!(hall.enter_at_once(2).is_some(), "another user");
        let newcomer = hall.enter(1).await.unwrap();
        places[0].lost().await;
        newcomer.busy();
        assert!(hall.enter_at_once(1).is_none(), "all others are being served");
        places.pop();
        assert!(hall.enter_at_once(1).is_some());
    }
}
