//! What one fault may cost: a segment that cannot be read, a Postgres that takes no writes, a copy
//! with more than the original promised.

use std::fs;
use std::os::unix::fs::symlink;

use gatepost::codec::{self, Kind};
use gatepost::journal::{Config, End, Scope};
use gatepost::model::units::{Size, Span};
use sqlx::Executor;
use tempfile::TempDir;

use super::*;
use crate::support::in_process::{config, count};

/// Postgres out of disk, a standby, a statement that waits for a lock: it answers, and takes
/// nothing. What is marked as sent is not merged: that must not be all.
#[tokio::test]
async fn a_postgres_that_takes_no_writes_leaves_the_backlog_to_be_merged() {
    let db = Database::new().await;
    let sql = format!("ALTER DATABASE \"{}\" SET default_transaction_read_only = on", db.name);
    db.connect().await.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(sql))).await.unwrap();
    let config = Config { segment_max_bytes: Size(1), ..config() };
    let gateway = Gateway::with(TempDir::new().unwrap(), &db.url, None, config);
    for _ in 0..12 {
        count(&gateway, 0..5).await;
        gateway.drainer.drain_now().await.unwrap_err();
        gateway.journal.merge(Scope::Own, &|| false).unwrap();
        let sent = gateway.journal.segments(Lane::Usage);
        assert!(sent.iter().filter(|segment| segment.is_sent()).count() <= 1);
    }
    let segments = gateway.journal.segments(Lane::Usage).len();
    assert!(segments <= 8, "{segments} segments of 5 counters");
    let mut conn = db.connect().await;
    conn.execute("SET default_transaction_read_only = off").await.unwrap();
    let sql = format!("ALTER DATABASE \"{}\" RESET default_transaction_read_only", db.name);
    conn.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(sql))).await.unwrap();
    drain(&gateway).await;
    assert_eq!(db.number(TOTAL).await, 60);
    drop(gateway.shut_down().await);
}

#[tokio::test]
async fn a_bad_sector_in_one_segment_does_not_hold_up_the_others() {
    let db = Database::new().await;
    let gateway = Gateway::new(&db.url);
    count(&gateway, 0..3).await;
    let first = gateway.journal.segments(Lane::Usage)[0].stream;
    let gateway = Gateway::open(gateway.kill().await, &db.url, None);
    count(&gateway, 0..3).await;
    // Killed, so without an `end`: how far it went is asked of its bytes.
    let file = gateway.data.path().join(format!("journal/usage/{first}/db"));
    fs::remove_file(&file).unwrap();
    symlink("/proc/self/mem", &file).unwrap();
    drain(&gateway).await;
    assert_eq!(db.number(TOTAL).await, 3);
    assert_eq!(gateway.journal.quarantined().len(), 1);
    drop(gateway.shut_down().await);
}

/// A commit whose sync failed: its facts are logged in another stream. A copy of the failing disk
/// has them in this one.
#[tokio::test]
async fn an_old_copy_with_a_tail_is_not_counted_twice() {
    let db = Database::new().await;
    let kept =
        || Config { segment_max_bytes: Size::mib(16), retention: Span::secs(3600), ..config() };
    let gateway = Gateway::with(TempDir::new().unwrap(), &db.url, None, kept());
    count(&gateway, 0..1).await;
    drain(&gateway).await;
    count(&gateway, 1..2).await;
    let copy = clone(gateway.data.path());
    let stream = gateway.journal.segments(Lane::Usage)[0].stream;
    let data = gateway.kill().await;
    // What the committer does after an error.
    let end = End { last_seq: 1, facts: 1, sealed: true };
    let file = data.path().join(format!("journal/usage/{stream}/end"));
    fs::write(file, codec::seal(Kind::End, 1, &end).unwrap()).unwrap();
    let gateway = Gateway::with(data, &db.url, None, kept());
    count(&gateway, 1..2).await;
    drain(&gateway).await;
    assert_eq!(db.number(TOTAL).await, 2);
    drop(gateway.shut_down().await);
    let old = Gateway::with(copy, &db.url, None, config());
    drain(&old).await;
    drop(old.shut_down().await);
    assert_eq!(db.number(TOTAL).await, 2, "2 were issued");
}

/// Restored to before the oldest removed stream that is remembered.
#[tokio::test]
async fn a_ledger_that_lost_more_than_is_remembered_says_at_least() {
    const REMEMBERED: usize = 256;
    let db = Database::new().await;
    let small = || Config { segment_max_bytes: Size(1), ..config() };
    let mut gateway = Gateway::with(TempDir::new().unwrap(), &db.url, None, small());
    for _ in 0..=REMEMBERED / 8 {
        for _ in 0..8 {
            count(&gateway, 0..1).await;
        }
        drain(&gateway).await;
    }
    drain(&gateway).await;
    let (removed, _) = gateway.journal.remembered();
    assert_eq!(removed.len(), REMEMBERED, "and some were forgotten");
    let newest = "DELETE FROM gatepost.stream_ledger WHERE stream_id = \
                  (SELECT stream_id FROM gatepost.stream_ledger ORDER BY stream_id DESC LIMIT 1)";
    let all = "DELETE FROM gatepost.stream_ledger";
    for (sql, lost, at_least) in [(newest, 1, false), (all, REMEMBERED - 1, true)] {
        db.execute(sql).await;
        // A start reads the ledger.
        gateway = Gateway::with(gateway.shut_down().await, &db.url, None, small());
        drain(&gateway).await;
        let status = gateway.drainer.status();
        assert_eq!((status.lost.len(), status.lost_at_least), (lost, at_least));
    }
    drop(gateway.shut_down().await);
}
