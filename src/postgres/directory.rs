//! The operator's direct reads and writes: what does not merge goes straight to Postgres and comes
//! back by the feed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use super::pool::{Checkout, Pool};
use super::rows::count;
use super::sink::{Ledger, ledger};
use super::{PostgresError, Retention, deadline};
use crate::model::fact::Counts;
use crate::model::units::Span;
use crate::model::{Name, Timestamp};

/// What is settled, with the ledger positions that it stands for, read in one snapshot.
#[derive(Clone, Debug)]
pub struct UsageReport {
    /// Totals by client name, in that order.
    pub rows: Vec<(Name, Counts)>,
    /// The last applied sequence number of each stream that was asked for and has one.
    pub ledger: HashMap<Uuid, u64>,
}

/// See the module. Every call is under one deadline, waiting for a connection included.
#[derive(Clone)]
pub struct Directory {
    pool: Arc<Pool>,
    /// For a connection. The pool would try again and again for as long as it may wait.
    connect_timeout: Duration,
    deadline: Duration,
}

impl Directory {
    pub(super) fn new(pool: Arc<Pool>, connect_timeout: Duration, deadline: Duration) -> Self {
        Self { pool, connect_timeout, deadline }
    }

    /// Enables or disables a client; `false` when there is none of that name.
    ///
    /// # Errors
    /// When Postgres cannot be asked; nothing has changed then, as far as one can know.
    pub async fn set_client_enabled(
        &self,
        name: &str,
        enabled: bool,
    ) -> Result<bool, PostgresError> {
        self.with(async |conn| {
            let update = sqlx::query!(
                "UPDATE gatepost.clients SET enabled = $2 WHERE name = $1",
                name,
                enabled
            );
            Ok(update.execute(conn).await?.rows_affected() > 0)
        })
        .await
    }

    /// Enables or disables a key; `false` when there is none with that id.
    ///
    /// # Errors
    /// When Postgres cannot be asked; nothing has changed then, as far as one can know.
    pub async fn set_key_enabled(&self, id: Uuid, enabled: bool) -> Result<bool, PostgresError> {
        self.with(async |conn| {
            let update = sqlx::query!(
                "UPDATE gatepost.api_keys SET enabled = $2 WHERE id = $1",
                id,
                enabled
            );
            Ok(update.execute(conn).await?.rows_affected() > 0)
        })
        .await
    }

    /// The ledger's rows of `streams`, as far as there are any.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn ledger(&self, streams: &[Uuid]) -> Result<HashMap<Uuid, Ledger>, PostgresError> {
        self.with(async |conn| Ok(ledger::read(conn, streams).await?)).await
    }

    /// Settled totals of one client or all, from the hour of `since` on or of all time, and how far
    /// `streams` are applied in the same snapshot: what lies beyond is not in these totals, and all
    /// before it is.
    ///
    /// Of all time are the lifetime totals, so that they agree with the views: also of hours that
    /// were folded or dropped. Bytes and time spent are known of the hours that are there.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn usage(
        &self,
        client: Option<&str>,
        since: Option<Timestamp>,
        streams: &[Uuid],
    ) -> Result<UsageReport, PostgresError> {
        self.with(async |conn| {
            let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
            sqlx::raw_sql(begin).execute(&mut *conn).await?;
            let rows = match since {
                Some(since) => totals_since(&mut *conn, client, since).await?,
                None => lifetime_totals(&mut *conn, client).await?,
            };
            let ledger = positions(&mut *conn, streams).await?;
            sqlx::raw_sql("COMMIT").execute(conn).await?;
            Ok(UsageReport { rows, ledger })
        })
        .await
    }

    /// Makes the partitions of the months to come, and lets go of what is older than it is kept;
    /// how many partitions and rows went.
    ///
    /// # Errors
    /// When Postgres cannot be asked, or refuses.
    pub async fn keep_partitions(&self, retention: &Retention) -> Result<i32, PostgresError> {
        let seconds = |span: Span| span.0.as_secs_f64();
        self.with(async |conn| {
            sqlx::query_scalar!(r#"SELECT gatepost.ensure_partitions() AS "made!""#)
                .fetch_one(&mut *conn)
                .await?;
            let expire = sqlx::query_scalar!(
                r#"SELECT gatepost.expire(make_interval(secs => $1), make_interval(secs => $2))
                   AS "gone!""#,
                seconds(retention.events),
                seconds(retention.hourly)
            );
            Ok(expire.fetch_one(conn).await?)
        })
        .await
    }

    /// Whether Postgres answers at all.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), PostgresError> {
        self.with(async |conn| {
            sqlx::query_scalar!(r#"SELECT 1 AS "one!""#).fetch_one(conn).await?;
            Ok(())
        })
        .await
    }

    /// The server's version as it prints it, `16.4`.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn server_version(&self) -> Result<String, PostgresError> {
        self.setting("server_version").await
    }

    /// The server's clock.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn server_time(&self) -> Result<Timestamp, PostgresError> {
        self.with(async |conn| {
            let now =
                sqlx::query_scalar!(r#"SELECT gatepost.to_micros(clock_timestamp()) AS "now!""#);
            Ok(Timestamp(now.fetch_one(conn).await?))
        })
        .await
    }

    /// How many connections the server takes.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn max_connections(&self) -> Result<u32, PostgresError> {
        let text = self.setting("max_connections").await?;
        text.parse().map_err(|_| PostgresError::Refused(format!("max_connections is `{text}`")))
    }

    async fn setting(&self, name: &str) -> Result<String, PostgresError> {
        self.with(async |conn| {
            let setting = sqlx::query_scalar!(r#"SELECT current_setting($1) AS "value!""#, name);
            Ok(setting.fetch_one(conn).await?)
        })
        .await
    }

    pub(super) async fn with<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, PostgresError>,
    ) -> Result<T, PostgresError> {
        deadline(self.deadline, async {
            let acquired = async { Ok(self.pool.acquire().await?) };
            let mut checkout: Checkout = deadline(self.connect_timeout, acquired).await?;
            let done = work(checkout.conn()).await?;
            checkout.give_back();
            Ok(done)
        })
        .await
    }
}

