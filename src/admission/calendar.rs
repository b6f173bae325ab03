//! The time that quotas go by: the wall clock, unless it jumps.
//!
//! A clock that is set to 1970 or 2100 by mistake, and back, must neither hand out a new period's
//! quota nor take the present one away. So a jump is not believed at once: until the clock has
//! stood by it for [`SETTLE`], time goes on from where it was; also when a start finds it. And what
//! is thrown away because it is long over waits until the clock was not set for [`LONG`].

use std::sync::{Mutex, MutexGuard, PoisonError};
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
    /// Since when it was not set, by itself.
    since: Timestamp,
    doubt: Option<Doubt>,
}

/// What a calendar believes, for the next start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Believed {
    /// What time it is.
    pub now: Timestamp,
    /// Since when the clock was not set.
    pub since: Timestamp,
}

/// A jump: where the clock stands since when, by the monotonic clock.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    wall: Timestamp,
    since: Duration,
}

/// A gateway that was away for longer doubts the clock at its start...
const AWAY_MAX: Duration = Duration::from_secs(31 * 24 * 3600);
/// ...and for longer than this takes it for one that was set.
const PAUSE: Duration = Duration::from_secs(12 * 3600);
/// A clock that was not set for so long is trusted with what cannot be undone.
const LONG: Duration = Duration::from_secs(24 * 3600);

impl Course {
    fn expected(&self, at: Duration) -> Timestamp {
        self.wall.plus(at.saturating_sub(self.at))
    }
}

fn apart(a: Timestamp, b: Timestamp) -> Duration {
    a.since(b).max(b.since(a))
}

impl Calendar {
    /// The wall clock is believed at the first start. Later ones doubt it as if it had jumped, if
    /// it is earlier than what was believed last, or later by more than [`AWAY_MAX`].
    pub fn new(wall: Timestamp, at: Duration, last: Option<Believed>) -> Self {
        let follows =
            |last: &Believed| last.now <= wall.plus(TOLERATED) && wall <= last.now.plus(AWAY_MAX);
        let paused = |last: &Believed| wall <= last.now.plus(PAUSE);
        let since = last.filter(paused).map_or(wall, |last| last.since);
        Self(Mutex::new(match last {
            Some(last) if !follows(&last) => {
                let doubt = Some(Doubt { wall, since: at });
                Course { wall: last.now, at, since: last.since, doubt }
            }
            _ => Course { wall, at, since, doubt: None },
        }))
    }

    fn course(&self) -> MutexGuard<'_, Course> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is believed.
    pub fn believed(&self, at: Duration) -> Believed {
        let course = self.course();
        Believed { now: course.expected(at), since: course.since }
    }

    /// What time it is, if the clock has not been set for long: nothing that is thrown away by it
    /// can be had again.
    pub fn settled(&self, wall: Timestamp, at: Duration, metrics: &Metrics) -> Option<Timestamp> {
        self.now(wall, at, metrics);
        self.settled_at(at)
    }

    /// The same by what the clock said last.
    pub fn settled_at(&self, at: Duration) -> Option<Timestamp> {
        let course = self.course();
        let now = course.expected(at);
        (course.doubt.is_none() && now.since(course.since) >= LONG).then_some(now)
    }

    /// What time it is, by a wall clock that says `wall`.
    pub fn now(&self, wall: Timestamp, at: Duration, metrics: &Metrics) -> Timestamp {
        let mut course = self.course();
        let expected = course.expected(at);
        if apart(wall, expected) <= TOLERATED {
            *course = Course { wall, at: at.max(course.at), since: course.since, doubt: None };
            return wall;
        }
        let stands = |doubt: &Doubt| {
            apart(wall, doubt.wall.plus(at.saturating_sub(doubt.since))) <= TOLERATED
        };
        match course.doubt.filter(stands) {
            Some(doubt) if at.saturating_sub(doubt.since) >= SETTLE => {
                tracing::warn!(from = %expected, to = %wall, "quotas follow the clock's jump now");
                *course = Course { wall, at, since: wall, doubt: None };
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
            let calendar = Calendar::new(secs(start), Duration::ZERO, None);
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
        let calendar = Calendar::new(secs(0), Duration::ZERO, None);
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
    fn a_start_that_finds_a_jump_doubts_it_as_well() {
        let metrics = Metrics::new();
        let (start, at) = (1_795_000_000, Duration::from_secs);
        let last = Some(Believed { now: secs(start), since: secs(start - 5 * DAY) });
        for wall in [start - 3600, start + 40 * DAY, 0, start + 80 * 365 * DAY] {
            let calendar = Calendar::new(secs(wall), at(7), last);
            assert_eq!(calendar.settled(secs(wall + 1), at(8), &metrics), None);
            assert_eq!(calendar.now(secs(wall + 500), at(507), &metrics), secs(start + 500));
            assert_eq!(calendar.believed(at(507)).now, secs(start + 500), "for the next start");
            let (now, later) = (secs(wall + 600), secs(wall + DAY + 600));
            assert_eq!(calendar.now(now, at(607), &metrics), now, "it stands by it");
            assert_eq!(calendar.settled(now, at(607), &metrics), None, "nothing is thrown away");
            assert_eq!(calendar.settled(later, at(607 + 24 * 3600), &metrics), Some(later));
        }
        // A restart is none.
        for wall in [start, start + 60, start + 6 * 3600] {
            let calendar = Calendar::new(secs(wall), at(7), last);
            assert_eq!(calendar.settled(secs(wall), at(7), &metrics), Some(secs(wall)));
            assert_eq!(calendar.believed(at(8)).since, secs(start - 5 * DAY));
        }
        let monday = secs(start + 3 * DAY);
        let calendar = Calendar::new(monday, at(7), last);
        assert_eq!(calendar.now(monday, at(7), &metrics), monday, "it was away for the weekend");
        assert_eq!(calendar.settled(monday, at(7), &metrics), None);
    }

    #[test]
    fn slow_corrections_are_followed() {
        let metrics = Metrics::new();
        let calendar = Calendar::new(secs(0), Duration::ZERO, None);
        let mut wall = 0;
        for step in 1..1000_u64 {
            wall += 1 + i64::from(step % 20 == 0) * 30;
            assert_eq!(calendar.now(secs(wall), Duration::from_secs(step), &metrics), secs(wall));
        }
    }
}
