//! The segments of earlier processes: found, believed, read, and set aside when they are damaged.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use super::foreign::READING;
use super::quarantine::Applied;
use super::segment::remains;
use super::writer::Writer;
use super::{Chunk, FactRef, Journal, JournalError, Missing, Page, Segment, SegmentError, merge};
use crate::codec::CodecError;
use crate::disk;
use crate::model::fact::{Fact, Lane, StateFact};

/// A segment that cannot be registered.
pub(super) struct Damaged {
    stream: Uuid,
    dir: PathBuf,
    error: SegmentError,
}

impl Journal {
    /// Registers the segments of earlier processes. Returns those with state facts that cannot be.
    pub(super) fn inherit(&self) -> Result<Vec<Damaged>, JournalError> {
        tidy(&self.dir, disk::NEW);
        tidy(&self.quarantine_dir(), READING);
        let mut damaged = Vec::new();
        for lane in Lane::ALL {
            let lane_dir = self.dir.join(lane.as_str());
            disk::make_private_dir(&lane_dir).map_err(self.io())?;
            tidy(&lane_dir, disk::GONE);
            tidy(&lane_dir, disk::NEW);
            let (streams, strangers) = self.entries(lane).map_err(self.io())?;
            for stranger in strangers {
                let path = stranger.display();
                tracing::error!(%path, "this is no segment, and nothing of it is counted");
            }
            let mut merges = merge::finish(&lane_dir, lane, &streams);
            disk::sync_dir(&lane_dir).map_err(self.io())?;
            for stream in streams {
                if merges.counted.contains(&stream) {
                    continue;
                }
                let dir = lane_dir.join(stream.to_string());
                let known = merges.unreadable.remove(&stream).map_or(Ok(false), Err);
                let inherited = match known.and_then(|_| Segment::was_never_made(&dir)) {
                    Ok(true) => continue,
                    Ok(false) => Segment::inherit(lane, stream, dir.clone(), self.reader.clone()),
                    Err(error) => Err(error),
                };
                match inherited {
                    Ok(segment) => self.shared.streams().push(Arc::new(segment)),
                    Err(SegmentError::Io(error)) => return Err(self.io()(error)),
                    Err(SegmentError::Codec(error @ CodecError::Newer(_))) => {
                        return Err(JournalError::Newer(error));
                    }
                    Err(error) if lane == Lane::State => {
                        damaged.push(Damaged { stream, dir, error });
                    }
                    Err(error) => {
                        self.set_aside(lane, stream, &dir, None, Applied::NONE, &error);
                    }
                }
            }
        }
        // A kill may have come between the making of these directories and their sync.
        disk::sync_dir(&self.dir).map_err(self.io())?;
        disk::sync_dir(self.dir.parent().unwrap_or(Path::new("."))).map_err(self.io())?;
        Ok(damaged)
    }

