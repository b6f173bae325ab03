//! Metrics of both listeners.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// How an answer is classified.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// `forward_auth`, `auth_request`, `ext_authz`, `verify`, `proxy`, `echo`.
    pub endpoint: &'static str,
    /// `ok`, or the error code of the problem document.
    pub code: &'static str,
}

/// What was wrong with the bytes of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OffenceLabel {
    /// `line`, `request`, `length`, `coding`, `chunk`, `body_too_large`; `syntax`,
    /// `target_too_long`, `head_too_large`.
    pub offence: &'static str,
}

metrics! {
    /// Requests, connections and what was refused at the door.
    pub struct HttpMetrics {
        /// Answers by endpoint and code.
        pub requests: Family<RequestLabels, Counter> = Family::default() => "http_requests",
        /// Time from the request's head to the answer's head, proxied requests only.
        pub upstream_duration: Histogram = Histogram::new(exponential_buckets(0.0005, 2.0, 15))
            => "http_upstream_duration_seconds",
        /// Open connections on the data plane.
        pub connections: Gauge = Gauge::default() => "http_connections",
        /// Times that accepting paused because `max_connections` were open.
        pub connections_full: Counter = Counter::default() => "http_connections_full",
        /// Connections refused because their address had as many as it may.
        pub connections_refused: Counter = Counter::default() => "http_connections_refused",
        /// Connections that have agreed on HTTP/2.
        pub connections_http2: Counter = Counter::default() => "http_connections_http2",
        /// Connections closed because a head, a request or an idle time took too long.
        pub connections_overdue: Counter = Counter::default() => "http_connections_overdue",
        /// Connections closed because of what was sent, by kind.
        pub offences: Family<OffenceLabel, Counter> = Family::default() => "http_offences",
        /// Requests whose answers have not ended.
        pub running: Gauge = Gauge::default() => "http_requests_running",
        /// Requests refused because `max_requests` ran.
        pub shed: Counter = Counter::default() => "http_requests_shed",
        /// TLS handshakes that failed or took too long.
        pub handshakes_failed: Counter = Counter::default() => "http_handshakes_failed",
        /// Requests in flight through the proxy.
        pub proxied: Gauge = Gauge::default() => "http_proxied",
        /// Access lines that were dropped because too many waited to be written.
        pub access_lines_dropped: Counter = Counter::default() => "access_lines_dropped",
        /// Lines of the log that were dropped because too many waited to be written.
        pub log_lines_dropped: Counter = Counter::default() => "log_lines_dropped",
        /// Bodies refused because they were larger than their bound.
        pub bodies_too_large: Counter = Counter::default() => "http_bodies_too_large",
    }
}
