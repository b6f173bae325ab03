//! What callers and operators see of the real program: with Postgres there, without it, and again.

use std::time::Duration;

use axum::Router;
use axum::http::Method;
use gatepost::entropy::{Entropy, SeededEntropy};
use gatepost::model::api_key::{ApiKey, SEED_BYTES};

use crate::support::cluster::Cluster;
use crate::support::database::Database;
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::gateway::{Gateway, Made, until};

mod away;
mod strangers;

/// Each catch-up of the feed begins with this.
const CATCH_UP: &str = "gatepost.change_counter AS n";

/// Polls so short that no test waits long for what comes by itself.
const QUICK: &str = "[postgres]\npoll_interval = \"200ms\"\nconnect_timeout = \"500ms\"\n";

/// The deadlines of a miss are not what is asked about here: a machine that is busy with other
/// tests must not decide. Stands in `[postgres]`, and ends in `[cache]`.
const PATIENT: &str = "lookup_deadline = \"20s\"\n[cache]\nmiss_deadline = \"20s\"\n";

/// Keys that nobody has made; the same in every run.
fn strangers(count: usize) -> Vec<ApiKey> {
    let entropy = SeededEntropy::new(77);
    let draw = || {
        let mut seed = [0; SEED_BYTES];
        entropy.fill(&mut seed);
        ApiKey::make("live", &seed)
    };
    std::iter::repeat_with(draw).flatten().take(count).collect()
}

/// Somebody else's `INSERT`.
async fn insert(db: &Database, keys: &[ApiKey], client: &str) {
    let digests: Vec<Vec<u8>> = keys.iter().map(|key| key.digest().0.to_vec()).collect();
    let sql = "WITH owner AS (INSERT INTO gatepost.clients (name) VALUES ($2) \
                 ON CONFLICT DO NOTHING) \
               INSERT INTO gatepost.api_keys (digest, client_name) SELECT unnest($1::bytea[]), $2";
    let insert = sqlx::query(sql).bind(digests).bind(client);
    insert.execute(&mut db.connect().await).await.unwrap();
}

/// Requests of one key that Postgres knows of.
async fn applied(db: &Database, key: &Made) -> i64 {
    let sql = "SELECT coalesce(sum(requests), 0)::bigint FROM gatepost.key_activity \
               WHERE key_id = $1::uuid";
    sqlx::query_scalar(sql).bind(&key.id).fetch_one(&mut db.connect().await).await.unwrap()
}

async fn is_revoked(db: &Database, key: &Made) -> bool {
    let sql = "SELECT count(*) FROM gatepost.revocations \
               WHERE kind = 'key' AND id = $1 AND at = '-infinity'";
    let query = sqlx::query_scalar::<_, i64>(sql).bind(&key.id);
    query.fetch_one(&mut db.connect().await).await.unwrap() == 1
}

/// So many requests, and all of them allowed.
async fn pass(gateway: &Gateway, key: &Made, times: i64) {
    for _ in 0..times {
        assert_eq!(gateway.http().verdict(&key.key).await, (200, String::new()));
    }
}

/// An upstream that answers with the client that the gateway says is calling.
async fn upstream() -> (String, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(|headers: axum::http::HeaderMap| async move {
        headers["x-gatepost-client"].to_str().unwrap().to_owned()
    });
    let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, serving)
}

