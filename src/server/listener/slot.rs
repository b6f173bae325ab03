//! The place that a connection takes for as long as it lives, and what its reader and its service
//! tell each other there.

use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};
use std::task::Context;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::answers::Answers;
use super::framing::Switch;
use crate::metrics::Metrics;
use crate::proxy::Share;
use crate::server::workers::Seat;

/// See the module.
pub(super) struct Slot {
    _permit: OwnedSemaphorePermit,
    _guest: Option<Share>,
    _seat: Seat,
    metrics: Arc<Metrics>,
    opened: Instant,
    /// Requests that have begun and whose answers have not ended.
    running: AtomicUsize,
    /// When the last one began or ended, in milliseconds from `opened` on.
    changed: AtomicU64,
    /// Whether all that was asked for is answered and written out.
    quiet: AtomicBool,
    /// Those of HTTP/2.
    answers: Answers,
    /// Whether an answer was cut off that only the connection's end shows the end of.
    cut: AtomicBool,
    /// A [`Switch`].
    switch: AtomicU8,
    /// Who waits for it.
    reader: AtomicWaker,
}

impl Slot {
    pub fn new(
        permit: OwnedSemaphorePermit,
        guest: Option<Share>,
        seat: Seat,
        metrics: Arc<Metrics>,
    ) -> Self {
        metrics.http.connections.inc();
        Self {
            _permit: permit,
            _guest: guest,
            _seat: seat,
            metrics,
            opened: Instant::now(),
            running: AtomicUsize::new(0),
            changed: AtomicU64::new(0),
            quiet: AtomicBool::new(true),
            answers: Answers::default(),
            cut: AtomicBool::new(false),
            switch: AtomicU8::new(Switch::Open as u8),
            reader: AtomicWaker::new(),
        }
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// What is on its way, where that may be many answers at a time.
    pub fn answers(&self) -> &Answers {
        &self.answers
    }

    /// Whether any request runs, and since when that has not changed.
    pub fn standing(&self) -> (bool, Instant) {
        let since = self.opened + Duration::from_millis(self.changed.load(Relaxed));
        (self.running.load(Relaxed) > 0, since)
    }

    /// All that was said so far is written out.
    pub fn written(&self) {
        if self.running.load(Relaxed) == 0 {
            self.quiet.store(true, Relaxed);
        }
    }

    /// Whether nothing is owed: what is said now, no request has asked for.
    pub fn is_quiet(&self) -> bool {
        self.quiet.load(Relaxed)
    }

    /// An answer was cut off, and its client would take the end of the connection for its end.
    pub fn cut(&self) {
        self.cut.store(true, Relaxed);
    }

    /// Whether one was.
    pub fn is_cut(&self) -> bool {
        self.cut.load(Relaxed)
    }

    /// How the last request for another protocol was answered.
    pub fn switch(&self) -> Switch {
        match self.switch.load(Acquire) {
            granted if granted == Switch::Granted as u8 => Switch::Granted,
            declined if declined == Switch::Declined as u8 => Switch::Declined,
            _ => Switch::Open,
        }
    }

    /// The same for who goes on by it: HTTP goes on once by each answer, so that the next request
    /// for another protocol waits for its own.
    pub fn take_switch(&self) -> Switch {
        let (declined, open) = (Switch::Declined as u8, Switch::Open as u8);
        match self.switch.compare_exchange(declined, open, AcqRel, Acquire) {
            Ok(_) => Switch::Declined,
            Err(_) => self.switch(),
        }
    }

    /// A request for another protocol was read, or answered.
    pub fn switched(&self, switch: Switch) {
        self.switch.store(switch as u8, Release);
        self.reader.wake();
    }

    /// Wakes the reader when that changes. To be asked before [`Slot::switch`] is.
    pub fn wait(&self, cx: &Context<'_>) {
        self.reader.register(cx.waker());
    }

    /// A request begins, unless `max` run already in the whole gateway.
    pub fn begin(self: &Arc<Self>, max: usize) -> Option<Running> {
        let gauge = &self.metrics.http.running;
        let before = usize::try_from(gauge.inc()).unwrap_or(0);
        // From here on it is given back whatever happens.
        self.running.fetch_add(1, Relaxed);
        self.quiet.store(false, Relaxed);
        self.change();
        let running = Running { slot: Arc::clone(self), gauge: gauge.clone() };
        (before < max).then_some(running)
    }

    fn change(&self) {
        let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.changed.store(now, Relaxed);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.metrics.http.connections.dec();
    }
}

/// A request that runs: until its answer has ended, or nobody waits for it any more.
pub(super) struct Running {
    slot: Arc<Slot>,
    gauge: Gauge,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.gauge.dec();
        self.slot.running.fetch_sub(1, Relaxed);
        self.slot.change();
    }
}
