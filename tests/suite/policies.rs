//! Policies of the real program: applied, refused, in force on every path, and through outages.

mod applying;
mod changes;
mod crowds;
mod limits;
mod modes;
mod places;

use std::path::PathBuf;
use std::time::Duration;

use axum::http::Method;
use gatepost::clock::{Clock, SystemClock};
use gatepost::config::development_key;
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::database::Database;
use crate::support::gateway::{Gateway, Made, Ran, until};
use crate::support::http::Answer;
use crate::support::wall::WallClock;

const QUICK: &str = "[postgres]\npoll_interval = \"200ms\"\nconnect_timeout = \"500ms\"\n";
const ORDERS: &str = "[[routes]]\npath = \"/rest/v1/{table}\"\nupstream = \"echo\"\n";

fn file(gateway: &Gateway, text: &str) -> PathBuf {
    let path = gateway.dir().join("policies.toml");
    std::fs::write(&path, text).unwrap();
    path
}

async fn apply(gateway: &Gateway, text: &str, more: &[&str]) -> Ran {
    let path = file(gateway, text);
    let mut args = vec!["policy", "apply", path.to_str().unwrap()];
    args.extend(more);
    gateway.run(&args).await
}

/// Applied, and in force here.
async fn enforce(gateway: &Gateway, text: &str) {
    assert_eq!(apply(gateway, text, &[]).await.json()["applied"], true);
    let there: toml::Table = toml::from_str(text).unwrap();
    let there = serde_json::to_value(there).unwrap();
    for policy in there["policies"].as_array().unwrap() {
        let name = policy["name"].as_str().unwrap();
        let wanted = apply(gateway, text, &["--dry-run"]).await.json();
        assert!(wanted["changes"].as_array().unwrap().iter().all(|c| c["change"] == "none"));
        until(format!("{name} is here"), || async {
            let listed = gateway.control(Method::GET, &format!("/policies/{name}"), "").await;
            let listed = listed.expect("an answer");
            listed.status == 200 && contains(&listed.json()["spec"], policy)
        })
        .await;
    }
}

/// Whether all that a policy says is said by what is shown.
fn contains(shown: &Value, policy: &Value) -> bool {
    let said = policy.as_object().unwrap().iter().filter(|(key, _)| *key != "name");
    said.into_iter().all(|(key, value)| match (shown.get(key), value) {
        (Some(Value::Array(shown)), Value::Array(said)) => shown.len() == said.len(),
        (shown, _) => shown.is_some(),
    })
}

async fn key_with(gateway: &Gateway, client: &str, policy: &str) -> Made {
    let args = ["key", "create", "--client", client, "--policy", policy];
    Made::of(&gateway.run(&args).await.json())
}

/// An access token that is made of a key.
async fn token_of(gateway: &Gateway, key: &Made) -> String {
    let form = "grant_type=client_credentials";
    let bearer = format!("Bearer {}", key.key);
    let headers =
        [("authorization", &*bearer), ("content-type", "application/x-www-form-urlencoded")];
    let token = gateway.http().ask(Method::POST, "/oauth/token", &headers, form).await.unwrap();
    token.json()["access_token"].as_str().expect("a token").to_owned()
}

async fn forwarded(gateway: &Gateway, credential: &str, method: Method, path: &str) -> Answer {
    let bearer = format!("Bearer {credential}");
    let headers = [("authorization", bearer.as_str())];
    gateway.http().ask(method, path, &headers, "").await.expect("an answer")
}

async fn verify(gateway: &Gateway, body: Value) -> Answer {
    let body = body.to_string();
    let asked = gateway.http().ask(Method::POST, "/v1/keys/verify", &[], &body);
    asked.await.expect("an answer")
}

async fn ready(db: &Database, settings: &str) -> Gateway {
    let mut gateway = Gateway::new(Some(&db.url), &format!("{settings}{QUICK}{ORDERS}"));
    gateway.start_ready().await;
    gateway.create_client("acme").await;
    gateway
}

