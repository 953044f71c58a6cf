//! Requests about providers.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use spooler_protocol::control::ProviderCommand;

use super::Request;
use super::access::{Operation, Peer};
use super::body::json;
use super::desk::Desk;
use super::refusal::Refusal;

/// `POST /v1/providers/NAME/do`
pub(super) async fn act(
    State(desk): State<Arc<Desk>>,
    Extension(peer): Extension<Peer>,
    name: Result<Path<String>, PathRejection>,
    body: Body,
) -> Result<Json<serde_json::Value>, Refusal> {
    let Path(name) = name?;
    let ProviderCommand { action } = json(body).await?;
    desk.may(peer, Operation::ChangeProvider)?;
    desk.ask(|answer| Request::Provider { name, action, answer }).await??;
    Ok(Json(serde_json::json!({})))
}
