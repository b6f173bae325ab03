//! The drainer: journal → Postgres, in large batches, exactly once.

use serde::{Deserialize, Serialize};

use crate::model::units::Span;

/// `[drain]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Time between drains.
    pub interval: Span,
    /// Distinct counters in one transaction.
    pub batch_rows: usize,
    /// The client-side deadline of one transaction; beyond it the connection is abandoned.
    pub deadline: Span,
}

impl Default for Config {
    fn default() -> Self {
        Self { interval: Span::millis(500), batch_rows: 5000, deadline: Span::secs(60) }
    }
}

/// What `status` says of the drain.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DrainStatus {
    /// Whether a Postgres is configured.
    pub configured: bool,
    /// When the last transaction committed, seconds ago.
    pub last_commit_seconds: Option<f64>,
    /// The last error, until a transaction commits again.
    pub last_error: Option<String>,
    /// Batches that wait, in chunks.
    pub pending_chunks: u64,
}

/// A handle to the running drainer.
#[derive(Clone)]
pub struct Drainer {}

impl Drainer {
    /// For `status`.
    pub fn status(&self) -> DrainStatus {
        unimplemented!()
    }
    /// Drains everything recorded until now; returns when the ledger shows it, or with the reason why not.
    pub async fn drain_now(&self) -> Result<(), String> {
        unimplemented!()
    }
}
