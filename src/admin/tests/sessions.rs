//! Sessions, logging out everywhere, the recovery window and token keys.

use secrecy::ExposeSecret;

use super::*;
use crate::model::fact::{Revocation, RevocationKind, StateFact};
use crate::model::{Advance, Client, Session};
use crate::tokens::{Asked, TokenError};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A pair as it was handed out.
struct Pair {
    id: String,
    refresh: String,
}

impl Plane {
    async fn with_client() -> Self {
        let plane = Self::embedded();
        plane.post("/clients", json!({"name": "web"})).await;
        plane
    }

    async fn session(&self, subject: &str) -> Pair {
        let asked = json!({"subject": subject, "client": "web", "scopes": ["read"]});
        let (status, made) = self.post("/sessions", asked).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        let text = |name: &str| made[name].as_str().expect("text").to_owned();
        Pair { id: text("id"), refresh: text("refresh_token") }
    }

    async fn refresh(&self, token: &str) -> Result<String, TokenError> {
        let issued = self.control.tokens.refresh(token, Asked::default()).await?;
        Ok(issued.refresh_token.expect("of a session").expose_secret().to_owned())
    }

    async fn state(&self, session: &Pair) -> Value {
        self.get(&format!("/sessions/{}", session.id)).await.1["state"].clone()
    }
}

