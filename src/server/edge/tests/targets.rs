//! Upstreams of several targets: turns, retries, breakers, bounds and health checks.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::upstreams::{End, says};
use super::*;
use crate::proxy::HealthConfig;

/// An address where nobody listens.
fn dead() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

/// One upstream of all the targets of others.
fn together(upstreams: &[UpstreamConfig]) -> UpstreamConfig {
    let targets = upstreams.iter().flat_map(|one| one.targets.clone()).collect();
    // So that no test meets a breaker that is about something else.
    UpstreamConfig { targets, breaker_failures: 1000, ..upstreams[0].clone() }
}

/// Answers with the body that it got.
async fn mirror(tasks: &TaskTracker) -> UpstreamConfig {
    let mirror = any(async |request: Request| AxumResponse::new(request.into_body()));
    upstream(tasks, Router::new().route("/up", mirror)).await
}

fn started(upstream: UpstreamConfig) -> Gateway {
    Gateway::start(impatient(), &[upstream], &[route("/up", "up")])
}

fn impatient() -> Config {
    Config { upstream_response_timeout: Span::millis(300), ..Config::default() }
}

async fn ask(gateway: &Gateway, method: &str, body: &str) -> Answer {
    gateway.ask(method, "/up", &[("x-api-key", key(1).reveal())], body).await
}

