//! Sessions and tokens of this gateway: made, found, revoked, and asked about. What a refresh does
//! stands in `rotation`.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use uuid::Uuid;

use super::access::{Grant, Holder};
use super::generation::Verdict;
use super::grace::{Grace, Moment};
use super::keys::Keys;
use super::recovery::Recovery;
use super::{Bearer, Config, TokenError};
use crate::cache::{Cache, HeldSession};
use crate::clock::SharedClock;
use crate::entropy::SharedEntropy;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::model::fact::{AuditEntry, RevocationKind};
use crate::model::{Advance, Digest, Name, Session, SessionState, Timestamp, api_key};

/// Sessions that advanced and may not have been answered yet: remembered at most.
const UNANSWERED_MAX: usize = 10_000;

/// Revocations that the journal did not take: remembered at most.
const UNRECORDED_MAX: usize = 10_000;

/// Access tokens whose signature is not checked again: remembered at most.
const VERIFIED_MAX: usize = 10_000;

/// When it is worth asking again for a session that is not here yet.
pub(super) const NOT_HERE_YET: Duration = Duration::from_secs(1);

/// How long after it was made a session may still be on its way to Postgres, so that its absence
/// there proves nothing.
const ON_ITS_WAY: Duration = Duration::from_secs(3600);

/// What the service is made of.
pub struct Parts {
    /// `[tokens]`
    pub config: Config,
    /// This gateway's name.
    pub node: Name,
    /// Server secrets and signing keys.
    pub keys: Keys,
    /// Where sessions are held.
    pub cache: Arc<Cache>,
    /// Where changes go.
    pub journal: Journal,
    /// Time.
    pub clock: SharedClock,
    /// Randomness, for ids.
    pub entropy: SharedEntropy,
    /// Handles.
    pub metrics: Arc<Metrics>,
}

/// Sessions and tokens of this gateway.
pub struct Tokens {
    pub(super) config: Config,
    pub(super) node: Name,
    pub(super) keys: Keys,
    pub(super) cache: Arc<Cache>,
    pub(super) journal: Journal,
    pub(super) clock: SharedClock,
    entropy: SharedEntropy,
    pub(super) metrics: Arc<Metrics>,
    pub(super) grace: Grace,
    pub(super) recovery: Recovery,
    /// Advances whose answer may not have left: the disk failed, or the caller hung up. Their
    /// retry is answered however late it comes, or a failing disk would end in a revocation.
    pub(super) unanswered: quick_cache::sync::Cache<Uuid, ()>,
    /// Replayed and revoked for it, while the journal took nothing.
    pub(super) unrecorded: quick_cache::sync::Cache<Uuid, ()>,
    verified: quick_cache::sync::Cache<Digest, Arc<Bearer>>,
}

/// What a session shall be.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// The end user.
    pub subject: Name,
    /// The client that it is for.
    pub client: Name,
    /// What its tokens may do; an empty list narrows nothing.
    pub scopes: Vec<Name>,
    /// How long it may live; `tokens.session_ttl` when nobody says.
    pub ttl: Option<Duration>,
}

/// What a successful answer holds.
#[derive(Debug)]
pub struct Issued {
    /// A signed JWT.
    pub access_token: SecretString,
    /// The only refresh token that is good from now on; none for an API key.
    pub refresh_token: Option<SecretString>,
    /// How long the access token lives.
    pub expires_in: Duration,
    /// What the access token may do.
    pub scopes: Vec<Name>,
    /// Who may use them.
    pub client: Name,
}

impl Tokens {
    /// The service; `data` is the data directory. Blocks.
    pub fn new(data: &Path, parts: Parts) -> Self {
        let Parts { config, node, keys, cache, journal, clock, entropy, metrics } = parts;
        let moment = Moment { wall: clock.now(), monotonic: clock.monotonic() };
        let grace = Grace::open(data, config.grace.0, moment);
        if !cache.is_stale() {
            grace.answering(moment.wall);
        }
        Self {
            grace,
            recovery: Recovery::open(data),
            unanswered: quick_cache::sync::Cache::new(UNANSWERED_MAX),
            unrecorded: quick_cache::sync::Cache::new(UNRECORDED_MAX),
            verified: quick_cache::sync::Cache::new(VERIFIED_MAX),
            config,
            node,
            keys,
            cache,
            journal,
            clock,
            entropy,
            metrics,
        }
    }

