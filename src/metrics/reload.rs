//! Metrics of the configuration.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// `ok` or `failed`.
    pub outcome: &'static str,
}

metrics! {
    /// Reading the configuration again.
    pub struct ReloadMetrics {
        /// Attempts to read the configuration again, by outcome.
        pub reloads: Family<OutcomeLabel, Counter> = Family::default() => "config_reloads",
        /// When the configuration that holds was read, in seconds since 1970.
        pub loaded_at: Gauge = Gauge::default() => "config_loaded_timestamp_seconds",
    }
}
