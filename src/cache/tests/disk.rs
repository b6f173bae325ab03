//! The disk tier over restarts and damage.

use super::*;
use crate::model::units::Span;

#[tokio::test]
async fn position_keys_and_revocations_come_back_from_disk() {
    let bench = Bench::new();
    assert_eq!(bench.cache.position(), None);
    let changes = vec![fed("k", 3), fed("l", 3), Change::Revocation(revocation("l", AT_ONCE))];
    bench.feed(3, changes);
    let bench = bench.restart(patient(), Duration::from_secs(60));
    assert_eq!(bench.cache.position(), Some(position(3)));
    assert_eq!(bench.cache.synced_revision(), 3);
    assert_eq!(bench.known("k").await, Some(KeyState::Active));
    assert_eq!(bench.known("l").await, Some(KeyState::Revoked));
    assert_eq!(bench.cache.keys(None, None, 10).len(), 2);
    assert_eq!(bench.hand.lookups(), 0);
}

#[tokio::test]
async fn the_age_counts_on_over_a_restart_until_the_next_catch_up() {
    let config = Config { max_stale: Span::secs(3600), ..patient() };
    let bench = Bench::with(config.clone(), Declared::default());
    assert!(bench.cache.is_stale(), "never caught up with");
    bench.feed(1, vec![fed("k", 1)]);
    bench.clock.advance(Duration::from_secs(1800));
    assert!(!bench.cache.is_stale());
    let bench = bench.restart(config, Duration::from_secs(1800));
    assert_eq!(bench.cache.status().age_seconds, Some(3600.0));
    assert!(!bench.cache.is_stale());
    bench.clock.advance(Duration::from_millis(1));
    assert!(bench.cache.is_stale());
    bench.cache.still_current();
    assert!(!bench.cache.is_stale());
    assert_eq!(bench.cache.status().age_seconds, Some(0.0));
}

/// Whichever way the clock was set meanwhile, and however often it is restarted.
#[tokio::test]
async fn the_age_is_kept_over_a_restart_whatever_the_clock_says() {
    let config = Config { max_stale: Span::secs(3600), ..patient() };
    let mut bench = Bench::with(config.clone(), Declared::default());
    bench.feed(1, vec![fed("k", 1)]);
    bench.clock.advance(Duration::from_secs(7200));
    bench.cache.note_age().expect("a working disk");
    for restarts in 1..4 {
        bench.clock.set(Timestamp::EPOCH);
        bench = bench.restart(config.clone(), Duration::ZERO);
        assert_eq!(bench.cache.status().age_seconds, Some(7200.0 * f64::from(restarts)));
        assert!(bench.cache.is_stale());
        bench.clock.advance(Duration::from_secs(7200));
        bench.cache.note_age().expect("a working disk");
    }
    bench.cache.still_current();
    bench.cache.note_age().expect("a working disk");
    let bench = bench.restart(config, Duration::ZERO);
    assert!(!bench.cache.is_stale(), "it has caught up");
}

#[tokio::test]
async fn a_damaged_directory_is_set_aside_and_an_empty_cache_starts() {
    let bench = Bench::new();
    bench.feed(1, vec![fed("k", 1)]);
    let Bench { data, clock, hand, cache } = bench;
    drop(cache);
    std::fs::write(data.path().join("cache/conf"), b"not what sled wrote").expect("writable");
    let config = Config::default();
    let cache = open(&data, config, Declared::default(), Some(hand.clone()), clock.clone());
    let bench = Bench { data, clock, hand, cache };
    assert_eq!(bench.cache.metrics.cache.quarantined.get(), 1);
    assert_eq!(bench.cache.position(), None, "so that the feed reads everything");
    assert_eq!(bench.known("k").await, None);
    let aside = bench.data.path().join("quarantine").read_dir().expect("made").count();
    assert_eq!(aside, 1);
    bench.feed(2, vec![fed("k", 1)]);
    assert_eq!(bench.known("k").await, Some(KeyState::Active));
}

#[tokio::test]
async fn what_a_kill_left_half_made_is_begun_anew_and_not_called_damaged() {
    let bench = Bench::new();
    let Bench { data, clock, hand, cache } = bench;
    drop(cache);
    std::fs::write(data.path().join("cache/conf"), b"half of wh").expect("writable");
    std::fs::write(data.path().join("cache/making"), b"").expect("writable");
    let config = Config::default();
    let cache = open(&data, config, Declared::default(), Some(hand.clone()), clock.clone());
    assert_eq!(cache.metrics.cache.quarantined.get(), 0);
    assert!(!data.path().join("quarantine").exists());
    assert!(!data.path().join("cache/making").exists(), "and from now on it is believed");
}

#[tokio::test]
async fn a_revocation_that_cannot_be_read_is_not_taken_for_none() {
    let bench = Bench::new();
    bench.feed(1, vec![fed("k", 1), fed("l", 1), Change::Client(client_row(false, 1))]);
    bench.feed(2, vec![Change::Revocation(revocation("k", AT_ONCE))]);
    bench.cache.store.damage_revocations();
    assert_eq!(bench.known("k").await, None);
    assert!(bench.known("l").await.is_some(), "the others are not concerned");
    // Postgres is asked instead, and what it says cannot be kept: nothing is decided.
    let finding = bench.find("k");
    for _ in 0..3 {
        let answer = Found {
            key: key_row("k", 1),
            client: None,
            policies: vec![],
            revocation: Some(revocation("k", AT_ONCE)),
        };
        let answer = Lookup { revision: 2, found: Some(answer) };
        bench.hand.asked().await.send(Ok(answer)).expect("it waits");
    }
    finding.await.expect("no panic").expect_err("undecidable");
}

#[tokio::test]
async fn what_a_miss_brought_survives_a_restart() {
    let bench = Bench::new();
    let finding = bench.find("k");
    bench.hand.asked().await.send(found(1, key_row("k", 1))).expect("it waits");
    assert!(finding.await.expect("no panic").expect("an answer").is_some());
    bench.cache.still_current();
    let bench = bench.restart(patient(), Duration::from_secs(1));
    assert_eq!(bench.known("k").await, Some(KeyState::Active));
    assert_eq!(bench.cache.position(), None, "only a catch-up moves the position");
}

/// A disk may hang for as long as it likes: what it keeps waiting is the feed, and nobody else.
#[tokio::test]
async fn who_asks_how_the_cache_is_waits_for_no_writer() {
    let bench = Bench::new();
    bench.feed(1, vec![fed("k", 1)]);
    let _a_writer_at_work = bench.cache.writing();
    assert_eq!(bench.cache.status().removals_held, 0);
    bench.cache.note_age().expect("a working disk");
}
