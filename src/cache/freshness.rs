//! How old the cache is: counted from the last completed catch-up, across restarts, never downwards
//! but by a catch-up.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::store::Age;
use crate::model::Timestamp;

const NEVER: i64 = i64::MIN;

/// Moments on the monotonic clock, in microseconds. Negative when they lie before this process
/// began.
#[derive(Debug)]
pub struct Freshness {
    caught_up: AtomicI64,
    /// The first fill by a miss: what stands for a catch-up while there never was one.
    filled: AtomicI64,
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl Freshness {
    /// Takes up the age that an earlier process left: the larger of what it wrote down and what the
    /// wall clock says has passed.
    pub fn resume(left: Option<Age>, now: Timestamp, monotonic: Duration) -> Self {
        let caught_up = left.map_or(NEVER, |left| {
            let passed = micros(now.since(left.caught_up));
            let stored = i64::try_from(left.age_us).unwrap_or(i64::MAX);
            micros(monotonic).saturating_sub(passed.max(stored)).max(NEVER + 1)
        });
        Self { caught_up: AtomicI64::new(caught_up), filled: AtomicI64::new(NEVER) }
    }

    /// A catch-up was completed just now.
    pub fn caught_up(&self, monotonic: Duration) {
        self.caught_up.store(micros(monotonic), Ordering::Release);
    }

    /// A miss was filled just now: while the first catch-up is under way, that is as fresh as it
    /// gets.
    pub fn filled(&self, monotonic: Duration) {
        let first = self.filled.load(Ordering::Relaxed);
        if first == NEVER {
            self.filled.store(micros(monotonic), Ordering::Release);
        }
    }

    /// Whether there ever was a catch-up, in this process or one before.
    pub fn ever_caught_up(&self) -> bool {
        self.caught_up.load(Ordering::Acquire) != NEVER
    }

    /// How old the oldest thing is that may be answered from; `None` when nothing was ever read.
    pub fn age(&self, monotonic: Duration) -> Option<Duration> {
        let caught_up = self.caught_up.load(Ordering::Acquire);
        let since =
            if caught_up == NEVER { self.filled.load(Ordering::Acquire) } else { caught_up };
        let age = micros(monotonic).saturating_sub(since);
        (since != NEVER).then(|| Duration::from_micros(u64::try_from(age).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const START: Timestamp = Timestamp(1_000_000_000_000_000);

    #[test]
    fn the_age_grows_over_a_restart_whichever_way_the_clock_stepped() {
        let left = Some(Age { caught_up: START, age_us: 7_200_000_000 });
        let forward = Freshness::resume(left, START.plus(HOUR * 3), Duration::ZERO);
        assert_eq!(forward.age(Duration::ZERO), Some(HOUR * 3));
        let back = Freshness::resume(left, Timestamp(0), Duration::ZERO);
        assert_eq!(back.age(HOUR), Some(HOUR * 3));
    }

    #[test]
    fn only_a_catch_up_makes_it_fresh() {
        let never = Freshness::resume(None, START, Duration::ZERO);
        assert_eq!(never.age(HOUR), None);
        never.caught_up(HOUR);
        assert_eq!(never.age(HOUR * 2), Some(HOUR));
    }

    #[test]
    fn before_the_first_catch_up_the_first_fill_counts() {
        let never = Freshness::resume(None, START, Duration::ZERO);
        never.filled(HOUR);
        never.filled(HOUR * 2);
        assert_eq!(never.age(HOUR * 3), Some(HOUR * 2));
        assert!(!never.ever_caught_up());
    }
}