#[tokio::test]
async fn a_policy_is_in_force_on_every_path_for_keys_and_tokens() {
    let db = Database::new().await;
    let gateway = ready(&db, "").await;
    let text = "[[policies]]\nname = \"standard\"\nrights = [\"orders.read\", \"gateway.*\"]\n";
    enforce(&gateway, text).await;
    let key = key_with(&gateway, "acme", "standard").await;
    let token = token_of(&gateway, &key).await;
    let args = ["client", "create", "web", "--policy", "standard"];
    assert_eq!(gateway.run(&args).await.json()["policy"], "standard");
    let args = ["session", "create", "--subject", "ann", "--client", "web"];
    let session = gateway.run(&args).await.json();
    let session = session["access_token"].as_str().expect("a token").to_owned();

    for credential in [&key.key, &token, &session] {
        let read = forwarded(&gateway, credential, Method::GET, "/rest/v1/orders").await;
        assert_eq!(read.status, 200, "{}", read.body);
        let write = forwarded(&gateway, credential, Method::POST, "/rest/v1/orders").await;
        assert_eq!((write.status, &*write.code()), (403, "insufficient_scope"));
        assert!(write.body.contains("`orders.write`"), "{}", write.body);
        let bearer = format!("Bearer {credential}");
        for (method, status) in [("GET", 200), ("DELETE", 403)] {
            let headers = [
                ("authorization", &*bearer),
                ("x-forwarded-method", method),
                ("x-forwarded-uri", "/rest/v1/orders"),
            ];
            let path = "/authz/forward-auth";
            let answer = gateway.http().ask(Method::GET, path, &headers, "").await.unwrap();
            assert_eq!(answer.status, status, "{method}");
        }
        assert_eq!(gateway.http().verdict(credential).await.0, 200, "gateway.access");
        let asked = json!({ "key": credential, "table": "orders", "operation": "write" });
        let told = verify(&gateway, asked).await.json();
        assert_eq!((&told["valid"], &told["code"]), (&json!(false), &json!("insufficient_scope")));
    }
}

#[tokio::test]
async fn a_default_that_a_new_gateway_cannot_read_opens_to_nobody() {
    let db = Database::new().await;
    let mut gateway = ready(&db, "").await;
    let key = gateway.create_key("acme").await;
    enforce(&gateway, "[[policies]]\nname = \"default\"\nrights = []\n").await;
    assert_eq!(gateway.http().verdict(&key.key).await.0, 403);
    gateway.drain().await;
    let later = "UPDATE gatepost.policies SET spec = spec || '{\"a_field_of_a_later_version\":1}'";
    db.execute(later).await;
    gateway.terminate().await;
    std::fs::remove_dir_all(gateway.data_dir().join("cache")).unwrap();
    gateway.start_ready().await;
    let unavailable = (503, "api_key_policy_unavailable".to_owned());
    assert_eq!(gateway.http().verdict(&key.key).await, unavailable);
    db.execute("UPDATE gatepost.policies SET spec = '{\"rights\": [\"*\"]}'").await;
    until("it can be read", || async { gateway.http().verdict(&key.key).await.0 == 200 }).await;
}

