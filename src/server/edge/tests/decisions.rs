//! Forward-auth, verification and health.

use super::*;
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
    assert_eq!(answer.header("x-gatepost-scopes"), Some("orders.read orders.delete"));

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
#[tokio::test(flavor = "multi_thread")]
async fn unsafe_original_paths_are_bad_requests() {
    let gateway = Gateway::start(echo(), &[], &orders());
    let good = key(1);
    let path = "/rest/v1/%2e%2e/admin";
    let headers = [("x-api-key", good.reveal()), ("x-forwarded-uri", path)];
    let answer = gateway.get("/authz/forward-auth", &headers).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "bad_request"));
}
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

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_counted_takes_nothing_and_tells_the_limits_as_they_stand() {
    let gateway = Gateway::start(echo(), &[], &orders());
    gateway.journal.shutdown().expect("a working disk");
    let counted = key(10);
    let credential = [("x-api-key", counted.reveal())];
    let body = format!(r#"{{"key":"{}"}}"#, counted.reveal());
    for path in ["/authz/forward-auth", "/authz/auth-request", "/v1/keys/verify", "/rest/v1/orders"]
    {
        let answer = match path {
            "/v1/keys/verify" => gateway.ask("POST", path, &[], &body).await,
            _ => gateway.get(path, &credential).await,
        };
        assert_eq!(answer.code(), "accounting_unavailable", "{path}");
        let told = answer.header("ratelimit").unwrap_or_default();
        assert!(told.starts_with("\"yearly\";r=2;t="), "{path}: {told}");
        assert_eq!(answer.header("ratelimit-policy"), Some("\"yearly\";q=2"), "{path}");
    }
    let explain = body.replace('}', r#","explain":true}"#);
    let operator = [("authorization", "Bearer s3cret")];
    let told = gateway.ask("POST", "/v1/keys/verify", &operator, &explain).await.json();
    assert_eq!(told["valid"], false, "{told}");
    let last = told["steps"].as_array().and_then(|steps| steps.last()).expect("steps");
    assert_eq!((&last["check"], &last["verdict"]), (&"accounting".into(), &"undecidable".into()));
}
