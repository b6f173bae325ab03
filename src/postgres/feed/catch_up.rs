//! One catch-up: everything between the follower's position and now, in one snapshot.

use std::sync::Arc;

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Feed, FeedError, Missing};
use crate::cache::{Change, ClientRow, Deleted, Follower, PolicyRow, Position};
use crate::model::fact::{Revocation, RevocationKind};
use crate::model::{Client, Name, Policy, Timestamp};
use crate::postgres::rows::KeyColumns;
use crate::postgres::{PostgresError, deadline};

/// Rows in one page.
const PAGE: i64 = 10_000;
/// A line of progress after so many rows.
const PROGRESS: u64 = 100_000;
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
     SET LOCAL idle_in_transaction_session_timeout = '60s'";

/// A page and the place to go on from; the place is `None` after the last one.
type Page<C> = (Vec<Change>, Option<C>);

impl Feed {
    pub(super) async fn catch_up(
        &self,
        conn: &mut PgConnection,
        follower: &Arc<dyn Follower>,
        missing: &Missing,
    ) -> Result<(), FeedError> {
        let stored = follower.position();
        // Short: this is what notices that nobody is there any more.
        let (now, known) = deadline(self.connect_timeout, async {
            sqlx::raw_sql(BEGIN).execute(&mut *conn).await?;
            where_are_we(conn, stored).await
        })
        .await?;
        if stored == Some(now) {
            self.commit(conn).await?;
            follower.still_current();
            return Ok(());
        }
        let full = !known;
        if full {
            self.metrics.postgres.feed_resyncs.inc();
            tracing::info!(revision = now.revision, "reading everything from Postgres");
        }
        follower.begin(now.revision, full);
        // -1: before every row there can be.
        let after = stored.filter(|_| known).map_or(-1, |position| position.revision);
        let rows = self.rows(conn, follower, after, full).await?;
        self.commit(conn).await?;
        let following = Arc::clone(follower);
        let lacking = tokio::task::spawn_blocking(move || following.complete(now)).await??;
        if full {
            tracing::info!(rows, revision = now.revision, "everything from Postgres is read");
        }
        self.metrics.postgres.feed_catch_ups.inc();
        if !lacking.is_empty() {
            tracing::warn!(count = lacking.len(), "Postgres lacks revocations: sent again");
            missing(lacking);
        }
        Ok(())
    }

    /// Revocations before keys, so that no key is seen without its revocation; tombstones last.
    async fn rows(
        &self,
        conn: &mut PgConnection,
        follower: &Arc<dyn Follower>,
        after: i64,
        full: bool,
    ) -> Result<u64, FeedError> {
        let mut told = 0;
        // No id is empty, so nothing of the next revision lies at or before this place.
        let mut place = Some((after + 1, String::new()));
        while let Some(from) = place {
            let page = deadline(self.query_deadline, policies(conn, from)).await?;
            place = self.tell(follower, page, &mut told).await?;
        }
        let mut place = Some((after + 1, String::new()));
        while let Some(from) = place {
            let page = deadline(self.query_deadline, clients(conn, from)).await?;
            place = self.tell(follower, page, &mut told).await?;
        }
        let mut place = Some((after + 1, String::new(), String::new()));
        while let Some(from) = place {
            let page = deadline(self.query_deadline, revocations(conn, from)).await?;
            place = self.tell(follower, page, &mut told).await?;
        }
        let mut place = Some((after, Uuid::max()));
        while let Some(from) = place {
            let page = deadline(self.query_deadline, keys(conn, from)).await?;
            place = self.tell(follower, page, &mut told).await?;
        }
        // Who was told of every row there is needs no tombstones.
        let mut place = (!full).then(|| (after + 1, String::new(), String::new()));
        while let Some(from) = place {
            let page = deadline(self.query_deadline, tombstones(conn, from)).await?;
            place = self.tell(follower, page, &mut told).await?;
        }
        Ok(told)
    }

