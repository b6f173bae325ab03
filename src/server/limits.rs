//! What answers say about limits: `RateLimit-Policy` and `RateLimit`
//! (draft-ietf-httpapi-ratelimit-headers-10), the older `X-RateLimit-*`, and what a policy that
//! observes would have done.

use std::time::Duration;

use axum::http::header::{HeaderMap, HeaderName, HeaderValue};

use super::problem::Code;
use crate::admission::{LimitHeaders, Permit, Report};

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const WOULD_DENY: HeaderName = HeaderName::from_static("x-gatepost-would-deny");

/// What a permit says.
pub(super) fn tell(headers: &mut HeaderMap, how: LimitHeaders, permit: &Permit<'_>) {
    if let Some(report) = permit.report() {
        report_in(headers, how, report);
    }
    if let Some(denial) = permit.would_deny() {
        let code = Code::of(denial).as_str();
        let text = match denial.limit() {
            Some(limit) => format!("{code}; limit=\"{limit}\""),
            None => code.to_owned(),
        };
        put(headers, WOULD_DENY, HeaderValue::try_from(text));
    }
}

/// How all limits of a policy stand. What an upstream says of its own limits gives way.
pub(super) fn report_in(headers: &mut HeaderMap, how: LimitHeaders, report: &Report) {
    if matches!(how, LimitHeaders::Standard | LimitHeaders::Both) {
        headers.insert(RATELIMIT_POLICY, report.rules().described().clone());
        // (`"name";r=…;t=…` for each: room for most.)
        let mut text = Vec::with_capacity(96);
        for (name, _, left) in report.limits() {
            let separator = if text.is_empty() { "\"" } else { ", \"" };
            text.extend_from_slice(separator.as_bytes());
            text.extend_from_slice(name.as_bytes());
            text.extend_from_slice(b"\";r=");
            text.extend_from_slice(itoa::Buffer::new().format(left.remaining).as_bytes());
            text.extend_from_slice(b";t=");
            text.extend_from_slice(
                itoa::Buffer::new().format(whole_seconds(left.reset)).as_bytes(),
            );
        }
        // (Nobody may be able to say how any of them stands.)
        if text.is_empty() {
            headers.remove(RATELIMIT);
        } else {
            put(headers, RATELIMIT, HeaderValue::try_from(text));
        }
    }
    if matches!(how, LimitHeaders::Legacy | LimitHeaders::Both)
        && let Some((_, limit, left)) = report.limits().min_by_key(|(_, _, left)| left.remaining)
    {
        headers.insert(X_LIMIT, limit.into());
        headers.insert(X_REMAINING, left.remaining.into());
        headers.insert(X_RESET, whole_seconds(left.reset).into());
    }
}

/// Rounded up: nobody is asked to come too early.
fn whole_seconds(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

/// Names of limits are made of letters, digits and a few signs: every text here can stand in a
/// header.
fn put(
    headers: &mut HeaderMap,
    name: HeaderName,
    value: Result<HeaderValue, impl std::error::Error>,
) {
    if let Ok(value) = value {
        headers.insert(name, value);
    }
}
