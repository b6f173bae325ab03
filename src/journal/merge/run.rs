//! Usage facts of several segments as one sorted sequence, one fact per counter, in bounded memory.
//!
//! A merged segment is a *run*: its facts stand in the order of their counters, and it is read page
//! by page. Fresh segments hold counters in any order: they are read as often as it takes, and each
//! reading keeps the next [`COUNTERS_MAX`] counters. However large the backlog, memory holds so
//! many, and a page of each run.

use std::collections::{BTreeMap, btree_map};
use std::sync::Arc;

use super::{MergeError, Pace};
use crate::journal::Segment;
use crate::journal::inherit::patiently;
use crate::model::fact::{Counter, Counts, Fact, UsageFact};

/// Distinct counters of fresh segments in memory at a time.
#[cfg(not(test))]
const COUNTERS_MAX: usize = 100_000;
#[cfg(test)]
const COUNTERS_MAX: usize = 50;
/// Chunks read at a time: 1 MiB.
const PAGE: usize = 256;

/// Reads a segment from its first chunk to its last, and counts along: what is missing is noticed
/// before anything is merged with a gap in it.
pub(super) struct Reading {
    segment: Arc<Segment>,
    reached: u64,
    chunks: u64,
    facts: u64,
}

impl Reading {
    pub fn new(segment: Arc<Segment>) -> Self {
        Self { segment, reached: 0, chunks: 0, facts: 0 }
    }

    /// The facts of the next page; `None` at the end, if everything was there.
    pub fn page(&mut self, pace: &mut Pace<'_>) -> Result<Option<Vec<Fact>>, MergeError> {
        pace.step()?;
        let segment = &self.segment;
        let failed = |error| MergeError::Unreadable(segment.clone(), error);
        let page = patiently(|| segment.read(self.reached, PAGE)).map_err(failed)?;
        if page.chunks.is_empty() && page.reached <= self.reached {
            // (What was written is what is known to be durable, for an examined segment.)
            let whole = self.chunks == segment.durable_seq() && self.facts == segment.facts();
            segment.release();
            return if whole { Ok(None) } else { Err(MergeError::Missing(segment.clone())) };
        }
        self.reached = page.reached;
        self.chunks += page.chunks.len() as u64;
        let facts: Vec<_> = page.chunks.into_iter().flat_map(|chunk| chunk.facts).collect();
        self.facts += facts.len() as u64;
        Ok(Some(facts))
    }
}

/// Hours before this one are folded into [`Counter::NO_HOUR`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Fold(pub Option<i64>);

impl Fold {
    fn apply(self, counter: &mut Counter) {
        if self.0.is_some_and(|first| counter.hour < first) {
            counter.hour = Counter::NO_HOUR;
        }
    }

    fn usage(self, fact: Fact) -> Option<UsageFact> {
        let Fact::Usage(mut fact) = fact else { return None };
        self.apply(&mut fact.counter);
        Some(fact)
    }
}

/// Segments whose counters stand in any order.
struct Fresh {
    segments: Vec<Arc<Segment>>,
    fold: Fold,
    /// The last counter of what was kept before.
    floor: Option<Counter>,
    kept: btree_map::IntoIter<Counter, Counts>,
    /// Counters beyond what was kept were seen.
    more: bool,
}

impl Fresh {
    fn next(&mut self, pace: &mut Pace<'_>) -> Result<Option<UsageFact>, MergeError> {
        if self.kept.len() == 0 && self.more {
            self.read(pace)?;
        }
        Ok(self.kept.next().map(|(counter, counts)| UsageFact { counter, counts }))
    }

