//! Quotas: what was applied is read back and brought to the cache's disk tier, with the ledger
//! positions that it stands for, before its segments may go. The same reading tells what other
//! gateways have used.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::gather::Gathered;
use super::{DrainError, Worker};
use crate::cache::ConfirmedQuotas;
use crate::disk::StoreError;
use crate::journal::{Segment, SegmentError};
use crate::model::Timestamp;
use crate::model::fact::{Lane, QuotaKey};
use crate::postgres::sink::{QuotaBases, QuotaKeys};

/// Quotas read back at a time.
const KEYS_MAX: usize = 10_000;
/// Periods that ended so long ago are not read any more when everything is.
const ENDED: Duration = Duration::from_secs(48 * 3600);
/// And forgotten on disk after so long.
const FORGOTTEN: Duration = Duration::from_secs(40 * 24 * 3600);
/// How often those are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Who is told what Postgres has confirmed.
pub trait QuotaListener: Send + Sync {
    /// This gateway's own use, and that of all others.
    fn confirmed(&self, key: &QuotaKey, own: u64, others: u64);
}

/// Nobody.
impl QuotaListener for () {
    fn confirmed(&self, _: &QuotaKey, _: u64, _: u64) {}
}

/// What was applied and is not confirmed yet.
pub(super) struct Quotas {
    listener: Arc<dyn QuotaListener>,
    /// Applied by somebody, and nobody noted what: read again from the journal.
    doubted: Vec<Uuid>,
    /// Streams whose facts were sent, and must stay.
    streams: BTreeSet<Uuid>,
    keys: BTreeSet<QuotaKey>,
    forgot: Option<Duration>,
}

impl Quotas {
    pub fn new(listener: Arc<dyn QuotaListener>) -> Self {
        Self {
            listener,
            doubted: Vec::new(),
            streams: BTreeSet::new(),
            keys: BTreeSet::new(),
            forgot: None,
        }
    }

    /// These were applied.
    pub fn sent(&mut self, gathered: &Gathered) {
        self.keys.extend(gathered.batch.quotas.iter().map(|fact| fact.key.clone()));
        self.streams.extend(gathered.segments.iter().map(|(segment, _)| segment.stream));
    }

    /// The ledger says something else of it than was known.
    pub fn doubt(&mut self, segment: &Segment) {
        self.doubted.push(segment.stream);
        self.streams.insert(segment.stream);
    }

    /// Streams that must stay.
    pub fn streams(&self) -> impl Iterator<Item = &Uuid> {
        self.streams.iter()
    }
}

impl Worker {
    /// Reads all quotas that are not over, once for each cache.
    pub(super) async fn learn_quotas(&mut self) -> Result<(), DrainError> {
        if self.cache.quota_bases_known() {
            return Ok(());
        }
        let since = self.surely_now().await?.minus(ENDED);
        let mut after = None;
        loop {
            let streams = self.quota_streams();
            let keys = QuotaKeys::Current(since, after.as_ref());
            let mut bases = self.sink.quota_bases(keys, &streams).await?;
            let next = bases.next.take();
            self.confirm(bases, streams).await?;
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let cache = self.cache.clone();
        self.write(move || cache.now_all_quota_bases_are_known()).await
    }

    /// Reads back what was applied.
    pub(super) async fn settle_quotas(&mut self) -> Result<(), DrainError> {
        self.read_doubted().await?;
        while !self.quotas.keys.is_empty() {
            let keys: Vec<_> = self.quotas.keys.iter().take(KEYS_MAX).cloned().collect();
            let streams = self.quota_streams();
            let bases = self.sink.quota_bases(QuotaKeys::Of(&keys), &streams).await?;
            self.confirm(bases, streams).await?;
            for key in &keys {
                self.quotas.keys.remove(key);
            }
        }
        self.quotas.streams.clear();
        self.forget_quotas().await
    }

    /// All of its quotas: which of them were applied, only the ledger knows.
    async fn read_doubted(&mut self) -> Result<(), DrainError> {
        while let Some(stream) = self.quotas.doubted.last().copied() {
            let journal = self.journal.clone();
            let keys = move || {
                let mut keys = BTreeSet::new();
                let segments = journal.segments(Lane::Quota);
                for segment in segments.iter().filter(|segment| segment.stream == stream) {
                    journal.quotas_of(segment, u64::MAX, &mut |_, _, fact| {
                        keys.insert(fact.key);
                    })?;
                }
                Ok::<_, SegmentError>(keys)
            };
            let keys =
                self.threads.spawn_blocking(keys).await.map_err(|_| DrainError::Stopped)??;
            self.quotas.keys.extend(keys);
            self.quotas.doubted.pop();
        }
        Ok(())
    }

    fn quota_streams(&self) -> Vec<Uuid> {
        self.journal.segments(Lane::Quota).iter().map(|segment| segment.stream).collect()
    }

    /// On disk first; then those are told who count in memory.
    async fn confirm(&self, bases: QuotaBases, streams: Vec<Uuid>) -> Result<(), DrainError> {
        let QuotaBases { used, positions, .. } = bases;
        let positions = positions_of(&streams, &positions);
        let confirmed = Arc::new(ConfirmedQuotas { used, positions });
        let (cache, written) = (self.cache.clone(), confirmed.clone());
        self.write(move || cache.put_quota_bases(&written)).await?;
        for (key, own, others) in &confirmed.used {
            self.quotas.listener.confirmed(key, *own, *others);
        }
        Ok(())
    }

    /// It is this late at least, by this machine's clock and by Postgres': what was used must not
    /// be forgotten, or not asked for, because one of them stands in 2100 for a while.
    async fn surely_now(&mut self) -> Result<Timestamp, DrainError> {
        Ok(self.sink.now().await?.min(self.clock.now()))
    }

    async fn forget_quotas(&mut self) -> Result<(), DrainError> {
        let now = self.clock.monotonic();
        if self.quotas.forgot.is_some_and(|forgot| now.saturating_sub(forgot) < FORGET_EVERY) {
            return Ok(());
        }
        let (cache, over) = (self.cache.clone(), self.surely_now().await?.minus(FORGOTTEN));
        self.quotas.forgot = Some(now);
        self.write(move || cache.forget_quotas(over).map(drop)).await
    }

    /// What the cache's disk does; when it fails, the pass fails and is tried again.
    async fn write(
        &self,
        write: impl FnOnce() -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), DrainError> {
        let written = self.threads.spawn_blocking(write).await;
        let written = written.map_err(|_| DrainError::Stopped)?;
        written.map_err(|error| DrainError::Journal(SegmentError::Store(error)))
    }
}

fn positions_of(streams: &[Uuid], ledger: &HashMap<Uuid, u64>) -> Vec<(Uuid, u64)> {
    let position = |stream: &Uuid| ledger.get(stream).map(|seq| (*stream, *seq));
    streams.iter().filter_map(position).collect()
}
