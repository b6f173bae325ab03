//! The arithmetic of one limit at one moment.

use std::time::Duration;

/// A limit: at most `limit` in each `window`, evenly, with a head start of `burst`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub limit: u32,
    /// At most 31 days.
    pub window: Duration,
    pub burst: u32,
}

/// How a bucket stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Requests that would pass now.
    pub remaining: u32,
    /// Until nothing is taken any more.
    pub reset: Duration,
}

/// A bucket: its TAT, and the rate that it was written with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    /// Whole nanoseconds of the TAT, monotonic.
    pub(super) tat: u64,
    window: u64,
    /// Beyond them, in parts of `1 / limit`.
    part: u32,
    limit: u32,
}

/// One limit at one moment. What a bucket holds is counted from now on, in units of `1 / limit`
/// nanoseconds: so a request weighs `window`, and nearly all of it fits into 64 bits.
pub(super) struct Instant {
    now: u64,
    window: u128,
    limit: u128,
    capacity: u128,
}

pub(super) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Quotient and remainder; several times as fast where both fit into 64 bits.
fn divide(units: u128, by: u128) -> (u128, u128) {
    match (u64::try_from(units), u64::try_from(by)) {
        (Ok(units), Ok(by)) => (u128::from(units / by), u128::from(units % by)),
        _ => (units / by, units % by),
    }
}

impl Instant {
    pub(super) fn new(rate: &Rate, now: Duration) -> Self {
        let (limit, window) = (u128::from(rate.limit.max(1)), u128::from(nanos(rate.window)));
        let capacity = window * u128::from(rate.burst);
        Self { now: nanos(now), window: window.max(1), limit, capacity }
    }

    /// How far a bucket's TAT lies ahead of now. What was written with another rate stands for as
    /// many requests as it does now, rounded up, and is written anew: from here on it runs out at
    /// this one. More than a full bucket it never is, however much was let through before: who
    /// makes a limit tighter does not lock out for longer than the new one takes to come back.
    pub(super) fn ahead(&self, slot: Option<&mut Slot>) -> u128 {
        let Some(slot) = slot else { return 0 };
        let Some(whole) = slot.tat.checked_sub(self.now) else { return 0 };
        let (limit, window) = (u128::from(slot.limit), u128::from(slot.window));
        let ahead = u128::from(whole) * limit + u128::from(slot.part);
        let same = (limit, window) == (self.limit, self.window);
        if same && ahead <= self.capacity {
            return ahead;
        }
        let (whole, rest) = divide(ahead, window);
        let ahead = whole * self.window + (rest * self.window).div_ceil(window);
        let ahead = ahead.min(self.capacity);
        *slot = self.slot(ahead);
        ahead
    }

    pub(super) fn slot(&self, ahead: u128) -> Slot {
        let fits = |value: u128| u64::try_from(value).unwrap_or(u64::MAX);
        let (whole, part) = divide(ahead, self.limit);
        Slot {
            tat: self.now.saturating_add(fits(whole)),
            window: fits(self.window),
            part: u32::try_from(part).unwrap_or(u32::MAX),
            limit: u32::try_from(self.limit).unwrap_or(u32::MAX),
        }
    }

    /// What `cost` more would make of it, or when that is possible.
    pub(super) fn after(&self, ahead: u128, cost: u32) -> Result<u128, Option<Duration>> {
        let cost = u128::from(cost) * self.window;
        let next = ahead + cost;
        match next.checked_sub(self.capacity) {
            None | Some(0) => Ok(next),
            Some(_) if cost > self.capacity => Err(None),
            Some(early) => Err(Some(self.duration(early))),
        }
    }

    pub(super) fn level(&self, ahead: u128) -> Level {
        let (left, _) = divide(self.capacity.saturating_sub(ahead), self.window);
        Level { remaining: u32::try_from(left).unwrap_or(u32::MAX), reset: self.duration(ahead) }
    }

    /// Rounded up: nobody is asked to come too early.
    fn duration(&self, units: u128) -> Duration {
        let (whole, part) = divide(units, self.limit);
        let nanos = whole + u128::from(part > 0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}