    /// Server secrets and signing keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// `[tokens]`
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The recovery window.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// A session as it begins. It exists once its fact is recorded.
    pub fn begin(&self, new: NewSession) -> Session {
        let now = self.clock.now();
        // Whoever is logged out everywhere and begins anew was here after: also when another
        // gateway's clock says otherwise. What cannot be read now ends no session that it does not
        // end anyway.
        let logged_out = |kind, name| self.cache.not_before(kind, name).ok();
        let subject = logged_out(RevocationKind::Subject, &new.subject);
        let client = logged_out(RevocationKind::Client, &new.client);
        let rules = self.config.session_rules();
        let created_at = subject.max(client).map_or(now, |at| now.max(rules.first_after(at)));
        let ttl = new.ttl.unwrap_or(self.config.session_ttl.0).min(self.config.session_ttl_max.0);
        Session {
            id: self.entropy.uuid_v7(now),
            node: self.node.clone(),
            subject: new.subject,
            client: new.client,
            scopes: new.scopes,
            created_at,
            expires_at: now.plus(ttl),
            advance: Advance { generation: 0, at: now },
            revoked_at: None,
            recovered_at: None,
        }
    }

    /// The pair of a session as it stands.
    pub fn issue(&self, session: &Session) -> Issued {
        self.pair(session, &session.scopes)
    }

    pub(super) fn pair(&self, session: &Session, scopes: &[Name]) -> Issued {
        let grant = Grant {
            subject: session.subject.clone(),
            client: session.client.clone(),
            scopes: scopes.to_vec(),
            of: Holder::Session(session.id),
        };
        let Advance { generation, at } = session.advance;
        let refresh_token = self.keys.mint(session.id, generation, at);
        let until = session.ends_at(self.config.session_idle);
        Issued { refresh_token: Some(refresh_token), ..self.access(&grant, Some(until)) }
    }

    /// No access token outlives what it is made of, which is over at `until`: who checks it apart
    /// from us knows no better.
    fn access(&self, grant: &Grant, until: Option<Timestamp>) -> Issued {
        self.metrics.tokens.issued.inc();
        let (now, longest) = (self.clock.now(), self.config.access_ttl.0);
        let ttl = until.map_or(longest, |until| longest.min(until.since(now)));
        Issued {
            access_token: self.keys.sign(grant, self.entropy.uuid_v7(now), now, ttl),
            refresh_token: None,
            expires_in: ttl,
            scopes: grant.scopes.clone(),
            client: grant.client.clone(),
        }
    }

    /// An access token for the key `id` of `client` (RFC 6749 §4.4). `scopes` are what
    /// [`super::narrowed`] leaves of the key's, `until` is when it will be over. (It cannot fail:
    /// the use of the key is admitted by then.)
    pub fn exchange(
        &self,
        id: Uuid,
        client: &Name,
        scopes: &[Name],
        until: Option<Timestamp>,
    ) -> Issued {
        let (of, scopes) = (Holder::Key(id), scopes.to_vec());
        let grant = Grant { subject: client.clone(), client: client.clone(), scopes, of };
        self.access(&grant, until)
    }

    pub(super) fn note(&self, action: &'static str, session: &Session) {
        let event_id = self.entropy.uuid_v7(self.clock.now());
        let (actor, subject) = ("gateway".into(), session.id.to_string().into());
        self.journal.note(AuditEntry { event_id, actor, action: action.into(), subject });
    }

