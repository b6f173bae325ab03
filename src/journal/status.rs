//! What the journal says of itself, for `status` and `log status`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Serialize;
use uuid::Uuid;

use super::{Commit, Journal, Missing, Report, Segment};
use crate::metrics::{EventLabel, LaneLabel};
use crate::model::Timestamp;
use crate::model::fact::Lane;

/// What `status` says of one lane.
#[derive(Clone, Debug, Serialize)]
pub struct LaneStatus {
    /// `state`, `quota`, `usage` or `events`.
    pub lane: &'static str,
    /// Segments on disk, settled ones in their retention included.
    pub segments: u64,
    /// Of these, those that others were merged into.
    pub merged: u64,
    /// Of these, those that earlier processes left and that are not settled. Of quotas and usage
    /// they are not merged before Postgres answers: each start may leave another.
    pub inherited: u64,
    /// Their bytes.
    pub inherited_bytes: u64,
    /// Bytes of all segments.
    pub bytes: u64,
    /// Chunks that are not known to be in Postgres.
    pub unsettled_chunks: u64,
    /// Facts in those chunks; too many, never too few, of a segment that an earlier process drained
    /// in part.
    pub unsettled_facts: u64,
    /// Age of the oldest segment that is not settled.
    pub oldest_seconds: Option<f64>,
    /// What was found missing in its segments.
    pub missing: Missing,
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
    /// Bytes on disk, those of events apart.
    pub bytes: u64,
    /// Bytes left to `max_bytes`.
    pub bytes_left: u64,
    /// Bytes that events may still take, up to `events_max_bytes`.
    pub event_bytes_left: u64,
    /// Whether facts are refused or dropped at the moment.
    pub full: bool,
    /// Whether the disk is full: the ballast was let go and cannot be made again.
    pub disk_full: bool,
    /// Bytes free on the disk; none where that cannot be asked.
    pub disk_free: Option<u64>,
    /// Whether the disk fails at the moment.
    pub failing: bool,
    /// What was set aside as damaged, and what is missing with it.
    pub quarantined: Vec<Report>,
    /// Bytes in quarantine, which no bound counts.
    pub quarantine_bytes: u64,
    /// Events that yielded since the start, by kind.
    pub events_dropped: BTreeMap<&'static str, u64>,
    /// Counters that wait for their commit.
    pub pending: u64,
    /// How many may: `max_pending`.
    pub pending_max: u64,
    /// The longest that a counted request may not be on disk yet, while the disk works.
    pub worst_case_loss_seconds: f64,
}

/// What `log status` says of one stream.
#[derive(Clone, Debug, Serialize)]
pub struct StreamStatus {
    /// Its lane.
    pub lane: &'static str,
    /// Its id.
    pub stream: Uuid,
    /// When it began.
    pub born: Timestamp,
    /// Its bytes on disk.
    pub bytes: u64,
    /// Chunks on disk, as far as they are known.
    pub chunks: u64,
    /// Of these, known to be in Postgres.
    pub applied_chunks: u64,
    /// Facts that are not known to be in Postgres.
    pub unsettled_facts: u64,
    /// `open`, `closed`, `blocked` when Postgres knows another end of it, or `restart` when a merge
    /// of it was left half made and cannot be removed, or it is damaged and cannot be set aside:
    /// the next start does so.
    pub state: &'static str,
    /// Whether a transaction may have carried some of it.
    pub sent: bool,
    /// What was found missing in it.
    pub missing: Missing,
}

impl Journal {
    /// The streams of the journal, state before usage before events, oldest first; of each lane at
    /// most `limit`.
    pub fn streams(&self, limit: usize) -> Vec<StreamStatus> {
        let first = |lane| self.segments(lane).into_iter().take(limit);
        let segments = Lane::ALL.into_iter().flat_map(first);
        let status = |segment: Arc<Segment>| StreamStatus {
            lane: segment.lane.as_str(),
            stream: segment.stream,
            born: segment.born(),
            bytes: crate::disk::bytes_below(segment.dir()),
            chunks: segment.durable_seq(),
            applied_chunks: segment.applied_seq(),
            unsettled_facts: segment.unsettled_facts(),
            state: match (segment.is_blocked(), segment.is_closed()) {
                _ if segment.is_stranded() => "restart",
                (true, _) => "blocked",
                (false, true) => "closed",
                (false, false) => "open",
            },
            sent: segment.is_sent(),
            missing: segment.missing(),
        };
        segments.map(status).collect()
    }

    /// What is in the journal, and how far its bounds are.
    pub fn status(&self) -> JournalStatus {
        let lanes: Vec<_> = Lane::ALL.into_iter().map(|lane| self.lane_status(lane)).collect();
        let (events, others): (Vec<_>, Vec<_>) =
            lanes.iter().partition(|status| status.lane == Lane::Events.as_str());
        let sum = |lanes: Vec<&LaneStatus>| lanes.iter().map(|lane| lane.bytes).sum::<u64>();
        let (bytes, events) = (sum(others), sum(events));
        JournalStatus {
            bytes,
            bytes_left: self.config.max_bytes.0.saturating_sub(bytes),
            event_bytes_left: self.config.events_max_bytes.0.saturating_sub(events),
            lanes,
            full: !self.has_room(),
            disk_full: self.shared.disk_full.load(Ordering::Relaxed),
            disk_free: crate::disk::free_bytes(&self.dir).ok(),
            failing: self.shared.is_hopeless(),
            quarantined: self.quarantined(),
            quarantine_bytes: crate::disk::bytes_below(&self.quarantine_dir()),
            events_dropped: self.events_dropped(),
            pending: self.pending() as u64,
            pending_max: self.config.max_pending as u64,
            worst_case_loss_seconds: match self.config.commit {
                Commit::BeforeReply => 0.0,
                Commit::Interval => self.config.interval.0.as_secs_f64(),
            },
        }
    }

    fn events_dropped(&self) -> BTreeMap<&'static str, u64> {
        let dropped = |kind| {
            let label = EventLabel { kind };
            (kind, self.metrics.journal.events_dropped.get_or_create(&label).get())
        };
        ["audit", "auth_attempt", "admission", "request"].map(dropped).into()
    }

    fn lane_status(&self, lane: Lane) -> LaneStatus {
        let now = self.clock.0.now();
        let segments = self.segments(lane);
        let (inherited, inherited_bytes) = self.shared.inherited(lane);
        let unsettled = |s: &&std::sync::Arc<super::Segment>| s.applied_seq() < s.durable_seq();
        LaneStatus {
            lane: lane.as_str(),
            segments: segments.len() as u64,
            merged: segments.iter().filter(|s| !s.sources().is_empty()).count() as u64,
            inherited,
            inherited_bytes,
            bytes: segments.iter().map(|s| crate::disk::bytes_below(s.dir())).sum(),
            unsettled_chunks: (segments.iter())
                .map(|s| s.durable_seq().saturating_sub(s.applied_seq()))
                .sum(),
            unsettled_facts: segments.iter().map(|s| s.unsettled_facts()).sum(),
            oldest_seconds: (segments.iter().filter(unsettled))
                .map(|s| now.since(s.born()).as_secs_f64())
                .reduce(f64::max),
            missing: segments.iter().fold(Missing::NONE, |sum, s| sum.and(s.missing())),
            rejected: self.metrics.journal.rejected.get_or_create(&LaneLabel::of(lane)).get(),
            dropped: self.metrics.journal.dropped.get_or_create(&LaneLabel::of(lane)).get(),
        }
    }
}
