//! Gathering a batch: pending chunks of several streams, merged by the facts' laws and sorted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use crate::journal::{InForce, Journal, Page, Segment, SegmentError};
use crate::model::fact::{Counter, Counts, Fact, Lane, QuotaFact, QuotaKey, UsageFact};
use crate::postgres::sink::{Batch, Retirement, StreamRange};

/// Chunks read at a time, at most: a batch exceeds its bound by what one of them holds.
const PAGE_CHUNKS: usize = 16;
/// Facts in a chunk, at most about (200 as a rule): what is left of a bound is read by so many.
const CHUNK_FACTS: usize = 600;
/// The bound on the chunks of one batch, however few rows they merge to: 64 MiB.
const BATCH_CHUNKS_MAX: usize = 16_384;

/// How much one batch may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Facts in lanes whose facts are not summed.
    pub rows: usize,
    /// Distinct counters, or quotas.
    pub sums: usize,
    /// Segments.
    pub segments: usize,
}

/// A batch, and the segments that it stands for.
#[derive(Debug, Default)]
pub struct Gathered {
    pub batch: Batch,
    pub segments: Vec<(Arc<Segment>, StreamRange)>,
    /// Everything that was durable is in it: the bounds left nothing behind.
    pub whole: bool,
    /// Another handle kept a segment from being read.
    pub held: bool,
    /// A segment cannot be read, and it is no damage that is known as such: the first.
    pub trouble: Option<SegmentError>,
    /// A segment is being merged.
    merging: bool,
}

impl Gathered {
    /// Its facts, as bounds count them.
    pub fn size(&self) -> usize {
        self.batch.usage.len() + self.batch.quotas.len() + others(&self.batch)
    }

    /// Of a directory that was attached nothing is merged but what its own process knows: where a
    /// mark cannot be made durable, memory is enough. On a full disk only the drain makes room.
    fn mark_sent(&self) {
        let marked = self.segments.iter().map(|(segment, _)| segment.mark_sent());
        let failed: Vec<_> = marked.filter_map(Result::err).collect();
        if let Some(error) = failed.first() {
            tracing::warn!(segments = failed.len(), %error, "`sent` marks cannot be written");
        }
    }
}

/// Facts that are not summed.
fn others(batch: &Batch) -> usize {
    batch.state.len() + batch.events.len() + batch.happened.len()
}

#[derive(Default)]
struct Merged {
    usage: HashMap<Counter, Counts>,
    quotas: HashMap<QuotaKey, u64>,
    chunks: usize,
}

impl Merged {
    fn add(&mut self, batch: &mut Batch, fact: Fact) {
        match fact {
            Fact::State(fact) => batch.state.push(fact),
            Fact::Audit(entry) => batch.events.push(entry),
            Fact::Event(event) => batch.happened.push(event),
            Fact::Quota(QuotaFact { key, used }) => {
                key.add(used, &mut self.quotas);
            }
            Fact::Usage(UsageFact { counter, counts }) => match self.usage.entry(counter) {
                Entry::Occupied(mut known) => known.get_mut().merge(&counts),
                Entry::Vacant(new) => drop(new.insert(counts)),
            },
        }
    }

    fn full(&self, batch: &Batch, bounds: Bounds) -> bool {
        self.left(batch, bounds) == 0 || self.chunks >= BATCH_CHUNKS_MAX
    }

    /// How many facts the bounds leave, of whichever kind there is less room for.
    fn left(&self, batch: &Batch, bounds: Bounds) -> usize {
        let sums = self.usage.len() + self.quotas.len();
        bounds.sums.saturating_sub(sums).min(bounds.rows.saturating_sub(others(batch)))
    }
}

/// Reads what is durable and not applied, oldest stream first, and marks its segments as sent.
/// Blocks. Segments that cannot be read are set aside; those held by another handle wait for the
/// next pass.
///
/// What is `in_force` is logged again with what is left of a damaged segment that said so.
pub fn gather(
    journal: &Journal,
    lane: Lane,
    bounds: Bounds,
    in_force: InForce<'_>,
) -> Result<Gathered, SegmentError> {
    const PAUSE: Duration = Duration::from_millis(5);
    const ATTEMPTS: u32 = 400;
    for _ in 1..ATTEMPTS {
        let gathered = gather_free(journal, lane, bounds, in_force)?;
        if !gathered.merging || !gathered.segments.is_empty() {
            return Ok(gathered);
        }
        // There is nothing else to send: the merge gives up at its next step.
        journal.want_merged();
        std::thread::sleep(PAUSE);
    }
    gather_free(journal, lane, bounds, in_force)
}

