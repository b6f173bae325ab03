//! Sessions of the real program: refreshed and revoked with Postgres there, without it, and again;
//! and settled by their laws.

mod away;
mod client;
mod laws;
mod lost;
mod settling;

use axum::http::Method;
use serde_json::json;

use crate::support::cluster::Cluster;
use crate::support::database::Database;
use crate::support::gateway::{Gateway, until};

/// Polls so short that no test waits long for what comes by itself.
const QUICK: &str = "[postgres]\npoll_interval = \"200ms\"\nconnect_timeout = \"500ms\"\n";

/// What a client holds of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pair {
    access: String,
    refresh: String,
}

impl Pair {
    fn of(json: &serde_json::Value) -> Self {
        let text = |name: &str| json[name].as_str().expect("a token").to_owned();
        Self { access: text("access_token"), refresh: text("refresh_token") }
    }
}

/// A session of `subject` for the client `web`, with its id.
async fn begin(gateway: &Gateway, subject: &str) -> (String, Pair) {
    let body = json!({ "subject": subject, "client": "web", "scopes": ["orders.read"] });
    let made = gateway.control(Method::POST, "/sessions", &body.to_string()).await.unwrap();
    assert_eq!(made.status, 201, "{}", made.body);
    (made.json()["id"].as_str().unwrap().to_owned(), Pair::of(&made.json()))
}

/// The pair, or the status and code of the refusal. `None`: no answer.
async fn try_refresh(gateway: &Gateway, token: &str) -> Option<Result<Pair, (u16, String)>> {
    let body = json!({ "refresh_token": token }).to_string();
    let answer = gateway.http().ask(Method::POST, "/api/auth/refresh", &[], &body).await?;
    Some(match answer.status {
        200 => Ok(Pair::of(&answer.json())),
        status => Err((status, answer.code())),
    })
}

async fn refresh(gateway: &Gateway, token: &str) -> Result<Pair, (u16, String)> {
    try_refresh(gateway, token).await.expect("an answer")
}

fn refused() -> Result<Pair, (u16, String)> {
    Err((401, "invalid_grant".into()))
}

async fn revoke(gateway: &Gateway, what: &str, body: &str) {
    let answer = gateway.control(Method::POST, what, body).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// Generation and whether it is revoked, as Postgres has it.
async fn row(db: &Database, id: &str) -> Option<(i64, bool)> {
    let sql =
        "SELECT generation, revoked_at IS NOT NULL FROM gatepost.sessions WHERE id = $1::uuid";
    sqlx::query_as(sql).bind(id).fetch_optional(&mut db.connect().await).await.unwrap()
}
