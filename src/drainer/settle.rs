//! What becomes of facts that are in Postgres, or that Postgres refuses: pins are let go, segments
//! removed.

use std::collections::HashSet;
use std::sync::PoisonError;

use uuid::Uuid;

use super::Worker;
use super::gather::Gathered;
use super::lost::Remembered;
use crate::journal::{Journal, Segment, SegmentError};
use crate::metrics::LaneLabel;
use crate::model::Session;
use crate::model::fact::{Fact, StateFact};
use crate::postgres::sink::Refused;

/// State facts that were sent, and whose pins and segments are needed yet.
#[derive(Debug)]
pub(super) struct Awaiting {
    /// A catch-up after this one brings them back. `None`: Postgres refuses them, and no feed ever
    /// will. They stay in force here, and on disk, so that each start sends them again.
    catch_up: Option<u64>,
    streams: Vec<Uuid>,
    facts: Vec<StateFact>,
}

/// Sessions that were sent. No feed brings them back: they are written to the cache's disk tier.
#[derive(Debug)]
pub(super) struct Sessions {
    streams: Vec<Uuid>,
    facts: Vec<StateFact>,
}

fn session(fact: &StateFact) -> Option<&Session> {
    match fact {
        StateFact::Session(session) => Some(session),
        _ => None,
    }
}

/// A disk that fails is no reason to keep what is settled: it may be full.
fn remember(journal: &Journal, remembered: &Remembered) {
    if let Err(error) = journal.remember(remembered.iter()) {
        tracing::warn!(%error, "what is removed now is forgotten at the next start");
    }
}

impl Worker {
    /// Takes note of a batch that is in Postgres, but for what was `refused`.
    pub(super) fn applied(&mut self, gathered: Gathered, refused: Vec<Refused>) {
        self.report(&gathered, &refused);
        for (segment, range) in &gathered.segments {
            segment.set_applied(range.to);
            if range.closed.is_some() {
                segment.tell_end(true);
            }
            if segment.is_finished() {
                segment.release();
            }
        }
        let mut facts = gathered.batch.state;
        // Their verdict is the newest one.
        self.awaiting.retain_mut(|awaiting| {
            if awaiting.catch_up.is_none() {
                awaiting.facts.retain(|fact| !facts.contains(fact));
            }
            !awaiting.facts.is_empty()
        });
        let state = |refused: Refused| match refused.fact {
            Fact::State(fact) => Some(fact),
            _ => None,
        };
        let refused: Vec<StateFact> = refused.into_iter().filter_map(state).collect();
        facts.retain(|fact| !refused.contains(fact));
        let streams: Vec<_> = gathered.segments.iter().map(|(segment, _)| segment.stream).collect();
        let sessions: Vec<_> = facts.extract_if(.., |fact| session(fact).is_some()).collect();
        if !sessions.is_empty() {
            self.sessions.push(Sessions { streams: streams.clone(), facts: sessions });
        }
        let catch_up = Some(self.cache.catch_ups_begun());
        for (catch_up, facts) in [(catch_up, facts), (None, refused)] {
            if !facts.is_empty() {
                self.awaiting.push(Awaiting { catch_up, streams: streams.clone(), facts });
            }
        }
    }

    /// Once per batch, however many rows were refused.
    fn report(&self, gathered: &Gathered, refused: &[Refused]) {
        let Some(first) = refused.first() else { return };
        let lane = first.fact.lane();
        let letters = u64::try_from(refused.len()).unwrap_or(u64::MAX);
        self.metrics.drain.dead_letters.get_or_create(&LaneLabel::of(lane)).inc_by(letters);
        self.told.lock().unwrap_or_else(PoisonError::into_inner).dead_letters += letters;
        tracing::error!(
            letters,
            lane = lane.as_str(),
            reason = first.reason,
            stream = gathered
                .segments
                .first()
                .map(|(segment, _)| tracing::field::display(segment.stream)),
            "Postgres refuses facts for good: they stand in gatepost.dead_letters with the reason, \
             and all others of their batch are applied"
        );
    }

    /// Lets go of what is settled: overlay pins that the feed has confirmed, segments past
    /// retention.
    pub(super) async fn settle(&mut self) {
        self.settle_sessions().await;
        let caught_up = self.cache.caught_up();
        let cache = &self.cache;
        self.awaiting.retain(|awaiting| {
            let settled = awaiting.catch_up.is_some_and(|catch_up| caught_up > catch_up);
            if settled {
                awaiting.facts.iter().for_each(|fact| cache.settle(fact));
            }
            !settled
        });
        let sessions = self.sessions.iter().flat_map(|sessions| &sessions.streams);
        let sessions = sessions.chain(self.quotas.streams());
        let awaited = self.awaiting.iter().flat_map(|awaiting| &awaiting.streams);
        let awaited: HashSet<Uuid> = awaited.chain(sessions).copied().collect();
        let journal = self.journal.clone();
        let mut remembered = self.remembered.clone();
        let reclaimed = self.threads.spawn_blocking(move || {
            let settled =
                |segment: &Segment| segment.is_finished() && !awaited.contains(&segment.stream);
            journal.reclaim(&settled, &mut |removed| {
                remembered.add(removed);
                remember(&journal, &remembered);
            });
            remembered
        });
        match reclaimed.await {
            Ok(remembered) => self.remembered = remembered,
            Err(error) => tracing::error!(%error, "settled segments cannot be removed"),
        }
    }

    /// Brings to the disk what is remembered of removed segments, after something was lost of them.
    pub(super) async fn keep_remembered(&self) {
        let (journal, remembered) = (self.journal.clone(), self.remembered.clone());
        let kept = self.threads.spawn_blocking(move || remember(&journal, &remembered));
        if let Err(error) = kept.await {
            tracing::error!(%error, "what was removed cannot be remembered");
        }
    }

    async fn settle_sessions(&mut self) {
        if self.sessions.is_empty() {
            return;
        }
        let (cache, applied) = (self.cache.clone(), std::mem::take(&mut self.sessions));
        let settled = self.threads.spawn_blocking(move || {
            let facts = applied.iter().flat_map(|sessions| &sessions.facts);
            let settled = cache.settle_sessions(facts.filter_map(session));
            settled.map_err(|error| (error, applied))
        });
        match settled.await {
            Ok(Ok(())) => {}
            Ok(Err((error, applied))) => {
                tracing::error!(%error, "settled sessions wait: the cache's disk fails");
                self.sessions = applied;
            }
            Err(error) => tracing::error!(%error, "sessions cannot be settled"),
        }
    }

    /// Some of what was merged into it is counted already, and nobody can say which: the rest of
    /// the batch goes without it.
    pub(super) fn set_aside(&self, gathered: &Gathered, stream: Uuid) {
        self.metrics.drain.conflicts.inc();
        for (segment, ..) in gathered.segments.iter().filter(|(s, ..)| s.stream == stream) {
            let aside = self.journal.quarantine(segment, &SegmentError::Copied, &Vec::new);
            if let Err(error) = aside {
                tracing::error!(%error, %stream, "it stays where it is");
            }
        }
    }
}