    /// Applies a page where blocking is allowed. Returns the place of the next.
    async fn tell<C>(
        &self,
        follower: &Arc<dyn Follower>,
        page: Page<C>,
        told: &mut u64,
    ) -> Result<Option<C>, FeedError> {
        let (changes, place) = page;
        if changes.is_empty() {
            return Ok(place);
        }
        let rows = u64::try_from(changes.len()).unwrap_or(u64::MAX);
        let following = Arc::clone(follower);
        tokio::task::spawn_blocking(move || following.apply(changes)).await??;
        self.metrics.postgres.feed_rows.inc_by(rows);
        if (*told + rows) / PROGRESS > *told / PROGRESS {
            tracing::info!(rows = *told + rows, "reading from Postgres");
        }
        *told += rows;
        Ok(place)
    }

    async fn commit(&self, conn: &mut PgConnection) -> Result<(), FeedError> {
        let commit = async {
            sqlx::raw_sql("COMMIT").execute(conn).await?;
            Ok::<_, PostgresError>(())
        };
        Ok(deadline(self.connect_timeout, commit).await?)
    }
}

/// The snapshot's own position, and whether the stored one belongs to its history: after a restore,
/// or a failover to a lagging replica, the same revision bears another mark.
async fn where_are_we(
    conn: &mut PgConnection,
    stored: Option<Position>,
) -> Result<(Position, bool), PostgresError> {
    let row = sqlx::query!(
        r#"
        SELECT n.revision, l.mark AS "mark!",
               EXISTS (SELECT FROM gatepost.change_log AS s
                       WHERE s.table_name = '' AND s.row_id = '' AND s.revision = $1
                         AND s.mark = $2) AS "known!"
        FROM gatepost.change_counter AS n
        JOIN gatepost.change_log AS l ON l.revision = n.revision AND l.table_name = ''
        "#,
        stored.map(|position| position.revision),
        stored.map(|position| Uuid::from_bytes(position.mark))
    )
    .fetch_one(conn)
    .await?;
    Ok((Position { revision: row.revision, mark: *row.mark.as_bytes() }, row.known))
}

/// A full page has a next one.
fn place<R, C>(rows: &[R], of: impl Fn(&R) -> C) -> Option<C> {
    let full = i64::try_from(rows.len()).is_ok_and(|rows| rows >= PAGE);
    rows.last().filter(|_| full).map(of)
}

async fn policies(
    conn: &mut PgConnection,
    (revision, name): (i64, String),
) -> Result<Page<(i64, String)>, PostgresError> {
    let rows = sqlx::query!(
        r#"
        SELECT name AS "name!: String", spec::text AS "spec!", revision FROM gatepost.policies
        WHERE (revision, name) > ($1, $2::text) ORDER BY revision, name LIMIT $3
        "#,
        revision,
        name,
        PAGE
    )
    .fetch_all(conn)
    .await?;
    let next = place(&rows, |row| (row.revision, row.name.clone()));
    let changes = rows.into_iter().map(|row| {
        let policy = Policy { name: row.name.into(), spec: row.spec };
        Change::Policy(PolicyRow { policy, revision: row.revision })
    });
    Ok((changes.collect(), next))
}

async fn clients(
    conn: &mut PgConnection,
    (revision, name): (i64, String),
) -> Result<Page<(i64, String)>, PostgresError> {
    let rows = sqlx::query!(
        r#"
        SELECT name AS "name!: String", policy AS "policy?: String", enabled, revision
        FROM gatepost.clients
        WHERE (revision, name) > ($1, $2::text) ORDER BY revision, name LIMIT $3
        "#,
        revision,
        name,
        PAGE
    )
    .fetch_all(conn)
    .await?;
    let next = place(&rows, |row| (row.revision, row.name.clone()));
    let changes = rows.into_iter().map(|row| {
        let policy = row.policy.map(Name::from);
        let client = Client { name: row.name.into(), policy, enabled: row.enabled };
        Change::Client(ClientRow { client, revision: row.revision })
    });
    Ok((changes.collect(), next))
}

