//! Sessions at work: made, refreshed, revoked, and asked about.
//!
//! A refresh decides and records under the session's turn, which is held for a moment, and waits
//! for the commit without it. So fifty parallel refreshes of one token cost one advance and one
//! commit, and sessions never wait for each other's disk.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use uuid::Uuid;

use super::access::{Access, Grant, Holder};
use super::generation::{Grace, Pause, Verdict, judge};
use super::keys::Keys;
use super::recovery::Recovery;
use super::{Config, TokenError};
use crate::cache::{Cache, HeldSession};
use crate::clock::SharedClock;
use crate::entropy::SharedEntropy;
use crate::journal::{Journal, Ticket};
use crate::metrics::Metrics;
use crate::model::fact::{AuditEntry, StateFact};
use crate::model::{Advance, Digest, Name, Principal, Session, SessionState, Timestamp, api_key};

/// Sessions that advanced and may not have been answered yet: remembered at most.
const UNANSWERED_MAX: usize = 10_000;

/// Access tokens whose signature is not checked again: remembered at most.
const VERIFIED_MAX: usize = 10_000;

/// When it is worth asking again for a session that is not here yet.
const NOT_HERE_YET: Duration = Duration::from_secs(1);

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
    /// The newest advance that an earlier process left in the journal.
    pub left_at: Option<Timestamp>,
}

/// Sessions and tokens of this gateway.
pub struct Tokens {
    config: Config,
    node: Name,
    keys: Keys,
    cache: Arc<Cache>,
    journal: Journal,
    clock: SharedClock,
    entropy: SharedEntropy,
    metrics: Arc<Metrics>,
    grace: Grace,
    recovery: Recovery,
    /// Advances whose answer may not have left: the disk failed, or the caller hung up. Their
    /// retry is answered however late it comes, or a failing disk would end in a revocation.
    unanswered: quick_cache::sync::Cache<Uuid, ()>,
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
}

/// What a session's refresh token is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// The client that says it is the one that the session was made for.
    pub client: Option<&'a str>,
    /// The scopes that the access token shall be narrowed to (RFC 6749 §6).
    pub scopes: Option<&'a [Name]>,
}

