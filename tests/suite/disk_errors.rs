//! A disk that fails, fills up, or takes its time, under the real program: what was promised is
//! kept, nothing is counted twice, and it goes on by itself.

mod attached;
mod merging;
mod slow;

use axum::http::Method;
use futures_util::future::join_all;
use serde_json::Value;

use crate::support::gateway::{Gateway, Made, until};
use crate::support::shim::Shim;

/// A limit that every answer tells of.
const LIMITED: &str = "[[policies]]\nname = \"default\"\nrate_limits = [{ name = \"r\", limit = \
                       1000000, window = \"1s\" }]\n";

/// An embedded gateway behind the shim that `set` makes of the plain one.
fn gateway(settings: &str, set: impl Fn(Shim) -> Shim) -> Option<Gateway> {
    let mut gateway = Gateway::new(None, &format!("[journal]\n{settings}{LIMITED}"));
    gateway.shim = Some(set(Shim::below(gateway.dir())?));
    Some(gateway)
}

async fn started(gateway: &mut Gateway) -> Made {
    gateway.start().await;
    gateway.create_client("acme").await;
    gateway.create_key("acme").await
}

/// Takes all room from the disk, and asks until the gateway has noticed: how often it let through.
async fn fill_until_said(gateway: &Gateway, key: &Made) -> u64 {
    gateway.shim().quota(Some(0));
    let mut passed = 0;
    while !gateway.said().contains("facts wait in memory") {
        assert!(gateway.allowed(key).await);
        passed += 1;
        assert!(passed < 99_999, "the disk is full: {}", gateway.said());
    }
    passed
}

impl Gateway {
    fn shim(&self) -> &Shim {
        self.shim.as_ref().expect("a shim")
    }

    async fn allowed(&self, key: &Made) -> bool {
        let answer = self.http().authorize(&key.key).await.expect("an answer");
        assert!([200, 503].contains(&answer.status), "{answer:?}");
        assert!(answer.status == 200 || answer.code() == "accounting_unavailable", "{answer:?}");
        assert!(answer.status == 200 || answer.header("ratelimit").is_some(), "{answer:?}");
        answer.status == 200
    }

    async fn metric(&self, name: &str) -> u64 {
        let text = self.admin().get("/metrics").await.body;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
    }

    async fn journal(&self) -> Value {
        let status = self.control(Method::GET, "/status", "").await.expect("an answer");
        status.json()["journal"].clone()
    }

    async fn counted(&self) -> u64 {
        let usage = self.run(&["usage", "--period", "all"]).await.json();
        let rows = usage.as_array().expect("a list");
        let client = rows.iter().find(|row| row["client"] == "acme");
        client.map_or(0, |row| row["sum"]["requests"].as_u64().expect("a number"))
    }
}

/// EIO at one sync of the usage lane's data: the first is that of a new segment, the later ones are
/// commits, an `end`, or the directory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_fails_once_ends_a_segment_and_loses_nothing() {
    for failing in 2..8 {
        let set = |shim: Shim| shim.only("/journal/usage/").failing(&format!("sync:{failing}"));
        let settings = "commit = \"before_reply\"\nsegment_max_bytes = \"1KiB\"\n";
        let Some(mut gateway) = gateway(settings, set) else { return };
        let key = started(&mut gateway).await;
        let (mut answered, mut issued) = (0, 0);
        // All of it, and as long as it refuses; whether it recovers is seen by the last ones.
        while issued < 20 || answered < 10 {
            issued += 1;
            answered += u64::from(gateway.allowed(&key).await);
            assert!(issued < 10_000, "it does not recover: {}", gateway.said());
        }
        let counted = gateway.counted().await;
        let law = format!("sync {failing}: {answered} ≤ {counted} ≤ {issued}");
        assert!(answered <= counted && counted <= issued, "{law}");
        if failing > 3 {
            // Not at the making of the first segment.
            assert!(gateway.said().contains("Input/output error"), "{}", gateway.said());
        }
        gateway.kill9();
        gateway.shim = None;
        gateway.start().await;
        assert_eq!(gateway.counted().await, counted, "sync {failing}: no tail was read");
        gateway.terminate().await;
        assert!(!gateway.data_dir().join("quarantine").exists(), "sync {failing}");
    }
}

/// The disk is as full as it is now: only what is freed may be used. Returns the requests that
/// passed before the gateway noticed.
async fn fill(gateway: &Gateway, key: &Made) -> u64 {
    gateway.shim().quota(Some(bytes_below(gateway.dir())));
    let (mut passed, mut asked) = (0, 0);
    while gateway.journal().await["disk_full"] == false {
        passed += u64::from(gateway.allowed(key).await);
        asked += 1;
        assert!(asked < 10_000, "it is not full: {}", gateway.said());
    }
    passed
}

