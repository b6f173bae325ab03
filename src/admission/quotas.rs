//! How much of which quota was used in its period: by this gateway, exactly, and by others as far
//! as Postgres has told.
//!
//! What stands here is disposable: it is the sum of what Postgres has confirmed and of what the
//! journal holds beyond that, and [`Bases`] tells that sum again whenever it is asked for. So what
//! was confirmed may be let go of, and what was not stays.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use serde::Serialize;
use tokio::sync::Notify;

use super::QuotaUse;
use super::config::SHARDS;
use crate::clock::Seldom;
use crate::model::fact::QuotaKey;
use crate::model::policy::QuotaRule;
use crate::model::{Name, Timestamp};

/// How much was used of a quota in a period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// By this gateway, settled or not.
    pub own: u64,
    /// Of that, what Postgres has confirmed and the disk knows.
    pub settled: u64,
    /// By all others, as far as Postgres has told.
    pub others: u64,
}

/// Where it is known what was used before this process counted.
pub trait Bases: Send + Sync {
    /// What was used; `None` while nobody can say.
    fn used(&self, key: &QuotaKey) -> Option<Used>;
}

/// What tells one quota's count from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Slot {
    pub quota: u32,
    pub scope: u128,
    pub start: Timestamp,
}

/// What is asked of a quota.
pub(super) struct Asked<'a> {
    pub rule: &'a QuotaRule,
    pub until: Timestamp,
    pub cost: u64,
    /// What time it is, if the clock has not been set for long. Asked only where there is no room.
    pub settled_now: &'a dyn Fn() -> Option<Timestamp>,
    /// The same by the monotonic clock.
    pub monotonic: Duration,
}

/// Why nothing was reserved.
pub(super) enum Refusal {
    /// Too little is left.
    Exceeded,
    /// Nobody can say what was used.
    Unknown,
    /// There is no room for another count.
    Full,
}

/// How a quota stands, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QuotaStanding {
    /// Its name.
    pub quota: Name,
    /// Its policy.
    pub policy: Name,
    /// `key` or `client`.
    pub per: &'static str,
    /// The client, or the id of the key.
    pub of: Name,
    /// When the period began.
    pub period_start: Timestamp,
    /// When it ends.
    pub period_end: Timestamp,
    /// Requests per period.
    pub limit: u64,
    /// Used, settled or not; `None` while nobody can say.
    pub used: Option<u64>,
    /// Left; `None` while nobody can say.
    pub remaining: Option<u64>,
}

#[derive(Debug)]
struct Live {
    key: QuotaKey,
    used: Used,
}

#[derive(Debug)]
struct Shard {
    live: HashMap<Slot, Live, RandomState>,
    sweep_at: usize,
}

const SWEEP_MIN: usize = if cfg!(test) { 4 } else { 1024 };
/// A period that has ended is kept for so long: clocks may go back.
const ENDED_KEPT: Duration = Duration::from_secs(48 * 3600);

/// See the module.
pub struct Quotas {
    shards: Vec<Mutex<Shard>>,
    /// The same by what Postgres calls them. Taken after a shard's lock, never before.
    slots: Mutex<HashMap<QuotaKey, Slot, RandomState>>,
    len: AtomicUsize,
    /// All shards are swept because there is no room.
    sweeps: Seldom,
    max: usize,
    bases: OnceLock<Arc<dyn Bases>>,
    based: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Quotas {
    pub(super) fn new(max: usize) -> Self {
        let shard = || Mutex::new(Shard { live: HashMap::default(), sweep_at: SWEEP_MIN });
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            slots: Mutex::default(),
            len: AtomicUsize::new(0),
            sweeps: Seldom::default(),
            max,
            bases: OnceLock::new(),
            based: Notify::new(),
        }
    }

    /// Tells what was used before. Until then nobody can say; once told, it stays.
    pub fn based_on(&self, bases: Arc<dyn Bases>) {
        // A second word changes nothing.
        drop(self.bases.set(bases));
        self.based.notify_waiters();
    }

    /// Whether that was told.
    pub fn is_based(&self) -> bool {
        self.bases.get().is_some()
    }

    /// Waits until it is told.
    pub async fn based(&self) {
        // Made before looking, so that no wake in between is missed.
        let woken = self.based.notified();
        if !self.is_based() {
            woken.await;
        }
    }