impl Tokens {
    /// The service; `data` is the data directory. Blocks.
    pub fn new(data: &Path, parts: Parts) -> Self {
        let Parts { config, node, keys, cache, journal, clock, entropy, metrics, left_at } = parts;
        let pause = left_at.map(|since| Pause { since, until: clock.now() });
        Self {
            grace: Grace { span: config.grace.0, pause },
            recovery: Recovery::open(data),
            unanswered: quick_cache::sync::Cache::new(UNANSWERED_MAX),
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
        let ttl = new.ttl.unwrap_or(self.config.session_ttl.0).min(self.config.session_ttl_max.0);
        Session {
            id: self.entropy.uuid_v7(now),
            node: self.node.clone(),
            subject: new.subject,
            client: new.client,
            scopes: new.scopes,
            created_at: now,
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

    fn pair(&self, session: &Session, scopes: &[Name]) -> Issued {
        let grant = Grant {
            subject: session.subject.clone(),
            client: session.client.clone(),
            scopes: scopes.to_vec(),
            of: Holder::Session(session.id),
        };
        let Advance { generation, at } = session.advance;
        let refresh_token = self.keys.mint(session.id, generation, at);
        Issued { refresh_token: Some(refresh_token), ..self.access(&grant) }
    }

    fn access(&self, grant: &Grant) -> Issued {
        self.metrics.tokens.issued.inc();
        let now = self.clock.now();
        Issued {
            access_token: self.keys.sign(grant, self.entropy.uuid_v7(now), now),
            refresh_token: None,
            expires_in: self.config.access_ttl.0,
            scopes: grant.scopes.clone(),
        }
    }

    /// An access token for the key `id` of `client` (RFC 6749 §4.4). `granted` are the key's
    /// scopes.
    ///
    /// # Errors
    /// When a scope is asked for that the key does not have.
    pub fn exchange(
        &self,
        id: Uuid,
        client: &Name,
        granted: &[Name],
        asked: Option<&[Name]>,
    ) -> Result<Issued, TokenError> {
        let scopes = narrowed(granted, asked)?.to_vec();
        let of = Holder::Key(id);
        Ok(self.access(&Grant { subject: client.clone(), client: client.clone(), scopes, of }))
    }

    /// Answers a refresh token: the design's table, and the advance durable before the answer.
    ///
    /// # Errors
    /// See [`TokenError`]. Only [`TokenError::Invalid`] says anything about the token.
    pub async fn refresh(&self, text: &str, asked: Asked<'_>) -> Result<Issued, TokenError> {
        let answer = self.try_refresh(text, asked).await;
        match &answer {
            Ok(_) | Err(TokenError::Scope | TokenError::ClientDisabled) => {}
            Err(TokenError::Invalid) => drop(self.metrics.tokens.refused.inc()),
            Err(_) => drop(self.metrics.tokens.undecided.inc()),
        }
        answer
    }

    async fn try_refresh(&self, text: &str, asked: Asked<'_>) -> Result<Issued, TokenError> {
        let proven = self.keys.prove(text).ok_or(TokenError::Invalid)?;
        let held = self.find(proven.session).await?.ok_or(TokenError::Invalid)?;
        let session = held.session();
        if session.node != self.node {
            return Err(TokenError::Elsewhere(session.node.clone()));
        }
        if asked.client.is_some_and(|client| *client != *session.client) {
            return Err(TokenError::Invalid);
        }
        if self.cache.is_stale() {
            return Err(TokenError::Stale);
        }
        let scopes = narrowed(&session.scopes, asked.scopes)?;
        let Step { session, ticket } = self.step(session.id, proven.generation)?;
        let recorded = ticket.durable().await;
        let session = session.ok_or(TokenError::Invalid)?;
        recorded?;
        self.unanswered.remove(&session.id);
        Ok(self.pair(&session, scopes))
    }

    /// Decides and records. No I/O but a read of the session, if it has just left memory.
    fn step(&self, id: Uuid, presented: u64) -> Result<Step<'_>, TokenError> {
        let (now, tokens) = (self.clock.now(), &self.metrics.tokens);
        let mut turn = self.cache.session_turn(id);
        let held = turn.get()?.ok_or(TokenError::Undecidable { retry_after: NOT_HERE_YET })?;
        if held.state(self.config.session_idle, now) != SessionState::Active {
            return Err(TokenError::Invalid);
        }
        if !held.client_enabled() {
            return Err(TokenError::ClientDisabled);
        }
        let mut session = held.session().clone();
        let unanswered = self.unanswered.peek(&id).is_some();
        let in_grace = self.grace.holds(session.advance.at, now);
        match judge(presented, session.advance, in_grace || unanswered, now) {
            Verdict::Advance(next) => {
                session.advance = next;
                tokens.refreshed.inc();
            }
            Verdict::Again if in_grace => {
                tokens.repeated.inc();
                return Ok(Step { session: Some(session), ticket: self.journal.state_recorded() });
            }
            // Its first answer may never have left: grace begins again, and is recorded.
            Verdict::Again => {
                session.advance.at = now;
                tokens.repeated.inc();
            }
            Verdict::Beyond => {
                tokens.beyond.inc();
                if self.recovery.until(now).is_none() {
                    return Err(TokenError::Undecidable { retry_after: NOT_HERE_YET });
                }
                if session.recovered_at.is_none() {
                    let generation = presented.saturating_add(1);
                    session.advance = Advance { generation, at: now };
                    session.recovered_at = Some(now);
                    tokens.recovered.inc();
                    self.note("session.recover", &session);
                } else {
                    self.revoke_for(&mut session, "session.revoke.beyond", now);
                }
            }
            Verdict::Reuse => {
                tokens.reused.inc();
                self.revoke_for(&mut session, "session.revoke.reuse", now);
            }
        }
        let fact = StateFact::Session(session.clone());
        let ticket = match self.journal.append(vec![fact]) {
            Ok(ticket) => ticket,
            // It cannot be recorded now; it holds here all the same.
            Err(_) if session.revoked_at.is_some() => self.journal.state_recorded(),
            Err(full) => return Err(full.into()),
        };
        turn.pin(&session);
        self.unanswered.insert(id, ());
        let revoked = session.revoked_at.is_some();
        Ok(Step { session: Some(session).filter(|_| !revoked), ticket })
    }

    fn revoke_for(&self, session: &mut Session, why: &'static str, now: Timestamp) {
        session.revoked_at = Some(now);
        tracing::warn!(session = %session.id, client = %session.client, why, "a session is revoked");
        self.note(why, session);
    }

    fn note(&self, action: &'static str, session: &Session) {
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

    /// The fact that revokes a session.
    pub fn revoked(&self, session: &Session) -> Session {
        let at = session.revoked_at.unwrap_or(self.clock.now());
        Session { revoked_at: Some(at), ..session.clone() }
    }

    /// Revokes a session for who holds one of its tokens; recorded when this returns.
    ///
    /// # Errors
    /// When it belongs to another gateway, or cannot be recorded.
    pub async fn revoke(&self, session: &Session) -> Result<(), TokenError> {
        if session.node != self.node {
            return Err(TokenError::Elsewhere(session.node.clone()));
        }
        if session.revoked_at.is_some() {
            return Ok(self.journal.state_recorded().durable().await?);
        }
        let revoked = self.revoked(session);
        let ticket = self.journal.append(vec![StateFact::Session(revoked.clone())])?;
        self.cache.session_turn(session.id).pin(&revoked);
        self.note("session.revoke.token", session);
        Ok(ticket.durable().await?)
    }

    /// Whether a refresh token of this generation would be answered now.
    pub fn is_active(&self, held: &HeldSession, generation: u64) -> bool {
        let now = self.clock.now();
        let current = held.session().advance;
        let in_grace = self.grace.holds(current.at, now);
        let answered = matches!(
            judge(generation, current, in_grace, now),
            Verdict::Advance(_) | Verdict::Again
        );
        answered && held.state(self.config.session_idle, now) == SessionState::Active
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
            return (now < bearer.expires_at).then_some(bearer);
        }
        self.metrics.tokens.verified.inc();
        let bearer = Arc::new(Bearer::new(self.keys.verify(text, now)?));
        self.verified.insert(digest, bearer.clone());
        Some(bearer)
    }
}

/// Who bears an access token.
#[derive(Debug)]
pub struct Bearer {
    /// The client, the end user if a session named one, and what the token may do.
    pub principal: Principal,
    /// What it was made of.
    pub of: Holder,
    /// `sub`: the end user, or the client where there is none.
    pub subject: Name,
    /// Its own id.
    pub id: Uuid,
    /// Seconds since the Unix epoch.
    pub issued_at: i64,
    /// From this moment on it is over.
    pub expires_at: Timestamp,
}

impl Bearer {
    fn new(access: Access) -> Self {
        let (key_id, subject) = match access.of {
            Holder::Session(_) => (Uuid::nil(), access.subject.clone()),
            Holder::Key(id) => (id, "".into()),
        };
        Self {
            principal: Principal { client: access.client, key_id, subject, scopes: access.scopes },
            of: access.of,
            subject: access.subject,
            id: access.id,
            issued_at: access.issued_at,
            expires_at: Timestamp(access.expires_at.saturating_mul(1_000_000)),
        }
    }

    /// Whether it was made before everybody was logged out. A token tells whole seconds only: one
    /// of the same second counts as made before.
    pub fn is_before(&self, not_before: Timestamp) -> bool {
        self.issued_at <= not_before.0.div_euclid(1_000_000)
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
            left_at: None,
        };
        Arc::new(Self::new(data, parts))
    }
}

/// What was recorded, and when it is on disk. No session: it is revoked.
struct Step<'a> {
    session: Option<Session>,
    ticket: Ticket<'a>,
}

/// The scopes that are asked for, if each was granted; all that were granted if none is asked for:
/// an empty list would narrow nothing.
fn narrowed<'a>(granted: &'a [Name], asked: Option<&'a [Name]>) -> Result<&'a [Name], TokenError> {
    let Some(asked) = asked.filter(|asked| !asked.is_empty()) else { return Ok(granted) };
    if granted.is_empty() || asked.iter().all(|scope| granted.contains(scope)) {
        Ok(asked)
    } else {
        Err(TokenError::Scope)
    }
}
