//! A wall clock that somebody sets under the real program, in the middle of a batch too.

use std::time::Duration;

use gatepost::clock::{Clock, SystemClock};
use gatepost::model::Timestamp;
use sqlx::{Connection, Executor};

use super::{SETTINGS, counted, keys, pass};
use crate::support::database::Database;
use crate::support::gateway::{Gateway, until};
use crate::support::wall::WallClock;

const HOUR: Duration = Duration::from_secs(3600);

/// Where it is set to, from where it is right: a day ahead, an hour back, 1970, 2100.
const JUMPS: [fn(Timestamp) -> Timestamp; 4] = [
    |right| right.plus(HOUR * 24),
    |right| right.minus(HOUR),
    |_| Timestamp(60_000_000),
    |_| Timestamp(4_102_444_800_000_000),
];

const COUNTED: &str = "SELECT coalesce(sum(requests), 0)::bigint FROM gatepost.key_activity";
const HOURLY: &str = "SELECT coalesce(sum(requests), 0)::bigint FROM gatepost.usage_hourly";
const SEEN: &str =
    "SELECT (extract(epoch FROM max(last_used_at)) * 1000000)::bigint FROM gatepost.key_activity";
const AHEAD: &str = "SELECT count(*) FROM gatepost.key_activity \
     WHERE last_used_at > now() + interval '5 s'";
const LOCK: &str = "LOCK TABLE gatepost.client_table_totals IN EXCLUSIVE MODE";
const WAITING: &str = "SELECT count(*) FROM pg_locks WHERE NOT granted \
     AND relation = 'gatepost.client_table_totals'::regclass \
     AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// What came of it, once all of it has been sent by itself: intervals are not the wall clock's.
async fn settled(db: &Database, passed: i64, seen: &mut i64) {
    until("it is sent", async || db.number(COUNTED).await == passed).await;
    assert_eq!(db.number(HOURLY).await, passed, "no hour is lost");
    let now = db.number(SEEN).await;
    assert!(now >= *seen, "it was seen last {} µs earlier than before", *seen - now);
    assert_eq!(db.number(AHEAD).await, 0, "it was seen last in times to come");
    *seen = now;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_loses_no_count_and_takes_no_last_seen_back() {
    let db = Database::new().await;
    let real = SystemClock::new();
    let Some(clock) = WallClock::at(real.now()) else { return };
    let mut gateway = Gateway::new(Some(&db.url), SETTINGS);
    clock.hang_in(&mut gateway);
    gateway.start_ready().await;
    let keys = keys(&gateway).await;
    let (mut passed, mut seen) = (0, i64::MIN);
    for jump in JUMPS {
        // A batch is on its way when the clock is set, and when it is set back.
        for moment in [jump(real.now()), real.now()] {
            let mut other = db.connect().await;
            let mut lock = other.begin().await.unwrap();
            lock.execute(LOCK).await.unwrap();
            pass(gateway.http(), &keys[0]).await;
            until("a batch waits", async || db.number(WAITING).await > 0).await;
            clock.set(moment);
            for key in &keys {
                pass(gateway.http(), key).await;
            }
            lock.rollback().await.unwrap();
            passed += 1 + keys.len() as i64;
            settled(&db, passed, &mut seen).await;
        }
    }
    let counted = counted(&db).await;
    assert_eq!(counted[&keys[0].id], 2 * passed / (1 + keys.len() as i64));
    gateway.terminate().await;
    assert!(!gateway.said().contains("panicked"), "{}", gateway.said());
}
