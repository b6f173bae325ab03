//! The real program without Postgres, started again and again; and then with it.
//!
//! 10 starts, and 500 with `GATEPOST_LONG=1`.

use std::time::{Duration, Instant};

use crate::support::database::Database;
use crate::support::dice::long;
use crate::support::gateway::{Gateway, until};
use crate::support::process::peak_kib;

/// Each start leaves a segment in each lane; merged there are some of each, whatever their number.
const FEW: usize = 26;
/// What memory may grow by from the first starts to the last: the clients that were made meanwhile,
/// and what one start differs from another by.
const GROWTH_MAX_KIB: u64 = 16 << 10;

/// What one start met, and took.
#[derive(Debug)]
struct Start {
    segments: usize,
    bytes: u64,
    took: Duration,
    peak_kib: Option<u64>,
}

fn segments(gateway: &Gateway) -> usize {
    let dirs = |lane| std::fs::read_dir(gateway.data_dir().join("journal").join(lane)).unwrap();
    ["state", "quota", "usage", "events"].into_iter().map(|lane| dirs(lane).count()).sum()
}

/// The most of it, in `starts`.
fn most<T: Ord>(starts: &[Start], of: impl Fn(&Start) -> T) -> T {
    starts.iter().map(of).max().expect("some")
}

#[expect(clippy::print_stderr, reason = "the runner shows it where a test fails")]
fn stay_bounded(starts: &[Start]) {
    let some = starts.len().div_ceil(10);
    for (number, part) in starts.chunks(some).enumerate() {
        let mut took: Vec<_> = part.iter().map(|start| start.took).collect();
        took.sort();
        eprintln!(
            "starts {:>3}..: {} segments, {} KiB of journal, {:?} (median) to /livez, {:?} KiB",
            number * some,
            most(part, |start| start.segments),
            most(part, |start| start.bytes) >> 10,
            took[took.len() / 2],
            most(part, |start| start.peak_kib),
        );
    }
    assert!(most(starts, |start| start.segments) <= 2 * FEW, "{starts:?}");
    let (first, last) = (&starts[..some], &starts[starts.len() - some..]);
    let peaks = [first, last].map(|part| most(part, |start| start.peak_kib));
    if let [Some(first), Some(last)] = peaks {
        assert!(last <= first + GROWTH_MAX_KIB, "from {first} to {last} KiB");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_starts_leave_few_segments_and_settle_all_of_it_one_day() {
    let many = if long() { 500 } else { 10 };
    let mut gateway = Gateway::new(
        None,
        "[journal]\ninterval = \"5ms\"\n[[policies]]\nname = \"default\"\n\
         quotas = [{ name = \"yearly\", limit = 1000000, period = \"year\" }]\n",
    );
    gateway.start().await;
    gateway.create_client("acme").await;
    let made = gateway.create_key("acme").await;
    gateway.terminate().await;
    let mut starts = Vec::new();
    for start in 0..many {
        let journal = gateway.data_dir().join("journal");
        let (segments, bytes) = (segments(&gateway), gatepost::disk::bytes_below(&journal));
        let began = Instant::now();
        gateway.start().await;
        let took = began.elapsed();
        assert_eq!(gateway.http().decided(&made.key).await.unwrap().status, 200);
        gateway.create_client(&format!("client-{start}")).await;
        starts.push(Start { segments, bytes, took, peak_kib: peak_kib(gateway.pid()) });
        gateway.terminate().await;
        // A command on the directory leaves segments as well.
        gateway.create_client(&format!("offline-{start}")).await;
    }
    stay_bounded(&starts);
    gateway.start().await;
    until("few segments", async || segments(&gateway) <= FEW).await;
    assert_eq!(gateway.http().decided(&made.key).await.unwrap().status, 200);
    gateway.terminate().await;

    let db = Database::new().await;
    gateway.attach(&db.url);
    gateway.start_ready().await;
    gateway.drain().await;
    let settled = [
        ("SELECT sum(succeeded)::bigint FROM gatepost.usage_hourly", many + 1),
        ("SELECT sum(used)::bigint FROM gatepost.quota_usage", many + 1),
        ("SELECT count(*) FROM gatepost.clients", 2 * many + 1),
        ("SELECT count(*) FROM gatepost.audit_log", 2 * many + 2),
    ];
    for (sql, expected) in settled {
        assert_eq!(db.number(sql).await, expected, "{sql}");
    }
    assert_eq!(gateway.http().decided(&made.key).await.unwrap().status, 200);
    gateway.terminate().await;
    assert!(!gateway.data_dir().join("quarantine").exists());
}
