//! The journal: the durable write-behind log on sled.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::SharedClock;
use crate::entropy::SharedEntropy;
use crate::metrics::Metrics;
use crate::model::fact::{AuditEntry, Counter, Counts, Lane, StateFact, UsageFact};
use crate::model::units::{Size, Span};

/// When an answer may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Commit {
    /// At once; what it counted is on disk within one interval.
    Interval,
    /// When what it counted is on disk.
    BeforeReply,
}

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
    /// A segment is closed when it is this old.
    pub segment_max_age: Span,
    /// The bound on all segments on disk.
    pub max_bytes: Size,
    /// The bound on distinct counters that wait for their commit.
    pub max_pending: usize,
    /// What happens beyond the bounds.
    pub on_full: OnFull,
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
            max_pending: 1_000_000,
            on_full: OnFull::Reject,
            retention: Span::secs(600),
        }
    }
}

/// Why the journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The directory cannot be used.
    #[error("the journal directory cannot be used: {0}")]
    Io(#[from] std::io::Error),
}

/// The journal is full or failing: nothing was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal is full or its disk is failing; see `gatepost log status`")]
pub struct Full;

/// Proof that there was room for a request's facts when it was admitted.
#[derive(Clone, Copy, Debug)]
pub struct Room(());

/// Tells when a fact is on disk.
#[derive(Debug)]
pub struct Ticket(());

impl Ticket {
    /// Waits until the fact is on disk. Errs when the journal stopped, or cannot write.
    pub async fn durable(self) -> Result<(), Full> {
        unimplemented!()
    }
}

/// What `status` says of one lane.
#[derive(Clone, Debug, Serialize)]
pub struct LaneStatus {
    /// `state`, `usage` or `events`.
    pub lane: &'static str,
    /// Segments on disk.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Chunks not settled yet.
    pub unsettled_chunks: u64,
    /// Facts (entries) in those chunks.
    pub unsettled_facts: u64,
    /// Age of the oldest unsettled segment.
    pub oldest_seconds: Option<f64>,
}

/// What `status` and `log status` say.
#[derive(Clone, Debug, Serialize)]
pub struct JournalStatus {
    /// By lane.
    pub lanes: Vec<LaneStatus>,
    /// Bytes left to `max_bytes`.
    pub bytes_left: u64,
    /// Whether facts are refused at the moment.
    pub full: bool,
    /// The longest that a counted request is not on disk.
    pub worst_case_loss_seconds: f64,
}

/// The journal's handle; clones share it.
#[derive(Clone)]
pub struct Journal(Arc<()>);

impl Journal {
    /// Opens the journal in `dir`, and returns with it the unsettled state facts of earlier processes.
    pub fn open(
        _dir: &Path,
        _config: Config,
        _clock: SharedClock,
        _entropy: SharedEntropy,
        _metrics: Arc<Metrics>,
    ) -> Result<(Self, Vec<StateFact>), JournalError> {
        unimplemented!()
    }
    /// The general commit mode.
    pub fn commit(&self) -> Commit {
        unimplemented!()
    }
    /// Room for the facts of one request, or the reason for a 503 before anything is done.
    pub fn reserve(&self) -> Result<Room, Full> {
        unimplemented!()
    }
    /// Merges counts into the window. No I/O.
    pub fn count(&self, _room: Room, _counter: Counter, _counts: Counts) -> Ticket {
        unimplemented!()
    }
    /// Records state facts, all in one commit. They are in force once the ticket is durable.
    pub fn append(&self, _facts: Vec<StateFact>) -> Result<Ticket, Full> {
        unimplemented!()
    }
    /// Records an audit entry; yields when the lane is full.
    pub fn note(&self, _entry: AuditEntry) {
        unimplemented!()
    }
    /// For `status` and `log status`.
    pub fn status(&self) -> JournalStatus {
        unimplemented!()
    }
    /// Reads every usage fact on disk that lies beyond the given ledger positions. Blocks.
    pub fn unsettled_usage(&self, _ledger: &HashMap<Uuid, u64>, _each: &mut dyn FnMut(UsageFact)) {
        unimplemented!()
    }
    /// Commits everything recorded so far, closes the segments and stops. Blocks.
    pub fn shutdown(&self) -> Result<(), Full> {
        unimplemented!()
    }
    /// Bytes on disk by lane.
    pub fn bytes(&self, _lane: Lane) -> u64 {
        unimplemented!()
    }
}
