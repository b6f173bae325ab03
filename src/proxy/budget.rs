//! The retry budget: a share of the requests may be repeated, so that a failing upstream does not
//! get twice the load.

use std::sync::atomic::{AtomicU64, Ordering};

/// What one retry costs, so that the share of a request is a whole number.
const RETRY: u64 = 1_000_000;
/// So many retries can be saved up, and are there at the start: few requests are no reason to
/// repeat none.
const SAVED_MAX: u64 = 10 * RETRY;

/// See the module.
#[derive(Debug)]
pub(super) struct Budget {
    share: u64,
    saved: AtomicU64,
}

impl Budget {
    /// Of `share` of the requests.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share lies between 0 and 1"
    )]
    pub(super) fn new(share: f64) -> Self {
        let share = (share.clamp(0.0, 1.0) * RETRY as f64) as u64;
        let saved = if share == 0 { 0 } else { SAVED_MAX };
        Self { share, saved: AtomicU64::new(saved) }
    }

    /// A request came.
    pub(super) fn earn(&self) {
        // While nothing is repeated there is nothing to write.
        if self.share > 0 && self.saved.load(Ordering::Relaxed) < SAVED_MAX {
            let more = |saved: u64| Some((saved + self.share).min(SAVED_MAX));
            let _never_errs = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        }
    }

    /// Whether one may be repeated.
    pub(super) fn spend(&self) -> bool {
        let less = |saved: u64| saved.checked_sub(RETRY);
        self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(budget: &Budget) -> u32 {
        (0..1000).map(|_| u32::from(budget.spend())).sum()
    }

    #[test]
    fn a_share_of_the_requests_and_ten_at_first() {
        let budget = Budget::new(0.1);
        assert_eq!(spent(&budget), 10);
        (0..39).for_each(|_| budget.earn());
        assert_eq!(spent(&budget), 3);
        (0..1000).for_each(|_| budget.earn());
        assert_eq!(spent(&budget), 10, "no more is saved up");
    }

    #[test]
    fn no_share_is_no_retry() {
        let budget = Budget::new(0.0);
        budget.earn();
        assert_eq!(spent(&budget), 0);
    }
}
