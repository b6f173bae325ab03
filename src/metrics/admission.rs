//! Metrics of admission.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// Why a policy that observes would have denied.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CodeLabel {
    /// The error code that would have been answered.
    pub code: &'static str,
}

metrics! {
    /// Policies in force, and the state of their limits.
    pub struct AdmissionMetrics {
        /// Requests that a policy which observes would have denied, by code.
        pub would_deny: Family<CodeLabel, Counter> = Family::default() => "admission_would_deny",
        /// Requests let through on routes that are open to everybody.
        pub anonymous: Counter = Counter::default() => "admission_anonymous",
        /// Requests let through although nobody could decide, as their policy says.
        pub failed_open: Counter = Counter::default() => "admission_failed_open",
        /// Rate limits with something taken.
        pub buckets: Gauge = Gauge::default() => "admission_buckets",
        /// Requests that met `admission.max_buckets`.
        pub buckets_full: Counter = Counter::default() => "admission_buckets_full",
        /// Quotas in memory.
        pub quotas: Gauge = Gauge::default() => "admission_quotas",
        /// Requests that met `admission.max_quotas`.
        pub quotas_full: Counter = Counter::default() => "admission_quotas_full",
        /// Jumps of the clock that quotas did not follow at once.
        pub clock_jumps: Counter = Counter::default() => "admission_clock_jumps",
    }
}
