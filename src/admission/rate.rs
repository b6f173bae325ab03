//! Rate limits: GCRA in its virtual scheduling form (ITU-T I.371, annex A), in whole numbers.
//!
//! A bucket remembers one moment, its theoretical arrival time (TAT): when everything that was let
//! through would have come, had it come evenly. With `window / limit` between two requests, one
//! passes if its TAT lies at most `burst` requests ahead. Time is kept in nanoseconds and parts of
//! `1 / limit` of one, so that nothing is ever rounded: `limit` requests in `window` are exactly
//! that.
//!
//! All limits of a request are looked at under the locks of their shards before any is charged: a
//! refusal by one takes nothing from another, and of requests that come at the same time never one
//! too many passes. A refused request takes nothing.
//!
//! A bucket's rate is that of whoever looked at it last: after a change the first look, whether it
//! passes or not, turns what is in it into as many requests of the new rate.

mod gcra;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::clock::Seldom;
use crate::model::policy::LIMITS_MAX;
use gcra::{Instant, Slot, nanos};

pub use gcra::{Level, Rate};

/// Which limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LimitId(pub u32);

/// Which limit of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub limit: LimitId,
    pub scope: u128,
}

/// What a request is held against.
#[derive(Clone, Copy, Debug)]
pub struct Charge {
    pub bucket: Bucket,
    pub rate: Rate,
}

/// Why nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeError {
    /// One limit has too little left.
    Refused {
        /// Its place among the charges; of several, the one that is free again last.
        at: usize,
        /// When there will be enough; `None`: never, the cost is above the burst.
        retry_after: Option<Duration>,
    },
    /// There is no room for another bucket, and all that there are hold something.
    Full,
    /// All would pass, and what was asked last said no.
    Otherwise,
}

/// A bucket's key. (A `u128` would have the map's entries aligned to 16 bytes.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    scope: [u64; 2],
    limit: u32,
}

#[derive(Debug)]
struct Shard {
    slots: HashMap<Key, Slot, RandomState>,
    sweep_at: usize,
    /// When it was last swept.
    swept: u64,
}

/// While there is no room.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
const SWEEP_MIN: usize = if cfg!(test) { 16 } else { 1024 };

/// See the module. Memory only: a restart forgets it, and so grants at most one burst.
pub struct Limiter {
    shards: Box<[Mutex<Shard>]>,
    len: AtomicUsize,
    /// All shards are swept, that others may have room: looking through all of them takes its time.
    sweeps: Seldom,
    max: usize,
}

/// Whether one answer to "when" is later than another; `None`, which is never, is the latest.
pub(super) fn later(one: Option<Duration>, other: Option<Duration>) -> bool {
    match (one, other) {
        (_, None) => false,
        (None, _) => true,
        (Some(one), Some(other)) => one > other,
    }
}

fn key(bucket: &Bucket) -> Key {
    #[expect(clippy::cast_possible_truncation, reason = "both halves are there")]
    let scope = [(bucket.scope >> 64) as u64, bucket.scope as u64];
    Key { scope, limit: bucket.limit.0 }
}

/// The shards of one request, each locked once, in the order of their places.
struct Held<'a>([Option<(usize, MutexGuard<'a, Shard>)>; LIMITS_MAX]);

/// What would pass: what each bucket would hold then, and how many there are not yet.
struct Passing {
    ahead: [u128; LIMITS_MAX],
    new: usize,
}

impl Held<'_> {
    fn of(&mut self, place: usize) -> Option<&mut Shard> {
        let found = self.0.iter_mut().flatten().find(|(at, _)| *at == place);
        found.map(|(_, shard)| &mut **shard)
    }
}

impl Limiter {
    /// Empty, with room for `max` buckets in `shards` shards.
    pub fn new(max: usize, shards: usize) -> Self {
        let shard = || Shard { slots: HashMap::default(), sweep_at: SWEEP_MIN, swept: 0 };
        let shards = (0..shards.max(1)).map(|_| Mutex::new(shard())).collect();
        Self { shards, len: AtomicUsize::new(0), sweeps: Seldom::default(), max }
    }

    fn place(&self, bucket: &Bucket) -> usize {
        // All buckets of a key or client are in one shard. Both halves of an id are not random.
        let [high, low] = key(bucket).scope;
        #[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
        let at = (high ^ low.rotate_left(32) ^ low) as usize;
        at % self.shards.len()
    }