#[tokio::test]
async fn from_an_empty_database_to_counted_requests() {
    let db = Database::new().await;
    db.execute("DROP SCHEMA gatepost CASCADE").await;
    let (target, serving) = upstream().await;
    let settings = format!(
        "[postgres]\n{PATIENT}[[upstreams]]\nname = \"orders\"\ntargets = [\"{target}\"]\n\
         [[routes]]\npath = \"/rest/v1/{{table}}\"\nupstream = \"orders\"\n"
    );
    let mut gateway = Gateway::new(Some(&db.url), &settings);
    let migrated = gateway.run(&["migrate"]).await;
    assert_eq!(migrated.code, Some(0), "{}", migrated.stderr);
    gateway.start_ready().await;
    gateway.create_client("acme").await;
    let made = gateway.create_key("acme").await;

    // The very next request of each kind.
    pass(&gateway, &made, 1).await;
    let question = format!(r#"{{"key": "{}", "table": "orders", "operation": "read"}}"#, made.key);
    let verify = gateway.http().ask(Method::POST, "/v1/keys/verify", &[], &question).await;
    let verify = verify.unwrap();
    assert_eq!(verify.status, 200, "{}", verify.body);
    assert_eq!(verify.json()["valid"], true);
    assert_eq!((&verify.json()["code"], &verify.json()["client"]), (&"ok".into(), &"acme".into()));
    let credential = [("x-api-key", made.key.as_str())];
    let read = gateway.http().ask(Method::GET, "/rest/v1/orders", &credential, "").await.unwrap();
    assert_eq!((read.status, read.body.as_str()), (200, "acme"));
    let write = gateway.http().ask(Method::POST, "/rest/v1/orders", &credential, "{}").await;
    assert_eq!(write.unwrap().status, 200);

    until("all of it is counted", || async {
        let sql = "SELECT coalesce(sum(total_requests), 0)::bigint FROM \
                   gatepost.client_statistics WHERE client_name = 'acme' \
                   AND successful_requests = total_requests";
        db.number(sql).await == 4
    })
    .await;
    for (sql, count) in [
        ("operation = 'access' AND table_name = ''", 1),
        ("operation = 'read' AND table_name = 'orders'", 2),
        ("operation = 'write' AND table_name = 'orders'", 1),
    ] {
        let sql = format!(
            "SELECT total_operations FROM gatepost.client_table_statistics \
             WHERE client_name = 'acme' AND {sql}"
        );
        let query = sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(sql.clone()));
        let told = query.fetch_one(&mut db.connect().await).await.unwrap();
        assert_eq!(told, count, "{sql}");
    }
    assert_eq!(applied(&db, &made).await, 4);

    // A key by somebody else works as well, from its first request on.
    let foreign = strangers(1);
    insert(&db, &foreign, "acme").await;
    assert_eq!(gateway.http().verdict(foreign[0].reveal()).await.0, 200);
    gateway.terminate().await;
    serving.abort();
}

#[tokio::test]
async fn a_revocation_that_only_postgres_and_the_journal_know_survives_kills() {
    let db = Database::new().await;
    let line = FaultProxy::new(&db.url);
    // Whatever may be removed is removed at once.
    let settings = format!("{QUICK}[journal]\nsegment_max_age = \"1ms\"\nretention = \"0s\"\n");
    let mut gateway = Gateway::new(Some(&line.url(&db.url)), &settings);
    gateway.start_ready().await;
    gateway.create_client("acme").await;
    let made = gateway.create_key("acme").await;
    pass(&gateway, &made, 1).await;
    until("the feed has brought it back", || async {
        gateway.drain().await;
        let status = gateway.control(Method::GET, "/status", "").await.unwrap().json();
        status["cache"]["overlay_entries"] == 0
    })
    .await;

    // The feed is cut, while the drain goes on.
    line.refuse(CATCH_UP);
    gateway.revoke(&made).await;
    let refused = (401, "key_revoked".to_owned());
    for _life in 0..3 {
        until("the drain has committed", || is_revoked(&db, &made)).await;
        // What is settled goes at the end of a pass.
        for _pass in 0..3 {
            gateway.drain().await;
        }
        assert_eq!(gateway.http().verdict(&made.key).await, refused);
        line.set(Fault::Cut);
        gateway.kill9();
        gateway.start().await;
        assert_eq!(gateway.http().verdict(&made.key).await, refused);
        line.set(Fault::None);
    }
}

