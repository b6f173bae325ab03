//! The segments of earlier processes: found, believed, read, and set aside when they are damaged.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use super::{Journal, JournalError, Segment, SegmentError};
use crate::codec::CodecError;
use crate::disk::{self, StoreError};
use crate::model::fact::{Fact, Lane, StateFact};

impl Journal {
    /// Registers the segments of earlier processes.
    pub(super) fn inherit(&self) -> Result<(), JournalError> {
        for lane in Lane::ALL {
            let lane_dir = self.dir.join(lane.as_str());
            disk::make_private_dir(&lane_dir).map_err(self.io())?;
            disk::finish_removals(&lane_dir).map_err(self.io())?;
            disk::sync_dir(&lane_dir).map_err(self.io())?;
            let mut streams: Vec<Uuid> = fs::read_dir(&lane_dir)
                .map_err(self.io())?
                .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
                .collect();
            streams.sort_unstable();
            for stream in streams {
                let dir = lane_dir.join(stream.to_string());
                if Segment::was_never_made(&dir).map_err(self.io())? {
                    continue;
                }
                match Segment::inherit(lane, stream, dir.clone()) {
                    Ok(segment) => self.shared.streams().push(Arc::new(segment)),
                    Err(SegmentError::Io(error)) => return Err(self.io()(error)),
                    Err(SegmentError::Codec(error @ CodecError::Newer(_))) => {
                        return Err(JournalError::Newer(error));
                    }
                    Err(error) => self.set_aside(lane, stream, &dir, &error),
                }
            }
        }
        // A kill may have come between the making of these directories and their sync.
        disk::sync_dir(&self.dir).map_err(self.io())?;
        disk::sync_dir(self.dir.parent().unwrap_or(Path::new("."))).map_err(self.io())
    }

    pub(super) fn inherited_state(&self) -> Result<Vec<StateFact>, JournalError> {
        let mut facts = Vec::new();
        for segment in self.segments(Lane::State) {
            match patiently(|| segment.read(0, usize::MAX)) {
                Ok(page) => facts.extend(page.chunks.into_iter().flat_map(|chunk| chunk.facts)),
                Err(SegmentError::Store(StoreError::Locked)) => {
                    return Err(JournalError::Locked(segment.stream));
                }
                Err(error) => self.quarantine(&segment, &error),
            }
            segment.release();
        }
        let state = |fact| if let Fact::State(fact) = fact { Some(fact) } else { None };
        Ok(facts.into_iter().filter_map(state).collect())
    }

    /// Looks the inherited segments through: finds their ends and reports what is missing. Blocks;
    /// for a background thread after the start. Asked before each segment, `stop` ends it: the next
    /// start begins anew.
    pub fn examine(&self, stop: &dyn Fn() -> bool) {
        for segment in Lane::ALL.into_iter().flat_map(|lane| self.segments(lane)) {
            if stop() {
                return;
            }
            match patiently(|| segment.examined()) {
                Ok(0) => {}
                Ok(missing) => {
                    self.metrics.journal.missing.inc_by(missing);
                    tracing::error!(
                        stream = %segment.stream,
                        lane = segment.lane.as_str(),
                        missing,
                        "sequence numbers are missing in a segment: its disk was damaged"
                    );
                }
                Err(SegmentError::Store(StoreError::Locked)) => {}
                Err(error) => self.quarantine(&segment, &error),
            }
            segment.release();
        }
    }

    /// Moves a segment that cannot be read out of the way; it is never deleted.
    pub fn quarantine(&self, segment: &Segment, error: &SegmentError) {
        self.shared.streams().retain(|known| known.stream != segment.stream);
        segment.release();
        self.set_aside(segment.lane, segment.stream, segment.dir(), error);
    }

    pub(super) fn set_aside(&self, lane: Lane, stream: Uuid, dir: &Path, error: &SegmentError) {
        let quarantine = self.dir.with_file_name("quarantine");
        let to = quarantine.join(format!("{}-{stream}", lane.as_str()));
        let moved = disk::make_private_dir(&quarantine).and_then(|()| fs::rename(dir, &to));
        let moved = moved.and_then(|()| disk::sync_dir(&quarantine)).err();
        tracing::error!(
            %stream, lane = lane.as_str(), %error, to = %to.display(),
            move_failed = moved.map(tracing::field::display),
            "segment is damaged and was set aside; its unsettled facts are not counted"
        );
    }
}

/// As [`disk::patiently`], for what a segment answers.
pub(super) fn patiently<T>(read: impl Fn() -> Result<T, SegmentError>) -> Result<T, SegmentError> {
    disk::patiently(read, |error| matches!(error, SegmentError::Store(StoreError::Locked)))
}
