//! Tunnels: what a WebSocket or another upgraded connection becomes. Bytes are counted in the
//! request's record as they go by, which ends with the tunnel.
//!
//! A tunnel is bounded by its number, in all and from one address, by how long nothing may go
//! through it, and by the life of the gateway. However it ends, the request has had its answer, and
//! counts as what that was.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use axum::response::Response;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::sync::OwnedSemaphorePermit;

use super::body::Busy;
use super::error::ProxyError;
use super::{Proxy, Running, Share, headers};
use crate::usage::OpenRecord;

const UPGRADE_ONLY: HeaderValue = HeaderValue::from_static("upgrade");

/// A request that would become a tunnel, and its place among those that may.
pub(super) struct Upgrade {
    client: OnUpgrade,
    protocols: HeaderValue,
    place: Place,
}

/// One of the tunnels that there may be, and of those that its address may have.
struct Place {
    _among_all: OwnedSemaphorePermit,
    _of_its_address: Option<Share>,
}

impl Upgrade {
    /// Asks the upstream for what the client asked for. (What it said itself ended here.)
    pub(super) fn ask_in(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, UPGRADE_ONLY);
        headers.insert(UPGRADE, self.protocols.clone());
    }

    /// Whether an answer agrees to what was asked for, and to nothing else.
    pub(super) fn covers(&self, answer: &HeaderMap) -> bool {
        let mut agreed = answer.get_all(UPGRADE).iter().flat_map(headers::tokens);
        agreed.all(|protocol| {
            headers::tokens(&self.protocols).any(|asked| asked.eq_ignore_ascii_case(protocol))
        })
    }
}

impl Proxy {
    /// What a request wants to become, if anything. Where no tunnel can be had any more it is
    /// forwarded as if it had not asked (RFC 9110 §7.8); a WebSocket's client has no use for such
    /// an answer, and is told to come again.
    pub(super) fn upgrade(
        &self,
        request: &mut Request,
        party: Option<IpAddr>,
    ) -> Result<Option<Upgrade>, ProxyError> {
        let Some(protocols) = headers::upgrade(request.version(), request.headers()) else {
            return Ok(None);
        };
        match self.place(party) {
            Some(place) => {
                Ok(Some(Upgrade { client: hyper::upgrade::on(request), protocols, place }))
            }
            None if headers::tokens(&protocols).any(is_websocket) => Err(ProxyError::TunnelsFull),
            None => Ok(None),
        }
    }

    fn place(&self, party: Option<IpAddr>) -> Option<Place> {
        let of_its_address = match party.map(|ip| self.shares.take(ip)) {
            Some(None) => {
                self.metrics.upstream.tunnels_refused.inc();
                return None;
            }
            taken => taken.flatten(),
        };
        let Ok(among_all) = Arc::clone(&self.tunnels).try_acquire_owned() else {
            self.metrics.upstream.tunnels_full.inc();
            return None;
        };
        Some(Place { _among_all: among_all, _of_its_address: of_its_address })
    }

    /// The upstream has agreed: passes that on, and then everything else.
    pub(super) fn tunnel(
        &self,
        upgrade: Upgrade,
        mut answer: Response,
        record: Arc<OpenRecord>,
        busy: Busy,
    ) -> Response {
        let upstream = hyper::upgrade::on(&mut answer);
        let agreed = answer.headers().get(UPGRADE).cloned();
        headers::clean_answer(answer.headers_mut());
        answer.headers_mut().insert(CONNECTION, UPGRADE_ONLY);
        answer.headers_mut().insert(UPGRADE, agreed.unwrap_or(upgrade.protocols));

        let (idle, stopping) = (self.tunnel_idle, self.stopping.clone());
        let (client, metrics) = (upgrade.client, Arc::clone(&self.metrics));
        let (place, open) = (upgrade.place, Running::start(&self.metrics.upstream.tunnels));
        self.tasks.spawn(async move {
            let _held = (place, open, busy);
            let both = async { tokio::try_join!(client, upstream) };
            let Some(Ok((client, upstream))) = stopping.run_until_cancelled(both).await else {
                return;
            };
            let moved = || record.tally().bytes_in() + record.tally().bytes_out();
            let mut client = TokioIo::new(client);
            let mut upstream = Counted { io: TokioIo::new(upstream), record: &record };
            let mut copying = std::pin::pin!(copy_bidirectional(&mut client, &mut upstream));
            loop {
                let before = moved();
                tokio::select! {
                    ended = &mut copying => {
                        tracing::debug!(?ended, "a tunnel has ended");
                        return;
                    }
                    () = stopping.cancelled() => return,
                    () = tokio::time::sleep(idle) => {
                        if moved() == before {
                            metrics.upstream.tunnels_idle.inc();
                            return;
                        }
                    }
                }
            }
        });
        answer.map(|_| Body::empty())
    }
}

fn is_websocket(protocol: &str) -> bool {
    protocol.split('/').next().is_some_and(|name| name.eq_ignore_ascii_case("websocket"))
}

/// The upstream's end of a tunnel: what is read there goes out, what is written there came in.
struct Counted<'r> {
    io: TokioIo<Upgraded>,
    record: &'r OpenRecord,
}

impl AsyncRead for Counted<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        self.record.tally().add_out((buffer.filled().len() - before) as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        self.record.tally().add_in(written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
