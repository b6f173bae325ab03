//! One target of an upstream: whether it may be asked, and how many ask it.
//!
//! Two judge it. The breaker goes by what happened to requests: failures in a row open it, for
//! longer each time. The checks go by what they saw themselves. Either takes the target out, and
//! both may take out all of them: a 503 at once is better than the same connect timeout for
//! everybody, and one request at a time finds out when it is over.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderValue, Uri};

use super::kept::Kept;
use super::{Fault, UpstreamConfig};
use crate::breaker::Breaker;

/// See the module.
#[derive(Debug)]
pub(super) struct Target {
    uri: Uri,
    host: HeaderValue,
    kept: Kept,
    in_flight: AtomicUsize,
    max_in_flight: usize,
    /// As the checks see it; true where there are none.
    well: AtomicBool,
    /// How long the checks take at least to find a change.
    interval: Duration,
    /// Whether the breaker has anything to say. Spares requests its lock while all goes well.
    troubled: AtomicBool,
    breaker: Mutex<Breaker>,
}

impl Target {
    pub(super) fn new(uri: Uri, config: &UpstreamConfig) -> Self {
        let breaker = Breaker::new(config.breaker_failures, config.breaker_open_for.0);
        Self {
            host: host(&uri),
            kept: Kept::new(config.max_idle, config.idle_timeout.0),
            uri,
            in_flight: AtomicUsize::new(0),
            max_in_flight: config.max_in_flight,
            well: AtomicBool::new(true),
            interval: config.health.as_ref().map_or(Duration::ZERO, |health| health.interval.0),
            troubled: AtomicBool::new(false),
            breaker: Mutex::new(breaker.growing_to(config.breaker_open_max.0)),
        }
    }

    /// Where it is.
    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// What it is asked as: `Host`, unless the route says otherwise.
    pub(super) fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// Its connections that no request has.
    pub(super) fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Requests that it works at.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// A place among those that ask it, or why there is none.
    pub(super) fn take(self: &Arc<Self>, now: Duration) -> Result<Taken, Fault> {
        if !self.well.load(Ordering::Relaxed) {
            return Err(Fault::Unhealthy { retry_after: self.interval });
        }
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let taken = Taken(Arc::clone(self));
        if before >= self.max_in_flight {
            return Err(Fault::Busy);
        }
        if self.troubled.load(Ordering::Relaxed) {
            let mut breaker = self.breaker();
            if !breaker.allow(now) {
                return Err(Fault::CircuitOpen { retry_after: breaker.opens_in(now) });
            }
        }
        Ok(taken)
    }

    /// Whether [`Target::take`] would find the checks and the breaker content.
    pub(super) fn may_be_asked(&self, now: Duration) -> bool {
        let calm = || self.breaker().opens_in(now).is_zero();
        self.well.load(Ordering::Relaxed) && (!self.troubled.load(Ordering::Relaxed) || calm())
    }

    /// What the checks found; whether that is news.
    pub(super) fn found(&self, well: bool) -> bool {
        self.well.swap(well, Ordering::Relaxed) != well
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// With its port, unless that goes without saying.
fn host(uri: &Uri) -> HeaderValue {
    let host = uri.host().unwrap_or_default();
    let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let text = match uri.port_u16().filter(|port| *port != usual) {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    // It was read as a URI's.
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

/// A place among the requests that a target works at, until it is dropped.
#[derive(Debug)]
pub(super) struct Taken(Arc<Target>);

impl Taken {
    /// Who was asked.
    pub(super) fn target(&self) -> &Arc<Target> {
        &self.0
    }

    /// It answered, whatever it said.
    pub(super) fn answered(&self) {
        if self.0.troubled.load(Ordering::Relaxed) {
            let mut breaker = self.0.breaker();
            breaker.succeeded();
            self.0.troubled.store(false, Ordering::Relaxed);
        }
    }

    /// It did not; whether the breaker opened by that.
    pub(super) fn failed(&self, now: Duration) -> bool {
        let mut breaker = self.0.breaker();
        let before = breaker.opens_in(now).is_zero();
        breaker.failed(now);
        self.0.troubled.store(true, Ordering::Relaxed);
        before && !breaker.opens_in(now).is_zero()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
