//! Hours in small: a gateway under mixed load, through outages of Postgres, and memory, descriptors
//! and disk do not climb.
//!
//! Thirty minutes, only with `GATEPOST_LONG=1`; `GATEPOST_SOAK_SECONDS` shortens it. They are
//! looked at every half a second. The first third warms up; through what comes then a line is laid,
//! and its slope is bounded. (In less than ten minutes nothing is warm: then the slopes are told.)

mod load;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::support::database::Database;
use crate::support::dice::{Dice, long, setting};
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::gateway::Gateway;
use load::Load;

const KEYS: usize = 64;

/// What each may climb in an hour; and by how much the line may miss, for what is looked at goes up
/// and down with segments and outages.
const MEMORY_KIB: Bound = Bound { an_hour: 24.0 * 1024.0, noise: 6.0 * 1024.0 };
const DESCRIPTORS: Bound = Bound { an_hour: 8.0, noise: 8.0 };
/// (A key that came and went stays on disk, revoked: 1,800 of them in an hour.)
const DISK_KIB: Bound = Bound { an_hour: 24.0 * 1024.0, noise: 8.0 * 1024.0 };
const FILES: Bound = Bound { an_hour: 60.0, noise: 40.0 };

/// The first third of ten minutes.
const WARM_HOURS: f64 = 10.0 / 3.0 / 60.0;

struct Bound {
    an_hour: f64,
    noise: f64,
}

/// Tables are small, so that they are full when it is warm.
const SETTINGS: &str = "[journal]\nretention = \"5s\"\nsegment_max_age = \"10s\"\n\
     [drain]\ninterval = \"50ms\"\ndeadline = \"2s\"\n\
     [postgres]\nconnect_timeout = \"500ms\"\npoll_interval = \"500ms\"\n\
     [cache]\nhot_entries = 1000\nabsent_entries = 1000\n\
     [[policies]]\nname = \"default\"\n\
     rate_limits = [{ name = \"steady\", limit = 100000, window = \"1s\", per = \"key\" }]\n\
     quotas = [{ name = \"yearly\", limit = 1000000000, period = \"year\" }]\n";

/// What a process holds at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    hours: f64,
    memory_kib: u64,
    descriptors: u64,
    disk: Disk,
}

/// What a directory takes of the disk: small files take a block each.
#[derive(Clone, Copy, Debug, Default)]
struct Disk {
    bytes: u64,
    files: u64,
}

impl Sample {
    fn of(pid: u32, data: &Path, at: Duration) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let memory_kib = line.split_whitespace().next().unwrap().parse().unwrap();
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
        let mut disk = Disk::default();
        disk.add(data);
        Self { hours: at.as_secs_f64() / 3600.0, memory_kib, descriptors, disk }
    }
}

impl Disk {
    /// Everything below; what goes meanwhile does not count.
    fn add(&mut self, dir: &Path) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(data) = entry.metadata() else { continue };
            self.bytes += data.blocks() * 512;
            self.files += 1;
            if data.is_dir() {
                self.add(&entry.path());
            }
        }
    }
}

/// The slope of the line that misses these points least: what is gained in an hour.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let over: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    over / points.iter().map(|point| (point.0 - x).powi(2)).sum::<f64>()
}

#[test]
fn a_slope_is_that_of_the_line() {
    let saw = [0.0, 3.0, 1.0, 4.0, 2.0, 5.0, 3.0, 6.0];
    let points: Vec<_> = (0_u8..).map(f64::from).zip(saw.map(|value| value + 100.0)).collect();
    assert!((slope(&points) - 0.619).abs() < 0.01, "{}", slope(&points));
    let climbs = |bound: &Bound| climbs(&points, bound);
    assert!(climbs(&Bound { an_hour: 0.5, noise: 0.4 }));
    assert!(!climbs(&Bound { an_hour: 0.5, noise: 0.9 }));
    assert!(!climbs(&Bound { an_hour: 0.7, noise: 0.0 }));
}

/// Whether they gain more than they may, over all of the time.
fn climbs(points: &[(f64, f64)], bound: &Bound) -> bool {
    let hours = points[points.len() - 1].0 - points[0].0;
    slope(points) * hours > bound.an_hour * hours + bound.noise
}

