//! Merging of a long backlog: closed segments become one, by the laws of their facts, so that an
//! outage costs distinct counters and not time.
//!
//! # How
//!
//! A merged segment is an ordinary closed segment with one more file, [`sources`]: the streams that
//! it stands for, transitively. In this order:
//!
//! 1. its directory, and in it `sources`, synced;
//! 2. its chunks, in the order of their counters (a *run*), synced;
//! 3. `end`, synced: from here on it stands for its sources;
//! 4. it takes their place in the registry, in one step;
//! 5. their directories are removed.
//!
//! A start removes what has `sources` and no `end`, and every source that one with an `end` names
//! (`recover`), before it believes anything.
//!
//! # What may be merged
//!
//! Only what no transaction can have carried, in whose numbers nothing is missing, and what nobody
//! is about to send: the drain and a merge take each segment in hand first ([`Claim`]). And no two
//! that stand for one stream: copies of a directory may have merged it apart.
//!
//! - In a data directory that was ever attached to Postgres ([`Scope::Own`]): usage that this
//!   process wrote, and quotas. What others wrote may be a copy of what Postgres has.
//! - In one that never was ([`Scope::All`]): every lane, whoever wrote it; hours older than
//!   [`HOURS_KEPT`] are folded into totals; old audit entries, sessions that expired
//!   [`SESSIONS_KEPT`] ago and quotas whose period ended [`QUOTAS_KEPT`] ago drop out. So an
//!   embedded gateway runs for years and starts at once.
//!
//! The transaction that takes a merged segment from 0 retires its sources in the ledger.

mod attached;
mod laws;
pub(super) mod part;
mod pick;
mod recover;
mod run;
pub(super) mod sources;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use laws::{EVENTS_MAX, QUOTAS_KEPT, SESSIONS_KEPT};
use part::Claim;
use pick::{Candidate, FRESH_MIN, pick};
use run::{Fold, Merged};
use sources::Source;

use super::chunk::FactRef;
use super::segment::{Segment, SegmentError};
use super::writer::Writer;
use super::{Journal, lock};
use crate::clock::SharedClock;
use crate::codec::CodecError;
use crate::disk;
use crate::model::Timestamp;
use crate::model::fact::{Fact, Lane};

pub(super) use recover::finish;

/// Hours that are kept as they are where nothing was ever sent; older ones are folded into totals.
pub const HOURS_KEPT: i64 = 31 * 24;
/// Facts written at a time, about 300 KiB; each time the disk gets them at once, so that no commit
/// waits behind much of it.
const BATCH: usize = 4096;
/// After each step a merge rests for so many times what the step took...
const REST: u32 = 2;
/// ...and for so long at most.
const REST_MAX: Duration = Duration::from_millis(200);

/// What may be merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Sums of this process, and state.
    Own,
    /// Everything: there is no Postgres. Where one ever was, as [`Scope::Own`]. What was over long
    /// before this moment drops out; without one, nothing does: whoever cannot trust the clock
    /// has none.
    All(Option<Timestamp>),
}

/// Why a merge was not done. Its sources are as they were.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// The gateway is stopping, or the drain wants what is being merged.
    #[error("the merge was given up: the gateway is stopping, or drains")]
    Stopped,
    /// What was to be merged cannot be read; damaged, it will not be merged.
    #[error("segment {stream} cannot be merged: {1}", stream = .0.stream)]
    Unreadable(Arc<Segment>, SegmentError),
    /// What was to be merged has a gap, and will not be merged.
    #[error("segment {stream} cannot be merged: something is missing in it", stream = .0.stream)]
    Missing(Arc<Segment>),
    /// What was merged cannot be written.
    #[error("merged segments cannot be written: {0}; make room, or look at the disk")]
    Unwritten(#[from] SegmentError),
}

/// Where a merge may end early, and rests.
pub(super) struct Pace<'a> {
    stop: &'a dyn Fn() -> bool,
    clock: &'a SharedClock,
    since: Duration,
}

impl Pace<'_> {
    fn step(&mut self) -> Result<(), MergeError> {
        let took = self.clock.monotonic().saturating_sub(self.since);
        std::thread::sleep((took * REST).min(REST_MAX));
        self.since = self.clock.monotonic();
        if (self.stop)() { Err(MergeError::Stopped) } else { Ok(()) }
    }
}

/// What is being written, and what it is merged from.
struct Merge<'a> {
    journal: &'a Journal,
    lane: Lane,
    claimed: Vec<(Arc<Segment>, Claim)>,
    /// By which things drop out, if any do.
    now: Option<Timestamp>,
}

