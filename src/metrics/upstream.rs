//! Metrics of upstreams and of the tunnels to them.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// What is wrong with an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FaultLabel {
    /// `unreachable`, `connect_timeout`, `tls_failed`, `broke_off`, `garbled`, `timeout`; of
    /// requests that no target could take `circuit_open`, `unhealthy`, `busy`.
    pub fault: &'static str,
}

metrics! {
    /// Attempts at upstreams, and what became of their targets.
    pub struct UpstreamMetrics {
        /// Attempts at a target that failed, and requests that none could take, by fault.
        pub faults: Family<FaultLabel, Counter> = Family::default() => "upstream_faults",
        /// Requests that were tried again.
        pub retries: Counter = Counter::default() => "upstream_retries",
        /// Requests that were not tried again because the retry budget was used up.
        pub retries_refused: Counter = Counter::default() => "upstream_retries_refused",
        /// Times that a target was left out after failures in a row.
        pub breaker_openings: Counter = Counter::default() => "upstream_breaker_openings",
        /// Times that the checks took a target out.
        pub unhealthy: Counter = Counter::default() => "upstream_unhealthy",
        /// Times that the checks brought a target back.
        pub healthy: Counter = Counter::default() => "upstream_healthy",
        /// Open tunnels: WebSockets and other upgraded connections.
        pub tunnels: Gauge = Gauge::default() => "tunnels",
        /// Upgrades refused or left out because `server.max_tunnels` were open.
        pub tunnels_full: Counter = Counter::default() => "tunnels_full",
        /// Upgrades refused or left out because their address had its share of tunnels.
        pub tunnels_refused: Counter = Counter::default() => "tunnels_refused",
        /// Tunnels ended because nothing went through for `server.tunnel_idle_timeout`.
        pub tunnels_idle: Counter = Counter::default() => "tunnels_idle",
    }
}
