//! Facts: statements with a merge law, so that order, grouping and repetition do not matter.
//!
//! | lane | fact | law |
//! |---|---|---|
//! | state | created (client, key) | insert if absent, by id |
//! | state | revoked (key) | min of the moments |
//! | state | not before (subject, client) | max of the moments |
//! | state | session | insert if absent; generation and its moment: max; revoked: min |
//! | quota | quota used (quota, client or key, period) | sum; the period's end: max |
//! | usage | count (client, key, table, operation, hour) | sum; `last_seen` max |
//! | events | audit entry; auth attempt, admission, request | set union by event id |
//!
//! A state fact never needs its parent row: any order of arrival ends in the same state.

mod event;
mod shown;

use std::cmp::Ordering;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, Hash, Hasher};

use bincode::{Decode, Encode};
use uuid::Uuid;

use super::{Client, Key, Name, Session, Timestamp};

pub use event::{
    AdmissionEvent, AuthAttempt, EVENT_TEXT_MAX, Event, Happened, RequestLine, event_text,
};

/// One of the journal's lanes; each has its own streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Created and revoked: tiny and precious, read before the first answer, drained first.
    State,
    /// What was used of quotas: small, and read before a request that is bound by one is answered.
    Quota,
    /// Counters: the bulk.
    Usage,
    /// Audit entries and what happened to requests: bounded, and the first to yield.
    Events,
}

impl Lane {
    /// Every lane in the order in which they are drained.
    pub const ALL: [Self; 4] = [Self::State, Self::Quota, Self::Usage, Self::Events];

    /// Whether its facts are sums: to take one twice would count it twice.
    pub fn is_sum(self) -> bool {
        matches!(self, Self::Quota | Self::Usage)
    }

    /// The directory's and the ledger's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Quota => "quota",
            Self::Usage => "usage",
            Self::Events => "events",
        }
    }
}

/// What a revocation revokes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub enum RevocationKind {
    /// An API key; `id` is its uuid as the CLI prints it.
    Key,
    /// Every session and token of a subject made until then: "log out everywhere".
    Subject,
    /// Every session and token of a client made until then. Its keys stay good.
    Client,
}

impl RevocationKind {
    /// The word stored in `revocations.kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Subject => "subject",
            Self::Client => "client",
        }
    }

    /// Reads the stored word; `None` for kinds of a later version.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Key, Self::Subject, Self::Client].into_iter().find(|kind| kind.as_str() == text)
    }

    /// Whether the moment says until when something was made that is revoked, instead of from when
    /// on it is.
    pub fn is_not_before(self) -> bool {
        self != Self::Key
    }

    /// Of two moments the one that denies more: a key's revocation from the earlier one on, what
    /// was made until the later one.
    pub fn merge(self, a: Timestamp, b: Timestamp) -> Timestamp {
        if self.is_not_before() { a.max(b) } else { a.min(b) }
    }
}

/// "This key is revoked from `at` on", or "what this subject or client was given until `at` is
/// revoked"; merges by [`RevocationKind::merge`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Revocation {
    /// What is revoked.
    pub kind: RevocationKind,
    /// Its id as text.
    pub id: Name,
    /// From when on; at once is [`Timestamp::NEG_INFINITY`]. For subjects and clients: until when.
    pub at: Timestamp,
}

/// A fact of the state lane.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum StateFact {
    /// A client exists. First one by name wins.
    ClientCreated(Client),
    /// A key exists. First one by id wins.
    KeyCreated(Key),
    /// Something is revoked.
    Revoked(Revocation),
    /// A session as far as it has come.
    Session(Session),
}

impl StateFact {
    /// Whether it only takes away. Such a fact may be in force before it is recorded: that gives
    /// nobody anything.
    pub fn denies(&self) -> bool {
        match self {
            Self::ClientCreated(_) | Self::KeyCreated(_) => false,
            Self::Revoked(_) => true,
            Self::Session(session) => session.revoked_at.is_some(),
        }
    }
}

/// What a counter counts: one counter per client, key, table, operation and hour.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Counter {
    /// Client name.
    pub client: Name,
    /// Key id.
    #[bincode(with_serde)]
    pub key_id: Uuid,
    /// Table, empty where no route names one.
    pub table: Name,
    /// Operation.
    pub operation: Name,
    /// Whole hours since the Unix epoch.
    pub hour: i64,
}

impl Counter {
    /// Counts of no hour in particular: they belong to lifetime totals only.
    pub const NO_HOUR: i64 = i64::MIN;
}

