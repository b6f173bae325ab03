//! The one place where errors become HTTP: problem documents (RFC 9457) with a stable `code`.
//!
//! Every document of a code is the same, byte for byte: an unknown, a malformed and a wrong key
//! cannot be told apart, nor a valid session from an invalid one. The request's id is in its header
//! only. The OAuth endpoints say the same in the words of RFC 6749 §5.2.

mod from;
mod oauth;
mod upstream;

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{
    ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Serialize;

use crate::admission::{Denial, Limited, Report};
use crate::model::Name;
use crate::proxy::Fault;

/// The media type of a problem document.
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
const X_DENY_CODE: HeaderName = HeaderName::from_static("x-gatepost-deny-code");
const X_DENY_STATUS: HeaderName = HeaderName::from_static("x-gatepost-deny-status");
const X_RETRY_AFTER: HeaderName = HeaderName::from_static("x-gatepost-retry-after");

/// Of everything that holds a token, or says why there is none (RFC 6749 §5.1).
pub(super) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// When to come back where nothing better is known.
const DEFAULT_RETRY: Duration = Duration::from_secs(1);

/// Every way in which the data plane can refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Two different credentials.
    AmbiguousCredential,
    /// Not understandable.
    BadRequest,
    /// No credential.
    MissingCredential,
    /// Unknown, malformed or wrong.
    InvalidCredential,
    /// The refresh token is not good, whatever is wrong with it.
    InvalidGrant,
    /// Who calls an OAuth endpoint is not the client that it says it is.
    InvalidClient,
    /// A token of a kind that cannot be revoked.
    UnsupportedTokenType,
    /// A grant that is not offered.
    UnsupportedGrantType,
    /// A scope that was not granted.
    InvalidScope,
    /// The token belongs to another client.
    UnauthorizedClient,
    /// The key's time is over.
    KeyExpired,
    /// The key is revoked.
    KeyRevoked,
    /// The key is switched off.
    KeyDisabled,
    /// A scope is missing.
    InsufficientScope,
    /// The address is not one that the policy accepts.
    IpDenied,
    /// The client is switched off.
    ClientDisabled,
    /// A rate limit is used up.
    RateLimited,
    /// A quota is used up.
    QuotaExceeded,
    /// Too many run at a time.
    ConcurrencyExceeded,
    /// No route.
    NotFound,
    /// The endpoint wants POST.
    MethodNotAllowed,
    /// The endpoint wants GET.
    ReadOnly,
    /// The request's body stood still.
    RequestTimeout,
    /// The request names its target at too great a length.
    TargetTooLong,
    /// The request has too many headers, or too large ones.
    HeadTooLarge,
    /// The request's body is too large.
    BodyTooLarge,
    /// A bug.
    Internal,
    /// A tunnel is asked for with CONNECT.
    ConnectUnsupported,
    /// The request asks to be shown as it arrives.
    TraceUnsupported,
    /// The request has passed here before.
    LoopDetected,
    /// As many tunnels are open as may be.
    TunnelsFull,
    /// The request took longer in all than its route allows.
    TotalTimeout,
    /// No answer from the upstream, for that reason.
    Upstream(Fault),
    /// Nobody can say whether the key exists.
    ValidationUnavailable,
    /// Nobody can say how far the session has come.
    SessionUnavailable,
    /// Another gateway has the session.
    SessionElsewhere,
    /// What is known of the key is too old.
    PolicyUnavailable,
    /// What happens could not be counted.
    AccountingUnavailable,
    /// More runs than may.
    Overloaded,
    /// The gateway is starting or shutting down.
    NotReady,
}

