//! The ledger: one row per stream says how far it is applied. A compare-and-swap on it is what
//! makes sums exactly once.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use super::StreamRange;
use crate::model::fact::Lane;
use crate::postgres::rows::{bigint, count};

/// A stream's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// Everything up to this sequence number is applied, with this stream or with another that it
    /// was merged into.
    pub last_seq: u64,
    /// The stream's end, where it is known.
    pub closed_seq: Option<u64>,
    /// Its facts are being applied with another stream that it was merged into, and nobody knows
    /// how many of them are.
    pub underway: bool,
    /// How long ago anything of it was applied, by Postgres' own clock: at least so long.
    pub rested: Duration,
}

/// Streams whose facts are those of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retirement {
    /// The stream that they were merged into.
    pub by: Uuid,
    /// The lane of both.
    pub lane: Lane,
    /// Each with its last sequence number.
    pub sources: Vec<(Uuid, u64)>,
}

/// The rows of `streams`, as far as there are any.
pub(in crate::postgres) async fn read(
    conn: &mut PgConnection,
    streams: &[Uuid],
) -> Result<HashMap<Uuid, Ledger>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"
        SELECT l.stream_id, l.closed_seq, l.retired_by IS NOT NULL AND NOT m.whole AS "underway!",
               CASE WHEN m.whole THEN coalesce(l.closed_seq, l.last_seq) ELSE l.last_seq END
                 AS "last_seq!",
               extract(epoch FROM clock_timestamp() - greatest(l.updated_at, m.updated_at))
                 ::double precision AS "rested!"
        FROM gatepost.stream_ledger AS l
        CROSS JOIN LATERAL (
          SELECT coalesce(bool_and(last_seq = closed_seq), false) AS whole,
                 max(updated_at) AS updated_at
          FROM gatepost.stream_ledger WHERE stream_id = l.retired_by
        ) AS m
        WHERE l.stream_id = ANY($1)
        "#,
        streams
    );
    let rows = rows.fetch_all(conn).await?.into_iter().map(|row| {
        let ledger = Ledger {
            last_seq: count(row.last_seq),
            closed_seq: row.closed_seq.map(count),
            underway: row.underway,
            // (Negative when its clock was set back.)
            rested: Duration::try_from_secs_f64(row.rested).unwrap_or_default(),
        };
        (row.stream_id, ledger)
    });
    Ok(rows.collect())
}

/// Moves every range forward, and waits for the answer. `false` when a stream of sums is not where
/// its range begins; the caller must roll back then. The state lane merges by itself, so there the
/// ledger only marks progress and never refuses.
pub(super) async fn advance(
    conn: &mut PgConnection,
    node: &str,
    ranges: &[StreamRange],
) -> Result<bool, sqlx::Error> {
    let mut ranges: Vec<&StreamRange> = ranges.iter().collect();
    ranges.sort_by_key(|range| range.stream);
    let streams: Vec<Uuid> = ranges.iter().map(|range| range.stream).collect();
    let lanes: Vec<&str> = ranges.iter().map(|range| range.lane.as_str()).collect();
    sqlx::query!(
        r#"
        INSERT INTO gatepost.stream_ledger (stream_id, node_id, lane)
        SELECT u.stream, $3, u.lane FROM unnest($1::uuid[], $2::text[]) AS u (stream, lane)
        ORDER BY u.stream
        ON CONFLICT (stream_id) DO NOTHING
        "#,
        &streams,
        &lanes as _,
        node
    )
    .execute(&mut *conn)
    .await?;

    let from: Vec<i64> = ranges.iter().map(|range| bigint(range.from)).collect();
    let to: Vec<i64> = ranges.iter().map(|range| bigint(range.to)).collect();
    let closed: Vec<Option<i64>> = ranges.iter().map(|range| range.closed.map(bigint)).collect();
    let moved = sqlx::query_scalar!(
        r#"
        WITH locked AS MATERIALIZED (
          SELECT stream_id FROM gatepost.stream_ledger
          WHERE stream_id = ANY($1) ORDER BY stream_id FOR UPDATE
        )
        UPDATE gatepost.stream_ledger AS l
        SET last_seq = greatest(l.last_seq, u.last), closed_seq = coalesce(l.closed_seq, u.closed),
            updated_at = CASE WHEN u.last > l.last_seq THEN now() ELSE l.updated_at END
        FROM locked, unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[])
          AS u (stream, first, last, closed)
        WHERE l.stream_id = locked.stream_id AND l.stream_id = u.stream
          AND (l.lane = 'state' OR l.last_seq = u.first AND l.retired_by IS NULL
               AND (l.closed_seq IS NULL OR u.last <= l.closed_seq))
        RETURNING l.stream_id
        "#,
        &streams,
        &from,
        &to,
        &closed as &[Option<i64>]
    )
    .fetch_all(conn)
    .await?;
    let holds_back = |range: &&&StreamRange| range.lane != Lane::State;
    Ok(ranges.iter().filter(holds_back).all(|range| moved.contains(&range.stream)))
}

/// Says of every source that its facts are those of another stream. `false` when one of them was
/// applied by itself or with a third, or is named twice, for then its facts are in these sums
/// twice; the caller must roll back then. (Two copies of a directory
/// may lock rows here in opposite order; Postgres ends one of them, and it is tried again.)
pub(super) async fn retire(
    conn: &mut PgConnection,
    node: &str,
    retirement: &Retirement,
) -> Result<bool, sqlx::Error> {
    let streams: Vec<Uuid> = retirement.sources.iter().map(|source| source.0).collect();
    if streams.iter().collect::<HashSet<_>>().len() < streams.len() {
        return Ok(false);
    }
    let ends: Vec<i64> = retirement.sources.iter().map(|source| bigint(source.1)).collect();
    let retired = sqlx::query!(
        r#"
        INSERT INTO gatepost.stream_ledger AS l (stream_id, node_id, lane, closed_seq, retired_by)
        SELECT u.stream, $3, $5, u.ends_at, $4
        FROM unnest($1::uuid[], $2::bigint[]) AS u (stream, ends_at)
        ORDER BY u.stream
        ON CONFLICT (stream_id) DO UPDATE
          SET closed_seq = excluded.closed_seq, retired_by = excluded.retired_by, updated_at = now()
          WHERE l.last_seq = 0 AND (l.retired_by IS NULL OR l.retired_by = excluded.retired_by)
        "#,
        &streams,
        &ends,
        node,
        retirement.by,
        retirement.lane.as_str()
    )
    .execute(conn)
    .await?;
    Ok(usize::try_from(retired.rows_affected()).is_ok_and(|rows| rows == streams.len()))
}
