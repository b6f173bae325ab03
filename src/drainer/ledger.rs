//! Reading the ledger: after any doubt, and now and then, for it may have moved backwards.

use std::collections::HashMap;
use std::sync::PoisonError;

use uuid::Uuid;

use super::lost::{Losses, REMEMBERED_MAX};
use super::{DrainError, Worker, lost};
use crate::journal::{Rest, Segment};
use crate::model::fact::Lane;
use crate::postgres::sink::Ledger;

impl Worker {
    /// Takes over what the ledger says of every stream of sums. A pending fact is only ever sent
    /// after this. State is sent whatever the ledger says, so there it only tells what Postgres has
    /// lost.
    pub(super) async fn read_ledger(&mut self) -> Result<(), DrainError> {
        let segments: Vec<_> =
            Lane::ALL.into_iter().flat_map(|lane| self.journal.segments(lane)).collect();
        let known = segments.iter().map(|segment| segment.stream);
        let streams: Vec<_> = known.chain(self.remembered.streams()).collect();
        let ledger = self.sink.positions(&streams).await?;
        let mut back = false;
        for segment in segments {
            let known = segment.applied_seq();
            let row = ledger.get(&segment.stream);
            back |= self.take_over(&segment, row);
            segment.rested(row.map(|row| self.rest(&segment, row)));
            if segment.lane == Lane::Quota && segment.applied_seq() != known {
                self.quotas.doubt(&segment);
            }
        }
        let lost = self.report_lost(&ledger);
        if back || lost {
            self.compare_sessions().await;
        }
        if lost {
            self.keep_remembered().await;
        }
        self.certain_since = Some(self.clock.monotonic());
        Ok(())
    }

    /// Since when nothing of a stream was applied. Two clocks would have to be set forward before
    /// it is told too long: by this machine's it is no longer than the stream has been there.
    fn rest(&self, segment: &Segment, row: &Ledger) -> Rest {
        let age = self.clock.now().since(segment.born());
        Rest { up_to: row.last_seq, took: row.rested.min(age), seen: self.clock.monotonic() }
    }

    /// Whether this stream has moved backwards.
    fn take_over(&self, segment: &Segment, row: Option<&Ledger>) -> bool {
        let known = segment.applied_seq();
        let other_end = row.is_some_and(|row| {
            row.underway || row.closed_seq.is_some_and(|end| end < segment.durable_seq())
        });
        if segment.lane != Lane::State && segment.block(other_end) {
            tracing::error!(
                stream = %segment.stream,
                closed_at = row.and_then(|row| row.closed_seq),
                "Postgres knows another end of this stream: a copy of this data directory was \
                 drained. What lies beyond it is kept here and not counted"
            );
        }
        let applied = row.map_or(0, |row| row.last_seq);
        if segment.is_sealed() && applied > segment.durable_seq() && applied > known {
            tracing::error!(
                stream = %segment.stream, applied, end = segment.durable_seq(),
                "Postgres has more of this stream than its writer says there is: a copy of this \
                 data directory went on with it, and that was drained"
            );
        }
        let back = applied < known;
        if back {
            self.metrics.drain.regressions.inc();
            tracing::warn!(
                stream = %segment.stream, known, applied,
                "the ledger has moved backwards: what is still here is sent again"
            );
            // Postgres lost other things with it: state facts are idempotent, send all again.
            self.journal.segments(Lane::State).iter().for_each(|state| state.set_applied(0));
        } else if segment.lane == Lane::State {
            return false;
        } else if applied > known {
            self.metrics.drain.recognised.inc();
        }
        segment.set_applied(applied);
        segment.tell_end(row.is_some_and(|row| row.closed_seq.is_some()));
        back
    }

    /// Sessions whose segments are gone stand in the cache yet.
    async fn compare_sessions(&self) {
        let cache = self.cache.clone();
        let noted = self.threads.spawn_blocking(move || cache.compare_sessions()).await;
        if !matches!(noted, Ok(Ok(()))) {
            tracing::error!(?noted, "it cannot be noted that Postgres may have lost sessions");
        }
    }

    /// Says exactly what neither Postgres nor this journal has any more, or that it is at least so
    /// much; whether there was any.
    fn report_lost(&mut self, ledger: &HashMap<Uuid, Ledger>) -> bool {
        let Losses { lost, at_least } = self.remembered.lost(ledger);
        for lost in &lost {
            self.metrics.drain.regressions.inc();
            self.metrics.drain.lost_chunks.inc_by(lost.chunks());
            self.metrics.drain.lost_facts.inc_by(lost.facts.unwrap_or(0));
            tracing::error!(
                stream = %lost.stream, lane = lost.lane, from = lost.from, to = lost.to,
                facts = lost.facts,
                "the ledger has moved backwards past journal.retention: these chunks of a stream \
                 that was removed here are lost, and nothing else of it"
            );
        }
        if at_least {
            tracing::error!(
                streams = lost.len(),
                remembered = REMEMBERED_MAX,
                "at least this is lost: the ledger has moved back to before the oldest removed \
                 stream that is remembered, and what older ones have lost nobody can tell"
            );
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        lost::show(&mut told.lost, &lost);
        told.lost_at_least |= at_least;
        !lost.is_empty()
    }
}
