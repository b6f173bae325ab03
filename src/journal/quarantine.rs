//! Quarantine: segments that cannot be read are moved out of the way and never deleted. Beside each
//! stands a report of what is missing with it.
//!
//! A name ends in the stream. Copies of one stream are told apart by a number before it:
//! `usage-<stream>`, `usage-2-<stream>`.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::segment::End;
use super::{Journal, Missing, Segment, SegmentError};
use crate::disk;
use crate::metrics::LaneLabel;
use crate::model::fact::{Fact, Lane, StateFact};

/// Says which state facts are in force and not settled.
pub type InForce<'a> = &'a dyn Fn() -> Vec<StateFact>;

/// What is known of a segment that was set aside; kept beside it, in `quarantine/<name>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The directory's name below `quarantine/`.
    pub name: String,
    /// `state`, `usage` or `events`; empty for what is no segment.
    pub lane: String,
    /// The stream.
    pub stream: Option<Uuid>,
    /// When it was set aside, RFC 3339.
    pub set_aside_at: String,
    /// Why.
    pub reason: String,
    /// Where it ends, if that is known.
    pub last_seq: Option<u64>,
    /// Up to here it was known to be in Postgres at that time; the ledger knows better
    /// (`gatepost log verify`).
    pub applied_seq: u64,
    /// What is not known to be counted.
    pub missing: Missing,
}

impl Report {
    /// Whether something was missing although Postgres had been sent all to the end: the ledger
    /// passes over what is known to be missing.
    pub fn passed_a_gap(&self) -> bool {
        self.missing.chunks > 0 && self.last_seq.is_some_and(|end| self.applied_seq >= end)
    }

    /// For a directory without a report.
    fn unknown(name: String) -> Self {
        let (lane, stream) = lane_and_stream(&name).unzip();
        Self {
            name,
            lane: lane.map_or("", Lane::as_str).into(),
            stream,
            set_aside_at: String::new(),
            reason: String::new(),
            last_seq: None,
            applied_seq: 0,
            missing: Missing::default(),
        }
    }
}

/// The lane and stream that a directory's name tells, `usage-<stream>` or `usage-2-<stream>`.
pub(super) fn lane_and_stream(name: &str) -> Option<(Lane, Uuid)> {
    let (lane, rest) = name.strip_prefix(REPLAYED).unwrap_or(name).split_once('-')?;
    let lane = Lane::ALL.into_iter().find(|known| known.as_str() == lane)?;
    Some((lane, stream_of(rest)?))
}

/// The stream that a directory's name ends in.
pub(super) fn stream_of(name: &str) -> Option<Uuid> {
    name.get(stream_at(name)..)?.parse().ok()
}

/// Where the stream begins in a name that ends in one.
fn stream_at(name: &str) -> usize {
    const UUID_LEN: usize = 36;
    name.len().saturating_sub(UUID_LEN)
}

/// `name`, or with the first number before its stream that makes it free: neither a directory nor
/// a report may be written over.
fn free_name(quarantine: &Path, name: &str) -> String {
    let is_taken = |name: &str| {
        let dir = quarantine.join(name);
        report_of(&dir).exists() || dir.exists()
    };
    let (before, stream) = name.split_at_checked(stream_at(name)).unwrap_or((name, ""));
    let (mut free, mut copies) = (name.to_owned(), 1);
    while is_taken(&free) {
        copies += 1;
        free = format!("{before}{copies}-{stream}");
    }
    free
}

/// The report beside a directory.
fn report_of(dir: &Path) -> PathBuf {
    dir.with_added_extension("json")
}

/// The directory, beside the journal's.
pub(super) const QUARANTINE: &str = "quarantine";

/// Before the names of directories whose facts are in the journal again.
pub(super) const REPLAYED: &str = "replayed-";

impl Journal {
    /// Where damaged segments go.
    pub(super) fn quarantine_dir(&self) -> PathBuf {
        self.dir.with_file_name(QUARANTINE)
    }

    /// Whether a directory stands in quarantine, however its path is written.
    pub(super) fn is_in_quarantine(&self, dir: &Path) -> bool {
        let parent = dir.canonicalize().ok().and_then(|dir| dir.parent().map(Path::to_owned));
        parent.is_some() && parent == self.quarantine_dir().canonicalize().ok()
    }

    /// Moves a segment that cannot be read out of the way; it is never deleted. What can be read of
    /// state facts, and what is `in_force`, is logged again before: it must not end with its
    /// segment. Blocks.
    ///
    /// # Errors
    /// When it cannot be logged; then the segment stays where it is.
    pub fn quarantine(
        &self,
        segment: &Segment,
        error: &SegmentError,
        in_force: InForce<'_>,
    ) -> Result<(), SegmentError> {
        if segment.lane == Lane::State {
            let mut facts = segment.remains();
            facts.extend(in_force().into_iter().map(Fact::State));
            self.salvage(&facts)?;
        }
        self.put_aside(segment, error);
        Ok(())
    }

    /// As [`Journal::quarantine`], of what holds no state, or whose state is logged again.
    pub(super) fn put_aside(&self, segment: &Segment, error: &SegmentError) {
        segment.release();
        let (applied, end) = (segment.applied(), segment.end());
        if self.set_aside(segment.lane, segment.stream, segment.dir(), end, applied, error) {
            self.shared.streams().retain(|known| known.stream != segment.stream);
            self.shared.list();
        } else {
            // Nobody reads it before the next start, and it stays on the list.
            segment.strand();
        }
    }

