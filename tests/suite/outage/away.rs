//! Postgres goes away in each of the ways in which it does, and comes back.

use super::*;

/// A way to go away, and the way back.
trait Line {
    fn url(&self) -> String;
    fn leave(&self);
    fn come_back(&self);
}

struct Stopped<'a>(&'a Cluster, String);
struct Frozen<'a>(&'a Cluster, String);
struct BlackHole<'a>(&'a FaultProxy, String);

impl Line for Stopped<'_> {
    fn url(&self) -> String {
        self.1.clone()
    }
    fn leave(&self) {
        self.0.stop();
    }
    fn come_back(&self) {
        self.0.start();
    }
}

impl Line for Frozen<'_> {
    fn url(&self) -> String {
        self.1.clone()
    }
    fn leave(&self) {
        self.0.freeze();
    }
    fn come_back(&self) {
        self.0.thaw();
    }
}

impl Line for BlackHole<'_> {
    fn url(&self) -> String {
        self.1.clone()
    }
    fn leave(&self) {
        self.0.set(Fault::BlackHole);
    }
    fn come_back(&self) {
        self.0.set(Fault::None);
    }
}

/// Every answered request is on disk, so that what a kill leaves is known exactly.
fn settings() -> String {
    format!("{QUICK}[journal]\ncommit = \"before_reply\"\n[drain]\ndeadline = \"2s\"\n")
}

/// Nobody can say whether this key exists: an honest, quick 503.
async fn undecidable(gateway: &Gateway, key: &ApiKey) {
    let asked =
        tokio::time::timeout(Duration::from_secs(5), gateway.http().authorize(key.reveal()));
    let answer = asked.await.expect("it does not hang").unwrap();
    assert_eq!((answer.status, answer.code()), (503, "api_key_validation_unavailable".into()));
    let seconds: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
}

/// Ready on both planes, and honest about what it is missing.
async fn degraded(gateway: &Gateway) {
    until("it says degraded", || async {
        let ready = gateway.admin().get("/readyz").await;
        assert_eq!(ready.status, 200, "{}", ready.body);
        ready.body == "degraded\n"
    })
    .await;
    let ready = gateway.http().get("/readyz").await;
    assert_eq!((ready.status, ready.json()["status"].as_str()), (200, Some("degraded")));
}

async fn away_and_back(db: &Database, line: &impl Line) {
    let mut gateway = Gateway::new(Some(&line.url()), &settings());
    gateway.start_ready().await;
    gateway.create_client("acme").await;
    let known = gateway.create_key("acme").await;
    let doomed = gateway.create_key("acme").await;
    let strangers = strangers(4);
    pass(&gateway, &known, 30).await;
    pass(&gateway, &doomed, 10).await;
    gateway.drain().await;

    line.leave();
    pass(&gateway, &known, 30).await;
    undecidable(&gateway, &strangers[0]).await;
    let born = gateway.create_key("acme").await;
    pass(&gateway, &born, 10).await;
    gateway.revoke(&doomed).await;
    let revoked = (401, "key_revoked".to_owned());
    assert_eq!(gateway.http().verdict(&doomed.key).await, revoked);
    degraded(&gateway).await;
    undecidable(&gateway, &strangers[1]).await;

    gateway.kill9();
    gateway.start().await;
    pass(&gateway, &known, 30).await;
    pass(&gateway, &born, 10).await;
    assert_eq!(gateway.http().verdict(&doomed.key).await, revoked);
    undecidable(&gateway, &strangers[2]).await;
    degraded(&gateway).await;

    line.come_back();
    let counted = [(&known, 90), (&born, 20), (&doomed, 12)];
    for (key, requests) in counted {
        until("every request is there", || async { applied(db, key).await >= requests }).await;
    }
    until("the revocation is there", || is_revoked(db, &doomed)).await;
    gateway.is_well().await;
    until("unknown is unknown again", || async {
        gateway.http().verdict(strangers[3].reveal()).await.0 == 401
    })
    .await;
    assert_eq!(gateway.http().verdict(&doomed.key).await, revoked);
    // Whatever may still have been under way has arrived by now.
    gateway.drain().await;
    for (key, requests) in [(&known, 90), (&born, 20), (&doomed, 13)] {
        assert_eq!(applied(db, key).await, requests);
    }
    gateway.terminate().await;
}

#[tokio::test]
async fn postgres_stopped() {
    let cluster = Cluster::dedicated();
    let db = cluster.database().await;
    away_and_back(&db, &Stopped(&cluster, db.url.clone())).await;
}

#[tokio::test]
async fn postgres_frozen() {
    let cluster = Cluster::dedicated();
    let db = cluster.database().await;
    away_and_back(&db, &Frozen(&cluster, db.url.clone())).await;
}

#[tokio::test]
async fn postgres_in_a_black_hole() {
    let db = Database::new().await;
    let proxy = FaultProxy::new(&db.url);
    let url = proxy.url(&db.url);
    away_and_back(&db, &BlackHole(&proxy, url)).await;
}
