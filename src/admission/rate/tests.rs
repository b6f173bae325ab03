//! Against two oracles, at the same time, changed while they run, and at the edges.

mod changed;

use std::num::NonZeroU32;
use std::sync::atomic::AtomicU32;

use governor::clock::FakeRelativeClock;
use governor::{Quota, RateLimiter};
use proptest::prelude::*;

use super::*;

fn rate(limit: u32, window: Duration, burst: u32) -> Rate {
    Rate { limit, window, burst }
}

fn charge(id: u32, scope: u128, rate: Rate) -> Charge {
    Charge { bucket: Bucket { limit: LimitId(id), scope }, rate }
}

fn take(
    limiter: &Limiter,
    charges: &[Charge],
    cost: u32,
    now: Duration,
) -> Result<Vec<Level>, TakeError> {
    let mut levels = vec![Level::default(); charges.len()];
    limiter.take(charges, cost, now, &mut levels, &mut || true).map(|()| levels)
}

const SECOND: Duration = Duration::from_secs(1);

proptest! {
    /// Against the `governor` crate, for limits whose interval is a whole number of nanoseconds.
    #[test]
    fn it_decides_as_governor_does(
        interval in 1_u64..5_000_000_000,
        burst in 1_u32..50,
        steps in prop::collection::vec((1_u32..60, 0_u64..12_000_000_000), 1..200),
    ) {
        let interval = Duration::from_nanos(interval);
        let clock = FakeRelativeClock::default();
        let quota = Quota::with_period(interval).expect("not zero");
        let quota = quota.allow_burst(NonZeroU32::new(burst).expect("not zero"));
        let oracle = RateLimiter::direct_with_clock(quota, clock.clone());
        let limiter = Limiter::new(10, 4);
        let charges = [charge(1, 7, rate(1, interval, burst))];
        let mut now = Duration::ZERO;
        for (cost, step) in steps {
            now += Duration::from_nanos(step);
            clock.advance(Duration::from_nanos(step));
            let told = oracle.check_n(NonZeroU32::new(cost).expect("not zero"));
            let ours = take(&limiter, &charges, cost, now).map(drop);
            match told {
                Ok(Ok(())) => prop_assert_eq!(ours, Ok(())),
                Ok(Err(not_until)) => {
                    use governor::clock::Clock;
                    let wait = Some(not_until.wait_time_from(clock.now()));
                    prop_assert_eq!(ours, Err(TakeError::Refused { at: 0, retry_after: wait }));
                }
                Err(_) => {
                    let never = TakeError::Refused { at: 0, retry_after: None };
                    prop_assert_eq!(ours, Err(never));
                }
            }
        }
    }

    /// Against the definition, for limits that divide nothing evenly: what has leaked out since is
    /// kept as a fraction of whole numbers, and no more than the burst is ever in.
    #[test]
    fn uneven_limits_are_exact(
        limit in 1_u32..1_000,
        window in 1_u64..10_000_000_000,
        burst in 1_u32..20,
        steps in prop::collection::vec((1_u32..5, 0_u64..2_000_000_000), 1..200),
    ) {
        let limiter = Limiter::new(10, 1);
        let charges = [charge(1, 7, rate(limit, Duration::from_nanos(window), burst))];
        // In units of one `window`-th of a request.
        let (mut level, mut now) = (0_u128, 0_u64);
        for (cost, step) in steps {
            now += step;
            level = level.saturating_sub(u128::from(step) * u128::from(limit));
            let next = level + u128::from(cost) * u128::from(window);
            let passes = next <= u128::from(burst) * u128::from(window);
            let ours = take(&limiter, &charges, cost, Duration::from_nanos(now));
            prop_assert_eq!(ours.is_ok(), passes);
            if passes {
                level = next;
                let left = (u128::from(burst) * u128::from(window) - level) / u128::from(window);
                prop_assert_eq!(u128::from(ours.expect("it passes")[0].remaining), left);
            }
        }
    }
}

