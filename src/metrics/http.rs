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
        /// TLS handshakes that failed or took too long.
        pub handshakes_failed: Counter = Counter::default() => "http_handshakes_failed",
        /// Requests in flight through the proxy.
        pub proxied: Gauge = Gauge::default() => "http_proxied",
        /// Access lines that were dropped because too many waited to be written.
        pub access_lines_dropped: Counter = Counter::default() => "access_lines_dropped",
        /// Bodies refused because they were larger than their bound.
        pub bodies_too_large: Counter = Counter::default() => "http_bodies_too_large",
    }
}
