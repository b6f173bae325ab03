//! The router of the data plane and its handlers.

use std::any::Any;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::HeaderValue;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use prometheus_client::metrics::counter::Counter;
use tower_http::catch_panic::CatchPanicLayer;

use super::config::Config;
use super::original::{self, Original};
use super::peers::{Peer, Trusted};
use super::problem::{Code, Refusal};
use super::readiness::{Phase, Readiness};
use super::request_id::{RequestIds, X_REQUEST_ID};
use super::routes::RouteTable;
use super::verify;
use crate::admission::{self, Denial, Permit, Presented};
use crate::authn;
use crate::cache::{Cache, Entry};
use crate::clock::SharedClock;
use crate::entropy::SharedEntropy;
use crate::journal::Journal;
use crate::metrics::{Metrics, RequestLabels};
use crate::model::{Name, Target, Timestamp};
use crate::proxy::{Origin, Proxy, headers};
use crate::usage::Meter;

const EXT_AUTHZ: &str = "/authz/ext-authz";

/// What the data plane is made of.
pub struct ServerParts {
    /// `[server]`
    pub config: Config,
    /// `[[routes]]` and `[[upstreams]]`, compiled.
    pub routes: RouteTable,
    /// Who has which key.
    pub cache: Arc<Cache>,
    /// Where counts go.
    pub journal: Journal,
    /// Time.
    pub clock: SharedClock,
    /// Randomness, for request ids.
    pub entropy: SharedEntropy,
    /// Handles.
    pub metrics: Arc<Metrics>,
    /// What health says.
    pub readiness: Arc<Readiness>,
}

/// Who asks, for the metrics and for what a refusal looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    ForwardAuth,
    AuthRequest,
    ExtAuthz,
    Verify,
    Proxy,
}

impl Endpoint {
    const ALL: [(Self, &'static str); 5] = [
        (Self::ForwardAuth, "forward_auth"),
        (Self::AuthRequest, "auth_request"),
        (Self::ExtAuthz, "ext_authz"),
        (Self::Verify, "verify"),
        (Self::Proxy, "proxy"),
    ];
}

/// Everything that the handlers share.
pub(super) struct Edge {
    pub(super) config: Config,
    pub(super) trusted: Trusted,
    pub(super) cache: Arc<Cache>,
    pub(super) meter: Arc<Meter>,
    routes: RouteTable,
    access: Target,
    proxy: Proxy,
    clock: SharedClock,
    ids: RequestIds,
    metrics: Arc<Metrics>,
    /// Answers that went well, by endpoint: looked up once, because they are the many.
    passed: [Counter; Endpoint::ALL.len()],
    readiness: Arc<Readiness>,
}

/// The data plane, ready to be served.
pub fn router(parts: ServerParts) -> Router {
    let edge = Arc::new(Edge::new(parts));
    let on_panic = {
        let edge = Arc::clone(&edge);
        move |reason: Box<dyn Any + Send>| edge.panicked(reason.as_ref())
    };
    Router::new()
        .route("/authz/forward-auth", any(forward_auth))
        .route("/authz/auth-request", any(auth_request))
        .route(EXT_AUTHZ, any(ext_authz))
        .route("/authz/ext-authz/", any(ext_authz))
        .route("/authz/ext-authz/{*path}", any(ext_authz))
        .route("/v1/keys/verify", any(verify_key))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .fallback(forward)
        .with_state(edge)
        .layer(CatchPanicLayer::custom(on_panic))
}

async fn forward_auth(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let outcome = edge.authorize(Endpoint::ForwardAuth, &parts).await;
    edge.finish(Endpoint::ForwardAuth, &parts.headers, outcome)
}

async fn auth_request(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let outcome = edge.authorize(Endpoint::AuthRequest, &parts).await;
    edge.finish(Endpoint::AuthRequest, &parts.headers, outcome)
}

async fn ext_authz(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let outcome = edge.authorize(Endpoint::ExtAuthz, &parts).await;
    edge.finish(Endpoint::ExtAuthz, &parts.headers, outcome)
}

async fn verify_key(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let outcome = if parts.method == Method::POST {
        verify::answer(&edge, &parts, body).await
    } else {
        Err(Code::MethodNotAllowed.into())
    };
    edge.finish(Endpoint::Verify, &parts.headers, outcome)
}

async fn forward(State(edge): State<Arc<Edge>>, mut request: Request) -> Response {
    let id = edge.ids.of(request.headers());
    request.headers_mut().insert(X_REQUEST_ID, id.clone());
    let outcome = edge.forward(request).await;
    edge.finish_with(Endpoint::Proxy, id, outcome)
}

async fn livez(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    edge.health(request.headers(), edge.readiness.phase() != Phase::Starting)
}

async fn readyz(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    edge.health(request.headers(), edge.readiness.phase() == Phase::Ready)
}

impl Edge {
    fn new(parts: ServerParts) -> Self {
        let ServerParts { config, routes, cache, journal, clock, entropy, metrics, readiness } =
            parts;
        let passed = Endpoint::ALL.map(|(_, endpoint)| {
            let labels = RequestLabels { endpoint, code: "ok" };
            metrics.http.requests.get_or_create(&labels).clone()
        });
        Self {
            trusted: Trusted::new(config.trusted_proxies.clone()),
            meter: Arc::new(Meter::new(journal, Arc::clone(&clock))),
            proxy: Proxy::new(config.limits(), Arc::clone(&clock), Arc::clone(&metrics)),
            ids: RequestIds::new(Arc::clone(&clock), &entropy),
            access: Target::access(),
            config,
            routes,
            cache,
            clock,
            metrics,
            passed,
            readiness,
        }
    }

