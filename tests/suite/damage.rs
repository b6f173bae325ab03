//! Damaged files: seeded damage to every class of file of a data directory. Whatever it is, the
//! journal opens, nothing is found that was never issued, and what is lost is reported.
//!
//! 200 images, 2,000 with `GATEPOST_LONG=1`; `GATEPOST_SEED` runs one alone.

mod good;
mod harm;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gatepost::clock::SystemClock;
use gatepost::entropy::SystemEntropy;
use gatepost::journal::{Journal, Missing, Reader, Report};
use gatepost::metrics::Metrics;
use gatepost::model::fact::{Fact, Lane, StateFact, UsageFact};
use tempfile::TempDir;
use uuid::Uuid;

use self::good::Good;
use self::harm::{Harm, JOURNAL, PROGRAM, USAGE};
use crate::support::database::Database;
use crate::support::dice::long;
use crate::support::gateway;
use crate::support::in_process::{self, Gateway, config};
use crate::support::journal;

/// Silence that the reading of so little never comes near.
const SILENCE: Duration = Duration::from_secs(10);
/// No image may take longer: two children may be silent for so long.
const IMAGE_MAX: Duration = Duration::from_secs(40);

fn seeds(normal: u64) -> Vec<u64> {
    match std::env::var("GATEPOST_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..if long() { normal * 10 } else { normal }).collect(),
    }
}

/// What a start found of one stream: of the good one's facts, and what it says is missing.
struct Stream {
    lane: Lane,
    facts: u64,
    sealed: bool,
    missing: Missing,
}

fn open(data: &Path, reader: &Reader) -> (Journal, Vec<StateFact>) {
    let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(SystemEntropy::new()));
    let metrics = Arc::new(Metrics::new());
    Journal::open_with(data, config(), reader.clone(), clock, entropy, metrics).unwrap()
}

/// Reads a segment, and holds every chunk against what its writer wrote under that number.
fn read(good: &Good, journal: &Journal, lane: Lane, stream: Uuid) -> Option<Stream> {
    let segment = journal.segments(lane).into_iter().find(|s| s.stream == stream)?;
    let Ok(page) = segment.read(0, usize::MAX) else {
        // It broke after the look through; the drainer would set it aside now.
        segment.release();
        return None;
    };
    for chunk in &page.chunks {
        let issued = good.chunks.get(&(stream, chunk.seq));
        assert_eq!(issued, Some(&chunk.facts), "number {} of {stream}", chunk.seq);
    }
    let facts = page.chunks.iter().map(|chunk| chunk.facts.len() as u64).sum();
    let sealed = segment.missing().exact;
    segment.release();
    Some(Stream { lane, facts, sealed, missing: segment.missing() })
}

/// Everything of the good directory is found, or its loss is reported.
fn account(good: &Good, journal: &Journal, harm: &Harm) {
    let aside = journal.quarantined();
    for (stream, (lane, issued)) in &good.streams {
        let Some(found) = read(good, journal, *lane, *stream) else {
            let here = journal.segments(*lane).iter().any(|s| s.stream == *stream);
            let report = aside.iter().find(|report| report.stream == Some(*stream));
            assert!(here || report.is_some(), "{stream} is gone without a word");
            report.inspect(|report| set_aside(good, report, *stream));
            assert!(harm.dir.contains(&stream.to_string()), "{stream} was not damaged: {report:?}");
            continue;
        };
        assert!(found.facts <= *issued, "{} of {issued} issued", found.facts);
        let lost = issued - found.facts;
        if found.sealed {
            assert_eq!(lost, found.missing.facts, "exact, {:?} {stream}", found.lane);
        } else {
            assert!(lost >= found.missing.facts, "at least, {:?} {stream}", found.lane);
        }
    }
}

fn set_aside(good: &Good, report: &Report, stream: Uuid) {
    let (lane, issued) = good.streams[&stream];
    assert!(!report.reason.is_empty(), "{report:?}");
    assert!(report.missing.facts <= issued, "{report:?}");
    // (Of state facts what can be read is logged again.)
    if lane.is_sum() && report.missing.exact {
        let chunks = good.chunks.keys().filter(|(of, _)| *of == stream).count() as u64;
        let missing = (report.missing.chunks, report.missing.facts);
        assert_eq!(missing, (chunks, issued), "nothing of it is applied: {report:?}");
    }
}

fn look_at(good: &Good, reader: &Reader, seed: u64) -> String {
    let (data, harm) = (TempDir::new().unwrap(), Harm::of(seed, good.path(), JOURNAL));
    gatepost::disk::copy_dir(good.path(), data.path()).unwrap();
    harm.apply(data.path());
    let began = Instant::now();
    let (journal, state) = open(data.path(), reader);
    journal.examine(&|| false);
    assert!(state.iter().all(|fact| good.state.contains(fact)), "nobody said that");
    if !harm.dir.contains("/state/") {
        assert_eq!(state.len(), good.state.len(), "a revocation is not in force");
    }
    account(good, &journal, &harm);
    journal.shutdown().unwrap();
    if harm.dir.contains("/state/") {
        let (journal, again) = open(data.path(), reader);
        assert!(state.iter().all(|fact| again.contains(fact)), "in force until the next start");
        journal.shutdown().unwrap();
    }
    let took = began.elapsed();
    assert!(took < IMAGE_MAX, "{took:?}");
    format!("{took:?} {harm:?}")
}

