//! One connection to a target. It has no task of its own: the request that has it drives it, from
//! its head to the end of the answer, so that nothing of a request is handed from one task or
//! processor to another.
//!
//! What hyper tells the request by its channels comes about while the connection is driven, by the
//! same task: so only the connection wakes anybody, and what waits at the channels is asked again
//! each time. The other way round the same: what is taken out of a channel wakes nobody who is
//! about to drive the connection anyway ([`Bell`]), or has it no more.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker, ready};

use axum::BoxError;
use axum::http::{Request, Response, Uri};
use futures_util::task::AtomicWaker;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tower::Service;

use super::body::Inbound;
use super::connector::Connector;
use super::stream::Stream;

/// Wakes whoever drives a connection, as long as it waits for it.
#[derive(Default)]
struct Bell(AtomicWaker);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.wake();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.wake();
    }
}

/// See the module.
pub(super) struct Wire {
    bell: Arc<Bell>,
    /// That bell's.
    waker: Waker,
    sender: SendRequest<Inbound>,
    /// (Its type has no name.)
    connection: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
    /// Whether it has ended. It must not be driven on then.
    ended: bool,
}

impl Wire {
    /// A new one.
    ///
    /// # Errors
    /// What the connector says, or what became of the connection at once.
    pub async fn connect(connector: &Connector, target: &Uri) -> Result<Self, BoxError> {
        let mut connector = connector.clone();
        std::future::poll_fn(|cx| connector.poll_ready(cx)).await?;
        let stream = Stream::new(TokioIo::new(connector.call(target.clone()).await?));
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let bell = Arc::<Bell>::default();
        let waker = Waker::from(Arc::clone(&bell));
        let connection = Box::pin(connection.with_upgrades());
        Ok(Self { bell, waker, sender, connection, ended: false })
    }

    /// Moves whatever can be moved. Ready when the connection has ended.
    pub fn drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.bell.0.register(cx.waker());
        self.advance()
    }

    fn advance(&mut self) -> Poll<()> {
        if !self.ended {
            let mut cx = Context::from_waker(&self.waker);
            // Whom it concerns is told by the channels.
            let _told = ready!(self.connection.as_mut().poll(&mut cx));
            self.ended = true;
        }
        Poll::Ready(())
    }

    /// Wakes nobody until it is driven again.
    pub fn hush(&self) {
        self.bell.0.take();
    }

    /// Whether another request may be sent: the last one and its answer have ended, and all that
    /// is left of the answer stands in its body.
    pub fn is_free(&self) -> bool {
        !self.ended && self.sender.is_ready()
    }

    /// Whether one that nobody had is still good: what came in meanwhile is its end, or nothing
    /// that belongs to a request.
    pub fn is_good(&mut self) -> bool {
        self.advance().is_pending() && self.is_free()
    }

    /// Sends a request and returns the head of its answer. Its body comes as the wire is driven.
    ///
    /// # Errors
    /// With the request, if nothing of it was sent.
    pub async fn ask(
        &mut self,
        request: Request<Inbound>,
    ) -> Result<Response<Incoming>, Option<TrySendError<Request<Inbound>>>> {
        let mut answer = pin!(self.sender.try_send_request(request));
        std::future::poll_fn(|cx| {
            let ended = self.drive(cx).is_ready();
            match answer.as_mut().poll(&mut idly()) {
                Poll::Ready(answer) => Poll::Ready(answer.map_err(Some)),
                // (It says so to whoever asked, before it ends.)
                Poll::Pending if ended => Poll::Ready(Err(None)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}

/// For what is asked again anyway.
pub(super) fn idly() -> Context<'static> {
    Context::from_waker(Waker::noop())
}
