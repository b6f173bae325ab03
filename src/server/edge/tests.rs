//! The data plane over real sockets, with an embedded cache and journal.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request as HttpRequest, StatusCode};
use axum::response::Response as AxumResponse;
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::*;
use crate::cache::Declared;
use crate::clock::SystemClock;
use crate::entropy::SystemEntropy;
use crate::journal::Journal;
use crate::model::api_key::{ApiKey, SEED_BYTES};
use crate::model::units::{Size, Span};
use crate::model::{Client as Owner, Key, Timestamp};
use crate::proxy::UpstreamConfig;
use crate::server::{RouteConfig, serve};

/// A gateway on a port of its own.
struct Gateway {
    address: SocketAddr,
    journal: Journal,
    client: Client<HttpConnector, Body>,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    stop: CancellationToken,
    _dir: TempDir,
}

fn key(seed: u8) -> ApiKey {
    ApiKey::make("live", &[seed; SEED_BYTES]).expect("usable bytes")
}

fn stored(seed: u8, client: &str, scopes: &[&str]) -> Key {
    let key = key(seed);
    Key {
        id: Uuid::from_u128(u128::from(seed)),
        digest: key.digest(),
        prefix: key.prefix().into(),
        last4: key.last4().into(),
        client: client.into(),
        policy: None,
        scopes: scopes.iter().map(|scope| (*scope).into()).collect(),
        enabled: true,
        expires_at: None,
        created_at: Timestamp::EPOCH,
    }
}

/// Key 1 is good, 2 is disabled, 3 has expired, 4 belongs to a disabled client, 5 may verify.
fn declared() -> Declared {
    let owner = |name: &str, enabled| Owner { name: name.into(), policy: None, enabled };
    Declared {
        clients: vec![owner("acme", true), owner("shut", false)],
        keys: vec![
            stored(1, "acme", &["orders.read"]),
            Key { enabled: false, ..stored(2, "acme", &[]) },
            Key { expires_at: Some(Timestamp(1)), ..stored(3, "acme", &[]) },
            stored(4, "shut", &[]),
            stored(5, "acme", &["keys.verify"]),
        ],
        policies: Vec::new(),
    }
}

impl Gateway {
    fn start(config: Config, upstreams: &[UpstreamConfig], routes: &[RouteConfig]) -> Self {
        let dir = TempDir::new().expect("a directory");
        let clock: SharedClock = Arc::new(SystemClock::new());
        let entropy: SharedEntropy = Arc::new(SystemEntropy::new());
        let (metrics, tasks) = (Arc::new(Metrics::new()), TaskTracker::new());
        let (journal, _) = Journal::open(
            &dir.path().join("journal"),
            crate::journal::Config::default(),
            Arc::clone(&clock),
            Arc::clone(&entropy),
            Arc::clone(&metrics),
        )
        .expect("a journal");
        let cache = Cache::open(
            &dir.path().join("cache"),
            crate::cache::Config::default(),
            declared(),
            None,
            Arc::clone(&clock),
            Arc::clone(&metrics),
            tasks.clone(),
        )
        .expect("a cache");
        let readiness = Arc::new(Readiness::new(|| false));
        let parts = ServerParts {
            routes: RouteTable::build(upstreams, routes, config.echo).expect("routes"),
            config: config.clone(),
            cache,
            meter: Arc::new(Meter::new(journal.clone(), Arc::clone(&clock))),
            clock,
            entropy,
            metrics: Arc::clone(&metrics),
            readiness: Arc::clone(&readiness),
        };
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let shutdown = stop.clone();
        let router = router(parts);
        let counters = Arc::clone(&metrics);
        tasks.spawn(async move { serve(listener, router, &config, counters, shutdown).await });
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { address, journal, client, readiness, metrics, tasks, stop, _dir: dir }
    }

