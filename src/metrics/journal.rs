//! Metrics of the journal.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::model::fact::Lane;

/// Which kind of event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EventLabel {
    /// `audit`, `auth_attempt`, `admission` or `request`.
    pub kind: &'static str,
}

/// Which lane.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LaneLabel {
    /// `state`, `quota`, `usage` or `events`.
    pub lane: &'static str,
}

impl LaneLabel {
    /// The label of a lane.
    pub fn of(lane: Lane) -> Self {
        Self { lane: lane.as_str() }
    }
}

metrics! {
    /// The write-behind log.
    pub struct JournalMetrics {
        /// Entries written to chunks, by lane; one per distinct counter and window.
        pub entries: Family<LaneLabel, Counter> = Family::default() => "journal_entries",
        /// Chunks written.
        pub chunks: Counter = Counter::default() => "journal_chunks",
        /// Bytes of chunks written.
        pub bytes_written: Counter = Counter::default() => "journal_written_bytes",
        /// Commits that reached the disk.
        pub commits: Counter = Counter::default() => "journal_commits",
        /// Time of one commit: write, flush and sync.
        pub commit_duration: Histogram = Histogram::new(exponential_buckets(0.000_05, 2.0, 16))
            => "journal_commit_duration_seconds",
        /// Segments ended early because of an I/O error.
        pub segments_failed: Counter = Counter::default() => "journal_segments_failed",
        /// Bytes of all segments on disk, those of events apart.
        pub bytes: Gauge = Gauge::default() => "journal_bytes",
        /// 1 while the disk is full: the ballast was let go and cannot be made again.
        pub disk_full: Gauge = Gauge::default() => "journal_disk_full",
        /// Bytes left to `journal.max_bytes`.
        pub bytes_left: Gauge = Gauge::default() => "journal_bytes_left",
        /// Bytes of segments of events on disk.
        pub event_bytes: Gauge = Gauge::default() => "journal_event_bytes",
        /// Bytes left to `journal.events_max_bytes`.
        pub event_bytes_left: Gauge = Gauge::default() => "journal_event_bytes_left",
        /// Segments on disk.
        pub segments: Gauge = Gauge::default() => "journal_segments",
        /// Segments of earlier processes with sums that are not settled, by lane: while Postgres is
        /// away they are not merged.
        pub inherited_segments: Family<LaneLabel, Gauge> = Family::default()
            => "journal_inherited_segments",
        /// Their bytes.
        pub inherited_bytes: Family<LaneLabel, Gauge> = Family::default()
            => "journal_inherited_bytes",
        /// Bytes in quarantine, which no bound counts.
        pub quarantine_bytes: Gauge = Gauge::default() => "journal_quarantine_bytes",
        /// Facts refused because the journal was full or failing.
        pub rejected: Family<LaneLabel, Counter> = Family::default() => "journal_rejected",
        /// Facts dropped under `on_full = "drop_and_count"`, and events that yielded.
        pub dropped: Family<LaneLabel, Counter> = Family::default() => "journal_dropped",
        /// Events that yielded, by kind.
        pub events_dropped: Family<EventLabel, Counter> = Family::default()
            => "journal_events_dropped",
        /// Sequence numbers found missing while reading segments.
        pub missing: Counter = Counter::default() => "journal_missing_sequences",
        /// Merges of a long backlog.
        pub merges: Counter = Counter::default() => "journal_merges",
        /// Segments that were merged into another.
        pub merged_segments: Counter = Counter::default() => "journal_merged_segments",
        /// Bytes of segments that were merged into another.
        pub merged_bytes_read: Counter = Counter::default() => "journal_merge_read_bytes",
        /// Bytes of segments that others were merged into.
        pub merged_bytes_written: Counter = Counter::default() => "journal_merge_written_bytes",
        /// Audit entries that dropped out of a journal that was never attached to Postgres.
        pub events_expired: Counter = Counter::default() => "journal_events_expired",
        /// Segments set aside because they are damaged, by lane.
        pub quarantined: Family<LaneLabel, Counter> = Family::default() => "journal_quarantined",
    }
}
