//! The data plane over real sockets, with an embedded cache and journal.

mod access;
mod decisions;
mod forwarding;
mod kept;
mod secure_upstreams;
mod spans;
mod stories;
mod streams;
mod targets;
mod tokens;
mod tunnels;
mod uploads;
mod upstreams;

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Request as HttpRequest, StatusCode};
use axum::response::Response as AxumResponse;
use axum::routing::any;
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use super::*;
use crate::admission::{Bases, Used};
use crate::cache::{Declared, Source};
use crate::clock::SystemClock;
use crate::entropy::SystemEntropy;
use crate::journal::Journal;
use crate::model::api_key::{ApiKey, SEED_BYTES};
use crate::model::fact::QuotaKey;
use crate::model::units::{Size, Span};
use crate::model::{Client as Owner, Key, Policy, Timestamp};
use crate::proxy::UpstreamConfig;
use crate::server::{Entry, Footing, RouteConfig, RouteTable, Worker, serve};

/// A gateway on a port of its own.
struct Gateway {
    address: SocketAddr,
    journal: Journal,
    cache: Arc<Cache>,
    tokens: Arc<Tokens>,
    client: Client<HttpConnector, Body>,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Of the access log.
    lines: Arc<Mutex<Vec<Vec<u8>>>>,
    dir: TempDir,
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

/// Key 1 is good, 2 is disabled, 3 has expired, 4 belongs to a disabled client, 5 may verify, 6 may
/// introspect, 7 has no scopes, 8 is another client's, 11 has a scope that is no right, too.
fn declared() -> Declared {
    let owner = |name: &str, enabled| Owner { name: name.into(), policy: None, enabled };
    Declared {
        node: "gw".into(),
        clients: vec![owner("acme", true), owner("shut", false), owner("my web/app", true)],
        keys: vec![
            stored(1, "acme", &["orders.read", "orders.delete"]),
            Key { enabled: false, ..stored(2, "acme", &[]) },
            Key { expires_at: Some(Timestamp(1)), ..stored(3, "acme", &[]) },
            stored(4, "shut", &[]),
            stored(5, "acme", &["keys.verify"]),
            stored(6, "acme", &["tokens.introspect"]),
            stored(7, "acme", &[]),
            stored(8, "my web/app", &[]),
            stored(11, "acme", &["openid", "orders.read"]),
            Key { policy: Some("counted".into()), ..stored(10, "acme", &["orders.read"]) },
        ],
        policies: vec![Policy {
            name: "counted".into(),
            spec: r#"{"quotas":[{"name":"yearly","limit":2,"period":"year","per":"key"}]}"#.into(),
        }],
        ..Declared::default()
    }
}

fn journal(
    dir: &Path,
    clock: &SharedClock,
    entropy: &SharedEntropy,
    metrics: &Arc<Metrics>,
) -> Journal {
    let (journal, _) = Journal::open(
        &dir.join("journal"),
        crate::journal::Config::default(),
        Arc::clone(clock),
        Arc::clone(entropy),
        Arc::clone(metrics),
    )
    .expect("a journal");
    journal
}

/// No quota was used before.
struct Unused;

impl Bases for Unused {
    fn used(&self, _: &QuotaKey) -> Option<Used> {
        Some(Used::default())
    }
}

impl Gateway {
    fn start(config: Config, upstreams: &[UpstreamConfig], routes: &[RouteConfig]) -> Self {
        Self::with(config, upstreams, routes, None)
    }

    fn with(
        config: Config,
        upstreams: &[UpstreamConfig],
        routes: &[RouteConfig],
        source: Option<Arc<dyn Source>>,
    ) -> Self {
        Self::recording(config, upstreams, routes, source, None)
    }

    fn recording(
        config: Config,
        upstreams: &[UpstreamConfig],
        routes: &[RouteConfig],
        source: Option<Arc<dyn Source>>,
        spans: Option<Spans>,
    ) -> Self {
        let dir = TempDir::new().expect("a directory");
        let clock: SharedClock = Arc::new(SystemClock::new());
        let entropy: SharedEntropy = Arc::new(SystemEntropy::new());
        let (metrics, tasks) = (Arc::new(Metrics::new()), TaskTracker::new());
        let journal = journal(dir.path(), &clock, &entropy, &metrics);
        let cache = Cache::open(
            &dir.path().join("cache"),
            crate::cache::Config::default(),
            declared(),
            source,
            Arc::clone(&clock),
            Arc::clone(&metrics),
            tasks.clone(),
        )
        .expect("a cache");
        let readiness = Arc::new(Readiness::new(|| Footing::Firm));
        let stop = CancellationToken::new();
        let tokens = Tokens::of_test(dir.path(), &cache, &journal, &clock, &entropy, &metrics);
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (now, since) = (clock.now(), clock.monotonic());
        let admission = Admission::new(Default::default(), now, since, Arc::clone(&metrics));
        admission.quotas().based_on(Arc::new(Unused));
        let table = RouteTable::build(upstreams, routes, config.echo).expect("routes");
        let told = Arc::clone(&lines);
        let parts = ServerParts {
            routes: Arc::new(Routes::new(table)),
            config: config.clone(),
            tokens: Arc::clone(&tokens),
            cache: Arc::clone(&cache),
            admission: Arc::new(admission),
            admin_token: "s3cret".into(),
            meter: Arc::new(Meter::new(journal.clone(), Arc::clone(&clock))),
            clock,
            entropy,
            metrics: Arc::clone(&metrics),
            readiness: Arc::clone(&readiness),
            tasks: tasks.clone(),
            stopping: stop.clone(),
            write_line: Arc::new(move |line| told.lock().expect("no panic").push(line)),
            spans,
        };
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (shutdown, counters, plane) = (stop.clone(), Arc::clone(&metrics), service(parts));
        let entry = Entry { listener, certificates: None, workers: vec![Worker::here()] };
        tasks.spawn(async move {
            let stalled_max = config.shutdown_deadline.0;
            serve(entry, plane, &config, stalled_max, counters, shutdown).await
        });
        Self {
            address,
            journal,
            cache,
            tokens,
            client: Client::builder(TokioExecutor::new()).build_http(),
            readiness,
            metrics,
            tasks,
            stop,
            lines,
            dir,
        }
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
        let read = self.journal.unsettled_usage(None, &mut |fact| {
            let name = format!("{}:{}", fact.counter.table, fact.counter.operation);
            let sums = all.entry(name).or_default();
            let c = fact.counts;
            let more = [c.requests, c.succeeded, c.failed, c.denied, c.bytes_in, c.bytes_out];
            sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        });
        read.expect("a readable journal");
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
    at(address)
}

fn at(address: SocketAddr) -> UpstreamConfig {
    let targets = vec![format!("http://{address}")];
    UpstreamConfig { name: "up".into(), targets, ..UpstreamConfig::default() }
}

fn orders() -> [RouteConfig; 1] {
    [route("/rest/v1/{table}", "echo")]
}

fn echo() -> Config {
    Config { echo: true, ..Config::default() }
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
