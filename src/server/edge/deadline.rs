//! How long a request may take: `server.request_timeout` until its answer begins, and a route's
//! `total_timeout`, one alarm for the answer's head and all of its body.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::poll;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use crate::usage::OpenRecord;

/// What is left of `server.request_timeout`, for all that is waited for until the answer begins.
pub(super) struct Patience {
    timeout: Duration,
    /// From when something was first waited for.
    until: Option<Instant>,
}

impl Patience {
    /// All of it.
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, until: None }
    }

    /// What comes of a part of a request, unless all of it takes too long. Pinned where it was
    /// made: whatever is handed to an `async fn` by value stands in its future twice, and that is
    /// moved.
    pub async fn with<T>(&mut self, mut work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        // Most are done at once, and cost no timer.
        if let Poll::Ready(done) = poll!(work.as_mut()) {
            return Some(done);
        }
        let until = *self.until.get_or_insert_with(|| Instant::now() + self.timeout);
        tokio::time::timeout_at(until, work).await.ok()
    }
}

/// A route's `total_timeout`.
pub(super) struct Deadline(Pin<Box<Sleep>>);

impl Deadline {
    /// So long from now.
    pub fn new(after: Duration) -> Self {
        Self(Box::pin(sleep(after)))
    }
}

/// What comes of `work`, unless there is a deadline and it is over first.
pub(super) async fn within<T>(
    deadline: &mut Option<Deadline>,
    work: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    let Some(Deadline(alarm)) = deadline else { return Some(work.await) };
    tokio::select! {
        biased;
        done = work => Some(done),
        () = alarm => None,
    }
}

/// An answer whose body breaks off when the time is over. What goes through a tunnel is no answer.
pub(super) fn bind(
    deadline: Option<Deadline>,
    answer: Response,
    record: Arc<OpenRecord>,
) -> Response {
    match deadline {
        Some(Deadline(alarm)) if answer.status() != StatusCode::SWITCHING_PROTOCOLS => {
            answer.map(|body| Body::new(Timed { body, alarm, record }))
        }
        _ => answer,
    }
}

struct Timed {
    body: Body,
    alarm: Pin<Box<Sleep>>,
    record: Arc<OpenRecord>,
}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        // First: a body that always has more would never be late.
        if self.alarm.as_mut().poll(cx).is_ready() {
            self.record.tally().broke_off();
            tracing::debug!("an answer took longer than its route allows and was broken off");
            return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::TimedOut).into())));
        }
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        frame.map(|frame| frame.map(|frame| frame.map_err(BoxError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        HttpBody::size_hint(&self.body)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_parts_of_a_request_may_not_take_longer_than_it_all_together() {
        let mut patience = Patience::new(Duration::from_secs(10));
        let part = |secs| sleep(Duration::from_secs(secs));
        assert_eq!(patience.with(pin!(async { 1 })).await, Some(1));
        assert_eq!(patience.with(pin!(part(6))).await, Some(()));
        assert_eq!(patience.with(pin!(part(3))).await, Some(()));
        assert_eq!(patience.with(pin!(part(6))).await, None);
    }
}