/// What a code says: code, status, title, detail.
type Kind = (&'static str, u16, &'static str, &'static str);

impl Code {
    #[rustfmt::skip]
    fn kind(self) -> Kind {
        match self {
            Self::AmbiguousCredential => ("ambiguous_credential", 400, "Ambiguous credential",
                "The request carries two different credentials. Send one."),
            Self::BadRequest => ("bad_request", 400, "Bad request",
                "The request cannot be understood."),
            Self::MissingCredential => ("missing_credential", 401, "Missing credential",
                "Send an API key as `Authorization: Bearer` or in `X-API-Key`."),
            Self::InvalidCredential => ("invalid_credential", 401, "Invalid credential",
                "The credential is not valid."),
            Self::InvalidGrant => ("invalid_grant", 401, "Invalid grant",
                "The refresh token is not valid any more. Begin a new session."),
            Self::InvalidClient => ("invalid_client", 401, "Invalid client",
                "The client's name or its API key is not valid."),
            Self::UnsupportedTokenType => ("unsupported_token_type", 400, "Unsupported token type",
                "An access token that was made of an API key ends by itself, or with its key."),
            Self::UnsupportedGrantType => ("unsupported_grant_type", 400, "Unsupported grant type",
                "Use `refresh_token` or `client_credentials`."),
            Self::InvalidScope => ("invalid_scope", 400, "Invalid scope",
                "A scope is asked for that was not granted, or that cannot be one."),
            Self::UnauthorizedClient => ("unauthorized_client", 400, "Unauthorized client",
                "The token belongs to another client."),
            Self::KeyExpired => ("key_expired", 401, "Key expired", "The API key has expired."),
            Self::KeyRevoked => ("key_revoked", 401, "Key revoked",
                "The API key has been revoked."),
            Self::KeyDisabled => ("key_disabled", 401, "Key disabled", "The API key is disabled."),
            Self::InsufficientScope => ("insufficient_scope", 403, "Insufficient scope",
                "The API key lacks a scope that this needs."),
            Self::IpDenied => ("ip_denied", 403, "Address denied",
                "The policy does not accept requests from this address."),
            Self::RateLimited => ("rate_limited", 429, "Rate limited",
                "The rate limit is used up. Slow down."),
            Self::QuotaExceeded => ("quota_exceeded", 429, "Quota exceeded",
                "The quota of this period is used up."),
            Self::ConcurrencyExceeded => ("concurrency_exceeded", 429, "Too many at a time",
                "Too many requests run at a time. Wait for one to end."),
            Self::ClientDisabled => ("client_disabled", 403, "Client disabled",
                "The client is disabled."),
            Self::NotFound => ("not_found", 404, "Not found", "No route leads there."),
            Self::MethodNotAllowed => ("method_not_allowed", 405, "Method not allowed",
                "Use POST."),
            Self::ReadOnly => ("method_not_allowed", 405, "Method not allowed", "Use GET."),
            Self::RequestTimeout => ("request_timeout", 408, "Request timeout",
                "The request body stood still for too long."),
            Self::BodyTooLarge => ("body_too_large", 413, "Body too large",
                "The request body is larger than is accepted here."),
            Self::TargetTooLong => ("target_too_long", 414, "Target too long",
                "The request's target is longer than is accepted here."),
            Self::HeadTooLarge => ("head_too_large", 431, "Head too large",
                "The request has more headers, or larger ones, than are accepted here."),
            _ => self.failure(),
        }
    }

    /// The rest of [`Code::kind`]: where the caller is not at fault.
    #[rustfmt::skip]
    fn failure(self) -> Kind {
        match self {
            Self::ConnectUnsupported => ("connect_unsupported", 501, "CONNECT not supported",
                "CONNECT is not forwarded."),
            Self::TraceUnsupported => ("trace_unsupported", 501, "TRACE not supported",
                "TRACE is not forwarded."),
            Self::LoopDetected => ("loop_detected", 508, "Loop detected",
                "The request has passed this gateway before, by its `Via`."),
            Self::TunnelsFull => ("tunnels_full", 503, "Too many tunnels",
                "Too many upgraded connections are open. Try again."),
            Self::TotalTimeout => ("total_timeout", 504, "Total timeout",
                "The request took longer in all than its route allows."),
            Self::Upstream(fault) => upstream::kind(fault),
            Self::ValidationUnavailable => ("api_key_validation_unavailable", 503,
                "API key validation unavailable",
                "Nobody can say at the moment whether the API key is valid. Try again."),
            Self::SessionUnavailable => ("session_validation_unavailable", 503,
                "Session validation unavailable",
                "Nobody can say at the moment how far the session has come. Try again."),
            Self::SessionElsewhere => ("session_elsewhere", 503, "Session elsewhere",
                "The session belongs to another gateway, which alone can refresh it."),
            Self::PolicyUnavailable => ("api_key_policy_unavailable", 503,
                "API key policy unavailable",
                "What is known of the API key is too old to decide by. Try again."),
            Self::AccountingUnavailable => ("accounting_unavailable", 503,
                "Accounting unavailable",
                "The request could not be counted, so it was not let through. Try again."),
            Self::Overloaded => ("overloaded", 503, "Overloaded",
                "More requests run than are taken at a time. Try again."),
            Self::NotReady => ("not_ready", 503, "Not ready",
                "The gateway is starting or shutting down. Try again."),
            _ => ("internal", 500, "Internal error",
                "The gateway failed. The request id finds the reason in its log."),
        }
    }

    /// What a denial is answered with.
    pub fn of(denial: &Denial) -> Self {
        match denial {
            Denial::KeyRevoked => Self::KeyRevoked,
            Denial::KeyDisabled => Self::KeyDisabled,
            Denial::KeyExpired => Self::KeyExpired,
            // Nobody learns whether there was such a session.
            Denial::SessionOver => Self::InvalidCredential,
            Denial::ClientDisabled => Self::ClientDisabled,
            Denial::InsufficientScope | Denial::MissingRight(_) => Self::InsufficientScope,
            Denial::IpDenied => Self::IpDenied,
            Denial::RateLimited(_) => Self::RateLimited,
            Denial::QuotaExceeded(_) => Self::QuotaExceeded,
            Denial::ConcurrencyExceeded(_) => Self::ConcurrencyExceeded,
            Denial::PolicyUnavailable { .. } => Self::PolicyUnavailable,
        }
    }

    /// The stable word for it, in documents, headers and metrics.
    pub fn as_str(self) -> &'static str {
        self.kind().0
    }

    pub(super) fn status(self) -> StatusCode {
        StatusCode::from_u16(self.kind().1).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The challenge of a 401 or of a missing scope (RFC 6750 §3): `error` only if a token was
    /// sent.
    fn challenge(self) -> Option<HeaderValue> {
        let challenge = match (self, self.kind().1) {
            (Self::MissingCredential, _) => "Bearer realm=\"gatepost\"",
            (Self::InsufficientScope, _) => {
                "Bearer realm=\"gatepost\", error=\"insufficient_scope\""
            }
            // It came in the body.
            (Self::InvalidGrant, _) => "Bearer realm=\"gatepost\"",
            (_, 401) => "Bearer realm=\"gatepost\", error=\"invalid_token\"",
            _ => return None,
        };
        Some(HeaderValue::from_static(challenge))
    }

    /// The methods that a 405 names (RFC 9110 §15.5.6).
    fn allowed(self) -> Option<HeaderValue> {
        match self {
            Self::MethodNotAllowed => Some(HeaderValue::from_static("POST")),
            Self::ReadOnly => Some(HeaderValue::from_static("GET, HEAD")),
            _ => None,
        }
    }
}

/// A refusal on its way out.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    code: Code,
    detail: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
    /// The limit that refuses.
    limit: Option<Name>,
    /// How the limits stand, where that is known and nothing was let through.
    report: Option<Box<Report>>,
    /// What its permit says of limits, where it had been let through.
    pub(super) told: Option<Box<HeaderMap>>,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<&'a str>,
}

