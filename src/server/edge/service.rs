//! The data plane as a service: which path is answered how, and that a panic is an answer too.
//!
//! No router stands here. The paths are few and fixed, and a router boxes, clones and wraps for
//! every request.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::header::{CONNECTION, HeaderValue};
use axum::http::request::Parts;
use axum::http::{Method, Request, Version};
use axum::response::IntoResponse;
use axum::response::Response;
use axum::{BoxError, Json};
use futures_util::FutureExt;
use hyper::body::{Body as HttpBody, Bytes};
use tower::Service;

use super::deadline::Patience;
use super::{EXT_AUTHZ, Edge, Endpoint};
use crate::server::listener::Overloaded;
use crate::server::oauth;
use crate::server::original;
use crate::server::problem::{Code, Refusal};
use crate::server::readiness::Phase;
use crate::server::request_id::X_REQUEST_ID;
use crate::server::story::Telling;
use crate::server::{trace, verify};

/// The data plane, ready to be served.
#[derive(Clone)]
pub struct DataPlane(Arc<Edge>);

impl DataPlane {
    pub(super) fn new(edge: Edge) -> Self {
        Self(Arc::new(edge))
    }
}

impl<B> Service<Request<B>> for DataPlane
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let edge = Arc::clone(&self.0);
        Box::pin(async move {
            // What a panic leaves behind is the request's own.
            let answered = AssertUnwindSafe(edge.answer(request)).catch_unwind().await;
            Ok(answered.unwrap_or_else(|reason| edge.panicked(reason.as_ref())))
        })
    }
}

impl Edge {
    async fn answer<B>(&self, request: Request<B>) -> Response
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        let id = self.ids.of(&parts.headers);
        let path = parts.uri.path();
        let fits = parts.headers.len() <= self.config.headers_max;
        let clear =
            if fits { original::names_its_host(&parts) } else { Err(Code::HeadTooLarge.into()) };
        if let Err(refusal) = clear {
            let story =
                if is_health(path) { Telling::default() } else { self.log.begin(&parts, &id) };
            let mut refused = self.finish(endpoint(path), id, Err(refusal), story);
            // Whoever read it otherwise may read the next one otherwise too.
            if parts.version < Version::HTTP_2 {
                refused.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            return refused;
        }
        if is_health(path) {
            return self.health(path, id);
        }
        let story = self.log.begin(&parts, &id);
        if parts.extensions.get::<Overloaded>().is_some() {
            self.metrics.http.shed.inc();
            return self.finish(endpoint(path), id, Err(Code::Overloaded.into()), story);
        }
        match parts.uri.path() {
            "/authz/forward-auth" => self.asked(Endpoint::ForwardAuth, &parts, id, story).await,
            "/authz/auth-request" => self.asked(Endpoint::AuthRequest, &parts, id, story).await,
            path if is_ext_authz(path) => self.asked(Endpoint::ExtAuthz, &parts, id, story).await,
            // On the heap, so that the many small answers are not as large as the rare ones.
            "/v1/keys/verify" => Box::pin(self.verify(parts, Body::new(body), id, story)).await,
            path if let Some(endpoint) = oauth::endpoint(path) => {
                Box::pin(self.of_tokens(endpoint, parts, Body::new(body), id, story)).await
            }
            _ => {
                let request = Request::from_parts(parts, Body::new(body));
                Box::pin(self.pass_on(request, id, story)).await
            }
        }
    }

    /// What comes of a request, or a 408 when it takes too long.
    async fn in_time(
        &self,
        work: Pin<&mut impl Future<Output = Result<Response, Refusal>>>,
    ) -> Result<Response, Refusal> {
        Patience::new(self.config.request_timeout.0)
            .with(work)
            .await
            .unwrap_or_else(|| Err(Refusal::overdue()))
    }

    async fn asked(
        &self,
        endpoint: Endpoint,
        parts: &Parts,
        id: HeaderValue,
        mut story: Telling,
    ) -> Response {
        let outcome = self.in_time(pin!(self.authorize(endpoint, parts, &mut story))).await;
        self.finish(endpoint, id, outcome, story)
    }

    async fn verify(
        &self,
        parts: Parts,
        body: Body,
        id: HeaderValue,
        mut story: Telling,
    ) -> Response {
        let outcome = if parts.method == Method::POST {
            self.in_time(pin!(verify::answer(self, &parts, body, &mut story))).await
        } else {
            Err(Code::MethodNotAllowed.into())
        };
        self.finish(Endpoint::Verify, id, outcome, story)
    }

    async fn of_tokens(
        &self,
        endpoint: Endpoint,
        parts: Parts,
        body: Body,
        id: HeaderValue,
        mut story: Telling,
    ) -> Response {
        story.note(|story| story.ip = self.client_ip(&parts));
        let outcome =
            self.in_time(pin!(oauth::answer(self, endpoint, &parts, body, &mut story))).await;
        self.finish(endpoint, id, outcome, story)
    }

    async fn pass_on(
        &self,
        mut request: Request<Body>,
        id: HeaderValue,
        mut story: Telling,
    ) -> Response {
        request.headers_mut().insert(X_REQUEST_ID, id.clone());
        trace::clean(request.headers_mut());
        if let Some(parent) = story.traceparent() {
            trace::stand_below(request.headers_mut(), parent);
        }
        let outcome = self.forward(request, &mut story).await;
        self.finish(Endpoint::Proxy, id, outcome, story)
    }

    /// Asked every few seconds by machines: no access line.
    fn health(&self, path: &str, id: HeaderValue) -> Response {
        let well = match path {
            "/livez" => self.readiness.phase() != Phase::Starting,
            _ => self.readiness.report().0,
        };
        let mut response = if well {
            let status = serde_json::json!({ "status": self.readiness.report().1 });
            Json(status).into_response()
        } else {
            Refusal::from(Code::NotReady).render()
        };
        response.headers_mut().insert(X_REQUEST_ID, id);
        response
    }
}

/// Who asks, for a request that is not looked at any further.
fn endpoint(path: &str) -> Endpoint {
    match path {
        "/authz/forward-auth" => Endpoint::ForwardAuth,
        "/authz/auth-request" => Endpoint::AuthRequest,
        "/v1/keys/verify" => Endpoint::Verify,
        path if is_ext_authz(path) => Endpoint::ExtAuthz,
        path => oauth::endpoint(path).unwrap_or(Endpoint::Proxy),
    }
}

/// What is answered however much runs: it takes next to nothing, and who asks decides by it
/// whether the gateway lives.
fn is_health(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz")
}

fn is_ext_authz(path: &str) -> bool {
    path.strip_prefix(EXT_AUTHZ).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_answer<'a, F>(_: impl Fn(&'a Edge, Request<Body>) -> F) -> usize {
        size_of::<F>()
    }

    fn of_proxying<'a, F>(_: impl Fn(&'a Edge, Request<Body>, HeaderValue, Telling) -> F) -> usize {
        size_of::<F>()
    }

    /// One was 46 KiB, made and moved for every request, where each step held the next one twice.
    #[test]
    fn what_a_request_makes_is_small() {
        let (answer, proxying) = (of_answer(Edge::answer::<Body>), of_proxying(Edge::pass_on));
        assert!(answer <= 2048, "{answer}");
        assert!(proxying <= 6144, "{proxying}");
    }
}
