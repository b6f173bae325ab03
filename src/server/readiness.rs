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

/// What its answers stand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Footing {
    /// Everything is there.
    Firm,
    /// Postgres is away: known keys are answered from here.
    Degraded,
    /// What is known here is too old, or was never complete, so that keys cannot be decided; or
    /// nothing can be counted. Requests are refused.
    Lost,
}

/// The gateway's readiness.
pub struct Readiness {
    phase: AtomicU8,
    footing: Box<dyn Fn() -> Footing + Send + Sync>,
}

impl Readiness {
    /// Starting. `footing` is asked anew each time.
    pub fn new(footing: impl Fn() -> Footing + Send + Sync + 'static) -> Self {
        Self { phase: AtomicU8::new(STARTING), footing: Box::new(footing) }
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

    /// Whether requests are wanted, and the word for it: degraded is ready, but not by much.
    pub fn report(&self) -> (bool, &'static str) {
        match (self.phase(), (self.footing)()) {
            (Phase::Starting, _) => (false, "starting"),
            (Phase::Draining, _) => (false, "draining"),
            (Phase::Ready, Footing::Lost) => (false, "unavailable"),
            (Phase::Ready, Footing::Degraded) => (true, "degraded"),
            (Phase::Ready, Footing::Firm) => (true, "ready"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_starts_serves_and_drains_for_good() {
        let readiness = Readiness::new(|| Footing::Firm);
        assert_eq!(readiness.report(), (false, "starting"));
        readiness.ready();
        assert_eq!(readiness.report(), (true, "ready"));
        readiness.drain();
        readiness.ready();
        assert_eq!(readiness.report(), (false, "draining"));
    }

    #[test]
    fn degraded_is_ready_and_lost_is_not() {
        for (footing, report) in
            [(Footing::Degraded, (true, "degraded")), (Footing::Lost, (false, "unavailable"))]
        {
            let readiness = Readiness::new(move || footing);
            readiness.ready();
            assert_eq!(readiness.report(), report);
        }
    }
}