    fn hold(&self, places: &[usize; LIMITS_MAX]) -> Held<'_> {
        let mut places = *places;
        places.sort_unstable();
        let mut last = usize::MAX;
        Held(places.map(|place| {
            // (Places that no charge has are the largest number.)
            if std::mem::replace(&mut last, place) == place || place == usize::MAX {
                return None;
            }
            Some((place, self.shards[place].lock().unwrap_or_else(PoisonError::into_inner)))
        }))
    }

    /// Looks at all, then charges all; or none. At most [`LIMITS_MAX`] charges, each of another
    /// bucket. `also` is asked when all would pass, once and under their locks: nothing is charged
    /// unless it agrees. `levels` tells how each stands then.
    ///
    /// # Errors
    /// See [`TakeError`]; then nothing was taken.
    pub fn take(
        &self,
        charges: &[Charge],
        cost: u32,
        now: Duration,
        levels: &mut [Level],
        also: &mut dyn FnMut() -> bool,
    ) -> Result<(), TakeError> {
        match self.try_take(charges, cost, now, levels, also) {
            Err(TakeError::Full) if self.sweeps.is_due(now) => {
                self.sweep(now);
                self.try_take(charges, cost, now, levels, also)
            }
            taken => taken,
        }
    }

    fn try_take(
        &self,
        charges: &[Charge],
        cost: u32,
        now: Duration,
        levels: &mut [Level],
        also: &mut dyn FnMut() -> bool,
    ) -> Result<(), TakeError> {
        let places = self.plan(charges);
        let mut held = self.hold(&places);
        let passing = match Self::look(&places, charges, &mut held, cost, now) {
            Ok(passing) => passing,
            Err(refused) => {
                Self::tell(&places, charges, &mut held, now, levels);
                return Err(refused);
            }
        };
        self.make_room(&mut held, passing.new, now)?;
        if !also() {
            Self::tell(&places, charges, &mut held, now, levels);
            return Err(TakeError::Otherwise);
        }
        for (at, (charge, level)) in charges.iter().zip(levels).enumerate() {
            let Some(shard) = held.of(places[at]) else { continue };
            let instant = Instant::new(&charge.rate, now);
            let ahead = passing.ahead[at];
            if shard.slots.insert(key(&charge.bucket), instant.slot(ahead)).is_none() {
                self.len.fetch_add(1, Ordering::Relaxed);
            }
            *level = instant.level(ahead);
        }
        Ok(())
    }

    /// As [`Limiter::take`], and nothing is taken.
    ///
    /// # Errors
    /// What taking would.
    pub fn peek(
        &self,
        charges: &[Charge],
        cost: u32,
        now: Duration,
        levels: &mut [Level],
    ) -> Result<(), TakeError> {
        match self.try_peek(charges, cost, now, levels) {
            Err(TakeError::Full) if self.sweeps.is_due(now) => {
                self.sweep(now);
                self.try_peek(charges, cost, now, levels)
            }
            seen => seen,
        }
    }

    fn try_peek(
        &self,
        charges: &[Charge],
        cost: u32,
        now: Duration,
        levels: &mut [Level],
    ) -> Result<(), TakeError> {
        let places = self.plan(charges);
        let mut held = self.hold(&places);
        Self::tell(&places, charges, &mut held, now, levels);
        let passing = Self::look(&places, charges, &mut held, cost, now)?;
        self.make_room(&mut held, passing.new, now)
    }

    fn plan(&self, charges: &[Charge]) -> [usize; LIMITS_MAX] {
        let mut places = [usize::MAX; LIMITS_MAX];
        for (place, charge) in places.iter_mut().zip(charges) {
            *place = self.place(&charge.bucket);
        }
        places
    }

    /// Whether all would pass.
    fn look(
        places: &[usize; LIMITS_MAX],
        charges: &[Charge],
        held: &mut Held<'_>,
        cost: u32,
        now: Duration,
    ) -> Result<Passing, TakeError> {
        let mut passing = Passing { ahead: [0; LIMITS_MAX], new: 0 };
        let mut refused = None::<(usize, Option<Duration>)>;
        for (at, charge) in charges.iter().enumerate() {
            let shard = held.of(places[at]);
            let slot = shard.and_then(|shard| shard.slots.get_mut(&key(&charge.bucket)));
            passing.new += usize::from(slot.is_none());
            let instant = Instant::new(&charge.rate, now);
            match instant.after(instant.ahead(slot), cost) {
                Ok(ahead) => passing.ahead[at] = ahead,
                Err(retry_after)
                    if refused.is_none_or(|(_, so_far)| later(retry_after, so_far)) =>
                {
                    refused = Some((at, retry_after));
                }
                Err(_) => {}
            }
        }
        match refused {
            Some((at, retry_after)) => Err(TakeError::Refused { at, retry_after }),
            None => Ok(passing),
        }
    }

    /// How all stand.
    fn tell(
        places: &[usize; LIMITS_MAX],
        charges: &[Charge],
        held: &mut Held<'_>,
        now: Duration,
        levels: &mut [Level],
    ) {
        for ((charge, level), place) in charges.iter().zip(levels).zip(places) {
            let shard = held.of(*place);
            let slot = shard.and_then(|shard| shard.slots.get_mut(&key(&charge.bucket)));
            let instant = Instant::new(&charge.rate, now);
            *level = instant.level(instant.ahead(slot));
        }
    }

    /// Lets go of idle buckets where there are many, and refuses new ones where there is no room.
    fn make_room(&self, held: &mut Held<'_>, new: usize, now: Duration) -> Result<(), TakeError> {
        if new == 0 {
            return Ok(());
        }
        let full = || self.len.load(Ordering::Relaxed) + new > self.max;
        let scarce = full();
        for (_, shard) in held.0.iter_mut().flatten() {
            // Who finds no room must not hold up all others of the shard each time.
            let rested = nanos(now).saturating_sub(shard.swept) >= nanos(SWEEP_EVERY);
            if scarce && rested || shard.slots.len() >= shard.sweep_at {
                self.sweep_shard(shard, now);
            }
        }
        if full() { Err(TakeError::Full) } else { Ok(()) }
    }

    fn sweep_shard(&self, shard: &mut Shard, now: Duration) -> usize {
        let before = shard.slots.len();
        shard.slots.retain(|_, slot| slot.tat >= nanos(now));
        let gone = before - shard.slots.len();
        self.len.fetch_sub(gone, Ordering::Relaxed);
        shard.sweep_at = (2 * shard.slots.len()).max(SWEEP_MIN);
        shard.swept = nanos(now);
        if shard.slots.capacity() > 4 * shard.sweep_at {
            shard.slots.shrink_to(shard.sweep_at);
        }
        gone
    }

    /// Lets go of every bucket from which nothing is taken any more; how many those were.
    pub fn sweep(&self, now: Duration) -> usize {
        let sweep = |shard: &Mutex<Shard>| {
            self.sweep_shard(&mut shard.lock().unwrap_or_else(PoisonError::into_inner), now)
        };
        self.shards.iter().map(sweep).sum()
    }

    /// Buckets with something taken, and idle ones that nobody has looked at since.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