/// Hashed with every request. The key tells its client, and the hour is nearly always the same:
/// both are left to the comparison.
impl Hash for Counter {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(self.key_id.as_u128());
        self.table.hash(state);
        self.operation.hash(state);
    }
}

/// The counts of one counter. `requests` at admission; `succeeded` and `failed` at completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Counts {
    /// Identified requests, allowed or denied.
    pub requests: u64,
    /// Completed with an answer below 500.
    pub succeeded: u64,
    /// Completed with 500 and above, or a gateway failure.
    pub failed: u64,
    /// Refused at admission.
    pub denied: u64,
    /// Request body bytes.
    pub bytes_in: u64,
    /// Response body bytes.
    pub bytes_out: u64,
    /// Time spent, in microseconds.
    pub duration_us: u64,
    /// The newest request; merges by max.
    pub last_seen: Timestamp,
}

impl Counts {
    /// Nothing counted, never seen: the neutral element of [`Counts::merge`].
    pub const ZERO: Self = Self {
        requests: 0,
        succeeded: 0,
        failed: 0,
        denied: 0,
        bytes_in: 0,
        bytes_out: 0,
        duration_us: 0,
        last_seen: Timestamp::NEG_INFINITY,
    };

    /// Adds `other` by the law: sums, and the newest `last_seen`.
    pub fn merge(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.succeeded = self.succeeded.saturating_add(other.succeeded);
        self.failed = self.failed.saturating_add(other.failed);
        self.denied = self.denied.saturating_add(other.denied);
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
        self.duration_us = self.duration_us.saturating_add(other.duration_us);
        self.last_seen = self.last_seen.max(other.last_seen);
    }
}

/// A fact of the usage lane.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct UsageFact {
    /// Which counter.
    pub counter: Counter,
    /// What to add to it.
    pub counts: Counts,
}

/// What a quota's use is counted by: one count per quota, key or client, and period.
#[derive(Clone, Debug, Encode, Decode)]
pub struct QuotaKey {
    /// `policy/quota`.
    pub quota: Name,
    /// The client's name, or the id of the key or session.
    pub scope: Name,
    /// When the period began.
    pub period: Timestamp,
    /// When it ends. Not part of what is counted: a quota's unit may change when both begin at the
    /// same moment. Merges by max.
    pub until: Timestamp,
}

impl QuotaKey {
    fn identity(&self) -> (&Name, &Name, Timestamp) {
        (&self.quota, &self.scope, self.period)
    }

    /// Adds `more` to what was used, by the law: sums, and the latest end. Whether it is new.
    pub fn add<S: BuildHasher>(self, more: u64, used: &mut HashMap<Self, u64, S>) -> bool {
        let until = self.until;
        match used.entry(self) {
            Entry::Vacant(new) => {
                new.insert(more);
                true
            }
            Entry::Occupied(mut known) => {
                *known.get_mut() = known.get().saturating_add(more);
                if known.key().until < until {
                    let (key, sum) = known.remove_entry();
                    used.insert(Self { until, ..key }, sum);
                }
                false
            }
        }
    }
}

impl PartialEq for QuotaKey {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for QuotaKey {}

impl Ord for QuotaKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.identity().cmp(&other.identity())
    }
}

impl PartialOrd for QuotaKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for QuotaKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

/// A fact of the quota lane: requests that were admitted.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct QuotaFact {
    /// Of which quota, and when.
    pub key: QuotaKey,
    /// How much.
    pub used: u64,
}

/// A fact of the events lane: who changed what.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AuditEntry {
    /// A uuid v7: merges by set union, and tells its moment.
    #[bincode(with_serde)]
    pub event_id: Uuid,
    /// `cli`, `admin`, or later a named operator.
    pub actor: Name,
    /// `client.create`, `key.create`, `key.revoke`, …
    pub action: Name,
    /// The id or name of what was changed.
    pub subject: Name,
}

/// Any fact.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Fact {
    /// State lane.
    State(StateFact),
    /// Usage lane.
    Usage(UsageFact),
    /// Events lane.
    Audit(AuditEntry),
    /// Quota lane.
    Quota(QuotaFact),
    /// Events lane.
    Event(Event),
}

impl Fact {
    /// The lane that carries it.
    pub fn lane(&self) -> Lane {
        match self {
            Self::State(_) => Lane::State,
            Self::Usage(_) => Lane::Usage,
            Self::Audit(_) | Self::Event(_) => Lane::Events,
            Self::Quota(_) => Lane::Quota,
        }
    }
}
