//! A full disk under a gateway that has a Postgres: it goes on, complains little, and forgets
//! nothing.

use std::time::{Duration, Instant};

use super::{Gateway, fill_until_said, started, until};
use crate::support::database::Database;
use crate::support::shim::Shim;

const SETTINGS: &str = "[journal]\ninterval = \"5ms\"\nballast = \"0B\"\n\
     [drain]\ninterval = \"20ms\"\n[postgres]\npoll_interval = \"200ms\"\n";

/// For a dozen of attempts to write, and as many polls.
const FULL: Duration = Duration::from_secs(3);

const COUNTED: &str = "SELECT coalesce(sum(requests), 0)::bigint FROM gatepost.key_activity";

fn complaints(gateway: &Gateway) -> usize {
    let said = gateway.said();
    said.lines().filter(|line| line.contains("ERROR") || line.contains("WARN")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_full_disk_cannot_take_is_durable_when_there_is_room_and_counts_once() {
    let db = Database::new().await;
    let mut gateway = Gateway::new(Some(&db.url), SETTINGS);
    let Some(shim) = Shim::below(gateway.dir()) else { return };
    gateway.shim = Some(shim);
    let key = started(&mut gateway).await;
    gateway.is_well().await;
    assert!(gateway.allowed(&key).await);
    gateway.drain().await;
    let mut passed = 1 + fill_until_said(&gateway, &key).await.cast_signed();
    // Each of these is served. What goes wrong all the time is not said all the time.
    let (since, before) = (Instant::now(), complaints(&gateway));
    while since.elapsed() < FULL {
        assert!(gateway.allowed(&key).await);
        passed += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let said = complaints(&gateway) - before;
    let seconds = since.elapsed().as_secs();
    assert!(said as u64 <= seconds, "{said} complaints in {seconds} s: {}", gateway.said());
    // Room again: all of it is on disk without anybody's help, and outlives a kill.
    gateway.shim().quota(None);
    until("nothing waits", || async { gateway.journal().await["pending"] == 0 }).await;
    gateway.kill9();
    gateway.start().await;
    gateway.drain().await;
    assert_eq!(db.number(COUNTED).await, passed);
    assert_eq!(gateway.metric("gatepost_journal_dropped_total{lane=\"usage\"}").await, 0);
    assert!(!gateway.data_dir().join("quarantine").exists());
    gateway.terminate().await;
}
