//! The journal thread: takes the window, writes chunks, syncs, publishes, wakes the tickets.
//!
//! With waiters it commits as fast as the disk allows, and all who wait share one sync (group
//! commit); without, once an interval.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::ballast::Ballast;
use super::chunk::FactRef;
use super::quarantine::QUARANTINE;
use super::reader::Reader;
use super::segment::SegmentError;
use super::ticket::Shared;
use super::window::{Collected, Tally};
use super::writer::Writer;
use super::{Commit, Config, Unwritten, dropped};
use crate::clock::SharedClock;
use crate::disk;
use crate::entropy::SharedEntropy;
use crate::metrics::{LaneLabel, Metrics};
use crate::model::fact::Lane;

/// Pause between attempts while the disk fails.
const RETRY: Duration = Duration::from_millis(200);
/// With waiters, the least time from one commit to the next: who comes meanwhile shares the sync.
/// A waiter that comes after a quieter time does not wait for it.
const GATHER: Duration = Duration::from_micros(400);
/// How often the bytes on disk are measured, and a ballast that was let go is tried again.
const MEASURE: Duration = Duration::from_secs(1);

pub(super) struct Committer {
    pub shared: Arc<Shared>,
    pub dir: PathBuf,
    pub config: Config,
    pub clock: SharedClock,
    pub entropy: SharedEntropy,
    pub metrics: Arc<Metrics>,
    /// How what it has closed is read.
    reader: Reader,
    writers: HashMap<Lane, Writer>,
    /// Ended by an error, and without their `end` yet.
    failed: HashMap<Lane, Writer>,
    ballast: Ballast,
    /// When the last commit began.
    committed: Duration,
    measured: Duration,
    /// When the ballast was last tried.
    tried: Duration,
    /// Where damaged segments go.
    quarantine: PathBuf,
    /// Segments of earlier processes with sums that are not settled, and their bytes.
    inherited: (u64, u64),
    warned: bool,
    /// Lanes that could not be written when it was last tried.
    troubled: HashSet<Lane>,
}

impl Committer {
    pub fn new(
        shared: Arc<Shared>,
        dir: PathBuf,
        config: Config,
        reader: Reader,
        clock: SharedClock,
        entropy: SharedEntropy,
        metrics: Arc<Metrics>,
    ) -> Self {
        let data = dir.parent().unwrap_or(Path::new("."));
        Self {
            ballast: Ballast::new(data, config.ballast.0, entropy.clone()),
            quarantine: data.join(QUARANTINE),
            shared,
            dir,
            config,
            clock,
            entropy,
            metrics,
            reader,
            writers: HashMap::new(),
            failed: HashMap::new(),
            committed: Duration::ZERO,
            measured: Duration::ZERO,
            tried: Duration::ZERO,
            inherited: (0, 0),
            warned: false,
            troubled: HashSet::new(),
        }
    }

    /// The thread's body; returns when told to stop and everything is on disk, or the disk fails.
    /// Returns what it could not write.
    pub fn run(mut self) -> Unwritten {
        self.keep_ballast();
        let mut round = 1;
        let mut carried = Collected::default();
        loop {
            let failing = !carried.is_empty();
            let wanted = !failing && self.shared.wants(round);
            if !wanted && !self.shared.stopping.load(Ordering::Acquire) {
                std::thread::park_timeout(if failing { RETRY } else { self.config.interval.0 });
            }
            let since = self.clock.monotonic().saturating_sub(self.committed);
            if let Some(early) = GATHER.checked_sub(since) {
                std::thread::sleep(early);
            }
            self.committed = self.clock.monotonic();
            // Read before collecting: whoever asks to stop has recorded everything before.
            let stopping = self.shared.stopping.load(Ordering::Acquire);
            carried.absorb(self.shared.window.collect(round));
            self.merged(&mut carried);
            match self.commit(&mut carried) {
                Ok(()) => self.shared.publish(round),
                Err(error) => {
                    if !failing {
                        tracing::error!(%error, "journal cannot commit; facts wait in memory");
                    }
                    self.shared.give_up();
                }
            }
            round += 1;
            self.tidy(!carried.is_empty());
            if stopping {
                self.stop();
                return Unwritten {
                    counters: carried.usage.len() + carried.quotas.len(),
                    state: carried.state.len(),
                    events: carried.events.len(),
                };
            }
        }
    }

    fn stop(mut self) {
        let ballast = &mut self.ballast;
        for (lane, writer) in self.writers.drain().chain(self.failed.drain()) {
            let closed = writer.close();
            let closed = if closed.is_err() && ballast.free() { writer.close() } else { closed };
            if let Err(error) = closed {
                tracing::error!(%error, lane = lane.as_str(), "segment left without its end");
            }
        }
    }

