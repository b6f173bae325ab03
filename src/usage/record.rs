//! The open record of a forwarded request: filled in while it runs, counted when it is dropped.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::Meter;
use crate::admission::Running;
use crate::journal::Room;
use crate::model::Timestamp;
use crate::model::fact::{Counter, Counts, Event, Happened};

/// What is known so far of a request that runs. Shared by the two directions.
#[derive(Debug, Default)]
pub struct Tally {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    /// Zero until the answer's head is known.
    status: AtomicU16,
    failed: AtomicBool,
    /// Whether the client left in the middle of the answer.
    left: AtomicBool,
    /// Whether the sender of the request's body is being waited for.
    awaits: AtomicBool,
    /// Whether all of the request's body went by.
    whole: AtomicBool,
}

impl Tally {
    /// Bytes of the request's body that went by.
    pub fn add_in(&self, bytes: u64) {
        self.bytes_in.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of the answer's body that went by.
    pub fn add_out(&self, bytes: u64) {
        self.bytes_out.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of the request's body so far.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }

    /// Bytes of the answer's body so far.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Ordering::Relaxed)
    }

    /// Whether the sender of the request's body is being waited for from now on.
    pub fn waits_for_sender(&self, waits: bool) {
        self.awaits.store(waits, Ordering::Relaxed);
    }

    /// Whether it is: then nobody waits for the upstream.
    pub fn is_waiting_for_sender(&self) -> bool {
        self.awaits.load(Ordering::Relaxed)
    }

    /// The last of the request's body went by.
    pub fn sent_whole(&self) {
        self.whole.store(true, Ordering::Relaxed);
    }

    /// Whether it did. One that is empty never goes by.
    pub fn is_sent_whole(&self) -> bool {
        self.whole.load(Ordering::Relaxed)
    }

    /// The status of the answer, as the client sees it.
    pub fn answered(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    /// The gateway or the upstream broke off after the answer had begun.
    pub fn broke_off(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    /// The client left, or was left, before the answer had ended.
    pub fn left(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    /// The completion's counts. A request that never got the whole of an answer has failed, whoever
    /// gave up.
    fn completed(&self, at: Timestamp, took: Duration) -> Counts {
        let status = self.status.load(Ordering::Relaxed);
        let cut = self.failed.load(Ordering::Relaxed) || self.left.load(Ordering::Relaxed);
        let failed = cut || status == 0 || status >= 500;
        Counts {
            succeeded: u64::from(!failed),
            failed: u64::from(failed),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            duration_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            last_seen: at,
            ..Counts::ZERO
        }
    }
}

/// How a forwarded request ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Of the answer, as the client saw it; 0 when there was none.
    pub status: u16,
    /// Of the request's body.
    pub bytes_in: u64,
    /// Of the answer's body.
    pub bytes_out: u64,
    /// Whether the answer broke off in the middle.
    pub broke_off: bool,
    /// Whether the client left in the middle of it.
    pub left: bool,
}

/// What hears of the end.
type AtEnd = Box<dyn FnOnce(Ended) + Send + Sync>;

/// A forwarded request. Both bodies hold it; when the last of them has ended, or the client has
/// gone, it is dropped, and that is what counts the completion. So none is forgotten or counted
/// twice.
pub struct OpenRecord {
    meter: Arc<Meter>,
    /// None where there is nobody to count it for.
    counted: Option<(Room, Counter)>,
    at: Timestamp,
    started: Duration,
    tally: Tally,
    held: Held,
    at_end: OnceLock<AtEnd>,
}

/// What a request holds until its end.
pub(super) struct Held {
    /// Its place among those that run at a time.
    pub running: Option<Running>,
    /// What is told of it then.
    pub line: Option<Box<Event>>,
}

impl OpenRecord {
    pub(super) fn new(
        meter: Arc<Meter>,
        counted: Option<(Room, Counter)>,
        at: Timestamp,
        held: Held,
    ) -> Self {
        let started = meter.clock.monotonic();
        Self { meter, counted, at, started, tally: Tally::default(), held, at_end: OnceLock::new() }
    }

    /// Has `tell` called at the end. Only the first one is.
    pub fn at_end(&self, tell: impl FnOnce(Ended) + Send + Sync + 'static) {
        self.at_end.get_or_init(|| Box::new(tell));
    }

    /// Where to note what happens.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }
}

impl Drop for OpenRecord {
    fn drop(&mut self) {
        let took = self.meter.clock.monotonic().saturating_sub(self.started);
        let counts = self.tally.completed(self.at, took);
        if let Some(mut event) = self.held.line.take()
            && let Happened::Request(line) = &mut event.what
        {
            line.status = self.tally.status.load(Ordering::Relaxed);
            (line.bytes_in, line.bytes_out) = (counts.bytes_in, counts.bytes_out);
            line.duration_us = counts.duration_us;
            self.meter.happened(*event);
        }
        if let Some(tell) = self.at_end.take() {
            let status = self.tally.status.load(Ordering::Relaxed);
            let broke_off = self.tally.failed.load(Ordering::Relaxed);
            let left = self.tally.left.load(Ordering::Relaxed);
            let Counts { bytes_in, bytes_out, .. } = counts;
            tell(Ended { status, bytes_in, bytes_out, broke_off, left });
        }
        drop(self.held.running.take());
        if let Some((room, counter)) = self.counted.take() {
            // The answer has left already: nobody is there to wait for the ticket.
            let _unawaited = self.meter.journal.count(room, counter, counts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(note: impl FnOnce(&Tally)) -> (u64, u64) {
        let tally = Tally::default();
        note(&tally);
        let counts = tally.completed(Timestamp(9), Duration::from_millis(2));
        assert_eq!(
            (counts.requests, counts.duration_us, counts.last_seen),
            (0, 2000, Timestamp(9))
        );
        (counts.succeeded, counts.failed)
    }

    #[test]
    fn below_500_is_success_and_all_else_failure() {
        assert_eq!(outcome(|tally| tally.answered(200)), (1, 0));
        assert_eq!(outcome(|tally| tally.answered(499)), (1, 0));
        assert_eq!(outcome(|tally| tally.answered(500)), (0, 1));
        assert_eq!(outcome(|_| ()), (0, 1), "the client left before the answer");
        let broken = outcome(|tally| {
            tally.answered(200);
            tally.broke_off();
        });
        assert_eq!(broken, (0, 1), "the upstream broke off in the middle");
        let left = outcome(|tally| {
            tally.answered(200);
            tally.left();
        });
        assert_eq!(left, (0, 1), "the client left in the middle");
    }

    #[test]
    fn bytes_add_up_in_both_directions() {
        let tally = Tally::default();
        tally.add_in(3);
        tally.add_in(4);
        tally.add_out(5);
        let counts = tally.completed(Timestamp(0), Duration::ZERO);
        assert_eq!((counts.bytes_in, counts.bytes_out), (7, 5));
    }
}
