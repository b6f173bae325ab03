//! One connection's service.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::ConnectInfo;
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use tower::Service;

use super::door::Slot;
use crate::server::peers::OverTls;

/// What is served, told who is at the other end and how they come.
#[derive(Clone)]
pub(super) struct Connection<S> {
    service: S,
    peer: SocketAddr,
    secure: bool,
    _slot: Arc<Slot>,
}

impl<S> Connection<S> {
    /// One without TLS, so far.
    pub fn new(service: S, peer: SocketAddr, slot: Arc<Slot>) -> Self {
        Self { service, peer, secure: false, _slot: slot }
    }

    /// The same, behind a handshake.
    pub fn secure(self) -> Self {
        Self { secure: true, ..self }
    }
}

impl<S> Service<Request<Incoming>> for Connection<S>
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(ConnectInfo(self.peer));
        if self.secure {
            request.extensions_mut().insert(OverTls);
        }
        self.service.call(request)
    }
}
