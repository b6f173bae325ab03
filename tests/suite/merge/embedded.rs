//! The real program without Postgres, started again and again; and then with it.

use crate::support::database::Database;
use crate::support::gateway::{Gateway, until};

const STARTS: usize = 10;
/// Each start leaves a segment in each lane; merged there are some of each, whatever their number.
const FEW: usize = 20;

fn segments(gateway: &Gateway) -> usize {
    let dirs = |lane| std::fs::read_dir(gateway.data_dir().join("journal").join(lane)).unwrap();
    ["state", "usage", "events"].into_iter().map(|lane| dirs(lane).count()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_starts_leave_few_segments_and_settle_all_of_it_one_day() {
    let mut gateway = Gateway::new(None, "[journal]\ninterval = \"5ms\"\n");
    gateway.start().await;
    gateway.create_client("acme").await;
    let made = gateway.create_key("acme").await;
    gateway.terminate().await;
    for start in 0..STARTS {
        gateway.start().await;
        assert_eq!(gateway.http().authorize(&made.key).await.unwrap().status, 200);
        gateway.create_client(&format!("client-{start}")).await;
        gateway.terminate().await;
        // A command on the directory leaves segments as well.
        gateway.create_client(&format!("offline-{start}")).await;
    }
    gateway.start().await;
    until("few segments", async || segments(&gateway) <= FEW).await;
    assert_eq!(gateway.http().authorize(&made.key).await.unwrap().status, 200);
    gateway.terminate().await;

    let db = Database::new().await;
    gateway.attach(&db.url);
    gateway.start_ready().await;
    gateway.drain().await;
    let settled = [
        ("SELECT sum(requests)::bigint FROM gatepost.key_activity", STARTS + 1),
        ("SELECT sum(requests)::bigint FROM gatepost.usage_hourly", STARTS + 1),
        ("SELECT count(*) FROM gatepost.clients", 2 * STARTS + 1),
        ("SELECT count(*) FROM gatepost.audit_log", 2 * STARTS + 2),
    ];
    for (sql, expected) in settled {
        assert_eq!(db.number(sql).await, expected as i64, "{sql}");
    }
    assert_eq!(gateway.http().authorize(&made.key).await.unwrap().status, 200);
    gateway.terminate().await;
    assert!(!gateway.data_dir().join("quarantine").exists());
}