    /// Answers a proxy that asks whether it may let a request through.
    async fn authorize(&self, endpoint: Endpoint, parts: &Parts) -> Result<Response, Refusal> {
        let peer = self.trusted.peer(&parts.extensions);
        let target = self.original_target(endpoint, parts, peer)?;
        let entry = authn::identify(&self.cache, authn::presented(&parts.headers)?).await?;
        let permit = self.admit(&entry, &target, &[]).await?;
        let room = self.meter.reserve()?;
        self.meter.allowed(room, &permit).settled().await?;
        let mut response = Response::new(Body::empty());
        if endpoint == Endpoint::AuthRequest {
            *response.status_mut() = StatusCode::NO_CONTENT;
        }
        headers::identify(response.headers_mut(), permit.principal());
        Ok(response)
    }

    /// What the request behind a forward-auth request touches. A peer whose word does not count, or that
    /// says nothing, asks for access as such.
    fn original_target(
        &self,
        endpoint: Endpoint,
        parts: &Parts,
        peer: Peer,
    ) -> Result<Target, Refusal> {
        if self.routes.is_empty() {
            return Ok(self.access.clone());
        }
        let original = match endpoint {
            Endpoint::ExtAuthz => Some(original::ext_authz(parts, EXT_AUTHZ)?),
            _ if !peer.trusted => None,
            Endpoint::AuthRequest => original::auth_request(&parts.headers)?,
            _ => original::forward_auth(&parts.headers)?,
        };
        let Some(Original { method, host, path }) = original else {
            return Ok(self.access.clone());
        };
        let hit = self.routes.find(host, &method, path)?;
        Ok(hit.map_or_else(|| self.access.clone(), |hit| hit.target))
    }

    /// Admits an identified caller, or counts its denial.
    pub(super) async fn admit(
        &self,
        entry: &Entry,
        target: &Target,
        scopes: &[Name],
    ) -> Result<Permit, Denial> {
        let now = self.clock.now();
        let decision = self.decide(entry, target, scopes, now);
        if decision.is_err()
            && self.meter.denied(entry.principal(), target, now).settled().await.is_err()
        {
            tracing::warn!("a denial was answered but could not be counted");
        }
        decision
    }

