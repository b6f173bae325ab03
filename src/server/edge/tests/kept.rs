//! Connections to targets: which are kept for the next request, and which are not.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Counts its connections, and what came in bodies.
#[derive(Default)]
struct Target {
    opened: AtomicUsize,
    closed: AtomicUsize,
    body: AtomicUsize,
}

const SMALL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

impl Target {
    async fn start(tasks: &TaskTracker) -> (Arc<Self>, UpstreamConfig) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (target, theirs) = (Arc::<Self>::default(), tasks.clone());
        let ours = Arc::clone(&target);
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                target.opened.fetch_add(1, Ordering::SeqCst);
                let target = Arc::clone(&target);
                theirs.spawn(async move {
                    target.serve(stream).await;
                    target.closed.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        (ours, at(address))
    }

    /// Until the gateway closes.
    async fn serve(&self, mut stream: TcpStream) {
        while let Some(head) = next_head(&mut stream).await {
            if head.contains("/pieces") {
                let pieces =
                    ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", "2\r\ncd"]
                        .into_iter()
                        .chain(["\r\n0\r\n", "\r\n"]);
                for piece in pieces {
                    stream.write_all(piece.as_bytes()).await.expect("the gateway reads");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                continue;
            }
            if head.contains("/both") {
                let both = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\
                            Content-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n";
                stream.write_all(both.as_bytes()).await.expect("the gateway reads");
                continue;
            }
            stream.write_all(SMALL.as_bytes()).await.expect("the gateway reads");
            if head.contains("/last") {
                stream.shutdown().await.expect("half of it closes");
            }
            if head.contains("/early") {
                let mut body = [0; 10];
                stream.read_exact(&mut body).await.expect("the whole body");
                self.body.fetch_add(body.len(), Ordering::SeqCst);
            }
        }
    }

    /// Waits until so many are open.
    async fn until_open(&self, open: usize) {
        let opened = || self.opened.load(Ordering::SeqCst);
        while opened() - self.closed.load(Ordering::SeqCst) != open {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }
}

async fn next_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

fn before(upstream: UpstreamConfig) -> Gateway {
    Gateway::start(Config::default(), &[upstream], &[route("/{*rest}", "up")])
}

async fn ok(gateway: &Gateway, method: &str, path: &str) -> String {
    let answer = gateway.ask(method, path, &[("x-api-key", key(1).reveal())], "").await;
    assert_eq!(answer.status, StatusCode::OK, "{path}");
    String::from_utf8(answer.body).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_request_finds_the_connection_however_the_last_answer_came() {
    let tasks = TaskTracker::new();
    let (target, upstream) = Target::start(&tasks).await;
    let gateway = before(upstream);
    for _ in 0..3 {
        assert_eq!(ok(&gateway, "GET", "/small").await, "ok");
        assert_eq!(ok(&gateway, "GET", "/pieces").await, "abcd");
        assert_eq!(ok(&gateway, "POST", "/small").await, "ok");
    }
    assert_eq!(target.opened(), 1);
    let counted = gateway.counted().await;
    assert_eq!(counted[":read"][..4], [6, 6, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_has_ended_is_closed_and_no_request_meets_it() {
    let tasks = TaskTracker::new();
    let (target, upstream) = Target::start(&tasks).await;
    let gateway = before(upstream);
    for round in 1..4 {
        // Never repeated: it would have to be told that it failed.
        assert_eq!(ok(&gateway, "POST", "/last").await, "ok");
        assert_eq!(target.opened(), round);
        target.until_open(0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_nobody_asks_is_not_kept_for_ever() {
    let tasks = TaskTracker::new();
    let (target, upstream) = Target::start(&tasks).await;
    let gateway = before(UpstreamConfig { idle_timeout: Span::millis(100), ..upstream });
    assert_eq!(ok(&gateway, "GET", "/small").await, "ok");
    target.until_open(0).await;
    assert_eq!(ok(&gateway, "GET", "/small").await, "ok");
    assert_eq!(target.opened(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_are_kept_than_may_be() {
    let tasks = TaskTracker::new();
    let (target, upstream) = Target::start(&tasks).await;
    let gateway = before(UpstreamConfig { max_idle: 2, ..upstream });
    let all = (0..8).map(|_| ok(&gateway, "GET", "/pieces"));
    futures_util::future::join_all(all).await;
    assert!(target.opened() > 2, "several at a time");
    target.until_open(2).await;
    let opened = target.opened();
    assert_eq!(ok(&gateway, "GET", "/small").await, "ok");
    assert_eq!(target.opened(), opened, "one of them was taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_goes_on_when_its_answer_has_ended() {
    let tasks = TaskTracker::new();
    let (target, upstream) = Target::start(&tasks).await;
    let gateway = before(upstream);
    let mut client =
        gateway.connect(head(1, "POST /early", "Content-Length: 10\r\n") + "abcde").await;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok") {
        answer.push(client.read_u8().await.expect("an answer"));
    }
    client.write_all(b"fghij").await.expect("the gateway reads on");
    while target.body.load(Ordering::SeqCst) < 10 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_whose_answer_ends_nobody_knows_where_is_closed() {
    let tasks = TaskTracker::new();
    let (target, upstream) = Target::start(&tasks).await;
    let gateway = before(upstream);
    for round in 1..4 {
        let answer = gateway.get("/both", &[("x-api-key", key(1).reveal())]).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (502, "upstream_garbled".into()));
        assert_eq!(target.opened(), round);
        target.until_open(0).await;
    }
}
