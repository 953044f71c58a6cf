//! Requests about aliases.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::{Extension, Json};
use spooler_protocol::aliases::{AliasQuestion, AliasStep, AliasesRead};

use super::Request;
use super::access::{Operation, Peer};
use super::body::json;
use super::desk::Desk;
use super::refusal::Refusal;

/// Steps that an answer shows.
const STEPS_MAX: usize = 10_000;

/// `POST /v1/aliases/way`
pub(super) async fn way(
    State(desk): State<Arc<Desk>>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Result<Json<Vec<AliasStep>>, Refusal> {
    desk.may(peer, Operation::ReadStatus)?;
    let AliasQuestion { name } = json(body).await?;
    let addressing = desk.bridge.addressing();
    let steps = addressing.aliases.trace(&name, &addressing).into_iter().take(STEPS_MAX);
    let step = |step: crate::policy::addressing::aliases::Step| AliasStep {
        depth: step.depth,
        address: step.address,
        written: step.written,
        circle: step.circle,
    };
    Ok(Json(steps.map(step).collect()))
}

/// `POST /v1/aliases/read`
pub(super) async fn read(
    State(desk): State<Arc<Desk>>,
    Extension(peer): Extension<Peer>,
) -> Result<Json<AliasesRead>, Refusal> {
    desk.may(peer, Operation::ReadAliases)?;
    Ok(Json(desk.ask(|answer| Request::ReadAliases { answer }).await?))
}
