//! Faults that no other room is about: a crash of Postgres itself, many gateways on the same
//! counters, a process that runs out of descriptors, an orderly end without Postgres.
//! docs/evidence.md lists all 25 kinds.

mod clock;
mod dropped;
mod rows;

use std::collections::HashMap;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tokio::task::JoinSet;

use crate::support::cluster::Cluster;
use crate::support::database::Database;
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::gateway::{Gateway, Made, until};
use crate::support::http::Http;
#[cfg(target_os = "linux")]
use crate::support::process::files;

const KEYS: usize = 4;

const SETTINGS: &str = "[journal]\ninterval = \"5ms\"\n[drain]\ninterval = \"20ms\"\n\
     deadline = \"2s\"\n[postgres]\nconnect_timeout = \"500ms\"\npoll_interval = \"200ms\"\n\
     lookup_deadline = \"20s\"\n[cache]\nmiss_deadline = \"20s\"\n";

async fn keys(gateway: &Gateway) -> Vec<Made> {
    gateway.create_client("acme").await;
    let mut keys = Vec::new();
    for _ in 0..KEYS {
        keys.push(gateway.create_key("acme").await);
    }
    keys
}

/// What Postgres has, by key id; every table of sums tells the same.
async fn counted(db: &Database) -> HashMap<String, i64> {
    let sql = "SELECT key_id::text, requests FROM gatepost.key_activity";
    let rows: Vec<(String, i64)> =
        sqlx::query_as(sql).fetch_all(&mut db.connect().await).await.unwrap();
    let total = rows.iter().map(|(_, requests)| requests).sum::<i64>();
    for other in [
        "SELECT total_requests FROM gatepost.client_statistics",
        "SELECT sum(requests)::bigint FROM gatepost.usage_hourly",
    ] {
        assert_eq!(db.number(other).await, total, "{other}");
    }
    rows.into_iter().collect()
}

async fn pass(http: &Http, key: &Made) {
    assert_eq!(http.verdict(&key.key).await, (200, String::new()));
}

/// Callers who go on until they are stopped, and how often each key was let through.
struct Load {
    callers: JoinSet<()>,
    stop: Arc<AtomicBool>,
    passed: Arc<Vec<AtomicU64>>,
}

impl Load {
    fn on(gateway: &Gateway, keys: &[Made]) -> Self {
        let passed = keys.iter().map(|_| AtomicU64::new(0)).collect();
        let (stop, passed) = (Arc::<AtomicBool>::default(), Arc::new(passed));
        let mut callers = JoinSet::new();
        for (at, key) in keys.iter().enumerate() {
            let (http, key) = (gateway.http().clone(), key.clone());
            let (stop, passed) = (Arc::clone(&stop), Arc::<Vec<AtomicU64>>::clone(&passed));
            callers.spawn(async move {
                while !stop.load(SeqCst) {
                    pass(&http, &key).await;
                    passed[at].fetch_add(1, SeqCst);
                }
            });
        }
        Self { callers, stop, passed }
    }

    fn passed(&self) -> u64 {
        self.passed.iter().map(|passed| passed.load(SeqCst)).sum()
    }

    /// Waits for so many more.
    async fn goes_on(&self, more: u64) {
        let before = self.passed();
        until("requests pass", async || self.passed() >= before + more).await;
    }

