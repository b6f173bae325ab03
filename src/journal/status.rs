//! What the journal says of itself, for `status` and `log status`.

use std::sync::atomic::Ordering;

use serde::Serialize;

use super::{Commit, Journal};
use crate::metrics::LaneLabel;
use crate::model::fact::Lane;

/// What `status` says of one lane.
#[derive(Clone, Debug, Serialize)]
pub struct LaneStatus {
    /// `state`, `usage` or `events`.
    pub lane: &'static str,
    /// Segments on disk, settled ones in their retention included.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Chunks that are not known to be in Postgres.
    pub unsettled_chunks: u64,
    /// Facts in those chunks.
    pub unsettled_facts: u64,
    /// Age of the oldest segment that is not settled.
    pub oldest_seconds: Option<f64>,
    /// Facts refused since the start, because there was no room or the disk failed.
    pub rejected: u64,
    /// Facts dropped since the start: under `drop_and_count`, and events that yielded.
    pub dropped: u64,
}

/// What `status` and `log status` say.
#[derive(Clone, Debug, Serialize)]
pub struct JournalStatus {
    /// By lane.
    pub lanes: Vec<LaneStatus>,
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes left to `max_bytes`.
    pub bytes_left: u64,
    /// Whether facts are refused or dropped at the moment.
    pub full: bool,
    /// Whether the disk is full: the ballast was let go and cannot be made again.
    pub disk_full: bool,
    /// Bytes free on the disk; none where that cannot be asked.
    pub disk_free: Option<u64>,
    /// Whether the disk fails at the moment.
    pub failing: bool,
    /// What was set aside as damaged, by directory name below `quarantine/`.
    pub quarantined: Vec<String>,
    /// Counters that wait for their commit.
    pub pending: u64,
    /// The longest that a counted request may not be on disk yet, while the disk works.
    pub worst_case_loss_seconds: f64,
}

impl Journal {
    /// What is in the journal, and how far its bounds are.
    pub fn status(&self) -> JournalStatus {
        let lanes: Vec<_> = Lane::ALL.into_iter().map(|lane| self.lane_status(lane)).collect();
        let bytes = lanes.iter().map(|lane| lane.bytes).sum::<u64>();
        JournalStatus {
            lanes,
            bytes,
            bytes_left: self.config.max_bytes.0.saturating_sub(bytes),
            full: !self.has_room(),
            disk_full: self.shared.disk_full.load(Ordering::Relaxed),
            disk_free: crate::disk::free_bytes(&self.dir).ok(),
            failing: self.shared.is_hopeless(),
            quarantined: self.quarantined(),
            pending: self.pending() as u64,
            worst_case_loss_seconds: match self.config.commit {
                Commit::BeforeReply => 0.0,
                Commit::Interval => self.config.interval.0.as_secs_f64(),
            },
        }
    }

    fn quarantined(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.with_file_name("quarantine"));
        let entries = entries.into_iter().flatten().filter_map(Result::ok);
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    fn lane_status(&self, lane: Lane) -> LaneStatus {
        let now = self.clock.0.now();
        let segments = self.segments(lane);
        let unsettled = |s: &&std::sync::Arc<super::Segment>| s.applied_seq() < s.durable_seq();
        LaneStatus {
            lane: lane.as_str(),
            segments: segments.len() as u64,
            bytes: segments.iter().map(|s| crate::disk::bytes_below(s.dir())).sum(),
            unsettled_chunks: (segments.iter())
                .map(|s| s.durable_seq().saturating_sub(s.applied_seq()))
                .sum(),
            unsettled_facts: segments.iter().map(|s| s.unsettled_facts()).sum(),
            oldest_seconds: (segments.iter().filter(unsettled))
                .map(|s| now.since(s.born()).as_secs_f64())
                .reduce(f64::max),
            rejected: self.metrics.journal.rejected.get_or_create(&LaneLabel::of(lane)).get(),
            dropped: self.metrics.journal.dropped.get_or_create(&LaneLabel::of(lane)).get(),
        }
    }
}
