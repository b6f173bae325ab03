//! The book of quotas: what was used before this process counted is what Postgres has confirmed and
//! the cache's disk knows, and what earlier processes left in the journal beyond that.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use super::calendar;
use crate::admission::{Admission, Bases, Used};
use crate::cache::Cache;
use crate::clock::SharedClock;
use crate::config::Config;
use crate::drainer::QuotaListener;
use crate::journal::{Journal, SegmentError};
use crate::metrics::Metrics;
use crate::model::fact::QuotaKey;

/// Facts of earlier processes: where each stands, and what was used.
type Inherited = HashMap<QuotaKey, Vec<(Uuid, u64, u64)>>;

/// See the module.
pub struct QuotaBook {
    cache: Arc<Cache>,
    admission: Arc<Admission>,
    inherited: OnceLock<Mutex<Inherited>>,
}

impl QuotaBook {
    pub fn new(cache: Arc<Cache>, admission: Arc<Admission>) -> Arc<Self> {
        Arc::new(Self { cache, admission, inherited: OnceLock::new() })
    }

    /// Reads what earlier processes left; from then on quotas are decided. Blocks.
    pub fn open(
        self: &Arc<Self>,
        journal: &Journal,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), SegmentError> {
        let mut inherited = Inherited::new();
        journal.inherited_quotas(stop, &mut |stream, seq, fact| {
            inherited.entry(fact.key).or_default().push((stream, seq, fact.used));
        })?;
        if self.inherited.set(Mutex::new(inherited)).is_ok() {
            self.admission.quotas().based_on(Arc::clone(self) as Arc<dyn Bases>);
        }
        Ok(())
    }
}

impl Bases for QuotaBook {
    fn used(&self, key: &QuotaKey) -> Option<Used> {
        if !self.cache.quota_bases_known() {
            return None;
        }
        // Held over both: what is confirmed meanwhile is taken out here after it is on disk.
        let inherited = self.inherited.get()?.lock().unwrap_or_else(PoisonError::into_inner);
        let base = self.cache.quota_base(key).inspect_err(|error| {
            tracing::error!(%error, "the cache's disk tier cannot be read");
        });
        let base = base.ok()?.unwrap_or_default();
        let beyond = |(stream, seq, _): &&(Uuid, u64, u64)| !base.contains(*stream, *seq);
        let left = inherited.get(key).into_iter().flatten().filter(beyond);
        let left = left.fold(0_u64, |sum, (_, _, used)| sum.saturating_add(*used));
        let own = base.own.saturating_add(left);
        Some(Used { own, settled: base.own, others: base.others })
    }
}

impl QuotaListener for QuotaBook {
    fn confirmed(&self, key: &QuotaKey, own: u64, others: u64) {
        if let (Some(inherited), Ok(Some(base))) =
            (self.inherited.get(), self.cache.quota_base(key))
        {
            // Its segment may go from now on, and the record will not name it for ever.
            let mut inherited = inherited.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(left) = inherited.get_mut(key) {
                left.retain(|(stream, seq, _)| !base.contains(*stream, *seq));
                if left.is_empty() {
                    inherited.remove(key);
                }
            }
        }
        self.admission.quotas().confirmed(key, own, others);
    }
}

/// What decides, and what it knows of quotas.
pub fn limits(
    config: &Config,
    data: &Path,
    cache: &Arc<Cache>,
    clock: &SharedClock,
    metrics: &Arc<Metrics>,
) -> (Arc<Admission>, Arc<QuotaBook>) {
    let (now, monotonic) = (clock.now(), clock.monotonic());
    let admission = Admission::new(config.admission.clone(), now, monotonic, metrics.clone());
    let admission = Arc::new(match calendar::read(data) {
        Some(last) => admission.after(last, now, monotonic),
        None => admission,
    });
    let book = QuotaBook::new(cache.clone(), admission.clone());
    (admission, book)
}

/// Again and again while it cannot be read, until `stop` says so: what is bound by a quota is
/// undecidable until then.
pub fn open_book(book: &Arc<QuotaBook>, journal: &Journal, stop: &dyn Fn() -> bool) {
    const PAUSE: Duration = Duration::from_secs(1);
    const STEP: Duration = Duration::from_millis(50);
    let mut warned = false;
    while let Err(error) = book.open(journal, stop) {
        if !std::mem::replace(&mut warned, true) {
            tracing::error!(%error, "what was used of quotas cannot be read yet; it is tried on");
        }
        let mut waited = Duration::ZERO;
        while waited < PAUSE && !stop() {
            std::thread::sleep(STEP);
            waited += STEP;
        }
        if stop() {
            return;
        }
    }
}
