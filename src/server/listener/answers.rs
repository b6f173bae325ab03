//! The answers that are on their way on one connection of HTTP/2, and since when nobody takes them.
//!
//! There a client that takes nothing blocks no socket, and nobody asks a body for more: no alarm in
//! it would go off. So each answer notes here when it was asked last, and the connection's reader
//! looks.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Those of one connection; there are never more of them than streams.
#[derive(Default)]
pub(super) struct Answers(Mutex<Vec<Arc<Answer>>>);

/// One of them.
pub(super) struct Answer {
    begun: Instant,
    /// When more of it was asked for, in milliseconds from `begun` on.
    asked: AtomicU64,
    /// Whether more was asked for and is not there yet: then it is not the client that is slow.
    waits: AtomicBool,
}

impl Answer {
    /// More of it was asked for, and is there or not.
    pub fn asked(&self, there: bool) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.asked.store(now, Relaxed);
        self.waits.store(!there, Relaxed);
    }

    fn due(&self, taken: Duration, whole: Duration) -> Instant {
        let whole = self.begun + whole;
        if self.waits.load(Relaxed) {
            return whole;
        }
        whole.min(self.begun + Duration::from_millis(self.asked.load(Relaxed)) + taken)
    }
}

impl Answers {
    /// One more.
    pub fn begin(&self) -> Arc<Answer> {
        let (asked, waits) = (AtomicU64::new(0), AtomicBool::new(false));
        let answer = Arc::new(Answer { begun: Instant::now(), asked, waits });
        self.all().push(Arc::clone(&answer));
        answer
    }

    /// It has ended, or was given up.
    pub fn end(&self, answer: &Arc<Answer>) {
        self.all().retain(|other| !Arc::ptr_eq(other, answer));
    }

    /// When the first of them is overdue, where something of each must be `taken` in so long, and
    /// the `whole` of it in so long; `None` where there are none.
    pub fn due(&self, taken: Duration, whole: Duration) -> Option<Instant> {
        self.all().iter().map(|answer| answer.due(taken, whole)).min()
    }

    fn all(&self) -> MutexGuard<'_, Vec<Arc<Answer>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAKEN: Duration = Duration::from_secs(60);
    const WHOLE: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn who_is_waited_for_decides() {
        let (answers, start) = (Answers::default(), Instant::now());
        assert_eq!(answers.due(TAKEN, WHOLE), None);
        let answer = answers.begin();
        assert_eq!(answers.due(TAKEN, WHOLE), Some(start + TAKEN));
        tokio::time::advance(TAKEN / 2).await;
        answer.asked(true);
        assert_eq!(answers.due(TAKEN, WHOLE), Some(start + TAKEN / 2 + TAKEN));
        answer.asked(false);
        assert_eq!(answers.due(TAKEN, WHOLE), Some(start + WHOLE), "its upstream is waited for");
        let other = answers.begin();
        assert_eq!(answers.due(TAKEN, WHOLE), Some(start + TAKEN / 2 + TAKEN));
        answers.end(&other);
        answers.end(&answer);
        assert_eq!(answers.due(TAKEN, WHOLE), None);
    }
}
