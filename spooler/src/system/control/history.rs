//! Requests about messages that have left the queue.
//!
//! A store reader looks at a page of the history for each piece of the answer and is free again in between: neither a slow client nor a
//! filter that matches little holds it.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::{Extension, Json};
use futures_util::stream;
use spooler_protocol::history::{Finished, HistoryFilter};

use super::access::{Operation, Peer};
use super::desk::{Desk, json_line, lines_response};
use super::queue::{number, unknown};
use super::refusal::Refusal;

/// How far a listing is.
struct Listing {
    desk: Arc<Desk>,
    filter: HistoryFilter,
    owner_uid: Option<u32>,
    /// Behind the next page; `None` after the last one.
    before: Option<u64>,
    left: u64,
}

impl Listing {
    /// The lines of the next page that has any; `None` after the last one.
    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        while let Some(before) = self.before.filter(|_| self.left > 0) {
            let (filter, owner_uid) = (self.filter.clone(), self.owner_uid);
            let page = self.desk.read(move |reader| reader.history(&filter, owner_uid, before)).await??;
            self.before = page.next;
            let most = usize::try_from(self.left).unwrap_or(usize::MAX);
            let mut lines = Vec::new();
            for finished in page.found.iter().take(most) {
                json_line(finished, &mut lines)?;
                self.left -= 1;
            }
            if !lines.is_empty() {
                return Ok(Some(Bytes::from(lines)));
            }
        }
        Ok(None)
    }
}

/// `GET /v1/history`
pub(super) async fn list(
    State(desk): State<Arc<Desk>>,
    Extension(peer): Extension<Peer>,
    filter: Result<Query<HistoryFilter>, QueryRejection>,
) -> Result<Response, Refusal> {
    let scope = desk.may(peer, Operation::ReadQueue)?;
    let Query(filter) = filter.map_err(|rejection| Refusal::malformed(rejection.body_text()))?;
    let left = filter.limit.unwrap_or(u64::MAX);
    let mut listing = Listing { desk, filter, owner_uid: scope.owner(), before: Some(u64::MAX), left };
    // The first page decides between an answer and a refusal.
    let first = listing.next().await?;
    Ok(lines_response(stream::try_unfold((first, listing), |(ready, mut listing)| async move {
        let lines = match ready {
            Some(lines) => Some(lines),
            None => listing.next().await?,
        };
        Ok(lines.map(|lines| (lines, (None, listing))))
    })))
}

/// `GET /v1/history/ID`
pub(super) async fn detail(
    State(desk): State<Arc<Desk>>,
    Extension(peer): Extension<Peer>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Finished>, Refusal> {
    let scope = desk.may(peer, Operation::ReadQueue)?;
    let id = number(&id?.0)?;
    let owner_uid = scope.owner();
    let found = desk.read(move |reader| reader.finished(id, owner_uid)).await??;
    found.map(Json).ok_or_else(|| unknown(id))
}
