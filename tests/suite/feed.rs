//! The feed: what a follower is told, in which order, and after what.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gatepost::cache::{Change, Deleted, FollowError, Follower, Position, Source, SourceError};
use gatepost::model::Timestamp;
use gatepost::model::fact::{Revocation, RevocationKind};
use gatepost::model::units::Span;
use gatepost::postgres::feed::{FeedHandle, Missing};
use gatepost::postgres::{Config, KeySource};
use sqlx::{Connection, Executor};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::support::cluster::Cluster;
use crate::support::database::Database;
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::gateway::until;
use crate::support::postgres::{config, digest, with};

/// Remembers what it was told.
struct Recorder {
    seen: Mutex<Seen>,
    completed: watch::Sender<u64>,
    current: watch::Sender<u64>,
}

#[derive(Default)]
struct Seen {
    position: Option<Position>,
    /// Since the last `begin`.
    changes: Vec<Change>,
    full: bool,
    lacking: Vec<Revocation>,
}

impl Follower for Recorder {
    fn position(&self) -> Option<Position> {
        self.seen.lock().unwrap().position
    }
    fn begin(&self, _revision: i64, full: bool) {
        let mut seen = self.seen.lock().unwrap();
        seen.changes.clear();
        seen.full = full;
    }
    fn apply(&self, changes: Vec<Change>) -> Result<(), FollowError> {
        self.seen.lock().unwrap().changes.extend(changes);
        Ok(())
    }
    fn complete(&self, position: Position) -> Result<Vec<Revocation>, FollowError> {
        let mut seen = self.seen.lock().unwrap();
        seen.position = Some(position);
        self.completed.send_modify(|times| *times += 1);
        Ok(std::mem::take(&mut seen.lacking))
    }
    fn still_current(&self) {
        self.current.send_modify(|times| *times += 1);
    }
}

