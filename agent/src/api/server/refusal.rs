//! Every answer that is not 2xx.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::super::types::{ApiError, Caller};

/// An [`ApiError`] with the HTTP status it goes out under.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    error: ApiError,
}

impl Refusal {
    /// The request is not one: 400, or a more exact status.
    pub fn bad_request(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: ApiError { kind: "bad-request".to_owned(), error: error.into() } }
    }

    /// Nothing is there, or nothing that the caller may see.
    pub fn not_found(error: impl Into<String>) -> Self {
        ApiError { kind: "not-found".to_owned(), error: error.into() }.into()
    }

    /// `caller` may not do `what` (a phrase that follows "may").
    pub fn forbidden(caller: Caller, what: &str) -> Self {
        let error =
            format!("uid {} may not {what}: only root and members of group t3pin may. Use sudo, or ask an operator.", caller.uid);
        ApiError { kind: "forbidden".to_owned(), error }.into()
    }

    /// The agent itself failed at it.
    pub fn internal(error: impl Into<String>) -> Self {
        ApiError { kind: "internal".to_owned(), error: error.into() }.into()
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        let status = match error.kind.as_str() {
            "forbidden" => StatusCode::FORBIDDEN,
            "not-found" => StatusCode::NOT_FOUND,
            "bad-request" => StatusCode::BAD_REQUEST,
            "busy" => StatusCode::CONFLICT,
            "deferred" => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, error }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self.error)).into_response()
    }
}
