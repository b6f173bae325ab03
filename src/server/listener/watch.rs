//! What comes in over a connection: it is followed as far as HTTP/1 goes, and it may not take
//! forever.
//!
//! A head that is wrong is answered: in the place of the byte that shows it the parser gets one
//! that it refuses itself, so that 400 goes out behind the answers that are due before it
//! ([`farewell`]), and the connection is closed. A body that is wrong breaks there, and the
//! connection ends with its answer.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::farewell;
use super::framing::{Fault, Framing, Switch};
use super::slot::Slot;
use super::stream::Stream;
use crate::metrics::OffenceLabel;

/// No parser takes the first byte where it can be put. The rest looks like the end of a head, which
/// the parser waits for.
const POISON: &[u8] = b"\0\r\n\r\n";

/// As much as is read at a time of what nobody wants.
const LINGER_ROOM: usize = 8 * 1024;

/// How long a connection may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For a head, from its first byte on; for the first one from the beginning.
    pub head: Duration,
    /// Without any request.
    pub idle: Duration,
    /// With requests of which none begins and none ends.
    pub request: Duration,
    /// For an answer in HTTP/2, from its head on.
    pub answer: Duration,
    /// For a client to take something of it.
    pub send: Duration,
}

/// See the module.
pub(super) struct Watch {
    stream: Stream,
    framing: Framing,
    slot: Arc<Slot>,
    patience: Patience,
    /// When the head that is being read began.
    head_since: Option<Instant>,
    /// Goes off at the next moment at which anything could be overdue, or sooner.
    alarm: Pin<Box<Sleep>>,
    /// Whether the next read only tells that HTTP/1 is spoken. hyper-util would take up to 24 bytes
    /// to see that, and hand them to the parser as a read of its own, for which its buffer grows
    /// from 8 to 16 KiB and stays so; a read of nothing tells it at once.
    tells: bool,
    /// What came behind a request for another protocol, until that is answered.
    early: Vec<u8>,
    /// What is told instead of anything more that comes in.
    instead: Option<Instead>,
    /// What is left to be said in the place of the parser's own answer.
    farewell: Vec<u8>,
    /// Whether all is said.
    shut: bool,
}

impl Watch {
    pub fn new(stream: Stream, slot: Arc<Slot>, patience: Patience, head_max: usize) -> Self {
        let http2 = stream.speaks_http2();
        let opened = slot.opened();
        let alarm = Box::pin(sleep_until(opened + patience.head));
        let head_since = Some(opened);
        Self {
            stream,
            framing: if http2 { Framing::http2() } else { Framing::new(head_max) },
            slot,
            patience,
            head_since,
            alarm,
            tells: !http2,
            early: Vec::new(),
            instead: None,
            farewell: Vec::new(),
            shut: false,
        }
    }

