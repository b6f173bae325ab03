//! The first bytes of a connection. Which version of HTTP it speaks is read off them before any
//! deadline of hyper's runs; so they have one here. HTTP/2 is refused.
//!
//! (hyper can be told to speak HTTP/1 alone, but axum-server then knows no upgrades.)

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// What HTTP/2 begins with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// See the module.
pub(super) struct Opening<I> {
    io: I,
    /// Until it is known that this is not HTTP/2.
    undecided: Option<Undecided>,
}

struct Undecided {
    /// How much of the preface has come.
    matched: usize,
    alarm: Pin<Box<Sleep>>,
}

impl<I> Opening<I> {
    /// Of a new connection.
    pub fn new(io: I, within: Duration) -> Self {
        let alarm = Box::pin(tokio::time::sleep(within));
        Self { io, undecided: Some(Undecided { matched: 0, alarm }) }
    }
}

impl Undecided {
    /// Whether these bytes go on like the preface; an error when they complete it.
    fn goes_on(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let rest = &PREFACE[self.matched..];
        let length = bytes.len().min(rest.len());
        if bytes[..length] != rest[..length] {
            return Ok(false);
        }
        self.matched += length;
        if self.matched == PREFACE.len() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "HTTP/2 is not spoken"));
        }
        Ok(true)
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Opening<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.io).poll_read(cx, buffer);
        let Some(undecided) = &mut this.undecided else { return read };
        if read.is_pending() {
            ready!(undecided.alarm.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let come = &buffer.filled()[before..];
        // An end is as good as another byte.
        if come.is_empty() || !undecided.goes_on(come)? {
            this.undecided = None;
        }
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Opening<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
