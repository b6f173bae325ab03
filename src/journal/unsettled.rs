//! Sums on disk, read for what they say: usage that has not settled, and what was used of quotas.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use uuid::Uuid;

use super::{Journal, Segment, SegmentError};
use crate::disk;
use crate::model::fact::{Fact, Lane, QuotaFact, UsageFact};

impl Journal {
    /// Reads every usage fact on disk that lies beyond the ledger's positions; without a ledger,
    /// beyond what is known to be applied. Blocks.
    pub fn unsettled_usage(
        &self,
        ledger: Option<&HashMap<Uuid, u64>>,
        each: &mut dyn FnMut(UsageFact),
    ) -> Result<(), SegmentError> {
        const PAGE: usize = 1024;
        let swap = self.shared.merging.swap.read();
        let _no_swap = swap.unwrap_or_else(PoisonError::into_inner);
        for segment in self.segments(Lane::Usage) {
            let held = Held(&segment);
            let mut after = match ledger {
                Some(ledger) => ledger.get(&segment.stream).copied().unwrap_or(0),
                None => segment.applied_seq(),
            };
            loop {
                let page = self.read_on(held.0, after, PAGE)?;
                for fact in page.chunks.into_iter().flat_map(|chunk| chunk.facts) {
                    if let Fact::Usage(fact) = fact {
                        each(fact);
                    }
                }
                if page.reached >= segment.durable_seq() {
                    break;
                }
                after = page.reached;
            }
        }
        self.reader.rest();
        Ok(())
    }

    /// From now on nothing of the quota lane is merged before [`Journal::inherited_quotas`] has
    /// read it.
    pub fn quotas_will_be_read(&self) {
        self.shared.merging.quotas_unread.store(true, Ordering::Release);
    }

    /// Every quota fact on disk that an earlier process wrote, with its place. Blocks; where
    /// another handle has a segment, until `stop` says so.
    ///
    /// # Errors
    /// When a segment cannot be read; one that is damaged is set aside, and passed over.
    pub fn inherited_quotas(
        &self,
        stop: &dyn Fn() -> bool,
        each: &mut dyn FnMut(Uuid, u64, QuotaFact),
    ) -> Result<(), SegmentError> {
        let segments = self.segments(Lane::Quota);
        for segment in segments.iter().filter(|segment| !segment.is_own()) {
            let opened = disk::patiently(
                || segment.examined(),
                |error: &SegmentError| error.is_locked() && !stop(),
            );
            match opened.and_then(|_| self.quotas_of(segment, u64::MAX, each)) {
                Err(error) if error.is_damage() => self.put_aside(segment, &error),
                read => read?,
            }
        }
        self.reader.rest();
        self.shared.merging.quotas_unread.store(false, Ordering::Release);
        Ok(())
    }

    /// The quota facts of a segment, up to and with the sequence number `to`. Blocks.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn quotas_of(
        &self,
        segment: &Segment,
        to: u64,
        each: &mut dyn FnMut(Uuid, u64, QuotaFact),
    ) -> Result<(), SegmentError> {
        const PAGE: usize = 1024;
        let (held, mut after) = (Held(segment), 0);
        loop {
            let page = self.read_on(held.0, after, PAGE)?;
            for chunk in page.chunks.into_iter().filter(|chunk| chunk.seq <= to) {
                for fact in chunk.facts {
                    if let Fact::Quota(fact) = fact {
                        each(segment.stream, chunk.seq, fact);
                    }
                }
            }
            if page.reached >= segment.durable_seq().min(to) {
                return Ok(());
            }
            after = page.reached;
        }
    }
}

/// Lets go of a segment when done with it: an outage leaves many, and each open one takes memory.
struct Held<'a>(&'a Segment);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}
