//! How many connections there may be, and what each of them holds on to.

use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;
use tower::Service;

use super::connection::Connection;
use crate::metrics::Metrics;

/// Lets connections in, as many at a time as there are slots. While there is none the accept
/// loop stands still, and the kernel's backlog holds who comes.
pub(super) struct Door<S> {
    service: S,
    slots: PollSemaphore,
    slot: Option<OwnedSemaphorePermit>,
    waiting: bool,
    metrics: Arc<Metrics>,
}

impl<S> Door<S> {
    pub fn new(service: S, slots: Arc<Semaphore>, metrics: Arc<Metrics>) -> Self {
        Self { service, slots: PollSemaphore::new(slots), slot: None, waiting: false, metrics }
    }
}

impl<S: Clone> Service<SocketAddr> for Door<S> {
    type Response = Connection<S>;
    type Error = io::Error;
    type Future = Ready<Result<Connection<S>, io::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        if self.slot.is_none() {
            let Poll::Ready(slot) = self.slots.poll_acquire(cx) else {
                if !self.waiting {
                    self.waiting = true;
                    self.metrics.http.connections_full.inc();
                }
                return Poll::Pending;
            };
            self.slot = slot;
        }
        self.waiting = false;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, peer: SocketAddr) -> Self::Future {
        // No slot after being ready: the gateway is shutting down.
        let Some(permit) = self.slot.take() else {
            return ready(Err(io::ErrorKind::ConnectionRefused.into()));
        };
        let slot = Arc::new(Slot::new(permit, Arc::clone(&self.metrics)));
        ready(Ok(Connection::new(self.service.clone(), peer, slot)))
    }
}

/// The place that a connection takes for as long as it lives.
pub(super) struct Slot {
    _permit: OwnedSemaphorePermit,
    metrics: Arc<Metrics>,
}

impl Slot {
    fn new(permit: OwnedSemaphorePermit, metrics: Arc<Metrics>) -> Self {
        metrics.http.connections.inc();
        Self { _permit: permit, metrics }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.metrics.http.connections.dec();
    }
}