impl Journal {
    /// Merges once, where that is worth while; whether it was. Between its steps `stop` is asked.
    /// Blocks.
    ///
    /// # Errors
    /// See [`MergeError`]; nothing has changed then.
    pub fn merge(&self, scope: Scope, stop: &dyn Fn() -> bool) -> Result<bool, MergeError> {
        let merging = &self.shared.merging;
        let _turn = lock(&merging.turn);
        merging.give_way.store(false, Ordering::Release);
        let attached = merging.attached.load(Ordering::Acquire);
        let (all, now) = match scope {
            Scope::All(now) if !attached => (true, now),
            Scope::All(_) | Scope::Own => (false, None),
        };
        let stop = || stop() || merging.give_way.load(Ordering::Acquire);
        let clock = &self.clock.0;
        let mut pace = Pace { stop: &stop, clock, since: clock.monotonic() };
        let lanes: &[Lane] =
            if all { &Lane::ALL } else { &[Lane::State, Lane::Quota, Lane::Usage] };
        let _rest = self.reader.until_done();
        let mut merged = false;
        for lane in lanes {
            // What was used is read by stream: nothing may take its place meanwhile.
            if *lane == Lane::Quota && merging.quotas_unread.load(Ordering::Acquire) {
                continue;
            }
            // State facts may be repeated: whose they are is no matter.
            let any = all || *lane == Lane::State;
            let claimed = self.to_be_merged(*lane, any);
            if !claimed.is_empty() {
                let merge = Merge { journal: self, lane: *lane, claimed, now };
                merge.run(&mut pace)?;
                merged = true;
            }
        }
        Ok(merged)
    }

    /// The drain waits for a segment that is being merged.
    pub fn want_merged(&self) {
        self.shared.merging.give_way.store(true, Ordering::Release);
    }

    fn to_be_merged(&self, lane: Lane, all: bool) -> Vec<(Arc<Segment>, Claim)> {
        let closed = |s: &Arc<Segment>| s.is_closed() && (all || s.is_own() && s.may_be_merged());
        let closed: Vec<_> = self.segments(lane).into_iter().filter(closed).collect();
        if closed.len() < FRESH_MIN {
            // Nothing is taken in hand for nothing: the drain would stumble over it.
            return Vec::new();
        }
        let mut free: Vec<_> = (closed.into_iter())
            .filter_map(|segment| segment.claim().map(|claim| (segment, claim)))
            // Asked once it is in hand: who sends marks it before letting go.
            .filter(|(segment, _)| !all || segment.examined().is_ok())
            .filter(|(segment, _)| segment.may_be_merged() && (all || segment.facts() > 0))
            .collect();
        let candidates: Vec<_> = (free.iter())
            .map(|(segment, _)| Candidate {
                facts: segment.facts(),
                bytes: disk::bytes_below(segment.dir()),
                sources: segment.sources().len(),
            })
            .collect();
        let picked = pick(&candidates, self.shared.room_for(lane, self.config.max_bytes.0));
        let (mut place, mut named) = (0, HashSet::new());
        free.retain(|(segment, _)| {
            place += 1;
            picked.contains(&(place - 1)) && is_disjoint(segment, &mut named)
        });
        if free.len() < 2 { Vec::new() } else { free }
    }
}

