//! The token endpoints: what is refused, how, and that the answer tells nothing more.

mod forged;
mod metadata;
mod narrowed;
mod undecided;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::*;
use crate::clock::Clock;
use crate::model::Session;
use crate::model::fact::{Revocation, RevocationKind, StateFact};
use crate::tokens::{Issued, NewSession};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

impl Gateway {
    /// A session of alice's at acme, and its pair; nobody has recorded it.
    fn begin(&self) -> (Session, Issued) {
        let (subject, client) = ("alice".into(), "acme".into());
        let scopes = vec!["orders.read".into()];
        let session = self.tokens.begin(NewSession { subject, client, scopes, ttl: None });
        let issued = self.tokens.issue(&session);
        (session, issued)
    }

    pub(super) async fn session(&self) -> (Session, Issued) {
        let (session, issued) = self.begin();
        let fact = StateFact::Session(session.clone());
        self.cache.pin(&fact);
        self.journal.append(vec![fact]).expect("room").durable().await.expect("a disk");
        (session, issued)
    }

    async fn refresh(&self, token: &str) -> Answer {
        let body = json!({ "refresh_token": token }).to_string();
        self.ask("POST", "/api/auth/refresh", &[], &body).await
    }

    async fn form(&self, path: &str, parameters: &[(&str, &str)]) -> Answer {
        let body =
            form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        self.ask("POST", path, &[FORM], &body).await
    }

    async fn grant(&self, token: &str) -> Answer {
        self.grant_to(token, &[]).await
    }

    async fn grant_to(&self, token: &str, more: &[(&str, &str)]) -> Answer {
        let parameters = [("grant_type", "refresh_token"), ("refresh_token", token)];
        self.form("/oauth/token", &[&parameters, more].concat()).await
    }

    async fn introspect(&self, token: &str) -> Answer {
        let may = key(6);
        let parameters = [("client_secret", may.reveal()), ("token", token)];
        self.form("/oauth/introspect", &parameters).await
    }

    async fn revoke(&self, token: &str) -> Answer {
        self.form("/oauth/revoke", &[("token", token)]).await
    }

    async fn with_bearer(&self, token: &str) -> Answer {
        let bearer = format!("Bearer {token}");
        self.get("/authz/forward-auth", &[("authorization", &bearer)]).await
    }

    /// The sessions that are revoked.
    fn revoked(&self) -> usize {
        self.cache.sessions(None, 1000, &|session| session.revoked_at.is_some()).len()
    }
}

fn access_token(issued: &Issued) -> String {
    issued.access_token.expose_secret().to_owned()
}

/// What a caller can tell one answer from another by.
fn told(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let own = ["x-request-id", "date"];
    let headers = answer.headers.iter().filter(|(name, _)| !own.contains(&name.as_str()));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = headers.map(|(name, value)| (name.to_string(), text(value.as_bytes())));
    (answer.status.as_u16(), headers.collect(), text(&answer.body))
}

fn refresh_token(issued: &Issued) -> String {
    issued.refresh_token.as_ref().expect("of a session").expose_secret().to_owned()
}

