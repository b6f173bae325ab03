//! `gatepost session` and `gatepost token keys`, through the real program: on the data directory,
//! on a running gateway, and without Postgres.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use axum::http::Method;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::database::Database;
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::gateway::{Gateway, Ran};
use crate::support::http::Answer;

/// Polls so short that no test waits long for what comes by itself.
const QUICK: &str = "[postgres]\npoll_interval = \"200ms\"\nconnect_timeout = \"500ms\"\n";

/// A session's id and its tokens.
#[derive(Clone, Debug)]
struct Pair {
    id: String,
    access: String,
    refresh: String,
}

impl Pair {
    fn of(json: &Value, id: &str) -> Self {
        let text = |name: &str| json[name].as_str().expect("it is shown").to_owned();
        Self { id: id.to_owned(), access: text("access_token"), refresh: text("refresh_token") }
    }

    /// The id of the secret that proves its refresh token.
    fn secret(&self) -> &str {
        self.refresh.split('_').nth(1).unwrap()
    }

    /// The `kid` of its access token.
    fn kid(&self) -> String {
        let header = URL_SAFE_NO_PAD.decode(self.access.split('.').next().unwrap()).unwrap();
        let header: Value = serde_json::from_slice(&header).unwrap();
        header["kid"].as_str().unwrap().to_owned()
    }
}

async fn create(gateway: &Gateway, subject: &str) -> Pair {
    let args = ["session", "create", "--subject", subject, "--client", "web", "--scope", "read"];
    let made = gateway.run(&args).await.json();
    Pair::of(&made, made["id"].as_str().unwrap())
}

async fn try_refresh(gateway: &Gateway, token: &str) -> Answer {
    let body = json!({ "refresh_token": token }).to_string();
    let headers = [("content-type", "application/json")];
    gateway.http().ask(Method::POST, "/api/auth/refresh", &headers, &body).await.unwrap()
}

async fn refresh(gateway: &Gateway, pair: &Pair) -> Pair {
    let answer = try_refresh(gateway, &pair.refresh).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    Pair::of(&answer.json(), &pair.id)
}

/// Neither of its tokens is good for anything.
async fn is_over(gateway: &Gateway, pair: &Pair) {
    assert_eq!(gateway.http().verdict(&pair.access).await.0, 401);
    let answer = try_refresh(gateway, &pair.refresh).await;
    assert_eq!((answer.status, answer.code()), (401, "invalid_grant".to_owned()));
}

async fn shown(gateway: &Gateway, pair: &Pair) -> Value {
    gateway.run(&["session", "show", &pair.id]).await.json()
}

