//! A refusal as OAuth libraries read it (RFC 6749 §5.2): `error` is one of the words of the
//! specifications, and a token that is not good is a 400.

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::response::Response;

use super::{Code, NO_STORE, Refusal};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"gatepost\"");

impl Refusal {
    /// The word of RFC 6749 §5.2, RFC 7009 §2.2.1 or RFC 6750 §3.1, and the status.
    pub(super) fn oauth(&self) -> (&'static str, u16) {
        let (word, status, ..) = self.code.kind();
        match (self.code, status) {
            (Code::InvalidGrant, _) => (word, 400),
            (Code::ClientDisabled, _) => ("unauthorized_client", 400),
            (_, 401) => ("invalid_client", 401),
            (_, 503) => ("temporarily_unavailable", 503),
            (Code::Internal, _) => ("server_error", 500),
            (
                Code::InsufficientScope
                | Code::UnsupportedTokenType
                | Code::UnsupportedGrantType
                | Code::InvalidScope
                | Code::UnauthorizedClient,
                _,
            ) => (word, status),
            _ => ("invalid_request", status),
        }
    }

    /// The same as [`Refusal::render`], for the endpoints that OAuth libraries call.
    pub fn render_for_oauth(&self) -> Response {
        let (error, status) = self.oauth();
        let (.., detail) = self.code.kind();
        let detail = self.detail.as_deref().unwrap_or(detail);
        let document = serde_json::json!({ "error": error, "error_description": detail });
        let mut response = Response::new(Body::from(document.to_string()));
        *response.status_mut() =
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(CACHE_CONTROL, NO_STORE);
        if status == 401 {
            headers.insert(WWW_AUTHENTICATE, BASIC);
        } else if let Some(challenge) = self.code.challenge().filter(|_| status == 403) {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if let Some(methods) = self.code.allowed() {
            headers.insert(ALLOW, methods);
        }
        self.tell_when(headers, RETRY_AFTER);
        response
    }
}
