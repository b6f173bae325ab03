//! What the data plane shares, and the one way out of it.

mod authorize;
mod deadline;
mod events;
mod forward;
mod service;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::sync::Arc;

use axum::http::header::{CACHE_CONTROL, HeaderValue};
use axum::response::Response;
use prometheus_client::metrics::counter::Counter;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::Config;
use super::limits;
use super::peers::Trusted;
use super::problem::{Code, NO_STORE, Refusal};
use super::readiness::Readiness;
use super::request_id::{RequestIds, X_REQUEST_ID};
use super::routes::Routes;
use super::story::{AccessLog, Spans, Telling, WriteLine};
use crate::admission::Admission;
use crate::cache::Cache;
use crate::clock::{Seldom, SharedClock};
use crate::entropy::SharedEntropy;
use crate::metrics::{Metrics, RequestLabels};
use crate::model::{Principal, Target};
use crate::proxy::{Proxy, ProxyParts};
use crate::tokens::Tokens;
use crate::usage::Meter;

pub use service::DataPlane;

const EXT_AUTHZ: &str = "/authz/ext-authz";

/// What the data plane is made of.
pub struct ServerParts {
    /// `[server]`
    pub config: Config,
    /// `[[routes]]` and `[[upstreams]]`, compiled; they may be exchanged.
    pub routes: Arc<Routes>,
    /// Who has which key.
    pub cache: Arc<Cache>,
    /// Sessions and tokens.
    pub tokens: Arc<Tokens>,
    /// What decides.
    pub admission: Arc<Admission>,
    /// What counts.
    pub meter: Arc<Meter>,
    /// What an operator shows who asks why.
    pub admin_token: SecretString,
    /// Time.
    pub clock: SharedClock,
    /// Randomness, for request ids.
    pub entropy: SharedEntropy,
    /// Handles.
    pub metrics: Arc<Metrics>,
    /// What health says.
    pub readiness: Arc<Readiness>,
    /// Where what outlives a request runs: tunnels and health checks.
    pub tasks: TaskTracker,
    /// Ends them.
    pub stopping: CancellationToken,
    /// Where access lines go.
    pub write_line: WriteLine,
    /// Where spans go, if they are exported.
    pub spans: Option<Spans>,
}

/// Who asks, for the metrics and for what a refusal looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    ForwardAuth,
    AuthRequest,
    ExtAuthz,
    Verify,
    Refresh,
    Token,
    Revoke,
    Introspect,
    Discovery,
    Proxy,
}

impl Endpoint {
    const ALL: [(Self, &'static str); 10] = [
        (Self::ForwardAuth, "forward_auth"),
        (Self::AuthRequest, "auth_request"),
        (Self::ExtAuthz, "ext_authz"),
        (Self::Verify, "verify"),
        (Self::Refresh, "refresh"),
        (Self::Token, "token"),
        (Self::Revoke, "revoke"),
        (Self::Introspect, "introspect"),
        (Self::Discovery, "discovery"),
        (Self::Proxy, "proxy"),
    ];
}

/// Everything that the handlers share.
pub(super) struct Edge {
    pub(super) config: Config,
    pub(super) trusted: Trusted,
    pub(super) cache: Arc<Cache>,
    pub(super) tokens: Arc<Tokens>,
    pub(super) admission: Arc<Admission>,
    pub(super) meter: Arc<Meter>,
    pub(super) admin_token: SecretString,
    routes: Arc<Routes>,
    access: Target,
    nobody: Principal,
    proxy: Proxy,
    clock: SharedClock,
    ids: RequestIds,
    metrics: Arc<Metrics>,
    /// Answers that went well, by endpoint: looked up once, because they are the many.
    passed: [Counter; Endpoint::ALL.len()],
    readiness: Arc<Readiness>,
    log: Arc<AccessLog>,
    /// When it was last said that denials are on no disk.
    unkept: Seldom,
}

/// The data plane, ready to be served.
pub fn service(parts: ServerParts) -> DataPlane {
    DataPlane::new(Edge::new(parts))
}

impl Edge {
    fn new(parts: ServerParts) -> Self {
        let ServerParts {
            config,
            routes,
            cache,
            tokens,
            admission,
            meter,
            admin_token,
            clock,
            entropy,
            metrics,
            readiness,
            tasks,
            stopping,
            write_line,
            spans,
        } = parts;
        let log = AccessLog::new(
            config.access_log,
            config.access_log_sample,
            write_line,
            spans,
            Arc::clone(&clock),
            Arc::clone(&entropy),
        );
        let passed = Endpoint::ALL.map(|(_, endpoint)| {
            let labels = RequestLabels { endpoint, code: "ok" };
            metrics.http.requests.get_or_create(&labels).clone()
        });
        Self {
            trusted: Trusted::new(config.trusted_proxies.clone(), config.forwarded),
            proxy: Proxy::new(ProxyParts {
                max_tunnels: config.max_tunnels,
                max_tunnels_per_address: config.max_tunnels_per_address,
                tunnel_idle: config.tunnel_idle_timeout.0,
                clock: Arc::clone(&clock),
                entropy: Arc::clone(&entropy),
                metrics: Arc::clone(&metrics),
                tasks,
                stopping,
            }),
            ids: RequestIds::new(Arc::clone(&clock), &entropy),
            access: Target::access(),
            nobody: Principal::nobody(),
            config,
            routes,
            cache,
            tokens,
            admission,
            meter,
            admin_token,
            clock,
            metrics,
            passed,
            readiness,
            log: Arc::new(log),
            unkept: Seldom::default(),
        }
    }

    /// The way out of every request: counted, rendered, with its id, and told.
    fn finish(
        &self,
        endpoint: Endpoint,
        id: HeaderValue,
        mut outcome: Result<Response, Refusal>,
        mut story: Telling,
    ) -> Response {
        let code = outcome.as_ref().err().map(|refusal| refusal.code().as_str());
        let report = outcome.as_ref().err().and_then(|refusal| refusal.report().cloned());
        let told = outcome.as_mut().err().and_then(|refusal| refusal.told.take());
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
                    Endpoint::Token | Endpoint::Revoke | Endpoint::Introspect => {
                        refusal.render_for_oauth()
                    }
                    Endpoint::Refresh => {
                        let mut response = refusal.render();
                        response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
                        response
                    }
                    _ => refusal.render(),
                }
            }
        };
        if let Some(report) = report {
            limits::report_in(response.headers_mut(), self.admission.limit_headers(), &report);
        }
        response.headers_mut().extend(told.map(|told| *told).unwrap_or_default());
        response.headers_mut().insert(X_REQUEST_ID, id);
        let (_, word) = Endpoint::ALL[endpoint as usize];
        story.note(|story| story.answered(word, code, &response));
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
