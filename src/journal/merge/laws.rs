//! What few facts there are in the other lanes, merged in memory: state by its laws, events by id.
//! Only where nothing was ever sent to Postgres.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::run::Reading;
use super::{MergeError, Pace};
use crate::journal::Segment;
use crate::model::fact::{Fact, QuotaFact, QuotaKey, Revocation, RevocationKind, StateFact};
use crate::model::{Name, Session, Timestamp};

/// Events that are kept; the oldest beyond drop out.
pub(super) const EVENTS_MAX: usize = if cfg!(test) { 20 } else { 100_000 };

/// How long a session that has expired is kept where nothing was ever sent.
pub const SESSIONS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long what was used of a quota is kept after its period where nothing was ever sent: clocks
/// may go back.
pub const QUOTAS_KEPT: Duration = Duration::from_secs(40 * 24 * 3600);

/// What was used, summed; periods that ended before `over` drop out. There are as many as quotas
/// are in use: few enough for memory.
pub(super) fn quotas(
    segments: &[Arc<Segment>],
    over: Option<Timestamp>,
    pace: &mut Pace<'_>,
) -> Result<Vec<Fact>, MergeError> {
    let mut used = HashMap::<QuotaKey, u64>::new();
    each(segments, pace, |fact| {
        if let Fact::Quota(fact) = fact
            && over.is_none_or(|over| fact.key.until >= over)
        {
            fact.key.add(fact.used, &mut used);
        }
    })?;
    let used: BTreeMap<_, _> = used.into_iter().collect();
    Ok(used.into_iter().map(|(key, used)| Fact::Quota(QuotaFact { key, used })).collect())
}

/// The first creation by name or id, the revocation that denies most, and sessions as far as they
/// have come; those that expired before `over` drop out. `segments` come in the order in which they
/// were written.
pub(super) fn state(
    segments: &[Arc<Segment>],
    over: Option<Timestamp>,
    pace: &mut Pace<'_>,
) -> Result<Vec<Fact>, MergeError> {
    let (mut created, mut clients, mut keys) = (Vec::new(), HashSet::new(), HashSet::new());
    let mut revoked = HashMap::<(RevocationKind, Name), Revocation>::new();
    let mut sessions = BTreeMap::<Uuid, Session>::new();
    each(segments, pace, |fact| match fact {
        Fact::State(StateFact::Revoked(fact)) => {
            let known = revoked.entry((fact.kind, fact.id.clone())).or_insert(fact.clone());
            known.at = fact.kind.merge(known.at, fact.at);
        }
        Fact::State(StateFact::Session(session))
            if over.is_some_and(|o| session.expires_at < o) => {}
        Fact::State(StateFact::Session(session)) => match sessions.entry(session.id) {
            Entry::Occupied(mut known) => known.get_mut().merge(&session),
            Entry::Vacant(new) => drop(new.insert(session)),
        },
        Fact::State(StateFact::ClientCreated(client)) => {
            if clients.insert(client.name.clone()) {
                created.push(StateFact::ClientCreated(client));
            }
        }
        Fact::State(StateFact::KeyCreated(key)) => {
            if keys.insert(key.id) {
                created.push(StateFact::KeyCreated(key));
            }
        }
        Fact::Usage(_) | Fact::Audit(_) | Fact::Quota(_) | Fact::Event(_) => {}
    })?;
    let mut revoked: Vec<_> = revoked.into_values().collect();
    revoked.sort();
    Ok(created
        .into_iter()
        .chain(revoked.into_iter().map(StateFact::Revoked))
        .chain(sessions.into_values().map(StateFact::Session))
        .map(Fact::State)
        .collect())
}

/// The newest [`EVENTS_MAX`] entries, and how many dropped out.
pub(super) fn events(
    segments: &[Arc<Segment>],
    pace: &mut Pace<'_>,
) -> Result<(Vec<Fact>, u64), MergeError> {
    let (mut kept, mut dropped) = (BTreeMap::<Uuid, Fact>::new(), 0);
    each(segments, pace, |fact| {
        let id = match &fact {
            Fact::Audit(entry) => entry.event_id,
            Fact::Event(event) => event.event_id,
            _ => return,
        };
        kept.insert(id, fact);
        if kept.len() > EVENTS_MAX {
            // The id is a uuid v7: the first is the oldest.
            kept.pop_first();
            dropped += 1;
        }
    })?;
    Ok((kept.into_values().collect(), dropped))
}

fn each(
    segments: &[Arc<Segment>],
    pace: &mut Pace<'_>,
    mut take: impl FnMut(Fact),
) -> Result<(), MergeError> {
    for segment in segments {
        let mut reading = Reading::new(segment.clone());
        while let Some(facts) = reading.page(pace)? {
            facts.into_iter().for_each(&mut take);
        }
    }
    Ok(())
}