async fn revocations(
    conn: &mut PgConnection,
    (revision, kind, id): (i64, String, String),
) -> Result<Page<(i64, String, String)>, PostgresError> {
    let rows = sqlx::query!(
        r#"
        SELECT kind, id, gatepost.to_micros(at) AS "at!", revision FROM gatepost.revocations
        WHERE (revision, kind, id) > ($1, $2, $3) ORDER BY revision, kind, id LIMIT $4
        "#,
        revision,
        kind,
        id,
        PAGE
    )
    .fetch_all(conn)
    .await?;
    let next = place(&rows, |row| (row.revision, row.kind.clone(), row.id.clone()));
    let changes = rows.into_iter().filter_map(|row| {
        // A kind of a later version means nothing to this one.
        let kind = RevocationKind::parse(&row.kind)?;
        Some(Change::Revocation(Revocation { kind, id: row.id.into(), at: Timestamp(row.at) }))
    });
    Ok((changes.collect(), next))
}

async fn keys(
    conn: &mut PgConnection,
    (revision, id): (i64, Uuid),
) -> Result<Page<(i64, Uuid)>, PostgresError> {
    let rows = sqlx::query_as!(
        KeyColumns,
        r#"
        SELECT id, digest, prefix, last4, client_name AS "client_name!: String",
               policy AS "policy?: String", scopes, enabled,
               gatepost.to_micros(expires_at) AS expires_at,
               gatepost.to_micros(created_at) AS "created_at!", revision
        FROM gatepost.api_keys
        WHERE (revision, id) > ($1, $2) ORDER BY revision, id LIMIT $3
        "#,
        revision,
        id,
        PAGE
    )
    .fetch_all(conn)
    .await?;
    let next = place(&rows, |row| (row.revision, row.id));
    let changes = rows.into_iter().filter_map(|row| row.into_row().map(Change::Key));
    Ok((changes.collect(), next))
}

/// Rows that went away and are not back in this snapshot.
async fn tombstones(
    conn: &mut PgConnection,
    (revision, table, id): (i64, String, String),
) -> Result<Page<(i64, String, String)>, PostgresError> {
    let rows = sqlx::query!(
        r#"
        SELECT l.revision, l.table_name, l.row_id,
               CASE l.table_name
                 WHEN 'clients' THEN EXISTS (SELECT FROM gatepost.clients WHERE name = l.row_id)
                 WHEN 'policies' THEN EXISTS (SELECT FROM gatepost.policies WHERE name = l.row_id)
                 WHEN 'api_keys' THEN
                   EXISTS (SELECT FROM gatepost.api_keys WHERE id = l.row_id::uuid)
                 ELSE false
               END AS "back!"
        FROM gatepost.change_log AS l
        WHERE (l.revision, l.table_name, l.row_id) > ($1, $2, $3) AND l.table_name <> ''
        ORDER BY l.revision, l.table_name, l.row_id LIMIT $4
        "#,
        revision,
        table,
        id,
        PAGE
    )
    .fetch_all(conn)
    .await?;
    let next = place(&rows, |row| (row.revision, row.table_name.clone(), row.row_id.clone()));
    let gone = rows.into_iter().filter(|row| !row.back);
    let changes = gone.filter_map(|row| deleted(&row.table_name, &row.row_id));
    Ok((changes.map(Change::Deleted).collect(), next))
}

fn deleted(table: &str, id: &str) -> Option<Deleted> {
    match table {
        "clients" => Some(Deleted::Client(id.into())),
        "policies" => Some(Deleted::Policy(id.into())),
        "api_keys" => Uuid::parse_str(id).ok().map(Deleted::Key),
        "revocations" => {
            let (kind, id) = id.split_once('/')?;
            Some(Deleted::Revocation(RevocationKind::parse(kind)?, id.into()))
        }
        _ => None,
    }
}
