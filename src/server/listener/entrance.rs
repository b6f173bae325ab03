//! From an accepted socket to a stream that HTTP can be read from: the handshake, where there is
//! one.

use std::future::ready;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum_server::accept::Accept;
use axum_server::tls_rustls::RustlsAcceptor;
use tokio::net::TcpStream;

use super::connection::Connection;
use super::line::Cutting;
use super::opening::Opening;
use super::stream::Stream;
use crate::metrics::Metrics;
use crate::server::certificates::Certificates;

/// What every accepted socket goes through.
#[derive(Clone)]
pub(super) struct Entrance {
    pub cutting: Cutting,
    /// None: plain HTTP.
    pub certificates: Option<Certificates>,
    /// How long a connection may take to show what it speaks.
    pub open_within: Duration,
    pub metrics: Arc<Metrics>,
}

impl<S: Send + 'static> Accept<TcpStream, Connection<S>> for Entrance {
    type Stream = Opening<Stream>;
    type Service = Connection<S>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, socket: TcpStream, connection: Connection<S>) -> Self::Future {
        let Some(certificates) = &self.certificates else {
            let line = self.cutting.line(socket);
            let opening = line.map(|line| Opening::new(Stream::Plain(line), self.open_within));
            return Box::pin(ready(opening.map(|opening| (opening, connection))));
        };
        let acceptor = RustlsAcceptor::new(certificates.current())
            .handshake_timeout(certificates.handshake_timeout())
            .acceptor(self.cutting.clone());
        let shaken = acceptor.accept(socket, connection);
        let open_within = self.open_within;
        let (metrics, shutdown) = (Arc::clone(&self.metrics), self.cutting.shutdown.clone());
        Box::pin(async move {
            // Who has not come in by the shutdown is not waited for.
            let aborted = || Err(io::ErrorKind::ConnectionAborted.into());
            let shaken = shutdown.run_until_cancelled(shaken).await.unwrap_or_else(aborted);
            let (stream, connection) = shaken.inspect_err(|error| {
                metrics.http.handshakes_failed.inc();
                tracing::debug!(%error, "no handshake");
            })?;
            let opening = Opening::new(Stream::Tls(Box::new(stream)), open_within);
            Ok((opening, connection.secure()))
        })
    }
}
