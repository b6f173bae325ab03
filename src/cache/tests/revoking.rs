//! Deny wins: whatever arrives late, in whatever order, what was revoked, disabled or deleted stays
//! so.

use super::*;

#[tokio::test]
async fn a_fill_that_lands_after_a_revocation_is_refused() {
    let bench = Bench::new();
    let finding = bench.find("k");
    let asked = bench.hand.asked().await;
    bench.cache.pin(&revoked("k"));
    asked.send(found(0, key_row("k", 0))).expect("it waits");
    let entry = finding.await.expect("no panic").expect("an answer");
    assert_eq!(state(&entry, START), Some(KeyState::Revoked));
    assert_eq!(bench.known("k").await, Some(KeyState::Revoked));
}

#[tokio::test]
async fn a_feed_row_that_lands_after_a_revocation_is_refused() {
    let bench = Bench::new();
    bench.cache.begin(5, false);
    bench.cache.pin(&revoked("k"));
    bench.cache.apply(vec![fed("k", 5)]).expect("a working disk");
    bench.cache.complete(position(5)).expect("a working disk");
    assert_eq!(bench.known("k").await, Some(KeyState::Revoked));
}

#[tokio::test]
async fn a_revocation_reaches_a_key_that_is_hot() {
    let bench = Bench::new();
    bench.feed(1, vec![fed("k", 1)]);
    assert_eq!(bench.known("k").await, Some(KeyState::Active));
    bench.cache.pin(&revoked("k"));
    assert_eq!(bench.known("k").await, Some(KeyState::Revoked));
    // And the same by the feed.
    bench.feed(2, vec![fed("l", 2)]);
    assert_eq!(bench.known("l").await, Some(KeyState::Active));
    bench.feed(3, vec![Change::Revocation(revocation("l", AT_ONCE))]);
    assert_eq!(bench.known("l").await, Some(KeyState::Revoked));
}

#[test]
fn revocations_fills_and_loads_on_many_threads_end_in_a_refusal() {
    let bench = Bench::new();
    for round in 0..200 {
        let text = format!("k{round}");
        let lookup = found(0, key_row(&text, 0)).expect("found");
        std::thread::scope(|scope| {
            scope.spawn(|| bench.cache.fill(api_key::digest(&text), lookup));
            scope.spawn(|| bench.cache.load(&api_key::digest(&text)));
            scope.spawn(|| bench.cache.pin(&revoked(&text)));
        });
        let hot = bench.cache.hot(&api_key::digest(&text));
        let hot = hot.or_else(|| bench.cache.load(&api_key::digest(&text)));
        assert_eq!(state(&hot, START), Some(KeyState::Revoked), "{text}");
    }
}

#[tokio::test]
async fn a_revocation_never_leaves() {
    let bench = Bench::new();
    let later = START.plus(Duration::from_secs(3600));
    bench.feed(1, vec![fed("k", 1), Change::Revocation(revocation("k", AT_ONCE))]);
    // Later rows of the key, a later moment, a deletion by hand: the earliest moment stays.
    bench.feed(2, vec![fed("k", 2), Change::Revocation(revocation("k", later))]);
    assert_eq!(bench.known("k").await, Some(KeyState::Revoked));
    let deleted = Deleted::Revocation(RevocationKind::Key, id("k").to_string().into());
    bench.feed(3, vec![Change::Deleted(deleted)]);
    assert_eq!(bench.known("k").await, Some(KeyState::Revoked));
    let bench = bench.restart(patient(), Duration::ZERO);
    assert_eq!(bench.known("k").await, Some(KeyState::Revoked));
}

#[tokio::test]
async fn a_settled_revocation_stands_by_what_the_feed_brought() {
    let bench = Bench::new();
    bench.feed(1, vec![fed("k", 1)]);
    bench.cache.pin(&revoked("k"));
    bench.feed(2, vec![Change::Revocation(revocation("k", AT_ONCE))]);
    bench.cache.settle(&revoked("k"));
    assert_eq!(bench.cache.status().overlay_entries, 0);
    assert_eq!(bench.known("k").await, Some(KeyState::Revoked));
}

