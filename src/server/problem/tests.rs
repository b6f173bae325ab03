//! What each refusal looks like on the wire.

use super::*;
use crate::authn::AuthnError;

const ALL: [(Code, &str, u16, &str); 34] = [
    (Code::AmbiguousCredential, "ambiguous_credential", 400, "Ambiguous credential"),
    (Code::BadRequest, "bad_request", 400, "Bad request"),
    (Code::MissingCredential, "missing_credential", 401, "Missing credential"),
    (Code::InvalidCredential, "invalid_credential", 401, "Invalid credential"),
    (Code::InvalidGrant, "invalid_grant", 401, "Invalid grant"),
    (Code::InvalidClient, "invalid_client", 401, "Invalid client"),
    (Code::UnsupportedTokenType, "unsupported_token_type", 400, "Unsupported token type"),
    (Code::UnsupportedGrantType, "unsupported_grant_type", 400, "Unsupported grant type"),
    (Code::InvalidScope, "invalid_scope", 400, "Invalid scope"),
    (Code::UnauthorizedClient, "unauthorized_client", 400, "Unauthorized client"),
    (Code::KeyExpired, "key_expired", 401, "Key expired"),
    (Code::KeyRevoked, "key_revoked", 401, "Key revoked"),
    (Code::KeyDisabled, "key_disabled", 401, "Key disabled"),
    (Code::InsufficientScope, "insufficient_scope", 403, "Insufficient scope"),
    (Code::ClientDisabled, "client_disabled", 403, "Client disabled"),
    (Code::NotFound, "not_found", 404, "Not found"),
    (Code::MethodNotAllowed, "method_not_allowed", 405, "Method not allowed"),
    (Code::ReadOnly, "method_not_allowed", 405, "Method not allowed"),
    (Code::RequestTimeout, "request_timeout", 408, "Request timeout"),
    (Code::BodyTooLarge, "body_too_large", 413, "Body too large"),
    (Code::TargetTooLong, "target_too_long", 414, "Target too long"),
    (Code::HeadTooLarge, "head_too_large", 431, "Head too large"),
    (Code::Internal, "internal", 500, "Internal error"),
    (Code::ConnectUnsupported, "connect_unsupported", 501, "CONNECT not supported"),
    (Code::TraceUnsupported, "trace_unsupported", 501, "TRACE not supported"),
    (Code::Upstream(Fault::Tls), "upstream_tls_failed", 502, "Upstream not trusted"),
    (
        Code::ValidationUnavailable,
        "api_key_validation_unavailable",
        503,
        "API key validation unavailable",
    ),
    (
        Code::SessionUnavailable,
        "session_validation_unavailable",
        503,
        "Session validation unavailable",
    ),
    (Code::SessionElsewhere, "session_elsewhere", 503, "Session elsewhere"),
    (Code::PolicyUnavailable, "api_key_policy_unavailable", 503, "API key policy unavailable"),
    (Code::AccountingUnavailable, "accounting_unavailable", 503, "Accounting unavailable"),
    (Code::NotReady, "not_ready", 503, "Not ready"),
    (Code::TotalTimeout, "total_timeout", 504, "Total timeout"),
    (Code::Upstream(Fault::Timeout), "upstream_timeout", 504, "Upstream timeout"),
];

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

#[test]
fn every_code_has_its_status_and_title() {
    for (code, word, status, title) in ALL {
        let refusal = Refusal::from(code);
        let document: serde_json::Value =
            serde_json::from_slice(&refusal.document()).expect("a JSON document");
        assert_eq!(document["code"], word);
        assert_eq!(document["status"], status);
        assert_eq!(document["title"], title);
        let response = refusal.render();
        assert_eq!(response.status().as_u16(), status, "{word}");
        assert_eq!(header(&response, "content-type"), Some("application/problem+json"));
        assert_eq!(
            header(&response, "www-authenticate").is_some(),
            matches!(status, 401) || word == "insufficient_scope"
        );
        assert_eq!(header(&response, "retry-after").is_some(), status == 503, "{word}");
        assert_eq!(header(&response, "allow").is_some(), status == 405, "{word}");
    }
}

#[test]
fn oauth_libraries_see_the_words_of_their_specifications() {
    let own = [
        Code::UnsupportedTokenType,
        Code::UnsupportedGrantType,
        Code::InvalidScope,
        Code::UnauthorizedClient,
        Code::InsufficientScope,
    ];
    for (code, word, status, _) in ALL {
        let (error, status) = match (code, status) {
            (Code::InvalidGrant, _) => ("invalid_grant", 400),
            (Code::ClientDisabled, _) => ("unauthorized_client", 400),
            _ if own.contains(&code) => (word, status),
            (_, 401) => ("invalid_client", 401),
            (_, 503) => ("temporarily_unavailable", 503),
            (Code::Internal, _) => ("server_error", 500),
            _ => ("invalid_request", status),
        };
        let refusal = Refusal::from(code);
        assert_eq!(refusal.oauth(), (error, status), "{word}");
        let response = refusal.render_for_oauth();
        assert_eq!(response.status().as_u16(), status, "{word}");
        assert_eq!(header(&response, "content-type"), Some("application/json"));
        assert_eq!(header(&response, "cache-control"), Some("no-store"));
        let challenged = header(&response, "www-authenticate").is_some();
        assert_eq!(challenged, matches!(status, 401 | 403), "{word}");
        assert_eq!(header(&response, "retry-after").is_some(), status == 503, "{word}");
    }
}

#[test]
fn nginx_sees_401_and_403_only() {
    for (code, word, status, _) in ALL {
        let response = Refusal::from(code).render_for_nginx();
        let seen = if matches!(status, 401 | 403 | 500) { status } else { 403 };
        assert_eq!(response.status().as_u16(), seen, "{word}");
        assert_eq!(header(&response, "x-gatepost-deny-code"), Some(word));
        assert_eq!(header(&response, "x-gatepost-deny-status"), Some(&*status.to_string()));
        assert_eq!(header(&response, "x-gatepost-retry-after").is_some(), status == 503);
    }
}

#[test]
fn retry_after_rounds_up_to_whole_seconds() {
    for (millis, want) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (5000, "5")] {
        let retry_after = Duration::from_millis(millis);
        let refusal = Refusal::from(AuthnError::Undecidable { retry_after });
        assert_eq!(header(&refusal.render(), "retry-after"), Some(want));
    }
}

#[test]
fn unknown_malformed_and_wrong_are_one_answer() {
    let refusal = Refusal::from(AuthnError::Invalid);
    assert_eq!(refusal, Code::InvalidCredential.into());
    assert_eq!(refusal.document(), Refusal::from(Code::InvalidCredential).document());
}
