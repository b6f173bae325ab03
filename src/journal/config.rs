//! `[journal]`

use serde::{Deserialize, Serialize};

use crate::model::units::{Size, Span};

pub use crate::model::policy::Commit;

/// What happens to a fact when the journal is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    /// The request is refused with 503 `accounting_unavailable`.
    Reject,
    /// The request passes and each fact that is lost is counted.
    DropAndCount,
}

/// `[journal]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// When an answer may leave.
    pub commit: Commit,
    /// Time between commits without waiters; the most that `interval` can lose.
    pub interval: Span,
    /// A segment is closed when it has taken this much.
    pub segment_max_bytes: Size,
    /// A segment is closed when it is this old, and something of it has drained.
    pub segment_max_age: Span,
    /// The bound on all segments on disk, those of events apart.
    pub max_bytes: Size,
    /// The bound on segments of events on disk; beyond it events are dropped, and counted. The last
    /// eighth is for audit entries alone.
    pub events_max_bytes: Size,
    /// The bound on distinct counters that wait for their commit.
    pub max_pending: usize,
    /// What happens beyond the bounds.
    pub on_full: OnFull,
    /// Room on the disk that is kept for bad times, so that a full disk still takes revocations and
    /// an orderly end; zero for none.
    pub ballast: Size,
    /// How long a settled segment is kept, so that a failover to a lagging replica can be repaired.
    pub retention: Span,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            commit: Commit::Interval,
            interval: Span::millis(50),
            segment_max_bytes: Size::mib(16),
            segment_max_age: Span::secs(600),
            max_bytes: Size::mib(1024),
            events_max_bytes: Size::mib(128),
            max_pending: 1_000_000,
            on_full: OnFull::Reject,
            ballast: Size::mib(4),
            retention: Span::secs(600),
        }
    }
}
