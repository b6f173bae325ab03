//! The control plane through its router, over a real journal and a real cache.

mod policies;
mod sessions;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex as StdMutex;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use axum::response::Response;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use uuid::Uuid;

use super::*;
use crate::admission::Admission;
use crate::cache::{self, Cache, Declared};
use crate::clock::{ManualClock, SharedClock};
use crate::entropy::{SeededEntropy, SharedEntropy};
use crate::journal::{self, Journal};
use crate::metrics::Metrics;
use crate::model::fact::Lane;
use crate::model::policy::Mode;
use crate::model::{Name, Timestamp};
use crate::tokens::Tokens;

const TOKEN: &str = "s3cret";

/// A directory that remembers what it was told.
#[derive(Default)]
struct Told(StdMutex<Vec<String>>);

impl Told {
    fn tell(&self, what: String) -> Answered<'_, ()> {
        self.0.lock().expect("not poisoned").push(what);
        Box::pin(async { Ok(()) })
    }
}

impl Directory for Told {
    fn set_client_enabled(&self, name: Name, enabled: bool) -> Answered<'_, ()> {
        self.tell(format!("client {name} {enabled}"))
    }
    fn set_key_enabled(&self, _: Uuid, _: bool) -> Answered<'_, ()> {
        Box::pin(async { Err(DirectoryError::Unavailable("it is away".into())) })
    }
    fn settled_usage(&self, _: Option<i64>, _: Option<Name>) -> Answered<'_, SettledUsage> {
        Box::pin(async { Err(DirectoryError::Unavailable("it is away".into())) })
    }
    fn set_client_mode(&self, name: Name, mode: Option<Mode>) -> Answered<'_, ()> {
        self.tell(format!("client {name} {mode:?}"))
    }
    fn policies(&self) -> Answered<'_, Vec<(String, String)>> {
        Box::pin(async { Ok(vec![("old".into(), r#"{"mode":"observe"}"#.into())]) })
    }
    fn change_policies(
        &self,
        _: Name,
        actor: Name,
        changes: Vec<PolicyChange>,
        dry_run: bool,
    ) -> Answered<'_, ()> {
        let changes = changes.into_iter().map(|change| (change.name, change.spec));
        let word = if dry_run { "would change" } else { "changes" };
        self.tell(format!("{actor} {word} {:?}", changes.collect::<Vec<_>>()))
    }
    fn ledger(&self, _: Vec<Uuid>) -> Answered<'_, HashMap<Uuid, LedgerRow>> {
        Box::pin(async { Err(DirectoryError::Unavailable("it is away".into())) })
    }
}

struct Plane {
    control: Arc<Control>,
    router: Router,
    clock: Arc<ManualClock>,
    told: Arc<Told>,
    _dir: tempfile::TempDir,
}

fn control(dir: &Path, clock: Arc<ManualClock>, directory: Option<Arc<dyn Directory>>) -> Control {
    let entropy: SharedEntropy = Arc::new(SeededEntropy::new(7));
    let metrics = Arc::new(Metrics::new());
    let tasks = TaskTracker::new();
    let shared: SharedClock = clock;
    let (journal, _) = Journal::open(
        dir,
        journal::Config::default(),
        Arc::clone(&shared),
        Arc::clone(&entropy),
        Arc::clone(&metrics),
    )
    .expect("a journal");
    let cache = Cache::open(
        &dir.join("cache"),
        cache::Config::default(),
        Declared::default(),
        None,
        Arc::clone(&shared),
        Arc::clone(&metrics),
        tasks.clone(),
    )
    .expect("a cache");
    let (now, monotonic) = (shared.now(), shared.monotonic());
    let admission = Admission::new(Default::default(), now, monotonic, Arc::clone(&metrics));
    Control {
        configuration: None,
        admission: Arc::new(admission),
        tokens: Tokens::of_test(dir, &cache, &journal, &shared, &entropy, &metrics),
        cache,
        journal,
        drainer: None,
        directory,
        contact: None,
        observe: Arc::new(|| ()),
        started: shared.monotonic(),
        clock: shared,
        entropy,
        metrics,
        tasks,
        stopping: CancellationToken::new(),
        token: TOKEN.into(),
        open: true,
        node: "gw".into(),
        actor: "admin".into(),
        turn: Arc::default(),
    }
}

impl Plane {
    fn embedded() -> Self {
        Self::with(None)
    }

    fn attached() -> Self {
        let told = Arc::new(Told::default());
        Self { told: Arc::clone(&told), ..Self::with(Some(told)) }
    }

    fn with(directory: Option<Arc<dyn Directory>>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(ManualClock::new(Timestamp::from_hour(500_000)));
        let control = Arc::new(control(dir.path(), Arc::clone(&clock), directory));
        let router = router(Arc::clone(&control));
        Self { control, router, clock, told: Arc::default(), _dir: dir }
    }

    async fn send(&self, method: Method, path: &str, body: impl Into<Body>) -> (StatusCode, Value) {
        let response = self.response(method, path, body).await;
        let status = response.status();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn response(&self, method: Method, path: &str, body: impl Into<Body>) -> Response {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
            .body(body.into())
            .expect("a request");
        self.router.clone().oneshot(request).await.expect("infallible")
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.send(Method::POST, &format!("/admin/v1{path}"), body.to_string()).await
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send(Method::GET, &format!("/admin/v1{path}"), Body::empty()).await
    }

    async fn key(&self, body: Value) -> Value {
        let (status, key) = self.post("/keys", body).await;
        assert_eq!(status, StatusCode::CREATED, "{key}");
        key
    }
}

#[tokio::test]
async fn a_client_is_made_once() {
    let plane = Plane::attached();
    let (status, made) = plane.post("/clients", json!({"name": "acme", "policy": "old"})).await;
    assert_eq!(status, StatusCode::CREATED, "Postgres has it");
    let shown = json!({"name": "acme", "policy": "old", "enabled": true, "mode": null});
    assert_eq!(made, shown);
    assert_eq!(plane.get("/clients/acme").await, (StatusCode::OK, made.clone()));
    assert_eq!(plane.get("/clients").await.1, json!([made]));

    let (status, problem) = plane.post("/clients", json!({"name": "acme"})).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("client_exists")));
    assert_eq!(plane.get("/clients/other").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_key_is_shown_once_and_then_without_itself() {
    let plane = Plane::embedded();
    let (status, problem) = plane.post("/keys", json!({"client": "acme"})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let detail = problem["detail"].as_str().expect("text");
    assert!(detail.contains("gatepost client create acme"), "{detail}");

    plane.post("/clients", json!({"name": "acme"})).await;
    let asked = json!({"client": "acme", "scopes": ["read"], "expires_in": "90d", "env": "test"});
    let made = plane.key(asked).await;
    let names = ["client", "created_at", "expires_at", "id", "key", "last4", "policy", "prefix"];
    let mut found: Vec<_> = made.as_object().expect("an object").keys().collect();
    found.retain(|name| *name != "scopes");
    found.sort();
    assert_eq!(found, names);
    let key = made["key"].as_str().expect("text");
    assert!(crate::model::api_key::is_well_formed(key));
    assert_eq!(made["prefix"], "gp_test_");

    let (_, shown) = plane.get(&format!("/keys/{}", made["id"].as_str().expect("text"))).await;
    assert_eq!(shown["state"], "active");
    assert_eq!(shown["scopes"], json!(["read"]));
    assert!(!shown.to_string().contains(key));
    assert_eq!(plane.get("/keys?client=acme&limit=5").await.1, json!([shown]));
    assert_eq!(plane.get("/keys?client=other").await.1, json!([]));
}

#[tokio::test]
async fn a_revoked_key_stays_revoked_and_cannot_be_rotated() {
    let plane = Plane::embedded();
    plane.post("/clients", json!({"name": "acme"})).await;
    let id = plane.key(json!({"client": "acme"})).await["id"].as_str().expect("text").to_owned();
    for _ in 0..2 {
        let (status, shown) = plane.post(&format!("/keys/{id}/revoke"), json!({})).await;
        assert_eq!((status, &shown["state"]), (StatusCode::OK, &json!("revoked")));
    }
    assert_eq!(plane.get(&format!("/keys/{id}")).await.1["state"], "revoked");
    let (status, problem) = plane.post(&format!("/keys/{id}/rotate"), json!({})).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("key_not_active")));
    let nobody = Uuid::nil();
    let (status, _) = plane.post(&format!("/keys/{nobody}/revoke"), json!({})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_rotated_key_ends_with_the_overlap() {
    let plane = Plane::embedded();
    plane.post("/clients", json!({"name": "acme"})).await;
    let old = plane.key(json!({"client": "acme", "scopes": ["read"]})).await;
    let id = old["id"].as_str().expect("text");
    let (status, new) = plane.post(&format!("/keys/{id}/rotate"), json!({"overlap": "1h"})).await;
    assert_eq!(status, StatusCode::CREATED, "{new}");
    assert_eq!((&new["replaces"], &new["scopes"]), (&old["id"], &json!(["read"])));
    assert_eq!(plane.get(&format!("/keys/{id}")).await.1["state"], "active");
    plane.clock.advance(Duration::from_secs(3600));
    assert_eq!(plane.get(&format!("/keys/{id}")).await.1["state"], "revoked");
}

#[tokio::test]
async fn disabling_needs_postgres_and_says_what_works_without() {
    let plane = Plane::embedded();
    plane.post("/clients", json!({"name": "acme"})).await;
    let (status, problem) = plane.post("/clients/acme/disable", json!({})).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(problem["code"], "postgres_required");
    assert!(problem["detail"].as_str().expect("text").contains("revoke"), "{problem}");

    let plane = Plane::attached();
    plane.post("/clients", json!({"name": "acme"})).await;
    let (status, shown) = plane.post("/clients/acme/disable", json!({})).await;
    assert_eq!((status, &shown["enabled"]), (StatusCode::OK, &json!(false)));
    assert_eq!(*plane.told.0.lock().expect("not poisoned"), ["client acme false"]);
    let id = plane.key(json!({"client": "acme"})).await["id"].as_str().expect("text").to_owned();
    let (status, problem) = plane.post(&format!("/keys/{id}/disable"), json!({})).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(problem["code"], "postgres_unavailable");
    let detail = problem["detail"].as_str().expect("text");
    assert!(detail.contains(&format!("gatepost key revoke {id}")), "{detail}");
}

#[tokio::test]
async fn bad_requests_are_told_what_is_wrong() {
    let plane = Plane::embedded();
    plane.post("/clients", json!({"name": "acme"})).await;
    for (path, body) in [
        ("/clients", json!({"name": ""})),
        ("/clients", json!({"nam": "x"})),
        ("/clients", json!([])),
        ("/keys", json!({"client": "acme", "env": "LIVE"})),
        ("/keys", json!({"client": "acme", "expires_in": "0s"})),
        ("/keys", json!({"client": "acme", "expires_in": "soon"})),
        ("/keys", json!({"client": "acme", "expires_in": "200years"})),
        ("/keys", json!({"client": "acme", "scopes": ["a\u{7}"]})),
        ("/keys/not-an-id/revoke", json!({})),
    ] {
        let (status, problem) = plane.post(path, body.clone()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path} {body}: {problem}");
        assert_eq!(problem["code"], "bad_request");
    }
    let huge = json!({"name": "x".repeat(BODY_MAX_BYTES)});
    assert_eq!(plane.post("/clients", huge).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let file = |bytes| json!({"policies": [{"name": "x".repeat(bytes)}]});
    for (bytes, taken) in [(POLICIES_MAX_BYTES - 100, true), (POLICIES_MAX_BYTES, false)] {
        let (status, problem) = plane.post("/policies/apply", file(bytes)).await;
        assert_eq!(status != StatusCode::PAYLOAD_TOO_LARGE, taken, "{bytes}: {problem}");
    }
    assert_eq!(plane.get("/usage?period=week").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(plane.get("/nothing").await.0, StatusCode::NOT_FOUND);
    let (status, problem) = plane.get("/log/drain").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{problem}");
}

#[tokio::test]
async fn what_is_known_is_shown_without_postgres() {
    let plane = Plane::embedded();
    assert_eq!(plane.get("/usage").await, (StatusCode::OK, json!([])));
    let (status, problem) = plane.get("/usage?client=nope").await;
    assert_eq!((status, &problem["code"]), (StatusCode::NOT_FOUND, &json!("not_found")));
    plane.post("/clients", json!({"name": "acme"})).await;
    assert_eq!(plane.get("/usage?client=acme").await, (StatusCode::OK, json!([])));
    let (status, log) = plane.get("/log").await;
    assert_eq!(
        (status, &log["drain"], &log["full"]),
        (StatusCode::OK, &Value::Null, &json!(false))
    );
    let (_, problem) = plane.post("/log/drain", json!({})).await;
    assert_eq!(problem["code"], "postgres_required");
    plane.clock.advance(Duration::from_secs(3));
    let (_, status) = plane.get("/status").await;
    assert_eq!((&status["mode"], &status["node"]), (&json!("embedded"), &json!("gw")));
    assert_eq!(status["uptime_seconds"], json!(3.0));
    assert_eq!(status["journal"]["lanes"].as_array().map(Vec::len), Some(4));
}

#[tokio::test]
async fn health_and_metrics_need_no_token_on_loopback() {
    let plane = Plane::embedded();
    for (path, open) in [
        ("/livez", true),
        ("/readyz", true),
        ("/readyz?verbose", true),
        ("/metrics", true),
        ("/admin/v1/status", false),
        ("/admin/v1/nothing", false),
    ] {
        let request = Request::builder().uri(path).body(Body::empty()).expect("a request");
        let response = plane.router.clone().oneshot(request).await.expect("infallible");
        let expected = if open { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
        assert_eq!(response.status(), expected, "{path}");
    }
}

/// However many facts there are, and whoever reads them.
#[tokio::test]
async fn what_is_read_of_the_log_ends_when_the_gateway_stops() {
    let plane = Plane::embedded();
    let (stopping, journal) = (plane.control.stopping.clone(), plane.control.journal.clone());
    plane.post("/clients", json!({"name": "acme"})).await;
    assert_eq!(plane.get("/log/verify").await.1["facts"], 1);
    let path = format!("/log/facts?of={}", journal.segments(Lane::State)[0].stream);
    stopping.cancel();
    let (status, only) = plane.get(&path).await;
    assert_eq!(status, StatusCode::OK);
    assert!(only["error"].as_str().is_some_and(|why| why.contains("is stopping")), "{only}");
    let (status, problem) = plane.get("/log/verify").await;
    assert_eq!((status.as_u16(), &problem["code"]), (503, &json!("stopping")));
}

#[tokio::test]
async fn a_full_journal_is_unready_only_where_requests_are_refused() {
    use journal::OnFull;
    for (on_full, expected) in
        [(OnFull::Reject, StatusCode::SERVICE_UNAVAILABLE), (OnFull::DropAndCount, StatusCode::OK)]
    {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(ManualClock::new(Timestamp::from_hour(500_000)));
        let mut control = control(dir.path(), clock, None);
        let full = journal::Config { max_pending: 0, on_full, ..journal::Config::default() };
        let (journal, _) = Journal::open(
            &dir.path().join("full"),
            full,
            Arc::clone(&control.clock),
            Arc::clone(&control.entropy),
            Arc::clone(&control.metrics),
        )
        .expect("a journal");
        control.journal = journal;
        assert!(control.journal.status().full);
        let request = Request::builder().uri("/readyz").body(Body::empty()).expect("a request");
        let router = router(Arc::new(control));
        let response = router.oneshot(request).await.expect("infallible");
        assert_eq!(response.status(), expected, "{on_full:?}");
    }
}
