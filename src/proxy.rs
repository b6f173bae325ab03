//! Forwarding: a pooled HTTP/1.1 client, streamed bodies, timeouts and header hygiene.
//!
//! Nothing is forwarded without a [`Permit`]. Bodies go by in both directions without being held;
//! what went by is noted in the request's [`OpenRecord`], which both bodies keep alive.

mod body;
mod echo;
mod error;
pub mod headers;
mod upstream;

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, Uri, Version};
use axum::response::Response;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prometheus_client::metrics::gauge::Gauge;

use crate::admission::Permit;
use crate::clock::SharedClock;
use crate::metrics::Metrics;
use crate::usage::{OpenRecord, Tally};

use body::{Inbound, Outbound};
pub use error::{Fault, ProxyError};
pub use headers::Additions;
pub use upstream::{Upstream, UpstreamConfig, UpstreamError};

/// The bounds of forwarding, by `[server]` and by route. Those of the pool (`connect_timeout`,
/// `idle_timeout`, `max_idle`) are the same for all routes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For a connection to an upstream.
    pub connect_timeout: Duration,
    /// For the head of the answer, from the moment the request's body made its last progress, and
    /// for each further piece of the answer.
    pub response_timeout: Duration,
    /// How long an idle connection to an upstream is kept.
    pub idle_timeout: Duration,
    /// How many of them per upstream target.
    pub max_idle: usize,
    /// The largest request body, in bytes.
    pub body_max: u64,
    /// How long a request body may stand still.
    pub body_idle: Duration,
}

/// Where a request came from, as far as the server believes it.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The peer of the connection.
    pub peer: IpAddr,
    /// Whether it came over TLS.
    pub secure: bool,
    /// Whether the peer is a trusted proxy, so that its `X-Forwarded-*` are carried on.
    pub trusted: bool,
    /// The host that was asked for.
    pub host: Option<HeaderValue>,
    /// What the route adds.
    pub additions: Additions,
}

/// The forwarding client; one for all upstreams.
pub struct Proxy {
    client: Client<HttpConnector, Inbound>,
    clock: SharedClock,
    metrics: Arc<Metrics>,
}

impl Proxy {
    /// A client with an empty pool.
    pub fn new(limits: &Limits, clock: SharedClock, metrics: Arc<Metrics>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(limits.connect_timeout));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(limits.idle_timeout)
            .pool_max_idle_per_host(limits.max_idle)
            .build(connector);
        Self { client, clock, metrics }
    }

    /// Forwards a request within the `limits` of its route. The path goes out byte for byte as it
    /// was authorised; the credential has been taken out by the server, unless the route lets it
    /// through.
    pub async fn forward(
        &self,
        permit: &Permit<'_>,
        record: Arc<OpenRecord>,
        upstream: &Upstream,
        limits: &Limits,
        origin: &Origin,
        mut request: Request,
    ) -> Result<Response, ProxyError> {
        if headers::wants_websocket(request.headers()) {
            return Err(ProxyError::Upgrade);
        }
        if announced_length(&request).is_some_and(|length| length > limits.body_max) {
            self.metrics.http.bodies_too_large.inc();
            return Err(ProxyError::BodyTooLarge);
        }
        headers::prepare(request.headers_mut(), origin, permit.principal());
        *request.version_mut() = Version::HTTP_11;
        let request = request.map(|body| Inbound::new(body, Arc::clone(&record), limits));

        let running = Running::start(&self.metrics.http.proxied);
        let started = self.clock.monotonic();
        let answer = self.exchange(upstream, limits, request, record.tally()).await;
        let took = self.clock.monotonic().saturating_sub(started);
        self.metrics.http.upstream_duration.observe(took.as_secs_f64());
        let mut answer = answer.inspect_err(|error| {
            if *error == ProxyError::BodyTooLarge {
                self.metrics.http.bodies_too_large.inc();
            }
        })?;

        // The client's connection has a version of its own.
        *answer.version_mut() = Version::HTTP_11;
        headers::clean_answer(answer.headers_mut());
        record.tally().answered(answer.status().as_u16());
        Ok(answer.map(|body| Body::new(Outbound::new(body, record, running, limits))))
    }

    async fn exchange(
        &self,
        upstream: &Upstream,
        limits: &Limits,
        mut request: axum::http::Request<Inbound>,
        tally: &Tally,
    ) -> Result<Response, ProxyError> {
        let Some(target) = upstream.pick() else { return echo::answer(request).await };
        let mut parts = target.clone().into_parts();
        parts.path_and_query = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Fault::Unreachable)?;
        let answer = self.head(limits, request, tally).await?;
        // Nobody asked for another protocol; the connection is of no use to HTTP any more.
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Fault::Garbled.into());
        }
        Ok(answer)
    }

    /// Waits for the answer's head. A body that is still being sent extends the wait.
    async fn head(
        &self,
        limits: &Limits,
        request: axum::http::Request<Inbound>,
        tally: &Tally,
    ) -> Result<Response, ProxyError> {
        let mut pending = self.client.request(request);
        loop {
            let sent = tally.bytes_in();
            match tokio::time::timeout(limits.response_timeout, &mut pending).await {
                Ok(Ok(answer)) => return Ok(answer.map(Body::new)),
                Ok(Err(error)) => {
                    tracing::debug!(%error, cause = error.source(), "no answer from upstream");
                    return Err(ProxyError::of(&error));
                }
                Err(_) if tally.bytes_in() > sent => {}
                Err(_) => return Err(Fault::Timeout.into()),
            }
        }
    }
}

fn announced_length(request: &Request) -> Option<u64> {
    hyper::body::Body::size_hint(request.body()).exact()
}

/// Keeps the gauge of running requests right: until the answer has ended, or the client has gone.
struct Running(Gauge);

impl Running {
    fn start(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}
