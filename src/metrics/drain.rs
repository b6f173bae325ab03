//! Metrics of the drainer.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use super::LaneLabel;

metrics! {
    /// Journal → Postgres.
    pub struct DrainMetrics {
        /// Transactions that committed.
        pub batches: Counter = Counter::default() => "drain_batches",
        /// Rows sent, after merging.
        pub rows: Counter = Counter::default() => "drain_rows",
        /// Transactions that failed or whose fate had to be read from the ledger.
        pub failures: Counter = Counter::default() => "drain_failures",
        /// Batches that the ledger showed as applied already.
        pub recognised: Counter = Counter::default() => "drain_batches_recognised",
        /// Times that the ledger had moved backwards.
        pub regressions: Counter = Counter::default() => "drain_ledger_regressions",
        /// Facts that Postgres refused for good and that have a dead letter, by lane.
        pub dead_letters: Family<LaneLabel, Counter> = Family::default() => "drain_dead_letters",
        /// Chunks that a ledger which moved backwards has lost after they were removed here, as far
        /// as removed streams are remembered.
        pub lost_chunks: Counter = Counter::default() => "drain_lost_chunks",
        /// Facts in them, as far as they are known.
        pub lost_facts: Counter = Counter::default() => "drain_lost_facts",
        /// Merged segments set aside, because a copy had drained a part of what they stand for.
        pub conflicts: Counter = Counter::default() => "drain_merge_conflicts",
        /// Time of one drain transaction.
        pub duration: Histogram = Histogram::new(exponential_buckets(0.001, 2.0, 15))
            => "drain_duration_seconds",
        /// Chunks that wait for their transaction.
        pub pending_chunks: Gauge = Gauge::default() => "drain_pending_chunks",
    }
}
