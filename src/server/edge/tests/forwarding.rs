//! Requests on routes, with friendly and hostile clients and upstreams.

use std::convert::Infallible;

use futures_util::{StreamExt, stream};

use super::*;
#[tokio::test(flavor = "multi_thread")]
async fn a_proxied_request_reaches_the_upstream_clean_and_is_counted() {
    let gateway = Gateway::start(echo(), &[], &orders());
    let good = key(7);
    let headers = [
        ("x-api-key", good.reveal()),
        ("x-gatepost-subject", "root"),
        ("connection", "x-named"),
        ("x-named", "1"),
    ];
    let answer = gateway.ask("POST", "/rest/v1/orders?a=%2F..", &headers, "12345").await;
    assert_eq!(answer.status, StatusCode::OK);
    let seen = answer.json();
    assert_eq!(
        (&seen["path"], &seen["body_bytes"]),
        (&"/rest/v1/orders?a=%2F..".into(), &5.into())
    );
    assert_eq!(seen["headers"]["x-gatepost-client"][0], "acme");
    assert_eq!(seen["headers"]["x-gatepost-subject"][0], "");
    assert_eq!(seen["headers"]["x-request-id"][0], answer.header("x-request-id").expect("an id"));
    for gone in ["x-api-key", "x-named", "connection"] {
        assert!(seen["headers"].get(gone).is_none(), "{gone}");
    }
    let missing = gateway.get("/nowhere", &[("x-api-key", good.reveal())]).await;
    assert_eq!((missing.status.as_u16(), missing.code().as_str()), (404, "not_found"));
    let length = answer.body.len() as u64;
    let counted = gateway.counted().await;
    assert_eq!(counted["orders:write"], [1, 1, 0, 0, 5, length]);
}
#[tokio::test(flavor = "multi_thread")]
async fn upstream_failures_are_told_apart_and_counted_as_failed() {
    let tasks = TaskTracker::new();
    let slow = any(async || {
        tokio::time::sleep(Duration::from_secs(3600)).await;
    });
    let broken = any(async || StatusCode::INTERNAL_SERVER_ERROR);
    let live = upstream(&tasks, Router::new().route("/slow", slow).route("/500", broken)).await;
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port");
    let gone_at = gone.local_addr().expect("an address");
    drop(gone);
    let gone = UpstreamConfig { name: "gone".into(), ..at(gone_at) };
    let config = Config { upstream_response_timeout: Span::millis(100), ..Config::default() };
    let routes = [route("/slow", "up"), route("/500", "up"), route("/gone", "gone")];
    let gateway = Gateway::start(config, &[live, gone], &routes);
    let good = key(1);
    let headers = [("x-api-key", good.reveal())];
    let slow = gateway.get("/slow", &headers).await;
    assert_eq!((slow.status.as_u16(), slow.code().as_str()), (504, "upstream_timeout"));
    let gone = gateway.get("/gone", &headers).await;
    assert_eq!((gone.status.as_u16(), gone.code().as_str()), (502, "upstream_unreachable"));
    assert_eq!(gateway.get("/500", &headers).await.status.as_u16(), 500);
    // It was let through, and is told of its limits.
    let counted = key(10);
    for (path, left) in [("/slow", ";r=1;"), ("/gone", ";r=0;")] {
        let failed = gateway.get(path, &[("x-api-key", counted.reveal())]).await;
        let told = failed.header("ratelimit").unwrap_or_default();
        assert!(failed.status.is_server_error() && told.contains(left), "{path}: {told}");
    }
    assert_eq!(gateway.counted().await[":read"], [5, 0, 5, 0, 0, 0]);
}
#[tokio::test(flavor = "multi_thread")]
async fn bodies_stream_both_ways_and_are_bounded() {
    let tasks = TaskTracker::new();
    let mirror = any(async |request: Request| AxumResponse::new(request.into_body()));
    let live = upstream(&tasks, Router::new().route("/mirror", mirror)).await;
    let config = Config { body_max: Size::mib(2), ..Config::default() };
    let gateway = Gateway::start(config, &[live], &[route("/mirror", "up")]);
    let good = key(1);
    let headers = [("x-api-key", good.reveal())];
    let large = "x".repeat(1 << 20);
    let answer = gateway.ask("PUT", "/mirror", &headers, &large).await;
    assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 1 << 20));

    let announced = head(1, "PUT /mirror", "Content-Length: 3000000\r\nConnection: close\r\n");
    let answer = gateway.raw(announced).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"), "{answer}");
    let counted = gateway.counted().await;
    assert_eq!(counted[":write"][..3], [2, 2, 0]);
    assert_eq!(counted[":write"][4..], [1 << 20, 1 << 20]);
}
#[tokio::test(flavor = "multi_thread")]
async fn endless_and_stalled_bodies_are_cut_off() {
    let tasks = TaskTracker::new();
    let sink = any(async |request: Request| {
        let whole = request.into_body().collect().await;
        if whole.is_ok() { StatusCode::OK } else { StatusCode::BAD_REQUEST }
    });
    let live = upstream(&tasks, Router::new().route("/sink", sink)).await;
    let config = Config {
        body_max: Size::kib(64),
        body_idle_timeout: Span::millis(50),
        ..Config::default()
    };
    let gateway = Gateway::start(config, &[live], &[route("/sink", "up")]);
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    let chunked = "Transfer-Encoding: chunked\r\nConnection: close\r\n";
    let endless = head(1, "POST /sink", chunked) + &chunk.repeat(2) + "1\r\nx\r\n";
    let answer = gateway.raw(endless).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"), "{answer}");
    let stalled = head(1, "POST /sink", chunked) + "5\r\nab";
    let answer = gateway.raw(stalled).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("request_timeout"), "{answer}");
    assert_eq!(gateway.metrics.http.bodies_too_large.get(), 1);
}
#[tokio::test(flavor = "multi_thread")]
async fn a_length_beside_chunked_smuggles_nothing() {
    let gateway = Gateway::start(echo(), &[], &orders());
    let both = "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n";
    let smuggled = head(7, "GET /rest/v1/smuggled", "");
    let answer = gateway.raw(head(7, "POST /rest/v1/orders", both) + "0\r\n\r\n" + &smuggled).await;
    assert!(answer.starts_with("HTTP/1.1 400") && !answer.contains("smuggled"), "{answer}");
    assert!(!gateway.counted().await.contains_key("smuggled:read"));
}
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_is_counted_to_the_end() {
    let tasks = TaskTracker::new();
    let slow = any(async || {
        tokio::time::sleep(Duration::from_secs(3600)).await;
    });
    let live = upstream(&tasks, Router::new().route("/slow", slow)).await;
    let gateway = Gateway::start(Config::default(), &[live], &[route("/slow", "up")]);
    let client = gateway.connect(head(1, "GET /slow", "")).await;
    gateway.until_proxied(1).await;
    drop(client);
    gateway.until_proxied(0).await;
    assert_eq!(gateway.counted().await[":read"], [1, 0, 1, 0, 0, 0]);
}
#[tokio::test(flavor = "multi_thread")]
async fn answers_without_bodies_keep_their_length() {
    let tasks = TaskTracker::new();
    let page = any(async || ([("x-gatepost-client", "evil"), ("keep-alive", "x")], "12345"));
    let live = upstream(&tasks, Router::new().route("/page", page)).await;
    let gateway = Gateway::start(Config::default(), &[live], &[route("/page", "up")]);
    let good = key(1);
    let answer = gateway.ask("HEAD", "/page", &[("apikey", good.reveal())], "").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-length")), (200, Some("5")));
    assert_eq!((answer.header("x-gatepost-client"), answer.header("keep-alive")), (None, None));
}
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_stands_still_is_broken_off_and_counted_as_failed() {
    let tasks = TaskTracker::new();
    let hangs = any(async || {
        let piece = stream::iter([Ok::<_, Infallible>("ab")]);
        AxumResponse::new(Body::from_stream(piece.chain(stream::pending())))
    });
    let live = upstream(&tasks, Router::new().route("/hangs", hangs)).await;
    let config = Config { upstream_response_timeout: Span::secs(1), ..Config::default() };
    let gateway = Gateway::start(config, &[live], &[route("/hangs", "up")]);
    let answer = gateway.raw(head(1, "GET /hangs", "")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("ab"), "{answer}");
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
    assert_eq!(gateway.counted().await[":read"], [1, 0, 1, 0, 0, 2]);
}
#[tokio::test(flavor = "multi_thread")]
async fn connect_and_trace_are_refused_in_any_letters() {
    let gateway = Gateway::start(echo(), &[], &orders());
    for method in ["connect", "Connect", "TRACE", "trace"] {
        let line = format!("{method} /rest/v1/orders");
        let answer = gateway.raw(head(7, &line, "Connection: close\r\n")).await;
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5"), "{answer}");
    }
}
