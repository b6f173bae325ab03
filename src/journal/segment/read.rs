//! The reading side of a segment: looked through once when it is inherited, then read in pages.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::looked::{Gaps, Looked};
use super::traces::Traces;
use super::{End, Segment, SegmentError};
use crate::codec::CodecError;
use crate::journal::chunk::Chunk;
use crate::journal::lock;
use crate::journal::merge::sources::Sum;
use crate::journal::reader::{Frames, Reader};
use crate::model::fact::{Fact, Lane};

/// Some chunks of a segment.
#[derive(Clone, Debug)]
pub struct Page {
    /// In the order of their sequence numbers.
    pub chunks: Vec<Chunk>,
    /// Everything up to here was looked at, missing numbers included.
    pub reached: u64,
}

/// What is missing in a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Sequence numbers without a readable chunk.
    pub chunks: u64,
    /// Facts in those chunks, as far as that is known.
    pub facts: u64,
    /// Whether that is all. Otherwise it is the least: the segment's writer was killed before it
    /// could say where the segment ends.
    pub exact: bool,
}

impl Missing {
    /// Nothing is missing.
    pub const NONE: Self = Self { chunks: 0, facts: 0, exact: true };

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            chunks: self.chunks.saturating_add(other.chunks),
            facts: self.facts.saturating_add(other.facts),
            exact: self.exact && (other.exact || other.chunks == 0),
        }
    }
}

/// What a look through a segment's frames found.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::journal) struct Found {
    /// Readable chunks.
    pub chunks: u64,
    /// Facts in them.
    pub facts: u64,
    /// The last sequence number, readable or not.
    pub last_seq: u64,
    /// The last one that is readable.
    pub readable_seq: u64,
}

impl Found {
    /// What is missing if the segment ends, or was found to end, at `end`.
    pub fn missing(&self, end: End) -> Missing {
        Missing {
            chunks: end.last_seq.saturating_sub(self.chunks),
            facts: end.facts.saturating_sub(self.facts),
            exact: end.sealed,
        }
    }
}

/// What takes chunks; it may end the reading.
pub(in crate::journal) type EachChunk<'a> = &'a mut dyn FnMut(Chunk) -> ControlFlow<()>;

/// Looks through the frames of the segment in `dir` up to `to`, and hands on what can be read.
/// Returns what was found, also when the reading broke off, and whatever still reads.
pub(in crate::journal) fn look_through(
    reader: &Reader,
    dir: &Path,
    stream: Uuid,
    to: u64,
    each: EachChunk<'_>,
) -> (Found, Result<Option<Frames>, SegmentError>) {
    let mut found = Found::default();
    let mut frames = match reader.open(dir, 0, to) {
        Ok(frames) => frames,
        Err(error) => return (found, Err(error)),
    };
    let mut newer = None;
    let passed = frames.pass(0, to, &mut |seq, frame| {
        found.last_seq = seq;
        match Chunk::read(stream, seq, frame) {
            Ok(chunk) => {
                found.chunks += 1;
                found.facts += chunk.facts.len() as u64;
                found.readable_seq = seq;
                return each(chunk);
            }
            Err(error) => newer = later(error),
        }
        go_on(newer.is_none())
    });
    (found, passed.and_then(|()| newer.map_or(Ok(Some(frames)), |error| Err(error.into()))))
}

/// A chunk of a later version is not a missing one: that version must read the segment.
fn later(error: CodecError) -> Option<CodecError> {
    matches!(error, CodecError::Newer(_)).then_some(error)
}

