//! One request, one answer, and as many attempts as it may take.
//!
//! An attempt is repeated where nothing can have been done by it: the request was never sent, or
//! its method is idempotent and it has no body. (One that a kept connection had closed under is
//! sent again by the client itself, on another connection.) The record of the request stays the
//! same, so that it counts once however often it is tried.

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, Method, Request, Uri};
use axum::response::Response;
use hyper::body::Body as HttpBody;

use super::body::Inbound;
use super::error::{Fault, ProxyError};
use super::target::Taken;
use super::upstream::Pool;
use super::{Limits, Proxy};
use crate::usage::{OpenRecord, Tally};

/// A request's head, for whichever target is asked.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) path: Option<PathAndQuery>,
    pub(super) headers: HeaderMap,
}

impl Head {
    pub(super) fn of(parts: Parts) -> Self {
        let path = parts.uri.into_parts().path_and_query;
        Self { method: parts.method, path, headers: parts.headers }
    }

    fn to(self, target: &Uri, body: Inbound) -> Result<Request<Inbound>, Fault> {
        let mut uri = target.clone().into_parts();
        uri.path_and_query = self.path;
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = Uri::from_parts(uri).map_err(|_| Fault::Unreachable)?;
        *request.headers_mut() = self.headers;
        Ok(request)
    }
}

/// After which faults a request may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    Never,
    /// When it was never sent.
    Unsent,
    /// When it was lost, sent or not.
    Lost,
}

impl Repeat {
    fn of(pool: &Pool, method: &Method, body: &Body) -> Self {
        if pool.retries == 0 {
            Self::Never
        } else if method.is_idempotent() && body.is_end_stream() {
            Self::Lost
        } else if pool.targets.len() > 1 {
            Self::Unsent
        } else {
            Self::Never
        }
    }

    fn covers(self, fault: Fault, pool: &Pool) -> bool {
        // A single target that was not there is not there in the next moment either.
        let elsewhere = fault.is_unsent() && pool.targets.len() > 1;
        match self {
            Self::Never => false,
            Self::Unsent => elsewhere,
            Self::Lost => elsewhere || fault == Fault::BrokeOff,
        }
    }
}

impl Proxy {
    /// Asks a target, and another one where that may be done.
    pub(super) async fn exchange(
        &self,
        pool: &Pool,
        limits: &Limits,
        record: &Arc<OpenRecord>,
        mut head: Head,
        mut body: Body,
    ) -> Result<(Response, Taken), ProxyError> {
        pool.budget.earn();
        let repeat = Repeat::of(pool, &head.method, &body);
        let taken = pool.take(self.clock.monotonic(), None);
        let mut taken = taken.inspect_err(|fault| self.count(*fault))?;
        for left in (0..=pool.retries).rev() {
            // Only a repetition needs its headers a second time.
            let spare = (left > 0 && repeat != Repeat::Never).then(|| head.clone());
            let (sent, mut back) = match &spare {
                Some(_) => Inbound::lent(body, Arc::clone(record), limits),
                None => (Inbound::new(body, Arc::clone(record), limits), None),
            };
            let request = head.to(taken.target().uri(), sent)?;
            let error = match self.ask(pool, limits, request, record.tally()).await {
                Ok(answer) => {
                    taken.answered();
                    return Ok((answer, taken));
                }
                Err(error) => error,
            };
            let ProxyError::Upstream(fault) = error else { return Err(error) };
            self.blame(pool, &taken, fault);
            let Some(spare) = spare.filter(|_| repeat.covers(fault, pool)) else {
                return Err(error);
            };
            // What was begun with cannot be sent again; it comes back only untouched.
            let returned = match &mut back {
                None => Some(Body::empty()),
                Some(back) => back.try_recv().ok(),
            };
            let Some(returned) = returned else { return Err(error) };
            if !pool.budget.spend() {
                self.metrics.upstream.retries_refused.inc();
                return Err(error);
            }
            let next = pool.take(self.clock.monotonic(), Some(taken.target()));
            taken = next.map_err(|_| error)?;
            (head, body) = (spare, returned);
            self.metrics.upstream.retries.inc();
        }
        // Every turn of the loop without a spare head has returned.
        Err(Fault::Unreachable.into())
    }

    /// Waits for the answer's head. A body that is still being sent extends the wait.
    async fn ask(
        &self,
        pool: &Pool,
        limits: &Limits,
        request: Request<Inbound>,
        tally: &Tally,
    ) -> Result<Response, ProxyError> {
        let mut pending = pool.client.request(request);
        loop {
            let sent = tally.bytes_in();
            match tokio::time::timeout(limits.response_timeout, &mut pending).await {
                Ok(Ok(answer)) => return Ok(answer.map(Body::new)),
                Ok(Err(error)) => {
                    let cause = std::error::Error::source(&error);
                    tracing::debug!(%error, cause, "no answer from upstream");
                    return Err(ProxyError::of(&error));
                }
                Err(_) if tally.bytes_in() > sent => {}
                Err(_) => return Err(Fault::Timeout.into()),
            }
        }
    }

    fn blame(&self, pool: &Pool, taken: &Taken, fault: Fault) {
        self.count(fault);
        if taken.failed(self.clock.monotonic()) {
            self.metrics.upstream.breaker_openings.inc();
            let (upstream, target) = (&*pool.name, taken.target().uri());
            tracing::warn!(upstream, %target, %fault, "a target failed in a row and is left out");
        }
    }
}
