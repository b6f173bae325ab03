//! Who may come in: as many connections at a time as there are slots, and as many from one address
//! as is its share.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::arrivals::{Caller, Inbox};
use super::guests::Guests;
use super::slot::Slot;
use crate::metrics::Metrics;
use crate::server::config::Config;
use crate::server::peers::Trusted;
use crate::server::workers::Worker;

/// Between attempts when nothing can be accepted: no descriptors are left, for one.
const PAUSE: Duration = Duration::from_millis(50);

/// Lets connections in. While there is no slot it stands still, and the kernel's backlog holds who
/// comes.
pub(super) struct Door {
    listener: TcpListener,
    slots: Arc<Semaphore>,
    guests: Guests,
    metrics: Arc<Metrics>,
}

impl Door {
    pub fn new(listener: StdListener, config: &Config, metrics: Arc<Metrics>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let exempt = Trusted::new(config.trusted_proxies.clone(), config.forwarded);
        Ok(Self {
            listener: TcpListener::from_std(listener)?,
            slots: Arc::new(Semaphore::new(config.max_connections)),
            guests: Guests::new(config.max_connections_per_address, exempt),
            metrics,
        })
    }

    /// The next one that is let in, and where it is put: with the worker that has the fewest.
    ///
    /// # Errors
    /// When it cannot be handed on: there are no workers.
    pub async fn next<'a>(
        &self,
        workers: &'a [(Worker, Inbox)],
    ) -> io::Result<(StdStream, Caller, &'a Inbox)> {
        loop {
            let (socket, peer) = self.accept().await;
            let permit = self.slot().await;
            let fewest = workers.iter().min_by_key(|(worker, _)| worker.connections());
            let (Some(permit), Some((worker, inbox))) = (permit, fewest) else {
                return Err(io::ErrorKind::Unsupported.into());
            };
            let Ok(guest) = self.guests.admit(peer.ip()) else {
                self.metrics.http.connections_refused.inc();
                continue;
            };
            // One that cannot be handed on costs its caller, and nobody else.
            let Ok(socket) = socket.into_std() else { continue };
            let slot = Slot::new(permit, guest, worker.take(), Arc::clone(&self.metrics));
            return Ok((socket, Caller { peer, slot: Arc::new(slot) }, inbox));
        }
    }

    /// Nobody comes in any more. Whoever has all the slots knows that everybody has left.
    pub fn close(self) -> Arc<Semaphore> {
        self.slots
    }

    async fn accept(&self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => return accepted,
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// A slot, as soon as there is one. (They are never closed.)
    async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        if self.slots.available_permits() == 0 {
            self.metrics.http.connections_full.inc();
        }
        Arc::clone(&self.slots).acquire_owned().await.ok()
    }
}
