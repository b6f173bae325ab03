//! What stands in a line of the access log.

use std::net::IpAddr;
use std::time::Duration;

use axum::http::header::HeaderValue;
use serde::Serialize;
use uuid::Uuid;

use super::{CLIENT_GONE, Story, bounded};
use crate::server::trace::TraceParent;

/// A line as it is written; `timestamp`, `level` and `target` as in the lines of the log.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    pub timestamp: &'a str,
    pub level: &'static str,
    pub target: &'static str,
    pub request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<&'a str>,
    pub endpoint: &'static str,
    pub method: &'a str,
    pub host: Option<&'a str>,
    pub path: &'a str,
    pub route: Option<&'a str>,
    pub status: Option<u16>,
    pub decision: &'static str,
    pub client: Option<&'a str>,
    pub key_id: Option<Uuid>,
    pub policy: Option<&'a str>,
    pub ip: Option<IpAddr>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub duration_s: f64,
    pub upstream: Option<&'a str>,
    pub user_agent: Option<&'a str>,
}

impl<'a> Line<'a> {
    pub fn of(story: &'a Story, now: &'a str, took: Duration) -> Self {
        let host = story.uri.authority().map(|authority| authority.as_str());
        let host = host.or(story.host.as_ref().and_then(text));
        // A name and a password may stand before it.
        let host = host.map(|host| bounded(host.rsplit('@').next().unwrap_or_default()));
        let own = (story.method.as_str(), host, story.uri.path());
        let (method, host, path) = story.asked.as_ref().map_or(own, |asked| {
            (asked.method.as_str(), asked.host.as_deref(), asked.path.as_str())
        });
        Self {
            timestamp: now,
            level: "INFO",
            target: "access",
            request_id: text(&story.id).unwrap_or_default(),
            trace_id: story.trace().map(TraceParent::trace_digits),
            endpoint: story.endpoint,
            method: bounded(method),
            host,
            path: bounded(path),
            route: story.route.as_deref(),
            status: story.status,
            // Nobody was left to hear an answer.
            decision: match story.status {
                None if std::thread::panicking() => "internal",
                None => CLIENT_GONE,
                Some(_) => story.decision.unwrap_or("allowed"),
            },
            client: story.client.as_deref(),
            key_id: story.key_id,
            policy: story.policy.as_deref(),
            ip: story.ip,
            bytes_in: story.bytes_in,
            bytes_out: story.bytes_out,
            duration_s: took.as_secs_f64(),
            upstream: story.upstream.as_ref().map(|upstream| upstream.name()),
            user_agent: story.agent.as_ref().and_then(text),
        }
    }
}

/// What is not text is not told.
fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok().map(bounded)
}
