//! What nobody can say at the moment: 503 at every endpoint, told when to come back, and neither a
//! token nor a session ends by it.

use super::*;
use crate::cache::{Asked, AskedSession, Change, Follower, Source, SourceError};
use crate::model::Digest;
use crate::model::fact::{Revocation, RevocationKind};

/// A Postgres that is away.
struct Away;

impl Source for Away {
    fn lookup(&self, _: Digest) -> Asked<'_> {
        Box::pin(async { Err(SourceError::Deadline) })
    }

    fn session(&self, _: Uuid) -> AskedSession<'_> {
        Box::pin(async { Err(SourceError::Deadline) })
    }
}

impl Gateway {
    /// Asks everywhere about a refresh token; twice, as a client does that was told to.
    async fn cannot_say(&self, token: &str, code: &str) -> Answer {
        let mut last = None;
        for _ in 0..2 {
            let answer = self.refresh(token).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, code));
            assert!(answer.header("retry-after").is_some());
            for answer in
                [self.grant(token).await, self.revoke(token).await, self.introspect(token).await]
            {
                assert_eq!(error(&answer), (503, "temporarily_unavailable".into()));
                assert!(answer.header("retry-after").is_some());
                assert_eq!(answer.header("cache-control"), Some("no-store"));
            }
            last = Some(answer);
        }
        assert_eq!(self.revoked(), 0);
        last.expect("an answer")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_postgres_is_away_no_session_is_called_unknown() {
    let gateway = Gateway::with(Config::default(), &[], &[], Some(Arc::new(Away)));
    gateway.cache.still_current();
    let (_, unknown) = gateway.begin();
    gateway.cannot_say(&refresh_token(&unknown), "session_validation_unavailable").await;
    let access = access_token(&unknown);
    assert_eq!(error(&gateway.introspect(&access).await).0, 503);
    assert_eq!(error(&gateway.revoke(&access).await).0, 503);
    assert_eq!(gateway.with_bearer(&access).await.code(), "api_key_validation_unavailable");
    // What is proven to be nothing needs no Postgres, and what is held here neither.
    assert_eq!(gateway.refresh("gpr_x").await.code(), "invalid_grant");
    assert_eq!(gateway.introspect("gpr_x").await.json(), json!({ "active": false }));
    let (_, known) = gateway.session().await;
    assert_eq!(gateway.introspect(&refresh_token(&known)).await.json()["active"], true);
    assert_eq!(gateway.refresh(&refresh_token(&known)).await.status, StatusCode::OK);
    assert_eq!(gateway.revoke(&access_token(&known)).await.status, StatusCode::OK);
    assert_eq!(gateway.revoked(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_to_decide_by_decides_nothing() {
    let gateway = Gateway::with(Config::default(), &[], &[], Some(Arc::new(Away)));
    // There never was a catch-up.
    let (_, issued) = gateway.session().await;
    let answer = gateway.refresh(&refresh_token(&issued)).await;
    assert_eq!(answer.code(), "api_key_policy_unavailable");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(error(&gateway.introspect(&refresh_token(&issued)).await).0, 503);
    // Denying needs nothing but the session.
    assert_eq!(gateway.revoke(&refresh_token(&issued)).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_another_gateway_is_sent_there() {
    let gateway = Gateway::start(Config::default(), &[], &[]);
    let (session, _) = gateway.begin();
    let elsewhere = Session { node: "gw-2".into(), ..session };
    gateway.cache.pin(&StateFact::Session(elsewhere.clone()));
    let token = refresh_token(&gateway.tokens.issue(&elsewhere));
    let answer = gateway.cannot_say(&token, "session_elsewhere").await;
    let detail = answer.json()["detail"].as_str().expect("text").to_owned();
    assert!(detail.contains("`gw-2`"), "{detail}");
    let told = gateway.grant(&token).await.json()["error_description"].to_string();
    assert!(told.contains("`gw-2`"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_that_was_never_here_is_not_called_bad() {
    let gateway = Gateway::start(Config::default(), &[], &[]);
    let (session, issued) = gateway.session().await;
    let beyond = gateway.tokens.keys().mint(session.id, 5, session.created_at);
    let beyond = beyond.expose_secret();
    for _ in 0..2 {
        let answer = gateway.refresh(beyond).await;
        assert_eq!(answer.code(), "session_validation_unavailable");
        assert_eq!(error(&gateway.introspect(beyond).await).0, 503);
    }
    assert_eq!(gateway.revoked(), 0);
    assert_eq!(gateway.refresh(&refresh_token(&issued)).await.status, StatusCode::OK);
    // Whoever holds it may end its session, though.
    assert_eq!(gateway.revoke(beyond).await.status, StatusCode::OK);
    assert_eq!(gateway.revoked(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_cannot_be_read_is_no_answer() {
    let gateway = Gateway::start(Config::default(), &[], &[]);
    let (_, issued) = gateway.session().await;
    let (id, at) = ("alice".into(), Timestamp::EPOCH);
    let before = Change::Revocation(Revocation { kind: RevocationKind::Subject, id, at });
    gateway.cache.apply(vec![before]).expect("a disk");
    gateway.cache.damage_revocations();
    gateway.cannot_say(&refresh_token(&issued), "session_validation_unavailable").await;
    let answer = gateway.with_bearer(&access_token(&issued)).await;
    assert_eq!(answer.code(), "api_key_validation_unavailable");
}
