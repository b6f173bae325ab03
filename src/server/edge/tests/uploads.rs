//! Bodies of requests that their senders hold back, and that their upstreams do not want.

use super::upstreams::{does, read_head};
use super::*;
use crate::metrics::FaultLabel;

/// Reads a body to its end and says how long it was, also to who asks for the head alone.
fn measuring() -> Router {
    let measure = async |request: Request| {
        let coded = request.headers().contains_key("transfer-encoding");
        let whole = request.into_body().collect().await.map(|body| body.to_bytes().len());
        let length = whole.map_or_else(|_| "broken".to_owned(), |length| length.to_string());
        ([("x-coded", coded.to_string()), ("x-length", length.clone())], length)
    };
    Router::new().route("/up", any(measure))
}

/// One whose breaker opens with the first failure.
fn touchy(upstream: UpstreamConfig) -> UpstreamConfig {
    UpstreamConfig { breaker_failures: 1, ..upstream }
}

const CHUNKED: &str = "Transfer-Encoding: chunked\r\nConnection: close\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_who_holds_a_body_back_is_no_fault_of_the_upstreams() {
    let upstream = touchy(upstream(&TaskTracker::new(), measuring()).await);
    let config = Config {
        upstream_response_timeout: Span::secs(1),
        body_idle_timeout: Span::millis(1500),
        ..Config::default()
    };
    let gateway = Gateway::start(config, &[upstream], &[route("/up", "up")]);
    let sized = head(1, "POST /up", "Content-Length: 10\r\nConnection: close\r\n") + "123";
    let chunked = head(1, "POST /up", CHUNKED) + "3\r\n123\r\n";
    let stalled = [sized, chunked].map(|request| gateway.raw(request));
    for answer in futures_util::future::join_all(stalled).await {
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    let answer = gateway.get("/up", &[("x-api-key", key(1).reveal())]).await;
    assert_eq!(answer.status, StatusCode::OK);
    let timeouts = FaultLabel { fault: "timeout" };
    assert_eq!(gateway.metrics.upstream.faults.get_or_create(&timeouts).get(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_has_its_time_when_the_body_is_there() {
    let upstream = touchy(upstream(&TaskTracker::new(), measuring()).await);
    let config = Config { upstream_response_timeout: Span::secs(1), ..Config::default() };
    let gateway = Gateway::start(config, &[upstream], &[route("/up", "up")]);
    let mut client = gateway.connect(head(1, "POST /up", CHUNKED) + "3\r\n123\r\n").await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    client.write_all(b"2\r\n45\r\n0\r\n\r\n").await.expect("the gateway reads on");
    let answer = read_head(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("x-length: 5"), "{answer}");
}

/// Says that a body is too large when it has its head, and closes: what still comes is refused by
/// its system.
async fn choosy(tasks: &TaskTracker) -> UpstreamConfig {
    let upstream = does(tasks, |mut stream| async move {
        read_head(&mut stream).await;
        let answer = "HTTP/1.1 413 No\r\nContent-Length: 9\r\nConnection: close\r\n\r\n\
                      too large";
        stream.write_all(answer.as_bytes()).await.expect("the gateway reads");
    })
    .await;
    touchy(upstream)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_is_heard_though_the_rest_of_the_body_is_refused() {
    let tasks = TaskTracker::new();
    let upstream = choosy(&tasks).await;
    let gateway = Gateway::start(Config::default(), &[upstream], &[route("/up", "up")]);
    let upload = async || {
        let length = 3 << 20;
        let head = head(1, "PUT /up", &format!("Content-Length: {length}\r\n"));
        let (mut reads, mut writes) = gateway.connect(head).await.into_split();
        let body = tasks.spawn(async move {
            // The gateway may close before the last of it.
            drop(writes.write_all(&vec![b'x'; length]).await);
            // (Dropped, it would say that the client leaves.)
            writes
        });
        let mut answer = Vec::new();
        while !answer.ends_with(b"too large") {
            let read = reads.read_buf(&mut answer).await;
            let said = String::from_utf8_lossy(&answer);
            assert!(read.is_ok_and(|read| read > 0), "{said}");
        }
        assert!(answer.starts_with(b"HTTP/1.1 413"));
        drop(body.await.expect("no panic"));
    };
    for _ in 0..8 {
        futures_util::future::join_all((0..4).map(|_| upload())).await;
    }
    assert_eq!(gateway.metrics.upstream.breaker_openings.get(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_breaks_off_in_the_middle_of_a_body_is_asked_again() {
    let tasks = TaskTracker::new();
    let well = upstream(&tasks, measuring()).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let behind = well.targets[0].strip_prefix("http://").expect("plain").to_owned();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut first = [0; 4];
            stream.peek(&mut first).await.expect("a request");
            if first.starts_with(b"PUT") {
                read_head(&mut stream).await;
                stream.set_zero_linger().expect("a socket");
                continue;
            }
            let mut well = TcpStream::connect(&behind).await.expect("it listens");
            drop(tokio::io::copy_bidirectional(&mut stream, &mut well).await);
        }
    });
    let gateway = Gateway::start(Config::default(), &[touchy(at(address))], &[route("/up", "up")]);
    let half = head(1, "PUT /up", "Content-Length: 10\r\nConnection: close\r\n") + "123";
    let answer = gateway.raw(half).await;
    assert!(answer.contains("upstream_broke_off"), "{answer}");
    let answer = gateway.get("/up", &[("x-api-key", key(1).reveal())]).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.code());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_a_length_is_passed_on_whatever_the_method() {
    let upstream = upstream(&TaskTracker::new(), measuring()).await;
    let gateway = Gateway::start(Config::default(), &[upstream], &[route("/up", "up")]);
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "QUERY", "POST"] {
        let line = format!("{method} /up");
        let answer = gateway.raw(head(1, &line, CHUNKED) + "3\r\nabc\r\n0\r\n\r\n").await;
        let told = answer.contains("x-coded: true") && answer.contains("x-length: 3");
        assert!(told, "{method}: {answer}");
        let answer = gateway.raw(head(1, &line, "Connection: close\r\n")).await;
        let told = answer.contains("x-coded: false") && answer.contains("x-length: 0");
        assert!(told, "{method}: {answer}");
    }
}

/// What still comes is read and dropped: refused by the system, it would have the client's throw
/// the answer away.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_answered_early_may_say_the_rest() {
    let gateway = Gateway::start(echo(), &[], &orders());
    let length = 1 << 20;
    let head =
        format!("POST /rest/v1/orders HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    let mut client = gateway.connect(head).await;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("an answer, and the end");
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let piece = vec![b'x'; 1 << 14];
    for _ in 0..length / piece.len() {
        client.write_all(&piece).await.expect("it is read");
        tokio::task::yield_now().await;
    }
}