#[expect(clippy::print_stderr, reason = "the runner shows it where a test fails")]
#[tokio::test]
async fn damaged_journals_open_and_what_is_lost_is_reported() {
    let (good, _db) = good::make().await;
    let reader = Reader::patient_child(Path::new(journal::PROGRAM), SILENCE);
    let seeds = seeds(200);
    // Two at a time, each with a child of its own.
    std::thread::scope(|scope| {
        for half in seeds.chunks(seeds.len().div_ceil(2)) {
            let (good, reader) = (&good, reader.clone());
            scope.spawn(move || {
                for seed in half {
                    eprintln!("GATEPOST_SEED={seed}");
                    eprintln!("  {}", look_at(good, &reader, *seed));
                }
            });
        }
    });
}

#[tokio::test]
async fn a_merged_segment_whose_end_was_lost_is_kept() {
    let (good, _db) = good::make().await;
    let harm = Harm::lost_end(good.path());
    harm.apply(good.path());
    let (journal, _) = open(good.path(), &journal::real());
    journal.examine(&|| false);
    account(&good, &journal, &harm);
    journal.shutdown().unwrap();
}

/// One after the other into one Postgres: besides, each is a copy of the ones before.
#[expect(clippy::print_stderr, reason = "the runner shows it where a test fails")]
#[tokio::test]
async fn what_is_drained_of_damaged_journals_is_never_more_than_was_issued() {
    let (good, db) = good::make().await;
    for seed in seeds(12) {
        let (data, harm) = (TempDir::new().unwrap(), Harm::of(seed, good.path(), JOURNAL));
        eprintln!("GATEPOST_SEED={seed} {harm:?}");
        in_process::copy(&good.path().join("journal"), &data.path().join("journal"));
        harm.apply(data.path());
        let reader = Reader::patient_child(Path::new(journal::PROGRAM), SILENCE);
        let gateway = Gateway::read_by(reader, data, &db.url, None, config());
        gateway.journal.examine(&|| false);
        for _ in 0..3 {
            // What is damaged is set aside, and the next one goes on.
            drop(gateway.drainer.drain_now().await);
        }
        for sql in [
            "SELECT coalesce(max(requests), 0)::bigint FROM gatepost.usage_hourly",
            "SELECT coalesce(max(used), 0)::bigint FROM gatepost.quota_usage",
        ] {
            assert!(db.number(sql).await <= good::EACH, "seed {seed}: more than was issued");
        }
        drop(gateway.shut_down().await);
    }
    for sql in [
        "SELECT coalesce(sum(requests), 0)::bigint FROM gatepost.usage_hourly",
        "SELECT coalesce(sum(used), 0)::bigint FROM gatepost.quota_usage",
    ] {
        assert!(db.number(sql).await > 0, "something was drained");
    }
}

/// What is applied of one stream: whole chunks, and facts.
fn applied(good: &Good, stream: Uuid, counted: &HashMap<Uuid, i64>) -> (u64, u64) {
    let (mut chunks, mut facts) = (0, 0);
    for (_, chunk) in good.chunks.iter().filter(|((of, _), _)| *of == stream) {
        let is_counted = |fact: &&Fact| match fact {
            Fact::Usage(UsageFact { counter, counts }) => {
                let found = counted.get(&counter.key_id).copied().unwrap_or(0);
                assert!([0, counts.requests as i64].contains(&found), "{found} of {counts:?}");
                found > 0
            }
            other => panic!("{other:?}"),
        };
        let of_chunk = chunk.iter().filter(is_counted).count();
        chunks += u64::from(of_chunk == chunk.len());
        facts += of_chunk as u64;
    }
    (chunks, facts)
}

/// Each image into a Postgres of its own: what is counted there, and what is reported missing, is
/// all that was durable. What was found `here` before the drain is reported, unless it was set
/// aside after that. Returns each loss that is known exactly: facts, and of how many.
async fn is_all_there_is(
    good: &Good,
    gateway: &Gateway,
    here: &HashMap<Uuid, Missing>,
    db: &Database,
) -> Vec<(u64, u64)> {
    const COUNTED: &str =
        "SELECT key_id, sum(requests)::bigint FROM gatepost.usage_hourly GROUP BY 1";
    let rows = sqlx::query_as(COUNTED).fetch_all(&mut db.connect().await).await.unwrap();
    let counted: HashMap<Uuid, i64> = rows.into_iter().collect();
    let reports = gateway.journal.quarantined();
    let mut lost = Vec::new();
    for (stream, (_, issued)) in good.streams.iter().filter(|(_, (lane, _))| *lane == Lane::Usage) {
        let applied = applied(good, *stream, &counted);
        let chunks = good.chunks.keys().filter(|(of, _)| of == stream).count() as u64;
        let missing = match reports.iter().find(|report| report.stream == Some(*stream)) {
            Some(report) => report.missing,
            // Settled and removed: nothing was missing.
            None => here.get(stream).copied().unwrap_or(Missing::NONE),
        };
        let both = (applied.0 + missing.chunks, applied.1 + missing.facts);
        if missing.exact {
            assert_eq!(both, (chunks, *issued), "{stream}: {applied:?} {missing:?}");
        } else {
            assert!(both.0 <= chunks && both.1 <= *issued, "{stream}: {applied:?} {missing:?}");
        }
        if missing.exact && missing.facts > 0 {
            lost.push((missing.facts, *issued));
        }
    }
    lost
}

