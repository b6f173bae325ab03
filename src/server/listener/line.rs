//! One connection's bytes. A caller who has stopped reading is cut off, and from the shutdown on
//! sooner: its answer would end with the deadline alone.

use std::future::{Ready, ready};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum_server::accept::Accept;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// Makes a [`Line`] of every connection.
#[derive(Clone)]
pub(super) struct Cutting {
    pub shutdown: CancellationToken,
    /// How long a caller may take nothing of what is sent.
    pub send_timeout: Duration,
    /// How long it may take nothing once the shutdown has begun.
    pub stalled_max: Duration,
}

impl Cutting {
    /// The line of a new connection.
    pub fn line(&self, stream: TcpStream) -> io::Result<Line> {
        stream.set_nodelay(true)?;
        Ok(Line { stream, cutting: self.clone(), cut: None })
    }
}

impl<S> Accept<TcpStream, S> for Cutting {
    type Stream = Line;
    type Service = S;
    type Future = Ready<io::Result<(Line, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        ready(self.line(stream).map(|line| (line, service)))
    }
}

/// See the module.
pub(super) struct Line {
    stream: TcpStream,
    cutting: Cutting,
    /// Ends when a caller that takes nothing has been waited for long enough.
    cut: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Line {
    /// Has it end with a reset, so that nobody takes its end for that of an answer.
    pub fn reset(&self) {
        if let Err(error) = self.stream.set_zero_linger() {
            tracing::debug!(%error, "a connection cannot be reset");
        }
    }

    /// What a write to the stream answers, unless the caller stalls for too long.
    fn unless_stalled<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.cut = None;
            return written;
        }
        let cutting = &self.cutting;
        let cut = self.cut.get_or_insert_with(|| {
            let Cutting { shutdown, send_timeout, stalled_max } = cutting.clone();
            Box::pin(async move {
                let stalled = async {
                    shutdown.cancelled().await;
                    tokio::time::sleep(stalled_max).await;
                };
                drop(tokio::time::timeout(send_timeout, stalled).await);
            })
        });
        cut.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.unless_stalled(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.unless_stalled(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