#[tokio::test]
async fn a_session_begins_and_its_tokens_are_shown_once() {
    let plane = Plane::embedded();
    let asked = json!({"subject": "alice", "client": "web", "scopes": ["read"], "ttl": "1h"});
    let (status, problem) = plane.post("/sessions", asked.clone()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(problem["detail"].as_str().expect("text").contains("client create web"), "{problem}");
    plane.post("/clients", json!({"name": "web"})).await;

    let made = plane.response(Method::POST, "/admin/v1/sessions", asked.to_string()).await;
    assert_eq!(made.status(), StatusCode::CREATED);
    assert_eq!(made.headers()[header::CACHE_CONTROL], "no-store");
    assert_eq!(made.headers()[header::PRAGMA], "no-cache");
    let bytes = made.into_body().collect().await.expect("a body").to_bytes();
    let made: Value = serde_json::from_slice(&bytes).expect("JSON");
    assert_eq!(made.as_object().map(serde_json::Map::len), Some(5), "{made}");
    assert_eq!((&made["token_type"], &made["expires_in"]), (&json!("Bearer"), &json!(300)));
    let access = made["access_token"].as_str().expect("text");
    let bearer = plane.control.tokens.verify(access).expect("one of ours");
    assert_eq!((&*bearer.subject, &*bearer.principal.client), ("alice", "web"));
    let first = made["refresh_token"].as_str().expect("text");
    let second = plane.refresh(first).await.expect("current");

    let (_, shown) = plane.get(&format!("/sessions/{}", made["id"].as_str().expect("text"))).await;
    let text = shown.to_string();
    assert!([access, first, &second].iter().all(|token| !text.contains(token)), "{text}");
    assert_eq!((&shown["state"], &shown["generation"]), (&json!("active"), &json!(1)));
    assert_eq!((&shown["subject"], &shown["node"]), (&json!("alice"), &json!("gw")));
    assert_eq!(shown["scopes"], json!(["read"]));
    plane.clock.advance(Duration::from_secs(3600));
    let (_, list) = plane.get("/sessions").await;
    assert_eq!((&list[0]["id"], &list[0]["state"]), (&made["id"], &json!("expired")));
}

#[tokio::test]
async fn sessions_are_listed_by_whose_they_are_and_page_by_page() {
    let plane = Plane::with_client().await;
    let mut all = Vec::new();
    for subject in ["alice", "bob", "alice"] {
        all.push(plane.session(subject).await.id);
        plane.clock.advance(Duration::from_millis(1));
    }
    let ids = async |query: &str| {
        let (status, list) = plane.get(&format!("/sessions{query}")).await;
        assert_eq!(status, StatusCode::OK, "{list}");
        let list = list.as_array().expect("a list").iter();
        list.map(|shown| shown["id"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids("").await, all);
    assert_eq!(ids("?subject=alice").await, [&*all[0], &*all[2]]);
    assert_eq!(ids("?subject=bob&client=web").await, [&*all[1]]);
    assert!(ids("?client=other").await.is_empty());
    assert_eq!(ids("?limit=2").await, all[..2]);
    assert_eq!(ids(&format!("?limit=2&after={}", all[1])).await, all[2..]);
}

#[tokio::test]
async fn what_is_asked_of_sessions_wrongly_is_told() {
    let plane = Plane::with_client().await;
    let with = |name: &str, value: Value| {
        let mut body = json!({"subject": "alice", "client": "web"});
        body[name] = value;
        body
    };
    for (path, body) in [
        ("/sessions", json!({"client": "web"})),
        ("/sessions", with("subject", json!(""))),
        ("/sessions", with("scopes", json!(["a b"]))),
        ("/sessions", with("ttl", json!("0s"))),
        ("/sessions", with("ttl", json!("366d"))),
        ("/sessions", with("more", json!(1))),
        ("/sessions/revoke", json!({})),
        ("/sessions/revoke", json!({"subject": "alice", "client": "web"})),
        ("/sessions/revoke", json!({"subject": "a\u{7}"})),
        ("/sessions/recover", json!({})),
        ("/sessions/recover", json!({"for": "8d"})),
        ("/sessions/not-an-id/revoke", json!({})),
    ] {
        let (status, problem) = plane.post(path, body.clone()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path} {body}: {problem}");
    }
    assert_eq!(plane.get("/sessions").await.1, json!([]), "nothing was made");
    let client = Client { name: "off".into(), policy: None, enabled: false };
    plane.control.cache.pin(&StateFact::ClientCreated(client));
    let (status, problem) = plane.post("/sessions", with("client", json!("off"))).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("client_disabled")));
}

#[tokio::test]
async fn a_session_is_revoked_for_good_and_only_by_its_own_gateway() {
    let plane = Plane::with_client().await;
    let pair = plane.session("alice").await;
    let revoke = format!("/sessions/{}/revoke", pair.id);
    let (status, shown) = plane.post(&revoke, json!({})).await;
    assert_eq!((status, &shown["state"]), (StatusCode::OK, &json!("revoked")), "{shown}");
    plane.clock.advance(DAY);
    let again = plane.post(&revoke, json!({})).await;
    assert_eq!(again, (StatusCode::OK, shown), "the moment stays");
    assert_eq!(plane.refresh(&pair.refresh).await, Err(TokenError::Invalid));

    let now = plane.control.clock.now();
    let other = Session {
        id: Uuid::from_u128(7),
        node: "gw-2".into(),
        subject: "alice".into(),
        client: "web".into(),
        scopes: Vec::new(),
        created_at: now,
        expires_at: now.plus(DAY),
        advance: Advance { generation: 0, at: now },
        revoked_at: None,
        recovered_at: None,
    };
    plane.control.cache.pin(&StateFact::Session(other.clone()));
    let (status, problem) = plane.post(&format!("/sessions/{}/revoke", other.id), json!({})).await;
    let elsewhere = (StatusCode::SERVICE_UNAVAILABLE, &json!("session_elsewhere"));
    assert_eq!((status, &problem["code"]), elsewhere);
    assert!(problem["detail"].as_str().expect("text").contains("`gw-2`"), "{problem}");
    let nobody = format!("/sessions/{}", Uuid::nil());
    assert_eq!(plane.get(&nobody).await.0, StatusCode::NOT_FOUND);
    assert_eq!(plane.post(&format!("{nobody}/revoke"), json!({})).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_revocation_that_is_on_no_disk_is_in_force_and_never_acknowledged() {
    let plane = Plane::with_client().await;
    let pair = plane.session("alice").await;
    let (_, key) = plane.post("/keys", json!({"client": "web"})).await;
    let key = key["id"].as_str().expect("text").to_owned();
    plane.control.journal.shutdown().expect("a working disk");
    // The first is taken into memory, and its commit fails; later ones find no room even there.
    for _ in 0..1100 {
        for path in [format!("/sessions/{}/revoke", pair.id), format!("/keys/{key}/revoke")] {
            let (status, problem) = plane.post(&path, json!({})).await;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}: {problem}");
            assert_eq!(problem["code"], "accounting_unavailable");
            let detail = problem["detail"].as_str().expect("text");
            assert!(detail.contains("until a restart"), "{detail}");
        }
    }
    assert_eq!(plane.state(&pair).await, "revoked");
    assert_eq!(plane.get(&format!("/keys/{key}")).await.1["state"], "revoked");
}

#[tokio::test]
async fn a_revocation_holds_also_when_not_even_memory_takes_it() {
    let plane = Plane::with_client().await;
    let (pair, bob) = (plane.session("alice").await, plane.session("bob").await);
    let (_, key) = plane.post("/keys", json!({"client": "web"})).await;
    let key = key["id"].as_str().expect("text").to_owned();
    plane.control.journal.shutdown().expect("a working disk");
    let waits =
        || StateFact::ClientCreated(Client { name: "x".into(), policy: None, enabled: true });
    while plane.control.journal.append(vec![waits()]).is_ok() {}
    for (path, body) in [
        (format!("/sessions/{}/revoke", pair.id), json!({})),
        (format!("/keys/{key}/revoke"), json!({})),
        ("/sessions/revoke".to_owned(), json!({"subject": "bob"})),
    ] {
        let (status, problem) = plane.post(&path, body).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}: {problem}");
    }
    assert_eq!(plane.state(&pair).await, "revoked");
    assert_eq!(plane.state(&bob).await, "revoked");
    assert_eq!(plane.get(&format!("/keys/{key}")).await.1["state"], "revoked");
    // What gives something is not in force.
    let (status, _) = plane.post("/keys", json!({"client": "web"})).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let (_, keys) = plane.get("/keys").await;
    assert_eq!(keys.as_array().map(Vec::len), Some(1), "{keys}");
}

#[tokio::test]
async fn logging_out_everywhere_ends_what_was_made_until_then() {
    let plane = Plane::with_client().await;
    let (one, two) = (plane.session("alice").await, plane.session("alice").await);
    let bob = plane.session("bob").await;
    // Loaded before: it must be judged anew.
    let two = Pair { refresh: plane.refresh(&two.refresh).await.expect("current"), ..two };
    let (status, said) = plane.post("/sessions/revoke", json!({"subject": "alice"})).await;
    assert_eq!((status, &said["subject"]), (StatusCode::OK, &json!("alice")), "{said}");
    assert!(said["not_before"].is_string());
    for session in [&one, &two] {
        assert_eq!(plane.state(session).await, "revoked");
        assert_eq!(plane.refresh(&session.refresh).await, Err(TokenError::Invalid));
    }
    assert_eq!(plane.state(&bob).await, "active");
    let (_, list) = plane.get("/sessions?subject=alice").await;
    assert_eq!((&list[0]["state"], &list[1]["state"]), (&json!("revoked"), &json!("revoked")));

    plane.clock.advance(Duration::from_millis(1));
    let three = plane.session("alice").await;
    assert_eq!(plane.state(&three).await, "active", "who logs in again is in");
    let (_, said) = plane.post("/sessions/revoke", json!({"client": "web"})).await;
    assert_eq!(said["client"], "web");
    for session in [&bob, &three] {
        assert_eq!(plane.state(session).await, "revoked");
        assert_eq!(plane.refresh(&session.refresh).await, Err(TokenError::Invalid));
    }
}

#[tokio::test]
async fn logging_out_everywhere_works_also_after_one_by_a_clock_that_is_ahead() {
    let plane = Plane::with_client().await;
    let at = plane.control.clock.now().plus(DAY);
    let (kind, id) = (RevocationKind::Subject, "alice".into());
    plane.control.cache.pin(&StateFact::Revoked(Revocation { kind, id, at }));
    let pair = plane.session("alice").await;
    assert_eq!(plane.state(&pair).await, "active", "made by who knows of it");
    let refresh = plane.refresh(&pair.refresh).await.expect("current");
    plane.post("/sessions/revoke", json!({"subject": "alice"})).await;
    assert_eq!(plane.state(&pair).await, "revoked");
    assert_eq!(plane.refresh(&refresh).await, Err(TokenError::Invalid));
}

#[tokio::test]
async fn the_recovery_window_opens_closes_and_is_shown() {
    let plane = Plane::embedded();
    let until = async || plane.get("/status").await.1["sessions"]["recovery_until"].clone();
    assert_eq!(until().await, Value::Null);
    let (status, said) = plane.post("/sessions/recover", json!({"for": "24h"})).await;
    assert_eq!(status, StatusCode::OK, "{said}");
    assert_eq!(until().await, said["until"]);
    plane.clock.advance(DAY);
    assert_eq!(until().await, Value::Null, "it ends by itself");
    plane.post("/sessions/recover", json!({"for": "7d"})).await;
    assert!(until().await.is_string());
    plane.post("/sessions/recover", json!({"for": "0s"})).await;
    assert_eq!(until().await, Value::Null);
}

#[tokio::test]
async fn token_keys_are_rotated_and_never_shown() {
    let plane = Plane::with_client().await;
    let pair = plane.session("alice").await;
    let (_, before) = plane.get("/token-keys").await;
    plane.clock.advance(DAY);
    let (status, after) = plane.post("/token-keys/rotate", json!({})).await;
    assert_eq!(status, StatusCode::OK, "{after}");
    assert_eq!(plane.get("/token-keys").await.1, after);
    let told = |list: &Value| -> Vec<(String, String)> {
        let text = |key: &Value, name: &str| key[name].as_str().expect("text").to_owned();
        let keys = list.as_array().expect("a list").iter();
        keys.map(|key| {
            // An id, what it is, and a moment: nothing else.
            assert_eq!(key.as_object().map(serde_json::Map::len), Some(4), "{key}");
            assert!(key["id"].as_str().is_some_and(|id| id.len() <= 16), "{key}");
            assert!(key["created_at"].is_string());
            (text(key, "kind"), text(key, "state"))
        })
        .collect()
    };
    let is = |kind: &str, state: &str| (kind.to_owned(), state.to_owned());
    assert_eq!(told(&before), [is("secret", "active"), is("signing", "active")]);
    let (secret, signing) = (is("secret", "old"), is("signing", "old"));
    let all = [is("secret", "active"), secret, is("signing", "active"), signing];
    assert_eq!(told(&after), all);
    let next = plane.refresh(&pair.refresh).await.expect("the old secret proves it");
    let id = after[0]["id"].as_str().expect("text");
    assert!(next.starts_with(&format!("gpr_{id}_")), "{id}: {next}");
}