#[expect(clippy::print_stderr, reason = "the runner shows it where a test fails")]
#[tokio::test]
async fn what_is_reported_as_exact_and_what_is_applied_is_all_that_was_durable() {
    let (good, _db) = good::make().await;
    let mut lost = Vec::new();
    for seed in seeds(24) {
        let (data, harm) = (TempDir::new().unwrap(), Harm::of(seed, good.path(), USAGE));
        in_process::copy(&good.path().join("journal"), &data.path().join("journal"));
        harm.apply(data.path());
        let db = Database::new().await;
        let reader = Reader::patient_child(Path::new(journal::PROGRAM), SILENCE);
        let gateway = Gateway::read_by(reader, data, &db.url, None, config());
        gateway.journal.examine(&|| false);
        let here = here(&gateway.journal);
        // What is damaged is set aside, and the next pass goes on.
        while gateway.drainer.drain_now().await.is_err() {}
        let told = is_all_there_is(&good, &gateway, &here, &db).await;
        eprintln!("GATEPOST_SEED={seed} {harm:?}: {told:?}");
        lost.extend(told);
        drop(gateway.shut_down().await);
    }
    let all = std::env::var_os("GATEPOST_SEED").is_none();
    assert!(!all || lost.iter().any(|(facts, of)| facts == of), "none was lost whole");
    // What a drain had applied before it met the damage: about one image in thirty.
    assert!(!all || !long() || lost.iter().any(|(facts, of)| facts < of), "none in part");
}

/// What is missing in each segment that is here.
fn here(journal: &Journal) -> HashMap<Uuid, Missing> {
    let segments = journal.segments(Lane::Usage);
    segments.iter().map(|segment| (segment.stream, segment.missing())).collect()
}

/// In one life: looked through and found whole, damaged, drained.
#[expect(clippy::print_stderr, reason = "the runner shows it where a test fails")]
#[tokio::test]
async fn what_is_damaged_between_its_look_through_and_its_drain_is_reported_all_the_same() {
    let (good, _db) = good::make().await;
    let mut lost = Vec::new();
    for seed in seeds(16) {
        let (data, harm) = (TempDir::new().unwrap(), Harm::of(seed, good.path(), USAGE));
        in_process::copy(&good.path().join("journal"), &data.path().join("journal"));
        let db = Database::new().await;
        let reader = Reader::patient_child(Path::new(journal::PROGRAM), SILENCE);
        let gateway = Gateway::read_by(reader, data, &db.url, None, config());
        gateway.journal.examine(&|| false);
        assert!(here(&gateway.journal).values().all(|missing| missing.chunks == 0));
        harm.apply(gateway.data.path());
        // What is damaged is set aside, and the next pass goes on.
        while gateway.drainer.drain_now().await.is_err() {}
        let told = is_all_there_is(&good, &gateway, &here(&gateway.journal), &db).await;
        eprintln!("GATEPOST_SEED={seed} {harm:?}: {told:?}");
        lost.extend(told);
        drop(gateway.shut_down().await);
    }
    let all = std::env::var_os("GATEPOST_SEED").is_none();
    assert!(!all || !lost.is_empty(), "nothing was lost");
}

#[expect(clippy::print_stderr, reason = "the runner shows it where a test fails")]
#[tokio::test]
async fn the_program_starts_on_damage_or_says_in_one_message_why_not() {
    let (good, _db) = good::make().await;
    for seed in seeds(14) {
        let harm = Harm::of(seed, good.path(), PROGRAM);
        eprintln!("GATEPOST_SEED={seed} {harm:?}");
        let mut gateway = gateway::Gateway::new(None, "");
        fs::create_dir(gateway.data_dir()).unwrap();
        gatepost::disk::copy_dir(good.path(), &gateway.data_dir()).unwrap();
        harm.apply(&gateway.data_dir());
        if gateway.start_or_die().await {
            assert_eq!(gateway.http().get("/livez").await.status, 200);
            gateway.terminate().await;
            continue;
        }
        let refuses = ["node", "format", "admin-token"].contains(&&*harm.file);
        assert!(refuses, "{}", gateway.said());
        let ran = gateway.run(&["serve"]).await;
        assert_eq!(ran.code, Some(78), "{ran:?}");
        let told = ran.stderr.lines().filter(|line| line.contains(&*harm.file)).count();
        let format = ran.stderr.contains("its format is");
        assert!(told == 1 || format, "{ran:?}");
    }
}
