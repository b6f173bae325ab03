//! The cache under races, restarts and resyncs: Postgres is played by hand, so that every order of
//! events is chosen and none depends on time.

mod damage;
mod disk;
mod misses;
mod policies;
mod resync;
mod revoking;
mod sessions;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::model::units::Span;
use crate::model::{Client, KeyState, api_key};

const START: Timestamp = Timestamp(1_700_000_000_000_000);
const AT_ONCE: Timestamp = Timestamp::NEG_INFINITY;

type Answer = Result<Lookup, SourceError>;

/// A Postgres that answers when the test says so.
struct Hand {
    asking: mpsc::UnboundedSender<oneshot::Sender<Answer>>,
    asked: Mutex<mpsc::UnboundedReceiver<oneshot::Sender<Answer>>>,
    lookups: AtomicUsize,
    /// Sessions that it knows; none: it is away.
    sessions: std::sync::Mutex<Option<Vec<crate::model::Session>>>,
}

impl Hand {
    fn new() -> Arc<Self> {
        let (asking, asked) = mpsc::unbounded_channel();
        Arc::new(Self {
            asking,
            asked: Mutex::new(asked),
            lookups: AtomicUsize::new(0),
            sessions: std::sync::Mutex::default(),
        })
    }

    /// The next lookup, to be answered.
    async fn asked(&self) -> oneshot::Sender<Answer> {
        let patience = Duration::from_secs(10);
        let mut asked = self.asked.lock().await;
        let next = tokio::time::timeout(patience, asked.recv()).await.expect("Postgres is asked");
        next.expect("the sender lives as long")
    }

    /// From now on it answers for sessions, with these.
    fn knows(&self, sessions: Vec<crate::model::Session>) {
        *self.sessions.lock().expect("no panic") = Some(sessions);
    }

    fn lookups(&self) -> usize {
        self.lookups.load(Ordering::SeqCst)
    }
}

impl Source for Hand {
    fn lookup(&self, _digest: Digest) -> Asked<'_> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        let (answer, answered) = oneshot::channel();
        self.asking.send(answer).expect("the receiver lives as long");
        Box::pin(async { answered.await.unwrap_or(Err(SourceError::Deadline)) })
    }

    fn session(&self, id: Uuid) -> AskedSession<'_> {
        let known = self.sessions.lock().expect("no panic").clone();
        Box::pin(async move {
            let known = known.ok_or(SourceError::Deadline)?;
            Ok(known.into_iter().find(|session| session.id == id))
        })
    }
}

/// A test that is not of the deadline must not depend on how long the machine takes.
fn patient() -> Config {
    Config { miss_deadline: Span::secs(60), ..Config::default() }
}

/// A cache in a directory of its own.
struct Bench {
    data: TempDir,
    clock: Arc<ManualClock>,
    hand: Arc<Hand>,
    cache: Arc<Cache>,
}

impl Bench {
    fn new() -> Self {
        Self::with(patient(), Declared::default())
    }

    fn with(config: Config, declared: Declared) -> Self {
        let data = TempDir::new().expect("temporary directory");
        let (clock, hand) = (Arc::new(ManualClock::new(START)), Hand::new());
        let cache = open(&data, config, declared, Some(hand.clone()), clock.clone());
        Self { data, clock, hand, cache }
    }

    /// Ends this cache and opens what it left on disk, `after` some time.
    fn restart(self, config: Config, after: Duration) -> Self {
        let Self { data, clock, hand, cache } = self;
        assert_eq!(Arc::strong_count(&cache), 1, "nobody else holds the disk");
        drop(cache);
        clock.advance(after);
        let cache = open(&data, config, Declared::default(), Some(hand.clone()), clock.clone());
        Self { data, clock, hand, cache }
    }

    /// One catch-up of the feed.
    fn feed(&self, revision: i64, changes: Vec<Change>) {
        assert_eq!(self.feed_all(revision, false, changes), []);
    }

    fn feed_all(&self, revision: i64, full: bool, changes: Vec<Change>) -> Vec<Revocation> {
        self.cache.begin(revision, full);
        self.cache.apply(changes).expect("a working disk");
        self.cache.complete(position(revision)).expect("a working disk")
    }

    fn find(&self, text: &str) -> tokio::task::JoinHandle<Result<Option<Arc<Entry>>, Undecidable>> {
        let (cache, digest) = (self.cache.clone(), api_key::digest(text));
        TaskTracker::new().spawn(async move { cache.find(digest).await })
    }

    /// What is known without Postgres; asking it would be a fault.
    async fn known(&self, text: &str) -> Option<KeyState> {
        let before = self.hand.lookups();
        let cached = self.cache.load(&api_key::digest(text));
        assert_eq!(self.hand.lookups(), before);
        let hot = self.cache.hot(&api_key::digest(text));
        assert_eq!(hot.is_some(), cached.is_some(), "what was loaded is hot");
        cached.map(|entry| entry.state(self.clock.now()))
    }
}

fn open(
    data: &TempDir,
    config: Config,
    declared: Declared,
    source: Option<Arc<Hand>>,
    clock: Arc<ManualClock>,
) -> Arc<Cache> {
    let source = source.map(|hand| hand as Arc<dyn Source>);
    let (metrics, tasks) = (Arc::new(Metrics::new()), TaskTracker::new());
    let opened = Cache::open(data.path(), config, declared, source, clock, metrics, tasks);
    opened.expect("a directory of its own")
}

fn position(revision: i64) -> Position {
    Position { revision, mark: [7; 16] }
}

fn id(text: &str) -> Uuid {
    Uuid::from_slice(&api_key::digest(text).0[..16]).expect("sixteen bytes")
}

/// The key whose text, and id, come from `text`; its client is `acme`.
fn key(text: &str) -> Key {
    Key {
        id: id(text),
        digest: api_key::digest(text),
        prefix: "gp_live_".into(),
        last4: "0000".into(),
        client: "acme".into(),
        policy: None,
        scopes: vec![],
        enabled: true,
        expires_at: None,
        created_at: START,
    }
}

fn key_row(text: &str, revision: i64) -> KeyRow {
    KeyRow { key: key(text), revision }
}

fn fed(text: &str, revision: i64) -> Change {
    Change::Key(key_row(text, revision))
}

fn client_row(enabled: bool, revision: i64) -> ClientRow {
    ClientRow {
        client: Client { name: "acme".into(), policy: None, enabled },
        mode: None,
        revision,
    }
}

fn revocation(text: &str, at: Timestamp) -> Revocation {
    Revocation { kind: RevocationKind::Key, id: id(text).to_string().into(), at }
}

fn revoked(text: &str) -> StateFact {
    StateFact::Revoked(revocation(text, AT_ONCE))
}

fn found(revision: i64, key: KeyRow) -> Answer {
    let found = Found { key, client: None, policies: vec![], revocation: None };
    Ok(Lookup { revision, found: Some(found) })
}

fn nobody(revision: i64) -> Answer {
    Ok(Lookup { revision, found: None })
}

fn state(entry: &Option<Arc<Entry>>, now: Timestamp) -> Option<KeyState> {
    entry.as_ref().map(|entry| entry.state(now))
}