fn go_on(on: bool) -> ControlFlow<()> {
    if on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

/// Whatever can be read of the facts of a segment in `dir` up to `to`, by sled or from the bytes.
pub(in crate::journal) fn remains(reader: &Reader, dir: &Path, stream: Uuid, to: u64) -> Vec<Fact> {
    // The bytes first: sled may forget what it opens.
    let traces = Traces::of(dir, stream).unwrap_or_default();
    let mut chunks: BTreeMap<_, _> =
        traces.chunks.into_iter().filter(|(seq, _)| *seq <= to).collect();
    let mut keep = |chunk: Chunk| {
        chunks.insert(chunk.seq, chunk);
        ControlFlow::Continue(())
    };
    let (_found, read) = look_through(reader, dir, stream, to, &mut keep);
    if let Err(error) = read {
        tracing::debug!(%error, %stream, "what is left of a damaged segment is not all of it");
    }
    chunks.into_values().flat_map(|chunk| chunk.facts).collect()
}

impl Segment {
    /// Its `end`, as far as it is believed.
    pub(super) fn known_end(&self) -> Result<Option<End>, SegmentError> {
        match End::read(&self.dir) {
            // Where repetition does no harm, all that is there is read. A sum beyond its end may
            // have been logged in another stream as well.
            Err(
                SegmentError::Codec(CodecError::Damaged | CodecError::Shape)
                | SegmentError::Unreadable(_),
            ) if !self.lane.is_sum() => {
                let (stream, lane) = (self.stream, self.lane.as_str());
                tracing::error!(%stream, lane, "a segment's end is damaged: all of it is read");
                Ok(None)
            }
            read => read,
        }
    }

    /// Opens an inherited segment on first use, or one that is not as it was, finds its end unless
    /// that is known, and counts what is missing. Hands on what it reads on the way, also when the
    /// reading breaks off; `each` must take all.
    fn examine(
        &self,
        frames: &mut Option<Frames>,
        each: EachChunk<'_>,
    ) -> Result<(), SegmentError> {
        if self.examined.load(Ordering::Acquire) {
            return Ok(());
        }
        let remembered = lock(&self.looked).end;
        let known = if remembered.is_some() { remembered } else { self.known_end()? };
        let to = known.map_or(u64::MAX, |end| end.last_seq);
        // At most one reads it: the one before must let go first.
        *frames = None;
        let (mut readable, mut beyond, applied) = (BTreeSet::new(), 0, self.applied_seq());
        let mut seen = |chunk: Chunk| {
            readable.insert(chunk.seq);
            beyond += if chunk.seq > applied { chunk.facts.len() as u64 } else { 0 };
            each(chunk)
        };
        // sled may mend, and so forget, what it opens: the bytes are asked before. They tell how
        // far an unsealed segment went, and hold state facts, which must not be lost.
        let sealed = known.is_some_and(|end| end.sealed);
        let asked = !sealed || self.lane == Lane::State;
        let traces = if asked { self.traces(to)? } else { Traces::default() };
        let (found, read) = look_through(&self.reader, &self.dir, self.stream, to, &mut seen);
        for chunk in traces.chunks.values().filter(|chunk| !readable.contains(&chunk.seq)) {
            let _all_are_taken = each(chunk.clone());
        }
        let read = read?;
        if let Some(error) = traces.unreadable {
            return Err(SegmentError::of_reading(&self.dir.join("db"))(error));
        }
        *frames = read;
        let end = match known {
            Some(known) => known,
            None => {
                // Whoever wrote it was killed. What is there was synced when it was inherited.
                let last_seq = found.last_seq.max(traces.last_seq);
                let facts = found.facts.max(traces.facts());
                let end = End { last_seq, facts, sealed: false };
                end.write(&self.dir, Sum::of(&self.sources()))?;
                end
            }
        };
        let gaps = Gaps::between(0, end.last_seq, readable.iter().copied());
        let again = remembered.is_some().then_some((applied, beyond));
        let missing = self.note(end, found, gaps, again);
        // What is in force must not end with what sled forgot: the caller logs it again.
        if self.lane == Lane::State && missing.chunks > 0 {
            return Err(SegmentError::Missing(missing));
        }
        self.examined.store(true, Ordering::Release);
        Ok(())
    }

    /// Takes note of what was found; returns what is missing. Where it was known before and is
    /// looked at `again`, that is what lies beyond the number that was applied: so many facts are
    /// readable there.
    fn note(&self, end: End, found: Found, gaps: Gaps, again: Option<(u64, u64)>) -> Missing {
        let mut looked = lock(&self.looked);
        let mut facts = found.facts;
        let (mut missing, mut lost) = (found.missing(end), gaps.clone());
        if let Some((applied, beyond)) = again {
            lost = looked.lost.then(applied, &gaps);
            let counted = lock(&self.tally).at(applied);
            facts = counted.map_or(facts, |counted| counted + beyond);
            missing = Missing {
                chunks: lost.count(),
                // Where nobody knows what was applied: each chunk holds one at least.
                facts: counted.map_or(lost.count(), |_| end.facts.saturating_sub(facts)),
                exact: end.sealed && counted.is_some(),
            };
        }
        // Not beyond what can be read: a tail that is missing must not become applied, or it could
        // never be replayed, should its files be mended. And then this is not the end.
        let whole = found.readable_seq == end.last_seq;
        let last_seq = found.readable_seq.max(again.map_or(0, |(applied, _)| applied));
        self.publish(End { last_seq, facts, sealed: end.sealed && whole });
        *looked = Looked { end: Some(end), missing, gaps, lost };
        missing
    }

    /// What the bytes tell up to `to`, beside what sled will say.
    fn traces(&self, to: u64) -> Result<Traces, SegmentError> {
        if !self.dir.join("db").exists() {
            return Ok(Traces::default());
        }
        let mut traces = Traces::of(&self.dir, self.stream)?;
        traces.chunks.retain(|seq, _| *seq <= to);
        traces.last_seq = traces.last_seq.min(to);
        Ok(traces)
    }

    /// Looks an inherited segment through, once; hands on what it reads on the way, also when the
    /// reading breaks off. Blocks.
    pub(in crate::journal) fn first_look(&self, each: EachChunk<'_>) -> Result<(), SegmentError> {
        self.examine(&mut lock(&self.frames), each)
    }

    /// Looks an inherited segment through; returns what is missing in it. Blocks.
    pub fn examined(&self) -> Result<Missing, SegmentError> {
        self.first_look(&mut |_| go_on(true))?;
        Ok(self.missing())
    }

    /// Looks a closed segment through once more, for it is not as it was; returns what is missing
    /// in it. Blocks.
    pub(in crate::journal) fn examined_again(&self) -> Result<Missing, SegmentError> {
        let mut frames = lock(&self.frames);
        // What is being written is read over its writer's handle only.
        if self.is_closed() {
            self.examined.store(false, Ordering::Release);
            self.examine(&mut frames, &mut |_| go_on(true))?;
        }
        Ok(self.missing())
    }

    /// Whatever can be read of its facts, by sled or from the bytes. Blocks.
    pub(in crate::journal) fn remains(&self) -> Vec<Fact> {
        self.release();
        let to = self.end().map_or(u64::MAX, |end| end.last_seq);
        remains(&self.reader, &self.dir, self.stream, to)
    }

    /// What was found missing when it was looked through.
    pub fn missing(&self) -> Missing {
        lock(&self.looked).missing
    }

    /// Where it ends, if that is known.
    pub(in crate::journal) fn end(&self) -> Option<End> {
        lock(&self.looked).end
    }

    /// Up to `limit` chunks beyond `after`, and never beyond what is durable. Blocks.
    /// A chunk that is known to be missing or unreadable is passed over.
    ///
    /// # Errors
    /// [`SegmentError::Changed`] where another one is, besides what reading can fail with.
    pub fn read(&self, after: u64, limit: usize) -> Result<Page, SegmentError> {
        let mut reading = lock(&self.frames);
        self.examine(&mut reading, &mut |_| go_on(true))?;
        let durable = self.durable_seq();
        let mut page = Page { chunks: Vec::new(), reached: after.max(durable) };
        if after >= durable {
            return Ok(page);
        }
        let mut frames = match reading.take() {
            Some(frames) if frames.serves(after, durable) => frames,
            other => {
                // The one before must let go first.
                drop(other);
                self.reader.open(&self.dir, after, durable)?
            }
        };
        let (mut looked_at, mut newer) = (0, None);
        let passed = frames.pass(after, durable, &mut |seq, frame| {
            looked_at += 1;
            match Chunk::read(self.stream, seq, frame) {
                Ok(chunk) => page.chunks.push(chunk),
                Err(error) => newer = later(error),
            }
            let more = looked_at < limit && newer.is_none();
            if !more {
                page.reached = seq;
            }
            go_on(more)
        });
        // What a closed segment could not be read with is of no more use. (The writer's own handle
        // stays: sled lets nobody else open it meanwhile.)
        if passed.is_ok() || !self.is_closed() {
            *reading = Some(frames);
        }
        passed?;
        if let Some(error) = newer {
            return Err(error.into());
        }
        let there = page.chunks.iter().map(|chunk| chunk.seq);
        let missing = Gaps::between(after, page.reached, there);
        let known = lock(&self.looked).gaps.hold(&missing);
        if known { Ok(page) } else { Err(SegmentError::Changed) }
    }
}
