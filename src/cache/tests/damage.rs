//! Damage to the disk tier while Postgres is away: whatever it is, nothing that was refused is let
//! in. What is not known for sure is undecidable.

use std::fs;
use std::path::Path;

use super::*;
use crate::disk;
use crate::entropy::{Entropy, SeededEntropy};

/// Files as they are, below `dir`.
fn copy(dir: &Path) -> TempDir {
    let copied = TempDir::new().expect("temporary directory");
    disk::copy_dir(dir, copied.path()).expect("readable");
    copied
}

fn text(key: usize) -> String {
    format!("k{key}")
}

const KEYS: usize = 400;
const REVOKED: usize = 300;

/// Keys of which most are revoked later, over several lives: so that some of sled's log is behind a
/// snapshot, and the rest in several of its segments.
fn good(others: usize) -> Bench {
    let mut bench = Bench::new();
    let keys = (0..KEYS).map(|key| fed(&text(key), 1)).collect();
    bench.feed(1, keys);
    bench = bench.restart(patient(), Duration::ZERO);
    for round in 0..3 {
        let revision = 2 + round as i64;
        let range = (round * REVOKED / 3)..((round + 1) * REVOKED / 3);
        for key in range {
            bench.feed(revision, vec![Change::Revocation(revocation(&text(key), AT_ONCE))]);
        }
        let others = (0..others).map(|other| fed(&format!("o{round}-{other}"), revision));
        bench.feed(revision, others.collect());
    }
    bench
}

/// Opens a copy; returns how many revoked keys open, and whether it was set aside.
async fn open_keys(data: &Path) -> (usize, bool) {
    let (clock, hand) = (Arc::new(ManualClock::new(START)), Hand::new());
    let (metrics, tasks) = (Arc::new(Metrics::new()), TaskTracker::new());
    let (config, declared) = (Config::default(), Declared::default());
    let cache = Cache::open(data, config, declared, Some(hand), clock.clone(), metrics, tasks);
    let cache = cache.expect("whatever the damage is, a cache opens");
    let is_open = |key: &usize| {
        let entry = cache.load(&api_key::digest(&text(*key)));
        entry.is_some_and(|entry| entry.state(clock.now()) == KeyState::Active)
    };
    let open = (0..REVOKED).filter(is_open).count();
    (open, cache.metrics.cache.quarantined.get() > 0)
}

struct Dice(SeededEntropy);

impl Dice {
    fn below(&self, bound: usize) -> usize {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        u32::from_le_bytes(bytes) as usize % bound
    }
}

/// Damages one file of the disk tier.
fn harm(cache: &Path, dice: &Dice) -> String {
    let db = cache.join("db");
    let mut bytes = fs::read(&db).expect("readable");
    let written = bytes.iter().rposition(|byte| *byte != 0).expect("not empty") + 1;
    let at = dice.below(written);
    let block = at / 512 * 512;
    let end = |len: usize| (block + len).min(bytes.len());
    let what = dice.below(6);
    match what {
        0 => bytes[at] ^= 1 << dice.below(8),
        1 => {
            let end = end(512);
            bytes[block..end].fill(0);
        }
        2 => {
            let end = end(65_536);
            bytes[block..end].fill(0);
        }
        3 => bytes.truncate(at),
        4 => {
            let synced = cache.join("synced");
            fs::remove_file(synced).expect("it is there");
        }
        _ => bytes[at] ^= 1 << dice.below(8),
    }
    fs::write(&db, bytes).expect("writable");
    // sled's notes of what it read last go as well, now and then.
    let unsnap = dice.below(3) == 0;
    for entry in fs::read_dir(cache).expect("readable").filter(|_| unsnap) {
        let path = entry.expect("readable").path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("snap.")) {
            fs::remove_file(path).expect("it is there");
        }
    }
    format!("{what} at {at} of {written}, without snapshot: {unsnap}")
}

#[tokio::test]
async fn damage_never_opens_a_revoked_key() {
    for others in [0, 2000] {
        let Bench { data, cache, .. } = good(others);
        drop(cache);
        assert_eq!(open_keys(copy(data.path()).path()).await, (0, false), "the good one");
        let mut aside = 0;
        for seed in 0..40 {
            let harmed = copy(data.path());
            let what = harm(&harmed.path().join("cache"), &Dice(SeededEntropy::new(seed)));
            let (open, set_aside) = open_keys(harmed.path()).await;
            assert_eq!(open, 0, "{others} {seed}: {what}");
            aside += usize::from(set_aside);
        }
        assert!(aside > 10, "{aside} set aside");
    }
}

