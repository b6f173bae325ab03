//! How large a batch may be, by how long the ones before it took: Postgres is slower at times, and
//! what does not fit into the deadline is work for nothing, there and here.

use std::time::Duration;

use super::gather::Bounds;
use crate::model::fact::Lane;

/// The smallest batch that deadlines shrink to.
const ROWS_MIN: usize = 100;
/// How often the bound on rows a batch of sums may take: after an outage the same counters come
/// again and again, and what is read on costs no row. That is seen only once all of them were in,
/// and a commit may hold more of them than one batch has rows.
const STRETCH: usize = 4;

/// The pace of each kind of lane: quick events tell nothing of slow counters.
#[derive(Debug)]
pub(super) struct Paces {
    sums: Pace,
    others: Pace,
}

impl Paces {
    /// At most `most` facts a batch, [`STRETCH`] times as many sums.
    pub fn new(most: usize, deadline: Duration) -> Self {
        let pace = || Pace::new(most, deadline);
        Self { sums: pace(), others: pace() }
    }

    fn of(&mut self, lane: Lane) -> &mut Pace {
        if lane.is_sum() { &mut self.sums } else { &mut self.others }
    }

    /// What the next batch of a lane may take.
    pub fn bounds(&mut self, lane: Lane) -> Bounds {
        self.of(lane).bounds()
    }

    /// One was committed: so many facts, in this time.
    pub fn applied(&mut self, lane: Lane, facts: usize, took: Duration) {
        self.of(lane).applied(facts, took);
    }

    /// One failed, or took too long.
    pub fn failed(&mut self, lane: Lane) {
        self.of(lane).failed();
    }
}

/// In facts as the bounds count them, whatever they are in rows.
#[derive(Debug)]
struct Pace {
    most: usize,
    deadline: Duration,
    /// What a batch may take now.
    rows: usize,
    /// So many take a quarter of the deadline.
    easy: usize,
}

impl Pace {
    fn new(most: usize, deadline: Duration) -> Self {
        Self { most, deadline, rows: most, easy: 0 }
    }

    fn failed(&mut self) {
        self.rows = (self.rows / 2).max(ROWS_MIN.min(self.most));
        self.easy = 0;
    }

    /// A batch of so many was committed. What it proves is that twice as many will do, if it
    /// took less than half of the deadline: a small one proves little, and takes nothing back.
    fn applied(&mut self, rows: usize, took: Duration) {
        if took < self.deadline / 2 {
            let proven = rows.saturating_mul(2);
            self.rows = self.rows.max(proven.min(self.rows * 2)).min(self.most);
        }
        // A few tell of the way there and back.
        if rows >= ROWS_MIN {
            let easy = rows as u128 * (self.deadline / 4).as_nanos() / took.as_nanos().max(1);
            self.easy = usize::try_from(easy).unwrap_or(usize::MAX);
        }
    }

    fn bounds(&self) -> Bounds {
        let most = self.rows.saturating_mul(STRETCH);
        Bounds { rows: self.rows, sums: self.easy.clamp(self.rows, most), segments: usize::MAX }
    }
}

/// A first batch, which is to show whether any is taken: whatever is sent is marked.
pub(super) const PROBE: Bounds = Bounds { rows: ROWS_MIN, sums: ROWS_MIN, segments: 1 };

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(9);

    fn bounds(pace: &Pace) -> (usize, usize) {
        let Bounds { rows, sums, .. } = pace.bounds();
        (rows, sums)
    }

    /// Batches as large as they may be, at so much a row: the rows of each, until they stay.
    fn course(row: Duration) -> Vec<usize> {
        let mut pace = Pace::new(5000, DEADLINE);
        pace.applied(100, row * 100);
        let sizes = (0..50).map(|_| {
            let sums = pace.bounds().sums;
            let took = row * u32::try_from(sums).expect("few");
            if took > DEADLINE {
                pace.failed();
                // The probe that follows is taken at once.
                pace.applied(100, row * 100);
            } else {
                pace.applied(sums, took);
            }
            sums
        });
        sizes.collect()
    }

    #[test]
    fn sums_are_read_on_where_postgres_is_quick() {
        let mut pace = Pace::new(5000, DEADLINE);
        assert_eq!(bounds(&pace), (5000, 5000), "nothing is known");
        pace.applied(100, Duration::from_millis(30));
        assert_eq!(bounds(&pace), (5000, 7500));
        pace.applied(7500, Duration::from_millis(400));
        assert_eq!(bounds(&pace), (5000, 20_000));
        pace.applied(1, Duration::from_millis(400));
        assert_eq!(bounds(&pace), (5000, 20_000), "a few rows tell nothing");
        pace.failed();
        assert_eq!(bounds(&pace), (2500, 2500));
        pace.applied(2500, Duration::from_millis(100));
        assert_eq!(bounds(&pace), (5000, 20_000));
    }

    #[test]
    fn quick_events_bring_back_no_counters_that_were_too_many() {
        let mut paces = Paces::new(5000, DEADLINE);
        paces.failed(Lane::Usage);
        for _ in 0..9 {
            paces.applied(Lane::Events, 5000, Duration::from_millis(50));
        }
        assert_eq!(paces.bounds(Lane::Usage).sums, 2500);
        assert_eq!(paces.bounds(Lane::Quota).rows, 2500);
        assert_eq!(paces.bounds(Lane::Events).rows, 5000);
    }

    #[test]
    fn what_did_not_fit_into_the_deadline_is_not_tried_again_and_again() {
        for (millis, stays) in [(0, 20_000), (1, 5000), (2, 2500), (3, 2500), (30, 200)] {
            let row = Duration::from_millis(millis).max(Duration::from_micros(20));
            let sizes = course(row);
            assert_eq!(sizes[49], stays, "{millis} ms a row: {sizes:?}");
            let late = sizes.iter().filter(|size| row * (**size as u32) > DEADLINE).count();
            assert!(late <= 5, "{millis} ms a row: {late} in vain");
            let settled = sizes.iter().skip(10).all(|size| *size == stays);
            assert!(settled, "{millis} ms a row: {sizes:?}");
        }
    }
}