fn retries(gateway: &Gateway) -> (u64, u64) {
    (gateway.metrics.upstream.retries.get(), gateway.metrics.upstream.retries_refused.get())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_sent_goes_to_another_target_whole_and_counts_once() {
    let tasks = TaskTracker::new();
    let gateway = started(together(&[at(dead()), mirror(&tasks).await]));
    for turn in 0..2 {
        for method in ["GET", "POST", "DELETE"] {
            let answer = ask(&gateway, method, if method == "POST" { "12345" } else { "" }).await;
            let want = if method == "POST" { "12345" } else { "" };
            let seen = (answer.status.as_u16(), String::from_utf8_lossy(&answer.body));
            assert_eq!(seen, (200, want.into()), "{method} {turn}");
        }
    }
    assert_eq!(retries(&gateway), (3, 0), "every other one met the dead target first");
    let counted = gateway.counted().await;
    assert_eq!(counted[":read"], [2, 2, 0, 0, 0, 0]);
    assert_eq!(counted[":write"], [2, 2, 0, 0, 10, 10]);
    assert_eq!(counted[":delete"], [2, 2, 0, 0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_done_is_repeated_only_where_that_changes_nothing() {
    let tasks = TaskTracker::new();
    let drops = says(&tasks, "", End::Close).await;
    let gateway = started(together(&[drops.clone(), drops, mirror(&tasks).await]));
    // It was sent, and nobody knows how far it got.
    assert_eq!(ask(&gateway, "POST", "").await.code(), "upstream_broke_off");
    assert_eq!(ask(&gateway, "PUT", "a body").await.code(), "upstream_broke_off");
    assert_eq!(retries(&gateway), (0, 0));
    assert_eq!(ask(&gateway, "GET", "").await.status.as_u16(), 200, "the third in turn");
    // One retry is the most: first, second.
    assert_eq!(ask(&gateway, "GET", "").await.code(), "upstream_broke_off");
    assert_eq!(retries(&gateway), (1, 0));
    let counted = gateway.counted().await;
    assert_eq!(counted[":write"][..3], [2, 0, 2]);
    assert_eq!(counted[":read"], [2, 1, 1, 0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_end_with_their_budget_and_slow_answers_get_none() {
    let tasks = TaskTracker::new();
    let drops = says(&tasks, "", End::Close).await;
    let thrifty = UpstreamConfig { retry_budget: 0.1, ..together(&[drops]) };
    let gateway = started(thrifty);
    for _ in 0..20 {
        assert_eq!(ask(&gateway, "GET", "").await.code(), "upstream_broke_off");
    }
    // Ten to begin with, and a tenth of each request: of the twentieth as well.
    assert_eq!(retries(&gateway), (11, 9));
    assert_eq!(gateway.counted().await[":read"], [20, 0, 20, 0, 0, 0]);

    let slow = says(&tasks, "", End::Hold).await;
    let gateway = started(together(&[slow.clone(), slow]));
    assert_eq!(ask(&gateway, "GET", "").await.code(), "upstream_timeout");
    assert_eq!(retries(&gateway), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_fails_in_a_row_is_left_alone_until_it_answers_again() {
    let address = dead();
    let open_for = Span::millis(200);
    let touchy = UpstreamConfig {
        breaker_failures: 2,
        breaker_open_for: open_for,
        breaker_open_max: open_for,
        ..at(address)
    };
    let gateway = started(touchy);
    assert_eq!(ask(&gateway, "GET", "").await.code(), "upstream_unreachable");
    assert_eq!(ask(&gateway, "GET", "").await.code(), "upstream_unreachable");
    let answer = ask(&gateway, "GET", "").await;
    let seen = (answer.status.as_u16(), answer.code(), answer.header("retry-after"));
    assert_eq!(seen, (503, "upstream_circuit_open".into(), Some("1")));
    assert_eq!(gateway.metrics.upstream.breaker_openings.get(), 1);
    let back = tokio::net::TcpListener::bind(address).await.expect("the port is free");
    let router = Router::new().route("/up", any(async || "back"));
    gateway.tasks.spawn(async move {
        drop(tokio::time::timeout(Duration::from_secs(60), axum::serve(back, router)).await);
    });
    while ask(&gateway, "GET", "").await.status.as_u16() != 200 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(ask(&gateway, "GET", "").await.body, b"back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_works_at_so_many_requests_and_no_more() {
    let tasks = TaskTracker::new();
    let slow = says(&tasks, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", End::Hold).await;
    let upstream = UpstreamConfig { max_in_flight: 1, ..slow };
    let gateway = Gateway::start(Config::default(), &[upstream], &[route("/up", "up")]);
    let mut first = gateway.connect(head(1, "GET /up", "")).await;
    let mut begun = [0; 12];
    first.read_exact(&mut begun).await.expect("an answer");
    let answer = ask(&gateway, "GET", "").await;
    let seen = (answer.status.as_u16(), answer.code(), answer.header("retry-after"));
    assert_eq!(seen, (503, "upstream_busy".into(), Some("1")), "its body has not ended");
    drop(first);
    gateway.until_proxied(0).await;
    let mut second = gateway.connect(head(1, "GET /up", "")).await;
    second.read_exact(&mut begun).await.expect("an answer");
    assert_eq!(&begun, b"HTTP/1.1 200");
}

/// Says by its status whether it is well, and counts who asks for anything else.
async fn patient(tasks: &TaskTracker, well: &Arc<AtomicBool>) -> (UpstreamConfig, Arc<AtomicU32>) {
    let (well, asked) = (Arc::clone(well), Arc::new(AtomicU32::new(0)));
    let counted = Arc::clone(&asked);
    let health = any(async move || {
        let well = well.load(Ordering::SeqCst);
        if well { StatusCode::NO_CONTENT } else { StatusCode::SERVICE_UNAVAILABLE }
    });
    let up = any(async move || {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let router = Router::new().route("/healthz", health).route("/up", up);
    (upstream(tasks, router).await, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_take_targets_out_and_bring_them_back() {
    let tasks = TaskTracker::new();
    let (well, always) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)));
    let (one, one_asked) = patient(&tasks, &well).await;
    let (two, two_asked) = patient(&tasks, &always).await;
    let health = HealthConfig {
        path: "/healthz".into(),
        interval: Span::millis(10),
        healthy: 2,
        unhealthy: 2,
        ..HealthConfig::default()
    };
    let watched = UpstreamConfig { health: Some(health), ..together(&[one, two]) };
    let gateway = started(watched);
    assert_eq!(ask(&gateway, "GET", "").await.status.as_u16(), 200, "nothing is known yet");
    let metrics = &gateway.metrics.upstream;
    while metrics.unhealthy.get() < 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let before = one_asked.load(Ordering::SeqCst);
    for _ in 0..6 {
        assert_eq!(ask(&gateway, "GET", "").await.status.as_u16(), 200);
    }
    assert_eq!(one_asked.load(Ordering::SeqCst), before);
    assert!(two_asked.load(Ordering::SeqCst) >= 6);

    always.store(false, Ordering::SeqCst);
    while metrics.unhealthy.get() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let answer = ask(&gateway, "GET", "").await;
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "upstream_unhealthy".into()));
    assert_eq!(answer.header("retry-after"), Some("1"));
    well.store(true, Ordering::SeqCst);
    while metrics.healthy.get() < 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(ask(&gateway, "GET", "").await.status.as_u16(), 200);
    // The checks end with the gateway.
    gateway.counted().await;
}