fn error(answer: &Answer) -> (u16, String) {
    let word = answer.json()["error"].as_str().expect("an error").to_owned();
    (answer.status.as_u16(), word)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_with_a_refresh_token_the_answer_is_the_same() {
    let gateway = Gateway::start(Config::default(), &[], &[]);
    let (session, issued) = gateway.session().await;
    let good = refresh_token(&issued);
    let (_, over) = gateway.session().await;
    let over = refresh_token(&over);
    let used =
        gateway.refresh(&over).await.json()["refresh_token"].as_str().expect("it").to_owned();
    let used =
        gateway.refresh(&used).await.json()["refresh_token"].as_str().expect("it").to_owned();
    // Two behind: that revokes, and what was good is over.
    let mut bad = vec![over.clone(), used, String::new(), "x".into(), "é\u{0}".into()];
    bad.push(issued.access_token.expose_secret().to_owned());
    bad.push(good.to_uppercase());
    bad.push(format!("{good}0"));
    bad.push(good[..good.len() - 1].to_owned());
    bad.push(good.replace("_0_", "_1_"));
    bad.push(good.replace("_0_", "_99999999999999999999_"));
    bad.push("gpr_".repeat(1000));
    bad.push(key(1).reveal().to_owned());
    let other = Gateway::start(Config::default(), &[], &[]);
    bad.push(refresh_token(&other.session().await.1));

    let first = gateway.refresh(&over).await;
    assert_eq!((first.status.as_u16(), first.code().as_str()), (401, "invalid_grant"));
    assert_eq!(first.header("cache-control"), Some("no-store"));
    let in_form = gateway.grant(&over).await;
    assert_eq!(error(&in_form), (400, "invalid_grant".into()));
    assert_eq!(in_form.header("cache-control"), Some("no-store"));
    for token in &bad {
        let answer = gateway.refresh(token).await;
        assert_eq!(told(&answer), told(&first), "{token}");
        if !token.is_empty() {
            let answer = gateway.grant(token).await;
            assert_eq!(told(&answer), told(&in_form), "{token}");
        }
    }
    // And none of them has touched the session that is good.
    assert_eq!(gateway.refresh(&good).await.status, StatusCode::OK);
    let held = gateway.cache.session_turn(session.id).get().expect("a disk").expect("it is");
    assert!(held.session().revoked_at.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_understood_are_told_so() {
    let gateway = Gateway::start(Config::default(), &[], &[]);
    let invalid = (400, "invalid_request".to_owned());
    for body in ["", "{}", "[]", r#"{"refresh_token":1}"#, r#"{"refresh_token":"a","x":1}"#] {
        let answer = gateway.ask("POST", "/api/auth/refresh", &[], body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (400, "bad_request"),
            "{body}"
        );
    }
    let large = "x".repeat(17 * 1024);
    let answer = gateway.refresh(&large).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (413, "body_too_large"));
    let answer = gateway.grant(&large).await;
    assert_eq!(error(&answer), (413, "invalid_request".into()));

    assert_eq!(error(&gateway.form("/oauth/token", &[]).await), invalid);
    let twice = [("grant_type", "refresh_token"), ("grant_type", "refresh_token")];
    assert_eq!(error(&gateway.form("/oauth/token", &twice).await), invalid);
    let json = gateway.ask("POST", "/oauth/token", &[], "{}").await;
    assert_eq!(error(&json), invalid);
    let password = [("grant_type", "password"), ("username", "a")];
    let unsupported = (400, "unsupported_grant_type".to_owned());
    assert_eq!(error(&gateway.form("/oauth/token", &password).await), unsupported);
    assert_eq!(error(&gateway.form("/oauth/revoke", &[]).await), invalid);
    for path in ["/oauth/token", "/oauth/revoke", "/oauth/introspect"] {
        let answer = gateway.get(path, &[]).await;
        assert_eq!(error(&answer), (405, "invalid_request".into()));
        assert_eq!(answer.header("allow"), Some("POST"));
    }
    let answer = gateway.get("/api/auth/refresh", &[]).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    for path in ["/.well-known/jwks.json", "/.well-known/oauth-authorization-server"] {
        assert_eq!(gateway.get(path, &[]).await.status, StatusCode::OK);
        let answer = gateway.ask("POST", path, &[], "").await;
        assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, Some("GET, HEAD")));
        assert!(gateway.ask("HEAD", path, &[], "").await.body.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_exchanged_by_its_own_client_only() {
    let gateway = Gateway::start(Config::default(), &[], &[]);
    let exchange = async |more: &[(&str, &str)]| {
        let parameters = [&[("grant_type", "client_credentials")], more].concat();
        gateway.form("/oauth/token", &parameters).await
    };
    let (good, disabled, expired, shut) = (key(1), key(2), key(3), key(4));
    let answer = exchange(&[("client_id", "acme"), ("client_secret", good.reveal())]).await;
    let issued = answer.json();
    assert_eq!(issued["scope"], "orders.read orders.delete");
    assert_eq!((&issued["token_type"], &issued["expires_in"]), (&json!("Bearer"), &json!(300)));
    assert_eq!(issued["refresh_token"], Value::Null);
    let token = issued["access_token"].as_str().expect("a token").to_owned();

    let invalid = (401, "invalid_client".to_owned());
    for secret in [disabled.reveal(), expired.reveal(), key(9).reveal(), "gp_live_x", &token] {
        let refused = exchange(&[("client_secret", secret)]).await;
        assert_eq!(error(&refused), invalid, "{secret}");
        assert_eq!(refused.header("www-authenticate"), Some("Basic realm=\"gatepost\""));
    }
    assert_eq!(error(&exchange(&[]).await), invalid);
    assert_eq!(error(&exchange(&[("client_id", "acme")]).await), invalid);
    let other = [("client_id", "other"), ("client_secret", good.reveal())];
    assert_eq!(error(&exchange(&other).await), invalid);
    let refused = exchange(&[("client_secret", shut.reveal())]).await;
    assert_eq!(error(&refused), (400, "unauthorized_client".into()));
    for scope in ["admin", "orders.read admin", &"s".repeat(200)] {
        let refused = exchange(&[("client_secret", good.reveal()), ("scope", scope)]).await;
        assert_eq!(error(&refused), (400, "invalid_scope".into()), "{scope}");
    }
    // What is refused takes nothing of a quota that it would not be counted in.
    let counted = key(10);
    for left in [Some("1"), None, Some("0"), None] {
        let scope = if left.is_some() { "orders.read" } else { "admin" };
        let answer = exchange(&[("client_secret", counted.reveal()), ("scope", scope)]).await;
        let told = answer.header("ratelimit").and_then(|told| told.split(";r=").nth(1));
        let told = told.and_then(|told| told.split(';').next());
        assert_eq!((answer.status == StatusCode::OK, told), (left.is_some(), left), "{scope}");
    }
    // It is counted as a use of the key, denials too, and the token's own uses are the key's.
    let used = gateway.with_bearer(&token).await;
    assert_eq!(used.header("x-gatepost-client"), Some("acme"));
    assert_eq!(used.header("x-gatepost-key-id"), Some(&*Uuid::from_u128(1).to_string()));
    assert_eq!(used.header("x-gatepost-subject"), Some(""));
    // It ends with its client's log-out; the key does not.
    let bearer = format!("Bearer {token}");
    let (kind, at) = (RevocationKind::Client, Timestamp(i64::MAX));
    gateway.cache.pin(&StateFact::Revoked(Revocation { kind, id: "acme".into(), at }));
    let over = gateway.get("/authz/forward-auth", &[("authorization", &bearer)]).await;
    assert_eq!((over.status.as_u16(), over.code().as_str()), (401, "invalid_credential"));
    let key = gateway.get("/authz/forward-auth", &[("x-api-key", good.reveal())]).await;
    assert_eq!(key.status, StatusCode::OK);
    assert_eq!(gateway.counted().await[":access"][..4], [9, 5, 0, 4]);
}

/// It is replaced, and its overlap ends in less than the life of a token.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_lives_no_longer_than_the_key_that_it_is_made_of() {
    let gateway = Gateway::start(Config::default(), &[], &[]);
    let at = SystemClock::new().now().plus(Duration::from_secs(100));
    let (kind, id) = (RevocationKind::Key, Uuid::from_u128(1).to_string().into());
    gateway.cache.pin(&StateFact::Revoked(Revocation { kind, id, at }));
    let secret = key(1);
    let parameters = [("grant_type", "client_credentials"), ("client_secret", secret.reveal())];
    let issued = gateway.form("/oauth/token", &parameters).await.json();
    assert!(issued["expires_in"].as_u64().is_some_and(|secs| secs <= 100), "{issued}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_has_a_right_that_its_key_was_not_given() {
    let gateway = Gateway::start(Config::default(), &[], &[]);
    let ask = async |credential: &str| {
        let stranger = ("x-forwarded-for", "203.0.113.9");
        let body = json!({ "key": key(1).reveal() }).to_string();
        let headers = [stranger, ("x-api-key", credential)];
        gateway.ask("POST", "/v1/keys/verify", &headers, &body).await.status.as_u16()
    };
    for (seed, verifies) in [(7, 403), (5, 200)] {
        let secret = key(seed);
        assert_eq!(ask(secret.reveal()).await, verifies);
        let exchange = [
            ("grant_type", "client_credentials"),
            ("client_secret", secret.reveal()),
            ("scope", "keys.verify"),
        ];
        let answer = gateway.form("/oauth/token", &exchange).await;
        if seed == 7 {
            // Nothing narrows it, but nothing was granted by name either: an upstream would take a
            // scope in the header for a grant.
            assert_eq!(error(&answer), (400, "invalid_scope".into()));
            continue;
        }
        assert_eq!(answer.json()["scope"], "keys.verify");
        let token = answer.json()["access_token"].as_str().expect("a token").to_owned();
        assert_eq!(ask(&token).await, 403, "of key {seed}");
    }
    let (own, of_session) = (key(7), access_token(&gateway.session().await.1));
    for credential in [own.reveal(), &of_session] {
        let answer = gateway.form("/oauth/introspect", &[("client_secret", credential)]).await;
        assert!([401, 403].contains(&answer.status.as_u16()), "{}", answer.status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_say_who_it_is_and_then_it_must_be_the_sessions() {
    let gateway = Gateway::start(Config::default(), &[], &[]);
    let (_, issued) = gateway.session().await;
    let first = refresh_token(&issued);
    let grant = (400, "invalid_grant".to_owned());
    let other = gateway.grant_to(&first, &[("client_secret", key(8).reveal())]).await;
    assert_eq!(error(&other), grant, "a stranger's key");
    assert_eq!(error(&gateway.grant_to(&first, &[("client_id", "other")]).await), grant);
    let client = (401, "invalid_client".to_owned());
    for wrong in [key(9).reveal(), key(2).reveal(), "x"] {
        let refused = gateway.grant_to(&first, &[("client_secret", wrong)]).await;
        assert_eq!(error(&refused), client, "{wrong}");
    }
    assert_eq!(error(&gateway.grant_to(&first, &[("scope", "admin")]).await).1, "invalid_scope");
    // None of it has used the token up.
    let (good, body) = (key(1), format!("grant_type=refresh_token&refresh_token={first}"));
    let basic = |pair: String| format!("Basic {}", STANDARD.encode(pair));
    let as_acme = basic(format!("acme:{}", good.reveal()));
    let headers = [FORM, ("authorization", as_acme.as_str())];
    let answer = gateway.ask("POST", "/oauth/token", &headers, &body).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("pragma"), Some("no-cache"));
    assert_eq!(answer.json()["scope"], "orders.read");
    assert!(gateway.metrics.tokens.repeated.get() == 0, "it was the first");

    // Names are form-urlencoded in Basic, and no key is taken in two ways.
    let exchange = "grant_type=client_credentials";
    let (web, with_key) = (key(8), ("x-api-key", good.reveal()));
    let as_web = basic(format!("my+web%2Fapp:{}", web.reveal()));
    let headers = [FORM, ("authorization", as_web.as_str())];
    let answer = gateway.ask("POST", "/oauth/token", &headers, exchange).await;
    assert_eq!((answer.status, answer.json()["scope"].as_str()), (StatusCode::OK, None));
    let headers = [headers[0], headers[1], with_key];
    let twice = gateway.ask("POST", "/oauth/token", &headers, exchange).await;
    assert_eq!(error(&twice), (400, "invalid_request".into()));
    let answer = gateway.ask("POST", "/oauth/token", &[FORM, with_key], exchange).await;
    assert_eq!(answer.json()["scope"], "orders.read orders.delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn introspection_needs_a_right_and_tells_nothing_of_what_is_over() {
    let gateway = Gateway::start(Config::default(), &[], &[]);
    let (_, issued) = gateway.session().await;
    let (access, refresh) = (issued.access_token.expose_secret(), refresh_token(&issued));
    let ask = async |key: &str, token: &str| {
        gateway.form("/oauth/introspect", &[("client_secret", key), ("token", token)]).await
    };
    let (may, may_not) = (key(6), key(1));
    assert_eq!(error(&ask(may_not.reveal(), access).await), (403, "insufficient_scope".into()));
    let nobody = gateway.form("/oauth/introspect", &[("token", access)]).await;
    assert_eq!(error(&nobody), (401, "invalid_client".into()));
    let told = ask(may.reveal(), access).await.json();
    assert_eq!((&told["active"], &told["sub"]), (&json!(true), &json!("alice")));
    assert_eq!(ask(may.reveal(), &refresh).await.json()["active"], true);

    let other = gateway.form("/oauth/revoke", &[("token", &refresh), ("client_id", "x")]).await;
    assert_eq!(error(&other), (400, "unauthorized_client".into()));
    assert_eq!(ask(may.reveal(), access).await.json()["active"], true, "it was not revoked");
    // By its access token: the session is over with it.
    let revoked = gateway.form("/oauth/revoke", &[("token", access)]).await;
    assert_eq!((revoked.status.as_u16(), revoked.json()), (200, json!({})));
    let inactive = json!({ "active": false });
    for token in [access, &refresh, may.reveal(), "x"] {
        assert_eq!(ask(may.reveal(), token).await.json(), inactive, "{token}");
        let again = gateway.form("/oauth/revoke", &[("token", token)]).await;
        assert_eq!(again.status, StatusCode::OK, "what is not good is revoked already");
    }
    let denied = gateway.with_bearer(access).await;
    assert_eq!((denied.status.as_u16(), denied.code().as_str()), (401, "invalid_credential"));
    let exchange = [("grant_type", "client_credentials"), ("client_secret", may_not.reveal())];
    let of_key = gateway.form("/oauth/token", &exchange).await;
    let of_key = of_key.json()["access_token"].as_str().expect("a token").to_owned();
    let kept = gateway.form("/oauth/revoke", &[("token", &of_key)]).await;
    assert_eq!(error(&kept), (400, "unsupported_token_type".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_recorded_is_not_done_and_nothing_is_revoked_for_it() {
    let gateway = Gateway::start(Config::default(), &[], &[]);
    let (session, issued) = gateway.session().await;
    let token = refresh_token(&issued);
    gateway.journal.shutdown().expect("a working disk");
    for _ in 0..3 {
        let answer = gateway.refresh(&token).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (503, "accounting_unavailable")
        );
        assert!(answer.header("retry-after").is_some());
        let answer = gateway.grant(&token).await;
        assert_eq!(error(&answer), (503, "temporarily_unavailable".into()));
        assert!(answer.header("retry-after").is_some());
    }
    let held = gateway.cache.session_turn(session.id).get().expect("a disk").expect("it is");
    assert!(held.session().revoked_at.is_none());
    // A revocation is in force all the same, and says so.
    for _ in 0..2 {
        let answer = gateway.revoke(&token).await;
        assert_eq!(error(&answer), (503, "temporarily_unavailable".into()));
        let why = answer.json()["error_description"].as_str().expect("text").to_owned();
        assert!(why.contains("is revoked here") && why.contains("restart"), "{why}");
        assert_eq!(gateway.refresh(&token).await.status, StatusCode::UNAUTHORIZED);
    }
}
