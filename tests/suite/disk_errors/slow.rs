//! A disk that takes its time, or hangs: who need not wait for it does not, and who must shares it.

use std::time::Duration;

use futures_util::future::join_all;

use super::{gateway, started};
use crate::support::gateway::until;
use crate::support::shim::Shim;

/// For an answer that is held up by nothing.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_interval_requests_do_not_wait_for_a_disk_that_hangs() {
    let set = |shim: Shim| shim.only("/journal/");
    let Some(mut gateway) = gateway("interval = \"5ms\"\n", set) else { return };
    let key = started(&mut gateway).await;
    assert!(gateway.allowed(&key).await);
    gateway.shim().hold();
    for _ in 0..200 {
        assert!(gateway.allowed(&key).await);
    }
    gateway.shim().release();
    gateway.terminate().await;
    gateway.start().await;
    assert_eq!(gateway.counted().await, 201);
}

/// No permission depends on what becomes of the disk: a denial waits a moment, and is given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_reply_a_denial_does_not_wait_for_a_disk_that_hangs() {
    let set = |shim: Shim| shim.only("/journal/usage/");
    let Some(mut gateway) = gateway("commit = \"before_reply\"\n", set) else { return };
    let key = started(&mut gateway).await;
    assert!(gateway.allowed(&key).await);
    gateway.revoke(&key).await;
    gateway.shim().hold();
    for _ in 0..3 {
        let answer = tokio::time::timeout(PATIENCE, gateway.http().verdict(&key.key)).await;
        assert_eq!(answer.expect("an answer"), (401, "key_revoked".to_owned()));
    }
    gateway.shim().release();
    gateway.terminate().await;
    gateway.start().await;
    assert_eq!(gateway.counted().await, 4, "each is counted nevertheless");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_reply_many_requests_share_the_commits_of_a_slow_disk() {
    let set = |shim: Shim| shim.only("/journal/usage/").slow(200);
    let Some(mut gateway) = gateway("commit = \"before_reply\"\n", set) else { return };
    let key = started(&mut gateway).await;
    assert!(gateway.allowed(&key).await);
    let before = gateway.metric("gatepost_journal_commits_total").await;
    gateway.shim().hold();
    let gateway_now = &gateway;
    let asking = join_all((0..100).map(|_| gateway_now.allowed(&key)));
    let release = async {
        // All of them are counted, and none is answered: they wait for the one sync.
        let counted = || async { gateway_now.journal().await["pending"].as_u64() > Some(0) };
        until("somebody to wait", counted).await;
        gateway_now.shim().release();
    };
    let (answers, ()) = futures_util::join!(asking, release);
    assert!(answers.iter().all(|allowed| *allowed));
    let commits = gateway.metric("gatepost_journal_commits_total").await - before;
    assert!((1..=20).contains(&commits), "100 requests took {commits} commits");
    // And the metric tells how slow it is: each of them has waited for a sync.
    let text = gateway.admin().get("/metrics").await.body;
    let told = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.trim().parse::<f64>().expect("a number")
    };
    let (all, commits) = (
        told("gatepost_journal_commit_duration_seconds_sum"),
        told("gatepost_journal_commits_total"),
    );
    assert!(all >= 0.2 * commits, "{commits} commits took {all} s");
    assert_eq!(gateway.counted().await, 101);
}