    fn shard(&self, slot: &Slot) -> MutexGuard<'_, Shard> {
        let at = slot.scope as usize % SHARDS;
        lock(&self.shards[at])
    }

    /// Takes `cost` from a quota, if so much is left; says how much is left then.
    pub(super) fn reserve(
        &self,
        slot: Slot,
        asked: &Asked<'_>,
        scope: &dyn Fn() -> Name,
    ) -> Result<(QuotaUse, u64), Refusal> {
        match self.try_reserve(slot, asked, scope) {
            // Other shards may have room. (This one's lock is not held any more.)
            Err(Refusal::Full) if self.sweeps.is_due(asked.monotonic) => {
                self.sweep((asked.settled_now)());
                self.try_reserve(slot, asked, scope)
            }
            reserved => reserved,
        }
    }

    fn try_reserve(
        &self,
        slot: Slot,
        asked: &Asked<'_>,
        scope: &dyn Fn() -> Name,
    ) -> Result<(QuotaUse, u64), Refusal> {
        let mut shard = self.shard(&slot);
        let live = match shard.live.get_mut(&slot) {
            Some(live) => live,
            None => {
                self.load(&mut shard, slot, asked, scope)?;
                shard.live.get_mut(&slot).ok_or(Refusal::Unknown)?
            }
        };
        // Its unit may have changed at the start of both: what was used lasts as long as the later.
        live.key.until = live.key.until.max(asked.until);
        let used = live.used.own.saturating_add(live.used.others);
        let remaining = asked.rule.limit.saturating_sub(used);
        let left = remaining.checked_sub(asked.cost).ok_or(Refusal::Exceeded)?;
        live.used.own = live.used.own.saturating_add(asked.cost);
        Ok((QuotaUse { key: live.key.clone(), used: asked.cost, slot }, left))
    }

    /// Reads what was used before, and makes room for it.
    fn load(
        &self,
        shard: &mut Shard,
        slot: Slot,
        asked: &Asked<'_>,
        scope: &dyn Fn() -> Name,
    ) -> Result<(), Refusal> {
        if shard.live.len() >= shard.sweep_at {
            self.sweep_shard(shard, (asked.settled_now)());
        }
        if self.len.load(Ordering::Relaxed) >= self.max {
            return Err(Refusal::Full);
        }
        let key = QuotaKey {
            quota: asked.rule.stored.clone(),
            scope: scope(),
            period: slot.start,
            until: asked.until,
        };
        // Under the lock of the shard and of the names: what Postgres confirms meanwhile waits for
        // it, and so is not missed.
        let mut slots = lock(&self.slots);
        let used = self.bases.get().and_then(|bases| bases.used(&key)).ok_or(Refusal::Unknown)?;
        slots.insert(key.clone(), slot);
        shard.live.insert(slot, Live { key, used });
        self.len.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Lets go of what can be asked for again, and of periods that are long over by a clock that
    /// has not been set for long: what this process used of them can be had again from nobody.
    pub fn sweep(&self, now: Option<Timestamp>) {
        for shard in &self.shards {
            self.sweep_shard(&mut lock(shard), now);
        }
    }

    fn sweep_shard(&self, shard: &mut Shard, now: Option<Timestamp>) {
        let mut slots = lock(&self.slots);
        let before = shard.live.len();
        shard.live.retain(|_, live| {
            let settled = live.used.own == live.used.settled;
            let over = now.is_some_and(|now| live.key.until.plus(ENDED_KEPT) < now);
            if settled || over {
                slots.remove(&live.key);
            }
            !(settled || over)
        });
        self.len.fetch_sub(before - shard.live.len(), Ordering::Relaxed);
        shard.sweep_at = (2 * shard.live.len()).max(SWEEP_MIN);
    }

    /// What was reserved is not used after all.
    pub(super) fn give_back(&self, uses: &[QuotaUse]) {
        for used in uses {
            if let Entry::Occupied(mut live) = self.shard(&used.slot).live.entry(used.slot) {
                let live = &mut live.get_mut().used;
                live.own = live.own.saturating_sub(used.used);
            }
        }
    }

    /// Postgres has confirmed `own` of this gateway's use, and tells what others have used.
    pub fn confirmed(&self, key: &QuotaKey, own: u64, others: u64) {
        let Some(slot) = lock(&self.slots).get(key).copied() else { return };
        if let Some(live) = self.shard(&slot).live.get_mut(&slot) {
            live.used.settled = own;
            live.used.others = others;
            // A copy of this gateway may have used more under its name.
            live.used.own = live.used.own.max(own);
        }
    }

    /// Whether a count is in memory, or would find room there.
    pub(super) fn has_room(&self, slot: &Slot) -> bool {
        let has = || self.len() < self.max || self.shard(slot).live.contains_key(slot);
        // (Only for explanations: no request's turn to sweep is taken.)
        if !has() {
            self.sweep(None);
        }
        has()
    }

    /// As [`Quotas::used`], of one that is probably in memory.
    pub(super) fn look(&self, slot: &Slot, key: &dyn Fn() -> QuotaKey) -> Option<Used> {
        let live = self.shard(slot).live.get(slot).map(|live| live.used);
        live.or_else(|| self.used(&key()))
    }

    /// What was used, whether it is in memory or not; `None` while nobody can say.
    pub fn used(&self, key: &QuotaKey) -> Option<Used> {
        let slot = lock(&self.slots).get(key).copied();
        let live = slot.and_then(|slot| self.shard(&slot).live.get(&slot).map(|live| live.used));
        live.or_else(|| self.bases.get()?.used(key))
    }

    /// Quotas in memory.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