    /// The bound on pending counters is about memory: what was merged takes it no more. And while
    /// the disk fails, events yield beyond their bound.
    fn merged(&self, carried: &mut Collected) {
        let left = carried.usage.len() + carried.quotas.len();
        let gone = carried.taken.saturating_sub(left);
        carried.taken -= gone;
        self.shared.took(gone);
        for kind in dropped::beyond(&mut carried.events) {
            self.shared.events_dropped.tell(&self.metrics, self.clock.monotonic(), kind);
        }
    }

    /// Commits lane by lane, and empties each as it is done: what is on disk must never be written
    /// twice.
    fn commit(&mut self, collected: &mut Collected) -> Result<(), SegmentError> {
        if collected.is_empty() {
            return Ok(());
        }
        let started = self.clock.monotonic();
        if !collected.state.is_empty() {
            self.commit_lane(Lane::State, || collected.state_facts())?;
            self.shared.state_committed(collected.state.len());
            collected.state.clear();
        }
        // Before the requests that used them: what was answered is charged.
        if !collected.quotas.is_empty() {
            self.commit_lane(Lane::Quota, || collected.quota_facts())?;
            let quotas = std::mem::take(&mut collected.quotas).len();
            collected.taken = collected.taken.saturating_sub(quotas);
            self.shared.took(quotas);
        }
        if !collected.usage.is_empty() {
            self.commit_lane(Lane::Usage, || collected.usage_facts())?;
            collected.usage = Tally::default();
            self.shared.took(std::mem::take(&mut collected.taken));
        }
        if !collected.events.is_empty() {
            self.commit_lane(Lane::Events, || collected.event_facts())?;
            collected.events.clear();
        }
        let journal = &self.metrics.journal;
        journal.commits.inc();
        journal.commit_duration.observe((self.clock.monotonic() - started).as_secs_f64());
        Ok(())
    }

    /// Writes and syncs one lane's facts; after an error once more, in a new segment and with the
    /// room of the ballast.
    fn commit_lane<'a, I: Iterator<Item = FactRef<'a>>>(
        &mut self,
        lane: Lane,
        facts: impl Fn() -> I,
    ) -> Result<(), SegmentError> {
        let mut done = self.try_lane(lane, facts());
        if let Err(error) = done {
            self.failed_once(lane, &error);
            done = self.try_lane(lane, facts());
        }
        if done.is_ok() {
            self.troubled.remove(&lane);
        }
        done
    }

    /// Makes room for a second attempt, and says once why there is one: while the trouble goes on,
    /// a lane is tried again several times a second.
    fn failed_once(&mut self, lane: Lane, error: &SegmentError) {
        self.metrics.journal.segments_failed.inc();
        let name = lane.as_str();
        if self.troubled.insert(lane) {
            tracing::error!(%error, lane = name, "segment ended early; its facts go to a new one");
        }
        self.ballast.free();
    }