impl Refusal {
    /// A 408 of a request that took too long in all.
    pub fn overdue() -> Self {
        let detail = "The request took longer than is accepted here.";
        Self { detail: Some(detail.into()), ..Code::RequestTimeout.into() }
    }

    /// A 400 that says what is wrong with the request.
    pub fn bad_request(detail: &'static str) -> Self {
        Self { detail: Some(detail.into()), ..Code::BadRequest.into() }
    }

    fn limited(self, detail: String, limited: Box<Limited>) -> Self {
        let Limited { name, retry_after, report } = *limited;
        let (detail, report) = (Some(detail.into()), Some(Box::new(report)));
        Self { detail, retry_after, limit: Some(name), report, ..self }
    }

    /// Says how the limits stand, of which none refuses.
    pub(super) fn with_report(self, report: Option<Box<Report>>) -> Self {
        Self { report, ..self }
    }

    /// The limit that refuses.
    pub fn limit(&self) -> Option<&str> {
        self.limit.as_deref()
    }

    /// When to come again, if that helps: whole seconds (RFC 9110 §10.2.3), at least one, rounded
    /// up: nobody is asked to come too early.
    pub fn retry_after(&self) -> Option<u64> {
        let fallback = (self.status() == 503).then_some(DEFAULT_RETRY);
        let after = self.retry_after.or(fallback)?;
        Some((after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1))
    }

    /// How the limits stand, where that is known and nothing was let through.
    pub fn report(&self) -> Option<&Report> {
        self.report.as_deref()
    }

    /// What it is called.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The status that a client sees.
    pub fn status(&self) -> u16 {
        self.code.kind().1
    }

    /// The problem document. Every 503 carries `Retry-After`.
    pub fn render(&self) -> Response {
        let mut response = Response::new(Body::from(self.document()));
        *response.status_mut() = self.code.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
        if let Some(challenge) = self.code.challenge() {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if let Some(methods) = self.code.allowed() {
            headers.insert(ALLOW, methods);
        }
        self.tell_when(headers, RETRY_AFTER);
        response
    }

    /// The same for nginx's `auth_request`, which passes on 401 and 403 only and makes a 500 of all
    /// else: other refusals become a 403 whose headers tell a recipe what to map them back to.
    pub fn render_for_nginx(&self) -> Response {
        let mut response = self.render();
        let headers = response.headers_mut();
        headers.insert(X_DENY_CODE, HeaderValue::from_static(self.code.as_str()));
        headers.insert(X_DENY_STATUS, HeaderValue::from(self.status()));
        self.tell_when(headers, X_RETRY_AFTER);
        if !matches!(self.status(), 401 | 403 | 500) {
            *response.status_mut() = StatusCode::FORBIDDEN;
        }
        response
    }

    /// The document's text.
    pub(super) fn document(&self) -> Vec<u8> {
        let (code, status, title, detail) = self.code.kind();
        let detail = self.detail.as_deref().unwrap_or(detail);
        let r#type = format!("urn:gatepost:problem:{code}");
        let limit = self.limit();
        // Plain fields: there is nothing that could fail.
        serde_json::to_vec(&Document { r#type, title, status, detail, code, limit })
            .unwrap_or_default()
    }

    fn tell_when(&self, headers: &mut HeaderMap, name: HeaderName) {
        if let Some(seconds) = self.retry_after() {
            headers.insert(name, HeaderValue::from(seconds));
        }
    }
}

#[cfg(test)]
mod tests;
