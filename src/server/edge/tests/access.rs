//! Who is let through on a route, and what a route adds.

use std::collections::BTreeMap;

use secrecy::ExposeSecret;

use super::*;
use crate::server::Access;

fn open_to(access: Access, path: &str) -> RouteConfig {
    RouteConfig { access, ..route(path, "echo") }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_to_everybody_names_nobody_and_counts_for_nobody() {
    let gateway = Gateway::start(echo(), &[], &[open_to(Access::Anonymous, "/open/{table}")]);
    let (good, bad) = (key(1), key(99));
    // A credential is not even looked at; one that is wrong does no harm.
    for credential in [None, Some(good.reveal()), Some(bad.reveal()), Some("junk")] {
        let mut headers = vec![("x-gatepost-client", "evil"), ("x_gatepost_subject", "root")];
        headers.extend(credential.map(|credential| ("x-api-key", credential)));
        let answer = gateway.get("/open/orders", &headers).await;
        assert_eq!(answer.status, StatusCode::OK);
        let seen = &answer.json()["headers"];
        for name in ["client", "key-id", "subject", "scopes"] {
            let values = &seen[format!("x-gatepost-{name}")];
            assert_eq!(values, &serde_json::json!([""]), "{name}: {seen}");
        }
        assert!(seen["x-api-key"].is_null() && seen["x_gatepost_subject"].is_null(), "{seen}");
    }
    let asked = [("x-forwarded-uri", "/open/orders"), ("x-forwarded-method", "PUT")];
    let answer = gateway.get("/authz/forward-auth", &asked).await;
    assert_eq!(answer.status, StatusCode::OK);
    for name in ["client", "key-id", "subject", "scopes"] {
        assert_eq!(answer.header(&format!("x-gatepost-{name}")), Some(""), "{name}");
    }
    // Where no route is open, and where nobody says which, a credential is asked for.
    for headers in [&[("x-forwarded-uri", "/open/a/b")][..], &[]] {
        let answer = gateway.get("/authz/forward-auth", headers).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(gateway.metrics.admission.anonymous.get(), 5);
    assert_eq!(gateway.counted().await, HashMap::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_takes_keys_or_tokens_or_both() {
    let routes = [
        open_to(Access::Key, "/key"),
        open_to(Access::Token, "/token"),
        open_to(Access::Any, "/any"),
    ];
    let gateway = Gateway::start(echo(), &[], &routes);
    let (_, issued) = gateway.session().await;
    let good = key(7);
    let key = ("x-api-key", good.reveal());
    let token = ("x-api-key", issued.access_token.expose_secret());
    for (path, credential, status) in [
        ("/key", key, StatusCode::OK),
        ("/key", token, StatusCode::UNAUTHORIZED),
        ("/token", key, StatusCode::UNAUTHORIZED),
        ("/token", token, StatusCode::OK),
        ("/any", key, StatusCode::OK),
        ("/any", token, StatusCode::OK),
    ] {
        // The session may read orders only, and these are none.
        let answer = gateway.get(path, &[credential]).await;
        let forward_auth = [credential, ("x-forwarded-uri", path)];
        let asked = gateway.get("/authz/forward-auth", &forward_auth).await;
        assert_eq!((answer.status, asked.status), (status, status), "{path} {credential:?}");
        if status == StatusCode::UNAUTHORIZED {
            assert_eq!(answer.code(), "invalid_credential");
        }
    }
    for path in ["/key", "/token", "/any"] {
        assert_eq!(gateway.get(path, &[]).await.code(), "missing_credential", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_has_bounds_and_headers_of_its_own() {
    let table = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    let own = RouteConfig {
        body_max: Some(Size::kib(1)),
        request_headers: table("X-Tenant", "ours"),
        response_headers: table("Cache-Control", "no-store"),
        ..open_to(Access::Anonymous, "/own")
    };
    let gateway = Gateway::start(echo(), &[], &[own, open_to(Access::Anonymous, "/usual")]);
    let body = "x".repeat(1025);
    assert_eq!(gateway.ask("POST", "/own", &[], &body).await.code(), "body_too_large");
    assert_eq!(gateway.ask("POST", "/usual", &[], &body).await.status, StatusCode::OK);
    // What a client says under that name does not arrive, nor can it name ours away.
    let claims = [("x-tenant", "evil"), ("connection", "x-tenant")];
    let answer = gateway.get("/own", &claims).await;
    assert_eq!(answer.json()["headers"]["x-tenant"], serde_json::json!(["ours"]));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(gateway.get("/usual", &[]).await.header("cache-control"), None);
}
