//! What every request has at hand: the way to the supervisor's loop, to the store's readers, and the rules.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use futures_util::stream::Stream;
use serde::Serialize;
use tokio::sync::{Semaphore, oneshot, watch};

use super::access::{self, Access, Operation, Peer, Scope};
use super::refusal::Refusal;
use super::{Bridge, Request};
use crate::system::store::StoreReader;

/// Clients that may watch the status or a flush at once; more are refused, so that short requests always get through.
pub(super) const WATCHERS_MAX: usize = 64;

/// Shared by all connections.
pub(super) struct Desk {
    pub(super) bridge: Arc<dyn Bridge>,
    pub(super) access: Access,
    pub(super) message_bytes_max: u64,
    pub(super) next_upload: AtomicU64,
    pub(super) watchers: Arc<Semaphore>,
    /// Turns true when the server stops.
    pub(super) stopping: watch::Receiver<bool>,
}

impl Desk {
    /// Whether the peer may, and with which messages.
    pub(super) fn may(&self, peer: Peer, operation: Operation) -> Result<Scope, Refusal> {
        Ok(access::may(&self.access, peer, operation)?)
    }

    /// Asks the loop and waits for its answer.
    pub(super) async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.bridge.ask(request(answer));
        answered.await.map_err(|_| Refusal::stopping())
    }

    /// Runs a job on a reader's thread and waits for what it gives.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut dyn StoreReader) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.bridge.read(Box::new(move |reader| {
            let _ = answer.send(job(reader));
        }));
        answered.await.map_err(|_| Refusal::stopping())
    }
}

/// Now, milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// One JSON document as a line.
pub(super) fn json_line(value: &impl Serialize, out: &mut Vec<u8>) -> Result<(), Refusal> {
    serde_json::to_writer(&mut *out, value).map_err(|error| Refusal::temporary(error.to_string()))?;
    out.push(b'\n');
    Ok(())
}

/// An answer of JSON lines that is produced while it is read. A refusal in the middle breaks the connection off, which is all that
/// HTTP leaves to say.
pub(super) fn lines_response(lines: impl Stream<Item = Result<Bytes, Refusal>> + Send + 'static) -> Response {
    let lines = lines.map(|line| line.map_err(|refusal| std::io::Error::other(refusal.error.error)));
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}
