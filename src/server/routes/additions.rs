//! Headers that a route adds: to what its upstream gets, and to what the client gets.

use std::collections::BTreeMap;

use axum::http::header::{self, HeaderName, HeaderValue};

use super::RouteError;
use crate::proxy::Additions;

/// What only the two ends of one connection may say, what frames a message, and what carries a
/// credential.
const NOT_TO_ADD: [HeaderName; 16] = [
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::AUTHORIZATION,
    header::COOKIE,
    header::FORWARDED,
    header::VIA,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// What the gateway says itself.
const OURS: [&str; 7] = [
    "x-gatepost-",
    "x-forwarded-",
    "x-original-",
    "x-api-key",
    "apikey",
    "x-request-id",
    "traceparent",
];

/// Checks and takes over a table of headers.
pub(super) fn compile(
    path: &str,
    configured: &BTreeMap<String, String>,
) -> Result<Additions, RouteError> {
    let compiled = configured.iter().map(|(name, value)| {
        let wrong = |reason| RouteError::Header { path: path.into(), name: name.clone(), reason };
        let parsed: HeaderName = name.parse().map_err(|_| wrong("it is not a header's name"))?;
        let hyphens = parsed.as_str().replace('_', "-");
        if NOT_TO_ADD.contains(&parsed) || OURS.iter().any(|ours| hyphens.starts_with(ours)) {
            return Err(wrong("a route must not set it"));
        }
        let value = HeaderValue::from_str(value);
        Ok((parsed, value.map_err(|_| wrong("its value has characters that no header can hold"))?))
    });
    compiled.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(name: &str, value: &str) -> Option<&'static str> {
        let table = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        match compile("/a", &table) {
            Err(RouteError::Header { reason, .. }) => Some(reason),
            _ => None,
        }
    }

    #[test]
    fn ordinary_headers_may_be_added() {
        for name in ["X-Tenant", "cache-control", "Strict-Transport-Security"] {
            assert_eq!(reason(name, "a value"), None, "{name}");
        }
    }

    #[test]
    fn framing_credentials_and_what_the_gateway_says_itself_may_not() {
        for name in [
            "Connection",
            "transfer-encoding",
            "Content-Length",
            "Keep-Alive",
            "Host",
            "Authorization",
            "X-API-Key",
            "apikey",
            "X-Gatepost-Client",
            "x_gatepost_client",
            "X-Forwarded-For",
            "X-Request-Id",
        ] {
            assert_eq!(reason(name, "x"), Some("a route must not set it"), "{name}");
        }
        assert_eq!(reason("a b", "x"), Some("it is not a header's name"));
        assert!(reason("X-Tenant", "a\r\nX-Gatepost-Client: root").is_some());
    }
}
