//! Metrics of the cache.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

metrics! {
    /// Lookups by the tier that answered, and how fresh the cache is.
    pub struct CacheMetrics {
        /// Lookups answered from memory.
        pub hot_hits: Counter = Counter::default() => "cache_hot_hits",
        /// Lookups answered from the disk tier.
        pub disk_hits: Counter = Counter::default() => "cache_disk_hits",
        /// Lookups answered by a remembered absence.
        pub absent_hits: Counter = Counter::default() => "cache_absent_hits",
        /// Lookups that went to Postgres.
        pub misses: Counter = Counter::default() => "cache_misses",
        /// Lookups that joined one already on its way.
        pub joined: Counter = Counter::default() => "cache_misses_joined",
        /// Lookups that nobody could decide in time.
        pub undecidable: Counter = Counter::default() => "cache_undecidable",
        /// Lookups refused because too many were waiting already.
        pub waiting_full: Counter = Counter::default() => "cache_waiting_full",
        /// Lookups whose caller was sent away after `cache.miss_deadline`.
        pub miss_deadlines: Counter = Counter::default() => "cache_miss_deadlines",
        /// Fills thrown away because the feed had passed their snapshot.
        pub fills_discarded: Counter = Counter::default() => "cache_fills_discarded",
        /// Disk tiers moved to quarantine because they could not be opened.
        pub quarantined: Counter = Counter::default() => "cache_quarantined",
        /// Policies that Postgres brought and that cannot be used.
        pub policies_refused: Counter = Counter::default() => "cache_policies_refused",
        /// Errors of the disk tier while running.
        pub disk_errors: Counter = Counter::default() => "cache_disk_errors",
        /// Entries in memory.
        pub hot_entries: Gauge = Gauge::default() => "cache_hot_entries",
        /// Unsettled state facts pinned in memory.
        pub overlay_entries: Gauge = Gauge::default() => "cache_overlay_entries",
        /// The change counter that the cache has caught up with.
        pub revision: Gauge = Gauge::default() => "cache_revision",
        /// Removals that wait for the operator's word after a full resync.
        pub removals_held: Gauge = Gauge::default() => "cache_removals_held",
        /// Seconds since the last completed catch-up with Postgres.
        pub age: Gauge<f64, AtomicU64> = Gauge::default() => "cache_age_seconds",
    }
}
