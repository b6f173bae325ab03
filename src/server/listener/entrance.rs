//! From an accepted socket to a stream that HTTP can be read from: the handshake, where there is
//! one, and what watches over all that follows.

use std::future::ready;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use axum_server::accept::Accept;
use axum_server::tls_rustls::RustlsAcceptor;
use tokio::net::TcpStream;

use super::connection::Connection;
use super::line::Cutting;
use super::slot::Slot;
use super::stream::Stream;
use super::watch::{Patience, Watch};
use crate::metrics::Metrics;
use crate::server::certificates::Certificates;

/// What every accepted socket goes through.
#[derive(Clone)]
pub(super) struct Entrance {
    pub cutting: Cutting,
    /// None: plain HTTP.
    pub certificates: Option<Certificates>,
    pub patience: Patience,
    /// The largest head, in bytes.
    pub head_max: usize,
    pub metrics: Arc<Metrics>,
}

impl Entrance {
    /// The protocol is agreed on in the handshake, so that it does not change with what comes in.
    fn watched(&self, stream: Stream, slot: &Arc<Slot>) -> Watch {
        if stream.speaks_http2() {
            slot.metrics().http.connections_http2.inc();
        }
        Watch::new(stream, Arc::clone(slot), self.patience, self.head_max)
    }
}

impl<S: Send + 'static> Accept<TcpStream, Connection<S>> for Entrance {
    type Stream = Watch;
    type Service = Connection<S>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, socket: TcpStream, connection: Connection<S>) -> Self::Future {
        let Some(certificates) = &self.certificates else {
            let plain = self
                .cutting
                .line(socket)
                .map(|line| (self.watched(Stream::Plain(line), connection.slot()), connection));
            return Box::pin(ready(plain));
        };
        let acceptor = RustlsAcceptor::new(certificates.current())
            .handshake_timeout(certificates.handshake_timeout())
            .acceptor(self.cutting.clone());
        let shaken = acceptor.accept(socket, connection);
        let entrance = self.clone();
        Box::pin(async move {
            // Who has not come in by the shutdown is not waited for.
            let aborted = || Err(io::ErrorKind::ConnectionAborted.into());
            let shutdown = &entrance.cutting.shutdown;
            let shaken = shutdown.run_until_cancelled(shaken).await.unwrap_or_else(aborted);
            let (stream, connection) = shaken.inspect_err(|error| {
                entrance.metrics.http.handshakes_failed.inc();
                tracing::debug!(%error, "no handshake");
            })?;
            let stream = Stream::Tls(Box::new(stream));
            Ok((entrance.watched(stream, connection.slot()), connection.secure()))
        })
    }
}