    /// What stands in a lane, in order: streams, and what no segment is called.
    fn entries(&self, lane: Lane) -> io::Result<(Vec<Uuid>, Vec<PathBuf>)> {
        let lane_dir = self.dir.join(lane.as_str());
        let (mut streams, mut strangers) = (Vec::new(), Vec::new());
        let entries = fs::read_dir(&lane_dir).map_err(disk::at(&lane_dir))?;
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let stream = name.parse::<Uuid>().ok().filter(|uuid| uuid.to_string() == *name);
            match stream.filter(|_| path.is_dir()) {
                Some(stream) => streams.push(stream),
                // Made or removed at this moment.
                None if name.starts_with('.') || !path.exists() => {}
                None => strangers.push(path),
            }
        }
        streams.sort_unstable();
        strangers.sort_unstable();
        Ok((streams, strangers))
    }

    /// What stands among the segments and is none: a segment under another name, for one, of which
    /// nothing is counted.
    pub fn strangers(&self) -> Vec<PathBuf> {
        let of = |lane| self.entries(lane).map(|(_, strangers)| strangers).unwrap_or_default();
        Lane::ALL.into_iter().flat_map(of).collect()
    }

    /// The state facts of earlier processes. What can be read of a damaged segment is logged again
    /// in a new one, before that one is set aside: state facts may be repeated, and a revocation
    /// must not end with its segment.
    pub(super) fn inherited_state(
        &self,
        damaged: Vec<Damaged>,
    ) -> Result<Vec<StateFact>, JournalError> {
        let mut facts = Vec::new();
        let inherited = self.segments(Lane::State);
        for Damaged { stream, dir, error } in damaged {
            let remains = remains(&self.reader, &dir, stream, u64::MAX);
            self.salvage_at_start(&dir, &remains)?;
            self.set_aside(Lane::State, stream, &dir, None, Applied::NONE, &error);
            facts.extend(remains);
        }
        for segment in inherited {
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
                    self.salvage_at_start(segment.dir(), &facts[before..])?;
                    self.put_aside(&segment, &error);
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

    /// Without room for them what is in `dir` stays where it is: the next start tries again.
    fn salvage_at_start(&self, dir: &Path, facts: &[Fact]) -> Result<(), JournalError> {
        let salvaged = self.salvage(facts).map_err(io::Error::other);
        salvaged.map_err(disk::at(dir)).map_err(self.io())
    }

    /// Logs facts of a damaged segment in a new one.
    pub(super) fn salvage(&self, facts: &[Fact]) -> Result<(), SegmentError> {
        if facts.is_empty() {
            return Ok(());
        }
        let stream = self.entropy.0.uuid_v7(self.clock.0.now());
        let lane_dir = self.dir.join(Lane::State.as_str());
        let born = self.clock.0.monotonic();
        let mut writer = Writer::create(&lane_dir, Lane::State, stream, &self.reader, born)?;
        writer.write(facts.iter().map(FactRef::from))?;
        writer.sync()?;
        writer.close()?;
        tracing::warn!(%stream, kept = facts.len(), "facts of a damaged segment are logged again");
        self.shared.streams().push(Arc::clone(writer.segment()));
        self.shared.list();
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
                Ok(missing) => self.report_missing(&segment, missing, Missing::NONE),
                // State was looked through before the first answer; what has become of it since is
                // for the drain to log again.
                Err(error) if error.is_damage() && segment.lane != Lane::State => {
                    self.put_aside(&segment, &error);
                }
                Err(error) => {
                    let stream = segment.stream;
                    tracing::warn!(%stream, %error, "a segment cannot be looked through yet");
                }
            }
            segment.release();
        }
        self.reader.rest();
    }

    /// Something is missing in a closed segment that was there before: looks it through once more,
    /// and reports it. Blocks.
    ///
    /// # Errors
    /// When it cannot be read any more.
    pub fn look_again(&self, segment: &Segment) -> Result<(), SegmentError> {
        let before = segment.missing();
        let missing = patiently(|| segment.examined_again())?;
        self.report_missing(segment, missing, before);
        Ok(())
    }

    /// A page, from a segment that is looked through once more where it is not as it was. Blocks.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn read_on(
        &self,
        segment: &Segment,
        after: u64,
        limit: usize,
    ) -> Result<Page, SegmentError> {
        match patiently(|| segment.read(after, limit)) {
            Err(SegmentError::Changed) if segment.is_closed() => {
                self.look_again(segment)?;
                patiently(|| segment.read(after, limit))
            }
            read => read,
        }
    }

    fn report_missing(&self, segment: &Segment, missing: Missing, before: Missing) {
        if missing.chunks == 0 || missing == before {
            return;
        }
        self.metrics.journal.missing.inc_by(missing.chunks.saturating_sub(before.chunks));
        tracing::error!(
            stream = %segment.stream,
            lane = segment.lane.as_str(),
            missing = missing.chunks,
            facts = missing.facts,
            at_least = !missing.exact,
            "sequence numbers are missing in a segment: its disk was damaged"
        );
    }
}

/// What cannot be removed has a name that nobody reads.
fn tidy(dir: &Path, prefix: &str) {
    if let Err(error) = disk::remove_starting_with(dir, prefix) {
        tracing::warn!(%error, "what an earlier process has left half done stays there");
    }
}

/// As [`disk::patiently`], for what a segment answers.
pub(super) fn patiently<T>(
    read: impl FnMut() -> Result<T, SegmentError>,
) -> Result<T, SegmentError> {
    disk::patiently(read, SegmentError::is_locked)
}
