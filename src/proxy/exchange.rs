//! One request, one answer, and as many attempts as it may take.
//!
//! An attempt is repeated where nothing can have been done by it: the request was never sent, or
//! its method is idempotent and it has no body. (Where a kept connection closed before anything was
//! sent, another one is taken, and that is no attempt.) The record of the request stays the
//! same, so that it counts once however often it is tried.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING};
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use hyper::body::{Body as HttpBody, Incoming};
use hyper::client::conn::TrySendError;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::body::{Driver, Inbound, Source};
use super::error::{Fault, ProxyError, connecting};
use super::target::{Taken, Target};
use super::upstream::Pool;
use super::wire::Wire;
use super::{Limits, Proxy, headers};
use crate::usage::{OpenRecord, Tally};

const CHUNKED: HeaderValue = HeaderValue::from_static("chunked");

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

    fn to(self, target: &Target, body: Inbound) -> Request<Inbound> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        // Without one it is `/`.
        *request.uri_mut() = self.path.map(Uri::from).unwrap_or_default();
        *request.headers_mut() = self.headers;
        let has_body = !request.body().is_end_stream();
        let headers = request.headers_mut();
        headers.entry(HOST).or_insert_with(|| target.host().clone());
        // Without a length hyper says so for most methods, and drops the body of a GET or a HEAD.
        if has_body && !headers.contains_key(CONTENT_LENGTH) {
            headers.insert(TRANSFER_ENCODING, CHUNKED);
        }
        request
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
    ) -> Result<(Response<Source>, Taken), ProxyError> {
        pool.budget.earn();
        let repeat = Repeat::of(pool, &head.method, &body);
        let has_body = !body.is_end_stream();
        let taken = pool.take(self.clock.monotonic(), None);
        let mut taken = taken.inspect_err(|fault| self.count(*fault))?;
        for left in (0..=pool.retries).rev() {
            // Only a repetition needs its headers a second time.
            let spare = (left > 0 && repeat != Repeat::Never).then(|| head.clone());
            let (sent, mut back) = match &spare {
                Some(_) => Inbound::lent(body, Arc::clone(record), limits),
                None => (Inbound::new(body, Arc::clone(record), limits), None),
            };
            let request = head.to(taken.target(), sent);
            let error = match self.ask(pool, &taken, limits, request, record.tally()).await {
                Ok((answer, wire)) => {
                    taken.answered();
                    let driver = if headers::is_ambiguous(answer.headers()) {
                        // Where its answer ends is not certain: nothing more is read from it.
                        None
                    } else if wire.is_free() {
                        // The whole of a small answer came with its head.
                        taken.target().kept().put(wire);
                        None
                    } else if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                        self.drive_apart(wire, &taken, std::future::pending());
                        None
                    } else if has_body {
                        Some(self.drive_upload(wire, &taken, record, limits.body_idle))
                    } else {
                        Some(Driver::Here(wire))
                    };
                    return Ok((answer.map(|body| Source::Target(body, driver)), taken));
                }
                Err(error) => error,
            };
            let ProxyError::Upstream(fault) = error else { return Err(error) };
            self.blame(pool, &taken, fault, has_body && !record.tally().is_sent_whole());
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

    /// Waits for the answer's head, from the last of the request that was passed on. While the
    /// sender of the request's body is waited for nobody waits for the target: the body has an
    /// alarm of its own.
    async fn ask(
        &self,
        pool: &Pool,
        taken: &Taken,
        limits: &Limits,
        request: Request<Inbound>,
        tally: &Tally,
    ) -> Result<(Response<Incoming>, Wire), ProxyError> {
        let mut pending = pin!(send(pool, taken.target(), request));
        let mut alarm = pin!(sleep(limits.response_timeout));
        let (mut sent, mut waited) = (tally.bytes_in(), false);
        poll_fn(|cx| {
            if let Poll::Ready(answer) = pending.as_mut().poll(cx) {
                return Poll::Ready(answer);
            }
            let (so_far, waits) = (tally.bytes_in(), tally.is_waiting_for_sender());
            if so_far > sent || waits != waited {
                (sent, waited) = (so_far, waits);
                alarm.as_mut().reset(Instant::now() + limits.response_timeout);
            }
            if waits {
                return Poll::Pending;
            }
            alarm.as_mut().poll(cx).map(|()| Err(Fault::Timeout.into()))
        })
        .await
    }

    /// A body that may still be sent: not for ever, once the answer is over.
    fn drive_upload(
        &self,
        wire: Wire,
        taken: &Taken,
        record: &Arc<OpenRecord>,
        idle: Duration,
    ) -> Driver {
        let over = CancellationToken::new();
        let guard = over.clone().drop_guard();
        self.drive_apart(wire, taken, stuck(over, Arc::downgrade(record), idle));
        Driver::Elsewhere(guard)
    }

    /// A body that is still being sent goes on when the answer has ended, and a tunnel has its own
    /// way. Both end with the client's side, or when it is `stuck`.
    fn drive_apart(
        &self,
        mut wire: Wire,
        taken: &Taken,
        stuck: impl Future<Output = ()> + Send + 'static,
    ) {
        let target = Arc::clone(taken.target());
        self.tasks.spawn(async move {
            let free = poll_fn(|cx| if wire.is_free() { Poll::Ready(()) } else { wire.drive(cx) });
            tokio::select! {
                () = free => target.kept().put(wire),
                () = stuck => tracing::debug!("a target reads no more of a body: broken off"),
            }
        });
    }

    /// Counts a fault, and holds it against its target. Not when that broke off a body in the
    /// middle: who wants no more of one closes, and any caller can send more than is wanted.
    fn blame(&self, pool: &Pool, taken: &Taken, fault: Fault, in_body: bool) {
        self.count(fault);
        if in_body && fault == Fault::BrokeOff {
            return;
        }
        if taken.failed(self.clock.monotonic()) {
            self.metrics.upstream.breaker_openings.inc();
            let (upstream, target) = (&*pool.name, taken.target().uri());
            tracing::warn!(upstream, %target, %fault, "a target failed in a row and is left out");
        }
    }
}

