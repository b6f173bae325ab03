//! The two bodies of a forwarded request: counted as they go by, never held.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::DropGuard;

use super::target::Taken;
use super::wire::{Wire, idly};
use super::{Fault, Limits, ProxyError, Running, headers};
use crate::usage::OpenRecord;

/// How long a body has stood still. Runs only while its sender is waited for: a receiver who takes
/// his time is no fault of the sender's.
struct Idle {
    allowed: Duration,
    /// How long the whole may take, from the first time that it was waited for; `None`: that is
    /// somebody else's to say.
    whole: Option<Duration>,
    until: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl Idle {
    fn new(allowed: Duration, whole: Option<Duration>) -> Self {
        Self { allowed, whole, until: None, alarm: None, waiting: false }
    }

    fn progress(&mut self) {
        self.waiting = false;
    }

    /// Ready when nothing has come for longer than is allowed.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        if self.until.is_none() {
            self.until = self.whole.map(|whole| now + whole);
        }
        let deadline = now + self.allowed;
        let deadline = self.until.map_or(deadline, |until| until.min(deadline));
        let sleep = || Box::pin(tokio::time::sleep_until(deadline));
        let alarm = self.alarm.get_or_insert_with(sleep);
        if !self.waiting {
            alarm.as_mut().reset(deadline);
            self.waiting = true;
        }
        alarm.as_mut().poll(cx)
    }
}

/// A request's body on its way to the upstream: counted, bounded, and not allowed to stand still.
pub(super) struct Inbound {
    body: Body,
    record: Arc<OpenRecord>,
    left: u64,
    idle: Idle,
    /// Where the body goes back to when nobody has begun to read it.
    home: Option<oneshot::Sender<Body>>,
}

impl Inbound {
    pub(super) fn new(body: Body, record: Arc<OpenRecord>, limits: &Limits) -> Self {
        let (left, idle) = (limits.body_max, Idle::new(limits.body_idle, None));
        Self { body, record, left, idle, home: None }
    }

    /// One that comes back when it is dropped before anybody has begun to read it. An empty one
    /// need not: there is another.
    pub(super) fn lent(
        body: Body,
        record: Arc<OpenRecord>,
        limits: &Limits,
    ) -> (Self, Option<oneshot::Receiver<Body>>) {
        let mut lent = Self::new(body, record, limits);
        if lent.body.is_end_stream() {
            return (lent, None);
        }
        let (home, back) = oneshot::channel();
        lent.home = Some(home);
        (lent, Some(back))
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            // Nobody waits for it where it was not needed again.
            drop(home.send(std::mem::replace(&mut self.body, Body::empty())));
        }
    }
}

impl HttpBody for Inbound {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let this = &mut *self;
        this.home = None;
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        this.record.tally().waits_for_sender(polled.is_pending());
        let Poll::Ready(frame) = polled else {
            ready!(this.idle.poll_over(cx));
            return Poll::Ready(Some(Err(ProxyError::BodyStalled)));
        };
        this.idle.progress();
        if frame.is_none() || this.body.is_end_stream() {
            this.record.tally().sent_whole();
        }
        let mut frame = match frame {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(ProxyError::of_body(&error)))),
            Some(Ok(frame)) => frame,
        };
        frame.trailers_mut().into_iter().for_each(headers::clean_trailers);
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        let Some(left) = this.left.checked_sub(length) else {
            return Poll::Ready(Some(Err(ProxyError::BodyTooLarge)));
        };
        this.left = left;
        this.record.tally().add_in(length);
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        HttpBody::size_hint(&self.body)
    }
}

/// What a request keeps busy until its answer has ended: a place at its target, none at the
/// built-in echo.
pub(super) struct Busy {
    pub(super) _running: Running,
    pub(super) taken: Option<Taken>,
}

/// Who drives the connection that an answer comes over.
pub(super) enum Driver {
    /// Whoever passes the answer on.
    Here(Wire),
    /// A task of its own, which is told when the answer is over.
    Elsewhere(#[expect(dead_code, reason = "dropping it tells")] DropGuard),
}

/// Where an answer's body comes from.
pub(super) enum Source {
    /// From a target.
    Target(Incoming, Option<Driver>),
    /// From the built-in echo.
    Echo(Body),
}

impl Source {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let (body, driver) = match self {
            Self::Target(body, driver) => (Pin::new(body), driver),
            Self::Echo(body) => return Pin::new(body).poll_frame(cx),
        };
        body_of(body, driver, cx).map_err(axum::Error::new)
    }

    fn is_over(&self) -> bool {
        match self {
            Self::Target(body, _) => body.is_end_stream(),
            Self::Echo(body) => body.is_end_stream(),
        }
    }

    fn take_wire(&mut self) -> Option<Wire> {
        match self {
            Self::Target(_, driver @ Some(Driver::Here(_))) => match driver.take() {
                Some(Driver::Here(wire)) => Some(wire),
                _ => None,
            },
            _ => None,
        }
    }
}

fn body_of(
    mut body: Pin<&mut Incoming>,
    driver: &mut Option<Driver>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
    if let Some(Driver::Here(driven)) = driver {
        // What is there is passed on before more is read.
        driven.hush();
        if let Poll::Ready(frame) = body.as_mut().poll_frame(&mut idly()) {
            return Poll::Ready(frame);
        }
        if driven.drive(cx).is_pending() {
            return body.poll_frame(&mut idly());
        }
        *driver = None;
    }
    body.poll_frame(cx)
}

/// An answer's body on its way to the client: counted, and not allowed to stand still.
pub(super) struct Outbound {
    source: Source,
    record: Arc<OpenRecord>,
    idle: Idle,
    busy: Busy,
    /// Whether its end has come, or is none that anybody waits for.
    ended: bool,
}

impl Outbound {
    /// One that is `endless` nobody reads to its end: whoever has heard enough leaves.
    pub(super) fn new(
        source: Source,
        record: Arc<OpenRecord>,
        busy: Busy,
        limits: &Limits,
        endless: bool,
    ) -> Self {
        let idle = Idle::new(limits.response_timeout, Some(limits.answer_max));
        Self { source, record, idle, busy, ended: endless }
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        if !self.ended && !self.source.is_over() {
            self.record.tally().left();
        }
    }
}

impl HttpBody for Outbound {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let Poll::Ready(mut frame) = this.source.poll(cx) else {
            ready!(this.idle.poll_over(cx));
            this.record.tally().broke_off();
            this.ended = true;
            tracing::debug!(
                "the upstream's answer stood still, or took too long, and was broken off"
            );
            return Poll::Ready(Some(Err(axum::Error::new(Fault::Timeout))));
        };
        this.idle.progress();
        match &mut frame {
            Some(Ok(frame)) => {
                frame.trailers_mut().into_iter().for_each(headers::clean_trailers);
                this.record.tally().add_out(frame.data_ref().map_or(0, |data| data.len() as u64));
            }
            Some(Err(_)) => {
                this.ended = true;
                this.record.tally().broke_off();
            }
            None => this.ended = true,
        }
        // Before the client has it, so that its next request finds the connection.
        if (frame.is_none() || this.source.is_over())
            && let (Some(wire), Some(taken)) = (this.source.take_wire(), &this.busy.taken)
        {
            taken.target().kept().put(wire);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Target(body, _) => HttpBody::size_hint(body),
            Source::Echo(body) => HttpBody::size_hint(body),
        }
    }
}
