//! Revocations that the journal cannot take at the moment: in force at once, never acknowledged,
//! and recorded as soon as there is room.

use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::model::fact::Lane;

impl Bench {
    /// A session that is known here without anything in the journal.
    fn pinned_session(&self) -> (Session, Issued) {
        let session = self.tokens.begin(NewSession {
            subject: "alice".into(),
            client: "web".into(),
            scopes: Vec::new(),
            ttl: None,
        });
        self.cache.pin(&StateFact::Session(session.clone()));
        let issued = self.tokens.issue(&session);
        (session, issued)
    }

    /// Where the state lane's segments would be made stands a file, until it is removed.
    fn obstruct(&self) -> PathBuf {
        let lane = self.data.path().join("journal").join(Lane::State.as_str());
        std::fs::remove_dir(&lane).expect("nothing is in it");
        std::fs::write(&lane, b"in the way").expect("writable");
        lane
    }

    /// Nothing more is taken, not even into memory.
    fn fill(&self) {
        let client = || Client { name: "x".into(), policy: None, enabled: true };
        while self.journal.append(vec![StateFact::ClientCreated(client())]).is_ok() {}
    }

    async fn clear(&self, obstacle: &PathBuf) {
        std::fs::remove_file(obstacle).expect("there");
        while self.journal.flush().durable().await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn a_revocation_is_acknowledged_only_when_it_is_on_disk() {
    for full in [false, true] {
        let bench = Bench::new();
        let (session, issued) = bench.pinned_session();
        let obstacle = bench.obstruct();
        if full {
            bench.fill();
        }
        for _ in 0..3 {
            let held = bench.held(session.id);
            let refused = bench.tokens.revoke(&held).await.expect_err("it is on no disk");
            assert!(matches!(refused, TokenError::RevokedUnrecorded(_)), "{refused}");
            assert!(bench.held(session.id).revoked_at.is_some(), "in force at once");
            let refused = bench.refresh(&refresh_text(&issued)).await;
            assert_eq!(refused, Err(TokenError::Invalid));
        }
        bench.clear(&obstacle).await;
        bench.tokens.revoke(&bench.held(session.id)).await.expect("a working disk");
        let bench = bench.restart(Duration::from_secs(1));
        assert!(bench.held(session.id).revoked_at.is_some(), "{full}");
    }
}

#[tokio::test]
async fn a_replay_that_the_journal_cannot_take_is_recorded_as_soon_as_it_can() {
    let bench = Bench::new();
    let (mut session, issued) = bench.pinned_session();
    session.advance.generation = 2;
    bench.cache.pin(&StateFact::Session(session.clone()));
    let obstacle = bench.obstruct();
    bench.fill();
    assert_eq!(bench.refresh(&refresh_text(&issued)).await, Err(TokenError::Invalid));
    assert!(bench.held(session.id).revoked_at.is_some(), "in force at once");
    bench.tokens.record_revocations();
    bench.clear(&obstacle).await;
    bench.tokens.record_revocations();
    bench.journal.flush().durable().await.expect("a working disk");
    let bench = bench.restart(Duration::from_secs(1));
    assert!(bench.held(session.id).revoked_at.is_some());
}

#[tokio::test]
async fn what_postgres_has_is_not_recorded_again() {
    let bench = Bench::new();
    let (session, _) = bench.session().await;
    bench.tokens.revoke(&session).await.expect("a working disk");
    let revoked = bench.held(session.id);
    bench.cache.settle_sessions([revoked.clone()].iter()).expect("a working disk");
    bench.journal.shutdown().expect("a working disk");
    bench.tokens.revoke(&bench.held(session.id)).await.expect("it is settled");
}
