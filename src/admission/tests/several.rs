//! Several limits at once: what is looked at only, what one takes from another, which is told.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

#[test]
fn who_does_not_run_here_only_looks_for_a_place() {
    let (admission, principal, target) = (admission(), principal(&[]), orders());
    for policy in [
        rules(r#"{"concurrency":{"limit":1}}"#),
        rules(
            r#"{"concurrency":{"limit":1},"rate_limits":[{"name":"r","limit":99,"window":"1h"}],
                "quotas":[{"name":"q","limit":99,"period":"year"}]}"#,
        ),
    ] {
        let of = |ask| decide(&admission, presented(&principal, &policy), ask, Duration::ZERO);
        let looks = || of(Ask::request(&target, None));
        let looked = (looks().expect("room"), looks().expect("room"));
        let runs = of(Ask::forwarded(&target, None)).expect("nobody runs");
        assert_eq!(looks().err(), Some(Denial::ConcurrencyExceeded(1)));
        drop((looked, runs));
        assert!(looks().is_ok());
    }
}

#[test]
fn of_all_limits_that_refuse_the_last_to_have_enough_is_told() {
    let (principal, target) = (principal(&[]), orders());
    let quota = |period| format!(r#"{{"name":"{period}","limit":1,"period":"{period}"}}"#);
    let told = |limits: &str, cost| {
        let admission = admission();
        let policy = rules(&format!(r#"{{"concurrency":{{"limit":1}},{limits}}}"#));
        let of = |cost| {
            let ask = Ask { cost, ..Ask::forwarded(&target, None) };
            decide(&admission, presented(&principal, &policy), ask, Duration::ZERO)
        };
        let _runs = of(1).expect("all is there");
        let refused = of(cost);
        let Err(Denial::RateLimited(limited) | Denial::QuotaExceeded(limited)) = refused else {
            panic!("{refused:?}")
        };
        (limited.name.to_string(), limited.retry_after.map(|span| span.as_secs() / 3600))
    };
    let (hour, day) = (quota("hour"), quota("day"));
    // Whichever is written first.
    for quotas in [format!("{hour},{day}"), format!("{day},{hour}")] {
        let quotas = format!(r#""quotas":[{quotas}]"#);
        assert_eq!(told(&quotas, 1), ("day".into(), Some(12)));
        for (window, name, hours) in [("6h", "day", 12), ("48h", "r", 48)] {
            let rate = format!(r#"{{"name":"r","limit":1,"window":"{window}","burst":1}}"#);
            let both = format!(r#""rate_limits":[{rate}],{quotas}"#);
            assert_eq!(told(&both, 1), (name.into(), Some(hours)));
        }
    }
    // Never is later than any time.
    let never = r#""quotas":[{"name":"q","limit":1,"period":"hour"},
                             {"name":"wide","limit":2,"period":"year"}]"#;
    assert_eq!(told(never, 2), ("q".into(), None));
    let never = r#""rate_limits":[{"name":"r","limit":2,"window":"1s"}],
                   "quotas":[{"name":"q","limit":3,"period":"year"}]"#;
    assert_eq!(told(never, 3), ("r".into(), None));
}

/// One asks for more than its own limits ever hold; the other, which shares a place and a quota
/// with it, is never refused for that.
#[test]
fn what_one_limit_refuses_takes_no_place_and_no_quota_from_others_meanwhile() {
    const ROUNDS: u64 = 3_000;
    let (admission, target) = (admission(), orders());
    let policy = rules(
        r#"{"rate_limits":[{"name":"r","limit":10,"window":"1h","per":"key"}],
            "quotas":[{"name":"shared","limit":10,"period":"hour"},
                      {"name":"own","limit":5,"period":"hour","per":"key"}],
            "concurrency":{"limit":1}}"#,
    );
    let (good, greedy) = (principal(&[]), Principal { key_id: Uuid::max(), ..principal(&[]) });
    let (hour, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let ask = |principal, cost| {
        let ask = Ask { cost, ..Ask::forwarded(&target, None) };
        let after = Duration::from_secs(3600 * hour.load(Ordering::SeqCst));
        decide(&admission, presented(principal, &policy), ask, after).map(drop)
    };
    assert!(ask(&greedy, 10).is_err());
    assert!(admission.quotas().is_empty(), "all are looked at before any is reserved");
    std::thread::scope(|scope| {
        for cost in [11, 10, 10] {
            let (ask, over, greedy) = (&ask, &over, &greedy);
            scope.spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    assert!(ask(greedy, cost).is_err(), "its own limits never hold {cost}");
                }
            });
        }
        let refused: Vec<_> = (0..ROUNDS)
            .filter_map(|_| {
                hour.fetch_add(1, Ordering::SeqCst);
                ask(&good, 1).err()
            })
            .collect();
        over.store(true, Ordering::SeqCst);
        assert_eq!(refused, []);
    });
}

#[test]
fn cost_weighs_on_rates_and_quotas() {
    let (admission, principal, target) = (admission(), principal(&[]), orders());
    let policy = rules(
        r#"{"rate_limits":[{"name":"r","limit":10,"window":"1s"}],
            "quotas":[{"name":"q","limit":20,"period":"year","per":"key"}]}"#,
    );
    let heavy = |cost, after| {
        let ask = Ask { cost, ..Ask::request(&target, None) };
        decide(&admission, presented(&principal, &policy), ask, Duration::from_secs(after))
    };
    assert_eq!(heavy(7, 0).expect("fits").uses()[0].used, 7);
    assert!(matches!(heavy(7, 0), Err(Denial::RateLimited(_))));
    assert!(heavy(3, 0).is_ok());
    assert!(heavy(10, 10).is_ok(), "20 of 20");
    assert!(matches!(heavy(1, 20), Err(Denial::QuotaExceeded(_))));
    let Err(Denial::RateLimited(never)) = heavy(11, 30) else { panic!("it never fits") };
    assert_eq!((&*never.name, never.retry_after), ("r", None));
}
