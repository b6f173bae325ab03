//! The window: what was recorded since the last commit, merged, so that a hot counter costs one
//! entry however many requests hit it.
//!
//! Each worker thread has a shard of its own; its lock is contended only for the moment in which
//! the journal thread takes the shard's map away. A shard carries the number of the round that will
//! commit what it holds: that number is the ticket.

use std::cell::Cell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{FactRef, lock};
use crate::model::fact::{Counter, Counts, Fact, QuotaKey, StateFact};

/// Counters with their counts.
pub type Tally = HashMap<Counter, Counts>;

/// What was used, by quota. (No caller chooses any part of such a key, as one does of a counter's:
/// the faster hash will do.)
pub type Used = HashMap<QuotaKey, u64, foldhash::fast::RandomState>;

/// Merges `counts` into `tally`; whether the counter is new there.
pub fn merge(tally: &mut Tally, counter: Counter, counts: &Counts) -> bool {
    match tally.entry(counter) {
        Entry::Occupied(mut known) => {
            known.get_mut().merge(counts);
            false
        }
        Entry::Vacant(new) => {
            new.insert(*counts);
            true
        }
    }
}

/// Everything of one round.
#[derive(Debug, Default)]
pub struct Collected {
    /// State lane, in the order of recording.
    pub state: Vec<StateFact>,
    /// Quota lane, merged.
    pub quotas: Used,
    /// Usage lane, merged.
    pub usage: Tally,
    /// Events lane.
    pub events: Vec<Fact>,
    /// Counters and quotas taken out of the shards, before merging: what the bound on pending
    /// counters counts.
    pub taken: usize,
}

impl Collected {
    /// Adds a later round, by the facts' laws.
    pub fn absorb(&mut self, later: Self) {
        self.state.extend(later.state);
        self.events.extend(later.events);
        self.taken += later.taken;
        if self.usage.is_empty() {
            self.usage = later.usage;
        } else {
            for (counter, counts) in later.usage {
                merge(&mut self.usage, counter, &counts);
            }
        }
        for (key, used) in later.quotas {
            key.add(used, &mut self.quotas);
        }
    }

    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.state.is_empty()
            && self.quotas.is_empty()
            && self.usage.is_empty()
            && self.events.is_empty()
    }

    /// The facts of the state lane.
    pub fn state_facts(&self) -> impl Iterator<Item = FactRef<'_>> {
        self.state.iter().map(FactRef::State)
    }

    /// The facts of the quota lane.
    pub fn quota_facts(&self) -> impl Iterator<Item = FactRef<'_>> {
        self.quotas.iter().map(|(key, used)| FactRef::Quota(key, used))
    }

    /// The facts of the usage lane, those that are alike side by side: by client, then by key.
    pub fn usage_facts(&self) -> impl Iterator<Item = FactRef<'_>> {
        // The place comes first and by itself, so that sorting follows no pointers.
        let placed = self.usage.iter().map(|(counter, counts)| (place(counter), counter, counts));
        let mut placed: Vec<_> = placed.collect();
        placed.sort_unstable_by_key(|(place, ..)| *place);
        placed.into_iter().map(|(_, counter, counts)| FactRef::Usage(counter, counts))
    }

    /// The facts of the events lane.
    pub fn event_facts(&self) -> impl Iterator<Item = FactRef<'_>> {
        self.events.iter().map(FactRef::from)
    }
}

/// The start of the client's name, and the key. Longer names may share a place: it is for
/// compactness alone.
fn place(counter: &Counter) -> (u128, u128) {
    let mut start = [0; 16];
    start.iter_mut().zip(counter.client.bytes()).for_each(|(at, byte)| *at = byte);
    (u128::from_be_bytes(start), counter.key_id.as_u128())
}

#[derive(Debug, Default)]
struct Rare {
    round: u64,
    state: Vec<StateFact>,
    events: Vec<Fact>,
}

#[derive(Debug, Default)]
struct Shard {
    round: u64,
    tally: Tally,
    quotas: Used,
}

/// Shards on cache lines of their own, so that neighbours do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Lane(Mutex<Shard>);

/// The window.
#[derive(Debug)]
pub struct Window {
    shards: Box<[Lane]>,
    rare: Mutex<Rare>,
}

/// More shards than worker threads of most machines; a shard is 128 bytes.
const SHARDS: usize = 16;
/// The bound on events in one window; the events lane yields first.
pub const EVENTS_MAX: usize = 10_000;
/// Of these, what is kept for audit entries: anybody can make the others.
const AUDIT_MIN: usize = EVENTS_MAX / 8;