impl Merge<'_> {
    fn run(self, pace: &mut Pace<'_>) -> Result<(), MergeError> {
        // As old as the oldest that it stands for: so it keeps their place in the order.
        let oldest = self.claimed.first().map(|(segment, _)| segment.born());
        let moment = oldest.unwrap_or_else(|| self.journal.clock.0.now());
        let stream = self.journal.entropy.0.uuid_v7(moment);
        let lane_dir = self.journal.dir.join(self.lane.as_str());
        let error = match self.write(stream, &lane_dir, pace) {
            Ok(merged) => {
                self.put_in_place(merged);
                return Ok(());
            }
            Err(error) => error,
        };
        self.claimed.iter().for_each(|(segment, _)| segment.release());
        match &error {
            // Trouble passes: too many open files, no room for a child, a lock.
            MergeError::Unreadable(segment, error) if error.is_damage() => {
                segment.never_merge();
                if let Err(error) = self.journal.look_again(segment) {
                    let (stream, lane) = (segment.stream, segment.lane.as_str());
                    tracing::error!(%stream, lane, %error, "a closed segment was damaged");
                }
            }
            MergeError::Missing(segment) => segment.never_merge(),
            _ => {}
        }
        let dir = lane_dir.join(stream.to_string());
        let gone = if dir.exists() { disk::remove_dir(&dir) } else { Ok(()) };
        if let Err(removing) = gone.and_then(|()| disk::sync_dir(&lane_dir)) {
            // Its `end` may be durable: then the next start believes it, and nothing of what it
            // stands for may be sent before.
            tracing::error!(
                error = %removing, %stream,
                "an unfinished merge cannot be removed: what it stands for waits for a restart"
            );
            self.claimed.into_iter().for_each(|(_, claim)| claim.strand());
        }
        Err(error)
    }

    /// Steps 1 to 3.
    fn write(
        &self,
        stream: Uuid,
        lane_dir: &Path,
        pace: &mut Pace<'_>,
    ) -> Result<Arc<Segment>, MergeError> {
        let segments: Vec<_> = self.claimed.iter().map(|(segment, _)| segment.clone()).collect();
        let sources = transitive(&segments);
        let dir = lane_dir.join(stream.to_string());
        disk::make_new_dir(&dir).map_err(SegmentError::from)?;
        sources::write(&dir, stream, &sources)?;
        disk::sync_dir(lane_dir).map_err(SegmentError::from)?;
        let born = self.journal.clock.0.monotonic();
        let sources: Arc<[Source]> = sources.into();
        let mut writer = Writer::create(lane_dir, self.lane, stream, &self.journal.reader, born)?;
        match self.lane {
            Lane::Usage => {
                let kept = |now: Timestamp| now.hour().saturating_sub(HOURS_KEPT);
                let fold = Fold(self.now.map(kept));
                let mut merged = Merged::new(&segments, fold, pace)?;
                while write_batch(&mut writer, &mut merged, pace)? {}
            }
            Lane::Quota => {
                let over = self.now.map(|now| now.minus(QUOTAS_KEPT));
                let merged = laws::quotas(&segments, over, pace)?;
                for batch in merged.chunks(BATCH) {
                    write_all(&mut writer, batch.to_vec())?;
                    pace.step()?;
                }
            }
            Lane::State => {
                let over = self.now.map(|now| now.minus(SESSIONS_KEPT));
                write_all(&mut writer, laws::state(&segments, over, pace)?)?;
            }
            Lane::Events => {
                let (kept, dropped) = laws::events(&segments, pace)?;
                write_all(&mut writer, kept)?;
                self.expired(dropped);
            }
        }
        let merged = writer.segment().clone();
        merged.stands_for(sources);
        writer.close()?;
        Ok(merged)
    }

    fn expired(&self, entries: u64) {
        if entries > 0 {
            self.journal.metrics.journal.events_expired.inc_by(entries);
            tracing::info!(entries, kept = EVENTS_MAX, "the oldest audit entries dropped out");
        }
    }

    /// Steps 4 and 5.
    fn put_in_place(self, merged: Arc<Segment>) {
        let shared = &self.journal.shared;
        let metrics = &self.journal.metrics.journal;
        let bytes = |segment: &Segment| disk::bytes_below(segment.dir());
        let before: u64 = self.claimed.iter().map(|(segment, _)| bytes(segment)).sum();
        {
            let _alone = shared.merging.swap.write().unwrap_or_else(PoisonError::into_inner);
            let mut streams = shared.streams();
            streams.retain(|known| !self.claimed.iter().any(|(s, _)| s.stream == known.stream));
            streams.push(merged.clone());
        }
        metrics.merges.inc();
        metrics.merged_segments.inc_by(self.claimed.len() as u64);
        metrics.merged_bytes_read.inc_by(before);
        metrics.merged_bytes_written.inc_by(bytes(&merged));
        tracing::debug!(
            stream = %merged.stream, segments = self.claimed.len(), bytes_before = before,
            bytes_after = bytes(&merged), facts = merged.facts(), "segments were merged"
        );
        shared.list();
        for (segment, claim) in self.claimed {
            claim.keep();
            segment.release();
            if let Err(error) = disk::remove_dir(segment.dir())
                && segment.dir().exists()
            {
                let stream = segment.stream;
                tracing::warn!(%error, %stream, "a merged segment's source goes at the next start");
            }
        }
    }
}

/// Whether a segment stands for none of the streams that are `named` already; then its own are. Two
/// copies of a directory may have merged the same streams: to add those up would count them twice.
fn is_disjoint(segment: &Arc<Segment>, named: &mut HashSet<Uuid>) -> bool {
    let streams = transitive(std::slice::from_ref(segment));
    let disjoint = streams.iter().all(|source| !named.contains(&source.stream));
    if disjoint {
        named.extend(streams.iter().map(|source| source.stream));
    }
    disjoint
}

/// What the segments stand for, and they themselves.
fn transitive(segments: &[Arc<Segment>]) -> Vec<Source> {
    let itself = |s: &Segment| Source { stream: s.stream, last_seq: s.durable_seq() };
    let all = segments.iter();
    all.flat_map(|s| s.sources().iter().copied().chain([itself(s)]).collect::<Vec<_>>()).collect()
}

/// Writes the next counters and brings them to the disk; whether there were any.
fn write_batch(
    writer: &mut Writer,
    merged: &mut Merged,
    pace: &mut Pace<'_>,
) -> Result<bool, MergeError> {
    let mut batch = Vec::with_capacity(BATCH);
    while batch.len() < BATCH
        && let Some(fact) = merged.next(pace)?
    {
        batch.push(Fact::Usage(fact));
    }
    let any = !batch.is_empty();
    write_all(writer, batch)?;
    pace.step()?;
    Ok(any)
}

fn write_all(writer: &mut Writer, facts: Vec<Fact>) -> Result<(), MergeError> {
    let count = facts.len() as u64;
    let (_, written) = writer.write(facts.iter().map(FactRef::from))?;
    if written < count {
        // Sums can grow beyond what fits: then they stay apart.
        return Err(SegmentError::from(CodecError::TooLarge).into());
    }
    writer.sync()?;
    Ok(())
}