#[test]
fn when_to_come_again_is_neither_too_early_nor_too_late() {
    let limiter = Limiter::new(10, 1);
    let charges = [charge(1, 7, rate(7, SECOND, 3))];
    let mut now = SECOND;
    for _ in 0..100 {
        while take(&limiter, &charges, 1, now).is_ok() {}
        let Err(TakeError::Refused { retry_after: Some(wait), .. }) =
            take(&limiter, &charges, 1, now)
        else {
            panic!("it is used up")
        };
        let early = now + wait - Duration::from_nanos(1);
        assert!(take(&limiter, &charges, 1, early).is_err());
        now += wait;
    }
    // 100 waits of a seventh of a second, each a part of a nanosecond longer than that at most.
    let exact = SECOND + SECOND * 100 / 7;
    assert!(now >= exact && now <= exact + Duration::from_nanos(101), "{now:?}");
}

#[test]
fn of_many_at_the_same_time_never_one_too_many_passes() {
    let limiter = Limiter::new(100, 8);
    let (burst, both) = (rate(10, SECOND, 500), rate(10, SECOND, 300));
    let passed = [AtomicU32::new(0), AtomicU32::new(0)];
    std::thread::scope(|scope| {
        for thread in 0..8_u128 {
            let (limiter, passed) = (&limiter, &passed);
            scope.spawn(move || {
                for at in 0..400 {
                    // Two keys of one client, in both orders.
                    let key = (thread + at) % 2;
                    let mut charges = [charge(1, key, burst), charge(2, 1 << 70, both)];
                    if at % 3 == 0 {
                        charges.reverse();
                    }
                    if take(limiter, &charges, 1, SECOND).is_ok() {
                        passed[usize::try_from(key).expect("0 or 1")]
                            .fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    let [first, second] = passed.map(AtomicU32::into_inner);
    assert_eq!(first + second, 300, "what the client may");
    let mut levels = [Level::default()];
    for (key, passed) in [(0, first), (1, second)] {
        limiter.peek(&[charge(1, key, burst)], 1, SECOND, &mut levels).expect("some is left");
        assert_eq!(levels[0].remaining, 500 - passed, "a refusal by the other took nothing");
    }
}

#[test]
fn refused_calls_change_nothing_and_the_longest_wait_is_told() {
    let limiter = Limiter::new(10, 4);
    let charges = [
        charge(1, 7, rate(1, SECOND, 1)),
        charge(2, 7, rate(1, SECOND * 60, 1)),
        charge(3, 1 << 90, rate(100, SECOND, 100)),
    ];
    take(&limiter, &charges, 1, SECOND).expect("the first");
    for _ in 0..50 {
        let refused = take(&limiter, &charges, 1, SECOND);
        assert_eq!(refused, Err(TakeError::Refused { at: 1, retry_after: Some(SECOND * 60) }));
    }
    let mut levels = [Level::default(); 3];
    let _refused = limiter.peek(&charges, 1, SECOND, &mut levels);
    assert_eq!(levels.map(|level| level.remaining), [0, 0, 99]);
    let never = take(&limiter, &charges, 101, SECOND);
    assert_eq!(never, Err(TakeError::Refused { at: 0, retry_after: None }));
    assert!(take(&limiter, &charges, 1, SECOND * 61).is_ok());
}

#[test]
fn only_idle_buckets_are_let_go_of() {
    let limiter = Limiter::new(100, 4);
    let slow = rate(1, SECOND * 3600, 5);
    for scope in 0..50 {
        take(&limiter, &[charge(1, scope, slow)], 1, SECOND).expect("room");
        take(&limiter, &[charge(2, scope, rate(1, SECOND, 1))], 1, SECOND).expect("room");
    }
    assert_eq!(limiter.len(), 100);
    assert_eq!(take(&limiter, &[charge(1, 1000, slow)], 1, SECOND).map(drop), Err(TakeError::Full));
    // Two seconds later half of them are idle.
    take(&limiter, &[charge(1, 1000, slow)], 1, SECOND * 3).expect("idle ones made room");
    limiter.sweep(SECOND * 3);
    assert_eq!(limiter.len(), 51);
    let mut levels = [Level::default()];
    for scope in 0..50 {
        limiter.peek(&[charge(1, scope, slow)], 1, SECOND * 3, &mut levels).expect("some is left");
        assert_eq!(levels[0].remaining, 4, "{scope}");
    }
    for scope in 0..1_000_u128 {
        let now = SECOND * u32::try_from(10 + scope).expect("small");
        take(&limiter, &[charge(3, scope << 50, rate(100, SECOND, 1))], 1, now).expect("room");
    }
    assert!(limiter.len() <= 100);
    limiter.sweep(SECOND * 3600 * 24 * 365);
    assert_eq!(limiter.len(), 0);
}

/// Nobody is idle: whoever is known goes on as before, and loses nothing; all others wait, and do
/// not have everything looked through each time.
#[test]
fn a_full_limiter_with_nobody_idle_forgets_nobody_and_looks_once_a_second() {
    let limiter = Limiter::new(100, 4);
    let slow = rate(1, SECOND * 3600, 5);
    let known = |scope| [charge(1, scope, slow)];
    for scope in 0..100 {
        take(&limiter, &known(scope), 1, SECOND).expect("room");
    }
    let looked = || {
        let shards = limiter.shards.iter().map(|shard| shard.lock().expect("no panic").swept);
        (format!("{:?}", limiter.sweeps), shards.collect::<Vec<_>>())
    };
    let mut last = looked();
    for second in 2..6_u32 {
        let mut times = 0;
        for step in 0..200 {
            let now = SECOND * second + SECOND * step / 200;
            // One bucket that there is, and one that there is not: none of them is charged.
            let both = [charge(1, u128::from(step) % 100, slow), charge(2, 1 << 90, slow)];
            assert_eq!(take(&limiter, &both, 1, now).map(drop), Err(TakeError::Full));
            assert_eq!(limiter.len(), 100);
            times += usize::from(looked() != std::mem::replace(&mut last, looked()));
        }
        // (All together, and then each of the two shards that are asked for.)
        assert!((1..=3).contains(&times), "looked through {times} times in a second");
        for scope in 0..100 {
            let left = take(&limiter, &known(scope), 1, SECOND * second).expect("it is known");
            assert_eq!(left[0].remaining, 5 - second, "{scope}");
        }
    }
    // All is used up. Who comes too early is refused as ever, and not for want of room.
    let refused = take(&limiter, &known(7), 1, SECOND * 6);
    assert!(matches!(refused, Err(TakeError::Refused { .. })), "{refused:?}");
    // When they have become idle there is room for as many.
    let much_later = SECOND * 3600 * 6;
    for scope in 1000..1100 {
        take(&limiter, &known(scope), 1, much_later).expect("room");
    }
    assert_eq!(take(&limiter, &known(2000), 1, much_later).map(drop), Err(TakeError::Full));
    assert_eq!(limiter.len(), 100);
}

#[test]
fn however_many_come_at_once_the_memory_is_bounded() {
    const THREADS: usize = 8;
    let limiter = Limiter::new(500, 8);
    let slow = rate(1, SECOND * 3600, 5);
    let passed = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS as u128 {
            let (limiter, passed) = (&limiter, &passed);
            scope.spawn(move || {
                for at in 0..500 {
                    let charges = [charge(1, (thread << 64) | at, slow)];
                    match take(limiter, &charges, 1, SECOND) {
                        Ok(_) => drop(passed.fetch_add(1, Ordering::SeqCst)),
                        Err(error) => assert_eq!(error, TakeError::Full),
                    }
                }
            });
        }
    });
    // (Each that has looked and not yet written may be one too many.)
    assert!((500..500 + THREADS).contains(&limiter.len()), "{}", limiter.len());
    assert_eq!(usize::try_from(passed.into_inner()), Ok(limiter.len()));
}

#[test]
fn extremes_neither_panic_nor_open() {
    let century = Duration::from_secs(100 * 365 * 24 * 3600);
    let window = Duration::from_secs(31 * 24 * 3600);
    for now in [Duration::ZERO, century] {
        for (limit, window, burst) in [
            (u32::MAX, Duration::from_millis(1), u32::MAX),
            (1, window, 1_000),
            (u32::MAX, window, 1),
            (1, Duration::from_millis(1), 1),
        ] {
            let limiter = Limiter::new(10, 1);
            let charges = [charge(1, u128::MAX, rate(limit, window, burst))];
            take(&limiter, &charges, burst, now).expect("a whole burst");
            assert!(
                take(&limiter, &charges, 1, now).is_err(),
                "{limit} {window:?} {burst} {now:?}"
            );
            assert!(take(&limiter, &charges, u32::MAX, Duration::ZERO).is_err(), "time went back");
            let changed = [charge(1, u128::MAX, rate(3, SECOND, 1))];
            drop(take(&limiter, &changed, 1, now));
            limiter.sweep(now);
        }
    }
}

#[test]
fn a_bucket_is_small() {
    assert_eq!(size_of::<(Key, Slot)>(), 48);
}