    async fn send(&self, request: HttpRequest<Body>) -> Answer {
        let (mut parts, body) = request.into_parts();
        let uri = format!("http://{}{}", self.address, parts.uri);
        parts.uri = uri.parse().expect("a URI");
        let request = HttpRequest::from_parts(parts, body);
        let (parts, body) = self.client.request(request).await.expect("an answer").into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        Answer { status: parts.status, headers: parts.headers, body: body.to_vec() }
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask("GET", path, headers, "").await
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = HttpRequest::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::from(body.to_owned())).expect("a request")).await
    }

    /// Sends bytes as they are, and reads until the gateway closes.
    async fn raw(&self, text: String) -> String {
        let mut stream = self.connect(text).await;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn connect(&self, text: String) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.expect("a connection");
        stream.write_all(text.as_bytes()).await.expect("sent");
        stream
    }

    async fn until_proxied(&self, running: i64) {
        while self.metrics.http.proxied.get() != running {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Stops, and adds up what was counted: by table and operation (requests, succeeded, failed,
    /// denied, bytes in, bytes out).
    async fn counted(self) -> HashMap<String, [u64; 6]> {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.journal.shutdown().expect("a clean end");
        let mut all = HashMap::<String, [u64; 6]>::new();
        self.journal.unsettled_usage(&HashMap::new(), &mut |fact| {
            let name = format!("{}:{}", fact.counter.table, fact.counter.operation);
            let sums = all.entry(name).or_default();
            let c = fact.counts;
            let more = [c.requests, c.succeeded, c.failed, c.denied, c.bytes_in, c.bytes_out];
            sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        });
        all
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

fn route(path: &str, upstream: &str) -> RouteConfig {
    RouteConfig { path: path.into(), upstream: upstream.into(), ..RouteConfig::default() }
}

/// An upstream of our own on a port of its own.
async fn upstream(tasks: &TaskTracker, router: Router) -> UpstreamConfig {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tasks.spawn(async move { axum::serve(listener, router).await });
    UpstreamConfig { name: "up".into(), targets: vec![format!("http://{address}")] }
}

fn orders() -> [RouteConfig; 1] {
    [route("/rest/v1/{table}", "echo")]
}

fn echo() -> Config {
    Config { echo: true, ..Config::default() }
}

#[ignore = "needs the rooms of cache and journal"]
#[tokio::test(flavor = "multi_thread")]
async fn forward_auth_allows_and_says_who() {
    let gateway = Gateway::start(echo(), &[], &orders());
    let good = key(1);
    let headers = [
        ("x-api-key", good.reveal()),
        ("x-forwarded-method", "DELETE"),
        ("x-forwarded-uri", "/rest/v1/orders?id=eq.1"),
        ("x-gatepost-client", "evil"),
        ("x-request-id", "mine-1"),
    ];
    let answer = gateway.ask("POST", "/authz/forward-auth", &headers, "").await;
    assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 0));
    assert_eq!(answer.header("x-request-id"), Some("mine-1"));
    assert_eq!(answer.header("x-gatepost-client"), Some("acme"));
    assert_eq!(answer.header("x-gatepost-key-id"), Some(&*Uuid::from_u128(1).to_string()));
    assert_eq!(answer.header("x-gatepost-subject"), Some(""));
    assert_eq!(answer.header("x-gatepost-scopes"), Some("orders.read"));

    let nginx = [("apikey", good.reveal()), ("x-original-uri", "/else")];
    let answer = gateway.get("/authz/auth-request", &nginx).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    let bearer = format!("Bearer {}", good.reveal());
    let envoy = [("authorization", bearer.as_str())];
    let answer = gateway.get("/authz/ext-authz/rest/v1/orders", &envoy).await;
    assert_eq!(answer.status, StatusCode::OK);

    let counted = gateway.counted().await;
    assert_eq!(counted["orders:delete"], [1, 1, 0, 0, 0, 0]);
    assert_eq!(counted[":access"], [1, 1, 0, 0, 0, 0]);
    assert_eq!(counted["orders:read"], [1, 1, 0, 0, 0, 0]);
}

#[ignore = "needs the rooms of cache and journal"]
#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_why_and_count_the_identified() {
    let gateway = Gateway::start(Config::default(), &[], &[]);
    for (seed, status, code) in [
        (2, 401, "key_disabled"),
        (3, 401, "key_expired"),
        (4, 403, "client_disabled"),
        (9, 401, "invalid_credential"),
    ] {
        let headers = [("x-api-key", key(seed).reveal().to_owned())];
        let headers = [(headers[0].0, headers[0].1.as_str())];
        let answer = gateway.get("/authz/forward-auth", &headers).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code));
        let nginx = gateway.get("/authz/auth-request", &headers).await;
        assert_eq!(nginx.status.as_u16(), status);
        assert_eq!(nginx.header("x-gatepost-deny-code"), Some(code));
    }
    let (one, two) = (key(1), key(2));
    let both = [("x-api-key", one.reveal()), ("apikey", two.reveal())];
    assert_eq!(gateway.get("/authz/forward-auth", &both).await.status.as_u16(), 400);
    let nginx = gateway.get("/authz/auth-request", &both).await;
    assert_eq!(nginx.status.as_u16(), 403);
    assert_eq!(nginx.header("x-gatepost-deny-status"), Some("400"));
    let none = gateway.get("/authz/forward-auth", &[]).await;
    assert_eq!((none.status.as_u16(), none.code().as_str()), (401, "missing_credential"));
    assert_eq!(none.header("www-authenticate"), Some("Bearer realm=\"gatepost\""));

    let counted = gateway.counted().await;
    assert_eq!(counted[":access"], [6, 0, 0, 6, 0, 0], "three identified keys, asked for twice");
}

