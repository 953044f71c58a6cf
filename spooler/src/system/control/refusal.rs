//! Refusals as clients see them: an HTTP status and an [`ApiError`].

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use spooler_protocol::control::ApiError;
use spooler_protocol::plain::plain;

use super::access::Denied;
use crate::system::store::StoreError;

/// A request was refused.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) error: ApiError,
}

impl Refusal {
    /// For good; `status` says whose fault it is.
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: ApiError { error: plain(error.into()), temporary: false } }
    }

    /// Later may be better.
    pub(super) fn temporary(error: impl Into<String>) -> Self {
        let error = ApiError { error: plain(error.into()), temporary: true };
        Self { status: StatusCode::SERVICE_UNAVAILABLE, error }
    }

    /// The request cannot be understood.
    pub(super) fn malformed(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    pub(super) fn too_large(error: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, error)
    }

    pub(super) fn not_found(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error)
    }

    /// An answer never came.
    pub(super) fn stopping() -> Self {
        Self::temporary("The spooler is stopping; try again when it runs")
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        Self::new(StatusCode::FORBIDDEN, denied.to_string())
    }
}

impl From<PathRejection> for Refusal {
    fn from(rejection: PathRejection) -> Self {
        Self::malformed(rejection.body_text())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "a request on the control socket failed in the store");
        Self::temporary(error.to_string())
    }
}

impl From<ApiError> for Refusal {
    /// What the supervisor refuses: the request was understood.
    fn from(error: ApiError) -> Self {
        let status = if error.temporary { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::UNPROCESSABLE_ENTITY };
        Self { status, error }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self.error)).into_response()
    }
}
