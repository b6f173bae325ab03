//! Replay: a segment from quarantine, or a copy of one, becomes part of the journal again.
//!
//! It is copied and looked through first, and only then takes its place, as a segment that an
//! earlier process left. From there on the ledger decides what of it is counted: it knows the
//! stream by its id, so that nothing is counted twice, however often, wherever and whenever it is
//! replayed. What no ledger can tell is refused: a stream that is here already, under its own name
//! or merged into another; and sums without a readable `end`, whose tail may have been logged
//! elsewhere. The source is never deleted.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use uuid::Uuid;

use super::foreign::{Foreign, LogError};
use super::merge::sources::{self, Source};
use super::segment::End;
use super::{Full, Journal, Missing, Place, Segment};
use crate::disk;
use crate::model::fact::{Fact, Lane, StateFact};

/// A segment that was copied and looked through. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Replay {
    /// Its lane.
    pub lane: Lane,
    /// Its stream.
    pub stream: Uuid,
    /// Where it ends.
    pub end: End,
    /// What is missing in it.
    pub missing: Missing,
    /// Its state facts: they come into force with it.
    pub state: Vec<StateFact>,
    stands_for: Arc<[Source]>,
    source: PathBuf,
    copy: PathBuf,
}

impl Replay {
    /// It took its place in `dir`, and must not stay there: the next start would believe it, and
    /// until then another attempt would find it in its way.
    fn take_back(&self, dir: &Path) {
        let taken = fs::rename(dir, &self.copy);
        let taken = taken.and_then(|()| disk::sync_dir(dir.parent().unwrap_or(Path::new("."))));
        if let Err(error) = taken {
            tracing::error!(%error, dir = %dir.display(), "a failed replay cannot be taken back");
        }
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        // Gone when it has taken its place; otherwise the next start removes it.
        drop(fs::remove_dir_all(&self.copy));
    }
}

impl Journal {
    /// Copies the segment that `what` names, and looks it through. Blocks.
    ///
    /// # Errors
    /// When it must not or cannot be replayed.
    pub fn prepare_replay(&self, what: &str) -> Result<Replay, LogError> {
        let foreign = match self.find(what)? {
            Place::Journal(segment) => return Err(LogError::Here(segment.stream)),
            Place::Aside(foreign) => foreign,
        };
        let sources = sources::read(&foreign.dir, foreign.stream).map_err(LogError::Sources)?;
        let sources = sources.unwrap_or_default();
        self.refuse_counted(foreign.stream, &sources)?;
        let bytes = disk::bytes_below(&foreign.dir);
        let taken = self.shared.disk_bytes.load(Ordering::Relaxed);
        if taken.saturating_add(bytes) > self.config.max_bytes.0 {
            return Err(Full.into());
        }
        let copy = self.dir.join(format!("{}{}", disk::NEW, foreign.stream));
        drop(fs::remove_dir_all(&copy));
        disk::make_private_dir(&copy)?;
        // From here on the copy is removed with it.
        let mut replay = Replay {
            lane: Lane::Usage,
            stream: foreign.stream,
            end: End { last_seq: 0, facts: 0, sealed: false },
            missing: Missing::NONE,
            state: Vec::new(),
            stands_for: sources,
            source: foreign.dir.clone(),
            copy,
        };
        disk::copy_dir(&foreign.dir, &replay.copy)?;
        self.look_through_replay(&foreign, &mut replay)?;
        Ok(replay)
    }

    fn look_through_replay(&self, foreign: &Foreign, replay: &mut Replay) -> Result<(), LogError> {
        let mut lanes = Vec::new();
        let end = foreign.end();
        let state = &mut replay.state;
        let look = &mut |chunk: super::Chunk| {
            for fact in chunk.facts {
                if !lanes.contains(&fact.lane()) {
                    lanes.push(fact.lane());
                }
                if let Fact::State(fact) = fact {
                    state.push(fact);
                }
            }
            ControlFlow::Continue(())
        };
        let (found, read) = self.look_at_copy(&replay.copy, foreign.stream, end, look);
        read.map_err(LogError::Unreadable)?;
        replay.lane = match lanes[..] {
            [lane] => lane,
            [] => return Err(LogError::Unreadable(super::SegmentError::Missing(Missing::NONE))),
            _ => return Err(LogError::Mixed),
        };
        if replay.lane.is_sum() && end.is_none() {
            return Err(LogError::NoEnd(foreign.stream));
        }
        let open = End { last_seq: found.last_seq, facts: found.facts, sealed: false };
        replay.end = end.unwrap_or(open);
        replay.missing = found.missing(replay.end);
        Ok(())
    }

    /// Refuses a stream whose facts the journal holds, under its own name or in a stream that it
    /// was merged into; and one that was merged of such streams.
    fn refuse_counted(&self, stream: Uuid, stands_for: &[Source]) -> Result<(), LogError> {
        for stream in stands_for.iter().map(|source| source.stream).chain([stream]) {
            if self.shared.streams().iter().any(|segment| segment.stream == stream) {
                return Err(LogError::Here(stream));
            }
            if let Some(into) = self.merged_into(stream) {
                return Err(LogError::Merged { stream, into });
            }
        }
        Ok(())
    }

    /// The stream of this journal that holds the facts of `stream`, because it was merged into it.
    pub(super) fn merged_into(&self, stream: Uuid) -> Option<Uuid> {
        let stands_for =
            |segment: &Segment| segment.sources().iter().any(|source| source.stream == stream);
        let streams = self.shared.streams();
        streams.iter().find(|segment| stands_for(segment)).map(|segment| segment.stream)
    }

    /// Lets a replay take its place. State facts must be pinned before: from now on it may drain.
    /// Returns where the source is now. Blocks.
    ///
    /// # Errors
    /// When its stream has come meanwhile, or the disk fails: then nothing of it is here, and it
    /// can be tried again.
    pub fn replay(&self, replay: &Replay) -> Result<PathBuf, LogError> {
        self.refuse_counted(replay.stream, &replay.stands_for)?;
        let lane_dir = self.dir.join(replay.lane.as_str());
        let dir = lane_dir.join(replay.stream.to_string());
        disk::secure(&replay.copy)?;
        fs::rename(&replay.copy, &dir).map_err(disk::at(&dir))?;
        let synced = disk::sync_dir(&lane_dir).map_err(LogError::from);
        let inherited = synced.and_then(|()| {
            Segment::inherit(replay.lane, replay.stream, dir.clone(), self.reader.clone())
                .map_err(LogError::Unreadable)
        });
        let segment = inherited.inspect_err(|_| replay.take_back(&dir))?;
        self.shared.streams().push(Arc::new(segment));
        self.shared.list();
        tracing::info!(
            stream = %replay.stream, lane = replay.lane.as_str(), facts = replay.end.facts,
            source = %replay.source.display(), "a segment is replayed"
        );
        Ok(self.put_away(&replay.source))
    }
}
