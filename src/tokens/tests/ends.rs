//! Access tokens end with what they are made of, sessions with a log-out, whichever clock tells it.

use std::time::Duration;

use super::*;
use crate::clock::Clock;
use crate::model::fact::{Revocation, RevocationKind};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn an_access_token_ends_with_its_session_or_key() {
    let bench = Bench::new();
    let ttl = Some(100 * SECOND);
    let (subject, client) = ("alice".into(), "web".into());
    let session = bench.tokens.begin(NewSession { subject, client, scopes: vec![], ttl });
    bench.cache.pin(&StateFact::Session(session.clone()));
    let issued = bench.tokens.issue(&session);
    let end = |issued: &Issued| bench.tokens.verify(&access_text(issued)).expect("ours").expires_at;
    assert_eq!((issued.expires_in, end(&issued)), (100 * SECOND, session.expires_at));
    bench.clock.advance(Duration::from_millis(90_500));
    let first = refresh_text(&issued);
    let issued = bench.tokens.refresh(&first, Asked::default()).await.expect("current");
    assert_eq!(issued.expires_in.as_secs(), 9);
    assert_eq!(end(&issued), START.plus(99 * SECOND), "in whole seconds, and none beyond");
    // What is not refreshed is over as well.
    let session = Session { expires_at: Timestamp(i64::MAX), ..bench.held(session.id) };
    assert_eq!(bench.tokens.issue(&session).expires_in, 300 * SECOND);
    let idle = bench.tokens.config().session_idle.0;
    bench.clock.advance(idle - 7 * SECOND);
    assert_eq!(bench.tokens.issue(&session).expires_in, 7 * SECOND);

    let now = bench.clock.now();
    for (until, lives) in [(None, 300), (Some(400), 300), (Some(20), 20), (Some(0), 0)] {
        let until = until.map(|secs| now.plus(secs * SECOND));
        let issued = bench.tokens.exchange(Uuid::max(), &"web".into(), &[], until);
        assert_eq!(issued.expires_in, lives * SECOND);
    }
}

#[tokio::test]
async fn a_log_out_reaches_sessions_of_a_clock_that_is_ahead_and_no_later_ones() {
    let bench = Bench::new();
    let (session, issued) = bench.session().await;
    let (early, late) = (START.minus(6 * SECOND), START.minus(4 * SECOND));
    let log_out = |at| {
        let (kind, id) = (RevocationKind::Subject, "alice".into());
        bench.cache.pin(&StateFact::Revoked(Revocation { kind, id, at }));
    };
    log_out(early);
    let hot = bench.refresh(&refresh_text(&issued)).await.expect("made after it");
    // Its clock may have been ahead by as much, or that of who logged her out behind.
    log_out(late);
    assert_eq!(bench.refresh(&hot).await, Err(TokenError::Invalid));
    assert!(bench.held(session.id).revoked_at.is_none(), "nothing more is recorded of it");
    // She logs in again at once, here where that is known.
    let (_, issued) = bench.session().await;
    bench.refresh(&refresh_text(&issued)).await.expect("made after");
}
