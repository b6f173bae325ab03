//! Sessions as rows: read by id or page by page, and removed when they are over.

use sqlx::PgConnection;
use uuid::Uuid;

use super::rows::count;
use super::{Directory, PostgresError};
use crate::model::{Advance, Name, Session, Timestamp};

/// The columns of `sessions` as the queries select them; moments in microseconds.
struct Columns {
    id: Uuid,
    node_id: String,
    subject: String,
    client_name: String,
    scopes: Vec<String>,
    generation: i64,
    advanced_at: i64,
    revoked_at: Option<i64>,
    expires_at: i64,
    created_at: i64,
    recovered_at: Option<i64>,
}

impl From<Columns> for Session {
    fn from(row: Columns) -> Self {
        Self {
            id: row.id,
            node: row.node_id.into(),
            subject: row.subject.into(),
            client: row.client_name.into(),
            scopes: row.scopes.into_iter().map(Name::from).collect(),
            created_at: Timestamp(row.created_at),
            expires_at: Timestamp(row.expires_at),
            advance: Advance { generation: count(row.generation), at: Timestamp(row.advanced_at) },
            revoked_at: row.revoked_at.map(Timestamp),
            recovered_at: row.recovered_at.map(Timestamp),
        }
    }
}

/// One session.
pub(super) async fn find(
    conn: &mut PgConnection,
    id: Uuid,
) -> Result<Option<Session>, PostgresError> {
    let row = sqlx::query_as!(
        Columns,
        r#"
        SELECT id, node_id AS "node_id!: String", subject AS "subject!: String",
               client_name AS "client_name!: String", scopes, generation,
               gatepost.to_micros(advanced_at) AS "advanced_at!",
               gatepost.to_micros(revoked_at) AS revoked_at,
               gatepost.to_micros(expires_at) AS "expires_at!",
               gatepost.to_micros(created_at) AS "created_at!",
               gatepost.to_micros(recovered_at) AS recovered_at
        FROM gatepost.sessions WHERE id = $1
        "#,
        id
    );
    Ok(row.fetch_optional(conn).await?.map(Session::from))
}

impl Directory {
    /// Up to `limit` sessions of the gateway `node`, by id beyond `after`.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn sessions(
        &self,
        node: &str,
        after: Uuid,
        limit: usize,
    ) -> Result<Vec<Session>, PostgresError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.with(async |conn| {
            let rows = sqlx::query_as!(
                Columns,
                r#"
                SELECT id, node_id AS "node_id!: String", subject AS "subject!: String",
                       client_name AS "client_name!: String", scopes, generation,
                       gatepost.to_micros(advanced_at) AS "advanced_at!",
                       gatepost.to_micros(revoked_at) AS revoked_at,
                       gatepost.to_micros(expires_at) AS "expires_at!",
                       gatepost.to_micros(created_at) AS "created_at!",
                       gatepost.to_micros(recovered_at) AS recovered_at
                FROM gatepost.sessions WHERE node_id = $1 AND id > $2 ORDER BY id LIMIT $3
                "#,
                node,
                after,
                limit
            );
            Ok(rows.fetch_all(conn).await?.into_iter().map(Session::from).collect())
        })
        .await
    }

    /// Removes up to `limit` sessions of the gateway `node` that expired before `before`; returns
    /// how many. Rows that somebody holds are left for the next time.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn remove_sessions(
        &self,
        node: &str,
        before: Timestamp,
        limit: usize,
    ) -> Result<u64, PostgresError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.with(async |conn| {
            let removed = sqlx::query!(
                r#"
                DELETE FROM gatepost.sessions WHERE id IN (
                  SELECT id FROM gatepost.sessions
                  WHERE node_id = $1 AND expires_at < gatepost.from_micros($2)
                  ORDER BY expires_at LIMIT $3 FOR UPDATE SKIP LOCKED)
                "#,
                node,
                before.0,
                limit
            );
            Ok(removed.execute(conn).await?.rows_affected())
        })
        .await
    }
}
