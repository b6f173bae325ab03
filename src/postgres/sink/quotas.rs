//! Quotas: what was used is added up, and read back with the ledger positions that it stands for.

use std::collections::HashMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::{QuotaKey, rows_in};
use crate::model::fact::QuotaFact;
use crate::model::{Name, Timestamp};
use crate::postgres::rows::{bigint, count};

/// Rows in one page.
const PAGE: i64 = 10_000;

/// Which quotas are asked about.
#[derive(Clone, Copy, Debug)]
pub enum QuotaKeys<'a> {
    /// These.
    Of(&'a [QuotaKey]),
    /// All whose period ends after a moment, a page beyond a place.
    Current(Timestamp, Option<&'a QuotaKey>),
}

/// What Postgres has confirmed, in one snapshot.
#[derive(Clone, Debug, Default)]
pub struct QuotaBases {
    /// What this gateway and all others have used of each; what was never used is absent.
    pub used: Vec<(QuotaKey, u64, u64)>,
    /// How far streams are applied in it.
    pub positions: HashMap<Uuid, u64>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<QuotaKey>,
}

/// Adds what was used.
pub(super) async fn write(
    conn: &mut PgConnection,
    node: &str,
    facts: &[QuotaFact],
) -> Result<u64, sqlx::Error> {
    if facts.is_empty() {
        return Ok(0);
    }
    let quotas: Vec<&str> = facts.iter().map(|fact| &*fact.key.quota).collect();
    let scopes: Vec<&str> = facts.iter().map(|fact| &*fact.key.scope).collect();
    let starts: Vec<i64> = facts.iter().map(|fact| fact.key.period.0).collect();
    let ends: Vec<i64> = facts.iter().map(|fact| fact.key.until.0).collect();
    let used: Vec<i64> = facts.iter().map(|fact| bigint(fact.used)).collect();
    sqlx::query!(
        r#"
        INSERT INTO gatepost.quota_totals AS t
          (quota, scope, period_start, period_end, node_id, used)
        SELECT u.quota, u.scope, gatepost.from_micros(u.starts), gatepost.from_micros(u.ends), $1,
               u.used
        FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[])
          AS u (quota, scope, starts, ends, used)
        ORDER BY u.quota COLLATE "C", u.scope COLLATE "C", u.starts
        ON CONFLICT (quota, scope, period_start, node_id) DO UPDATE SET
          used = t.used + excluded.used, period_end = greatest(t.period_end, excluded.period_end)
        "#,
        node,
        &quotas as _,
        &scopes as _,
        &starts,
        &ends,
        &used
    )
    .execute(conn)
    .await?;
    Ok(rows_in(facts.len()))
}

/// Reads what was used, and the ledger, in one snapshot.
pub(super) async fn bases(
    conn: &mut PgConnection,
    node: &str,
    keys: QuotaKeys<'_>,
    streams: &[Uuid],
) -> Result<QuotaBases, sqlx::Error> {
    sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").execute(&mut *conn).await?;
    let (used, next) = match keys {
        QuotaKeys::Of(keys) => (of(&mut *conn, node, keys).await?, None),
        QuotaKeys::Current(now, after) => current(&mut *conn, node, now, after).await?,
    };
    let ledger = super::ledger::read(&mut *conn, streams).await?;
    sqlx::raw_sql("COMMIT").execute(conn).await?;
    let positions = ledger.into_iter().map(|(stream, row)| (stream, row.last_seq)).collect();
    Ok(QuotaBases { used, positions, next })
}

/// What time it is there.
pub(super) async fn now(conn: &mut PgConnection) -> Result<Timestamp, sqlx::Error> {
    let now = sqlx::query_scalar!(r#"SELECT gatepost.to_micros(now()) AS "now!""#);
    now.fetch_one(conn).await.map(Timestamp)
}

async fn of(
    conn: &mut PgConnection,
    node: &str,
    keys: &[QuotaKey],
) -> Result<Vec<(QuotaKey, u64, u64)>, sqlx::Error> {
    let quotas: Vec<&str> = keys.iter().map(|key| &*key.quota).collect();
    let scopes: Vec<&str> = keys.iter().map(|key| &*key.scope).collect();
    let starts: Vec<i64> = keys.iter().map(|key| key.period.0).collect();
    let rows = sqlx::query!(
        r#"
        SELECT u.place AS "place!",
               coalesce(sum(t.used) FILTER (WHERE t.node_id = $1), 0)::bigint AS "own!",
               coalesce(sum(t.used) FILTER (WHERE t.node_id <> $1), 0)::bigint AS "others!"
        FROM unnest($2::text[], $3::text[], $4::bigint[])
          WITH ORDINALITY AS u (quota, scope, starts, place)
        JOIN gatepost.quota_totals AS t
          ON t.quota = u.quota AND t.scope = u.scope
             AND t.period_start = gatepost.from_micros(u.starts)
        GROUP BY u.place
        "#,
        node,
        &quotas as _,
        &scopes as _,
        &starts
    )
    .fetch_all(conn)
    .await?;
    let key = |place: i64| usize::try_from(place - 1).ok().and_then(|at| keys.get(at)).cloned();
    let used = rows.into_iter();
    Ok(used.filter_map(|r| Some((key(r.place)?, count(r.own), count(r.others)))).collect())
}

async fn current(
    conn: &mut PgConnection,
    node: &str,
    now: Timestamp,
    after: Option<&QuotaKey>,
) -> Result<(Vec<(QuotaKey, u64, u64)>, Option<QuotaKey>), sqlx::Error> {
    let rows = sqlx::query!(
        r#"
        SELECT quota, scope, gatepost.to_micros(period_start) AS "starts!",
               gatepost.to_micros(max(period_end)) AS "ends!",
               coalesce(sum(used) FILTER (WHERE node_id = $1), 0)::bigint AS "own!",
               coalesce(sum(used) FILTER (WHERE node_id <> $1), 0)::bigint AS "others!"
        FROM gatepost.quota_totals
        WHERE period_end > gatepost.from_micros($2)
          AND (quota, scope, period_start) > ($3, $4, gatepost.from_micros($5))
        GROUP BY quota, scope, period_start
        ORDER BY quota, scope, period_start LIMIT $6
        "#,
        node,
        now.0,
        after.map_or("", |key| &*key.quota),
        after.map_or("", |key| &*key.scope),
        after.map_or(i64::MIN, |key| key.period.0),
        PAGE
    )
    .fetch_all(conn)
    .await?;
    let full = i64::try_from(rows.len()).is_ok_and(|rows| rows >= PAGE);
    let used: Vec<_> = (rows.into_iter())
        .map(|row| {
            let key = QuotaKey {
                quota: Name::from(row.quota),
                scope: Name::from(row.scope),
                period: Timestamp(row.starts),
                until: Timestamp(row.ends),
            };
            (key, count(row.own), count(row.others))
        })
        .collect();
    let next = used.last().filter(|_| full).map(|(key, ..)| key.clone());
    Ok((used, next))
}
