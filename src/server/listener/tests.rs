//! The bounds of the accept loop, on real sockets.

mod shutdown;
mod tls;

use std::net::{SocketAddr, TcpStream};

use axum::Router;
use axum::extract::ConnectInfo;

use super::*;
use crate::model::units::Span;
use crate::server::workers::Workers;

struct Running {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
    task: tokio::task::JoinSet<io::Result<()>>,
}

fn start(config: Config) -> Running {
    start_with(config, None)
}

fn start_with(config: Config, certificates: Option<Certificates>) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (metrics, shutdown) = (Arc::new(Metrics::new()), CancellationToken::new());
    let whoami = |ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() };
    let router = Router::new().route("/", axum::routing::get(whoami));
    let (counted, stop) = (Arc::clone(&metrics), shutdown.clone());
    let mut task = tokio::task::JoinSet::new();
    task.spawn(async move {
        let stalled_max = config.shutdown_deadline.0;
        let entry = Entry { listener, certificates, workers: vec![Worker::here()] };
        serve(entry, router, &config, stalled_max, counted, stop).await
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
    for start in ["", "P", "PRI * HTTP/2.0\r\n", "GET / HTTP/1.1\r\nHost:"] {
        let answer = exchange(running.address, start.as_bytes()).await;
        assert!(!answer.contains("200"), "{start:?}: {answer}");
    }
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let answer = exchange(running.address, preface).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "HTTP/2 is not spoken: {answer}");
}

#[tokio::test]
async fn large_heads_and_contradicting_lengths_are_refused() {
    let running = start(Config::default());
    let huge = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(64 << 10));
    let answer = exchange(running.address, huge.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431") || answer.is_empty(), "{answer}");
    let lengths = b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab";
    let answer = exchange(running.address, lengths).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[tokio::test]
async fn a_full_house_waits_and_shutdown_ends_it() {
    let config =
        Config { max_connections: 1, shutdown_deadline: Span::millis(100), ..Config::default() };
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

/// Asks on a connection that stays open, and hears which thread answers.
async fn asked(stream: &mut tokio::net::TcpStream) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"!") {
        let byte = stream.read_u8().await.expect("an answer");
        answer.push(byte);
    }
    let text = String::from_utf8(answer).expect("text");
    text.trim_end_matches('!').rsplit("\r\n").next().expect("a body").to_owned()
}

#[tokio::test]
async fn a_connection_goes_to_the_worker_with_the_fewest_and_stays_there() {
    let workers = Workers::start(2).expect("threads");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let thread = || async { format!("{}!", std::thread::current().name().unwrap_or_default()) };
    let router = Router::new().route("/", axum::routing::get(thread));
    let shutdown = CancellationToken::new();
    let (all, stop) = (workers.all(), shutdown.clone());
    let mut task = tokio::task::JoinSet::new();
    task.spawn(async move {
        let entry = Entry { listener, certificates: None, workers: all };
        let (config, metrics) = (Config::default(), Arc::new(Metrics::new()));
        serve(entry, router, &config, Duration::from_secs(1), metrics, stop).await
    });
    let connect = || async { tokio::net::TcpStream::connect(address).await.expect("connected") };
    let mut open = Vec::new();
    let mut threads = Vec::new();
    for _ in 0..4 {
        let mut stream = connect().await;
        threads.push(asked(&mut stream).await);
        open.push(stream);
    }
    assert_eq!(threads, ["worker-0", "worker-1", "worker-0", "worker-1"]);
    for (stream, thread) in open.iter_mut().zip(&threads) {
        assert_eq!(asked(stream).await, *thread);
    }
    // Both of the second leave: the next two are its own.
    open.remove(3);
    open.remove(1);
    let second = workers.all()[1].clone();
    while second.connections() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for _ in 0..2 {
        let mut stream = connect().await;
        assert_eq!(asked(&mut stream).await, "worker-1");
        open.push(stream);
    }
    shutdown.cancel();
    let ended = task.join_next().await.expect("a task").expect("no panic");
    assert!(ended.is_ok(), "{ended:?}");
}
