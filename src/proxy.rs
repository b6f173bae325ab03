//! Forwarding: kept HTTP/1.1 connections to the targets of upstreams, streamed bodies, tunnels,
//! timeouts and header hygiene.
//!
//! Nothing is forwarded without a [`Permit`]. Bodies go by in both directions without being held;
//! what went by is noted in the request's [`OpenRecord`], which both bodies keep alive.

mod body;
mod budget;
mod config;
mod connector;
mod echo;
mod error;
mod exchange;
mod forwarded;
pub mod headers;
mod health;
mod kept;
mod shares;
mod stream;
mod sweep;
mod target;
mod tunnel;
mod upstream;
mod via;
mod wire;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, Version};
use axum::response::Response;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Permit;
use crate::clock::SharedClock;
use crate::entropy::SharedEntropy;
use crate::metrics::{FaultLabel, Metrics};
use crate::usage::OpenRecord;

use body::{Busy, Inbound, Outbound, Source};
pub use config::{Balance, HealthConfig, TlsConfig, UpstreamConfig, UpstreamError};
pub use error::{Fault, ProxyError};
use exchange::Head;
pub use forwarded::{Forwarding, address, senders};
pub use headers::Additions;
pub use shares::{Share, Shares};
pub use upstream::Upstream;
use via::Via;

/// The bounds of forwarding, by `[server]` and by route.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For the head of the answer, from the moment the request's body made its last progress, and
    /// for each further piece of the answer.
    pub response_timeout: Duration,
    /// The largest request body, in bytes.
    pub body_max: u64,
    /// How long a request body may stand still.
    pub body_idle: Duration,
    /// How long an answer may take, from the first time that more of its body was waited for.
    pub answer_max: Duration,
}

/// Where a request came from, as far as the server believes it.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The peer of the connection.
    pub peer: IpAddr,
    /// The address whose share of tunnels it may take; none where many come through it.
    pub party: Option<IpAddr>,
    /// Whether it came over TLS.
    pub secure: bool,
    /// Whether the peer is a trusted proxy, so that what it says is carried on.
    pub trusted: bool,
    /// The host that was asked for.
    pub host: Option<HeaderValue>,
    /// What the route adds.
    pub additions: Additions,
    /// In which headers upstreams are told.
    pub forwarding: Forwarding,
}

/// What forwarding needs besides the request and its upstream.
pub struct ProxyParts {
    /// Tunnels at a time.
    pub max_tunnels: usize,
    /// Of these from one address.
    pub max_tunnels_per_address: usize,
    /// How long nothing may go through a tunnel.
    pub tunnel_idle: Duration,
    /// Time.
    pub clock: SharedClock,
    /// Randomness, for a name in `Via`.
    pub entropy: SharedEntropy,
    /// Handles.
    pub metrics: Arc<Metrics>,
    /// Where tunnels and health checks run.
    pub tasks: TaskTracker,
    /// Ends them.
    pub stopping: CancellationToken,
}

/// Forwards to all upstreams, which have their connections themselves.
pub struct Proxy {
    tunnels: Arc<Semaphore>,
    shares: Arc<Shares>,
    tunnel_idle: Duration,
    via: Via,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Proxy {
    /// Nothing runs yet.
    pub fn new(parts: ProxyParts) -> Self {
        let ProxyParts { tunnel_idle, clock, entropy, metrics, tasks, stopping, .. } = parts;
        let tunnels = Arc::new(Semaphore::new(parts.max_tunnels));
        let shares = Shares::new(parts.max_tunnels_per_address);
        let via = Via::new(&entropy);
        Self { tunnels, shares, tunnel_idle, via, clock, metrics, tasks, stopping }
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
        // What goes through such a tunnel was never authorised.
        if reads_as(request.method(), &Method::CONNECT) {
            return Err(ProxyError::Connect);
        }
        // Its answer would show the caller what only the upstream is told.
        if reads_as(request.method(), &Method::TRACE) {
            return Err(ProxyError::Trace);
        }
        if self.via.is_in(request.headers()) {
            return Err(ProxyError::Loop);
        }
        if announced_length(&request).is_some_and(|length| length > limits.body_max) {
            self.metrics.http.bodies_too_large.inc();
            return Err(ProxyError::BodyTooLarge);
        }
        let upgrade = self.upgrade(&mut request, origin.party)?;
        headers::prepare(request.headers_mut(), origin, permit.principal());
        let version = request.version();
        self.via.add(request.headers_mut(), version);
        if let Some(upgrade) = &upgrade {
            upgrade.ask_in(request.headers_mut());
        }
        let (parts, body) = request.into_parts();
        let head = Head::of(parts);

        let running = Running::start(&self.metrics.http.proxied);
        let started = self.clock.monotonic();
        let answer = self.answer(upstream, limits, &record, head, body).await;
        let took = self.clock.monotonic().saturating_sub(started);
        self.metrics.http.upstream_duration.observe(took.as_secs_f64());
        let (mut answer, taken) = answer.inspect_err(|error| {
            if *error == ProxyError::BodyTooLarge {
                self.metrics.http.bodies_too_large.inc();
            }
        })?;

        let version = answer.version();
        self.via.add(answer.headers_mut(), version);
        // The client's connection has a version of its own.
        *answer.version_mut() = Version::HTTP_11;
        let busy = Busy { _running: running, taken };
        let switched = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        record.tally().answered(answer.status().as_u16());
        match upgrade {
            Some(upgrade) if switched && upgrade.covers(answer.headers()) => {
                Ok(self.tunnel(upgrade, answer.map(|_| Body::empty()), record, busy))
            }
            // Nobody asked for it; the connection is of no use to HTTP any more.
            _ if switched => Err(Fault::Garbled.into()),
            // The client would have to read it in the same way as we do.
            _ if headers::is_ambiguous(answer.headers()) => Err(Fault::Garbled.into()),
            // No status of HTTP (RFC 9110 §15).
            _ if answer.status().as_u16() >= 600 => Err(Fault::Garbled.into()),
            _ => {
                headers::clean_answer(answer.headers_mut());
                let endless = headers::is_endless(answer.headers());
                let body = |source| Outbound::new(source, record, busy, limits, endless);
                Ok(answer.map(|source| Body::new(body(source))))
            }
        }
    }

    async fn answer(
        &self,
        upstream: &Upstream,
        limits: &Limits,
        record: &Arc<OpenRecord>,
        head: Head,
        body: Body,
    ) -> Result<(Response<Source>, Option<target::Taken>), ProxyError> {
        let Some(pool) = &upstream.pool else {
            let body = Inbound::new(body, Arc::clone(record), limits);
            return Ok((echo::answer(head, body).await?.map(Source::Echo), None));
        };
        health::watch(pool, &self.tasks, &self.metrics, &self.stopping);
        sweep::begin(pool, &self.tasks, &self.stopping);
        let (answer, taken) = self.exchange(pool, limits, record, head, body).await?;
        Ok((answer, Some(taken)))
    }

    fn count(&self, fault: Fault) {
        let label = FaultLabel { fault: fault.word() };
        self.metrics.upstream.faults.get_or_create(&label).inc();
    }
}

/// Whether a method is `other` to who does not tell capital letters from small ones.
fn reads_as(method: &Method, other: &Method) -> bool {
    method.as_str().eq_ignore_ascii_case(other.as_str())
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
