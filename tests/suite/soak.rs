//! Hours in small: a gateway under mixed load, through outages of Postgres, and memory, descriptors
//! and disk do not climb.
//!
//! Thirty minutes, only with `GATEPOST_LONG=1`; `GATEPOST_SOAK_SECONDS` shortens it. All three are
//! looked at every half a second; the medians of the last two thirds are compared: the first warms
//! up.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use axum::http::Method;
use tokio::task::JoinSet;

use crate::support::database::Database;
use crate::support::dice::{Dice, long, setting};
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::gateway::{Gateway, Made};
use crate::support::http::Http;

const KEYS: usize = 64;
const CALLERS: usize = 8;

/// Between two requests of a caller: a load, not the limit.
const PAUSE: Duration = Duration::from_millis(8);

/// What the last third may have more than the one before: a fifth, and a little.
const MEMORY_MORE_KIB: u64 = 8 * 1024;
const FILES_MORE: u64 = 16;
const DISK_MORE_KIB: u64 = 16 * 1024;

const SETTINGS: &str = "[journal]\nretention = \"5s\"\nsegment_max_age = \"10s\"\n\
     [drain]\ninterval = \"50ms\"\ndeadline = \"2s\"\n\
     [postgres]\nconnect_timeout = \"500ms\"\npoll_interval = \"500ms\"\n\
     [[policies]]\nname = \"default\"\n\
     rate_limits = [{ name = \"steady\", limit = 100000, window = \"1s\", per = \"key\" }]\n\
     quotas = [{ name = \"yearly\", limit = 1000000000, period = \"year\" }]\n";

/// What a process holds at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    memory_kib: u64,
    files: u64,
    disk_kib: u64,
}

impl Sample {
    fn of(pid: u32, data: &Path) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let memory_kib = line.split_whitespace().next().unwrap().parse().unwrap();
        let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
        Self { memory_kib, files, disk_kib: kib_below(data) }
    }
}

/// What lies in a directory; what goes meanwhile does not count.
fn kib_below(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => kib_below(&entry.path()),
        Ok(data) => data.len() / 1024,
        Err(_) => 0,
    });
    sizes.sum()
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

/// Compares the medians of the second third and of the last.
fn does_not_climb(what: &str, samples: &[Sample], more: u64, value: impl Fn(&Sample) -> u64) {
    let third = samples.len() / 3;
    let medians = [0, 1, 2]
        .map(|at| median(samples[at * third..(at + 1) * third].iter().map(&value).collect()));
    say(&format!("{what}: medians of the thirds {medians:?}"));
    let [_, before, last] = medians;
    assert!(last <= before + before / 5 + more, "{what} climbs: {medians:?}");
}

#[expect(clippy::print_stderr, reason = "the figures of a long run are kept")]
fn say(line: &str) {
    eprintln!("soak: {line}");
}

/// One caller of every kind of request, in turns; every answer is what it must be.
async fn call(
    http: Http,
    keys: Arc<Vec<Made>>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    first: usize,
) {
    for turn in first.. {
        if stop.load(SeqCst) {
            return;
        }
        let key = &keys[turn % KEYS].key;
        let bearer = format!("Bearer {key}");
        let (method, path, body) = match turn % 5 {
            0 => (Method::GET, "/echo/hello", String::new()),
            1 => (Method::POST, "/echo/upload", "x".repeat(32 * 1024)),
            2 => (Method::GET, "/echo/unknown", String::new()),
            _ => (Method::GET, "/authz/forward-auth", String::new()),
        };
        let credential = if turn % 5 == 2 { "Bearer junk" } else { &bearer };
        let asked = http.ask(method, path, &[("authorization", credential)], &body).await;
        let answer = asked.expect("an answer");
        let wanted = if turn % 5 == 2 { 401 } else { 200 };
        assert_eq!(answer.status, wanted, "{path}: {}", answer.body);
        answered.fetch_add(u64::from(wanted == 200), SeqCst);
        tokio::time::sleep(PAUSE).await;
    }
}

/// Now and then Postgres is cut off, frozen or slow for a moment.
async fn weather(line: Arc<FaultProxy>, stop: Arc<AtomicBool>) {
    let dice = Dice::new();
    while !stop.load(SeqCst) {
        tokio::time::sleep(Duration::from_millis(500) + dice.millis(3000)).await;
        line.set(match dice.below(5) {
            0 => Fault::Cut,
            1 => Fault::BlackHole,
            2 => Fault::CutAfterCommit,
            3 => Fault::CutBeforeCommit,
            _ => Fault::Delay(Duration::from_millis(5)),
        });
        tokio::time::sleep(dice.millis(3000)).await;
        line.set(Fault::None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_descriptors_and_disk_do_not_climb() {
    if !long() {
        return;
    }
    let span = Duration::from_secs(setting("GATEPOST_SOAK_SECONDS").unwrap_or(30 * 60));
    let db = Database::new().await;
    let line = Arc::new(FaultProxy::new(&db.url));
    let mut gateway = Gateway::new(Some(&line.url(&db.url)), SETTINGS);
    gateway.start_ready().await;
    gateway.create_client("acme").await;
    let mut keys = Vec::new();
    for _ in 0..KEYS {
        keys.push(gateway.create_key("acme").await);
    }
    let (keys, stop, answered) = (Arc::new(keys), Arc::<AtomicBool>::default(), Arc::default());
    let mut load = JoinSet::new();
    for caller in 0..CALLERS {
        let (keys, stop) = (Arc::clone(&keys), Arc::clone(&stop));
        load.spawn(call(gateway.http().clone(), keys, stop, Arc::clone(&answered), caller * 7));
    }
    load.spawn(weather(Arc::clone(&line), Arc::clone(&stop)));

    let (begin, mut samples) = (Instant::now(), Vec::new());
    while begin.elapsed() < span {
        tokio::time::sleep(Duration::from_millis(500)).await;
        samples.push(Sample::of(gateway.pid(), &gateway.data_dir()));
        if let Some(ended) = load.try_join_next() {
            ended.expect("a caller goes on");
        }
    }
    stop.store(true, SeqCst);
    while let Some(ended) = load.join_next().await {
        ended.unwrap();
    }
    line.set(Fault::None);
    gateway.drain().await;
    let answered = answered.load(SeqCst);
    say(&format!("{answered} requests in {span:?}, {} samples", samples.len()));
    let counted = db.number("SELECT sum(requests)::bigint FROM gatepost.key_activity").await;
    assert_eq!(counted, i64::try_from(answered).unwrap());
    does_not_climb("resident, KiB", &samples, MEMORY_MORE_KIB, |sample| sample.memory_kib);
    does_not_climb("descriptors", &samples, FILES_MORE, |sample| sample.files);
    does_not_climb("data directory, KiB", &samples, DISK_MORE_KIB, |sample| sample.disk_kib);
    gateway.terminate().await;
}