struct Total {
    client_name: String,
    requests: i64,
    succeeded: i64,
    errors: i64,
    denied: i64,
    bytes_in: i64,
    bytes_out: i64,
    duration_us: i64,
    last_seen: i64,
}

impl From<Total> for (Name, Counts) {
    fn from(total: Total) -> Self {
        let counts = Counts {
            requests: count(total.requests),
            succeeded: count(total.succeeded),
            failed: count(total.errors),
            denied: count(total.denied),
            bytes_in: count(total.bytes_in),
            bytes_out: count(total.bytes_out),
            duration_us: count(total.duration_us),
            last_seen: Timestamp(total.last_seen),
        };
        (total.client_name.into(), counts)
    }
}

async fn totals_since(
    conn: &mut PgConnection,
    client: Option<&str>,
    since: Timestamp,
) -> Result<Vec<(Name, Counts)>, PostgresError> {
    let totals = sqlx::query_as!(
        Total,
        r#"
        SELECT h.client_name AS "client_name!", sum(h.requests)::bigint AS "requests!",
               sum(h.succeeded)::bigint AS "succeeded!", sum(h.errors)::bigint AS "errors!",
               sum(h.denied)::bigint AS "denied!", sum(h.bytes_in)::bigint AS "bytes_in!",
               sum(h.bytes_out)::bigint AS "bytes_out!",
               sum(h.duration_us)::bigint AS "duration_us!",
               coalesce((SELECT gatepost.to_micros(max(t.last_seen_at))
                         FROM gatepost.client_totals AS t WHERE t.client_name = h.client_name),
                        -9223372036854775808) AS "last_seen!"
        FROM gatepost.hourly_totals AS h
        WHERE ($1::text IS NULL OR h.client_name = $1) AND h.hour >= gatepost.from_micros($2)
        GROUP BY h.client_name ORDER BY h.client_name
        "#,
        client,
        Timestamp::from_hour(since.hour()).0
    );
    Ok(totals.fetch_all(conn).await?.into_iter().map(Into::into).collect())
}

async fn lifetime_totals(
    conn: &mut PgConnection,
    client: Option<&str>,
) -> Result<Vec<(Name, Counts)>, PostgresError> {
    let totals = sqlx::query_as!(
        Total,
        r#"
        SELECT s.client_name AS "client_name!", s.total_requests AS "requests!",
               s.successful_requests AS "succeeded!", s.failed_requests AS "errors!",
               s.denied_requests AS "denied!", coalesce(h.bytes_in, 0) AS "bytes_in!",
               coalesce(h.bytes_out, 0) AS "bytes_out!",
               coalesce(h.duration_us, 0) AS "duration_us!",
               coalesce(gatepost.to_micros(s.last_seen_at), -9223372036854775808) AS "last_seen!"
        FROM gatepost.client_statistics AS s
        LEFT JOIN (
          SELECT client_name, sum(bytes_in)::bigint AS bytes_in,
                 sum(bytes_out)::bigint AS bytes_out, sum(duration_us)::bigint AS duration_us
          FROM gatepost.hourly_totals
          WHERE $1::text IS NULL OR client_name = $1 GROUP BY client_name
        ) AS h USING (client_name)
        WHERE $1::text IS NULL OR s.client_name = $1 ORDER BY s.client_name
        "#,
        client
    );
    Ok(totals.fetch_all(conn).await?.into_iter().map(Into::into).collect())
}

async fn positions(
    conn: &mut PgConnection,
    streams: &[Uuid],
) -> Result<HashMap<Uuid, u64>, PostgresError> {
    let rows = sqlx::query!(
        r#"
        WITH asked AS (
          SELECT stream_id, last_seq, closed_seq, retired_by FROM gatepost.stream_ledger
          WHERE stream_id = ANY($1)
        )
        SELECT stream_id AS "stream_id!",
               CASE WHEN retired_by IS NULL THEN last_seq ELSE coalesce(closed_seq, last_seq) END
                 AS "last_seq!"
        FROM asked
        -- What some of them were merged into since the caller looked.
        UNION SELECT l.stream_id, l.last_seq FROM gatepost.stream_ledger AS l
        JOIN asked ON l.stream_id = asked.retired_by
        "#,
        streams
    );
    let rows = rows.fetch_all(conn).await?;
    Ok(rows.into_iter().map(|row| (row.stream_id, count(row.last_seq))).collect())
}
