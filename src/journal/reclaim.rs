//! Giving space back: segments whose facts are settled go, once their retention is over.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use uuid::Uuid;

use super::{Journal, Segment, SegmentError, Tally};
use crate::disk;
use crate::model::fact::Lane;

/// What is left of a segment whose directory is gone: enough to tell what a ledger that moves back
/// behind it has lost.
#[derive(Clone, Debug)]
pub struct Removed {
    /// Its lane.
    pub lane: Lane,
    /// Its stream.
    pub stream: Uuid,
    /// Its last sequence number.
    pub last_seq: u64,
    /// Its facts.
    pub tally: Tally,
}

impl Journal {
    /// Removes segments that are settled and past their retention; `settled` says which are. What
    /// is about to go is told before. Settled events make room for new ones. Blocks.
    pub fn reclaim(&self, settled: &dyn Fn(&Segment) -> bool, told: &mut dyn FnMut(Vec<Removed>)) {
        let now = self.clock.0.monotonic();
        let taken = self.shared.event_bytes.load(Ordering::Relaxed);
        let crowded = taken >= self.config.events_max_bytes.0 / 2;
        let due = |segment: &&Arc<Segment>| {
            if !settled(segment) {
                segment.unsettle();
                return false;
            }
            let kept = segment.settled_for(now);
            kept >= self.config.retention.0 || crowded && segment.lane == Lane::Events
        };
        // A copy: the journal thread must not wait for the list while segments are looked at.
        let known = self.shared.streams().clone();
        let due: Vec<_> = known.iter().filter(due).collect();
        let whole = due.iter().filter(|segment| segment.missing().chunks == 0);
        let removed: Vec<_> = whole
            .map(|segment| Removed {
                lane: segment.lane,
                stream: segment.stream,
                last_seq: segment.durable_seq(),
                tally: segment.tally(),
            })
            .collect();
        if !removed.is_empty() {
            told(removed);
        }
        if !due.is_empty() {
            let goes = |known: &Arc<Segment>| due.iter().any(|due| due.stream == known.stream);
            self.shared.streams().retain(|known| !goes(known));
            self.shared.list();
        }
        for segment in due {
            segment.release();
            if segment.missing().chunks > 0 {
                // What is left of it is in Postgres; the rest may yet be found in the files.
                self.set_aside(
                    segment.lane,
                    segment.stream,
                    segment.dir(),
                    segment.end(),
                    segment.applied(),
                    &SegmentError::Missing(segment.missing()),
                );
            } else if let Err(error) = disk::remove_dir(segment.dir()) {
                let stream = segment.stream;
                tracing::warn!(%error, %stream, "settled segment cannot be removed");
            }
        }
        self.reader.rest();
    }
}
