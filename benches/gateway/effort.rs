//! How much is measured.

use std::time::Duration;

use crate::load::closed::Closed;
use crate::load::open::Open;

/// Rounds, lengths and sizes.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Turns of everybody who is compared.
    pub rounds: usize,
    /// One measurement.
    pub span: Duration,
    /// Before each measurement, not counted.
    pub warmup: Duration,
    /// Keys or sessions where there are many.
    pub million: usize,
    /// Distinct counters to drain.
    pub counters: usize,
    /// Refreshes in a measurement take longer to settle than other requests.
    pub refresh_span: Duration,
    /// One phase of an outage.
    pub phase: Duration,
    /// Keys in a storm of misses.
    pub storm: usize,
    /// One measurement of what the journal writes.
    pub volume_span: Duration,
    /// Requests of the long outage.
    pub outage_requests: u64,
    /// Connections that do nothing, and that are slow.
    pub idle: usize,
    pub slow: usize,
    /// The large body.
    pub body_mib: u64,
    /// Gateways on one Postgres.
    pub gateways: usize,
}

impl Effort {
    pub const FULL: Self = Self {
        rounds: 5,
        span: Duration::from_secs(1),
        warmup: Duration::from_millis(300),
        million: 1_000_000,
        counters: 500_000,
        refresh_span: Duration::from_secs(2),
        phase: Duration::from_secs(5),
        storm: 10_000,
        volume_span: Duration::from_secs(20),
        outage_requests: 50_000_000,
        idle: 10_000,
        slow: 5_000,
        body_mib: 1024,
        gateways: 8,
    };
    pub const QUICK: Self = Self {
        rounds: 2,
        span: Duration::from_millis(500),
        warmup: Duration::from_millis(200),
        million: 100_000,
        counters: 50_000,
        refresh_span: Duration::from_secs(1),
        phase: Duration::from_secs(2),
        storm: 2_000,
        volume_span: Duration::from_secs(3),
        outage_requests: 2_000_000,
        idle: 1_000,
        slow: 500,
        body_mib: 128,
        gateways: 3,
    };

    /// A closed loop on so many connections.
    pub fn closed(self, connections: usize) -> Closed {
        Closed { connections, warmup: self.warmup, span: self.span }
    }

    /// An open loop on so many connections, over `span`.
    pub fn open(self, per_second: u32, connections: usize, span: Duration) -> Open {
        Open { per_second, connections, span, slice: Duration::from_millis(250) }
    }
}