/// Ready when the answer is `over`, and nothing more of the request's body has gone to the target
/// for `allowed`. A target that reads no more hides from us that the client has left; whatever the
/// request holds (a place among those that run at a time) is let go of with the connection.
async fn stuck(over: CancellationToken, record: Weak<OpenRecord>, allowed: Duration) {
    over.cancelled().await;
    let sent = || record.upgrade().map(|record| record.tally().bytes_in());
    let mut before = sent();
    loop {
        sleep(allowed).await;
        let now = sent();
        if now == before {
            return;
        }
        before = now;
    }
}

/// Sends a request on a kept connection, or on a new one.
async fn send(
    pool: &Pool,
    target: &Target,
    mut request: Request<Inbound>,
) -> Result<(Response<Incoming>, Wire), ProxyError> {
    loop {
        let kept = target.kept().take();
        let was_kept = kept.is_some();
        let mut wire = match kept {
            Some(wire) => wire,
            // On the heap: it is large and seldom.
            None => {
                Box::pin(Wire::connect(&pool.connector, target.uri())).await.map_err(|error| {
                    tracing::debug!(error, "no connection to a target");
                    connecting(&error)
                })?
            }
        };
        let mut failure = match wire.ask(request).await {
            Ok(answer) => return Ok((answer, wire)),
            Err(failure) => failure,
        };
        match failure.as_mut().and_then(TrySendError::take_message) {
            // It closed in the moment in which it was taken, before anything was sent.
            Some(unsent) if was_kept => request = unsent,
            _ => {
                let error = failure.map(TrySendError::into_error);
                let cause = error.as_ref().and_then(std::error::Error::source);
                tracing::debug!(error = ?error, cause, "no answer from a target");
                return Err(error.map_or(Fault::BrokeOff.into(), |error| ProxyError::of(&error)));
            }
        }
    }
}
