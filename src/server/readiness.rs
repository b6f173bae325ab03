//! What `/livez` and `/readyz` say.

use std::sync::atomic::{AtomicU8, Ordering};

const STARTING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;

/// Where the gateway stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Keys cannot be decided yet.
    Starting,
    /// Serving.
    Ready,
    /// Serving what has begun; nothing new is wanted.
    Draining,
}

/// The gateway's readiness; one for both listeners.
pub struct Readiness {
    phase: AtomicU8,
    degraded: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Readiness {
    /// Starting. `degraded` tells whether the gateway serves from what it has because Postgres is
    /// away.
    pub fn new(degraded: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { phase: AtomicU8::new(STARTING), degraded: Box::new(degraded) }
    }

    /// From now on keys are decided. Not after [`Readiness::drain`].
    pub fn ready(&self) {
        // A gateway that is shutting down stays so: the larger phase wins.
        self.phase.fetch_max(READY, Ordering::SeqCst);
    }

    /// From now on no new requests are wanted.
    pub fn drain(&self) {
        self.phase.store(DRAINING, Ordering::SeqCst);
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            STARTING => Phase::Starting,
            READY => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    /// The word for it: degraded is ready, but not by much.
    pub fn word(&self) -> &'static str {
        match self.phase() {
            Phase::Starting => "starting",
            Phase::Draining => "draining",
            Phase::Ready if (self.degraded)() => "degraded",
            Phase::Ready => "ready",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_starts_serves_and_drains_for_good() {
        let readiness = Readiness::new(|| false);
        assert_eq!(readiness.word(), "starting");
        readiness.ready();
        assert_eq!((readiness.phase(), readiness.word()), (Phase::Ready, "ready"));
        readiness.drain();
        readiness.ready();
        assert_eq!((readiness.phase(), readiness.word()), (Phase::Draining, "draining"));
    }

    #[test]
    fn degraded_is_ready() {
        let readiness = Readiness::new(|| true);
        readiness.ready();
        assert_eq!((readiness.phase(), readiness.word()), (Phase::Ready, "degraded"));
    }
}
