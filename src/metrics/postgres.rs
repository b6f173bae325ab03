//! Metrics of the Postgres room.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// Which pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PoolLabel {
    /// `auth` or `admin`.
    pub pool: &'static str,
}

metrics! {
    /// Pools, the breaker and the feed.
    pub struct PostgresMetrics {
        /// Connections a pool may open.
        pub pool_max: Family<PoolLabel, Gauge> = Family::default() => "pool_max",
        /// Connections that are idle.
        pub pool_idle: Family<PoolLabel, Gauge> = Family::default() => "pool_idle",
        /// Callers that wait for a connection.
        pub pool_waiting: Family<PoolLabel, Gauge> = Family::default() => "pool_waiting",
        /// Acquires that took longer than 50 ms.
        pub pool_slow_acquires: Family<PoolLabel, Counter> = Family::default()
            => "pool_slow_acquires",
        /// Lookups that failed.
        pub lookup_failures: Counter = Counter::default() => "lookup_failures",
        /// 1 while the breaker refuses lookups.
        pub breaker_open: Gauge = Gauge::default() => "breaker_open",
        /// Completed catch-ups.
        pub feed_catch_ups: Counter = Counter::default() => "feed_catch_ups",
        /// Catch-ups that failed.
        pub feed_failures: Counter = Counter::default() => "feed_failures",
        /// Full resyncs, because of an empty cache or a diverged history.
        pub feed_resyncs: Counter = Counter::default() => "feed_resyncs",
        /// Rows that the feed brought.
        pub feed_rows: Counter = Counter::default() => "feed_rows",
    }
}