fn refused(ran: &Ran, code: i32, hint: &str) {
    assert_eq!(ran.code, Some(code), "{ran:?}");
    assert!(ran.stderr.contains(hint), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_made_shown_and_ended_with_and_without_a_running_gateway() {
    let mut gateway = Gateway::new(None, "");
    refused(
        &gateway.run(&["session", "create", "--subject", "alice", "--client", "web"]).await,
        1,
        "gatepost client create web",
    );
    gateway.create_client("web").await;
    let before = create(&gateway, "alice").await;
    let bob = create(&gateway, "bob").await;
    assert_eq!(shown(&gateway, &before).await["state"], "active");
    gateway.start().await;
    // What a command made alone, the gateway serves.
    assert_eq!(gateway.http().verdict(&before.access).await, (200, String::new()));
    let next = refresh(&gateway, &before).await;
    let list = gateway.run(&["session", "list", "--subject", "alice"]).await.json();
    assert_eq!((&list[0]["id"], &list[0]["generation"]), (&json!(before.id), &json!(1)));
    assert_eq!(list.as_array().map(Vec::len), Some(1));

    for _twice in 0..2 {
        let revoked = gateway.run(&["session", "revoke", &before.id]).await.json();
        assert_eq!(revoked["state"], "revoked");
    }
    is_over(&gateway, &next).await;
    gateway.terminate().await;
    gateway.run(&["session", "revoke", "--subject", "bob"]).await.json();
    gateway.start().await;
    is_over(&gateway, &next).await;
    is_over(&gateway, &bob).await;

    let nobody = "0190e2a0-0000-7000-8000-000000000001";
    refused(&gateway.run(&["session", "revoke", nobody]).await, 1, "there is no session");
    let long = ["session", "create", "--subject", "x", "--client", "web", "--ttl", "400d"];
    refused(&gateway.run(&long).await, 2, "`ttl`");
    refused(&gateway.run(&["session", "recover", "--for", "8d"]).await, 2, "`for`");
    gateway.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_do_what_they_can_without_postgres_and_say_what_they_cannot() {
    const STRANGER: &str = "9f0c8f7e-5d0a-4c35-8f0e-0a3bb0c7a001";
    const FAR: &str = "9f0c8f7e-5d0a-4c35-8f0e-0a3bb0c7a002";
    let db = Database::new().await;
    let line = FaultProxy::new(&db.url);
    let mut gateway = Gateway::new(Some(&line.url(&db.url)), QUICK);
    gateway.start_ready().await;
    gateway.create_client("web").await;
    gateway.drain().await;
    assert_eq!(doctor(&gateway, "sessions").await, "ok", "there are none");
    line.set(Fault::Cut);
    let (alice, bob) = (create(&gateway, "alice").await, create(&gateway, "bob").await);
    gateway.run(&["session", "revoke", "--subject", "bob"]).await.json();
    refused(&gateway.run(&["session", "revoke", STRANGER]).await, 69, "Postgres is away");
    gateway.terminate().await;
    // A command alone, and still without Postgres.
    let revoked = gateway.run(&["session", "revoke", &alice.id]).await.json();
    assert_eq!(revoked["state"], "revoked");
    refused(&gateway.run(&["session", "show", STRANGER]).await, 69, "Postgres is away");
    gateway.start().await;
    is_over(&gateway, &alice).await;
    is_over(&gateway, &bob).await;

    line.set(Fault::None);
    gateway.is_well().await;
    gateway.drain().await;
    let sql = "SELECT count(*) FROM gatepost.sessions WHERE subject = 'alice' \
               AND revoked_at <= now()";
    assert_eq!(db.number(sql).await, 1);
    refused(&gateway.run(&["session", "revoke", STRANGER]).await, 1, "there is no session");
    let far = "INSERT INTO gatepost.sessions (id, node_id, subject, client_name, expires_at) \
               VALUES ('9f0c8f7e-5d0a-4c35-8f0e-0a3bb0c7a002', 'gw-far', 'a', 'web', \
                       now() + '1 day')";
    db.execute(far).await;
    assert_eq!(gateway.run(&["session", "show", FAR]).await.json()["node"], "gw-far");
    refused(&gateway.run(&["session", "revoke", FAR]).await, 69, "`gw-far`");
    // Name and token keys stand on its disk alone.
    assert_eq!(doctor(&gateway, "token keys").await, "ok");
    assert_eq!(doctor(&gateway, "sessions").await, "warn");
    gateway.terminate().await;
}

/// The status of one check.
async fn doctor(gateway: &Gateway, name: &str) -> String {
    let told = gateway.run(&["doctor"]).await.stdout;
    let told: Vec<Value> = serde_json::from_str(&told).unwrap();
    let check = told.into_iter().find(|check| check["check"] == name).unwrap();
    check["status"].as_str().unwrap().to_owned()
}

fn active(keys: &Value, kind: &str) -> String {
    let keys = keys.as_array().unwrap();
    let key = keys.iter().find(|key| key["kind"] == kind && key["state"] == "active");
    key.unwrap()["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_before_a_rotation_stay_good_through_a_restart() {
    let mut gateway = Gateway::new(None, "");
    gateway.create_client("web").await;
    gateway.start().await;
    let first = create(&gateway, "alice").await;
    let mut old = first.clone();
    // By the running gateway; by a command alone; and again by the next one.
    for round in 1..=3 {
        if round == 2 {
            gateway.terminate().await;
        }
        let keys = gateway.run(&["token", "keys", "rotate"]).await.json();
        if round == 2 {
            gateway.start().await;
        }
        assert_eq!(keys.as_array().map(Vec::len), Some(2 * (round + 1)), "{keys}");
        for pair in [&first, &old] {
            assert_eq!(gateway.http().verdict(&pair.access).await, (200, String::new()));
        }
        let new = refresh(&gateway, &old).await;
        assert_ne!((new.secret(), new.kid()), (old.secret(), old.kid()));
        assert_eq!(new.secret(), active(&keys, "secret"));
        assert_eq!(new.kid(), active(&keys, "signing"));
        assert_eq!(gateway.http().verdict(&new.access).await, (200, String::new()));
        old = new;
    }
    let listed = gateway.run(&["token", "keys", "list"]).await.json();
    let published = gateway.http().get("/.well-known/jwks.json").await.json();
    let (listed, published) = (listed.as_array().unwrap(), published["keys"].as_array().unwrap());
    let signing = listed.iter().filter(|key| key["kind"] == "signing");
    assert!(signing.clone().all(|key| published.iter().any(|known| known["kid"] == key["id"])));
    assert_eq!(signing.count(), published.len());
    gateway.terminate().await;
    let file = gateway.data_dir().join("token-keys");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configured_token_keys_are_rotated_by_their_document() {
    let mut gateway = Gateway::new(None, "");
    let file = gateway.dir().join("keys.json");
    let document = gateway.run(&["token", "keys", "generate"]).await;
    document.json();
    assert!(!gateway.data_dir().exists(), "nothing was opened for it");
    std::fs::write(&file, &document.stdout).unwrap();
    gateway.set("GATEPOST_TOKEN_KEYS_FILE", file.to_str().unwrap());
    gateway.create_client("web").await;
    gateway.start().await;
    let old = create(&gateway, "alice").await;
    refused(&gateway.run(&["token", "keys", "rotate"]).await, 1, "token keys generate --from");
    gateway.terminate().await;

    let next = gateway.run(&["token", "keys", "generate", "--from", file.to_str().unwrap()]).await;
    assert_eq!(next.json()["secrets"].as_array().map(Vec::len), Some(2));
    std::fs::write(&file, &next.stdout).unwrap();
    gateway.start().await;
    let keys = gateway.run(&["token", "keys", "list"]).await.json();
    assert_eq!(gateway.http().verdict(&old.access).await, (200, String::new()));
    let new = refresh(&gateway, &old).await;
    assert_eq!((new.secret(), new.kid()), (&*active(&keys, "secret"), active(&keys, "signing")));
    assert_ne!(new.secret(), old.secret());
    assert!(!gateway.data_dir().join("token-keys").exists(), "none are made beside them");
    gateway.terminate().await;

    std::fs::write(&file, "{\"version\": 1}").unwrap();
    refused(&gateway.run(&["config", "check"]).await, 78, "GATEPOST_TOKEN_KEYS");
    let from = ["token", "keys", "generate", "--from", file.to_str().unwrap()];
    refused(&Gateway::new(None, "").run(&from).await, 1, "keys.json");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    gatepost::disk::copy_dir(from, to).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_data_directory_takes_newer_tokens_once_in_a_recovery_window() {
    let mut gateway = Gateway::new(None, "");
    gateway.create_client("web").await;
    let mut lives = vec![create(&gateway, "alice").await];
    let kept = gateway.dir().join("kept");
    copy(&gateway.data_dir(), &kept);
    gateway.start().await;
    for _refresh in 0..5 {
        lives.push(refresh(&gateway, lives.last().unwrap()).await);
    }
    gateway.kill9();
    std::fs::remove_dir_all(gateway.data_dir()).unwrap();
    copy(&kept, &gateway.data_dir());

    gateway.start().await;
    let answer = try_refresh(&gateway, &lives[2].refresh).await;
    assert_eq!(answer.status, 503, "nobody is logged out by a lost disk: {}", answer.body);
    let opened = gateway.run(&["session", "recover", "--for", "24h"]).await.json();
    gateway.terminate().await;
    gateway.start().await;
    let sessions = async |gateway: &Gateway| {
        let status = gateway.control(Method::GET, "/status", "").await.unwrap();
        status.json()["sessions"].clone()
    };
    assert_eq!(sessions(&gateway).await["recovery_until"], opened["until"], "after a restart");
    let recovered = refresh(&gateway, &lives[2]).await;
    assert!(shown(&gateway, &recovered).await["recovered_at"].is_string());
    // Once per session: whoever comes with another one is not the same.
    assert_eq!(try_refresh(&gateway, &lives[5].refresh).await.status, 401);
    is_over(&gateway, &recovered).await;
    let told = sessions(&gateway).await;
    assert_eq!((&told["recovered"], &told["beyond"]), (&json!(1), &json!(2)), "{told}");
    gateway.run(&["session", "recover", "--for", "0s"]).await.json();
    assert_eq!(sessions(&gateway).await["recovery_until"], Value::Null);
    gateway.terminate().await;
}
