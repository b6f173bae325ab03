//! One connection's service.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::http::header::UPGRADE;
use axum::http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tower::Service;

use super::framing::Switch;
use super::held::{Held, Watched};
use super::slot::{Running, Slot};
use crate::server::peers::OverTls;

/// Stands at a request that came when as many ran as may.
#[derive(Clone, Copy)]
pub struct Overloaded;

/// The bounds of what a connection asks for.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Requests that run at a time, in the whole gateway.
    pub requests_max: usize,
    /// How long an answer may take.
    pub answer: Duration,
}

/// What is served, told who is at the other end and how they come.
#[derive(Clone)]
pub(super) struct Connection<S> {
    service: S,
    peer: SocketAddr,
    secure: bool,
    bounds: Bounds,
    slot: Arc<Slot>,
}

impl<S> Connection<S> {
    /// One without TLS, so far.
    pub fn new(service: S, peer: SocketAddr, bounds: Bounds, slot: Arc<Slot>) -> Self {
        Self { service, peer, secure: false, bounds, slot }
    }

    /// The same, behind a handshake.
    pub fn secure(self) -> Self {
        Self { secure: true, ..self }
    }

    /// Its place.
    pub fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }
}

impl<S> Service<Request<Incoming>> for Connection<S>
where
    S: Service<Request<Incoming>, Response = axum::response::Response, Error = Infallible>,
{
    type Response = Response<Held>;
    type Error = Infallible;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        let http2 = request.version() == Version::HTTP_2;
        let asks = !http2 && request.headers().contains_key(UPGRADE);
        if asks {
            self.slot.switched(Switch::Open);
        }
        let unframed = request.version() < Version::HTTP_11;
        let running = self.slot.begin(self.bounds.requests_max);
        let extensions = request.extensions_mut();
        extensions.insert(ConnectInfo(self.peer));
        if self.secure {
            extensions.insert(OverTls);
        }
        if running.is_none() {
            extensions.insert(Overloaded);
        }
        Answering {
            answer: self.service.call(request),
            running,
            watched: http2.then(|| Arc::clone(&self.slot)),
            asks: asks.then(|| Arc::clone(&self.slot)),
            unframed: unframed.then(|| Arc::clone(&self.slot)),
            patience: self.bounds.answer,
        }
    }
}

pin_project! {
    /// A request on its way to an answer.
    pub(super) struct Answering<F> {
        #[pin]
        answer: F,
        running: Option<Running>,
        watched: Option<Arc<Slot>>,
        asks: Option<Arc<Slot>>,
        unframed: Option<Arc<Slot>>,
        patience: Duration,
    }
}

impl<F> Future for Answering<F>
where
    F: Future<Output = Result<axum::response::Response, Infallible>>,
{
    type Output = Result<Response<Held>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(answer) = ready!(this.answer.poll(cx));
        if let Some(slot) = this.asks.take() {
            let granted = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
            slot.switched(if granted { Switch::Granted } else { Switch::Declined });
        }
        let (running, patience) = (this.running.take(), *this.patience);
        let watched = this.watched.take().map(Watched::new);
        let unframed = this.unframed.take();
        Poll::Ready(Ok(answer.map(|body| Held::new(body, running, patience, watched, unframed))))
    }
}