    async fn end(mut self) -> Vec<i64> {
        self.stop.store(true, SeqCst);
        while let Some(caller) = self.callers.join_next().await {
            caller.expect("every request passes");
        }
        self.passed.iter().map(|passed| passed.load(SeqCst).try_into().unwrap()).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_crashes_in_the_middle_of_batches_and_each_request_counts_once() {
    let cluster = Cluster::dedicated();
    let db = cluster.database().await;
    // The drain asks for better in each transaction.
    let lax = format!("ALTER DATABASE \"{}\" SET synchronous_commit = off", db.name);
    sqlx::raw_sql(sqlx::AssertSqlSafe(lax)).execute(&mut db.connect().await).await.unwrap();
    let mut gateway = Gateway::new(Some(&db.url), SETTINGS);
    gateway.start_ready().await;
    let keys = keys(&gateway).await;
    let load = Load::on(&gateway, &keys);
    for _ in 0..3 {
        load.goes_on(100).await;
        cluster.crash();
        load.goes_on(100).await;
        cluster.start();
    }
    load.goes_on(100).await;
    let passed = load.end().await;
    gateway.drain().await;
    let counted = counted(&db).await;
    for (key, passed) in keys.iter().zip(passed) {
        assert_eq!(counted[&key.id], passed);
    }
    gateway.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_gateways_count_on_the_same_counters() {
    let db = Database::new().await;
    let mut gateways = Vec::new();
    for _ in 0..8 {
        let mut gateway = Gateway::new(Some(&db.url), SETTINGS);
        gateway.start_ready().await;
        gateways.push(gateway);
    }
    let keys = keys(&gateways[0]).await;
    // From now on all of them know the keys: by Postgres, on the first miss.
    gateways[0].drain().await;
    let loads: Vec<Load> = gateways.iter().map(|gateway| Load::on(gateway, &keys)).collect();
    for load in &loads {
        load.goes_on(100).await;
    }
    let mut sums = [0; KEYS];
    for load in loads {
        let passed = load.end().await;
        sums.iter_mut().zip(passed).for_each(|(sum, passed)| *sum += passed);
    }
    for gateway in &mut gateways {
        gateway.drain().await;
        gateway.terminate().await;
        assert!(!gateway.said().contains("deadlock"), "{}", gateway.said());
    }
    let counted = counted(&db).await;
    for (key, sum) in keys.iter().zip(sums) {
        assert_eq!(counted[&key.id], sum);
    }
}

/// Every file below a directory, and its mode.
fn walk(dir: &Path, each: &mut dyn FnMut(&Path, u32)) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        each(&path, path.metadata().unwrap().permissions().mode() & 0o777);
        if path.is_dir() {
            walk(&path, each);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_end_without_postgres_loses_nothing_and_no_secret_is_on_disk_or_in_the_log() {
    const PASSWORD: &str = "not-to-be-found-anywhere";
    let db = Database::new().await;
    let line = FaultProxy::new(&db.url);
    let url = line.url(&db.url).replace("postgres@", &format!("postgres:{PASSWORD}@"));
    let password = url.split_once('@').and_then(|(before, _)| before.rsplit(':').next()).unwrap();
    let mut gateway = Gateway::new(Some(&url), SETTINGS);
    gateway.start_ready().await;
    let keys = keys(&gateway).await;
    let load = Load::on(&gateway, &keys);
    load.goes_on(100).await;
    line.set(Fault::Cut);
    load.goes_on(200).await;
    let passed = load.end().await;
    gateway.terminate().await;

    let secrets = keys.iter().map(|key| key.key.as_str()).chain([password]);
    let secrets: Vec<&str> = secrets.collect();
    walk(&gateway.data_dir(), &mut |path, mode| {
        let most = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode & !most, 0, "{}: {mode:o}", path.display());
        if path.is_file() {
            let bytes = std::fs::read(path).unwrap();
            for secret in &secrets {
                let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
                assert!(!found, "{} holds {secret}", path.display());
            }
        }
    });
    let said = gateway.said();
    assert!(secrets.iter().all(|secret| !said.contains(secret)), "{said}");

    line.set(Fault::None);
    gateway.start().await;
    gateway.drain().await;
    let counted = counted(&db).await;
    for (key, passed) in keys.iter().zip(passed) {
        assert_eq!(counted[&key.id], passed);
    }
    gateway.terminate().await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_descriptors_who_is_connected_is_served_and_all_recovers() {
    let db = Database::new().await;
    let mut gateway = Gateway::new(Some(&db.url), SETTINGS);
    gateway.start_ready().await;
    let keys = keys(&gateway).await;
    for _ in 0..20 {
        pass(gateway.http(), &keys[0]).await;
    }
    gateway.drain().await;
    let limit = files(gateway.pid()) + 20;
    let pid = Pid::from_raw(gateway.pid().try_into().unwrap()).unwrap();
    let limits = Rlimit { current: Some(limit), ..getrlimit(Resource::Nofile) };
    prlimit(Some(pid), Resource::Nofile, limits).unwrap();

    // The kernel takes them all; the gateway has no descriptor for the last ones.
    let address = gateway.http().address().to_owned();
    let crowd: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(&address).unwrap()).collect();
    until("it has no descriptor left", async || files(gateway.pid()) >= limit).await;
    for _ in 0..100 {
        pass(gateway.http(), &keys[0]).await;
    }
    drop(crowd);
    let stranger = Http::new(&format!("http://{address}"));
    until("a new connection is served", async || stranger.authorize(&keys[1].key).await.is_some())
        .await;
    pass(&stranger, &keys[0]).await;
    until("the crowd's descriptors are free", async || files(gateway.pid()) < limit - 10).await;
    gateway.drain().await;
    let counted = counted(&db).await;
    assert_eq!((counted[&keys[0].id], counted[&keys[1].id]), (121, 1));
    gateway.terminate().await;
}
