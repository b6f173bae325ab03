//! Metrics of the export of spans.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

/// Why a span never arrived.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// `queue_full`, `undelivered`, `rejected`.
    pub reason: &'static str,
}

metrics! {
    /// Spans, in builds with the feature `otlp`.
    pub struct OtlpMetrics {
        /// Spans that the collector has taken.
        pub exported: Counter = Counter::default() => "otlp_spans_exported",
        /// Spans that were dropped: because `otlp.max_waiting` waited, because their batch was not
        /// taken within `otlp.deadline`, or because the collector did not want them.
        pub dropped: Family<ReasonLabel, Counter> = Family::default() => "otlp_spans_dropped",
        /// Attempts at a batch that failed and may be tried again.
        pub attempts_failed: Counter = Counter::default() => "otlp_attempts_failed",
    }
}
