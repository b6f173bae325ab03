//! The two bodies of a forwarded request: counted as they go by, never held.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::{Limits, ProxyError, Running};
use crate::usage::OpenRecord;

/// A request's body on its way to the upstream: counted, bounded, and not allowed to stand still.
pub(super) struct Inbound {
    body: Body,
    record: Arc<OpenRecord>,
    left: u64,
    idle: Duration,
    /// Runs only while the client is waited for.
    alarm: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl Inbound {
    pub(super) fn new(body: Body, record: Arc<OpenRecord>, limits: &Limits) -> Self {
        let (left, idle) = (limits.body_max, limits.body_idle);
        Self { body, record, left, idle, alarm: None, waiting: false }
    }

    fn stands_still(&mut self, cx: &mut Context<'_>) -> bool {
        let deadline = || Instant::now() + self.idle;
        if self.alarm.is_none() {
            self.alarm = Some(Box::pin(tokio::time::sleep_until(deadline())));
        } else if !self.waiting
            && let Some(alarm) = &mut self.alarm
        {
            alarm.as_mut().reset(deadline());
        }
        self.waiting = true;
        self.alarm.as_mut().is_some_and(|alarm| alarm.as_mut().poll(cx).is_ready())
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
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            let still = this.stands_still(cx);
            return if still {
                Poll::Ready(Some(Err(ProxyError::BodyStalled)))
            } else {
                Poll::Pending
            };
        };
        this.waiting = false;
        let frame = match frame {
            None => return Poll::Ready(None),
            Some(Err(_)) => return Poll::Ready(Some(Err(ProxyError::BodyBroken))),
            Some(Ok(frame)) => frame,
        };
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

/// An answer's body on its way to the client.
pub(super) struct Outbound {
    body: Body,
    record: Arc<OpenRecord>,
    _running: Running,
}

impl Outbound {
    pub(super) fn new(body: Body, record: Arc<OpenRecord>, running: Running) -> Self {
        Self { body, record, _running: running }
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
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                this.record.tally().add_out(frame.data_ref().map_or(0, |data| data.len() as u64));
            }
            Some(Err(_)) => this.record.tally().broke_off(),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        HttpBody::size_hint(&self.body)
    }
}