static NEXT_SHARD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn own_shard() -> usize {
    SHARD.with(|own| {
        if own.get() == usize::MAX {
            own.set(NEXT_SHARD.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        own.get()
    })
}

impl Window {
    /// An empty window whose first round is 1.
    pub fn new() -> Self {
        let shard = || Lane(Mutex::new(Shard { round: 1, ..Shard::default() }));
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            rare: Mutex::new(Rare { round: 1, ..Rare::default() }),
        }
    }

    /// Merges counts; returns the round that will commit them and whether the counter is new in it.
    pub fn count(&self, counter: Counter, counts: &Counts) -> (u64, bool) {
        let mut shard = lock(&self.shards[own_shard()].0);
        let new = merge(&mut shard.tally, counter, counts);
        (shard.round, new)
    }

    /// Adds to what was used of a quota; as [`Window::count`].
    pub fn use_quota(&self, key: QuotaKey, used: u64) -> (u64, bool) {
        let mut shard = lock(&self.shards[own_shard()].0);
        let new = key.add(used, &mut shard.quotas);
        (shard.round, new)
    }

    /// Records state facts in one round.
    pub fn state(&self, facts: Vec<StateFact>) -> u64 {
        let mut rare = lock(&self.rare);
        rare.state.extend(facts);
        rare.round
    }

    /// Records an event; `false` when the window has taken its share.
    pub fn event(&self, event: Fact) -> bool {
        let mut rare = lock(&self.rare);
        let kept = if matches!(event, Fact::Audit(_)) { 0 } else { AUDIT_MIN };
        let fits = rare.events.len() < EVENTS_MAX - kept;
        if fits {
            rare.events.push(event);
        }
        fits
    }

    /// The round by which everything that was recorded before this call will be committed: a
    /// collection may be under way, having passed the shard that matters to the caller.
    pub fn safe_round(&self) -> u64 {
        lock(&self.rare).round + 1
    }

    /// The round by which every state fact that was recorded before this call is committed: maybe
    /// long past.
    pub fn state_round(&self) -> u64 {
        let rare = lock(&self.rare);
        // What is not here any more was collected with the round before, or earlier.
        if rare.state.is_empty() { rare.round - 1 } else { rare.round }
    }

    /// Takes everything of `round`; what is recorded from now on belongs to the next.
    pub fn collect(&self, round: u64) -> Collected {
        let mut collected = Collected::default();
        for Lane(shard) in &self.shards {
            let mut shard = lock(shard);
            shard.round = round + 1;
            // The next window will hold about as many counters: spare it the growing.
            let next = Tally::with_capacity(shard.tally.len());
            let tally = std::mem::replace(&mut shard.tally, next);
            let quotas = std::mem::take(&mut shard.quotas);
            drop(shard);
            collected.absorb(Collected {
                taken: tally.len() + quotas.len(),
                usage: tally,
                quotas,
                ..Collected::default()
            });
        }
        let mut rare = lock(&self.rare);
        rare.round = round + 1;
        collected.state = std::mem::take(&mut rare.state);
        collected.events = std::mem::take(&mut rare.events);
        collected
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::model::Timestamp;

    fn counter(n: u128) -> Counter {
        Counter {
            client: "acme".into(),
            key_id: Uuid::from_u128(n),
            table: "".into(),
            operation: "access".into(),
            hour: 0,
        }
    }

    fn one(at: i64) -> Counts {
        Counts { requests: 1, last_seen: Timestamp(at), ..Counts::ZERO }
    }

    #[test]
    fn a_hot_counter_is_one_entry() {
        let window = Window::new();
        for at in 0..1000 {
            assert_eq!(window.count(counter(1), &one(at)).0, 1);
        }
        let collected = window.collect(1);
        assert_eq!(collected.usage.len(), 1);
        let counts = collected.usage[&counter(1)];
        assert_eq!((counts.requests, counts.last_seen), (1000, Timestamp(999)));
    }

    #[test]
    fn what_is_recorded_after_a_collection_belongs_to_the_next_round() {
        let window = Window::new();
        window.count(counter(1), &one(1));
        assert_eq!(window.collect(1).usage.len(), 1);
        assert_eq!(window.count(counter(2), &one(2)).0, 2);
        assert_eq!(window.collect(2).usage.len(), 1);
        assert!(window.collect(3).is_empty());
    }

    #[test]
    fn no_count_is_lost_between_threads_and_collections() {
        let window = Window::new();
        let mut sum = 0;
        std::thread::scope(|scope| {
            let counting: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..20_000).for_each(|n| {
                            window.count(counter(n % 7), &one(1));
                        })
                    })
                })
                .collect();
            let mut round = 1;
            while counting.iter().any(|thread| !thread.is_finished()) {
                sum += window.collect(round).usage.values().map(|c| c.requests).sum::<u64>();
                round += 1;
            }
            sum += window.collect(round).usage.values().map(|c| c.requests).sum::<u64>();
        });
        assert_eq!(sum, 80_000);
    }
}
