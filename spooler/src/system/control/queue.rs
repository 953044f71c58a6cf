//! Requests about messages of the queue: see, and do something with them.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::stream;
use spooler_protocol::control::{Filter, MessageDetail, QueueCommand, QueueCount, QueueDone};
use spooler_protocol::ids::MessageId;
use spooler_protocol::status::SupervisorRow;

use super::Request;
use super::access::{Operation, Peer, Scope};
use super::body::json;
use super::desk::{Desk, json_line, lines_response, now_ms};
use super::listing::{self, Batches};
use super::refusal::Refusal;
use crate::system::store::{StoreError, StoreReader};

/// Messages of one [`Request::Queue`], so that a command on the whole queue does not hold up the loop.
const COMMAND_BATCH: usize = 1000;
/// Refusals, and numbers of messages, that an answer lists.
const REFUSALS_MAX: usize = 1000;
/// Bytes of one piece of a content.
const PIECE_BYTES: usize = 256 * 1024;

/// `GET /v1/messages`
pub(super) async fn list(
    State(desk): State<Arc<Desk>>,
    Extension(peer): Extension<Peer>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, Refusal> {
    let scope = desk.may(peer, Operation::ReadQueue)?;
    let Query(filter) = filter.map_err(|rejection| Refusal::malformed(rejection.body_text()))?;
    numbers(&filter)?;
    let mut batches = listing::list(&desk, filter, scope);
    // The first batch decides between an answer and a refusal.
    let first = batches.recv().await.transpose()?;
    Ok(lines_response(stream::unfold((first, batches), |(ready, mut batches): (Option<_>, Batches)| async move {
        let batch = match ready {
            Some(batch) => Ok(batch),
            None => batches.recv().await?,
        };
        let lines = batch.and_then(|batch| {
            let mut out = Vec::new();
            batch.iter().try_for_each(|summary| json_line(summary, &mut out))?;
            Ok(Bytes::from(out))
        });
        Some((lines, (None, batches)))
    })))
}

/// The numbers that a filter names, if it names any.
fn numbers(filter: &Filter) -> Result<Option<Vec<MessageId>>, Refusal> {
    let Some(text) = &filter.ids else { return Ok(None) };
    let parsed: Result<Vec<MessageId>, Refusal> = text.split(',').map(number).collect();
    parsed.map(Some)
}

pub(super) fn number(text: &str) -> Result<MessageId, Refusal> {
    let parsed = text.trim().parse();
    parsed.map(MessageId).map_err(|_| Refusal::malformed(format!("{text:?} is not the number of a message")))
}

/// `GET /v1/messages/ID`
pub(super) async fn detail(
    State(desk): State<Arc<Desk>>,
    Extension(peer): Extension<Peer>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<MessageDetail>, Refusal> {
    let scope = desk.may(peer, Operation::ReadQueue)?;
    let id = number(&id?.0)?;
    let mut detail = stored(&desk, id, scope).await?;
    let summaries = vec![detail.summary];
    let mut laid_over = desk.ask(|answer| Request::Overlay { summaries, provider: None, answer }).await?;
    detail.summary = laid_over.pop().ok_or_else(|| unknown(id))?;
    Ok(Json(detail))
}

pub(super) fn unknown(id: MessageId) -> Refusal {
    Refusal::not_found(format!("{id}: there is no such message"))
}

/// What the store knows of a message; somebody else's is as good as none.
async fn stored(desk: &Desk, id: MessageId, scope: Scope) -> Result<MessageDetail, Refusal> {
    let (detail, owner) = desk.read(move |reader| reader.detail(id, now_ms())).await??.ok_or_else(|| unknown(id))?;
    match scope {
        Scope::OwnedBy(uid) if owner != Some(uid) => Err(unknown(id)),
        Scope::All | Scope::OwnedBy(_) => Ok(detail),
    }
}

/// `GET /v1/messages/count`
pub(super) async fn count(
    State(desk): State<Arc<Desk>>,
    Extension(peer): Extension<Peer>,
) -> Result<Json<QueueCount>, Refusal> {
    desk.may(peer, Operation::ReadStatus)?;
    let all_visible = desk.may(peer, Operation::ReadQueue)? == Scope::All;
    let table = desk.ask(|answer| Request::Status { answer }).await?.supervisor;
    let oldest_ms = desk.read(oldest).await??;
    let SupervisorRow { queued: total, ready, in_flight, deferred, held, quarantined, .. } = table;
    Ok(Json(QueueCount { total, ready, in_flight, deferred, held, quarantined, oldest_ms, all_visible }))
}

/// When the oldest message was accepted.
fn oldest(reader: &mut dyn StoreReader) -> Result<Option<i64>, StoreError> {
    let (filter, mut found) = (Filter { limit: Some(1), ..Filter::default() }, None);
    reader.list(&filter, now_ms(), None, &mut |summary| {
        found = Some(summary.submitted_ms);
        ControlFlow::Break(())
    })?;
    Ok(found)
}

/// `GET /v1/messages/ID/content`
pub(super) async fn content(
    State(desk): State<Arc<Desk>>,
    Extension(peer): Extension<Peer>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let scope = desk.may(peer, Operation::ReadContent)?;
    let id = number(&id?.0)?;
    let size = stored(&desk, id, scope).await?.summary.size;
    let pieces = stream::try_unfold((desk, 0), move |(desk, offset)| async move {
        if offset >= size {
            return Ok(None);
        }
        let piece = desk.read(move |reader| reader.content(id, offset, PIECE_BYTES)).await.map_err(broken)?;
        let piece = piece.map_err(|error| broken(error.into()))?;
        let next = offset + piece.len() as u64;
        if piece.is_empty() {
            return Err(std::io::Error::other(format!("the content of {id} is shorter than it was")));
        }
        Ok(Some((piece, (desk, next))))
    });
    Ok(([(CONTENT_TYPE, "message/rfc822")], Body::from_stream(pieces)).into_response())
}

fn broken(refusal: Refusal) -> std::io::Error {
    std::io::Error::other(refusal.error.error)
}

/// `POST /v1/messages/do`
pub(super) async fn act(
    State(desk): State<Arc<Desk>>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Result<Json<QueueDone>, Refusal> {
    let QueueCommand { action, filter } = json(body).await?;
    let scope = desk.may(peer, Operation::ChangeQueue(action))?;
    let asked_for = numbers(&filter)?;
    let mut found = Vec::new();
    let mut batches = listing::list(&desk, filter, scope);
    while let Some(batch) = batches.recv().await {
        found.extend(batch?.iter().map(|summary| summary.id));
    }
    let mut done = QueueDone { refused: missing(asked_for.unwrap_or_default(), &found), ..QueueDone::default() };
    for ids in found.chunks(COMMAND_BATCH) {
        let ids = ids.to_vec();
        let part = desk.ask(|answer| Request::Queue { action, ids, uid: peer.uid, answer }).await??;
        done.done += part.done;
        let room = REFUSALS_MAX.saturating_sub(done.ids.len());
        done.ids.extend(part.ids.into_iter().take(room));
        let room = REFUSALS_MAX.saturating_sub(done.refused.len());
        done.refused.extend(part.refused.into_iter().take(room));
    }
    Ok(Json(done))
}

fn missing(asked_for: Vec<MessageId>, found: &[MessageId]) -> Vec<String> {
    let found: HashSet<&MessageId> = found.iter().collect();
    let absent = asked_for.iter().filter(|id| !found.contains(id));
    absent.take(REFUSALS_MAX).map(|id| format!("{id}: no such message, or the filter excludes it")).collect()
}
