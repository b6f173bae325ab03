//! Misses: one lookup for all who ask, bounded, and never older than what the feed has brought.

use super::*;

#[tokio::test]
async fn a_hundred_who_ask_for_one_key_are_one_lookup() {
    let bench = Bench::new();
    let finding: Vec<_> = (0..100).map(|_| bench.find("k")).collect();
    let asked = bench.hand.asked().await;
    while bench.cache.metrics.cache.joined.get() < 99 {
        tokio::task::yield_now().await;
    }
    asked.send(found(1, key_row("k", 1))).expect("it waits");
    for entry in finding {
        let entry = entry.await.expect("no panic").expect("an answer");
        assert_eq!(state(&entry, START), Some(KeyState::Active));
    }
    assert_eq!(bench.hand.lookups(), 1);
    bench.find("k").await.expect("no panic").expect("hot");
    assert_eq!(bench.hand.lookups(), 1);
}

#[tokio::test]
async fn more_than_the_bound_are_told_to_come_back() {
    let bench = Bench::with(Config { max_waiting: 2, ..patient() }, Declared::default());
    let waiting = [bench.find("a"), bench.find("b")];
    let asked = [bench.hand.asked().await, bench.hand.asked().await];
    let refused = bench.find("c").await.expect("no panic").expect_err("no place");
    assert!(refused.retry_after > Duration::ZERO);
    for asked in asked {
        asked.send(nobody(1)).expect("it waits");
    }
    for entry in waiting {
        assert!(entry.await.expect("no panic").expect("an answer").is_none());
    }
    assert_eq!(bench.hand.lookups(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_never_answers_costs_a_caller_the_deadline_and_no_more() {
    let bench = Bench::with(Config::default(), Declared::default());
    let deadline = Config::default().miss_deadline.0;
    assert!(deadline < Duration::from_millis(300), "the promise, with room for the answer");
    let finding = bench.find("k");
    let asked = bench.hand.asked().await;
    let since = tokio::time::Instant::now();
    let answer = tokio::time::timeout(deadline * 2, finding).await.expect("a bounded wait");
    let waited = since.elapsed();
    assert!(answer.expect("no panic").expect_err("undecidable").retry_after > Duration::ZERO);
    // (A timer is at most a millisecond late.)
    assert!(waited >= deadline && waited <= deadline + Duration::from_millis(1), "{waited:?}");
    assert_eq!(bench.cache.metrics.cache.miss_deadlines.get(), 1);
    // The lookup went on: its answer is there for the next one.
    asked.send(found(1, key_row("k", 1))).expect("it is still under way");
    while bench.cache.flights.under_way_len() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.known("k").await, Some(KeyState::Active));
}

#[tokio::test(start_paused = true)]
async fn a_fill_that_is_held_costs_a_caller_the_deadline_and_no_more() {
    let bench = Bench::with(Config::default(), Declared::default());
    let deadline = Config::default().miss_deadline.0;
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let (holding, holds) = oneshot::channel();
    // As the feed does with a page on a slow disk.
    let cache = bench.cache.clone();
    let feed = std::thread::spawn(move || {
        let _writing = cache.writing();
        holding.send(()).expect("the test waits");
        held.recv().expect_err("until the test lets go");
    });
    holds.await.expect("it holds");
    let finding = bench.find("k");
    bench.hand.asked().await.send(found(1, key_row("k", 1))).expect("it waits");
    // Time stands still while a fill is under way, unless it is moved.
    let waited = tokio::time::Instant::now();
    while !finding.is_finished() {
        assert!(waited.elapsed() <= deadline + Duration::from_millis(1), "it waits for the fill");
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    finding.await.expect("no panic").expect_err("undecidable");
    assert_eq!(bench.cache.metrics.cache.miss_deadlines.get(), 1);
    drop(hold);
    feed.join().expect("no panic");
    while bench.cache.flights.under_way_len() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.known("k").await, Some(KeyState::Active));
}

/// The feed takes the lock again as soon as it has let go of it, and is awake then.
#[tokio::test]
async fn a_fill_need_not_wait_for_the_end_of_a_page() {
    let bench = Bench::new();
    bench.cache.begin(1, false);
    let cache = bench.cache.clone();
    let feed = tokio::task::spawn_blocking(move || {
        let page = (0..50_000).map(|number| fed(&format!("of a page {}", number % 500), 1));
        cache.apply(page.chain([fed("the last", 1)]).collect()).expect("a disk");
    });
    while !bench.cache.writing.is_locked() {
        tokio::task::yield_now().await;
    }
    let cache = bench.cache.clone();
    let lookup = found(1, key_row("k", 1)).expect("a lookup");
    let fill = tokio::task::spawn_blocking(move || {
        let filled = cache.fill(api_key::digest("k"), lookup);
        filled.expect("it is not too old").expect("a key");
        cache.load(&api_key::digest("the last")).is_none()
    });
    assert!(fill.await.expect("no panic"), "the fill has waited for all of the page");
    feed.await.expect("no panic");
    assert_eq!(bench.known("the last").await, Some(KeyState::Active));
}

#[tokio::test]
async fn callers_that_leave_do_not_lift_the_bound() {
    let bench = Bench::with(Config { max_waiting: 1, ..patient() }, Declared::default());
    let left = bench.find("a");
    let asked = bench.hand.asked().await;
    left.abort();
    assert!(left.await.expect_err("it left").is_cancelled());
    bench.find("b").await.expect("no panic").expect_err("the first lookup is still under way");
    asked.send(nobody(1)).expect("its task goes on");
    while bench.cache.flights.under_way_len() > 0 {
        tokio::task::yield_now().await;
    }
    let finding = bench.find("b");
    bench.hand.asked().await.send(nobody(1)).expect("it waits");
    assert!(finding.await.expect("no panic").expect("an answer").is_none());
}

#[tokio::test]
async fn a_lookup_that_dies_does_not_block_its_key_for_ever() {
    struct Dies;
    impl Source for Dies {
        fn lookup(&self, _digest: Digest) -> Asked<'_> {
            Box::pin(async { panic!("on purpose") })
        }

        fn session(&self, _id: Uuid) -> AskedSession<'_> {
            Box::pin(async { Err(SourceError::Deadline) })
        }
    }
    let data = TempDir::new().expect("temporary directory");
    let clock = Arc::new(ManualClock::new(START));
    let (metrics, tasks) = (Arc::new(Metrics::new()), TaskTracker::new());
    let (config, declared) = (Config::default(), Declared::default());
    let source: Arc<dyn Source> = Arc::new(Dies);
    let cache =
        Cache::open(data.path(), config, declared, Some(source), clock, metrics.clone(), tasks)
            .expect("a directory of its own");
    for asked in 1..3 {
        cache.find(api_key::digest("k")).await.expect_err("undecidable");
        assert_eq!(metrics.cache.misses.get(), asked, "each caller asks anew");
    }
}