    fn try_lane<'a>(
        &mut self,
        lane: Lane,
        facts: impl Iterator<Item = FactRef<'a>>,
    ) -> Result<(), SegmentError> {
        // A writer that failed before must get its `end` before its facts are logged anywhere else.
        if let Some(failed) = self.failed.remove(&lane)
            && let Err(error) = failed.close()
        {
            self.failed.insert(lane, failed);
            return Err(error);
        }
        let mut writer = match self.writers.remove(&lane) {
            Some(writer) => writer,
            None => self.new_writer(lane)?,
        };
        let before = writer.written_bytes();
        match writer.write(facts).and_then(|wrote| writer.sync().map(|()| wrote)) {
            Ok((chunks, facts)) => {
                let written = writer.written_bytes() - before;
                let journal = &self.metrics.journal;
                journal.entries.get_or_create(&LaneLabel::of(lane)).inc_by(facts);
                journal.chunks.inc_by(chunks);
                journal.bytes_written.inc_by(written);
                self.shared.wrote(lane, written);
                self.writers.insert(lane, writer);
                Ok(())
            }
            Err(error) => {
                self.failed.insert(lane, writer);
                Err(error)
            }
        }
    }

    fn new_writer(&self, lane: Lane) -> Result<Writer, SegmentError> {
        let stream = self.entropy.uuid_v7(self.clock.now());
        let lane_dir = self.dir.join(lane.as_str());
        let writer = Writer::create(&lane_dir, lane, stream, &self.reader, self.clock.monotonic())?;
        self.shared.streams().push(writer.segment().clone());
        self.shared.list();
        Ok(writer)
    }

    /// Closes what is large or old enough, and measures how far the bound is.
    fn tidy(&mut self, failing: bool) {
        let now = self.clock.monotonic();
        let max_age = self.config.segment_max_age.0;
        // Old ones are closed so that they can be removed. While nothing of them is in Postgres,
        // that would only make work for merging: many small ones of few large ones.
        let old =
            |w: &Writer| now.saturating_sub(w.born()) >= max_age && w.segment().applied_seq() > 0;
        let due: Vec<Lane> = (self.writers.iter())
            .filter(|(lane, w)| w.written_bytes() >= self.segment_max_bytes(**lane) || old(w))
            .map(|(lane, _)| *lane)
            .collect();
        for lane in due {
            let Some(writer) = self.writers.remove(&lane) else { continue };
            if let Err(error) = writer.close() {
                tracing::error!(%error, lane = lane.as_str(), "segment cannot be closed yet");
                self.ballast.free();
                self.failed.insert(lane, writer);
            }
        }
        if now.saturating_sub(self.measured) >= MEASURE {
            self.measured = now;
            self.measure();
            self.warn_of_inherited();
        }
        if !self.ballast.is_held() && now.saturating_sub(self.tried) >= MEASURE {
            self.tried = now;
            self.keep_ballast();
        }
        let over = self.is_over();
        let strict = failing && self.config.commit == Commit::BeforeReply;
        let full = over || strict || !self.ballast.is_held();
        self.shared.full.store(full, Ordering::Release);
    }

    fn is_over(&self) -> bool {
        self.shared.disk_bytes.load(Ordering::Relaxed) >= self.config.max_bytes.0
    }

    /// Before anything is recorded: what earlier processes left may be all that there is room for.
    pub fn look_at_bounds(&mut self) {
        self.measured = self.clock.monotonic();
        self.measure();
        self.warn_of_inherited();
        self.shared.full.store(self.is_over(), Ordering::Release);
    }

    /// Says once that sums of earlier processes take half of the bound.
    fn warn_of_inherited(&mut self) {
        let (segments, bytes) = self.inherited;
        if !self.warned && bytes >= self.config.max_bytes.0 / 2 {
            self.warned = true;
            tracing::error!(
                segments, bytes, max_bytes = %self.config.max_bytes,
                "segments of earlier processes take half of journal.max_bytes, and are not merged \
                 before Postgres answers: see why this gateway starts so often"
            );
        }
    }

    /// Of events a part of their bound, so that it is not one segment that is written still.
    fn segment_max_bytes(&self, lane: Lane) -> u64 {
        let (any, events) = (self.config.segment_max_bytes.0, self.config.events_max_bytes.0);
        if lane == Lane::Events { any.min(events / 8) } else { any }
    }

    fn measure(&mut self) {
        let gauged = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let journal = &self.metrics.journal;
        let events = disk::bytes_below(&self.dir.join(Lane::Events.as_str()));
        let bytes = disk::bytes_below(&self.dir).saturating_sub(events);
        let state = disk::bytes_below(&self.dir.join(Lane::State.as_str()));
        self.shared.disk_bytes.store(bytes, Ordering::Relaxed);
        self.shared.state_bytes.store(state, Ordering::Relaxed);
        self.shared.event_bytes.store(events, Ordering::Relaxed);
        journal.bytes.set(gauged(bytes));
        journal.bytes_left.set(gauged(self.config.max_bytes.0.saturating_sub(bytes)));
        journal.event_bytes.set(gauged(events));
        let left = self.config.events_max_bytes.0.saturating_sub(events);
        journal.event_bytes_left.set(gauged(left));
        journal.segments.set(i64::try_from(self.shared.streams().len()).unwrap_or(i64::MAX));
        journal.quarantine_bytes.set(gauged(disk::bytes_below(&self.quarantine)));
        self.inherited = (0, 0);
        for lane in [Lane::Quota, Lane::Usage] {
            let (segments, bytes) = self.shared.inherited(lane);
            let label = LaneLabel::of(lane);
            journal.inherited_segments.get_or_create(&label).set(gauged(segments));
            journal.inherited_bytes.get_or_create(&label).set(gauged(bytes));
            self.inherited = (self.inherited.0 + segments, self.inherited.1 + bytes);
        }
    }

    /// Makes the ballast where it is missing and there is room for it, and says when the disk has
    /// become full, or has room again.
    fn keep_ballast(&mut self) {
        let made = self.ballast.make();
        let disk_full = !self.ballast.is_held();
        let before = self.shared.disk_full.swap(disk_full, Ordering::Release);
        self.metrics.journal.disk_full.set(i64::from(disk_full));
        match made {
            Err(error) if !before => tracing::error!(%error, "the ballast cannot be made"),
            Ok(false) if !before => tracing::error!(
                ballast = %self.config.ballast,
                "the disk is full: nothing but state facts is recorded until there is room"
            ),
            Ok(true) if before => tracing::info!("the disk has room again: everything is recorded"),
            _ => {}
        }
    }
}
