//! The circuit breaker: after failures in a row nobody asks for a while, then one tries.
//!
//! A pure state machine over monotonic time.

use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub struct Breaker {
    threshold: u32,
    open_for: Duration,
    open_max: Duration,
    /// Openings in a row: each is twice as long as the one before, up to `open_max`.
    openings: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Everybody may ask; so many failures in a row.
    Closed(u32),
    /// Nobody may ask before that moment.
    Open(Duration),
    /// One was let through; should it never report back, the next may try at that moment.
    Probing(Duration),
}

impl Breaker {
    /// Opens after `threshold` failures in a row, for `open_for`.
    pub fn new(threshold: u32, open_for: Duration) -> Self {
        let (threshold, state) = (threshold.max(1), State::Closed(0));
        Self { threshold, open_for, open_max: open_for, openings: 0, state }
    }

    /// Doubles the time that it is open with each probe that fails, up to `open_max`.
    pub fn growing_to(self, open_max: Duration) -> Self {
        Self { open_max: open_max.max(self.open_for), ..self }
    }

    /// Whether one may ask at `now`. In an open breaker whose time is over: the first, alone.
    pub fn allow(&mut self, now: Duration) -> bool {
        match self.state {
            State::Closed(_) => true,
            State::Open(until) | State::Probing(until) if now >= until => {
                self.state = State::Probing(now + self.open_for);
                true
            }
            State::Open(_) | State::Probing(_) => false,
        }
    }

    /// How long nobody may ask yet; zero when somebody may.
    pub fn opens_in(&self, now: Duration) -> Duration {
        match self.state {
            State::Closed(_) => Duration::ZERO,
            State::Open(until) | State::Probing(until) => until.saturating_sub(now),
        }
    }

    /// An answer came: closes.
    pub fn succeeded(&mut self) {
        self.openings = 0;
        self.state = State::Closed(0);
    }

    /// None came. A failure that was asked before the breaker opened does not prolong it.
    pub fn failed(&mut self, now: Duration) {
        self.state = match self.state {
            State::Closed(failures) if failures + 1 < self.threshold => State::Closed(failures + 1),
            State::Closed(_) | State::Probing(_) => {
                let grown = self.open_for.saturating_mul(1 << self.openings.min(16));
                self.openings = self.openings.saturating_add(1);
                State::Open(now + grown.min(self.open_max))
            }
            open @ State::Open(_) => open,
        };
    }

    /// Whether lookups are refused or being probed.
    pub fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed(_))
    }

    /// Whether nothing has failed since the last success.
    pub fn is_quiet(&self) -> bool {
        self.state == State::Closed(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn opened() -> Breaker {
        let mut breaker = Breaker::new(3, SECOND);
        for _ in 0..3 {
            assert!(breaker.allow(Duration::ZERO));
            breaker.failed(Duration::ZERO);
        }
        breaker
    }

    #[test]
    fn opens_after_failures_in_a_row_only() {
        let mut breaker = Breaker::new(3, SECOND);
        for _ in 0..5 {
            breaker.failed(Duration::ZERO);
            breaker.failed(Duration::ZERO);
            breaker.succeeded();
        }
        assert!(!breaker.is_open());
        assert!(opened().is_open());
    }

    #[test]
    fn one_probe_at_a_time() {
        let mut breaker = opened();
        assert!(!breaker.allow(SECOND / 2));
        assert!(breaker.allow(SECOND));
        assert!(!breaker.allow(SECOND), "the probe is still out");
        breaker.succeeded();
        assert!(breaker.allow(SECOND) && breaker.allow(SECOND));
    }

    #[test]
    fn a_failed_probe_opens_again_for_the_whole_time() {
        let mut breaker = opened();
        assert!(breaker.allow(SECOND));
        breaker.failed(SECOND);
        assert!(!breaker.allow(SECOND * 2 - Duration::from_millis(1)));
        assert!(breaker.allow(SECOND * 2));
    }

    #[test]
    fn a_probe_that_never_reports_does_not_block_the_next() {
        let mut breaker = opened();
        assert!(breaker.allow(SECOND));
        assert!(breaker.allow(SECOND * 2));
    }

    #[test]
    fn stragglers_do_not_prolong_it() {
        let mut breaker = opened();
        breaker.failed(SECOND / 2);
        assert!(breaker.allow(SECOND));
    }

    #[test]
    fn it_is_open_for_longer_each_time_up_to_a_bound() {
        let mut breaker = Breaker::new(1, SECOND).growing_to(SECOND * 5);
        let mut now = Duration::ZERO;
        for seconds in [1, 2, 4, 5, 5] {
            breaker.failed(now);
            assert_eq!(breaker.opens_in(now), SECOND * seconds);
            now += SECOND * seconds;
            assert!(breaker.allow(now));
        }
        breaker.succeeded();
        assert!(breaker.is_quiet());
        breaker.failed(now);
        assert_eq!(breaker.opens_in(now), SECOND, "a success forgets how often it was open");
    }
}
