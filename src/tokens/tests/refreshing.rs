//! The table of presented generations, through the whole service.

use std::time::Duration;

use super::*;
use crate::model::fact::{Revocation, RevocationKind};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn each_refresh_gives_the_next_token_and_only_that_one_is_good() {
    let bench = Bench::new();
    let (session, issued) = bench.session().await;
    let first = refresh_text(&issued);
    let second = bench.refresh(&first).await.expect("current");
    let third = bench.refresh(&second).await.expect("current");
    assert_eq!(bench.held(session.id).advance.generation, 2);
    assert_eq!(bench.refresh(&second).await, Ok(third.clone()), "a retry");
    // The first is two behind: somebody else has it.
    assert_eq!(bench.refresh(&first).await, Err(TokenError::Invalid));
    assert!(bench.held(session.id).revoked_at.is_some());
    assert_eq!(bench.refresh(&third).await, Err(TokenError::Invalid), "for the thief, too");
    assert_eq!(bench.metrics.tokens.reused.get(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_at_once_get_the_same_successor() {
    let bench = Arc::new(Bench::new());
    let (session, issued) = bench.session().await;
    let first = refresh_text(&issued);
    let tasks = TaskTracker::new();
    let all: Vec<_> = (0..50)
        .map(|_| {
            let (bench, first) = (bench.clone(), first.clone());
            tasks.spawn(async move { bench.refresh(&first).await })
        })
        .collect();
    let mut successors = std::collections::BTreeSet::new();
    for one in all {
        successors.insert(one.await.expect("no panic").expect("within grace"));
    }
    assert_eq!(successors.len(), 1);
    assert_eq!(bench.held(session.id).advance.generation, 1);
    assert_eq!(bench.metrics.tokens.refreshed.get(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_revocation_among_refreshes_ends_the_session_for_all_that_come_after() {
    for round in 0..20 {
        let bench = Arc::new(Bench::new());
        let (session, issued) = bench.session().await;
        let first = refresh_text(&issued);
        let tasks = TaskTracker::new();
        let refreshing: Vec<_> = (0..8)
            .map(|_| {
                let (bench, first) = (bench.clone(), first.clone());
                tasks.spawn(async move {
                    let mut successor = None;
                    loop {
                        match bench.refresh(&first).await {
                            Ok(next) => assert_eq!(*successor.get_or_insert(next.clone()), next),
                            Err(error) => break assert_eq!(error, TokenError::Invalid),
                        }
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        bench.tokens.revoke(&session).await.expect("a working disk");
        assert_eq!(bench.refresh(&first).await, Err(TokenError::Invalid));
        for one in refreshing {
            one.await.expect("no panic");
        }
        assert!(bench.held(session.id).revoked_at.is_some());
        assert_eq!(bench.metrics.tokens.reused.get(), 0, "none of them was a replay");
    }
}

#[tokio::test]
async fn a_retry_is_answered_within_grace_and_across_a_restart() {
    let bench = Bench::new();
    let (_, issued) = bench.session().await;
    let first = refresh_text(&issued);
    let second = bench.refresh(&first).await.expect("current");
    bench.clock.advance(29 * SECOND);
    assert_eq!(bench.refresh(&first).await.as_ref(), Ok(&second));
    // It is away for an hour: nobody could have been answered in that time.
    let bench = bench.restart(3600 * SECOND);
    assert_eq!(bench.refresh(&first).await.as_ref(), Ok(&second));
    assert!(bench.refresh(&second).await.is_ok());
}

#[tokio::test]
async fn a_restart_does_not_open_a_grace_that_was_over() {
    for kept in [true, false] {
        let bench = Bench::new();
        let (session, issued) = bench.session().await;
        let first = refresh_text(&issued);
        let second = bench.refresh(&first).await.expect("current");
        bench.clock.advance(31 * SECOND);
        if kept {
            bench.tokens.tend().expect("a working disk");
        }
        let bench = bench.restart(SECOND);
        if kept {
            assert_eq!(bench.refresh(&first).await, Err(TokenError::Invalid));
            assert!(bench.held(session.id).revoked_at.is_some());
        } else {
            // Nobody wrote down that it was over: a lost disk revokes nobody.
            assert_eq!(bench.refresh(&first).await, Ok(second));
            bench.clock.advance(30 * SECOND);
            assert_eq!(bench.refresh(&first).await, Err(TokenError::Invalid));
        }
    }
}

#[tokio::test]
async fn a_replay_is_one_whatever_else_is_asked_for() {
    let wider = ["admin".into()];
    let bogus = Asked { scopes: Some(&wider), client: None };
    let other = Asked { client: Some("other"), scopes: None };
    for asked in [bogus, other] {
        let bench = Bench::new();
        let (session, issued) = bench.session().await;
        let first = refresh_text(&issued);
        let second = bench.refresh(&first).await.expect("current");
        let third = bench.refresh(&second).await.expect("current");
        // What is asked wrongly with a good token advances nothing and ends nothing.
        let wrong = bench.tokens.refresh(&third, asked).await.expect_err("not granted");
        assert_eq!(
            wrong,
            if asked.client.is_some() { TokenError::Invalid } else { TokenError::Scope }
        );
        assert_eq!(bench.held(session.id).advance.generation, 2);
        assert!(bench.held(session.id).revoked_at.is_none());

        let replayed = bench.tokens.refresh(&first, asked).await.expect_err("two behind");
        assert_eq!(replayed, TokenError::Invalid);
        assert!(bench.held(session.id).revoked_at.is_some());
        let over = bench.tokens.refresh(&third, asked).await.expect_err("it is over");
        assert_eq!(over, TokenError::Invalid, "nothing is told of what is over");
    }
}

#[tokio::test]
async fn after_grace_the_token_before_revokes_its_session() {
    let bench = Bench::new();
    let (session, issued) = bench.session().await;
    let first = refresh_text(&issued);
    let second = bench.refresh(&first).await.expect("current");
    bench.clock.advance(31 * SECOND);
    assert_eq!(bench.refresh(&first).await, Err(TokenError::Invalid));
    assert_eq!(bench.refresh(&second).await, Err(TokenError::Invalid));
    let bench = bench.restart(SECOND);
    assert!(bench.held(session.id).revoked_at.is_some(), "it was recorded");
    assert_eq!(bench.refresh(&second).await, Err(TokenError::Invalid));
}

#[tokio::test]
async fn an_evicted_session_is_never_older_than_what_was_answered() {
    let bench = Bench::new();
    let (one, other) = (bench.session().await, bench.session().await);
    let first = refresh_text(&one.1);
    let second = bench.refresh(&first).await.expect("current");
    let third = bench.refresh(&second).await.expect("current");
    // The hot tier holds one.
    bench.refresh(&refresh_text(&other.1)).await.expect("current");
    assert!(bench.cache.hot_session(one.0.id).is_none());
    assert_eq!(bench.refresh(&first).await, Err(TokenError::Invalid), "consumed");
    assert_eq!(bench.refresh(&third).await, Err(TokenError::Invalid), "and revoked for it");
}

#[tokio::test]
async fn from_beyond_nothing_is_taken_outside_a_recovery_window_and_once_within() {
    let bench = Bench::new();
    let (session, _) = bench.session().await;
    let keys = bench.tokens.keys();
    let beyond = |generation| keys.mint(session.id, generation, START).expose_secret().to_owned();
    let undecidable = bench.refresh(&beyond(5)).await.expect_err("it was never here");
    assert!(matches!(undecidable, TokenError::Undecidable { .. }), "{undecidable}");
    assert!(bench.held(session.id).revoked_at.is_none());

    let now = bench.tokens.recovery().set(START.plus(3600 * SECOND));
    now.expect("a working disk");
    let taken = bench.refresh(&beyond(5)).await.expect("on its proof");
    assert_eq!(bench.held(session.id).advance.generation, 6);
    let next = bench.refresh(&taken).await.expect("current");
    assert_eq!(bench.refresh(&beyond(40)).await, Err(TokenError::Invalid), "a second time");
    assert_eq!(bench.refresh(&next).await, Err(TokenError::Invalid));
    assert_eq!(bench.metrics.tokens.recovered.get(), 1);
    assert_eq!(bench.metrics.tokens.beyond.get(), 3);
}

#[tokio::test]
async fn time_and_idleness_end_a_session() {
    let bench = Bench::new();
    let (_, issued) = bench.session().await;
    let day = 24 * 3600 * SECOND;
    bench.clock.advance(15 * day);
    assert_eq!(bench.refresh(&refresh_text(&issued)).await, Err(TokenError::Invalid), "idle");
    let (session, issued) = bench.session().await;
    let mut text = refresh_text(&issued);
    for _ in 0..3 {
        bench.clock.advance(9 * day);
        text = bench.refresh(&text).await.expect("it is used");
    }
    bench.clock.advance(4 * day);
    assert_eq!(bench.refresh(&text).await, Err(TokenError::Invalid), "over");
    assert!(bench.held(session.id).revoked_at.is_none(), "and not revoked");
}

#[tokio::test]
async fn whoever_is_logged_out_everywhere_needs_a_new_session() {
    for (kind, name) in [(RevocationKind::Subject, "alice"), (RevocationKind::Client, "web")] {
        let bench = Bench::new();
        let (_, issued) = bench.session().await;
        let hot = bench.refresh(&refresh_text(&issued)).await.expect("current");
        bench.clock.advance(SECOND);
        let at = crate::clock::Clock::now(&*bench.clock);
        let fact = StateFact::Revoked(Revocation { kind, id: name.into(), at });
        bench.journal.append(vec![fact.clone()]).expect("room").durable().await.expect("a disk");
        bench.cache.pin(&fact);
        assert_eq!(bench.refresh(&hot).await, Err(TokenError::Invalid));
        let bench = bench.restart(SECOND);
        assert_eq!(bench.refresh(&hot).await, Err(TokenError::Invalid));
        let (_, issued) = bench.session().await;
        bench.refresh(&refresh_text(&issued)).await.expect("made after");
    }
}

#[tokio::test]
async fn scopes_can_be_narrowed_and_never_widened() {
    let bench = Bench::new();
    let (_, issued) = bench.session().await;
    let text = refresh_text(&issued);
    let asked = |scopes| Asked { scopes: Some(scopes), client: None };
    let wider = ["orders.read".into(), "admin".into()];
    let refused = bench.tokens.refresh(&text, asked(&wider)).await.expect_err("not granted");
    assert_eq!(refused, TokenError::Scope);
    let narrow = ["orders.read".into()];
    let issued = bench.tokens.refresh(&text, asked(&narrow)).await.expect("granted");
    assert_eq!(issued.scopes, narrow);
    let text = refresh_text(&issued);
    let issued = bench.tokens.refresh(&text, asked(&[])).await.expect("as if nothing was asked");
    assert_eq!(issued.scopes.len(), 2, "an empty list would narrow nothing");
    let other = Asked { client: Some("other"), scopes: None };
    let refused = bench.tokens.refresh(&refresh_text(&issued), other).await;
    assert_eq!(refused.expect_err("not its own"), TokenError::Invalid);
}

#[tokio::test]
async fn a_rotation_of_keys_ends_nothing() {
    let bench = Bench::new();
    let (_, issued) = bench.session().await;
    let (first, access) = (refresh_text(&issued), access_text(&issued));
    let second = bench.refresh(&first).await.expect("current");
    bench.clock.advance(2 * SECOND);
    let entropy: SharedEntropy = Arc::new(SeededEntropy::new(8));
    let now = crate::clock::Clock::now(&*bench.clock);
    bench.tokens.keys().rotate(&entropy, now).expect("a working disk");
    assert_eq!(bench.refresh(&first).await.as_ref(), Ok(&second), "derived as before");
    let third = bench.refresh(&second).await.expect("proven by the old secret");
    assert_ne!(third.split('_').nth(1), second.split('_').nth(1), "made with the new one");
    assert!(bench.tokens.verify(&access).is_some());
    let states = |bench: &Bench| {
        let now = crate::clock::Clock::now(&*bench.clock);
        bench.tokens.keys().list(now).into_iter().map(|key| key.state).collect::<Vec<_>>()
    };
    assert_eq!(states(&bench), ["active", "old", "active", "old"]);
    let bench = bench.restart(SECOND);
    assert_eq!(states(&bench), ["active", "old", "active", "old"]);
    bench.refresh(&third).await.expect("current");
}

#[tokio::test]
async fn tokens_of_another_gateway_are_sent_there() {
    let bench = Bench::new();
    let (session, issued) = bench.session().await;
    let elsewhere = Session { node: "gw-2".into(), id: Uuid::from_u128(9), ..session };
    bench.cache.pin(&StateFact::Session(elsewhere.clone()));
    let text = refresh_text(&bench.tokens.issue(&elsewhere));
    assert_eq!(bench.refresh(&text).await, Err(TokenError::Elsewhere("gw-2".into())));
    bench.refresh(&refresh_text(&issued)).await.expect("its own");
}
