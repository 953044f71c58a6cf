//! Requests whose answer goes on: the status table and its changes, and a flush until it is done.
//!
//! A line is taken when the client has room for it, never before. A client that is too slow for all changes gets a new snapshot instead
//! of those that it has missed; nothing queues up for it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Response;
use axum::{Extension, Json};
use futures_util::stream;
use spooler_protocol::control::FlushCommand;
use spooler_protocol::status::StatusTable;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, broadcast, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::access::{Operation, Peer};
use super::body::json;
use super::desk::{Desk, WATCHERS_MAX, json_line, lines_response};
use super::feed::{Line, Subscription};
use super::refusal::Refusal;
use super::{Bridge, Request};

/// The least time between two words about a flush.
const PROGRESS_PAUSE: Duration = Duration::from_millis(50);
/// The most time between two words about a flush.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// `GET /v1/status`
pub(super) async fn status(
    State(desk): State<Arc<Desk>>,
    Extension(peer): Extension<Peer>,
) -> Result<Json<StatusTable>, Refusal> {
    desk.may(peer, Operation::ReadStatus)?;
    Ok(Json(desk.ask(|answer| Request::Status { answer }).await?))
}

/// `GET /v1/status/watch`
pub(super) async fn watch(
    State(desk): State<Arc<Desk>>,
    Extension(peer): Extension<Peer>,
) -> Result<Response, Refusal> {
    desk.may(peer, Operation::ReadStatus)?;
    let watcher = Watcher::new(desk)?;
    Ok(lines_response(stream::unfold(Some((watcher, None)), |state| async {
        let (mut watcher, changes) = state?;
        match watcher.status_line(changes).await {
            Ok(None) => None,
            Ok(Some((line, changes))) => Some((Ok(line), Some((watcher, Some(changes))))),
            Err(refusal) => Some((Err(refusal), None)),
        }
    })))
}

/// `POST /v1/flush`
pub(super) async fn flush(
    State(desk): State<Arc<Desk>>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Result<Response, Refusal> {
    let command: FlushCommand = json(body).await?;
    desk.may(peer, Operation::Flush)?;
    let mut watcher = Watcher::new(Arc::clone(&desk))?;
    // Seen before it begins, so that no change is missed.
    watcher.changes.borrow_and_update();
    let waits = !command.no_wait;
    let number = desk.ask(|answer| Request::FlushBegin { command, answer }).await??;
    let flush = Flush { bridge: Arc::clone(&desk.bridge), number };
    Ok(lines_response(stream::unfold(Some((watcher, flush, true)), move |state| async move {
        let (mut watcher, flush, first) = state?;
        if !first && !watcher.progress_is_due().await {
            return None;
        }
        let asked = watcher.desk.ask(|answer| Request::FlushProgress { flush: flush.number, answer }).await;
        match asked {
            Ok(None) => None,
            Err(refusal) => Some((Err(refusal), None)),
            Ok(Some(progress)) => {
                let mut line = Vec::new();
                let written = json_line(&progress, &mut line).map(|()| Bytes::from(line));
                Some((written, (waits && !progress.done).then_some((watcher, flush, false))))
            }
        }
    })))
}

/// A flush and its client; the supervisor is told when the client has left.
struct Flush {
    bridge: Arc<dyn Bridge>,
    number: u64,
}

impl Drop for Flush {
    fn drop(&mut self) {
        self.bridge.ask(Request::FlushEnd { flush: self.number });
    }
}

/// Changes of the table, as they come.
type Changes = broadcast::Receiver<Arc<Line>>;

/// A client that watches.
struct Watcher {
    desk: Arc<Desk>,
    changes: watch::Receiver<u64>,
    stopping: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

impl Watcher {
    fn new(desk: Arc<Desk>) -> Result<Self, Refusal> {
        let place = Arc::clone(&desk.watchers).try_acquire_owned();
        let place = place.map_err(|_| {
            Refusal::temporary(format!(
                "{WATCHERS_MAX} clients watch already, the most that is allowed; end one of them"
            ))
        })?;
        let (changes, stopping) = (desk.bridge.status_changes(), desk.stopping.clone());
        Ok(Self { desk, changes, stopping, _place: place })
    }

    /// The next line about the table: a snapshot at first and for a client that was too slow, changes otherwise. `None` if there will be
    /// no more.
    async fn status_line(&mut self, changes: Option<Changes>) -> Result<Option<(Bytes, Changes)>, Refusal> {
        if let Some(mut changes) = changes {
            let next = tokio::select! {
                next = changes.recv() => next,
                _ = self.stopping.wait_for(|stop| *stop) => return Ok(None),
            };
            match next {
                Ok(line) => return Ok(Some((line.text()?, changes))),
                Err(RecvError::Closed) => return Ok(None),
                Err(RecvError::Lagged(_)) => {}
            }
        }
        let Subscription { snapshot, changes } = self.desk.ask(|answer| Request::Watch { answer }).await?;
        Ok(Some((snapshot.text()?, changes)))
    }

    /// Waits for a change, but not for long. False if there will be no more.
    async fn progress_is_due(&mut self) -> bool {
        let begun = Instant::now();
        tokio::select! {
            changed = timeout(PROGRESS_EVERY, self.changes.changed()) => {
                if changed.is_ok_and(|changed| changed.is_err()) {
                    return false;
                }
            }
            _ = self.stopping.wait_for(|stop| *stop) => return false,
        }
        sleep_until(begun + PROGRESS_PAUSE).await;
        true
    }
}