#[tokio::test]
async fn a_disk_tier_that_went_back_is_set_aside() {
    let bench = Bench::new();
    bench.feed(1, vec![fed("k", 1)]);
    let Bench { data, clock, hand, cache } = bench;
    drop(cache);
    let before = copy(&data.path().join("cache"));
    let cache = open(&data, Config::default(), Declared::default(), Some(hand), clock);
    cache.begin(2, false);
    cache.apply(vec![Change::Revocation(revocation("k", AT_ONCE))]).expect("a working disk");
    cache.complete(position(2)).expect("a working disk");
    drop(cache);
    let dir = data.path().join("cache");
    let synced = fs::read(dir.join("synced")).expect("made");
    fs::remove_dir_all(&dir).expect("removable");
    disk::make_private_dir(&dir).expect("writable");
    disk::copy_dir(before.path(), &dir).expect("readable");
    fs::write(dir.join("synced"), synced).expect("writable");
    let clock = Arc::new(ManualClock::new(START));
    let cache = open(&data, Config::default(), Declared::default(), Some(Hand::new()), clock);
    assert_eq!(cache.metrics.cache.quarantined.get(), 1);
    assert!(cache.load(&api_key::digest("k")).is_none());
}

/// A kill between sled's sync and that of the file: sled is ahead, and good.
#[tokio::test]
async fn a_disk_tier_that_is_ahead_is_good() {
    let bench = Bench::new();
    bench.feed(1, vec![fed("k", 1)]);
    let file = bench.data.path().join("cache/synced");
    let before = fs::read(&file).expect("made");
    bench.feed(2, vec![Change::Revocation(revocation("k", AT_ONCE))]);
    fs::write(&file, &before).expect("writable");
    let bench = bench.restart(patient(), Duration::ZERO);
    assert_eq!(bench.cache.metrics.cache.quarantined.get(), 0);
    assert_eq!(bench.known("k").await, Some(KeyState::Revoked));
    // And the write itself may be torn: the one before it tells then.
    bench.feed(3, vec![fed("l", 3)]);
    let mut torn = fs::read(&file).expect("made");
    let changed = torn.iter().zip(&before).position(|(new, old)| new != old);
    torn[changed.expect("a sync was noted") + 1] ^= 0xFF;
    fs::write(&file, torn).expect("writable");
    let bench = bench.restart(patient(), Duration::ZERO);
    assert_eq!(bench.cache.metrics.cache.quarantined.get(), 0);
}

/// A message in the middle of sled's log that cannot be read may bring an older row back, or none.
#[tokio::test]
async fn one_revocation_that_went_back_is_noticed() {
    let later = START.plus(Duration::from_secs(3600));
    let not_before = |at| Revocation { kind: RevocationKind::Subject, id: "s".into(), at };
    for (kind, id, older) in [
        (RevocationKind::Key, "k", Some(later)),
        (RevocationKind::Key, "k", None),
        (RevocationKind::Subject, "s", Some(START)),
    ] {
        let bench = Bench::new();
        bench.feed(1, vec![fed("k", 1), Change::Revocation(revocation("k", later))]);
        bench.feed(2, vec![Change::Revocation(not_before(START))]);
        let now = vec![revocation("k", AT_ONCE), not_before(later), revocation("l", later)];
        bench.feed(3, now.into_iter().map(Change::Revocation).collect());
        let bench = bench.restart(patient(), Duration::ZERO);
        assert_eq!(bench.cache.metrics.cache.quarantined.get(), 0, "the good one");
        let id = if kind == RevocationKind::Key { revocation(id, AT_ONCE).id } else { id.into() };
        bench.cache.store.take_back(kind, &id, older);
        let bench = bench.restart(patient(), Duration::ZERO);
        assert_eq!(bench.cache.metrics.cache.quarantined.get(), 1, "{kind:?} {older:?}");
        assert!(bench.cache.load(&api_key::digest("k")).is_none());
    }
}
