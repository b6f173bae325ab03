//! Full resyncs: what Postgres has lost is sent again, and large losses wait for the operator's
//! word.

use super::*;

#[tokio::test]
async fn a_full_resync_tells_what_postgres_lacks() {
    let bench = Bench::new();
    bench.feed(
        5,
        vec![
            fed("k", 1),
            Change::Revocation(revocation("k", AT_ONCE)),
            Change::Revocation(revocation("l", AT_ONCE)),
        ],
    );
    // Restored to before the first revocation: the second is there.
    let there = Change::Revocation(revocation("l", AT_ONCE));
    let lacking = bench.feed_all(2, true, vec![there, fed("k", 1)]);
    assert_eq!(lacking, [revocation("k", AT_ONCE)]);
    assert_eq!(bench.known("k").await, Some(KeyState::Revoked), "and it stands meanwhile");
    assert_eq!(bench.cache.synced_revision(), 2, "history has gone back");
}

#[tokio::test]
async fn after_a_restore_older_revisions_count_again() {
    let bench = Bench::new();
    let mut later = key_row("k", 9);
    later.key.last4 = "9999".into();
    bench.feed(9, vec![Change::Key(later), Change::Client(client_row(true, 9))]);
    bench.feed_all(3, true, vec![Change::Client(client_row(false, 3)), fed("k", 2)]);
    assert_eq!(bench.cache.key(id("k")).expect("known").key.last4, "0000");
    assert!(!bench.cache.client("acme").expect("known").enabled);
    // And fills of that history are taken.
    assert!(bench.cache.fill(api_key::digest("l"), nobody(3).expect("an answer")).is_some());
}

#[tokio::test]
async fn a_few_keys_that_are_gone_are_removed_with_a_full_resync() {
    let bench = Bench::new();
    let keys: Vec<String> = (0..10).map(|n| format!("k{n}")).collect();
    bench.feed(1, keys.iter().map(|text| fed(text, 1)).collect());
    assert_eq!(bench.known("k0").await, Some(KeyState::Active));
    bench.feed_all(2, true, keys[1..].iter().map(|text| fed(text, 1)).collect());
    assert_eq!(bench.known("k0").await, None);
    assert_eq!(bench.known("k1").await, Some(KeyState::Active));
    assert_eq!(bench.cache.status().removals_held, 0);
}

/// Ten keys, of which a full resync brings only one back.
fn emptied() -> Bench {
    let bench = Bench::new();
    let keys = (0..10).map(|n| fed(&format!("k{n}"), 1));
    bench.feed(1, keys.chain([Change::Client(client_row(true, 1))]).collect());
    let revoked = Change::Revocation(revocation("k9", AT_ONCE));
    bench.feed_all(2, true, vec![fed("k0", 1), revoked]);
    bench
}

#[tokio::test]
async fn many_keys_that_are_gone_wait_for_the_operators_word() {
    let bench = emptied();
    assert_eq!(bench.cache.status().removals_held, 9);
    assert_eq!(bench.known("k1").await, Some(KeyState::Active));
    assert_eq!(bench.known("k9").await, Some(KeyState::Revoked), "denials do not wait");
    let entry = bench.cache.load(&api_key::digest("k1")).expect("held");
    assert!(!entry.client_enabled(), "nor does a client that is gone");
    assert_eq!(bench.cache.confirm_removals().expect("a working disk"), 9);
    assert_eq!(bench.known("k1").await, None);
    assert_eq!(bench.known("k0").await, Some(KeyState::Active));
    assert_eq!(bench.cache.status().removals_held, 0);
    let bench = bench.restart(patient(), Duration::ZERO);
    assert_eq!(bench.cache.position(), Some(position(2)));
}

#[tokio::test]
async fn what_came_back_meanwhile_is_not_removed_by_the_operators_word() {
    let bench = emptied();
    bench.feed(3, vec![fed("k1", 3)]);
    assert_eq!(bench.cache.confirm_removals().expect("a working disk"), 8);
    assert_eq!(bench.known("k1").await, Some(KeyState::Active));
    assert_eq!(bench.known("k2").await, None);
}

#[tokio::test]
async fn held_removals_are_found_again_after_a_restart() {
    let bench = emptied().restart(patient(), Duration::ZERO);
    assert_eq!(bench.cache.position(), None, "so that the next catch-up is a full resync");
    bench.feed_all(2, true, vec![fed("k0", 1)]);
    assert_eq!(bench.cache.status().removals_held, 9);
}

#[tokio::test]
async fn a_snapshot_that_breaks_off_is_begun_again() {
    let bench = Bench::new();
    bench.feed(1, vec![fed("k", 1), fed("l", 1)]);
    bench.cache.begin(2, true);
    bench.cache.apply(vec![fed("k", 1)]).expect("a working disk");
    assert_eq!(bench.cache.position(), Some(position(1)));
    bench.feed_all(3, true, vec![fed("k", 1), fed("l", 1)]);
    assert_eq!(bench.cache.position(), Some(position(3)));
    assert_eq!(bench.known("l").await, Some(KeyState::Active));
}

#[tokio::test]
async fn telling_the_status_and_following_the_feed_do_not_wait_for_each_other() {
    let bench = Bench::new();
    let cache = Arc::clone(&bench.cache);
    let telling = std::thread::spawn(move || {
        for _ in 0..20_000 {
            cache.status();
        }
    });
    for revision in 1..200 {
        bench.feed(revision, vec![fed("k", revision)]);
    }
    telling.join().expect("no panic");
}
