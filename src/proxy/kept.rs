//! Kept connections: those to a target that no request has, for the next ones.
//!
//! They lie in as many places as there are processors, and a thread looks at its own first: so the
//! lock of a place is seldom waited for. (One that is taken of another's place stays with the
//! runtime that it was made in, and is woken from there.) Nobody drives what lies here. Whether it
//! is still good is seen when it is taken, and from time to time ([`Kept::sweep`]).

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::wire::Wire;

/// See the module.
pub(super) struct Kept {
    places: Box<[Place]>,
    count: AtomicUsize,
    max: usize,
    timeout: Duration,
}

/// On cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Place(Mutex<Vec<Idle>>);

struct Idle {
    wire: Wire,
    since: Instant,
}

impl Place {
    fn lock(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// More than most machines have processors.
const PLACES: usize = 16;

static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static OWN: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn own_place() -> usize {
    OWN.with(|own| {
        if own.get() == usize::MAX {
            own.set(NEXT.fetch_add(1, Ordering::Relaxed) % PLACES);
        }
        own.get()
    })
}

impl Kept {
    /// None yet; at most `max` then, each for `timeout` at most.
    pub fn new(max: usize, timeout: Duration) -> Self {
        let places = (0..PLACES).map(|_| Place::default()).collect();
        Self { places, count: AtomicUsize::new(0), max, timeout }
    }

    /// One that is good, the one that was put back last.
    pub fn take(&self) -> Option<Wire> {
        let now = Instant::now();
        let (before, after) = self.places.split_at(own_place());
        for place in after.iter().chain(before) {
            if self.count.load(Ordering::Relaxed) == 0 {
                return None;
            }
            // Not under the lock: to look at one takes a while.
            while let Some(mut idle) = self.pop(place) {
                if !self.is_over(&idle, now) && idle.wire.is_good() {
                    return Some(idle.wire);
                }
            }
        }
        None
    }

    fn pop(&self, place: &Place) -> Option<Idle> {
        let idle = place.lock().pop()?;
        self.count.fetch_sub(1, Ordering::Relaxed);
        Some(idle)
    }

    /// Keeps one for the next request, unless there are enough, or it is of no use any more.
    pub fn put(&self, wire: Wire) {
        if !wire.is_free() {
            return;
        }
        if self.count.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        wire.hush();
        self.places[own_place()].lock().push(Idle { wire, since: Instant::now() });
    }

    /// Closes those that are over or have ended.
    pub fn sweep(&self) {
        let now = Instant::now();
        for place in &self.places {
            let all = std::mem::take(&mut *place.lock());
            let many = all.len();
            let good = |idle: &mut Idle| !self.is_over(idle, now) && idle.wire.is_good();
            let mut left: Vec<Idle> = all;
            left.retain_mut(good);
            self.count.fetch_sub(many - left.len(), Ordering::Relaxed);
            // What was put here meanwhile was had last, and stays the first to be taken.
            let mut place = place.lock();
            left.append(&mut place);
            *place = left;
        }
    }

    fn is_over(&self, idle: &Idle, now: Instant) -> bool {
        now.saturating_duration_since(idle.since) >= self.timeout
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_struct("Kept").field("count", &self.count).finish_non_exhaustive()
    }
}
