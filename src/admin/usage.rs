//! `/admin/v1/usage`: what has settled, what has not yet, and the sum.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, Time};
use uuid::Uuid;

use super::extract::{Params, name};
use super::{Control, DirectoryError, LIST_MAX, Problem, SettledUsage, clients};
use crate::admission::QuotaStanding;
use crate::model::fact::Counts;
use crate::model::policy::Per;
use crate::model::{DEFAULT_POLICY, Name, Timestamp};

/// How long an answer waits for what was used of quotas.
const BOOK_WAIT: Duration = Duration::from_secs(2);

/// Which requests are counted together; all by the calendar in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Period {
    Day,
    #[default]
    Month,
    Year,
    All,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    client: Option<String>,
    #[serde(default)]
    period: Period,
    /// Only keys beyond this one.
    after: Option<Uuid>,
}

/// Counts as they are shown.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Shown {
    requests: u64,
    succeeded: u64,
    failed: u64,
    denied: u64,
    bytes_in: u64,
    bytes_out: u64,
    duration_us: u64,
    last_seen: Option<Timestamp>,
}

impl From<Counts> for Shown {
    fn from(counts: Counts) -> Self {
        Self {
            requests: counts.requests,
            succeeded: counts.succeeded,
            failed: counts.failed,
            denied: counts.denied,
            bytes_in: counts.bytes_in,
            bytes_out: counts.bytes_out,
            duration_us: counts.duration_us,
            last_seen: Some(counts.last_seen).filter(|at| *at > Timestamp::NEG_INFINITY),
        }
    }
}

/// One client's counts. Of all time, bytes and time spent that have settled are those of the hours
/// that Postgres has. While Postgres cannot be asked, `settled` and `sum` are null, and
/// `unsettled` is what is on disk and not known to be settled.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Row {
    client: Name,
    period: Period,
    from: Option<Timestamp>,
    settled: Option<Shown>,
    unsettled: Shown,
    sum: Option<Shown>,
    /// Its client's quotas; and where one client is asked for, those of its keys. Each by its own
    /// period.
    quotas: Vec<QuotaStanding>,
    /// The last of the keys whose quotas are here, where the client has more.
    #[serde(skip_serializing_if = "Option::is_none")]
    more_keys_after: Option<Uuid>,
}

pub(super) async fn show(
    State(control): State<Arc<Control>>,
    Params(asked): Params<Asked>,
) -> Result<Json<Vec<Row>>, Problem> {
    let client = asked.client.map(|text| name(&text, "client")).transpose()?;
    if asked.after.is_some() && client.is_none() {
        return Err(Problem::bad_request("`after` is a key of a `client`: name that too"));
    }
    // What was counted a moment ago shall be in it; a failing disk shows what it has.
    if control.journal.flush().durable().await.is_err() {
        tracing::warn!("usage is shown without what waits in memory: the journal cannot commit");
    }
    let from_hour = start(asked.period, control.clock.now()).map(Timestamp::hour);
    // The ledger first: what settles while the journal is read counts as unsettled, not twice.
    let settled = settled(&control, from_hour, client.clone()).await?;
    let ledger = settled.as_ref().map(|settled| settled.ledger.clone());

    let tasks = control.tasks.clone();
    let (journal, asked_client) = (control.journal.clone(), client.clone());
    let read = move || {
        let mut sums = BTreeMap::<Name, Counts>::new();
        let read = journal.unsettled_usage(ledger.as_ref(), &mut |fact| {
            let counter = fact.counter;
            let asked_for = from_hour.is_none_or(|hour| counter.hour >= hour)
                && asked_client.as_ref().is_none_or(|asked| *asked == counter.client);
            if asked_for {
                sums.entry(counter.client).or_insert(Counts::ZERO).merge(&fact.counts);
            }
        });
        read.map(|()| sums)
    };
    let unsettled = tasks.spawn_blocking(read).await;
    let unreadable = || Problem::internal("the journal cannot be read; see `gatepost log status`");
    let unsettled = unsettled.map_err(|_| unreadable())?.map_err(|_| unreadable())?;
    let settled = settled.map(|settled| settled.rows);
    let known = settled.is_some();
    let mut rows = rows(asked.period, from_hour.map(Timestamp::from_hour), settled, unsettled);
    let nothing_counted = client.is_some() && rows.is_empty();
    // Nothing counted is an answer for a client that exists; a deleted one may have counts yet.
    if let Some(client) = client.as_ref().filter(|_| nothing_counted) {
        clients::find(&control, client)?;
        let nothing = BTreeMap::from([(client.clone(), Counts::ZERO)]);
        let from = from_hour.map(Timestamp::from_hour);
        rows.extend(self::rows(asked.period, from, known.then(Vec::new), nothing));
    }
    // What earlier processes used is being read for a moment after the start.
    drop(tokio::time::timeout(BOOK_WAIT, control.admission.quotas().based()).await);
    let of_keys = client.is_some().then_some(asked.after);
    // All keys are walked: on the disk, and not on a thread that answers others.
    let rows = tasks.spawn_blocking(move || {
        for row in &mut rows {
            (row.quotas, row.more_keys_after) = quotas(&control, &row.client, of_keys);
        }
        rows.retain(|row| {
            !nothing_counted || !row.quotas.is_empty() || row.more_keys_after.is_some()
        });
        rows
    });
    Ok(Json(rows.await.map_err(|_| Problem::internal("the cache cannot be read"))?))
}