    /// Moves a segment's directory out of the way, and reports what is missing with it. Whether it
    /// could be moved.
    pub(super) fn set_aside(
        &self,
        lane: Lane,
        stream: Uuid,
        dir: &Path,
        known: Option<End>,
        applied: Applied,
        error: &SegmentError,
    ) -> bool {
        let quarantine = self.quarantine_dir();
        let name = free_name(&quarantine, &format!("{}-{stream}", lane.as_str()));
        let to = quarantine.join(&name);
        let end = known.or_else(|| End::read(dir).ok().flatten());
        let report = Report {
            name,
            lane: lane.as_str().into(),
            stream: Some(stream),
            set_aside_at: self.clock.0.now().to_string(),
            reason: error.to_string(),
            last_seq: end.map(|end| end.last_seq),
            applied_seq: applied.seq,
            missing: not_counted(end, applied, error),
        };
        let moved = disk::make_private_dir(&quarantine).and_then(|()| match error {
            // An empty one stands for it, with the report.
            SegmentError::Gone => disk::make_private_dir(&to),
            _ => fs::rename(dir, &to),
        });
        let away = moved.is_ok();
        let moved = moved.and_then(|()| disk::sync_dir(&quarantine));
        let moved = moved.and_then(|()| write_report(&quarantine, &report)).err();
        self.metrics.journal.quarantined.get_or_create(&LaneLabel::of(lane)).inc();
        tracing::error!(
            %stream, lane = lane.as_str(), %error, to = %to.display(),
            missing_chunks = report.missing.chunks,
            missing_facts = report.missing.facts,
            at_least = !report.missing.exact,
            failed = moved.map(tracing::field::display),
            "segment is damaged and was set aside; its unsettled facts are not counted"
        );
        away
    }

    /// What was set aside, the newest last.
    pub fn quarantined(&self) -> Vec<Report> {
        let dir = self.quarantine_dir();
        let mut reports: Vec<_> =
            self.names_aside().into_iter().map(|name| read_report(&dir, name)).collect();
        reports.sort_by(|a, b| (&a.set_aside_at, &a.name).cmp(&(&b.set_aside_at, &b.name)));
        reports
    }

    /// The names below `quarantine/`, without what was replayed, in order.
    pub(super) fn names_aside(&self) -> Vec<String> {
        let entries = fs::read_dir(self.quarantine_dir()).into_iter().flatten();
        let dirs = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let names = dirs.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let seen = names.filter(|name| !name.starts_with('.') && !name.starts_with(REPLAYED));
        let mut names: Vec<_> = seen.collect();
        names.sort_unstable();
        names
    }

    /// A segment in quarantine that was replayed gets a name that says so. Returns where it is now;
    /// whatever stands elsewhere stays there.
    pub(super) fn put_away(&self, source: &Path) -> PathBuf {
        let quarantine = self.quarantine_dir();
        let name = source.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !self.is_in_quarantine(source) || name.starts_with(REPLAYED) {
            return source.to_owned();
        }
        let to = quarantine.join(free_name(&quarantine, &format!("{REPLAYED}{name}")));
        match fs::rename(source, &to) {
            Ok(()) => {
                // A report may be missing.
                drop(fs::rename(report_of(source), report_of(&to)));
                to
            }
            Err(error) => {
                tracing::warn!(%error, dir = %source.display(), "it stays where it is");
                source.to_owned()
            }
        }
    }
}

/// How far a segment is applied.
#[derive(Clone, Copy, Debug)]
pub(super) struct Applied {
    /// Up to this sequence number.
    seq: u64,
    /// Facts up to there, where they were counted and none was missing.
    facts: Option<u64>,
}

impl Applied {
    /// Nothing is, as far as is known.
    pub(super) const NONE: Self = Self { seq: 0, facts: Some(0) };
}

impl Segment {
    /// How far it is applied.
    pub(super) fn applied(&self) -> Applied {
        let seq = self.applied_seq();
        let counted = self.tally().at(seq);
        Applied { seq, facts: counted.filter(|_| seq == 0 || self.missing().chunks == 0) }
    }
}

/// What is not known to be counted of a segment that is set aside because of `error`.
fn not_counted(end: Option<End>, applied: Applied, error: &SegmentError) -> Missing {
    let Some(end) = end else { return Missing::default() };
    match error {
        // The rest of it is in Postgres.
        SegmentError::Missing(missing) => *missing,
        _ => Missing {
            chunks: end.last_seq.saturating_sub(applied.seq),
            facts: applied.facts.map_or(0, |facts| end.facts.saturating_sub(facts)),
            exact: end.sealed && applied.facts.is_some(),
        },
    }
}

fn write_report(quarantine: &Path, report: &Report) -> std::io::Result<()> {
    let text = serde_json::to_vec_pretty(report)?;
    disk::write_whole(&report_of(&quarantine.join(&report.name)), &text)
}

/// A report that is missing or damaged leaves the directory's name.
fn read_report(quarantine: &Path, name: String) -> Report {
    let text = fs::read(report_of(&quarantine.join(&name)));
    let report = text.ok().and_then(|text| serde_json::from_slice::<Report>(&text).ok());
    report.filter(|report| report.name == name).unwrap_or_else(|| Report::unknown(name))
}