    /// Decides about a caller that asks about somebody else: that is not counted for it.
    pub(super) fn permit(&self, entry: &Entry) -> Result<Permit, Denial> {
        self.decide(entry, &self.access, &[], self.clock.now())
    }

    fn decide(
        &self,
        entry: &Entry,
        target: &Target,
        scopes: &[Name],
        now: Timestamp,
    ) -> Result<Permit, Denial> {
        let caller = Presented {
            principal: entry.principal(),
            state: entry.state(now),
            client_enabled: entry.client_enabled(),
            stale: self.cache.is_stale(),
        };
        admission::decide(caller, target, scopes, now)
    }

    /// Sends a request on its route to its upstream.
    async fn forward(&self, request: Request) -> Result<Response, Refusal> {
        let (mut parts, body) = request.into_parts();
        let peer = self.trusted.peer(&parts.extensions);
        let host = original::host(&parts.uri, &parts.headers)?;
        let hit = self.routes.find(host, &parts.method, parts.uri.path())?.ok_or(Code::NotFound)?;
        let entry = authn::identify(&self.cache, authn::presented(&parts.headers)?).await?;
        let permit = self.admit(&entry, &hit.target, &[]).await?;
        // Before the upstream is called: what cannot be counted does not happen.
        let room = self.meter.reserve()?;

        let host = host.and_then(|host| HeaderValue::from_str(host).ok());
        let origin = Origin { peer: peer.ip, trusted: peer.trusted, host };
        if !hit.route.forward_credential {
            authn::strip(&mut parts.headers);
        }
        let request = Request::from_parts(parts, body);
        let (record, receipt) = self.meter.open(room, &permit);
        let upstream = &hit.route.upstream;
        let forwarded =
            self.proxy.forward(&permit, Arc::clone(&record), upstream, &origin, request);
        // The admission is committed while the upstream works; only the reply waits for both.
        let (answer, settled) = tokio::join!(forwarded, receipt.settled());
        settled?;
        answer.map_err(|error| {
            let refusal = Refusal::from(error);
            record.tally().answered(refusal.status());
            refusal
        })
    }

    fn finish(
        &self,
        endpoint: Endpoint,
        headers: &HeaderMap,
        outcome: Result<Response, Refusal>,
    ) -> Response {
        self.finish_with(endpoint, self.ids.of(headers), outcome)
    }

    /// The way out of every request: counted, rendered, and with its id.
    fn finish_with(
        &self,
        endpoint: Endpoint,
        id: HeaderValue,
        outcome: Result<Response, Refusal>,
    ) -> Response {
        let mut response = match outcome {
            Ok(response) => {
                self.passed[endpoint as usize].inc();
                response
            }
            Err(refusal) => {
                let (_, word) = Endpoint::ALL[endpoint as usize];
                let labels = RequestLabels { endpoint: word, code: refusal.code().as_str() };
                self.metrics.http.requests.get_or_create(&labels).inc();
                match endpoint {
                    Endpoint::AuthRequest => refusal.render_for_nginx(),
                    _ => refusal.render(),
                }
            }
        };
        response.headers_mut().insert(X_REQUEST_ID, id);
        response
    }

    fn health(&self, headers: &HeaderMap, well: bool) -> Response {
        let mut response = if well {
            let status = serde_json::json!({ "status": self.readiness.word() });
            Json(status).into_response()
        } else {
            Refusal::from(Code::NotReady).render()
        };
        response.headers_mut().insert(X_REQUEST_ID, self.ids.of(headers));
        response
    }

    fn panicked(&self, reason: &(dyn Any + Send)) -> Response {
        let text = reason.downcast_ref::<String>().map(String::as_str);
        let text = text.or(reason.downcast_ref::<&str>().copied()).unwrap_or("unknown");
        let id = self.ids.make();
        tracing::error!(reason = text, request_id = ?id, "a request handler panicked");
        let mut response = Refusal::from(Code::Internal).render();
        response.headers_mut().insert(X_REQUEST_ID, id);
        response
    }
}