    /// Keeps the first [`COUNTERS_MAX`] counters beyond the floor. A counter that was let go of, or
    /// never kept, lies beyond all that are kept from then on: those are complete.
    fn read(&mut self, pace: &mut Pace<'_>) -> Result<(), MergeError> {
        let mut kept = BTreeMap::<Counter, Counts>::new();
        self.more = false;
        for segment in &self.segments {
            let mut reading = Reading::new(segment.clone());
            while let Some(facts) = reading.page(pace)? {
                for fact in facts.into_iter().filter_map(|fact| self.fold.usage(fact)) {
                    if self.floor.as_ref().is_some_and(|floor| fact.counter <= *floor) {
                        continue;
                    }
                    if let Some(known) = kept.get_mut(&fact.counter) {
                        known.merge(&fact.counts);
                        continue;
                    }
                    if kept.len() >= COUNTERS_MAX {
                        self.more = true;
                        if kept.last_key_value().is_some_and(|(last, _)| fact.counter > *last) {
                            continue;
                        }
                        kept.pop_last();
                    }
                    kept.insert(fact.counter, fact.counts);
                }
            }
        }
        self.floor = kept.last_key_value().map(|(last, _)| last.clone()).or(self.floor.take());
        self.kept = kept.into_iter();
        Ok(())
    }
}

/// A merged segment.
struct Run {
    reading: Reading,
    fold: Fold,
    page: std::vec::IntoIter<Fact>,
    ended: bool,
}

impl Run {
    fn next(&mut self, pace: &mut Pace<'_>) -> Result<Option<UsageFact>, MergeError> {
        loop {
            if let Some(fact) = self.page.next() {
                return Ok(self.fold.usage(fact));
            }
            match if self.ended { None } else { self.reading.page(pace)? } {
                Some(facts) => self.page = facts.into_iter(),
                None => {
                    self.ended = true;
                    return Ok(None);
                }
            }
        }
    }
}

enum Sorted {
    Fresh(Fresh),
    Run(Run),
}

impl Sorted {
    fn next(&mut self, pace: &mut Pace<'_>) -> Result<Option<UsageFact>, MergeError> {
        match self {
            Self::Fresh(fresh) => fresh.next(pace),
            Self::Run(run) => run.next(pace),
        }
    }
}

/// All of them side by side.
pub(super) struct Merged {
    /// Each with the fact that comes next from it. They are few: the least is looked for singly.
    heads: Vec<(UsageFact, Sorted)>,
}

impl Merged {
    pub fn new(
        segments: &[Arc<Segment>],
        fold: Fold,
        pace: &mut Pace<'_>,
    ) -> Result<Self, MergeError> {
        let (runs, fresh): (Vec<_>, Vec<_>) =
            segments.iter().cloned().partition(|segment| !segment.sources().is_empty());
        let kept = BTreeMap::new().into_iter();
        let fresh = Sorted::Fresh(Fresh { segments: fresh, fold, floor: None, kept, more: true });
        let run = |segment| Run {
            reading: Reading::new(segment),
            fold,
            page: Vec::new().into_iter(),
            ended: false,
        };
        let runs = runs.into_iter().map(|segment| Sorted::Run(run(segment)));
        let mut heads = Vec::new();
        for mut sorted in std::iter::once(fresh).chain(runs) {
            if let Some(first) = sorted.next(pace)? {
                heads.push((first, sorted));
            }
        }
        Ok(Self { heads })
    }

    /// The next counter, with what all segments have counted on it.
    pub fn next(&mut self, pace: &mut Pace<'_>) -> Result<Option<UsageFact>, MergeError> {
        let Some(mut least) = self.take_least(pace)? else { return Ok(None) };
        while self.heads.iter().any(|(head, _)| head.counter == least.counter) {
            if let Some(same) = self.take_least(pace)? {
                least.counts.merge(&same.counts);
            }
        }
        Ok(Some(least))
    }

    fn take_least(&mut self, pace: &mut Pace<'_>) -> Result<Option<UsageFact>, MergeError> {
        let heads = self.heads.iter().enumerate();
        let least = heads.min_by(|(_, a), (_, b)| a.0.counter.cmp(&b.0.counter));
        let Some((at, _)) = least else { return Ok(None) };
        let (head, sorted) = &mut self.heads[at];
        match sorted.next(pace)? {
            Some(next) => Ok(Some(std::mem::replace(head, next))),
            None => Ok(Some(self.heads.swap_remove(at).0)),
        }
    }
}