    /// What comes next, as far as it may be read already.
    fn next(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        loop {
            if self.early.is_empty() {
                ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
            } else {
                self.slot.wait(cx);
                if self.slot.switch() == Switch::Open {
                    return Poll::Pending;
                }
                let length = self.early.len().min(buffer.remaining());
                buffer.put_slice(&self.early[..length]);
                self.early.drain(..length);
            }
            let ended = buffer.filled().len() == before;
            self.follow(buffer, before)?;
            if ended || buffer.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Follows what was read behind `before`. Nothing is left of it where all has to wait.
    fn follow(&mut self, buffer: &mut ReadBuf<'_>, before: usize) -> io::Result<()> {
        let fresh = &buffer.filled()[before..];
        let slot = &self.slot;
        let followed = self.framing.follow(fresh, || slot.take_switch());
        if let Ok(taken) = followed
            && taken < fresh.len()
        {
            drop(self.early.splice(0..0, fresh[taken..].iter().copied()));
            buffer.set_filled(before + taken);
        }
        if let Err((at, fault)) = followed {
            let label = OffenceLabel { offence: fault.as_str() };
            slot.metrics().http.offences.get_or_create(&label).inc();
            buffer.set_filled(before + at);
            if self.framing.at_head() {
                self.instead = Some(Instead::Poison(fault, put(POISON, buffer)));
            } else if at > 0 {
                self.instead = Some(Instead::Fault);
            } else {
                return self.break_off();
            }
            return Ok(());
        }
        if !self.framing.in_head() {
            self.head_since = None;
        } else if self.head_since.is_none() {
            let now = Instant::now();
            self.head_since = Some(now);
            self.alarm.as_mut().reset(now + self.patience.head);
        }
        Ok(())
    }

    /// Whether `bytes` are the parser's own, which something better is said in the place of.
    fn parts(&mut self, bytes: &[u8]) -> bool {
        if !self.slot.is_quiet() || !self.framing.speaks_http1() {
            return false;
        }
        let fault = match self.instead {
            Some(Instead::Poison(fault, _)) => Some(fault),
            _ => None,
        };
        let Some((said, word)) = farewell::instead_of(bytes, fault) else { return false };
        if let Some(offence) = word {
            self.slot.metrics().http.offences.get_or_create(&OffenceLabel { offence }).inc();
        }
        self.farewell = said;
        true
    }

    /// Says it, and then that all of the parser's `length` bytes were written.
    fn say_farewell(&mut self, cx: &mut Context<'_>, length: usize) -> Poll<io::Result<usize>> {
        while !self.farewell.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.farewell))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.farewell.drain(..written);
        }
        Poll::Ready(Ok(length))
    }

    /// Reads what is left of a body that nobody wants, for as long as a head may take, and drops
    /// it. Were it closed before, the rest would be refused, and the client's system would throw
    /// away the answer that it has not read yet.
    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut room = [MaybeUninit::uninit(); LINGER_ROOM];
        while self.framing.in_body()
            && self.instead.is_none()
            && self.alarm.as_mut().poll(cx).is_pending()
        {
            let mut buffer = ReadBuf::uninit(&mut room);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            let fresh = buffer.filled();
            if read.is_err()
                || fresh.is_empty()
                || self.framing.follow(fresh, || Switch::Open).is_err()
            {
                break;
            }
        }
        Poll::Ready(())
    }

    fn break_off(&mut self) -> io::Result<()> {
        self.instead = Some(Instead::Nothing);
        Err(io::ErrorKind::InvalidData.into())
    }

    /// When what is waited for now is overdue; `None`: never.
    fn due(&self) -> Option<Instant> {
        if self.framing.is_tunnel() || self.slot.switch() == Switch::Granted {
            return None;
        }
        let Patience { head, idle, request, answer, send } = self.patience;
        if let Some(since) = self.head_since {
            return Some(since + head);
        }
        let (running, since) = self.slot.standing();
        let due = since + if running { request } else { idle };
        Some(self.slot.answers().due(send, answer).map_or(due, |first| first.min(due)))
    }

    /// When to look again: an answer that begins meanwhile may be due before all that is known.
    fn look_at(&self, due: Instant, now: Instant) -> Instant {
        if self.framing.speaks_http1() { due } else { due.min(now + self.patience.send) }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.slot.is_cut() {
            self.stream.reset();
        }
    }
}

/// See [`Watch::instead`].
#[derive(Clone, Copy)]
enum Instead {
    /// What the parser refuses for that fault, and then the end.
    Poison(Fault, &'static [u8]),
    /// That it broke.
    Fault,
    /// Not even the end, behind which nobody would wait for the answer.
    Nothing,
}

/// Puts as much as there is room for, and returns the rest.
fn put(bytes: &'static [u8], buffer: &mut ReadBuf<'_>) -> &'static [u8] {
    let (now, later) = bytes.split_at(bytes.len().min(buffer.remaining()));
    buffer.put_slice(now);
    later
}

impl AsyncRead for Watch {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.tells) {
            return Poll::Ready(Ok(()));
        }
        match self.instead {
            Some(Instead::Poison(fault, rest)) => {
                self.instead = Some(Instead::Poison(fault, put(rest, buffer)));
                return Poll::Ready(Ok(()));
            }
            Some(Instead::Fault) => return Poll::Ready(self.break_off()),
            Some(Instead::Nothing) => {}
            None => {
                if let Poll::Ready(read) = self.next(cx, buffer) {
                    return Poll::Ready(read);
                }
            }
        }
        loop {
            ready!(self.alarm.as_mut().poll(cx));
            let Some(due) = self.due() else { return Poll::Pending };
            let now = Instant::now();
            if due <= now {
                self.slot.metrics().http.connections_overdue.inc();
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            let next = self.look_at(due, now);
            self.alarm.as_mut().reset(next);
        }
    }
}

impl AsyncWrite for Watch {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.farewell.is_empty() || self.parts(bytes) {
            return self.say_farewell(cx, bytes.len());
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // The parser's own words come in one piece.
        if let [only] = parts
            && (!self.farewell.is_empty() || self.parts(only))
        {
            return self.say_farewell(cx, only.len());
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_ready() {
            self.slot.written();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.shut = true;
            let due = Instant::now() + self.patience.head;
            self.alarm.as_mut().reset(due);
        }
        self.linger(cx).map(Ok)
    }
}