/// What is not being merged.
fn gather_free(
    journal: &Journal,
    lane: Lane,
    bounds: Bounds,
    in_force: InForce<'_>,
) -> Result<Gathered, SegmentError> {
    let mut gathered = Gathered { whole: true, ..Gathered::default() };
    let (mut merged, mut claims) = (Merged::default(), Vec::new());
    for segment in journal.segments(lane) {
        if segment.is_blocked() || segment.is_stranded() {
            continue;
        }
        let enough = gathered.segments.len() >= bounds.segments;
        if enough || merged.full(&gathered.batch, bounds) {
            gathered.whole = false;
            break;
        }
        if !gathered.batch.retires.is_empty() && !segment.sources().is_empty() {
            // One transaction retires the sources of one segment: they may be many.
            gathered.whole = false;
            break;
        }
        let Some(claim) = segment.claim() else {
            gathered.merging = true;
            gathered.whole = false;
            continue;
        };
        match gather_segment(journal, &segment, bounds, &mut merged, &mut gathered.batch) {
            Ok(Some(range)) => {
                gathered.whole &= range.to >= segment.durable_seq();
                gathered.batch.retires.extend(retires(&segment, &range));
                gathered.segments.push((segment, range));
                claims.push(claim);
            }
            Ok(None) => {}
            Err(error) if error.is_locked() => gathered.held = true,
            // sled fails for ever after one error: what is being written is read again once its
            // writer has closed it, over another handle. It is durable, and nowhere else.
            Err(SegmentError::Store(_) | SegmentError::Changed) if !segment.is_closed() => {
                gathered.held = true;
            }
            // Nothing of this segment has entered the batch: its first page could not be read.
            Err(error) if error.is_damage() => {
                // Or it stays: the next pass tries again.
                if let Err(error) = journal.quarantine(&segment, &error, in_force) {
                    gathered.trouble.get_or_insert(error);
                }
            }
            // The others are no worse for it.
            Err(error) => drop(gathered.trouble.get_or_insert(error)),
        }
    }
    let mut usage: Vec<_> =
        (merged.usage.into_iter()).map(|(counter, counts)| UsageFact { counter, counts }).collect();
    usage.sort_unstable_by(|a, b| a.counter.cmp(&b.counter));
    gathered.batch.usage = usage;
    let mut quotas: Vec<_> =
        merged.quotas.into_iter().map(|(key, used)| QuotaFact { key, used }).collect();
    quotas.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    gathered.batch.quotas = quotas;
    gathered.batch.ranges = gathered.segments.iter().map(|(_, range)| range.clone()).collect();
    if !gathered.segments.is_empty() {
        journal.attach()?;
    }
    gathered.mark_sent();
    // Marked: from here on nobody merges them.
    drop(claims);
    Ok(gathered)
}

/// What a merged segment stands for, if nothing of it was applied. (The facts of other lanes may
/// arrive as often as they like.)
fn retires(segment: &Segment, range: &StreamRange) -> Option<Retirement> {
    let sources = segment.sources();
    let first = segment.lane.is_sum() && range.from == 0 && !sources.is_empty();
    let ends = || sources.iter().map(|source| (source.stream, source.last_seq)).collect();
    first.then(|| Retirement { by: segment.stream, lane: segment.lane, sources: ends() })
}

/// A page. The writer that closes a segment, or a reader that lets go of it, takes a moment: that
/// is waited for. And a handle that failed once fails for ever: another one tells whether it is
/// damage.
fn read(segment: &Segment, after: u64, chunks: usize) -> Result<Page, SegmentError> {
    const PAUSE: Duration = Duration::from_millis(10);
    const ATTEMPTS: u32 = 100;
    let mut reopened = false;
    for _ in 1..ATTEMPTS {
        match segment.read(after, chunks) {
            Err(error) if error.is_locked() => std::thread::sleep(PAUSE),
            Err(SegmentError::Store(_)) if segment.is_closed() && !reopened => {
                reopened = true;
                segment.release();
            }
            result => return result,
        }
    }
    segment.read(after, chunks)
}

fn gather_segment(
    journal: &Journal,
    segment: &Segment,
    bounds: Bounds,
    merged: &mut Merged,
    batch: &mut Batch,
) -> Result<Option<StreamRange>, SegmentError> {
    let from = segment.applied_seq();
    let (mut to, mut facts, mut looked) = (from, 0_usize, false);
    loop {
        let chunks = (merged.left(batch, bounds) / CHUNK_FACTS).clamp(1, PAGE_CHUNKS);
        let page = match read(segment, to, chunks) {
            Ok(page) => page,
            // What was read before stays in the batch; the error comes again with the next one.
            Err(_) if to > from => break,
            // Reported before the ledger passes it: nobody would look for it after that.
            Err(SegmentError::Changed) if segment.is_closed() && !looked => {
                looked = true;
                journal.look_again(segment)?;
                continue;
            }
            Err(error) => return Err(error),
        };
        to = page.reached;
        merged.chunks += page.chunks.len();
        for fact in page.chunks.into_iter().flat_map(|chunk| chunk.facts) {
            facts += 1;
            merged.add(batch, fact);
        }
        if merged.full(batch, bounds) || to >= segment.durable_seq() {
            break;
        }
    }
    if to > from {
        segment.counted(from, to, facts as u64);
    }
    let closed = (segment.is_sealed() && to == segment.durable_seq()).then_some(to);
    let range = StreamRange { stream: segment.stream, lane: segment.lane, from, to, closed };
    let tells = to > from || closed.is_some() && segment.has_end_to_tell();
    Ok(tells.then_some(range))
}
