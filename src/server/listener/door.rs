//! Who may come in: as many connections at a time as there are slots, and as many from one address
//! as is its share.

use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;
use tower::Service;

use super::connection::{Bounds, Connection};
use super::guests::Guests;
use super::slot::Slot;
use crate::metrics::Metrics;
use crate::server::config::Config;
use crate::server::peers::Trusted;

/// Lets connections in. While there is no slot the accept loop stands still, and the kernel's
/// backlog holds who comes.
pub(super) struct Door<S> {
    service: S,
    bounds: Bounds,
    slots: PollSemaphore,
    guests: Arc<Guests>,
    slot: Option<OwnedSemaphorePermit>,
    waiting: bool,
    metrics: Arc<Metrics>,
}

impl<S> Door<S> {
    pub fn new(service: S, config: &Config, slots: Arc<Semaphore>, metrics: Arc<Metrics>) -> Self {
        let bounds = Bounds { requests_max: config.max_requests, answer: config.request_timeout.0 };
        let exempt = Trusted::new(config.trusted_proxies.clone(), config.forwarded);
        let guests = Guests::new(config.max_connections_per_address, exempt);
        let slots = PollSemaphore::new(slots);
        Self { service, bounds, slots, guests, slot: None, waiting: false, metrics }
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
        let refused = || ready(Err(io::ErrorKind::ConnectionRefused.into()));
        let Ok(guest) = self.guests.admit(peer.ip()) else {
            self.metrics.http.connections_refused.inc();
            return refused();
        };
        // No slot after being ready: the gateway is shutting down.
        let Some(permit) = self.slot.take() else { return refused() };
        let slot = Slot::new(permit, guest, Arc::clone(&self.metrics));
        ready(Ok(Connection::new(self.service.clone(), peer, self.bounds, slot)))
    }
}
