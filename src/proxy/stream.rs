//! The bytes of a connection to a target.
//!
//! A target that wants no more of a body answers, closes, and has what still comes refused: the
//! next write fails, often before the answer was read, which is there all the same. So a write that
//! fails waits until the reader has come to the end.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// See the module.
pub(super) struct Stream<S> {
    inner: S,
    /// Whether nothing more will be read.
    ended: bool,
    /// Why nothing more can be sent.
    broken: Option<io::ErrorKind>,
    /// Who waits for the end to hear of that.
    writer: Option<Waker>,
}

impl<S> Stream<S> {
    /// One that is whole.
    pub fn new(inner: S) -> Self {
        Self { inner, ended: false, broken: None, writer: None }
    }

    fn ends(&mut self) {
        self.ended = true;
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    /// What becomes of a write: what `write` says, but a failure not before the end.
    fn written<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>>
    where
        S: Unpin,
    {
        let kind = match self.broken {
            Some(kind) => kind,
            None => match ready!(write(Pin::new(&mut self.inner), cx)) {
                Ok(done) => return Poll::Ready(Ok(done)),
                Err(error) => *self.broken.insert(error.kind()),
            },
        };
        if self.ended {
            return Poll::Ready(Err(kind.into()));
        }
        self.writer = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (buffer.filled().len(), buffer.remaining());
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, buffer));
        if read.is_err() || (buffer.filled().len() == before && room > 0) {
            self.ends();
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written(cx, |inner, cx| inner.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.written(cx, |inner, cx| inner.poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.written(cx, AsyncWrite::poll_flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.broken.is_some() {
            // There is nobody to say good-bye to.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn what_was_said_is_heard_after_a_write_that_failed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let ours = TcpStream::connect(address).await.expect("a connection");
        let (mut theirs, _) = listener.accept().await.expect("a connection");
        let mut stream = Stream::new(ours);
        stream.write_all(b"unread").await.expect("sent");
        theirs.readable().await.expect("it came");
        theirs.write_all(b"no more").await.expect("sent");
        drop(theirs);

        let mut stream = Pin::new(&mut stream);
        poll_fn(|cx| match stream.as_mut().poll_write(cx, b"more") {
            Poll::Ready(Ok(_)) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(Err(error)) => panic!("before the end: {error}"),
            Poll::Pending => Poll::Ready(()),
        })
        .await;
        let mut heard = Vec::new();
        drop(stream.read_to_end(&mut heard).await);
        assert_eq!(heard, b"no more");
        stream.write_all(b"more").await.expect_err("now it says so");
    }
}