#[tokio::test]
async fn a_fill_that_the_feed_overtook_is_thrown_away_and_read_again() {
    let bench = Bench::new();
    let finding = bench.find("k");
    let asked = bench.hand.asked().await;
    let mut disabled = key_row("k", 6);
    disabled.key.enabled = false;
    bench.cache.begin(6, false);
    // Read before 6, landing after: not even for a moment.
    asked.send(found(5, key_row("k", 5))).expect("it waits");
    let again = bench.hand.asked().await;
    assert!(bench.cache.hot(&api_key::digest("k")).is_none());
    assert_eq!(bench.known("k").await, None);
    again.send(found(6, disabled)).expect("it waits");
    let entry = finding.await.expect("no panic").expect("an answer");
    assert_eq!(state(&entry, START), Some(KeyState::Disabled));
    assert_eq!(bench.cache.metrics.cache.fills_discarded.get(), 1);
}

#[tokio::test]
async fn a_fill_that_is_overtaken_again_and_again_is_undecidable() {
    let bench = Bench::new();
    bench.cache.begin(6, false);
    let finding = bench.find("k");
    for _ in 0..3 {
        bench.hand.asked().await.send(nobody(5)).expect("it waits");
    }
    finding.await.expect("no panic").expect_err("an old absence proves nothing");
}

#[tokio::test]
async fn an_absence_is_remembered_for_a_while_and_loses_to_the_feed() {
    let bench = Bench::new();
    for asked in 1..3 {
        let finding = bench.find("k");
        bench.hand.asked().await.send(nobody(1)).expect("it waits");
        assert!(finding.await.expect("no panic").expect("an answer").is_none());
        assert!(bench.find("k").await.expect("no panic").expect("an answer").is_none());
        assert_eq!(bench.hand.lookups(), asked);
        bench.clock.advance(Config::default().absent_for.0);
    }
    let finding = bench.find("k");
    bench.hand.asked().await.send(nobody(1)).expect("it waits");
    assert!(finding.await.expect("no panic").expect("an answer").is_none());
    bench.feed(2, vec![fed("k", 2)]);
    let entry = bench.find("k").await.expect("no panic").expect("an answer");
    assert_eq!(state(&entry, START), Some(KeyState::Active));
    assert_eq!(bench.hand.lookups(), 3);
}

#[tokio::test]
async fn an_absence_loses_to_a_key_made_here_meanwhile() {
    let bench = Bench::new();
    let finding = bench.find("k");
    let asked = bench.hand.asked().await;
    bench.cache.pin(&StateFact::KeyCreated(key("k")));
    asked.send(nobody(1)).expect("it waits");
    let entry = finding.await.expect("no panic").expect("an answer");
    assert_eq!(state(&entry, START), Some(KeyState::Active));
    let entry = bench.find("k").await.expect("no panic").expect("an answer");
    assert_eq!(state(&entry, START), Some(KeyState::Active));
}

#[tokio::test]
async fn without_an_answer_nothing_is_decided() {
    let bench = Bench::new();
    for (error, secs) in [(SourceError::BreakerOpen, 2), (SourceError::Deadline, 1)] {
        let finding = bench.find("k");
        bench.hand.asked().await.send(Err(error)).expect("it waits");
        let undecidable = finding.await.expect("no panic").expect_err("undecidable");
        assert_eq!(undecidable.retry_after, Duration::from_secs(secs));
    }
    assert!(bench.cache.is_stale(), "never caught up with");
}

#[tokio::test]
async fn declared_keys_wait_for_the_first_catch_up_unless_embedded() {
    let declared = Declared { keys: vec![key("k")], ..Declared::default() };
    let bench = Bench::with(patient(), declared.clone());
    bench.find("k").await.expect("no panic").expect_err("it may have been revoked");
    assert_eq!(bench.hand.lookups(), 0, "Postgres does not know what is declared");
    bench.feed(1, vec![Change::Revocation(revocation("k", AT_ONCE))]);
    let entry = bench.find("k").await.expect("no panic").expect("an answer");
    assert_eq!(state(&entry, START), Some(KeyState::Revoked));

    let data = TempDir::new().expect("temporary directory");
    let clock = Arc::new(ManualClock::new(START));
    let cache = open(&data, Config::default(), declared, None, clock.clone());
    let entry = cache.find(api_key::digest("k")).await.expect("an answer");
    assert_eq!(state(&entry, START), Some(KeyState::Active));
    assert!(cache.find(api_key::digest("other")).await.expect("an answer").is_none());
    clock.advance(Duration::from_secs(1 << 30));
    assert!(!cache.is_stale(), "what is declared and made here is the truth");
}