#[tokio::test]
async fn a_gateway_that_has_never_seen_postgres_is_alive_but_not_ready() {
    let db = Database::new().await;
    let line = FaultProxy::new(&db.url);
    line.set(Fault::Cut);
    let mut gateway = Gateway::new(Some(&line.url(&db.url)), QUICK);
    gateway.start().await;
    for plane in [gateway.http(), gateway.admin()] {
        let ready = plane.get("/readyz").await;
        assert_eq!(ready.status, 503, "{}", ready.body);
        assert!(ready.header("retry-after").is_some());
    }
    // What is made here is kept, but it may have been forbidden there.
    gateway.create_client("acme").await;
    let made = gateway.create_key("acme").await;
    let undecided = (503, "api_key_policy_unavailable".to_owned());
    assert_eq!(gateway.http().verdict(&made.key).await, undecided);
    let doomed = gateway.create_key("acme").await;
    gateway.revoke(&doomed).await;
    assert_eq!(gateway.http().verdict(&doomed.key).await, (401, "key_revoked".into()));
    line.set(Fault::None);
    gateway.is_well().await;
    assert_eq!(gateway.http().get("/readyz").await.status, 200);
    pass(&gateway, &made, 3).await;
    gateway.drain().await;
    // The undecided request was identified, so it counts, as refused, like the revoked key's.
    assert_eq!(applied(&db, &made).await, 4);
    let refused = "SELECT denied_requests FROM gatepost.client_statistics";
    assert_eq!(db.number(refused).await, 2);
}

#[tokio::test]
async fn sigterm_with_postgres_away_ends_in_order_and_loses_nothing() {
    let db = Database::new().await;
    let line = FaultProxy::new(&db.url);
    let mut gateway = Gateway::new(Some(&line.url(&db.url)), QUICK);
    gateway.start_ready().await;
    gateway.create_client("acme").await;
    let made = gateway.create_key("acme").await;
    pass(&gateway, &made, 20).await;
    for fault in [Fault::BlackHole, Fault::Cut] {
        line.set(fault);
        pass(&gateway, &made, 20).await;
        gateway.terminate().await;
        gateway.start().await;
        pass(&gateway, &made, 20).await;
        gateway.terminate().await;
        gateway.start().await;
    }
    line.set(Fault::None);
    gateway.drain().await;
    assert_eq!(applied(&db, &made).await, 100);
    gateway.terminate().await;
    gateway.start().await;
    gateway.drain().await;
    assert_eq!(applied(&db, &made).await, 100);
}

#[tokio::test]
async fn what_was_made_and_counted_embedded_drains_once_there_is_a_postgres() {
    let mut gateway = Gateway::new(None, "");
    // Before there ever was a gateway, and while it runs.
    gateway.create_client("acme").await;
    let first = gateway.create_key("acme").await;
    gateway.start().await;
    let second = gateway.create_key("acme").await;
    let third = gateway.create_key("acme").await;
    gateway.revoke(&third).await;
    pass(&gateway, &first, 7).await;
    pass(&gateway, &second, 5).await;
    assert_eq!(gateway.http().verdict(&third.key).await, (401, "key_revoked".into()));
    gateway.terminate().await;

    let db = Database::new().await;
    gateway.attach(&db.url);
    gateway.start_ready().await;
    pass(&gateway, &first, 3).await;
    assert_eq!(gateway.http().verdict(&third.key).await, (401, "key_revoked".into()));
    gateway.drain().await;
    assert_eq!(db.number("SELECT count(*) FROM gatepost.clients").await, 1);
    assert_eq!(db.number("SELECT count(*) FROM gatepost.api_keys").await, 3);
    assert!(is_revoked(&db, &third).await);
    for (key, requests) in [(&first, 10), (&second, 5), (&third, 2)] {
        assert_eq!(applied(&db, key).await, requests);
    }
    gateway.terminate().await;
}