/// A feed at work.
struct Following {
    recorder: Arc<Recorder>,
    handle: FeedHandle,
    source: Arc<KeySource>,
    resent: Arc<Mutex<Vec<Revocation>>>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Following {
    /// With nothing stored, and polls so rare that only hints and nudges can be the reason.
    fn start(url: &str) -> Self {
        Self::with(Config { poll_interval: Span::secs(3600), ..config(url) }, Seen::default())
    }

    fn with(config: Config, seen: Seen) -> Self {
        let recorder = Arc::new(Recorder {
            seen: Mutex::new(seen),
            completed: watch::Sender::new(0),
            current: watch::Sender::new(0),
        });
        let resent = Arc::new(Mutex::new(Vec::new()));
        let taking = Arc::clone(&resent);
        let missing: Missing = Arc::new(move |lacking| taking.lock().unwrap().extend(lacking));
        let postgres = with(config);
        let (feed, source) = (postgres.feed(), postgres.source());
        let (handle, shutdown) = (feed.handle(), CancellationToken::new());
        let follower: Arc<dyn Follower> = recorder.clone();
        let task = tokio::spawn(feed.run(follower, missing, shutdown.clone()));
        Self { recorder, handle, source, resent, shutdown, task }
    }

    /// Waits until so many catch-ups were completed since the start.
    async fn completed(&self, times: u64) {
        let mut completed = self.recorder.completed.subscribe();
        completed.wait_for(|done| *done >= times).await.unwrap();
    }

    /// Ends the feed and hands over what its follower saw.
    async fn end(self) -> Seen {
        self.shutdown.cancel();
        self.task.await.unwrap();
        std::mem::take(&mut self.recorder.seen.lock().unwrap())
    }

    fn told(&self) -> BTreeMap<String, i64> {
        self.recorder.seen.lock().unwrap().changes.iter().map(describe).collect()
    }
}

fn describe(change: &Change) -> (String, i64) {
    match change {
        Change::Client(row) => (format!("client {}", row.client.name), row.revision),
        Change::Policy(row) => {
            (format!("policy {} {}", row.policy.name, row.policy.spec), row.revision)
        }
        Change::Key(row) => (format!("key {}", row.key.last4), row.revision),
        Change::Revocation(row) => (format!("revoked {} {}", row.id, row.at), 0),
        Change::Deleted(Deleted::Client(name)) => (format!("gone client {name}"), 0),
        Change::Deleted(Deleted::Policy(name)) => (format!("gone policy {name}"), 0),
        Change::Deleted(Deleted::Key(_)) => ("gone key".into(), 0),
        Change::Deleted(Deleted::Revocation(_, id)) => (format!("gone revocation {id}"), 0),
    }
}

fn expected<const N: usize>(rows: [(&str, i64); N]) -> BTreeMap<String, i64> {
    rows.into_iter().map(|(row, revision)| (row.to_owned(), revision)).collect()
}

const FILL: &str = "INSERT INTO gatepost.clients (name) VALUES ('acme'), ('zeta'); \
    INSERT INTO gatepost.policies VALUES ('gold', '{}'); \
    INSERT INTO gatepost.api_keys (digest, client_name, last4) \
      VALUES (sha256('k'), 'acme', 'kkkk'); \
    ALTER TABLE gatepost.revocations DROP CONSTRAINT revocations_kind_check; \
    INSERT INTO gatepost.revocations (kind, id) \
      VALUES ('key', 'some'), ('later', 'of a later version')";

#[tokio::test]
async fn an_empty_follower_is_told_everything_and_then_only_changes() {
    let db = Database::new().await;
    db.execute(FILL).await;
    let feed = Following::start(&db.url);
    feed.completed(1).await;
    assert!(feed.recorder.seen.lock().unwrap().full);
    // One simple query is one transaction: one revision.
    let all = [("client acme", 1), ("client zeta", 1), ("policy gold {}", 1), ("key kkkk", 1)];
    let mut all = expected(all);
    all.insert("revoked some -infinity".into(), 0);
    assert_eq!(feed.told(), all);

    // A notification is enough to be told.
    db.execute("UPDATE gatepost.policies SET spec = '{\"a\": 1}' WHERE name = 'gold'").await;
    feed.completed(2).await;
    assert_eq!(feed.told(), expected([("policy gold {\"a\": 1}", 2)]));
    assert!(feed.handle.last_contact().is_some());
    assert_eq!(feed.handle.error(), None);
    let seen = feed.end().await;
    assert!(!seen.full);
    assert_eq!(seen.position.unwrap().revision, 2);
}

#[tokio::test]
async fn rows_that_went_away_leave_tombstones_unless_they_came_back() {
    let db = Database::new().await;
    db.execute(FILL).await;
    let feed = Following::start(&db.url);
    feed.completed(1).await;
    db.execute(
        "UPDATE gatepost.clients SET name = 'omega' WHERE name = 'zeta'; \
         DELETE FROM gatepost.clients WHERE name = 'acme'; \
         INSERT INTO gatepost.clients (name) VALUES ('acme'); \
         DELETE FROM gatepost.policies; DELETE FROM gatepost.api_keys; \
         DELETE FROM gatepost.revocations",
    )
    .await;
    feed.completed(2).await;
    let told = expected([
        ("client acme", 2),
        ("client omega", 2),
        ("gone client zeta", 0),
        ("gone key", 0),
        ("gone policy gold", 0),
        ("gone revocation some", 0),
    ]);
    assert_eq!(feed.told(), told);
    let seen = feed.end().await;
    let first_gone = seen.changes.iter().position(|c| matches!(c, Change::Deleted(_))).unwrap();
    assert!(seen.changes[first_gone..].iter().all(|c| matches!(c, Change::Deleted(_))));
}

#[tokio::test]
async fn nothing_new_is_said_to_be_current() {
    let db = Database::new().await;
    let feed = Following::start(&db.url);
    feed.completed(1).await;
    let mut current = feed.recorder.current.subscribe();
    feed.handle.nudge();
    current.wait_for(|times| *times >= 1).await.unwrap();
    assert_eq!(*feed.recorder.completed.borrow(), 1);
}

#[tokio::test]
async fn another_history_is_read_from_the_start() {
    let db = Database::new().await;
    db.execute(FILL).await;
    let feed = Following::start(&db.url);
    feed.completed(1).await;
    let seen = feed.end().await;
    // The same revision, with another mark: what a restored backup looks like.
    db.execute("UPDATE gatepost.change_log SET mark = gen_random_uuid() WHERE revision = 1").await;
    let at = Timestamp::NEG_INFINITY;
    let lost = Revocation { kind: RevocationKind::Key, id: "lost".into(), at };
    let seen = Seen { lacking: vec![lost.clone()], ..seen };
    let feed = Following::with(config(&db.url), seen);
    feed.completed(1).await;
    feed.handle.nudge();
    feed.recorder.current.subscribe().wait_for(|times| *times >= 1).await.unwrap();
    assert_eq!(*feed.resent.lock().unwrap(), [lost]);
    let seen = feed.end().await;
    assert!(seen.full);
    assert_eq!(seen.changes.len(), 5);
}

#[tokio::test]
async fn many_rows_come_in_pages_without_gaps() {
    let db = Database::new().await;
    db.execute(
        "INSERT INTO gatepost.api_keys (digest, client_name) \
         SELECT sha256(i::text::bytea), 'acme' FROM generate_series(1, 25000) AS i",
    )
    .await;
    let feed = Following::start(&db.url);
    feed.completed(1).await;
    let seen = feed.end().await;
    let ids = seen.changes.iter().map(|change| match change {
        Change::Key(row) => row.key.id,
        other => panic!("{other:?}"),
    });
    let distinct: std::collections::HashSet<_> = ids.collect();
    assert_eq!((seen.changes.len(), distinct.len()), (25_000, 25_000));
}

#[tokio::test]
async fn a_lost_connection_is_followed_by_a_catch_up() {
    let db = Database::new().await;
    let proxy = FaultProxy::new(&db.url);
    let feed = Following::start(&proxy.url(&db.url));
    feed.completed(1).await;
    proxy.set(Fault::Cut);
    db.execute(FILL).await;
    while feed.handle.error().is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    proxy.set(Fault::None);
    feed.completed(2).await;
    assert_eq!(feed.told().len(), 5);
    assert!(!feed.end().await.full);
}

#[tokio::test]
async fn a_frozen_server_is_noticed_and_followed_again_when_it_wakes() {
    let cluster = Cluster::dedicated();
    let db = cluster.database().await;
    let settings = Config {
        poll_interval: Span::millis(50),
        connect_timeout: Span::millis(300),
        ..config(&db.url)
    };
    let feed = Following::with(settings, Seen::default());
    feed.completed(1).await;
    cluster.freeze();
    while feed.handle.error().is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cluster.thaw();
    db.execute(FILL).await;
    feed.completed(2).await;
    assert!(!feed.end().await.full);
}

/// As far away as that, a lookup that has to open a connection first is too late, and loses it.
#[tokio::test]
async fn connections_that_take_longer_than_a_lookup_may_are_kept_open_beforehand() {
    let db = Database::new().await;
    db.execute(FILL).await;
    let proxy = FaultProxy::new(&db.url);
    // Each of what a connection and a question consist of; three for the first, and seven or, where
    // it was prepared, five for the second.
    proxy.set(Fault::Delay(Duration::from_millis(100)));
    let settings = Config {
        lookup_deadline: Span::millis(800),
        connect_timeout: Span::secs(20),
        poll_interval: Span::millis(50),
        breaker_open_for: Span::millis(50),
        ..config(&proxy.url(&db.url))
    };
    let following = Following::with(settings, Seen::default());
    following.completed(1).await;
    let source = &following.source;
    until("a lookup", async || source.lookup(digest("nobody's")).await.is_ok()).await;
    // All of its connections are lost behind somebody's lock.
    let mut other = db.connect().await;
    let mut lock = other.begin().await.unwrap();
    lock.execute("LOCK TABLE gatepost.api_keys").await.unwrap();
    until("lookups pause", async || {
        source.lookup(digest("nobody's")).await == Err(SourceError::BreakerOpen)
    })
    .await;
    lock.rollback().await.unwrap();
    until("a lookup again", async || source.lookup(digest("nobody's")).await.is_ok()).await;
    following.end().await;
}

#[tokio::test]
async fn a_pooler_that_says_nothing_holds_no_catch_up_up() {
    let db = Database::new().await;
    db.execute(FILL).await;
    let (pooler, direct) = (FaultProxy::new(&db.url), config(&db.url).url);
    pooler.set(Fault::BlackHole);
    let settings = Config {
        direct_url: direct,
        connect_timeout: Span::secs(3600),
        poll_interval: Span::secs(3600),
        ..config(&pooler.url(&db.url))
    };
    let following = Following::with(settings, Seen::default());
    let caught_up = tokio::time::timeout(Duration::from_secs(20), following.completed(1));
    caught_up.await.expect("it does not wait for the pooler");
    following.end().await;
}