async fn a_full_disk(settings: &str, rejects: bool) {
    let settings =
        format!("interval = \"5ms\"\nsegment_max_bytes = \"1KiB\"\nballast = \"8MiB\"\n{settings}");
    let Some(mut gateway) = gateway(&settings, |shim| shim) else { return };
    let key = started(&mut gateway).await;
    let other = gateway.create_key("acme").await;
    let ballast = gateway.data_dir().join("ballast");
    until("the ballast", || async { ballast.exists() }).await;
    let mut passed = u64::from(gateway.allowed(&key).await);

    passed += fill(&gateway, &key).await;
    assert!(!ballast.exists(), "its room was given back");
    let answers = join_all((0..20).map(|_| gateway.allowed(&key))).await;
    assert!(answers.iter().all(|allowed| *allowed != rejects), "{answers:?}");
    let lane = gateway.journal().await["lanes"][2].clone();
    assert_eq!(lane["lane"], "usage");
    let dropped = lane["dropped"].as_u64().expect("a number");
    if rejects {
        assert!(lane["rejected"].as_u64() >= Some(20) && dropped == 0, "{lane}");
    } else {
        assert!(dropped >= 20, "{lane}");
        passed += 20;
    }
    // A revocation is taken, and is on disk.
    gateway.revoke(&other).await;
    assert_eq!(gateway.admin().get("/readyz").await.status, if rejects { 503 } else { 200 });
    // Room again: it goes on by itself, and the ballast is back.
    gateway.shim().quota(None);
    until("room", || async { gateway.journal().await["disk_full"] == false }).await;
    assert!(ballast.exists());
    for _ in 0..10 {
        assert!(gateway.allowed(&key).await);
        passed += 1;
    }
    let dropped = gateway.metric("gatepost_journal_dropped_total{lane=\"usage\"}").await;
    gateway.terminate().await;
    gateway.shim = None;
    gateway.start().await;
    let (status, code) = gateway.http().verdict(&other.key).await;
    assert_eq!((status, code.as_str()), (401, "key_revoked"));
    // Its denial was counted as well.
    gateway.terminate().await;
    let counted = gateway.counted().await - 1;
    assert_eq!(counted + dropped, passed, "each is counted, or counted as dropped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_takes_an_orderly_end_and_a_start() {
    let settings = "interval = \"5ms\"\nsegment_max_bytes = \"1KiB\"\nballast = \"8MiB\"\n";
    let Some(mut gateway) = gateway(settings, |shim| shim) else { return };
    let key = started(&mut gateway).await;
    let ballast = gateway.data_dir().join("ballast");
    until("the ballast", || async { ballast.exists() }).await;
    let passed = fill(&gateway, &key).await;
    gateway.terminate().await;
    for lane in ["state", "usage"] {
        let lane = gateway.data_dir().join("journal").join(lane);
        for segment in lane.read_dir().expect("there").map(|entry| entry.expect("read").path()) {
            assert!(segment.join("end").exists(), "{}", segment.display());
        }
    }
    gateway.start().await;
    assert_eq!(gateway.counted().await, passed);
    assert!(!gateway.allowed(&key).await, "there is no room yet");
    gateway.shim().quota(None);
    until("room", || gateway.allowed(&key)).await;
    gateway.terminate().await;
}

/// Nobody could free the ballast before the end, and the start needs room to read what there is.
async fn a_kill_and_a_start(bound: fn(&Shim, Option<u64>)) {
    let settings = "interval = \"5ms\"\nsegment_max_bytes = \"1KiB\"\nballast = \"8MiB\"\n";
    let Some(mut gateway) = gateway(settings, |shim| shim) else { return };
    let key = started(&mut gateway).await;
    let other = gateway.create_key("acme").await;
    let ballast = gateway.data_dir().join("ballast");
    until("the ballast", || async { ballast.exists() }).await;
    assert!(gateway.allowed(&key).await);
    gateway.kill9();
    bound(gateway.shim(), Some(bytes_below(gateway.dir())));
    gateway.start().await;
    assert!(length(&ballast) <= 1, "its room was given back");
    assert!(!gateway.allowed(&key).await, "there is no room yet");
    gateway.revoke(&other).await;
    bound(gateway.shim(), None);
    until("room", || gateway.allowed(&key)).await;
    assert_eq!(length(&ballast), 8 << 20);
    assert!(!gateway.data_dir().join("quarantine").exists(), "a full disk is no damage");
    gateway.terminate().await;
}

fn length(file: &std::path::Path) -> u64 {
    file.metadata().map_or(0, |meta| meta.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_takes_a_kill_and_a_start() {
    a_kill_and_a_start(Shim::quota).await;
}

/// Free space does not tell: the disk has room, for others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_used_up_quota_takes_a_kill_and_a_start() {
    a_kill_and_a_start(Shim::user_quota).await;
}

/// A gateway that ended in order on a disk that is full now, and has lost its cache: its journal
/// opens, and there is no room for a new cache.
async fn without_a_cache(ballast: &str, bound: fn(&Shim, Option<u64>)) -> Option<(Gateway, Made)> {
    let settings = format!("interval = \"5ms\"\nballast = \"{ballast}\"\n");
    let mut gateway = gateway(&settings, |shim| shim)?;
    let key = started(&mut gateway).await;
    until("the ballast", || async { length(&gateway.data_dir().join("ballast")) > 0 }).await;
    assert!(gateway.allowed(&key).await);
    gateway.terminate().await;
    std::fs::remove_dir_all(gateway.data_dir().join("cache")).expect("there");
    bound(gateway.shim(), Some(bytes_below(gateway.dir())));
    Some((gateway, key))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_that_finds_no_room_is_given_that_of_the_ballast() {
    for bound in [Shim::quota, Shim::user_quota] {
        let Some((mut gateway, key)) = without_a_cache("8MiB", bound).await else { return };
        gateway.start().await;
        let said = gateway.said();
        assert!(said.contains("starting with the room of the ballast"), "{said}");
        assert!(said.contains("cache directory cannot be used"), "the cache failed: {said}");
        assert!(!gateway.allowed(&key).await, "there is no room yet");
        bound(gateway.shim(), None);
        until("room", || gateway.allowed(&key)).await;
        gateway.terminate().await;
    }
}

/// What the ballast gives is not enough: not a wrong configuration, but a matter of time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_on_a_disk_that_stays_full_says_try_again() {
    for bound in [Shim::quota, Shim::user_quota] {
        let Some((mut gateway, key)) = without_a_cache("64KiB", bound).await else { return };
        for _ in 0..2 {
            let ran = gateway.serve_in_vain().await;
            assert_eq!(ran.code, Some(75), "{ran:?}");
            assert!(ran.stderr.contains("make room and start again"), "{ran:?}");
        }
        bound(gateway.shim(), None);
        gateway.start().await;
        until("room", || gateway.allowed(&key)).await;
        gateway.terminate().await;
        assert_eq!(gateway.counted().await, 2);
    }
}

/// When even the reserve is used up, changes are refused, attempts leave nothing behind, and what
/// was refused harms nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_reserve_attempts_leave_nothing_behind() {
    let settings = "interval = \"5ms\"\nsegment_max_bytes = \"1KiB\"\nballast = \"1MiB\"\n";
    let Some(mut gateway) = gateway(settings, |shim| shim) else { return };
    let key = started(&mut gateway).await;
    let ballast = gateway.data_dir().join("ballast");
    until("the ballast", || async { ballast.exists() }).await;
    fill(&gateway, &key).await;
    let new = || gateway.control(Method::POST, "/keys", r#"{"client":"acme"}"#);
    let mut made = Vec::new();
    loop {
        let answer = new().await.expect("an answer");
        if answer.status != 201 {
            assert_eq!(answer.status, 503, "{answer:?}");
            break;
        }
        made.push(Made::of(&answer.json()));
        assert!(made.len() < 1000, "the reserve has an end");
    }
    assert!(!made.is_empty(), "there was a reserve");
    let state = gateway.data_dir().join("journal/state");
    let segments = || state.read_dir().expect("there").count();
    let before = segments();
    // Room for a directory and a name in it, and no more.
    gateway.shim().quota(Some(bytes_below(gateway.dir()) + 2 * 4096));
    for _ in 0..5 {
        assert_eq!(new().await.expect("an answer").status, 503);
    }
    until("attempts leave no directories", || async { segments() <= before }).await;
    gateway.shim().quota(None);
    until("room", || gateway.allowed(&key)).await;
    gateway.terminate().await;
    gateway.shim = None;
    gateway.start().await;
    for key in &made {
        assert!(gateway.allowed(key).await, "what was answered holds");
    }
    gateway.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_disk_without_any_room_cannot_take_waits_in_memory() {
    let settings = "interval = \"5ms\"\nballast = \"0B\"\n";
    let Some(mut gateway) = gateway(settings, |shim| shim) else { return };
    let key = started(&mut gateway).await;
    assert!(gateway.allowed(&key).await);
    let mut passed = 1 + fill_until_said(&gateway, &key).await;
    for _ in 0..10 {
        assert!(gateway.allowed(&key).await);
        passed += 1;
    }
    gateway.shim().quota(None);
    gateway.terminate().await;
    gateway.start().await;
    assert_eq!(gateway.counted().await, passed);
}

fn bytes_below(dir: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    // The shim takes 4 KiB for an entry.
    entries.map(|entry| 4096 + bytes(entry)).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_requests_are_refused_and_revocations_are_not() {
    a_full_disk("on_full = \"reject\"\n", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_requests_pass_and_each_that_is_dropped_is_counted() {
    a_full_disk("on_full = \"drop_and_count\"\n", false).await;
}
