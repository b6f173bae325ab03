//! The time that quotas go by: the wall clock, unless it jumps.
//!
//! A clock that is set to 1970 or 2100 by mistake, and back, must neither hand out a new period's
//! quota nor take the present one away. So a jump is not believed at once: until the clock has
//! stood by it for [`SETTLE`], time goes on from where it was.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::metrics::Metrics;
use crate::model::Timestamp;

/// A difference that is no jump: clocks are corrected by less, again and again.
const TOLERATED: Duration = Duration::from_secs(60);
/// How long a clock must stand by a jump.
const SETTLE: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Debug)]
pub(super) struct Calendar(Mutex<Course>);

#[derive(Debug)]
struct Course {
    /// Wall time that was believed, and the monotonic time of that moment.
    wall: Timestamp,
    at: Duration,
    doubt: Option<Doubt>,
}

/// A jump: where the clock stands since when, by the monotonic clock.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    wall: Timestamp,
    since: Duration,
}

fn apart(a: Timestamp, b: Timestamp) -> Duration {
    a.since(b).max(b.since(a))
}

impl Calendar {
    /// The wall clock is believed at the start.
    pub fn new(wall: Timestamp, at: Duration) -> Self {
        Self(Mutex::new(Course { wall, at, doubt: None }))
    }

    /// What time it is, by a wall clock that says `wall`.
    pub fn now(&self, wall: Timestamp, at: Duration, metrics: &Metrics) -> Timestamp {
        let mut course = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = course.wall.plus(at.saturating_sub(course.at));
        if apart(wall, expected) <= TOLERATED {
            *course = Course { wall, at: at.max(course.at), doubt: None };
            return wall;
        }
        let stands = |doubt: &Doubt| {
            apart(wall, doubt.wall.plus(at.saturating_sub(doubt.since))) <= TOLERATED
        };
        match course.doubt.filter(stands) {
            Some(doubt) if at.saturating_sub(doubt.since) >= SETTLE => {
                tracing::warn!(from = %expected, to = %wall, "quotas follow the clock's jump now");
                *course = Course { wall, at, doubt: None };
                wall
            }
            Some(_) => expected,
            None => {
                metrics.admission.clock_jumps.inc();
                tracing::warn!(
                    from = %expected, to = %wall,
                    "the clock has jumped; quotas follow it when it has stood by that for a while"
                );
                course.doubt = Some(Doubt { wall, since: at });
                expected
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600;

    fn secs(secs: i64) -> Timestamp {
        Timestamp(secs * 1_000_000)
    }

    #[test]
    fn a_jump_there_and_back_changes_nothing() {
        let metrics = Metrics::new();
        for jump in [-3600, DAY, -50 * 365 * DAY, 80 * 365 * DAY] {
            let (start, mut at) = (1_795_000_000, 0);
            let calendar = Calendar::new(secs(start), Duration::ZERO);
            let mut now = |offset: i64, step: u64| {
                at += step;
                let wall = secs(start + i64::try_from(at).expect("small") + offset);
                (
                    calendar.now(wall, Duration::from_secs(at), &metrics),
                    secs(start + i64::try_from(at).expect("small")),
                )
            };
            for (offset, step) in [(0, 1), (jump, 1), (jump, 300), (jump, 298), (0, 1), (1, 3600)] {
                let (told, truth) = now(offset, step);
                assert!(apart(told, truth) <= TOLERATED, "{jump}: {told} instead of {truth}");
            }
        }
    }

    #[test]
    fn a_clock_that_stands_by_its_jump_is_believed() {
        let metrics = Metrics::new();
        let calendar = Calendar::new(secs(0), Duration::ZERO);
        let at = Duration::from_secs;
        assert_eq!(calendar.now(secs(DAY), at(1), &metrics), secs(1));
        assert_eq!(calendar.now(secs(DAY + 599), at(600), &metrics), secs(600));
        assert_eq!(calendar.now(secs(DAY + 601), at(602), &metrics), secs(DAY + 601));
        // A clock that jumps about is never believed.
        for step in 1..100 {
            let told =
                calendar.now(secs(i64::from(step) * 7 * DAY), at(602 + 60 * step as u64), &metrics);
            assert_eq!(told, secs(DAY + 601 + 60 * i64::from(step)));
        }
        assert!(metrics.admission.clock_jumps.get() >= 100);
    }

    #[test]
    fn slow_corrections_are_followed() {
        let metrics = Metrics::new();
        let calendar = Calendar::new(secs(0), Duration::ZERO);
        let mut wall = 0;
        for step in 1..1000_u64 {
            wall += 1 + i64::from(step % 20 == 0) * 30;
            assert_eq!(calendar.now(secs(wall), Duration::from_secs(step), &metrics), secs(wall));
        }
    }
}