#[ignore = "needs the rooms of cache and journal"]
#[tokio::test(flavor = "multi_thread")]
async fn unknown_malformed_and_wrong_keys_are_one_answer() {
    let gateway = Gateway::start(Config::default(), &[], &[]);
    let unknown = key(9).reveal().to_owned();
    let mut wrong = key(1).reveal().to_owned();
    wrong.replace_range(10..11, "!");
    let mut seen = Vec::new();
    for credential in [unknown, wrong, "junk".to_owned()] {
        let mut answer = gateway.get("/authz/forward-auth", &[("x-api-key", &credential)]).await;
        answer.headers.remove("x-request-id").expect("an id");
        answer.headers.remove("date");
        seen.push((answer.status, answer.headers, answer.body));
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0], seen[2]);
}

#[ignore = "needs the rooms of cache and journal"]
#[tokio::test(flavor = "multi_thread")]
async fn unsafe_original_paths_are_bad_requests() {
    let gateway = Gateway::start(echo(), &[], &orders());
    let good = key(1);
    let path = "/rest/v1/%2e%2e/admin";
    let headers = [("x-api-key", good.reveal()), ("x-forwarded-uri", path)];
    let answer = gateway.get("/authz/forward-auth", &headers).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "bad_request"));
}

#[ignore = "needs the rooms of cache and journal"]
#[tokio::test(flavor = "multi_thread")]
async fn verify_answers_200_about_every_key() {
    let gateway = Gateway::start(Config::default(), &[], &[]);
    let verify = async |body: String| gateway.ask("POST", "/v1/keys/verify", &[], &body).await;
    let about = |seed: u8, more: &str| format!(r#"{{"key":"{}"{more}}}"#, key(seed).reveal());
    let good = verify(about(1, r#","table":"orders","operation":"read""#)).await.json();
    assert_eq!((&good["valid"], &good["code"]), (&true.into(), &"ok".into()));
    assert_eq!((&good["client"], &good["scopes"][0]), (&"acme".into(), &"orders.read".into()));
    let narrow = verify(about(1, r#","scopes":["orders.write"]"#)).await.json();
    assert_eq!((&narrow["valid"], &narrow["code"]), (&false.into(), &"insufficient_scope".into()));
    let disabled = verify(about(2, "")).await.json();
    assert_eq!(disabled["code"], "key_disabled");
    let unknown = verify(about(9, "")).await.json();
    assert_eq!((&unknown["code"], &unknown["client"]), (&"invalid_credential".into(), &().into()));

    assert_eq!(verify("{}".into()).await.status.as_u16(), 400);
    assert_eq!(verify("x".repeat(17 << 10)).await.status.as_u16(), 413);
    let method = gateway.get("/v1/keys/verify", &[]).await;
    assert_eq!(method.status.as_u16(), 405);
    let counted = gateway.counted().await;
    assert_eq!(counted["orders:read"], [1, 1, 0, 0, 0, 0]);
    assert_eq!(counted[":access"], [2, 0, 0, 2, 0, 0]);
}

#[ignore = "needs the rooms of cache and journal"]
#[tokio::test(flavor = "multi_thread")]
async fn verify_is_for_trusted_peers_and_keys_with_the_scope() {
    let gateway = Gateway::start(Config::default(), &[], &[]);
    let body = format!(r#"{{"key":"{}"}}"#, key(1).reveal());
    let stranger = ("x-forwarded-for", "203.0.113.9");
    let ask = async |headers: &[(&str, &str)]| {
        let answer = gateway.ask("POST", "/v1/keys/verify", headers, &body).await;
        answer.status.as_u16()
    };
    assert_eq!(ask(&[stranger]).await, 401);
    assert_eq!(ask(&[stranger, ("x-api-key", key(1).reveal())]).await, 403);
    assert_eq!(ask(&[stranger, ("x-api-key", key(5).reveal())]).await, 200);
}

#[ignore = "needs the rooms of cache and journal"]
#[tokio::test(flavor = "multi_thread")]
async fn a_proxied_request_reaches_the_upstream_clean_and_is_counted() {
    let gateway = Gateway::start(echo(), &[], &orders());
    let good = key(1);
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

#[ignore = "needs the rooms of cache and journal"]
#[tokio::test(flavor = "multi_thread")]
async fn upstream_failures_are_told_apart_and_counted_as_failed() {
    let tasks = TaskTracker::new();
    let slow = any(async || {
        tokio::time::sleep(Duration::from_secs(3600)).await;
    });
    let broken = any(async || StatusCode::INTERNAL_SERVER_ERROR);
    let live = upstream(&tasks, Router::new().route("/slow", slow).route("/500", broken)).await;
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port");
    let gone_at = format!("http://{}", gone.local_addr().expect("an address"));
    drop(gone);
    let gone = UpstreamConfig { name: "gone".into(), targets: vec![gone_at] };
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
    assert_eq!(gateway.counted().await[":read"], [3, 0, 3, 0, 0, 0]);
}

#[ignore = "needs the rooms of cache and journal"]
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

#[test]
fn endpoints_stand_at_their_place() {
    for (at, (endpoint, _)) in Endpoint::ALL.into_iter().enumerate() {
        assert_eq!(endpoint as usize, at);
    }
}

fn head(seed: u8, line: &str, headers: &str) -> String {
    let key = key(seed);
    format!("{line} HTTP/1.1\r\nHost: a\r\nX-API-Key: {}\r\n{headers}\r\n", key.reveal())
}

#[ignore = "needs the rooms of cache and journal"]
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

#[ignore = "needs the rooms of cache and journal"]
#[tokio::test(flavor = "multi_thread")]
async fn a_length_beside_chunked_smuggles_nothing() {
    let gateway = Gateway::start(echo(), &[], &orders());
    let both = "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n";
    let smuggled = head(1, "GET /rest/v1/smuggled", "");
    let answer = gateway.raw(head(1, "POST /rest/v1/orders", both) + "0\r\n\r\n" + &smuggled).await;
    assert!(answer.contains("\"body_bytes\":0") && !answer.contains("smuggled"), "{answer}");
    assert!(!answer.contains("\"content-length\""), "{answer}");
    assert!(!gateway.counted().await.contains_key("smuggled:read"));
}

#[ignore = "needs the rooms of cache and journal"]
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

#[ignore = "needs the rooms of cache and journal"]
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
    let websocket =
        [("apikey", good.reveal()), ("upgrade", "websocket"), ("connection", "upgrade")];
    let answer = gateway.get("/page", &websocket).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (501, "upgrade_unsupported"));
}

#[ignore = "needs the rooms of cache and journal"]
#[tokio::test(flavor = "multi_thread")]
async fn health_follows_the_phase() {
    let gateway = Gateway::start(Config::default(), &[], &[]);
    let starting = gateway.get("/livez", &[]).await;
    assert_eq!((starting.status.as_u16(), starting.header("retry-after")), (503, Some("1")));
    gateway.readiness.ready();
    assert_eq!(gateway.get("/livez", &[]).await.status.as_u16(), 200);
    assert_eq!(gateway.get("/readyz", &[]).await.json()["status"], "ready");
    gateway.readiness.drain();
    assert_eq!(gateway.get("/livez", &[]).await.status.as_u16(), 200);
    assert_eq!(gateway.get("/readyz", &[]).await.status.as_u16(), 503);
}
