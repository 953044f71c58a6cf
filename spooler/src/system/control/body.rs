//! A request's body as JSON, whatever content type it came with: `curl -d` works as it is.

use std::time::Duration;

use axum::body::Body;
use http_body_util::{BodyExt, Limited};
use serde::de::DeserializeOwned;
use spooler_protocol::limits::ENVELOPE_LINE_BYTES_MAX;
use tokio::time::timeout;

use super::refusal::Refusal;

/// How long a command may take to come in.
const COMMAND_MAX: Duration = Duration::from_secs(30);

/// Reads the whole body.
pub(super) async fn json<T: DeserializeOwned>(body: Body) -> Result<T, Refusal> {
    let collected = timeout(COMMAND_MAX, Limited::new(body, ENVELOPE_LINE_BYTES_MAX).collect()).await;
    let body = collected
        .map_err(|_| Refusal::malformed("The command did not come in time"))?
        .map_err(|error| Refusal::malformed(format!("The command cannot be read: {error}")))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| Refusal::malformed(format!("Not a command: {error}")))
}
