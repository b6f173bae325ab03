//! The accept loop's bounds: connections at a time, slow heads, large heads, and a shutdown that
//! ends.

mod line;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::http::Request;
use axum::response::Response;
use axum_server::Handle;
use hyper::body::Incoming;
use hyper_util::rt::TokioTimer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, PollSemaphore};
use tower::Service;

use super::config::Config;
use crate::metrics::Metrics;
use line::Cutting;

/// hyper panics on smaller buffers.
const HEAD_MIN: u64 = 8 * 1024;

/// Serves `service` until `shutdown`; then lets running requests end within `shutdown_deadline`, or
/// sooner: who takes nothing of an answer for `stalled_max` is cut off then.
pub async fn serve<S>(
    listener: TcpListener,
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
    listener.set_nonblocking(true)?;
    let handle = Handle::new();
    let slots = Arc::new(Semaphore::new(config.max_connections));
    let server = axum_server::from_tcp(listener)?.handle(handle.clone());
    let cutting = Cutting { shutdown: shutdown.clone(), stalled_max };
    let mut server = server.acceptor(cutting).http1_only();
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

/// Lets connections in, as many at a time as there are slots. While there is none the accept
/// loop stands still, and the kernel's backlog holds who comes.
struct Door<S> {
    service: S,
    slots: PollSemaphore,
    slot: Option<OwnedSemaphorePermit>,
    waiting: bool,
    metrics: Arc<Metrics>,
}

impl<S> Door<S> {
    fn new(service: S, slots: Arc<Semaphore>, metrics: Arc<Metrics>) -> Self {
        Self { service, slots: PollSemaphore::new(slots), slot: None, waiting: false, metrics }
    }
}

impl<S: Clone> Service<SocketAddr> for Door<S> {
    type Response = Connection<S>;
    type Error = io::Error;
    type Future = Ready<Result<Connection<S>, io::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        if self.slot.is_none() {
            let Poll::Ready(slot) = self.slots.poll_acquire(cx) else {
                if !self.waiting {
                    self.waiting = true;
                    self.metrics.http.connections_full.inc();
                }
                return Poll::Pending;
            };
            self.slot = slot;
        }
        self.waiting = false;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, peer: SocketAddr) -> Self::Future {
        // No slot after being ready: the gateway is shutting down.
        let Some(permit) = self.slot.take() else {
            return ready(Err(io::ErrorKind::ConnectionRefused.into()));
        };
        let slot = Arc::new(Slot::new(permit, Arc::clone(&self.metrics)));
        ready(Ok(Connection { service: self.service.clone(), peer, _slot: slot }))
    }
}

/// The place that a connection takes for as long as it lives.
struct Slot {
    _permit: OwnedSemaphorePermit,
    metrics: Arc<Metrics>,
}

impl Slot {
    fn new(permit: OwnedSemaphorePermit, metrics: Arc<Metrics>) -> Self {
        metrics.http.connections.inc();
        Self { _permit: permit, metrics }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.metrics.http.connections.dec();
    }
}

/// One connection's service: what is served, told who is at the other end.
#[derive(Clone)]
struct Connection<S> {
    service: S,
    peer: SocketAddr,
    _slot: Arc<Slot>,
}

impl<S> Service<Request<Incoming>> for Connection<S>
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(ConnectInfo(self.peer));
        self.service.call(request)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use axum::Router;

    use super::*;
    use crate::model::units::Span;

    struct Running {
        address: SocketAddr,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
        task: tokio::task::JoinSet<io::Result<()>>,
    }

    fn start(config: Config) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (metrics, shutdown) = (Arc::new(Metrics::new()), CancellationToken::new());
        let whoami = |ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() };
        let router = Router::new().route("/", axum::routing::get(whoami));
        let (counted, stop) = (Arc::clone(&metrics), shutdown.clone());
        let mut task = tokio::task::JoinSet::new();
        task.spawn(async move {
            let stalled_max = config.shutdown_deadline.0;
            serve(listener, router, &config, stalled_max, counted, stop).await
        });
        Running { address, metrics, shutdown, task }
    }

    /// Sends bytes and reads until the other side closes.
    async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
        use std::io::{Read, Write};
        let bytes = bytes.to_vec();
        let talk = move || {
            let mut stream = TcpStream::connect(address).expect("a connection");
            stream.write_all(&bytes).expect("sent");
            let mut answer = Vec::new();
            // A reset after the answer is as good an end as any.
            let end = stream.read_to_end(&mut answer);
            drop(end);
            String::from_utf8_lossy(&answer).into_owned()
        };
        tokio::task::spawn_blocking(talk).await.expect("no panic")
    }

    const CLOSE: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

    #[tokio::test]
    async fn the_peer_is_known_and_shutdown_ends() {
        let mut running = start(Config::default());
        let answer = exchange(running.address, CLOSE).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("127.0.0.1:"), "{answer}");
        running.shutdown.cancel();
        let ended = running.task.join_next().await.expect("a task").expect("no panic");
        assert!(ended.is_ok(), "{ended:?}");
        assert!(TcpStream::connect(running.address).is_err());
    }

    #[tokio::test]
    async fn a_slow_head_is_cut_off() {
        let timeout = Span::millis(50);
        let running = start(Config { header_read_timeout: timeout, ..Config::default() });
        let answer = exchange(running.address, b"GET / HTTP/1.1\r\nHost:").await;
        assert!(!answer.contains("200"), "{answer}");
    }

    #[tokio::test]
    async fn large_heads_and_contradicting_lengths_are_refused() {
        let running = start(Config::default());
        let huge = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(64 << 10));
        let answer = exchange(running.address, huge.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431") || answer.is_empty(), "{answer}");
        let lengths =
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab";
        let answer = exchange(running.address, lengths).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }

    #[tokio::test]
    async fn a_full_house_waits_and_shutdown_ends_it() {
        let config = Config {
            max_connections: 1,
            shutdown_deadline: Span::millis(100),
            ..Config::default()
        };
        let mut running = start(config);
        let first = TcpStream::connect(running.address).expect("a connection");
        while running.metrics.http.connections.get() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let second = TcpStream::connect(running.address).expect("the backlog takes it");
        while running.metrics.http.connections_full.get() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(first);
        while running.metrics.http.connections.get() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(second);
        let third = TcpStream::connect(running.address).expect("a connection");
        running.shutdown.cancel();
        let ended = running.task.join_next().await.expect("a task").expect("no panic");
        assert!(ended.is_ok(), "{ended:?}");
        drop(third);
    }
}