/// The quotas of a client, and those of its keys beyond one, if they are asked for: of as many as
/// one list shows, and the last of these where there are more.
fn quotas(
    control: &Control,
    client: &Name,
    of_keys: Option<Option<Uuid>>,
) -> (Vec<QuotaStanding>, Option<Uuid>) {
    let (now, monotonic) = (control.clock.now(), control.clock.monotonic());
    let own = control.cache.client(client).and_then(|client| client.policy);
    let of_client = own.unwrap_or_else(|| DEFAULT_POLICY.into());
    let rules = |policy: &Name| control.cache.rules(policy).ok().flatten();
    let mut policies = BTreeMap::from([(of_client.clone(), rules(&of_client))]);
    let of_client_beyond = |after| control.cache.keys(Some(client), after, LIST_MAX + 1);
    let mut keys = of_keys.map(of_client_beyond).unwrap_or_default();
    let more = keys.len() > LIST_MAX;
    keys.truncate(LIST_MAX);
    let last = keys.last().map(|view| view.key.id).filter(|_| more);
    let mut found = Vec::new();
    for view in &keys {
        let policy = view.key.policy.as_ref().unwrap_or(&of_client);
        let known = policies.entry(policy.clone()).or_insert_with(|| rules(policy));
        let id = Name::from(view.key.id.to_string());
        let of_key = known
            .iter()
            .flat_map(|rules| control.admission.standing(rules, Per::Key, &id, now, monotonic));
        found.extend(of_key);
    }
    let of_client = policies.values().flatten();
    let of_client = of_client
        .flat_map(|rules| control.admission.standing(rules, Per::Client, client, now, monotonic));
    (of_client.chain(found).collect(), last)
}

/// What Postgres says; `None` when it cannot be asked. Embedded, nothing has settled.
async fn settled(
    control: &Control,
    from_hour: Option<i64>,
    client: Option<Name>,
) -> Result<Option<SettledUsage>, Problem> {
    let Some(directory) = &control.directory else { return Ok(Some(SettledUsage::default())) };
    match directory.settled_usage(from_hour, client).await {
        Ok(settled) => Ok(Some(settled)),
        Err(DirectoryError::Unavailable(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Where the period begins; `None`: with the first request ever.
fn start(period: Period, now: Timestamp) -> Option<Timestamp> {
    let today = now.to_datetime()?.date();
    let first = match period {
        Period::Day => today,
        Period::Month => today.replace_day(1).ok()?,
        Period::Year => today.replace_ordinal(1).ok()?,
        Period::All => return None,
    };
    Some(Timestamp::from(OffsetDateTime::new_utc(first, Time::MIDNIGHT)))
}

fn rows(
    period: Period,
    from: Option<Timestamp>,
    settled: Option<Vec<(String, Counts)>>,
    unsettled: BTreeMap<Name, Counts>,
) -> Vec<Row> {
    let known = settled.is_some();
    let mut both = BTreeMap::<Name, (Counts, Counts)>::new();
    for (client, counts) in settled.unwrap_or_default() {
        both.entry(client.into()).or_insert((Counts::ZERO, Counts::ZERO)).0.merge(&counts);
    }
    for (client, counts) in unsettled {
        both.entry(client).or_insert((Counts::ZERO, Counts::ZERO)).1.merge(&counts);
    }
    let row = |(client, (settled, unsettled)): (Name, (Counts, Counts))| {
        let mut sum = settled;
        sum.merge(&unsettled);
        Row {
            client,
            period,
            from,
            settled: known.then(|| settled.into()),
            unsettled: unsettled.into(),
            sum: known.then(|| sum.into()),
            quotas: Vec::new(),
            more_keys_after: None,
        }
    };
    both.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(requests: u64) -> Counts {
        Counts {
            requests,
            last_seen: Timestamp(i64::try_from(requests).expect("small")),
            ..Counts::ZERO
        }
    }

    #[test]
    fn periods_begin_with_the_calendar() {
        // 2026-11-22T10:00:00Z
        let now = Timestamp(1_795_341_600_000_000);
        let text = |period| start(period, now).map(|at| at.to_string());
        assert_eq!(text(Period::Day).as_deref(), Some("2026-11-22T00:00:00Z"));
        assert_eq!(text(Period::Month).as_deref(), Some("2026-11-01T00:00:00Z"));
        assert_eq!(text(Period::Year).as_deref(), Some("2026-01-01T00:00:00Z"));
        assert_eq!(text(Period::All), None);
    }

    #[test]
    fn settled_and_unsettled_add_up() {
        let settled = vec![("a".to_owned(), counts(5)), ("b".to_owned(), counts(1))];
        let unsettled = BTreeMap::from([("a".into(), counts(2)), ("c".into(), counts(9))]);
        let rows = rows(Period::All, None, Some(settled), unsettled);
        let sums = rows.iter().map(|row| {
            let sum = row.sum.as_ref().expect("known");
            (&*row.client, sum.requests, sum.last_seen)
        });
        let at = |micros| Some(Timestamp(micros));
        assert_eq!(sums.collect::<Vec<_>>(), [("a", 7, at(5)), ("b", 1, at(1)), ("c", 9, at(9))]);
        assert_eq!(rows[1].unsettled, Counts::ZERO.into());
        assert_eq!(rows[1].unsettled.last_seen, None);
    }

    #[test]
    fn while_postgres_cannot_be_asked_no_sum_is_claimed() {
        let rows = rows(Period::All, None, None, BTreeMap::from([("a".into(), counts(2))]));
        assert_eq!((&rows[0].settled, &rows[0].sum), (&None, &None));
        assert_eq!(rows[0].unsettled.requests, 2);
    }
}
