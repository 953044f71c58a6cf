//! Requests about providers.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use spooler_protocol::control::{
    LogonCommand, LogonState, ProviderCommand, ProviderDetail, ValidateCommand, Validated,
};

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
    let command: ProviderCommand = json(body).await?;
    desk.may(peer, Operation::ChangeProvider)?;
    desk.ask(|answer| Request::Provider { name, command, answer }).await??;
    Ok(Json(serde_json::json!({})))
}

/// `GET /v1/providers/NAME`
pub(super) async fn detail(
    State(desk): State<Arc<Desk>>,
    Extension(peer): Extension<Peer>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<ProviderDetail>, Refusal> {
    let Path(name) = name?;
    desk.may(peer, Operation::ReadStatus)?;
    Ok(Json(desk.ask(|answer| Request::ProviderDetail { name, answer }).await??))
}

/// `POST /v1/providers/NAME/logon`
pub(super) async fn log_on(
    State(desk): State<Arc<Desk>>,
    Extension(peer): Extension<Peer>,
    name: Result<Path<String>, PathRejection>,
    body: Body,
) -> Result<Json<LogonState>, Refusal> {
    let Path(name) = name?;
    let command: LogonCommand = json(body).await?;
    desk.may(peer, Operation::ChangeProvider)?;
    Ok(Json(desk.ask(|answer| Request::Logon { name, command, answer }).await??))
}

/// `POST /v1/validate`
pub(super) async fn validate_all(
    State(desk): State<Arc<Desk>>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Result<Json<Vec<Validated>>, Refusal> {
    let ValidateCommand { flags } = json(body).await?;
    desk.may(peer, Operation::ChangeProvider)?;
    Ok(Json(desk.ask(|answer| Request::ValidateAll { flags, answer }).await?))
}
