//! Limits that are edited while they are used.

use super::*;

#[test]
fn a_changed_limit_keeps_what_was_taken() {
    let limiter = Limiter::new(10, 1);
    let with = |limit, window, burst| [charge(1, 7, rate(limit, window, burst))];
    let now = SECOND * 50;
    for _ in 0..6 {
        take(&limiter, &with(10, SECOND, 10), 1, now).expect("six of ten");
    }
    let mut levels = [Level::default()];
    for (limit, window, burst, left) in [
        (10, SECOND, 20, 14),
        (1, SECOND * 3600, 10, 4),
        (1_000_000, SECOND, 10, 4),
        (7, SECOND * 13, 6, 0),
        (7, SECOND * 13, 3, 0),
    ] {
        let _refused = limiter.peek(&with(limit, window, burst), 1, now, &mut levels);
        assert_eq!(levels[0].remaining, left, "{limit} in {window:?}");
    }
    // Taken with another rate, it goes on from there: from a full bucket of three.
    take(&limiter, &with(1, SECOND, 10), 1, now).expect("the fourth");
    let later = now + SECOND * 2;
    limiter.peek(&with(1, SECOND, 10), 1, later, &mut levels).expect("some are back");
    assert_eq!(levels[0].remaining, 8);
}

proptest! {
    /// A bucket that is full goes on at the new rate from the first time that anybody looks, also
    /// one who is refused; and who comes when told to passes.
    #[test]
    fn a_changed_rate_is_in_force_at_the_first_look(
        old in (1_u32..1_000, 1_u64..3_000_000, 1_u32..100),
        new in (1_u32..1_000, 1_u64..3_000_000, 1_u32..100),
        idle in 0_u64..100_000,
        looks in prop::collection::vec(0_u64..1_000_000, 0..20),
    ) {
        let of = |(limit, millis, burst)| {
            [charge(1, 7, rate(limit, Duration::from_millis(millis), burst))]
        };
        let (before, after) = (of(old), of(new));
        let limiter = Limiter::new(10, 1);
        let mut now = SECOND;
        take(&limiter, &before, old.2, now).expect("all of it");
        now += Duration::from_millis(idle);
        // By the definition: what was in when it was first looked at, in requests, runs out evenly.
        let instant = Instant::new(&after[0].rate, now);
        let shard = limiter.shards[0].lock().expect("no panic");
        let first = instant.ahead(shard.slots.values().next().copied().as_mut());
        drop(shard);
        let start = now;
        let mut steps = looks.into_iter();
        loop {
            match take(&limiter, &after, 1, now) {
                Ok(_) => break,
                Err(TakeError::Refused { retry_after: Some(wait), .. }) => {
                    let gone = (now - start).as_nanos() * u128::from(new.0);
                    let ahead = first.saturating_sub(gone) + u128::from(new.1) * 1_000_000;
                    let over = ahead - u128::from(new.1) * 1_000_000 * u128::from(new.2);
                    prop_assert_eq!(wait.as_nanos(), over.div_ceil(u128::from(new.0)));
                    let full = u128::from(new.1) * 1_000_000 * u128::from(new.2);
                    prop_assert!(wait.as_nanos() <= full.div_ceil(u128::from(new.0)), "{:?}", wait);
                    match steps.next() {
                        Some(early) => now += wait.min(Duration::from_nanos(early)),
                        None => {
                            now += wait;
                            prop_assert!(take(&limiter, &after, 1, now).is_ok());
                            break;
                        }
                    }
                }
                Err(other) => prop_assert!(false, "{:?}", other),
            }
        }
    }
}

#[test]
fn a_limit_made_tighter_locks_nobody_out_for_longer_than_it_takes_to_come_back() {
    let limiter = Limiter::new(10, 1);
    let of = |limit, window, burst| [charge(1, 7, rate(limit, window, burst))];
    take(&limiter, &of(100_000, SECOND, 100_000), 100_000, SECOND).expect("all of it");
    let tight = of(60, SECOND * 60, 60);
    let refused = take(&limiter, &tight, 1, SECOND);
    assert_eq!(refused, Err(TakeError::Refused { at: 0, retry_after: Some(SECOND) }));
    assert!(take(&limiter, &tight, 60, SECOND * 61).is_ok(), "a minute later all of it is back");
    // The same where only its burst is another; and looking does not fill it again.
    let small = of(60, SECOND * 60, 10);
    assert!(take(&limiter, &small, 1, SECOND * 61).is_err());
    assert!(take(&limiter, &small, 10, SECOND * 70).is_err());
    assert!(take(&limiter, &small, 10, SECOND * 71).is_ok());
}

#[test]
fn a_slow_limit_made_fast_lets_pass_when_it_says() {
    let limiter = Limiter::new(10, 1);
    let month = Duration::from_secs(31 * 24 * 3600);
    take(&limiter, &[charge(1, 7, rate(100, month, 100))], 100, SECOND).expect("all of it");
    let fast = [charge(1, 7, rate(100, SECOND, 100))];
    let soon = Duration::from_millis(10);
    let refused = take(&limiter, &fast, 1, SECOND);
    assert_eq!(refused, Err(TakeError::Refused { at: 0, retry_after: Some(soon) }));
    assert!(take(&limiter, &fast, 1, SECOND + soon).is_ok());
    // And one made slow is slow from then on, though nothing passes.
    let slow = [charge(1, 7, rate(100, month, 100))];
    assert!(take(&limiter, &slow, 1, SECOND + soon).is_err());
    assert!(take(&limiter, &slow, 1, SECOND * 3600).is_err());
}