#[tokio::test]
async fn a_change_reaches_all_keys_at_once() {
    let db = Database::new().await;
    let gateway = ready(&db, "").await;
    enforce(
        &gateway,
        "[[policies]]\nname = \"open\"\n[[policies]]\nname = \"shut\"\nrights = []\n",
    )
    .await;
    let keys = [gateway.create_key("acme").await, key_with(&gateway, "acme", "open").await];
    gateway.drain().await;
    let verdicts = async || {
        let mut all = Vec::new();
        for key in &keys {
            all.push(gateway.http().verdict(&key.key).await.0);
        }
        all
    };
    let becomes = async |what: &'static str, wanted: [u16; 2]| {
        until(what, || async { verdicts().await == wanted }).await;
    };
    assert_eq!(verdicts().await, [200, 200]);
    db.execute("UPDATE gatepost.clients SET policy = 'shut'").await;
    becomes("the client's policy", [403, 200]).await;
    db.execute("UPDATE gatepost.policies SET spec = '{\"rights\": []}' WHERE name = 'open'").await;
    becomes("the key's own", [403, 403]).await;
    let observe = gateway.run(&["client", "mode", "acme", "observe"]).await.json();
    assert_eq!(observe["mode"], "observe");
    becomes("the client's mode", [200, 200]).await;
    let answer = gateway.http().authorize(&keys[0].key).await.unwrap();
    assert_eq!(answer.header("x-gatepost-would-deny"), Some("insufficient_scope"));
    assert_eq!(
        gateway.run(&["client", "mode", "acme", "inherit"]).await.json()["mode"],
        Value::Null
    );
    becomes("none of its own", [403, 403]).await;
    gateway.drain().await;
    let history = "SELECT count(*) FROM gatepost.audit_log WHERE subject = 'acme' \
                   AND action IN ('client.mode.observe', 'client.mode.inherit')";
    assert_eq!(db.number(history).await, 2);
    db.execute("UPDATE gatepost.clients SET policy = NULL").await;
    becomes("the default, where nobody wrote one", [200, 403]).await;
    db.execute("INSERT INTO gatepost.policies (name, spec) VALUES ('default', '{\"rights\": []}')")
        .await;
    becomes("the default as it is written", [403, 403]).await;
    // A policy that nobody knows is no reason to let pass, nor to say no.
    db.execute("UPDATE gatepost.api_keys SET policy = 'nowhere'").await;
    becomes("an unknown policy", [503, 503]).await;
}

#[tokio::test]
async fn policies_hold_while_postgres_is_away_and_through_kill_9() {
    let cluster = Cluster::dedicated();
    let db = cluster.database().await;
    let mut gateway = ready(&db, "").await;
    enforce(
        &gateway,
        "[[policies]]\nname = \"standard\"\nrights = [\"orders.read\"]\nrate_limits = [{ name = \
            \"slow\", limit = 2, window = \"1h\" }]\n",
    )
    .await;
    let key = key_with(&gateway, "acme", "standard").await;
    gateway.drain().await;
    gateway.kill9();
    cluster.stop();
    gateway.start().await;
    let read = async || forwarded(&gateway, &key.key, Method::GET, "/rest/v1/orders").await.status;
    let write = forwarded(&gateway, &key.key, Method::POST, "/rest/v1/orders").await;
    assert_eq!(write.status, 403);
    assert_eq!([read().await, read().await, read().await], [200, 200, 429]);
    let refused = apply(&gateway, "[[policies]]\nname = \"standard\"\n", &[]).await;
    assert_eq!(refused.code, Some(69), "{refused:?}");
}

#[tokio::test]
async fn staleness_is_the_policys_own() {
    let cluster = Cluster::dedicated();
    let db = cluster.database().await;
    let mut gateway = ready(&db, "").await;
    enforce(
        &gateway,
        "[[policies]]\nname = \"strict\"\nmax_stale = \"1ms\"\n[[policies]]\nname = \
            \"lax\"\nmax_stale = \"9h\"\n\
         [[policies]]\nname = \"open\"\nmax_stale = \"1ms\"\non_undecidable = \"allow\"\n",
    )
    .await;
    let strict = key_with(&gateway, "acme", "strict").await;
    let lax = key_with(&gateway, "acme", "lax").await;
    let open = [key_with(&gateway, "acme", "open").await, key_with(&gateway, "acme", "open").await];
    gateway.drain().await;
    cluster.stop();
    for open in open {
        until("the strict one has become too old", || async {
            gateway.http().verdict(&strict.key).await == (503, "api_key_policy_unavailable".into())
        })
        .await;
        assert_eq!(gateway.http().verdict(&lax.key).await.0, 200);
        assert_eq!(gateway.http().verdict(&open.key).await.0, 200, "fail-open is explicit");
        let metrics = gateway.admin().get("/metrics").await.body;
        assert!(metrics.contains("\ngatepost_admission_failed_open_total 1\n"), "{metrics}");
        gateway.revoke(&open).await;
        assert_eq!(
            gateway.http().verdict(&open.key).await,
            (401, "key_revoked".into()),
            "deny wins"
        );
        gateway.kill9();
        gateway.start().await;
    }
    assert!(gateway.said().contains("this policy fails open"));
}