#[tokio::test]
async fn a_revocation_for_later_takes_effect_at_its_moment() {
    let bench = Bench::new();
    bench.feed(1, vec![fed("k", 1)]);
    let later = START.plus(Duration::from_secs(60));
    bench.cache.pin(&StateFact::Revoked(revocation("k", later)));
    assert_eq!(bench.known("k").await, Some(KeyState::Active));
    bench.clock.advance(Duration::from_secs(60));
    assert_eq!(bench.known("k").await, Some(KeyState::Revoked));
}

#[tokio::test]
async fn a_disabled_client_reaches_all_its_entries_at_once() {
    let bench = Bench::new();
    bench.feed(1, vec![Change::Client(client_row(true, 1)), fed("k", 1), fed("l", 1)]);
    let held: Vec<_> = ["k", "l"].map(|text| bench.cache.load(&api_key::digest(text))).into();
    let enabled = || held.iter().flatten().map(|entry| entry.client_enabled()).collect::<Vec<_>>();
    assert_eq!(enabled(), [true, true]);
    bench.feed(2, vec![Change::Client(client_row(false, 2))]);
    assert_eq!(enabled(), [false, false], "also for those who hold the entry already");
    bench.feed(3, vec![Change::Client(client_row(true, 3))]);
    assert_eq!(enabled(), [true, true]);
    // Somebody deletes the row: its keys must not come back to life.
    bench.feed(4, vec![Change::Deleted(Deleted::Client("acme".into()))]);
    assert_eq!(enabled(), [false, false]);
    let bench = bench.restart(patient(), Duration::ZERO);
    let entry = bench.cache.load(&api_key::digest("k")).expect("on disk");
    assert!(!entry.client_enabled());
}

#[tokio::test]
async fn an_older_client_row_does_not_undo_a_newer_one() {
    let bench = Bench::new();
    bench.feed(1, vec![Change::Client(client_row(true, 1)), fed("k", 1)]);
    let entry = bench.cache.load(&api_key::digest("k")).expect("on disk");
    // Two fills read one after the other, and land the other way round.
    let fill = |enabled, revision| {
        let client = Some(client_row(enabled, revision));
        let key = key_row("k", 1);
        let found = Found { key, client, policies: vec![], revocation: None };
        let lookup = Lookup { revision, found: Some(found) };
        assert!(bench.cache.fill(api_key::digest("k"), lookup).is_some());
    };
    fill(false, 3);
    assert!(!entry.client_enabled());
    fill(true, 2);
    assert!(!entry.client_enabled(), "a fill");
    bench.feed(2, vec![Change::Client(client_row(true, 2))]);
    assert!(!entry.client_enabled(), "a feed row");
}

#[tokio::test]
async fn an_older_key_row_does_not_undo_a_newer_one() {
    let bench = Bench::new();
    let mut disabled = key_row("k", 3);
    disabled.key.enabled = false;
    bench.cache.begin(1, false);
    bench.cache.fill(api_key::digest("k"), found(3, disabled).expect("found"));
    bench.cache.fill(api_key::digest("k"), found(2, key_row("k", 2)).expect("found"));
    assert_eq!(bench.known("k").await, Some(KeyState::Disabled));
    bench.feed(2, vec![fed("k", 2)]);
    assert_eq!(bench.known("k").await, Some(KeyState::Disabled));
}

#[tokio::test]
async fn a_key_with_a_new_digest_no_longer_opens_with_the_old_one() {
    let bench = Bench::new();
    bench.feed(1, vec![fed("old", 1)]);
    assert_eq!(bench.known("old").await, Some(KeyState::Active));
    let mut moved = key_row("old", 2);
    moved.key.digest = api_key::digest("new");
    bench.feed(2, vec![Change::Key(moved)]);
    assert_eq!(bench.known("old").await, None);
    assert_eq!(bench.known("new").await, Some(KeyState::Active));
    // The old digest goes to another key; the tombstone of the first must not take it away.
    bench.feed(3, vec![Change::Deleted(Deleted::Key(id("old")))]);
    assert_eq!(bench.known("new").await, None);
}

#[tokio::test]
async fn a_key_that_was_deleted_before_it_settled_does_not_stay_in_memory() {
    let bench = Bench::new();
    let created = StateFact::KeyCreated(key("k"));
    bench.cache.pin(&created);
    assert_eq!(bench.known("k").await, Some(KeyState::Active));
    bench.feed(2, vec![Change::Deleted(Deleted::Key(id("k")))]);
    bench.cache.settle(&created);
    assert_eq!(bench.known("k").await, None);
}
