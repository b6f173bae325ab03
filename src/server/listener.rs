//! The accept loop's bounds: connections at a time, slow heads, large heads, and a shutdown that
//! ends.

mod connection;
mod door;
mod entrance;
mod line;
mod opening;
mod stream;

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Request;
use axum::response::Response;
use axum_server::Handle;
use hyper::body::Incoming;
use hyper_util::rt::TokioTimer;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::certificates::Certificates;
use super::config::Config;
use crate::metrics::Metrics;
use door::Door;
use entrance::Entrance;
use line::Cutting;

/// hyper panics on smaller buffers.
const HEAD_MIN: u64 = 8 * 1024;

/// Serves `service` until `shutdown`; then lets running requests end within `shutdown_deadline`, or
/// sooner: who takes nothing of an answer for `stalled_max` is cut off then. With `certificates` it
/// speaks TLS alone.
pub async fn serve<S>(
    listener: TcpListener,
    service: S,
    config: &Config,
    certificates: Option<Certificates>,
    stalled_max: Duration,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> io::Result<()>
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    listener.set_nonblocking(true)?;
    let handle = Handle::new();
    let slots = Arc::new(Semaphore::new(config.max_connections));
    let server = axum_server::from_tcp(listener)?.handle(handle.clone());
    let cutting = Cutting { shutdown: shutdown.clone(), stalled_max };
    let open_within = config.header_read_timeout.0;
    let entrance = Entrance { cutting, certificates, open_within, metrics: Arc::clone(&metrics) };
    let mut server = server.acceptor(entrance);
    let head_max = config.head_max.0.max(HEAD_MIN);
    // hyper runs its timeouts only where it is given a timer. It takes at most 100 headers by
    // itself.
    server
        .http_builder()
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_read_timeout.0)
        .max_buf_size(usize::try_from(head_max).unwrap_or(usize::MAX));

    let door = Door::new(service, Arc::clone(&slots), metrics);
    let mut running = std::pin::pin!(server.serve(door));
    tokio::select! {
        ended = &mut running => return ended,
        () = shutdown.cancelled() => {}
    }
    // Wakes an accept loop that waits for a slot, so that it sees the shutdown.
    slots.close();
    handle.graceful_shutdown(Some(config.shutdown_deadline.0));
    running.await
}

#[cfg(test)]
mod tests;