    /// A session by id; `None` where it is provably over or never was.
    ///
    /// # Errors
    /// While Postgres is away, and when it may not have come there yet.
    pub async fn find(&self, id: Uuid) -> Result<Option<Arc<HeldSession>>, TokenError> {
        let held = self.cache.find_session(id).await?;
        if held.is_none() && self.cache.has_source() && self.may_be_on_its_way(id) {
            return Err(TokenError::Undecidable { retry_after: NOT_HERE_YET });
        }
        Ok(held)
    }

    /// The id is a uuid v7: it tells when it was made.
    fn may_be_on_its_way(&self, id: Uuid) -> bool {
        let (secs, nanos) = id.get_timestamp().map_or((0, 0), |at| at.to_unix());
        let made_at = Timestamp::EPOCH.plus(Duration::new(secs, nanos));
        self.clock.now() < made_at.plus(ON_ITS_WAY)
    }

    /// Whether a refresh token of this generation would be answered now.
    ///
    /// # Errors
    /// When another gateway knows how far the session has come, and when this one has lost it.
    pub fn is_active(&self, held: &HeldSession, generation: u64) -> Result<bool, TokenError> {
        let (session, now) = (held.session(), self.clock.now());
        if session.node != self.node {
            return Err(TokenError::Elsewhere(session.node.clone()));
        }
        if held.state(self.config.session_rules(), now) != SessionState::Active {
            return Ok(false);
        }
        match self.verdict(session, generation, now) {
            Verdict::Advance(_) | Verdict::Again => Ok(held.client_enabled()),
            Verdict::Reuse => Ok(false),
            Verdict::Beyond if self.recovery.until(now).is_none() => {
                Err(TokenError::Undecidable { retry_after: NOT_HERE_YET })
            }
            Verdict::Beyond => Ok(session.recovered_at.is_none() && held.client_enabled()),
        }
    }

    pub(super) fn moment(&self, wall: Timestamp) -> Moment {
        Moment { wall, monotonic: self.clock.monotonic() }
    }

    /// What is to be done about once a second: see `Grace::keep`, and what was revoked while the
    /// journal took nothing is recorded. Blocks.
    ///
    /// # Errors
    /// When the disk fails; it will be tried again, and nothing depends on it.
    pub fn tend(&self) -> io::Result<()> {
        self.record_revocations();
        let now = self.clock.now();
        match self.cache.is_stale() {
            true => self.grace.pause(),
            false => self.grace.answering(now),
        }
        self.grace.keep(self.moment(now))
    }

    /// The proof of a refresh token: which session and generation.
    pub fn proven(&self, text: &str) -> Option<(Uuid, u64)> {
        self.keys.prove(text).map(|proven| (proven.session, proven.generation))
    }

    /// Who an access token of ours names, unless it has expired. Whether it was revoked since is
    /// another question. A signature is checked once, as long as the token is remembered.
    pub fn verify(&self, text: &str) -> Option<Arc<Bearer>> {
        let digest = api_key::digest(text);
        let now = self.clock.now();
        if let Some(bearer) = self.verified.get(&digest) {
            let over = bearer.expires_at.plus(self.config.clock_skew.0);
            return (now < over).then_some(bearer);
        }
        self.metrics.tokens.verified.inc();
        let bearer = Arc::new(Bearer::new(self.keys.verify(text, now)?));
        self.verified.insert(digest, bearer.clone());
        Some(bearer)
    }
}

#[cfg(test)]
impl Tokens {
    /// Over `cache` and `journal`, with keys of its own: for the tests of other rooms.
    pub fn of_test(
        data: &Path,
        cache: &Arc<Cache>,
        journal: &Journal,
        clock: &SharedClock,
        entropy: &SharedEntropy,
        metrics: &Arc<Metrics>,
    ) -> Arc<Self> {
        let config = Config::default();
        let keys = Keys::open(data, &config, entropy, clock.now()).expect("a writable directory");
        let parts = Parts {
            config,
            node: "gw".into(),
            keys,
            cache: cache.clone(),
            journal: journal.clone(),
            clock: clock.clone(),
            entropy: entropy.clone(),
            metrics: metrics.clone(),
        };
        Arc::new(Self::new(data, parts))
    }
}
