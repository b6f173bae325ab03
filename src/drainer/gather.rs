//! Gathering a batch: pending chunks of several streams, merged by the facts' laws and sorted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::disk::StoreError;
use crate::journal::{Journal, Segment, SegmentError};
use crate::model::fact::{Counter, Counts, Fact, Lane, UsageFact};
use crate::postgres::sink::{Batch, StreamRange};

/// Chunks read at a time: a batch exceeds its bound by what they hold at most.
const PAGE_CHUNKS: usize = 16;
/// The bound on the chunks of one batch, however few rows they merge to: 64 MiB.
const BATCH_CHUNKS_MAX: usize = 16_384;

/// How much one batch may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Distinct counters, or facts in the other lanes.
    pub rows: usize,
}

/// A batch, and the segments that it stands for, each with the number of its facts.
#[derive(Debug, Default)]
pub struct Gathered {
    pub batch: Batch,
    pub segments: Vec<(Arc<Segment>, StreamRange, u64)>,
    /// A bound was met: there may be more.
    pub full: bool,
}

#[derive(Default)]
struct Merged {
    usage: HashMap<Counter, Counts>,
    chunks: usize,
}

impl Merged {
    fn add(&mut self, batch: &mut Batch, fact: Fact) {
        match fact {
            Fact::State(fact) => batch.state.push(fact),
            Fact::Audit(entry) => batch.events.push(entry),
            Fact::Usage(UsageFact { counter, counts }) => match self.usage.entry(counter) {
                Entry::Occupied(mut known) => known.get_mut().merge(&counts),
                Entry::Vacant(new) => drop(new.insert(counts)),
            },
        }
    }

    fn is_full(&self, batch: &Batch, bounds: Bounds) -> bool {
        let rows = self.usage.len() + batch.state.len() + batch.events.len();
        rows >= bounds.rows || self.chunks >= BATCH_CHUNKS_MAX
    }
}

/// Reads what is durable and not applied, oldest stream first, and marks its segments as sent.
/// Blocks. Segments that cannot be read are set aside; those held by another handle wait for the
/// next pass.
pub fn gather(journal: &Journal, lane: Lane, bounds: Bounds) -> Result<Gathered, SegmentError> {
    let mut gathered = Gathered::default();
    let mut merged = Merged::default();
    for segment in journal.segments(lane) {
        if merged.is_full(&gathered.batch, bounds) {
            break;
        }
        match gather_segment(&segment, bounds, &mut merged, &mut gathered.batch) {
            Ok(Some((range, facts))) => gathered.segments.push((segment, range, facts)),
            Ok(None) => {}
            Err(SegmentError::Store(StoreError::Locked)) => {
                tracing::debug!(stream = %segment.stream, "segment is held; next pass");
            }
            // Nothing of this segment has entered the batch: its first page could not be read.
            Err(error @ SegmentError::Store(_)) => journal.quarantine(&segment, &error),
            Err(error) => return Err(error),
        }
    }
    let mut usage: Vec<_> =
        (merged.usage.into_iter()).map(|(counter, counts)| UsageFact { counter, counts }).collect();
    usage.sort_unstable_by(|a, b| a.counter.cmp(&b.counter));
    gathered.batch.usage = usage;
    gathered.batch.ranges = gathered.segments.iter().map(|(_, range, _)| range.clone()).collect();
    for (segment, ..) in &gathered.segments {
        segment.mark_sent()?;
    }
    Ok(gathered)
}

fn gather_segment(
    segment: &Segment,
    bounds: Bounds,
    merged: &mut Merged,
    batch: &mut Batch,
) -> Result<Option<(StreamRange, u64)>, SegmentError> {
    let from = segment.applied_seq();
    let (mut to, mut facts) = (from, 0);
    loop {
        let page = match segment.read(to, PAGE_CHUNKS) {
            Ok(page) => page,
            // What was read before stays in the batch; the error comes again with the next one.
            Err(_) if to > from => break,
            Err(error) => return Err(error),
        };
        to = page.reached;
        merged.chunks += page.chunks.len();
        for fact in page.chunks.into_iter().flat_map(|chunk| chunk.facts) {
            facts += 1;
            merged.add(batch, fact);
        }
        if merged.is_full(batch, bounds) || to >= segment.durable_seq() {
            break;
        }
    }
    let closed = (segment.is_closed() && to == segment.durable_seq()).then_some(to);
    let range = StreamRange { stream: segment.stream, lane: segment.lane, from, to, closed };
    Ok((to > from).then_some((range, facts)))
}
