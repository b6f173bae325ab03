//! The span of a request: which have one, where it stands in its trace, and what it says.

use std::time::Duration;

use axum::http::header::HeaderValue;
use axum::http::request::Parts;

use super::BROKE_OFF;
use super::line::Line;
use crate::entropy::Entropy;
use crate::model::Timestamp;
use crate::otlp::{Span, Value, WriteSpan};
use crate::server::peers::OverTls;
use crate::server::trace::TraceParent;

/// The methods that have a name in a span (RFC 9110 §9, RFC 5789); names are few.
const METHODS: [&str; 9] =
    ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];

/// Which requests have a span, and where spans go.
pub struct Spans {
    share: f64,
    write: WriteSpan,
}

/// Where a span stands in its trace.
pub(super) struct Place {
    /// The span itself.
    own: TraceParent,
    /// The caller's, if the trace did not begin here.
    parent: Option<TraceParent>,
    secure: bool,
}

impl Place {
    /// The span itself.
    pub fn own(&self) -> &TraceParent {
        &self.own
    }

    /// What makes others a part of this span.
    pub fn traceparent(&self) -> HeaderValue {
        self.own.header()
    }
}

impl Spans {
    /// Spans of requests whose caller records one, and of a `share` from 0 to 1 of those whose
    /// caller does not say.
    pub fn new(share: f64, write: WriteSpan) -> Self {
        Self { share, write }
    }

    /// The place of a request's span, if it has one.
    pub(super) fn begin(&self, parts: &Parts, entropy: &dyn Entropy) -> Option<Place> {
        let parent = TraceParent::of(&parts.headers);
        let recorded = match &parent {
            Some(parent) => parent.is_sampled(),
            None => entropy.draws(self.share),
        };
        let secure = parts.extensions.get::<OverTls>().is_some();
        recorded.then(|| Place {
            own: TraceParent::below(parent.as_ref(), entropy),
            parent,
            secure,
        })
    }

    /// Records what `line` tells.
    pub(super) fn record(&self, place: &Place, line: &Line<'_>, ended: Timestamp, took: Duration) {
        let took = i64::try_from(took.as_micros()).unwrap_or(i64::MAX);
        (self.write)(Span {
            trace: place.own.trace(),
            id: place.own.span(),
            parent: place.parent.as_ref().map(TraceParent::span),
            name: name(line),
            started: Timestamp(ended.0.saturating_sub(took)),
            ended,
            failed: failed(line),
            attributes: attributes(line, place.secure),
        });
    }
}

fn known(method: &str) -> Option<&str> {
    METHODS.contains(&method).then_some(method)
}

fn name(line: &Line<'_>) -> String {
    let method = known(line.method).unwrap_or("HTTP");
    // Of what has no route, only the endpoints of the gateway itself have a fixed path.
    let own = (line.endpoint != "proxy").then_some(line.endpoint);
    match line.route.or(own) {
        Some(route) => format!("{method} {route}"),
        None => method.to_owned(),
    }
}

/// What a client does wrong is no error of this span.
fn failed(line: &Line<'_>) -> bool {
    let no_answer = line.status.is_none() && line.decision == "internal";
    line.status.is_some_and(|status| status >= 500) || line.decision == BROKE_OFF || no_answer
}

fn attributes(line: &Line<'_>, secure: bool) -> Vec<(&'static str, Value)> {
    let text = |text: &str| Value::Text(text.to_owned());
    let whole = |bytes: u64| Value::Whole(i64::try_from(bytes).unwrap_or(i64::MAX));
    let failed = failed(line).then_some(line.decision);
    let other = if known(line.method).is_none() { Some(line.method) } else { None };
    let said = [
        ("http.request.method", Some(known(line.method).unwrap_or("_OTHER"))),
        ("http.request.method_original", other),
        ("url.scheme", Some(if secure { "https" } else { "http" })),
        ("url.path", Some(line.path)),
        ("server.address", line.host),
        ("http.route", line.route),
        ("user_agent.original", line.user_agent),
        ("error.type", failed),
        ("gatepost.request_id", Some(line.request_id)),
        ("gatepost.endpoint", Some(line.endpoint)),
        ("gatepost.decision", Some(line.decision)),
        ("gatepost.client", line.client),
        ("gatepost.policy", line.policy),
        ("gatepost.upstream", line.upstream),
    ];
    let mut all: Vec<_> =
        said.into_iter().filter_map(|(key, said)| Some((key, text(said?)))).collect();
    all.extend(line.ip.map(|ip| ("client.address", Value::Text(ip.to_string()))));
    all.extend(line.key_id.map(|id| ("gatepost.key_id", Value::Text(id.to_string()))));
    let status = line.status.map(|status| Value::Whole(status.into()));
    all.extend(status.map(|status| ("http.response.status_code", status)));
    all.push(("http.request.body.size", whole(line.bytes_in)));
    all.push(("http.response.body.size", whole(line.bytes_out)));
    all
}
