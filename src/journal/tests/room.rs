//! Room that was given is kept.

use super::*;

#[tokio::test]
async fn what_an_answer_waits_for_is_never_dropped() {
    let data = TempDir::new().expect("temporary directory");
    let config =
        Config { on_full: OnFull::DropAndCount, interval: Span::secs(3600), ..Config::default() };
    let (journal, _) = open(&data, config);
    let strict = journal.reserve_for(Some(Commit::BeforeReply)).expect("room");
    let other = journal.reserve().expect("room");
    journal.shared.full.store(true, Ordering::Release);
    assert!(journal.reserve_for(Some(Commit::BeforeReply)).is_err());
    let quota = QuotaKey {
        quota: "p/q".into(),
        scope: "acme".into(),
        period: Timestamp(0),
        until: Timestamp(1),
    };
    let _never_awaited = journal.use_quota(strict, quota.clone(), 3);
    let counted = journal.count(strict, counter(1), ONE);
    let _never_awaited = journal.use_quota(other, quota.clone(), 4);
    let _never_awaited = journal.count(other, counter(2), ONE);
    counted.durable().await.expect("a working disk");
    assert_eq!(usage_on_disk(&journal), 1, "the other was dropped, as configured");
    let mut used = 0;
    let quotas = journal.segments(Lane::Quota);
    assert_eq!(quotas.len(), 1);
    let each = &mut |_, _, fact: crate::model::fact::QuotaFact| used += fact.used;
    journal.quotas_of(&quotas[0], u64::MAX, each).expect("readable");
    assert_eq!(used, 3);
}

#[tokio::test]
async fn whatever_others_have_taken_the_reserve_of_state_is_its_own() {
    let data = TempDir::new().expect("temporary directory");
    let max = Size::mib(1);
    let config = Config { max_bytes: max, segment_max_bytes: max, ..Config::default() };
    let (journal, _) = open(&data, config);
    let shared = &journal.shared;
    // Far beyond the bound, and the reserve: a merge that was under way, one large window.
    shared.disk_bytes.store(max.0 + 3 * STATE_RESERVE, Ordering::Release);
    journal.append(vec![revocation("k")]).expect("room").durable().await.expect("a working disk");
    shared.state_bytes.store(STATE_RESERVE, Ordering::Release);
    assert!(journal.append(vec![revocation("l")]).is_err(), "it has a bound as well");
}

#[tokio::test]
async fn while_the_disk_fails_nothing_is_begun_whose_answer_would_wait_for_it() {
    let data = TempDir::new().expect("temporary directory");
    let (journal, _) = open(&data, Config { interval: Span::secs(3600), ..Config::default() });
    journal.shared.give_up();
    assert!(journal.reserve_for(Some(Commit::BeforeReply)).is_err());
    assert!(journal.reserve().is_ok(), "the others wait for nothing");
    let (other, _) = {
        let data = TempDir::new().expect("temporary directory");
        open(&data, Config { commit: Commit::BeforeReply, ..Config::default() })
    };
    other.shared.give_up();
    assert!(other.reserve().is_err());
    assert!(other.reserve_for(Some(Commit::Interval)).is_ok());
    journal.shared.publish(0);
    assert!(journal.reserve_for(Some(Commit::BeforeReply)).is_ok());
}
