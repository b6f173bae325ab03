//! The service over a real journal and cache; time is moved by hand.

mod ends;
mod forged;
mod kept;
mod refreshing;
mod unrecorded;

use std::sync::Arc;

use secrecy::ExposeSecret;
use tempfile::TempDir;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::*;
use crate::cache::{self, Cache, Declared};
use crate::clock::{ManualClock, SharedClock};
use crate::entropy::{SeededEntropy, SharedEntropy};
use crate::journal::{self, Journal};
use crate::metrics::Metrics;
use crate::model::fact::StateFact;
use crate::model::{Client, Session, Timestamp};

const START: Timestamp = Timestamp(1_700_000_000_000_000);

/// A gateway's token service, and what it stands on.
struct Bench {
    data: TempDir,
    clock: Arc<ManualClock>,
    metrics: Arc<Metrics>,
    journal: Journal,
    cache: Arc<Cache>,
    tokens: Arc<Tokens>,
}

fn declared() -> Declared {
    let client = Client { name: "web".into(), policy: None, enabled: true };
    Declared { node: "gw".into(), clients: vec![client], ..Declared::default() }
}

impl Bench {
    fn new() -> Self {
        let data = TempDir::new().expect("temporary directory");
        Self::open(data, Arc::new(ManualClock::new(START)))
    }

    fn open(data: TempDir, clock: Arc<ManualClock>) -> Self {
        let entropy: SharedEntropy = Arc::new(SeededEntropy::new(7));
        let (metrics, shared) = (Arc::new(Metrics::new()), clock.clone() as SharedClock);
        let (journal, state) = Journal::open(
            data.path(),
            journal::Config::default(),
            shared.clone(),
            entropy.clone(),
            metrics.clone(),
        )
        .expect("a journal");
        // One session is hot at a time: the others are evicted.
        let config = cache::Config { hot_sessions: 1, ..cache::Config::default() };
        let cache = Cache::open(
            data.path(),
            config,
            declared(),
            None,
            shared.clone(),
            metrics.clone(),
            TaskTracker::new(),
        )
        .expect("a cache");
        state.iter().for_each(|fact| cache.pin(fact));
        let config = Config::default();
        let keys = Keys::open(data.path(), &config, &entropy, shared.clone().now());
        let parts = Parts {
            config,
            node: "gw".into(),
            keys: keys.expect("keys"),
            cache: cache.clone(),
            journal: journal.clone(),
            clock: shared,
            entropy,
            metrics: metrics.clone(),
        };
        let tokens = Arc::new(Tokens::new(data.path(), parts));
        Self { data, clock, metrics, journal, cache, tokens }
    }

    /// An orderly end, and a new beginning `later`.
    fn restart(self, later: std::time::Duration) -> Self {
        let Self { data, clock, journal, .. } = self;
        journal.shutdown().expect("a working disk");
        drop((journal, self.cache, self.tokens));
        clock.advance(later);
        Self::open(data, clock)
    }

    /// A session of alice's, and its pair.
    async fn session(&self) -> (Session, Issued) {
        let new = NewSession {
            subject: "alice".into(),
            client: "web".into(),
            scopes: vec!["orders.read".into(), "orders.write".into()],
            ttl: None,
        };
        let session = self.tokens.begin(new);
        let fact = StateFact::Session(session.clone());
        let ticket = self.journal.append(vec![fact.clone()]).expect("room");
        self.cache.pin(&fact);
        ticket.durable().await.expect("a working disk");
        let issued = self.tokens.issue(&session);
        (session, issued)
    }

    async fn refresh(&self, text: &str) -> Result<String, TokenError> {
        let issued = self.tokens.refresh(text, Asked::default()).await?;
        Ok(refresh_text(&issued))
    }

    fn held(&self, id: Uuid) -> Session {
        let held = self.cache.session_turn(id).get().expect("a working disk");
        held.expect("a session").session().clone()
    }
}

fn refresh_text(issued: &Issued) -> String {
    issued.refresh_token.as_ref().expect("of a session").expose_secret().to_owned()
}

fn access_text(issued: &Issued) -> String {
    issued.access_token.expose_secret().to_owned()
}