/// A board without a battery for its clock starts in the past, again and again.
#[tokio::test]
async fn what_was_too_old_is_too_old_after_a_restart_with_a_clock_that_is_back() {
    let Some(clock) = WallClock::at(SystemClock::new().now()) else { return };
    let cluster = Cluster::dedicated();
    let db = cluster.database().await;
    let mut gateway = Gateway::new(Some(&db.url), "");
    clock.hang_in(&mut gateway);
    gateway.start().await;
    gateway.create_client("acme").await;
    enforce(&gateway, "[[policies]]\nname = \"strict\"\nmax_stale = \"5s\"\n").await;
    let strict = key_with(&gateway, "acme", "strict").await;
    gateway.drain().await;
    cluster.stop();
    let too_old = (503, "api_key_policy_unavailable".to_owned());
    until("it has become too old", || async {
        gateway.http().verdict(&strict.key).await == too_old
    })
    .await;
    for _ in 0..2 {
        gateway.terminate().await;
        clock.set(clock.now().minus(Duration::from_secs(24 * 3600)));
        gateway.start().await;
        assert_eq!(gateway.http().verdict(&strict.key).await, too_old);
    }
}

#[tokio::test]
async fn an_operator_is_told_why() {
    let mut gateway = Gateway::new(
        None,
        "[[clients]]\nname = \"acme\"\n[[policies]]\nname = \"default\"\nrights = [\"orders.*\"]\n\
         rate_limits = [{ name = \"r\", limit = 5, window = \"1s\" }]\n",
    );
    gateway.start().await;
    let key = gateway.create_key("acme").await;
    let question =
        json!({ "key": key.key, "table": "bills", "operation": "read", "explain": true });
    let stranger = verify(&gateway, question.clone()).await;
    assert_eq!((stranger.status, &*stranger.code()), (400, "bad_request"));
    let token = std::fs::read_to_string(gateway.data_dir().join("admin-token")).unwrap();
    let bearer = format!("Bearer {}", token.trim());
    let headers = [("authorization", bearer.as_str())];
    for _ in 0..10 {
        let body = question.to_string();
        let told = gateway.http().ask(Method::POST, "/v1/keys/verify", &headers, &body).await;
        let told = told.unwrap().json();
        assert_eq!((&told["valid"], &told["client"]), (&json!(false), &json!("acme")));
        let steps = told["steps"].as_array().unwrap();
        let step = |check: &str| steps.iter().find(|step| step["check"] == check).unwrap();
        assert_eq!(step("standing")["verdict"], "pass");
        assert_eq!(step("address_and_rights")["verdict"], "deny");
        assert_eq!(step("rate_limit r")["detail"], "5 of 5 left, per client", "nothing is taken");
    }
    let last = if key.key.ends_with('x') { 'y' } else { 'x' };
    for (unknown, told) in [
        (format!("{}{last}", &key.key[..key.key.len() - 1]), "neither formed like"),
        (development_key().reveal().to_owned(), "none that is known"),
    ] {
        let question = json!({ "key": unknown, "explain": true }).to_string();
        let told_of = gateway.http().ask(Method::POST, "/v1/keys/verify", &headers, &question);
        let answer = told_of.await.unwrap().json();
        assert_eq!((&answer["valid"], &answer["client"]), (&json!(false), &Value::Null));
        let step = &answer["steps"][0];
        assert_eq!((&step["check"], &step["verdict"]), (&json!("credential"), &json!("deny")));
        assert!(step["detail"].as_str().unwrap().contains(told), "{step}");
    }
}
