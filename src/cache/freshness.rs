//! How old the cache is: counted from the last completed catch-up, across restarts, never downwards
//! but by a catch-up.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::store::Age;
use crate::model::Timestamp;

const NEVER: i64 = i64::MIN;

/// The moment of the last catch-up on the monotonic clock, in microseconds. Negative when it lies
/// before this process began.
#[derive(Debug)]
pub struct Freshness(AtomicI64);

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
        Self(AtomicI64::new(caught_up))
    }

    /// A catch-up was completed just now.
    pub fn caught_up(&self, monotonic: Duration) {
        self.0.store(micros(monotonic), Ordering::Release);
    }

    /// How old the cache is; `None` when there never was a catch-up.
    pub fn age(&self, monotonic: Duration) -> Option<Duration> {
        let caught_up = self.0.load(Ordering::Acquire);
        let age = micros(monotonic).saturating_sub(caught_up);
        (caught_up != NEVER).then(|| Duration::from_micros(u64::try_from(age).unwrap_or(0)))
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
}
