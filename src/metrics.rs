//! Every metric of the gateway, as one struct of handles made once. Doc comments are the help
//! texts.
//!
//! Labels come from closed sets: never a key id, a path or a user.

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// Declares a struct of metric handles: the doc comment of a field is its help text, the string its
/// name (without the `gatepost_` prefix; counters get their `_total` from the encoder).
macro_rules! metrics {
    (
        $(#[$about:meta])*
        pub struct $name:ident {
            $(
                $(#[doc = $help:literal])+
                pub $field:ident: $kind:ty = $init:expr => $metric:literal,
            )*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug)]
        pub struct $name {
            $( $(#[doc = $help])+ pub $field: $kind, )*
        }

        impl $name {
            pub(super) fn register(registry: &mut prometheus_client::registry::Registry) -> Self {
                $(
                    let $field: $kind = $init;
                    // The encoder ends each help text with a full stop itself.
                    let help = concat!($($help),+).trim().trim_end_matches('.');
                    registry.register($metric, help, $field.clone());
                )*
                Self { $($field),* }
            }
        }
    };
}

mod admission;
mod cache;
mod drain;
mod http;
mod journal;
#[cfg(feature = "otlp")]
mod otlp;
mod postgres;
mod reload;
mod tokens;
mod upstream;

pub use admission::{AdmissionMetrics, CodeLabel};
pub use cache::CacheMetrics;
pub use drain::DrainMetrics;
pub use http::{HttpMetrics, OffenceLabel, RequestLabels};
pub use journal::{EventLabel, JournalMetrics, LaneLabel};
#[cfg(feature = "otlp")]
pub use otlp::{OtlpMetrics, ReasonLabel};
pub use postgres::{PoolLabel, PostgresMetrics};
pub use reload::{OutcomeLabel, ReloadMetrics};
pub use tokens::TokenMetrics;
pub use upstream::{FaultLabel, UpstreamMetrics};

/// The handles of all rooms, and the registry that `/metrics` encodes.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Both listeners.
    pub http: HttpMetrics,
    /// The configuration.
    pub reload: ReloadMetrics,
    /// Policies and limits.
    pub admission: AdmissionMetrics,
    /// Lookups.
    pub cache: CacheMetrics,
    /// The write-behind log.
    pub journal: JournalMetrics,
    /// Journal → Postgres.
    pub drain: DrainMetrics,
    /// Pools, breaker and feed.
    pub postgres: PostgresMetrics,
    /// Sessions and tokens.
    pub tokens: TokenMetrics,
    /// Upstreams and tunnels.
    pub upstream: UpstreamMetrics,
    /// Spans.
    #[cfg(feature = "otlp")]
    pub otlp: OtlpMetrics,
}

impl Metrics {
    /// Makes and registers everything.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("gatepost");
        let http = HttpMetrics::register(&mut registry);
        let reload = ReloadMetrics::register(&mut registry);
        let admission = AdmissionMetrics::register(&mut registry);
        let cache = CacheMetrics::register(&mut registry);
        let journal = JournalMetrics::register(&mut registry);
        let drain = DrainMetrics::register(&mut registry);
        let postgres = PostgresMetrics::register(&mut registry);
        let tokens = TokenMetrics::register(&mut registry);
        let upstream = UpstreamMetrics::register(&mut registry);
        #[cfg(feature = "otlp")]
        let otlp = OtlpMetrics::register(&mut registry);
        Self {
            registry,
            http,
            reload,
            admission,
            cache,
            journal,
            drain,
            postgres,
            tokens,
            upstream,
            #[cfg(feature = "otlp")]
            otlp,
        }
    }

    /// The OpenMetrics text that `/metrics` answers with.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        if encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_carry_prefix_and_help() {
        let metrics = Metrics::new();
        metrics.cache.hot_hits.inc();
        let text = metrics.encode();
        assert!(text.contains("gatepost_cache_hot_hits_total 1"), "{text}");
        assert!(text.contains("# HELP gatepost_cache_hot_hits "), "{text}");
    }
}
