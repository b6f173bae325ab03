//! An answer's body, which counts as running until it has ended or was given up.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use axum::body::Body;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::answers::Answer;
use super::slot::{Running, Slot};

/// See the module.
pub(super) struct Held {
    body: Body,
    running: Option<Running>,
    patience: Duration,
    /// Set when the body is waited for the first time: most never are.
    alarm: Option<Pin<Box<Sleep>>>,
    /// In HTTP/2.
    watched: Option<Watched>,
    /// In HTTP/1.0, where the end of the connection may be that of an answer.
    unframed: Option<Arc<Slot>>,
}

/// An answer that its connection's reader looks at.
pub(super) struct Watched {
    slot: Arc<Slot>,
    answer: Arc<Answer>,
}

impl Watched {
    /// From now on.
    pub fn new(slot: Arc<Slot>) -> Self {
        let answer = slot.answers().begin();
        Self { slot, answer }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.slot.answers().end(&self.answer);
    }
}

impl Held {
    /// A body that may take as long as `patience`.
    pub fn new(
        body: Body,
        running: Option<Running>,
        patience: Duration,
        watched: Option<Watched>,
        unframed: Option<Arc<Slot>>,
    ) -> Self {
        Self { body, running, patience, alarm: None, watched, unframed }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Some(watched) = &self.watched {
            watched.answer.asked(frame.is_ready());
        }
        match frame {
            Poll::Ready(None) => {
                self.running = None;
                Poll::Ready(None)
            }
            Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from))),
            Poll::Pending => {
                let patience = self.patience;
                let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep(patience)));
                let overdue = alarm.as_mut().poll(cx);
                overdue.map(|()| Some(Err(io::Error::from(io::ErrorKind::TimedOut).into())))
            }
        }
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = self.poll(cx);
        if let (Poll::Ready(Some(Err(_))), Some(slot)) = (&frame, &self.unframed) {
            slot.cut();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        HttpBody::size_hint(&self.body)
    }
}
