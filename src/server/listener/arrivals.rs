//! The way from the door to the worker that serves a connection: what a server there accepts from.

use std::future::{Ready, pending, ready};
use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum_server::{AddrListener, Address};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tower::Service;

use super::connection::{Bounds, Connection};
use super::slot::Slot;

/// Who has come in.
#[derive(Clone)]
pub(super) struct Caller {
    pub peer: SocketAddr,
    pub slot: Arc<Slot>,
}

impl Address for Caller {
    type Stream = TcpStream;
    type Listener = Arrivals;
}

/// Connections of one worker that it has not seen yet. (Each has a slot, so there are never more
/// than slots.)
pub(super) struct Arrivals(Mutex<UnboundedReceiver<(StdStream, Caller)>>);

/// Where they are put.
pub(super) type Inbox = UnboundedSender<(StdStream, Caller)>;

/// Both ends.
pub(super) fn arrivals() -> (Inbox, Arrivals) {
    let (inbox, arrivals) = unbounded_channel();
    (inbox, Arrivals(Mutex::new(arrivals)))
}

impl AddrListener<TcpStream, Caller> for Arrivals {
    async fn bind_to(_: Caller) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn accept_stream(&self) -> io::Result<(TcpStream, Caller)> {
        let arrived = self.0.lock().await.recv().await;
        // Nobody comes any more: the server ends by its shutdown.
        let Some((socket, caller)) = arrived else { return pending().await };
        // From here on its readiness is told to this thread.
        Ok((TcpStream::from_std(socket)?, caller))
    }

    fn get_local_addr(&self) -> io::Result<Caller> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Makes the service of each connection.
pub(super) struct Reception<S> {
    pub service: S,
    pub bounds: Bounds,
}

impl<S: Clone> Service<Caller> for Reception<S> {
    type Response = Connection<S>;
    type Error = io::Error;
    type Future = Ready<Result<Connection<S>, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, Caller { peer, slot }: Caller) -> Self::Future {
        ready(Ok(Connection::new(self.service.clone(), peer, self.bounds, slot)))
    }
}