fn does_not_climb(what: &str, samples: &[Sample], bound: &Bound, value: impl Fn(&Sample) -> u64) {
    let warm = &samples[samples.len() / 3..];
    let points: Vec<_> = warm.iter().map(|one| (one.hours, value(one) as f64)).collect();
    let [first, last] = [&points[0], &points[points.len() - 1]].map(|point| point.1);
    let most = points.iter().map(|point| point.1).fold(0.0, f64::max);
    let told = format!("{what}: {:+.1} an hour; {first}, at most {most}, {last}", slope(&points));
    say(&told);
    let warmed_up = points[0].0 >= WARM_HOURS;
    assert!(!warmed_up || !climbs(&points, bound), "it climbs: {told}");
}

#[expect(clippy::print_stderr, reason = "the figures of a long run are kept")]
fn say(line: &str) {
    eprintln!("soak: {line}");
}

/// Now and then Postgres is cut off, frozen or slow for a moment, and COMMITs are lost.
async fn weather(line: Arc<FaultProxy>, load: Arc<Load>) {
    let dice = Dice::new();
    while !load.stop.load(SeqCst) {
        tokio::time::sleep(Duration::from_millis(500) + dice.millis(3000)).await;
        line.set(match dice.below(6) {
            0 => Fault::Cut,
            1 => Fault::BlackHole,
            2 => Fault::CutAfterCommit,
            3 => Fault::CutBeforeCommit,
            4 => Fault::FreezeAfterCommit,
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
    for client in ["acme", "hasty", "web", "passing"] {
        gateway.create_client(client).await;
    }
    let mut keys = Vec::new();
    for _ in 0..KEYS {
        keys.push(gateway.create_key("acme").await);
    }
    let hasty = gateway.create_key("hasty").await;
    let (stop, answered) = (AtomicBool::new(false), Default::default());
    let (aborted, refreshed, came_and_went, reloaded) = Default::default();
    let load = Arc::new(Load {
        gateway,
        keys,
        hasty,
        stop,
        answered,
        aborted,
        refreshed,
        came_and_went,
        reloaded,
    });
    let mut tasks = load.start();
    tasks.spawn(weather(Arc::clone(&line), Arc::clone(&load)));

    let (begin, mut samples) = (Instant::now(), Vec::new());
    while begin.elapsed() < span {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let gateway = &load.gateway;
        samples.push(Sample::of(gateway.pid(), &gateway.data_dir(), begin.elapsed()));
        if let Some(ended) = tasks.try_join_next() {
            ended.expect("a caller goes on");
        }
    }
    load.stop.store(true, SeqCst);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    line.set(Fault::None);
    let mut load = Arc::into_inner(load).expect("all of them have ended");
    load.gateway.drain().await;
    let answered = load.answered.load(SeqCst);
    say(&format!("{answered} requests in {span:?}, {} samples, {:?}", samples.len(), line.lost()));
    let [aborted, refreshed, came_and_went, reloaded] =
        [&load.aborted, &load.refreshed, &load.came_and_went, &load.reloaded]
            .map(|count| count.load(SeqCst));
    say(&format!(
        "{aborted} aborted, {refreshed} refreshed, {came_and_went} keys came and went, {reloaded} \
         reloads"
    ));
    let sql = "SELECT total_requests FROM gatepost.client_statistics WHERE client_name = 'acme'";
    assert_eq!(db.number(sql).await, i64::try_from(answered).unwrap());
    let lost = line.lost();
    assert!(lost.unanswered > 0 && lost.unsent > 0, "no COMMIT was lost: {lost:?}");
    does_not_climb("resident, KiB", &samples, &MEMORY_KIB, |one| one.memory_kib);
    does_not_climb("descriptors", &samples, &DESCRIPTORS, |one| one.descriptors);
    does_not_climb("data directory, KiB", &samples, &DISK_KIB, |one| one.disk.bytes / 1024);
    does_not_climb("files", &samples, &FILES, |one| one.disk.files);
    load.gateway.terminate().await;
}
