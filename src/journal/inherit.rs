//! The segments of earlier processes: found, believed, read, and set aside when they are damaged.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use super::foreign::READING;
use super::quarantine::Applied;
use super::writer::Writer;
use super::{Chunk, FactRef, Journal, JournalError, Missing, Segment, SegmentError, merge};
use crate::codec::CodecError;
use crate::disk;
use crate::model::fact::{Fact, Lane, StateFact};

impl Journal {
    /// Registers the segments of earlier processes.
    pub(super) fn inherit(&self) -> Result<(), JournalError> {
        disk::remove_starting_with(&self.dir, disk::NEW).map_err(self.io())?;
        disk::remove_starting_with(&self.quarantine_dir(), READING).map_err(self.io())?;
        for lane in Lane::ALL {
            let lane_dir = self.dir.join(lane.as_str());
            disk::make_private_dir(&lane_dir).map_err(self.io())?;
            disk::finish_removals(&lane_dir).map_err(self.io())?;
            merge::finish(&lane_dir, lane).map_err(self.io())?;
            disk::sync_dir(&lane_dir).map_err(self.io())?;
            let mut streams: Vec<Uuid> = fs::read_dir(&lane_dir)
                .map_err(disk::at(&lane_dir))
                .map_err(self.io())?
                .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
                .collect();
            streams.sort_unstable();
            for stream in streams {
                let dir = lane_dir.join(stream.to_string());
                if Segment::was_never_made(&dir).map_err(self.io())? {
                    continue;
                }
                match Segment::inherit(lane, stream, dir.clone(), self.reader.clone()) {
                    Ok(segment) => self.shared.streams().push(Arc::new(segment)),
                    Err(SegmentError::Io(error)) => return Err(self.io()(error)),
                    Err(SegmentError::Codec(error @ CodecError::Newer(_))) => {
                        return Err(JournalError::Newer(error));
                    }
                    Err(error) => self.set_aside(lane, stream, &dir, Applied::NONE, &error),
                }
            }
        }
        // A kill may have come between the making of these directories and their sync.
        disk::sync_dir(&self.dir).map_err(self.io())?;
        disk::sync_dir(self.dir.parent().unwrap_or(Path::new("."))).map_err(self.io())
    }

    /// The state facts of earlier processes. What can be read of a damaged segment is logged again
    /// in a new one, before that one is set aside: state facts may be repeated, and a revocation
    /// must not end with its segment.
    pub(super) fn inherited_state(&self) -> Result<Vec<StateFact>, JournalError> {
        let mut facts = Vec::new();
        for segment in self.segments(Lane::State) {
            let before = facts.len();
            let mut each = |chunk: Chunk| {
                facts.extend(chunk.facts);
                ControlFlow::Continue(())
            };
            match patiently(|| segment.first_look(&mut each)) {
                Ok(()) => {}
                Err(error) if error.is_locked() => {
                    return Err(JournalError::Locked(segment.stream));
                }
                Err(SegmentError::Codec(error @ CodecError::Newer(_))) => {
                    return Err(JournalError::Newer(error));
                }
                Err(error) if error.is_damage() => {
                    // Without room for them it stays where it is: the next start tries again.
                    let salvaged = self.salvage(&facts[before..]);
                    let dir = segment.dir();
                    salvaged
                        .map_err(std::io::Error::other)
                        .map_err(disk::at(dir))
                        .map_err(self.io())?;
                    self.quarantine(&segment, &error);
                }
                // It names the file.
                Err(SegmentError::Io(error)) => return Err(self.io()(error)),
                Err(error) => {
                    let error = disk::at(segment.dir())(std::io::Error::other(error));
                    return Err(self.io()(error));
                }
            }
            segment.release();
        }
        self.reader.rest();
        let state = |fact| if let Fact::State(fact) = fact { Some(fact) } else { None };
        Ok(facts.into_iter().filter_map(state).collect())
    }

    /// Logs facts of a damaged segment in a new one. For a start, before the journal thread runs.
    fn salvage(&self, facts: &[Fact]) -> Result<(), SegmentError> {
        if facts.is_empty() {
            return Ok(());
        }
        let stream = self.entropy.0.uuid_v7(self.clock.0.now());
        let lane_dir = self.dir.join(Lane::State.as_str());
        let born = self.clock.0.monotonic();
        let mut writer = Writer::create(&lane_dir, Lane::State, stream, born)?;
        writer.write(facts.iter().map(FactRef::from))?;
        writer.sync()?;
        writer.close()?;
        tracing::warn!(%stream, kept = facts.len(), "facts of a damaged segment are logged again");
        self.shared.streams().push(Arc::clone(writer.segment()));
        Ok(())
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
                Ok(Missing { chunks: 0, .. }) => {}
                Ok(missing) => {
                    self.metrics.journal.missing.inc_by(missing.chunks);
                    tracing::error!(
                        stream = %segment.stream,
                        lane = segment.lane.as_str(),
                        missing = missing.chunks,
                        facts = missing.facts,
                        at_least = !missing.exact,
                        "sequence numbers are missing in a segment: its disk was damaged"
                    );
                }
                Err(error) if error.is_damage() => self.quarantine(&segment, &error),
                Err(error) => {
                    let stream = segment.stream;
                    tracing::warn!(%stream, %error, "a segment cannot be looked through yet");
                }
            }
            segment.release();
        }
        self.reader.rest();
    }
}

/// As [`disk::patiently`], for what a segment answers.
pub(super) fn patiently<T>(
    read: impl FnMut() -> Result<T, SegmentError>,
) -> Result<T, SegmentError> {
    disk::patiently(read, SegmentError::is_locked)
}
