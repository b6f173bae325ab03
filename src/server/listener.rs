//! The data plane's door: how many may come in, how they speak, how long they may take, and a
//! shutdown that ends.
//!
//! HTTP/2 is spoken where the handshake has agreed on it, and nowhere else: without TLS, and with a
//! client that did not ask for it, a connection speaks HTTP/1 to its end, and every byte of that is
//! followed ([`framing`]).

mod answers;
mod arrivals;
mod connection;
mod door;
mod entrance;
mod farewell;
mod framing;
mod guests;
mod held;
mod line;
mod slot;
mod stream;
mod watch;

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Request;
use axum::response::Response;
use axum_server::{Handle, Server};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use super::certificates::Certificates;
use super::config::Config;
use super::workers::Worker;
use crate::metrics::Metrics;
use arrivals::{Caller, Reception, arrivals};
use connection::Bounds;
pub use connection::Overloaded;
use door::Door;
use entrance::Entrance;
use line::Cutting;
use watch::Patience;

/// hyper panics on smaller buffers.
const HEAD_MIN: usize = 8 * 1024;

/// How long the last connections may take to go when the deadline of the shutdown has cut them.
const MOMENT: Duration = Duration::from_secs(1);

/// Where connections come in, and who serves them.
pub struct Entry {
    /// On this socket.
    pub listener: TcpListener,
    /// With these it speaks TLS alone.
    pub certificates: Option<Certificates>,
    /// By these.
    pub workers: Vec<Worker>,
}

/// Serves `service` until `shutdown`; then lets running requests end within `shutdown_deadline`, or
/// sooner: who takes nothing of an answer for `stalled_max` is cut off then.
///
/// # Errors
/// When the socket cannot be used.
pub async fn serve<S>(
    entry: Entry,
    service: S,
    config: &Config,
    stalled_max: Duration,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> io::Result<()>
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    let Entry { listener, certificates, workers } = entry;
    let door = Door::new(listener, config, Arc::clone(&metrics))?;
    let send_timeout = config.send_timeout.0;
    let patience = Patience {
        head: config.header_read_timeout.0,
        idle: config.idle_timeout.0,
        // Until the answer begins, and the answer.
        request: config.request_timeout.0 * 2,
        answer: config.request_timeout.0,
        send: send_timeout,
    };
    let cutting = Cutting { shutdown: shutdown.clone(), send_timeout, stalled_max };
    let head_max = config.head_max.bytes();
    let entrance = Entrance { cutting, certificates, patience, head_max, metrics };
    let bounds = Bounds { requests_max: config.max_requests, answer: config.request_timeout.0 };

    let (handle, serving) = (Handle::new(), TaskTracker::new());
    let start = |worker: &Worker| {
        let (inbox, arrivals) = arrivals();
        let server = Server::<Caller>::from_listener(arrivals).handle(handle.clone());
        let mut server = server.acceptor(entrance.clone());
        bound(server.http_builder(), config);
        let reception = Reception { service: service.clone(), bounds };
        serving.spawn_on(server.serve(reception), worker.runtime());
        inbox
    };
    let workers: Vec<_> = workers.iter().map(|worker| (worker.clone(), start(worker))).collect();
    let welcome = async {
        loop {
            let (socket, caller, inbox) = door.next(&workers).await?;
            if inbox.send((socket, caller)).is_err() {
                return Err(io::Error::other("a worker has ended"));
            }
        }
    };
    let ended = shutdown.run_until_cancelled(welcome).await;
    let slots = door.close();
    let deadline = config.shutdown_deadline.0;
    handle.graceful_shutdown(Some(deadline));
    serving.close();
    // What the deadline cuts is dropped, and with that counted, by its worker a moment later.
    let everybody = u32::try_from(config.max_connections).unwrap_or(u32::MAX);
    let gone = async { (serving.wait().await, slots.acquire_many(everybody).await) };
    // The servers keep the deadline, but by timers of their workers.
    if timeout(deadline + MOMENT, gone).await.is_err() {
        tracing::warn!("connections do not end, nor by force: nobody waits for them any more");
    }
    ended.unwrap_or(Ok(()))
}

/// Sets the bounds that hyper keeps. Its deadlines for heads are [`watch`]'s.
fn bound(builder: &mut Builder<TokioExecutor>, config: &Config) {
    let head_max = config.head_max.bytes();
    builder
        .http1()
        .header_read_timeout(None)
        .max_headers(config.headers_max)
        .max_buf_size(head_max.max(HEAD_MIN));
    let http2 = &config.http2;
    let narrow = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(narrow(head_max))
        .max_concurrent_streams(http2.max_streams)
        .max_pending_accept_reset_streams(http2.max_pending_resets)
        .max_local_error_reset_streams(http2.max_error_resets)
        .initial_stream_window_size(narrow(http2.stream_window.bytes()))
        .initial_connection_window_size(narrow(http2.connection_window.bytes()))
        .max_send_buf_size(http2.send_buffer.bytes())
        .keep_alive_interval(http2.ping_interval.0)
        .keep_alive_timeout(http2.ping_timeout.0);
}

#[cfg(test)]
mod tests;
