//! Errors of the control plane as problem documents (RFC 9457).

use std::any::Any;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::directory::DirectoryError;
use crate::journal::Full;

/// An answer that is not the one that was asked for. `detail` says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: StatusCode,
    /// The word that programs go by.
    pub code: &'static str,
    /// The words for people.
    pub detail: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into() }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", detail)
    }

    pub(super) fn missing(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    pub(super) fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    pub(super) fn unavailable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
    }

    /// A revocation that is in force and on no disk.
    pub(super) fn revoked_unrecorded(full: Full) -> Self {
        let detail =
            format!("{full}. It is revoked here until a restart: try again until this works");
        Self::unavailable("accounting_unavailable", detail)
    }

    pub(super) fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }
}

impl From<Full> for Problem {
    fn from(full: Full) -> Self {
        Self::unavailable("accounting_unavailable", full.to_string())
    }
}

impl From<DirectoryError> for Problem {
    fn from(error: DirectoryError) -> Self {
        match error {
            DirectoryError::Unavailable(_) => {
                Self::unavailable("postgres_unavailable", error.to_string())
            }
            DirectoryError::NotFound => Self::conflict("not_in_postgres", error.to_string()),
            DirectoryError::InUse(_) => Self::conflict("policy_in_use", error.to_string()),
            DirectoryError::Other(_) => Self::internal(error.to_string()),
        }
    }
}

impl Problem {
    /// Why Postgres did not do it; where it is only away, with what works without it.
    pub(super) fn from_directory(error: DirectoryError, otherwise: &str) -> Self {
        let away = matches!(error, DirectoryError::Unavailable(_));
        let mut problem = Self::from(error);
        if away {
            problem.detail = format!("{}; {otherwise}", problem.detail);
        }
        problem
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
        });
        let mut response = (self.status, Json(document)).into_response();
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"gatepost admin\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

pub(super) async fn not_found() -> Problem {
    Problem::missing("there is nothing at this path; the admin API is below /admin/v1")
}

pub(super) async fn method_not_allowed() -> Problem {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    Problem::new(status, "method_not_allowed", "this path does not take this method")
}

/// The panic hook has told the log; the caller learns only that it was our fault.
pub(super) fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    Problem::internal("the gateway failed on this request; its log says why").into_response()
}
